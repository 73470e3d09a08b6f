"""What is kept when the trainer is killed right after its last call?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from . import kept
from .add_scalar import TAG, VALUE
from .peers import PEERS, MeasurementError, Peer
from .question import Figure, Outcome, Question

SETTLED_SECONDS = 3.0  # nothing has been added for so long: nothing more will be
SECONDS_MAX = 60.0
LOOK_SECONDS = 0.5


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer: a child of this process logs and is killed, and what it leaves is counted."""
    figures: dict[str, float] = {}
    for name, points in (("many", counts["many"]), ("few", counts["few"])):
        folder = logs / name
        child = subprocess.run(
            [sys.executable, "-m", __spec__.name, peer.title, str(folder), str(points)],
            check=False,
            capture_output=True,
            text=True,
        )
        if child.returncode != -signal.SIGKILL:
            raise MeasurementError(f"{peer.name}: exit code {child.returncode}\n{child.stderr[-2000:]}")
        if peer.daemon:
            subprocess.run([sys.executable, "-m", "tbxd", "drain"], check=True, capture_output=True)
        found = _settled(peer, folder, points)
        if found > points:
            raise MeasurementError(f"{peer.name}: {found} points are kept of {points}")
        figures[f"kept_{name}"] = found / points * 100
    return Outcome(figures, counted=True)


def _settled(peer: Peer, folder: Path, points: int) -> int:
    """How many points are kept when no more are added."""
    count, since = -1, time.monotonic()
    deadline = since + SECONDS_MAX
    while True:
        found = kept.points(peer, folder).get(TAG, 0) if folder.exists() else 0
        now = time.monotonic()
        if found != count:
            count, since = found, now
        if count >= points or now - since > SETTLED_SECONDS or now > deadline:
            return count
        time.sleep(LOOK_SECONDS)


def main(name: str, folder: str, points: str) -> None:
    """Log so many points, and be killed."""
    writer = PEERS[name].open(Path(folder))
    for step in range(int(points)):
        writer.add_scalar(TAG, VALUE, step)
    os.kill(os.getpid(), signal.SIGKILL)


QUESTION = Question(
    name="killed",
    title="what is kept after SIGKILL",
    notes=(
        "One process logs 10,000 scalars in a loop, another one 100. Each sends itself SIGKILL in the statement "
        "after the last call. The records in the files are counted when nothing has been added for "
        f"{SETTLED_SECONDS:g} s. The next daemon writes what tbxd's journal holds then; here it is the daemon of "
        "`tbxd drain`."
    ),
    figures=(
        Figure("kept_many", "kept of 10,000", "%", compared=False),
        Figure("kept_few", "kept of 100", "%", compared=False),
    ),
    full={"many": 10_000, "few": 100},
    quick={"many": 500, "few": 100},
    measure=measure,
    rounds_max=1,
)

if __name__ == "__main__":
    main(*sys.argv[1:])
