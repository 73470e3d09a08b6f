"""The share of slips that the tests notice: ``make mutants``.

Each job has a copy of the tree. In it one slip at a time is made, and the tests that ought to notice are run; the
working tree is never touched. A slip is

- *noticed*: one of its tests fails, or they take far longer than they do without it;
- *not noticed*: all of them pass;
- *undecidable*: they fail without the slip, too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import psutil

from slip_list import FOLDER, GENERATED, KNOWN, ROOT, Slip, by_hand, paths_of, tables
from slip_operators import changes

SHARE_MIN = 0.9  # of the slips that can be decided
BOUND_SECONDS = 120.0  # for the tests of one slip, and
BOUND_TIMES = 4  # as often as long as they take without it
GENERATED_COUNT = 60  # of the generated slips, drawn by the seed


@dataclass
class Outcome:
    """What became of a slip: ``verdict``, the test that noticed, and how long it took."""

    slip: Slip
    verdict: str
    by: str
    seconds: float


def generated(root: Path = ROOT) -> list[Slip]:
    """All slips that can be generated for the pure modules, without those that change nothing."""
    lists = tables(FOLDER / GENERATED)
    slips = []
    for module in lists["module"]:
        file = module["file"]
        text = (root / file).read_text()
        same = {(entry["old"], entry["new"]) for entry in lists.get("same", []) if entry["file"] == file}
        for begin, end, new in changes(text):
            line = text[text.rfind("\n", 0, begin) + 1 : text.find("\n", end)].strip()
            changed = line.replace(text[begin:end], new, 1)
            if (line, new) not in same and (line, changed) not in same:
                slips.append(Slip("pure", file, begin, end, new, "", tuple(module["tests"])))
    return slips


class Copy:
    """A copy of the tree, in which slips are made one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count = 0
        self._lock = threading.Lock()
        names = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, names.split("\0")):
            source, target = ROOT / name, root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def pytest(self, tests: tuple[str, ...], bound: float) -> tuple[int | None, str, float]:
        """Run tests in the copy: the exit status, None where they took too long; the first that failed; seconds."""
        base = self.root / "t"
        shutil.rmtree(base, ignore_errors=True)
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("TBXD_", "PYTEST_"))}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ["PYTHONPATH"] = os.pathsep.join([str(self.root), str(self.root / "client")])
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "--hypothesis-profile=slips"]
        process = subprocess.Popen(
            [*command, f"--basetemp={base}", *paths_of(tests, self.root)],
            cwd=self.root,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        code: int | None
        try:
            output, _ = process.communicate(timeout=bound)
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            code = None
        self._end_all()
        failed = [line.split()[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        last = output.strip().splitlines()[-1:] or [""]
        return code, failed[0] if failed else last[0], time.monotonic() - began

    def _end_all(self) -> None:
        """End what the tests have left: whatever has this copy in its PYTHONPATH."""
        for process in psutil.process_iter():
            try:
                if str(self.root) in process.environ().get("PYTHONPATH", ""):
                    process.kill()
            except psutil.Error:
                continue

    def make(self, slip: Slip) -> str:
        """Make a slip; returns the text as it was."""
        path = self.root / slip.file
        text = path.read_text()
        self._write(path, slip.apply(text))
        return text

    def restore(self, slip: Slip, text: str) -> None:
        """Undo it."""
        self._write(self.root / slip.file, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self._count += 1  # compiled files know the source by its size and the second of its time
        then = 1_000_000_000 + 10 * self._count
        os.utime(path, (then, then))


class Trial:
    """Tries slips in some copies at once."""

    def __init__(self, slips: list[Slip], jobs: int, folder: Path) -> None:
        self._queue: Queue[Slip] = Queue()
        for slip in slips:
            self._queue.put(slip)
        self._jobs, self._folder = jobs, folder
        self._texts = {slip.file: (ROOT / slip.file).read_text() for slip in slips}
        self._sound: dict[tuple[str, ...], tuple[bool, float]] = {}
        self._lock = threading.Lock()
        self.outcomes: list[Outcome] = []

    def run(self) -> list[Outcome]:
        """Try all of them."""
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(self._jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.outcomes

    def _work(self, number: int) -> None:
        copy = Copy(self._folder / str(number))
        while True:
            try:
                slip = self._queue.get_nowait()
            except Empty:
                return
            outcome = self._try(copy, slip)
            with self._lock:
                self.outcomes.append(outcome)
                what = slip.describe(self._texts[slip.file])
                print(f"{outcome.verdict:12} {outcome.seconds:5.1f} s  {what}", flush=True)
                print(f"{'':22}{outcome.by if outcome.verdict != 'not noticed' else slip.seen}", flush=True)

    def _try(self, copy: Copy, slip: Slip) -> Outcome:
        _, usual = self._sound.get(slip.tests, (True, 0.0))
        text = copy.make(slip)
        try:
            code, by, seconds = copy.pytest(slip.tests, max(BOUND_SECONDS, BOUND_TIMES * usual))
        finally:
            copy.restore(slip, text)
        if code == 0:
            self._sound[slip.tests] = True, seconds
            return Outcome(slip, "not noticed", "", seconds)
        if slip.tests not in self._sound:
            sound, why, usual = copy.pytest(slip.tests, 10 * BOUND_SECONDS)
            self._sound[slip.tests] = sound == 0, usual
            if sound != 0:
                print(f"without a slip: {' '.join(slip.tests)}: {why}", flush=True)
        sound, usual = self._sound[slip.tests]
        if not sound:
            return Outcome(slip, "undecidable", by, seconds)
        if code is None and seconds < BOUND_TIMES * usual:
            return Outcome(slip, "undecidable", f"took longer than {seconds:.0f} s, and {usual:.0f} s without", seconds)
        return Outcome(slip, "noticed", by if code is not None else "took too long", seconds)


def main() -> int:
    """Try slips and print a table; 1 where too few are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="slips whose list, file, texts or tests hold this")
    parser.add_argument("--sample", type=int, default=0, help="so many of those that are made by hand; 0: all")
    parser.add_argument("--generated", type=int, default=GENERATED_COUNT, help="so many of the generated; -1: all")
    parser.add_argument("--seed", type=int, default=1, help="draws the samples")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="slips tried at once")
    options = parser.parse_args()

    def wanted(slip: Slip) -> bool:
        text = (ROOT / slip.file).read_text()
        return any(options.only in part for part in (slip.group, slip.describe(text), slip.seen, *slip.tests))

    draw = random.Random(options.seed)
    hand, made = list(filter(wanted, by_hand())), list(filter(wanted, generated()))
    if options.sample:
        hand = draw.sample(hand, min(options.sample, len(hand)))
    if options.generated >= 0:
        made = draw.sample(made, min(options.generated, len(made)))
    slips = hand + made
    with tempfile.TemporaryDirectory(prefix="slips-") as folder:
        outcomes = Trial(slips, options.jobs, Path(folder)).run()
    return report(outcomes)


def report(outcomes: list[Outcome]) -> int:
    """Print what became of the slips, list by list; 1 where too few are noticed."""
    verdicts = ("noticed", "not noticed", "undecidable")
    print(f"\n{'list':20}" + "".join(f"{verdict:>13}" for verdict in verdicts))
    for group in sorted({outcome.slip.group for outcome in outcomes}):
        of_group = [outcome.verdict for outcome in outcomes if outcome.slip.group == group]
        print(f"{group:20}" + "".join(f"{of_group.count(verdict):13}" for verdict in verdicts))
    counted = [outcome.verdict for outcome in outcomes if outcome.slip.group != KNOWN]
    counts = [counted.count(verdict) for verdict in verdicts]
    decided = counts[0] + counts[1]
    share = counts[0] / decided if decided else 0.0
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{'all but ' + KNOWN:20}" + "".join(f"{count:13}" for count in counts))
    print(f"{share:.0%} of {decided} noticed, in {seconds:.0f} s of tests; {SHARE_MIN:.0%} are wanted")
    return 0 if share >= SHARE_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
