"""Random kills under load, while TensorBoard reads: nothing lost, nothing twice, every step shown once.

``TBXD_KILLS`` sets how many daemons and how many trainers are killed (`make faults`: 20 of each), and ``TBXD_SEED``
replays them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from inject import replays_due, train
from numbered import kind_of, tag_of, value_of
from oracle import Count, judge, read_count
from report import account

from harness import World, events, scalars, wait_for, world
from tb import LOADERS, Board, board

KILLS_OF_A_ROUND = 50  # then all is checked and deleted: the disk and TensorBoard's memory stay small
KILLS_MORE = 30
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


def one_round(place: World, rng: random.Random, kills: int, first: int) -> int:
    """Kill so many daemons and so many trainers; returns the number of the next trainer."""
    trainers: dict[int, str] = {}
    alive = {}
    killed = dict.fromkeys(("daemon", "trainer", "both"), 0)
    replays = 0

    def start() -> None:
        number = first + len(trainers)
        trainers[number] = rng.choice(["shared", "shared", f"own{number}"])
        alive[number] = train(place, number, f"logs/{trainers[number]}", hz=rng.choice([200, 1000, 3000]))

    place.logdir.mkdir()
    with tailing(place.logdir) as boards:
        for _ in range(TRAINERS):
            start()
        wait_for(lambda: all(read_count(place, number).returned for number in alive), "the trainers to log")
        more = KILLS_MORE  # until a daemon has been sent again what a killed one had written
        while min(killed["daemon"], killed["trainer"]) < kills or not killed["both"] or (more > 0 and not replays):
            until = time.monotonic() + rng.uniform(0.02, 0.8)
            wait_for(lambda until=until: time.monotonic() > until, "a random moment")
            what = rng.choice(["daemon", "trainer", "both"])
            if what == "both" and killed["both"] > kills // 5:
                what = "daemon" if killed["daemon"] < killed["trainer"] else "trainer"
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
                trainer.wait()
                start()
                if pid is not None:  # the other trainers may have started another by now
                    wait_for(lambda pid=pid: place.running() != pid, "the daemon to die")
            killed[what] += 1
            if what != "trainer":
                replays += replays_due(place)
                if rng.random() < 0.5:
                    place.ensure()
                more -= killed["daemon"] > kills
        for trainer in alive.values():
            trainer.kill()
            trainer.wait()
        place.ensure()
        wait_for(place.drained, "all journals to be drained")
        counts = {number: read_count(place, number) for number in trainers}
        verdict = judge([place.logdir / run for run in set(trainers.values())], counts)
        account("trainer_kill", killed["trainer"])
        account("both_kill", killed["both"])
        account("daemon_kill", killed["daemon"], verdict)
        assert replays, "no daemon was ever sent again what a killed one had written"
        assert_shown(boards, trainers, counts)
    shutil.rmtree(place.logdir)
    return first + len(trainers)


def kill(place: World, rng: random.Random, kills: int) -> None:
    first = 0
    while kills > 0:
        first = one_round(place, rng, min(kills, KILLS_OF_A_ROUND), first)
        kills -= KILLS_OF_A_ROUND


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
