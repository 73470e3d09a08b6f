"""``python -m benchmarks.kept PEER FOLDER``: as JSON, how many points of each tag a peer's files hold."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from . import event_files
from .peers import PEERS, MeasurementError, Peer

ROOT = Path(__file__).parent.parent


def points(peer: Peer, folder: Path, environ: Mapping[str, str] | None = None) -> dict[str, int]:
    """Points by tag, read by a process that has written nothing.

    Raises:
        MeasurementError: they cannot be read.
    """
    if not peer.tracker:
        return dict(event_files.points(folder))
    arguments = [peer.python, "-m", "benchmarks.kept", peer.title, str(folder)]
    done = subprocess.run(arguments, check=False, cwd=ROOT, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise MeasurementError(f"{folder} of {peer.name} cannot be read\n{done.stderr[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    print(json.dumps(importlib.import_module(PEERS[sys.argv[1]].module).kept(Path(sys.argv[2]))))
