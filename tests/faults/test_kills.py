"""Random kills under load, while TensorBoard reads: nothing lost, nothing twice, every step shown once.

``TBXD_KILLS`` sets how many daemons and how many trainers are killed (`make faults`: 20 of each), and ``TBXD_SEED``
replays them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from harness import World, events, scalars, wait_for, world
from inject import replays_due, train
from numbered import kind_of, tag_of, value_of
from oracle import Count, Verdict, judge, read_count
from report import account
from tb import LOADERS, Board, board
from tbxd.tfevents.contents import Contents

# A round ends with so many kills, or so many records: then all is checked and deleted. The slow loader keeps 1.4 KB of
# each point in this process, and whatever reads along takes the longer the more there is, while trainers log on: on a
# busy machine fifty kills took hours and gigabytes.
KILLS_OF_A_ROUND, RECORDS_OF_A_ROUND = 50, 300_000
KILLS_MORE = 30
HELD_SHARE = 0.3  # of the kills of daemons, in which its trainers are stopped
MEMORY_MAX = 1 << 30  # bytes that this process takes for it, however many kills there are
TRAINERS = 3


@contextmanager
def tailing(logdir: Path) -> Iterator[dict[str, Board]]:
    """A TensorBoard of each kind that reads all the while."""
    with ExitStack() as stack:
        boards = {loader: stack.enter_context(board(logdir, loader)) for loader in LOADERS}
        ended = threading.Event()

        def reload() -> None:
            while not ended.wait(0.5):
                boards["slow"]._reload()

        thread = threading.Thread(target=reload)
        thread.start()
        try:
            yield boards
        finally:
            ended.set()
            thread.join()


def assert_shown(boards: dict[str, Board], trainers: dict[int, str], counts: dict[int, Count]) -> None:
    """Every loader shows every scalar of every trainer once, and in order."""
    for loader, shown in boards.items():
        for trainer, run in trainers.items():
            tag = tag_of(trainer, "scalar")
            wanted = [n for n in range(counts[trainer].returned) if kind_of(n) == "scalar"]
            if not wanted:
                continue
            points = shown.until(
                lambda shown=shown, run=run, tag=tag, wanted=wanted: (
                    (found := shown.scalars(run, tag)) and len(found) >= len(wanted) and found
                ),
                f"{len(wanted)} points of {tag} ({loader})",
            )
            steps = [step for step, _ in points]
            assert steps[: len(wanted)] == wanted and len(steps) <= len(wanted) + 1, f"{loader}, {tag}"
            assert all(value == value_of(trainer, step) for step, value in points), f"{loader}, {tag}"


def memory() -> int:
    """Bytes that this process has."""
    return int(psutil.Process().memory_info().rss)


@dataclass
class Done:
    """What all rounds together have done."""

    killed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("daemon", "trainer", "both"), 0))
    replays: int = 0  # sessions of which a daemon was sent again what a killed one had written
    trainers: int = 0  # that were started: the number of the next
    verdict: Verdict = field(default_factory=Verdict)
    memory: int = field(default_factory=memory)  # of this process, when nothing was done

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    def is_enough(self, kills: int) -> bool:
        """Whether so many daemons and so many trainers were killed, and each thing has happened that is to happen."""
        killed = self.killed
        again = self.replays or killed["daemon"] >= kills + KILLS_MORE
        return min(killed["daemon"], killed["trainer"]) >= kills and bool(killed["both"] and again)


def one_round(place: World, rng: random.Random, kills: int, done: Done) -> None:
    """Kill until it is enough, or there is as much to be read as one round may have."""
    trainers: dict[int, str] = {}
    alive: dict[int, subprocess.Popen[bytes]] = {}
    killed, before = done.killed, done.kills
    seen: dict[Path, Contents] = {}  # folders as far as they have been read

    def start() -> None:
        number = done.trainers
        done.trainers += 1
        trainers[number] = rng.choice(["shared", "shared", f"own{number}"])
        folder, hz = f"logs/{trainers[number]}", rng.choice([200, 1000, 3000])
        alive[number] = train(place, number, folder, hz=hz, count=RECORDS_OF_A_ROUND, end="hang")

    def logged() -> int:
        return sum(read_count(place, number).returned for number in trainers)

    place.logdir.mkdir()
    with tailing(place.logdir) as boards:
        for _ in range(TRAINERS):
            start()
        wait_for(lambda: all(read_count(place, number).returned for number in alive), "the trainers to log")
        while not done.is_enough(kills) and done.kills < before + KILLS_OF_A_ROUND and logged() < RECORDS_OF_A_ROUND:
            until = time.monotonic() + rng.uniform(0.02, 0.8)
            wait_for(lambda until=until: time.monotonic() > until, "a random moment")
            what = rng.choice(["daemon", "trainer", "both"])
            if what == "both" and killed["both"] > kills // 5:
                what = "daemon" if killed["daemon"] < killed["trainer"] else "trainer"
            held = what == "daemon" and rng.random() < HELD_SHARE
            if held:
                hold(place, alive.values())
            if what == "daemon":
                place.kill_daemon()
            else:
                number = rng.choice(sorted(alive))
                wait_for(lambda number=number: read_count(place, number).returned, "the trainer to log")
                pid = wait_for(place.running, "a daemon") if what == "both" else None
                trainer = alive.pop(number)
                trainer.send_signal(signal.SIGKILL)
                if pid is not None:
                    psutil.Process(pid).kill()
                bury(place, trainer)
                start()
                if pid is not None:  # the other trainers may have started another by now
                    wait_for(lambda pid=pid: place.running() != pid, "the daemon to die")
            killed[what] += 1
            if what != "trainer":
                done.replays += replays_due(place, seen)
                for trainer in alive.values() if held else ():
                    trainer.send_signal(signal.SIGCONT)
                if rng.random() < 0.5:
                    place.ensure()
        for trainer in alive.values():
            bury(place, trainer)
        place.ensure()
        wait_for(place.drained, "all journals to be drained")
        counts = {number: read_count(place, number) for number in trainers}
        verdict = judge([place.logdir / run for run in set(trainers.values())], counts)
        verdict.assert_clean()
        done.verdict.add(verdict)
        assert_shown(boards, trainers, counts)
        grown = memory() - done.memory  # TensorBoard has all of the round
        assert grown < MEMORY_MAX, f"{grown >> 20} MiB for {done.verdict.accepted:,} records"
    shutil.rmtree(place.logdir)


def hold(place: World, trainers: Iterable[subprocess.Popen[bytes]]) -> None:
    """Stop trainers, and let the daemon write: that it did, they learn only from the next one, which is sent it again.

    Without that it happens to one kill of thirty, on a machine that is not busy.
    """
    place.ensure()
    for trainer in trainers:
        trainer.send_signal(signal.SIGSTOP)
    before, begun = bytes_below(place.logdir), time.monotonic()
    wait_for(
        lambda: bytes_below(place.logdir) > before or time.monotonic() > begun + 1,
        "the daemon to write what it has",
        pause=0.001,
    )


def bytes_below(folder: Path) -> int:
    """Of the event files of all runs."""
    return sum(path.stat().st_size for path in folder.rglob("*tfevents*"))


def bury(place: World, trainer: subprocess.Popen[bytes]) -> None:
    """Kill a trainer, and give back what this process has of it: there are hundreds of them."""
    trainer.kill()
    trainer.communicate()
    place.processes.remove(trainer)


def kill(place: World, rng: random.Random, kills: int) -> None:
    """Kill so many daemons and so many trainers, in rounds."""
    done = Done()
    while not done.is_enough(kills):
        one_round(place, rng, kills, done)
    account("trainer_kill", done.killed["trainer"])
    account("both_kill", done.killed["both"])
    account("daemon_kill", done.killed["daemon"], done.verdict)
    assert done.replays, "no daemon was ever sent again what a killed one had written"


@pytest.mark.long
def test_kills_of_daemon_and_trainers_at_random_moments_lose_and_double_nothing(
    place: World, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    kill(place, random.Random(seed), 3)
    complaints = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert not complaints, "TensorBoard finds nothing wrong with the files"


@pytest.mark.matrix
def test_many_kills_of_daemon_and_trainers_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    with world(tmp_path / "world") as place:
        kill(place, random.Random(seed + 1), int(os.environ.get("TBXD_KILLS", "20")))


STEPS, TAGS_OF_A_STEP, KILLS_OF_MANY_TAGS = 12_000, 7, 6
MANY_TAGS = f"""
import sys, time
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
for step in range({STEPS}):
    for tag in range({TAGS_OF_A_STEP}):
        writer.add_scalar(f"tag{{tag}}", step * 10 + tag, step)
    if step % 20 == 0:
        time.sleep(0.01)
assert writer.flush(60)
"""


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*tfevents*"))


@pytest.mark.long
def test_kills_of_the_daemon_lose_and_double_nothing_of_steps_that_share_an_event(place: World, seed: int) -> None:
    rng = random.Random(seed)
    trainer = place.start(MANY_TAGS, "logs/a")
    folder = place.logdir / "a"
    kills = replays = 0
    while trainer.poll() is None and (kills < KILLS_OF_MANY_TAGS or not replays) and kills < KILLS_MORE:
        place.ensure()
        before = bytes_of(folder)
        wait_for(lambda before=before: bytes_of(folder) > before or trainer.poll() is not None, "the daemon to write")
        until = time.monotonic() + rng.uniform(0, 0.02)
        wait_for(lambda until=until: time.monotonic() > until, "a random moment", pause=0.001)
        if trainer.poll() is None:
            if kills % 2:  # what is written now, the trainer learns only from the next daemon
                trainer.send_signal(signal.SIGSTOP)
                begun, before = time.monotonic(), bytes_of(folder)
                wait_for(
                    lambda begun=begun, before=before: bytes_of(folder) > before or time.monotonic() > begun + 1,
                    "the daemon to write what it has",
                    pause=0.001,
                )
            place.kill_daemon()
            kills += 1
            replays += replays_due(place)
            trainer.send_signal(signal.SIGCONT)
    assert trainer.wait(60) == 0
    place.ensure()
    wait_for(place.drained, "the journal to be drained")
    assert replays, "no daemon was ever sent again what a killed one had written"
    found = scalars(folder)
    assert set(found) == {f"tag{tag}" for tag in range(TAGS_OF_A_STEP)}
    for tag in range(TAGS_OF_A_STEP):
        assert found[f"tag{tag}"] == [(step, step * 10 + tag) for step in range(STEPS)]
    shared = sum(len(event.summary.value) == TAGS_OF_A_STEP for event in events(folder))
    assert shared > STEPS // 2, "most steps are one event"
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            for tag in (0, TAGS_OF_A_STEP - 1):
                name = f"tag{tag}"
                shown.until(lambda shown=shown, name=name: len(shown.scalars("a", name)) >= STEPS, f"{name} ({loader})")
                assert shown.scalars("a", name) == found[name]
