"""What does it cost to begin: the import, and the first record with no daemon running?"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .add_scalar import TAG, VALUE
from .peers import Peer
from .question import Figure, Logged, Outcome, Question


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    bare, importing = [], []
    for _ in range(counts["imports"]):
        bare.append(_python("pass"))
        importing.append(_python(f"import {peer.imports or 'csv'}"))
    __import__(peer.imports or "csv")
    __import__(peer.module)
    start = time.perf_counter()
    writer = peer.open(logs / "run")
    opened = time.perf_counter()
    writer.add_scalar(TAG, VALUE, 0)
    first = time.perf_counter()
    peer.close(writer)
    return Outcome(
        {
            "import_ms": max(statistics.median(importing) - statistics.median(bare), 0) * 1e3,
            "bare_ms": statistics.median(bare) * 1e3,
            "open_ms": (opened - start) * 1e3,
            "first_ms": (first - opened) * 1e3,
            "both_ms": (first - start) * 1e3,
            "close_ms": (time.perf_counter() - first) * 1e3,
        },
        [Logged("run", TAG, "simple_value", 1)],
    )


def _python(code: str) -> float:
    """Seconds that an interpreter with this to do takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


QUESTION = Question(
    name="starting",
    title="import and first record",
    notes=(
        "The import is that of a fresh interpreter compared with one that imports nothing, in turns, medians of 5 "
        "each, with bytecode present. The peers of one environment differ in what else is installed there "
        "(tensorboardX imports torch if it is installed). After the import, the writer is made and logs a first "
        "scalar. No daemon runs before: tbxd starts one meanwhile. Closing includes flush(), so it lasts until the "
        "record is in the file."
    ),
    figures=(
        Figure("import_ms", "import, over bare Python", "ms"),
        Figure("bare_ms", "bare Python, for scale", "ms", compared=False),
        Figure("open_ms", "make the writer", "ms"),
        Figure("first_ms", "the first call", "ms"),
        Figure("both_ms", "both", "ms"),
        Figure("close_ms", "flush and close", "ms"),
    ),
    full={"imports": 5},
    quick={"imports": 1},
    measure=measure,
    rounds_max=2,
)
