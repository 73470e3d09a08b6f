"""A job of 64 ranks on three hosts, of which one begins late, one is killed and one host's link is cut and healed."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import World, wait_for
from hosts import Hosts, hosts, network, wait_connected
from one_by_one import read_events
from tb import LOADERS, board
from tbxd.tfevents.ledger import decode_ranks
from tbxd_client.logdir.event_names import event_files
from tbxd_client.transport.connection import SILENCE_MS

WORLD = 64
HERE, CUT = range(22), range(43, 64)  # ranks on the daemon's host, and on the one whose link is cut; others between
LATE, KILLED = 42, 30  # both on the second host
TAGS = ("loss", "tokens", "time", "lr", "weights")
SCALARS = {"loss": np.mean, "tokens": np.sum, "time": lambda values: np.percentile(values, 99)}  # of all ranks
HISTOGRAM_STEPS = 10
BEGAN, TOGETHER, APART, BACK, END = 20, 40, 70, 100, 120  # steps at which something happens
PACE = 0.02  # seconds a step, of the rank that is killed in the middle of one
CALL_SECONDS = 15.0  # that a call may take while 64 processes share two cores; a wait for the network would be longer

# A rank writes down what it logs before each call and marks it when the call has returned: a kill leaves the last open.
RANK = """
    import array, json, os, random, struct, sys, time
    from tbxd_client import SummaryWriter

    rank, random = int(os.environ["TBXD_RANK"]), random.Random(int(os.environ["TBXD_RANK"]))
    kept, entry = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), struct.Struct("<BBqd")
    place, longest = 0, 0.0

    def log(call, tag, number, value, step):
        global place, longest
        os.pwrite(kept, entry.pack(0, number, step, value if isinstance(value, float) else rank), place)
        begun = time.perf_counter()
        call(tag, value, step)
        longest = max(longest, time.perf_counter() - begun)
        os.pwrite(kept, b"\\1", place)
        place += entry.size

    def shard(step):
        return array.array("f", [random.gauss(step / 100, 1) for _ in range(5 + rank % 7)])

    writer = SummaryWriter(sys.argv[1], reduce={"tokens": "sum", "tim*": "p99"})
    print("ready", flush=True)
    for line in sys.stdin:
        longest, (begin, end, pace) = 0.0, json.loads(line)
        for step in range(begin, end):
            for number, tag in enumerate(("loss", "tokens", "time")):
                log(writer.add_scalar, tag, number, random.gauss(rank, 1 + number), step)
            if rank == 0:
                log(writer.add_scalar, "lr", 3, 0.5 ** (step / 30), step)
            if step % 10 == 0:
                numbers = shard(step)
                with open(f"{sys.argv[2]}-{step}", "wb") as file:
                    numbers.tofile(file)
                log(writer.add_histogram, "weights", 4, numbers, step)
            time.sleep(pace)
        print(json.dumps(longest), flush=True)
    flushed = writer.flush(90)
    writer.close()
    print(json.dumps({"flushed": flushed, **writer.stats()}), flush=True)
"""
ENTRY = np.dtype([("returned", "u1"), ("tag", "u1"), ("step", "<i8"), ("value", "<f8")])

Key = tuple[str, int]  # tag and step


def calls(steps: int) -> int:
    """How many a rank makes in some steps."""
    return len(SCALARS) * steps + steps // HISTOGRAM_STEPS


class Job:
    """The ranks as processes, and what they have written down."""

    def __init__(self, place: World, start: Callable[[int], subprocess.Popen[Any]]) -> None:
        self.place = place
        self._start = start
        self.ranks: dict[int, subprocess.Popen[Any]] = {}

    def begin(self, *ranks: int) -> None:
        """Start ranks, and wait until each has its writer."""
        self.ranks |= {rank: self._start(rank) for rank in ranks}
        for rank in ranks:
            assert self._hear(rank) == "ready\n"

    def tell(self, ranks: list[int] | range, begin: int, end: int, pace: float = 0.0) -> None:
        """Have ranks log some steps."""
        for rank in ranks:
            stdin = self.ranks[rank].stdin
            assert stdin is not None
            stdin.write(json.dumps((begin, end, pace)) + "\n")
            stdin.flush()

    def log(self, ranks: list[int] | range, begin: int, end: int) -> None:
        """Have ranks log some steps, and wait until they have."""
        self.tell(ranks, begin, end)
        self.logged(ranks)

    def logged(self, ranks: list[int] | range) -> None:
        """Wait until they have; no call has waited for anything but the processor."""
        for rank in ranks:
            assert json.loads(self._hear(rank)) < CALL_SECONDS, "training has waited"

    def end(self) -> None:
        """Let all that live end."""
        for process in self.ranks.values():
            assert process.stdin is not None
            process.stdin.close()
        for rank, process in self.ranks.items():
            if process.poll() is None:
                said = json.loads(self._hear(rank))
                assert said["flushed"], said  # what is pending waits for other ranks
                assert process.wait(60) == 0

    def _hear(self, rank: int) -> str:
        stdout = self.ranks[rank].stdout
        assert stdout is not None
        return str(stdout.readline())

    def kept(self, rank: int) -> Any:
        """What a rank has written down: `ENTRY`, one for each call."""
        return np.fromfile(self.place.root / f"kept{rank}", ENTRY)

    def shard(self, rank: int, step: int) -> Any:
        """What it has logged as a histogram."""
        return np.fromfile(self.place.root / f"kept{rank}-{step}", np.float32)


def read(directory: Path) -> dict[Key, tuple[Any, frozenset[int] | None, str]]:
    """Each point of a folder: its value, which ranks are in it (None: all, or one's own), and what kind of mark it has;
    once, and of each tag in the order of the steps."""
    (name,) = event_files(directory)
    found: dict[Key, tuple[Any, frozenset[int] | None, str]] = {}
    last: dict[str, int] = {}
    mark = ""
    for event in read_events(directory / name):
        mark = event.source_metadata.writer or mark
        for value in event.summary.value:
            assert event.step > last.get(value.tag, -1), f"{value.tag} at {event.step} comes after {last[value.tag]}"
            last[value.tag] = event.step
            ranks = decode_ranks(mark) if mark.startswith("R") else None
            content = value.histo if value.HasField("histo") else value.simple_value
            found[value.tag, event.step] = (content, ranks, mark[:1])
    return found


def is_near(found: float, expected: float) -> bool:
    """Whether a float32 is right but for its last bit."""
    return bool(np.abs(np.float32(found) - np.float32(expected)) <= np.spacing(np.abs(np.float32(expected))))


def judge(job: Job, run: dict[str, Any]) -> dict[str, int]:
    """Compare the event files with what the ranks have written down; returns what has to be counted of them.

    Every value is in the point of its tag and step, or late; no point has one that nobody logged.
    """
    folder = job.place.logdir / "exp"
    logged: dict[Key, dict[int, float]] = {}
    open_ends = []
    for rank in range(WORLD):
        for returned, tag, step, value in job.kept(rank).tolist():
            assert rank not in logged.setdefault((TAGS[tag], step), {})
            logged[TAGS[tag], step][rank] = value
            if not returned:
                open_ends.append((rank, TAGS[tag], step))
    assert len(open_ends) <= 1 and all(rank == KILLED for rank, _, _ in open_ends)
    begun = sum(map(len, logged.values()))
    if run["accepted"] == begun - len(open_ends):  # the kill came before the commit
        for rank, tag, step in open_ends:
            del logged[tag, step][rank]
    assert run["accepted"] == sum(map(len, logged.values()))

    points, low, high = read(folder), read(folder / "ranks" / "min"), read(folder / "ranks" / "max")
    about = read(folder / "ranks")
    shown = {key for key in points if not key[0].startswith("tbxd/")}
    assert shown == {key for key, ranks in logged.items() if ranks}
    assert low.keys() == high.keys() == {key for key in shown if key[0] in SCALARS}
    late = missing = 0
    for (tag, step), of_ranks in logged.items():
        content, mark, kind = points[tag, step]
        if tag == "lr":
            assert of_ranks.keys() == {0} and kind != "R" and content == np.float32(of_ranks[0])
            continue
        assert kind == "R"
        present = sorted(range(WORLD) if mark is None else mark)
        assert set(present) <= of_ranks.keys(), "a point is of ranks that have logged it"
        late += len(of_ranks) - len(present)
        missing += WORLD - (step < BEGAN) - len(present)  # who has never logged a tag is not missed
        if tag == "weights":
            numbers = np.concatenate([job.shard(rank, step) for rank in present]).astype(np.float64)
            assert (content.num, content.min, content.max) == (len(numbers), numbers.min(), numbers.max())
            assert content.sum == pytest.approx(numbers.sum(), rel=1e-12)
            assert content.sum_squares == pytest.approx(np.square(numbers).sum(), rel=1e-12)
            assert list(content.bucket)[1:] == np.histogram(numbers, np.array(content.bucket_limit))[0].tolist()
            continue
        values = np.array([of_ranks[rank] for rank in present])
        assert is_near(content, SCALARS[tag](values)), (tag, step)
        assert low[tag, step][:2] == (np.float32(values.min()), mark)
        assert high[tag, step][:2] == (np.float32(values.max()), mark)
        for word, expected in (
            ("std", values.std()),
            ("lowest", present[int(values.argmin())]),
            ("highest", present[int(values.argmax())]),
        ):
            assert is_near(about[f"tbxd/ranks/{word}/{tag}", step][0], expected), (word, tag, step)
    for side, name in ((points, "loss"), (low, "loss"), (about, "tbxd/ranks/std/loss")):
        assert [step for tag, step in side if tag == name] == list(range(END))
    return {"late": late, "missing": missing}


def last(points: dict[Key, Any], tag: str) -> float:
    """The last value of a curve; 0 where there is none."""
    return float(next((content for (name, _), (content, *_) in reversed(points.items()) if name == tag), 0.0))


@pytest.mark.long
@pytest.mark.parametrize("seconds", [90, pytest.param(6, marks=pytest.mark.matrix)], ids=["waited for", "passed over"])
def test_64_ranks_on_three_hosts_are_one_run_whatever_is_late_killed_or_cut(place: World, seconds: int) -> None:
    """Where a cut is shorter than a rank is waited for nothing is missing of it; else it is counted, value by value."""
    place.extra |= {"TBXD_RANKS_SECONDS": str(seconds)}
    name = random.Random().randbytes(3).hex()
    with hosts(place) as second, another(second) as third, network(f"a{name}") as to_second, network(f"b{name}") as cut:
        second.options = ("--listen", f"tcp://0.0.0.0:{second.port}", "--roots", str(place.logdir))
        second.address, third.address = (f"tcp://{net.here}:{second.port}" for net in (to_second, cut))
        environs = {
            host: host.environ(host.key(f"host{number}"), TBXD_FLUSH_SECONDS="90")
            for number, host in enumerate((second, third))
        }
        second.serve()

        def start(rank: int) -> subprocess.Popen[Any]:
            far = () if rank in HERE else (third, cut) if rank in CUT else (second, to_second)
            return place.start(
                RANK,
                *(place.logdir / "exp", place.root / f"kept{rank}"),
                under=far[1].under if far else (),
                environ={
                    **(environs[far[0]] if far else {}),
                    **{"TBXD_RANK": str(rank), "TBXD_WORLD_SIZE": str(WORLD), "TBXD_RUN_ID": "job"},
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

        def run() -> dict[str, Any]:
            return dict(second.status()["runs"].get(str(place.logdir / "exp"), {}))

        job = Job(place, start)
        everybody = [rank for rank in range(WORLD) if rank != LATE]
        job.begin(*everybody)
        job.log(everybody, 0, BEGAN)
        first = len(everybody) * calls(BEGAN) + BEGAN  # of one of them another curve
        wait_for(lambda: run().get("written") == first, "points without the rank that is late", 90.0, pause=0.2)

        job.begin(LATE)
        job.log([LATE], 0, TOGETHER)
        wait_for(lambda: run()["ranks"]["waiting"] == calls(TOGETHER - BEGAN), "the late one to be ahead", pause=0.2)
        assert run()["dropped"] == {"late_rank": calls(BEGAN)}
        job.log(everybody, BEGAN, TOGETHER)

        everybody = [rank for rank in range(WORLD) if rank != KILLED]
        job.tell([KILLED], TOGETHER, 10**9, PACE)
        job.tell(everybody, TOGETHER, APART, PACE)
        wait_for(lambda: job.kept(KILLED)["step"].max() > TOGETHER + 5, "the rank to be in the middle")
        job.ranks[KILLED].kill()
        job.ranks[KILLED].wait()
        job.logged(everybody)

        cut.cut()
        job.log(everybody, APART, BACK)
        wait_connected(cut, second.port, False, SILENCE_MS / 1000 * 3)  # pings were not answered: given up
        folder = place.logdir / "exp"
        if seconds < SILENCE_MS / 1000:
            wait_for(lambda: ("loss", BACK - 1) in read(folder), "points without the host that is cut", pause=0.5)
        else:
            assert max(step for tag, step in read(folder) if tag == "loss") < APART, "they wait for it"
        before = run()["ranks"]["late"]
        cut.heal()
        if seconds < SILENCE_MS / 1000:  # it catches up before all go on
            late = len(CUT) * calls(BACK - APART)
            wait_for(lambda: run()["ranks"]["late"] >= before + late, "what comes too late", pause=0.2)
        job.log(everybody, BACK, END)
        job.end()
        wait_for(lambda: place.drained() and not second.left() and not third.left(), "all journals")

        settled = run()
        counts = judge(job, settled)
        assert settled["pending"] == 0 and settled["dropped"] == {"late_rank": counts["late"]}
        assert settled["written"] == settled["accepted"] - counts["late"]
        assert (settled["ranks"]["missing"], settled["ranks"]["late"]) == (counts["missing"], counts["late"])
        about = read(folder / "ranks")
        assert last(about, "tbxd/ranks/missing") == counts["missing"]
        assert last(about, "tbxd/ranks/late") == counts["late"]
        if seconds < SILENCE_MS / 1000:
            assert counts["late"] >= late
        shows(place.logdir)


@contextmanager
def another(host: Hosts) -> Iterator[Hosts]:
    """One more host, that is gone afterwards."""
    other = host.another("third")
    try:
        yield other
    finally:
        other.end()


def shows(logdir: Path) -> None:
    """TensorBoard shows what is in the files, with both loaders, and nothing else."""
    folders = {run: logdir / run for run in ("exp", "exp/ranks", "exp/ranks/min", "exp/ranks/max")}
    assert {str(path.parent.relative_to(logdir)) for path in logdir.rglob("*tfevents*")} == folders.keys()
    written = {run: read(folder) for run, folder in folders.items()}
    for loader in LOADERS:
        with board(logdir, loader) as shown:
            shown.until(lambda shown=shown: shown.runs() == folders.keys(), "the run and its sides")
            shown.until(lambda shown=shown: len(shown.scalars("exp", "loss")) == END, "all steps")
            for run, points in written.items():
                tags = {tag for tag, _ in points}
                assert shown.tags()[run] == tags - {"weights"}
                for tag in tags - {"weights"}:
                    curve = [(step, content) for (name, step), (content, *_) in points.items() if name == tag]
                    assert shown.scalars(run, tag) == curve, (loader, run, tag)
            assert len(shown.tensors("exp", "weights", "histograms")) == END // HISTOGRAM_STEPS
