"""``make bench-peers``: a virtual environment of its own for each further peer, from the versions in ``environments/``.

Nothing of them is needed to use, build or test tbxd. What cannot be installed is left out, and said; what is there
already is left alone. ``--fresh`` takes today's versions instead, and writes them down.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import click

from .peers import PEERS, VENVS, Peer

PINNED = Path(__file__).parent / "environments"
BESIDE = ("numpy", "pillow")  # what the measurement needs beside the peer


@click.command(help=__doc__)
@click.option("--fresh", is_flag=True, help="Today's versions, which are written to environments/.")
@click.option("--only", type=click.Choice([name for name, peer in PEERS.items() if peer.environment]), multiple=True)
def main(fresh: bool, only: tuple[str, ...]) -> None:
    """Make the environments that are missing or of other versions."""
    for peer in PEERS.values():
        if peer.environment and (not only or peer.name in only):
            click.echo(f"{peer.name}: {_made(peer, fresh)}")


def _made(peer: Peer, fresh: bool) -> str:
    """What became of the environment of a peer."""
    pinned = PINNED / f"{peer.environment}.txt"
    mark = VENVS / peer.environment / "installed"
    if not fresh and mark.exists() and mark.read_text() == _digest(pinned):
        return "is there"
    shutil.rmtree(mark.parent, ignore_errors=True)
    wanted = [*peer.packages, *BESIDE] if fresh else ["--requirement", str(pinned)]
    try:
        _run(sys.executable, "-m", "venv", str(mark.parent))
        _run(peer.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
        _run(peer.python, "-c", f"import {peer.imports}")
        if fresh:
            pinned.write_text(_run(peer.python, "-m", "pip", "freeze"))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        shutil.rmtree(mark.parent, ignore_errors=True)
        return f"left out: {reason}"
    mark.write_text(_digest(pinned))
    return "installed"


def _digest(pinned: Path) -> str:
    return hashlib.sha256(pinned.read_bytes()).hexdigest()


def _run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.environment")
