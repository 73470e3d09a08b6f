"""``python -m benchmarks.kept PEER``: as JSON, how many points of each tag are in each folder of stdin."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import event_files
from .peers import PEERS, MeasurementError, Peer

ROOT = Path(__file__).parent.parent


def points(peer: Peer, folder: Path, environ: Mapping[str, str] | None = None) -> dict[str, int]:
    """Points by tag, read by a process that has written nothing.

    Raises:
        MeasurementError: they cannot be read.
    """
    (found,) = points_of_all(peer, [folder], environ)
    return found


def points_of_all(
    peer: Peer, folders: Sequence[Path], environ: Mapping[str, str] | None = None
) -> Iterator[dict[str, int]]:
    """Points by tag of each folder; one process reads them all, as the import of some peers takes seconds.

    Raises:
        MeasurementError: they cannot be read.
    """
    if not peer.tracker:
        yield from (dict(event_files.points(folder)) for folder in folders)
        return
    arguments = [peer.python, "-m", "benchmarks.kept", peer.title]
    done = subprocess.run(
        arguments,
        input="\n".join(map(str, folders)),
        check=False,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise MeasurementError(f"what {peer.name} has left cannot be read\n{done.stderr[-2000:]}")
    yield from json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    kept = importlib.import_module(PEERS[sys.argv[1]].module).kept
    print(json.dumps([kept(Path(line.rstrip("\n"))) for line in sys.stdin]))
