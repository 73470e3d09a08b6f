"""A trainer for the fault tests, run as a program: logs what `oracle.log_record` says, and counts what it has logged.

python trainer.py NUMBER '{"folder": "logs/shared", "count": 1000, "hz": 1000, "end": "return"}'
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from numbered import COUNTERS, log_record

TIMES_MAX = 200_000  # of the calls, kept for a percentile
PAUSE_SECONDS = 0.02  # between the bursts of a trainer that has a pace


class Counter:
    """How many calls have returned, in a file that whoever kills this process can read."""

    def __init__(self, trainer: int) -> None:
        folder = Path(COUNTERS)
        folder.mkdir(exist_ok=True)
        path = folder / str(trainer)
        new = folder / f".{trainer}"
        new.write_bytes(bytes(16))
        with open(new, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)
        new.rename(path)
        self._words = memoryview(self._map).cast("Q")

    def returned(self, count: int) -> None:
        self._words[0] = count

    def ended(self) -> None:
        self._words[1] = 1


def main() -> None:
    trainer, options = int(sys.argv[1]), json.loads(sys.argv[2])
    count, hz, mixed = options.get("count", 10**12), options.get("hz", 0), options.get("mixed", True)
    counter = Counter(trainer)
    from tbxd_client import SummaryWriter

    writer = SummaryWriter(options["folder"])
    burst = max(1, round(hz * PAUSE_SECONDS))
    started = time.monotonic()
    took = []
    for number in range(count):
        begun = time.monotonic()
        log_record(writer, trainer, number, mixed)
        took.append(time.monotonic() - begun)
        if len(took) > TIMES_MAX:
            del took[:-1]
        counter.returned(number + 1)
        if hz and number % burst == burst - 1:
            time.sleep(max(0.0, started + (number + 1) / hz - time.monotonic()))
        if number == options.get("pause", 0) - 1:
            sys.stdin.readline()
        if number == options.get("say", 100) - 1:
            print("going", flush=True)
    counter.ended()
    print(
        json.dumps(
            {"logged": count, "p99": sorted(took)[len(took) * 99 // 100], "longest": max(took), "stats": writer.stats()}
        ),
        flush=True,
    )
    if options.get("wait"):
        sys.stdin.readline()
    if options.get("flush"):
        print(json.dumps({"flushed": writer.flush(options["flush"]), "stats": writer.stats()}), flush=True)
    leave(options.get("end", "return"))


def leave(how: str) -> None:
    """End the process in some way."""
    if how == "sys.exit":
        sys.exit(7)
    if how == "exception":
        raise RuntimeError("the training failed")
    if how == "os._exit":
        os._exit(9)
    if how in ("SIGTERM", "SIGKILL"):
        os.kill(os.getpid(), getattr(signal, how))
    if how == "Ctrl-C":
        os.kill(os.getpid(), signal.SIGINT)
    if how == "hang":
        time.sleep(3600)


if __name__ == "__main__":
    main()
