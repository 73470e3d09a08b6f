"""A job that goes on from a checkpoint shows each step once, in whichever reader, with the values of its last life."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness import World, events, scalars, wait_for
from ranks_world import Daemon, Rank
from tb import LOADERS, board
from tbxd.batch import Batch
from tbxd.ingest.session import Session
from tbxd.reduce import tag_membership as rank_tags
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents import schema
from tbxd.tfevents.contents import Contents
from tbxd.tfevents.resume_marks import Life, Resume
from tbxd.tfevents.tfrecord import frame
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.kinds import RESTART
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar, pack_text_record

# Life number, first step, step behind the last, tags, arguments of the writer. A value says which life it is of. They
# come in the environment: what is started with other arguments is no restart.
TRAINER = """
    import os, signal
    from tbxd_client import SummaryWriter
    life, begin, end, tags, arguments = os.environ["GIVEN"].split("|")
    life, begin, end = int(life), int(begin), int(end)
    writer = SummaryWriter("logs/run", **eval(arguments))
    for step in range(begin, end):
        for tag in tags.split(","):
            writer.add_scalar(tag, 1000 * life + step, step)
    os.kill(os.getpid(), signal.SIGKILL)
"""

SLOW_TRAINER = """
    import os, time
    from tbxd_client import SummaryWriter
    life, begin, end, arguments = os.environ["GIVEN"].split("|")
    life, begin, end = int(life), int(begin), int(end)
    with SummaryWriter("logs/run", **eval(arguments)) as writer:
        for step in range(begin, end):
            for tag in ("loss", "acc", "lr"):
                if life == 1 or tag != "lr" or step >= 210:  # it comes back behind another daemon
                    writer.add_scalar(tag, 1000 * life + step, step)
            if life > 1:
                time.sleep(0.03)
"""

Points = list[tuple[int, float]]


def again(place: World, script: str, *given: object) -> subprocess.CompletedProcess[str]:
    """Run a script as it was run before, but for what it is given in its environment."""
    return place.run(script, environ={"GIVEN": "|".join(map(str, given))})


def live(place: World, life: int, begin: int, end: int, tags: str = "loss,acc,lr", arguments: str = "{}") -> None:
    """One life of the job, which is killed at its end."""
    assert again(place, TRAINER, life, begin, end, tags, arguments).returncode == -9
    place.ensure()
    wait_for(place.drained, "the journal to be drained")


def of(life: int, begin: int, end: int) -> Points:
    return [(step, 1000.0 * life + step) for step in range(begin, end)]


def accumulated(folder: Path, tag: str) -> Points:
    """What `EventAccumulator` makes of a tag, and with it what reads files through it."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)] if tag in reader.Tags()["scalars"] else []


def shows(place: World, expected: dict[str, Points], run: str = "run") -> None:
    """All readers show this of these tags."""
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            assert shown.until(lambda: {tag: shown.scalars(run, tag) for tag in expected} == expected, loader) or (
                {tag: shown.scalars(run, tag) for tag in expected} == expected
            )
    assert {tag: accumulated(place.logdir / run, tag) for tag in expected} == expected


# --- from a checkpoint ----------------------------------------------------------------------------------------


def test_a_job_that_goes_on_from_a_checkpoint_shows_each_step_once_also_the_third_time(place: World) -> None:
    live(place, 1, 0, 213)
    live(place, 2, 201, 230, "loss,acc")
    assert len(scalars(place.logdir / "run")["loss"]) == 213 + 29, "each record is in the files once"
    shows(place, {tag: of(1, 0, 201) + of(2, 201, 230) for tag in ("loss", "acc")} | {"lr": of(1, 0, 213)})
    live(place, 3, 201, 225)
    for tag in ("loss", "acc", "lr"):
        shows(place, {tag: of(1, 0, 201) + of(3, 201, 225)})
    live(place, 4, 221, 240)
    shows(place, {tag: of(1, 0, 201) + of(3, 201, 221) + of(4, 221, 240) for tag in ("loss", "acc", "lr")})


def test_purge_step_also_ends_tags_that_are_not_logged_again(place: World) -> None:
    live(place, 1, 0, 213, "loss,acc,old")
    live(place, 1, 205, 213, "late")
    for life, begin, end in ((2, 200, 230), (3, 200, 210), (4, 205, 250)):
        live(place, life, begin, end, "loss,acc", f"dict(purge_step={begin})")
        kept = {2: of(1, 0, 200), 3: of(1, 0, 200), 4: of(1, 0, 200) + of(3, 200, 205)}[life]
        gone: dict[str, Points] = {"old": of(1, 0, 200), "late": []}
        shows(place, {tag: kept + of(life, begin, end) for tag in ("loss", "acc")} | gone)
    assert place.tbxd("check", str(place.logdir)).returncode == 0


def test_purge_step_in_the_process_that_goes_on_by_itself(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        for life, begin, end in ((1, 0, 213), (2, 200, 230), (3, 200, 210)):
            with SummaryWriter("logs/run", purge_step=begin) as writer:
                for step in range(begin, end):
                    for tag in ("loss", "acc")[:life]:
                        writer.add_scalar(tag, 1000 * life + step, step)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    shows(place, {"loss": of(1, 0, 200) + of(3, 200, 210), "acc": of(3, 200, 210)})


def test_another_axis_and_what_comes_again_at_its_start_cost_nothing(place: World) -> None:
    script = """
        import os
        from tbxd_client import SummaryWriter
        life, begin, end = map(int, os.environ["GIVEN"].split("|"))
        with SummaryWriter("logs/run") as writer:
            writer.add_text("config", f"life {life}", 0)
            writer.add_scalar("seed", life, 0)
            for step in range(begin, end):
                writer.add_scalar("loss", 1000 * life + step, step)
                writer.log({"row/a": 1000 * life + step, "row/b": 1000 * life + step}, step)
                if step % 10 == 9:
                    writer.add_scalar("epoch/acc", 1000 * life + step // 10, step // 10)
                    writer.add_scalar("tokens/loss", 1000 * life + step, 100_000 * step)
        """
    for life, begin, end in ((1, 0, 213), (2, 200, 230), (3, 210, 240)):
        assert again(place, script, life, begin, end).returncode == 0
    wait_for(place.drained, "the journal to be drained")
    whole = of(1, 0, 200) + of(2, 200, 210) + of(3, 210, 240)
    epochs = of(1, 0, 20) + of(2, 20, 21) + of(3, 21, 24)
    tokens = [(100_000 * step, value) for step, value in whole if step % 10 == 9]
    expected = {"loss": whole, "row/a": whole, "row/b": whole, "epoch/acc": epochs, "tokens/loss": tokens}
    shows(place, expected | {"seed": [(0, 3.0)]})
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:

            def texts(shown: Any = shown) -> list[Any]:
                return [
                    (step, list(array.ravel())) for step, array in shown.tensors("run", "config/text_summary", "text")
                ]

            shown.until(lambda texts=texts: texts() == [(0, [b"life 3"])], f"the last text alone, {loader}")


@pytest.mark.parametrize("arguments", ["{}", "dict(purge_step=20)"])
def test_pictures_and_histograms_go_on_like_scalars(place: World, arguments: str) -> None:
    script = """
        import os
        import numpy as np
        from tbxd_client import SummaryWriter
        life, begin, end, arguments = os.environ["GIVEN"].split("|")
        life, begin, end = int(life), int(begin), int(end)
        with SummaryWriter("logs/run", **eval(arguments)) as writer:
            for step in range(begin, end):
                writer.add_histogram("weights", np.linspace(0, 1000 * life + step, 10), step)
                writer.add_image("picture", np.full((3, 2 * life, 4), step, np.uint8), step)
                writer.add_text("words", f"{life}/{step}", step)
                if life == 1:
                    writer.add_histogram("old/weights", np.linspace(0, 1, 10), step)
                    writer.add_image("old/picture", np.full((3, 2, 4), step, np.uint8), step)
                    writer.add_text("old/words", f"{life}/{step}", step)
        """
    for life, begin, end, options in ((1, 10, 32, "{}"), (2, 20, 40, arguments), (3, 5, 40, "dict(purge_step=5)")):
        assert again(place, script, life, begin, end, options).returncode == 0
        place.ensure()
        wait_for(place.drained, "the journal to be drained")
        whole = {1: of(1, 10, 32), 2: of(1, 10, 20) + of(2, 20, 40), 3: of(3, 5, 40)}[life]
        old = {1: range(10, 32), 2: range(10, 20 if "purge" in arguments else 32), 3: range(0)}[life]
        for loader in LOADERS:
            with board(place.logdir, loader) as shown:

                def found(shown: Any = shown) -> Any:
                    histograms = [
                        (step, float(array.ravel()[-2]))
                        for step, array in shown.tensors("run", "weights", "histograms")
                    ]
                    pictures = [(step, int(blobs[1])) for step, blobs in shown.blobs("run", "picture")]
                    texts = [
                        (step, array.ravel()[0].decode())
                        for step, array in shown.tensors("run", "words/text_summary", "text")
                    ]
                    return histograms, pictures, texts

                def gone(shown: Any = shown) -> Any:
                    return (
                        [step for step, _ in shown.tensors("run", "old/weights", "histograms")],
                        [step for step, _ in shown.blobs("run", "old/picture")],
                        [step for step, _ in shown.tensors("run", "old/words/text_summary", "text")],
                    )

                wanted = (
                    whole,
                    [(step, 2 * int(value // 1000)) for step, value in whole],
                    [(step, f"{int(value // 1000)}/{step}") for step, value in whole],
                )
                shown.until(lambda found=found, wanted=wanted: found() == wanted, f"life {life}, {loader}")
                assert gone() == (list(old),) * 3
                # What is left of a tag is listed with a step, or not at all: nothing stands in the place of a point.
                assert "weights" in shown.tags("histograms")["run"]


# --- readers and daemons on the way -------------------------------------------------------------------------------


def test_a_tensorboard_that_runs_all_the_time_shows_the_same(place: World) -> None:
    live(place, 1, 0, 213)
    with board(place.logdir, "fast") as fast, board(place.logdir, "slow") as slow:

        def both(expected: dict[str, Points], what: str) -> None:
            for shown in (fast, slow):
                shown.until(lambda shown=shown: {tag: shown.scalars("run", tag) for tag in expected} == expected, what)

        tags = ("loss", "acc", "lr")
        both({tag: of(1, 0, 213) for tag in tags}, "the first life")
        live(place, 2, 201, 230, "loss,acc")
        both({"loss": of(1, 0, 201) + of(2, 201, 230), "lr": of(1, 0, 213)}, "the second life")
        live(place, 3, 195, 205, "loss", "dict(purge_step=195)")
        expected = {"loss": of(1, 0, 195) + of(3, 195, 205), "acc": of(1, 0, 195), "lr": of(1, 0, 195)}
        both(expected, "the third life")
    shows(place, expected)


@pytest.mark.parametrize("arguments", ["{}", "dict(purge_step=201)"])
def test_a_daemon_that_is_killed_while_the_job_goes_on_changes_nothing(place: World, arguments: str) -> None:
    assert again(place, SLOW_TRAINER, 1, 0, 213, "{}").returncode == 0
    trainer = place.start(SLOW_TRAINER, environ={"GIVEN": f"2|201|230|{arguments}"})
    while trainer.poll() is None:
        place.kill_daemon()
        wait_for(lambda: trainer.poll() is not None or place.running(), "another daemon")
    assert trainer.returncode == 0
    place.ensure()
    wait_for(place.drained, "the journal to be drained")
    expected = {tag: of(1, 0, 201) + of(2, 201, 230) for tag in ("loss", "acc")}
    expected["lr"] = (of(1, 0, 201) if "purge" in arguments else of(1, 0, 210)) + of(2, 210, 230)
    shows(place, expected)


def test_files_that_another_writer_has_begun_are_gone_on_from(place: World) -> None:
    result = place.run(
        """
        from tensorboardX import SummaryWriter
        with SummaryWriter("logs/run") as writer:
            for step in range(213):
                writer.add_scalar("loss", 1000 + step, step)
                writer.add_scalar("old", 1000 + step, step)
        """
    )
    assert result.returncode == 0, result.stderr
    live(place, 2, 201, 230, "loss")
    shows(place, {"loss": of(1, 0, 201) + of(2, 201, 230), "old": of(1, 0, 213)})
    live(place, 3, 100, 110, "loss", "dict(purge_step=100)")
    shows(place, {"loss": of(1, 0, 100) + of(3, 100, 110), "old": of(1, 0, 100)})


def test_the_files_of_earlier_lives_may_be_deleted(place: World) -> None:
    live(place, 1, 0, 20, "loss")
    place.kill_daemon()
    first = event_files(place.logdir / "run")
    place.ensure()
    live(place, 2, 10, 30, "loss", "dict(purge_step=10)")
    for name in first:
        (place.logdir / "run" / name).unlink()
    shows(place, {"loss": of(2, 10, 30)})


ELASTIC = """
    import os, signal
    rank, attempt, given = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"]), os.environ["GIVEN"]
    begin = 201 if attempt or given != "0" else 0
    if rank == 0:
        from tbxd_client import SummaryWriter
        life = attempt + 1 + int(given)
        with SummaryWriter("logs/run") as writer:
            for step in range(begin, 213 if attempt == 0 and given == "0" else 230):
                for tag in ("loss", "acc", "lr")[: 2 if attempt else 3]:
                    writer.add_scalar(tag, 1000 * life + step, step)
            if attempt == 0 and given == "0":
                os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_torchrun_restarts_the_job_by_itself_and_later_with_another_world_size(place: World) -> None:
    script = place.root / "train.py"
    script.write_text(textwrap.dedent(ELASTIC))

    def torchrun(workers: int, life: int) -> None:
        command = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", "1", "--nproc-per-node"]
        result = subprocess.run(
            [sys.executable, *command, str(workers), str(script)],
            env={**place.environ, "GIVEN": str(life)},
            cwd=place.root,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        place.ensure()
        wait_for(place.drained, "the journals to be drained")

    torchrun(2, 0)
    whole = of(1, 0, 201) + of(2, 201, 230)
    shows(place, {"loss": whole, "acc": whole, "lr": of(1, 0, 213)})
    torchrun(1, 2)
    shows(place, {tag: of(1, 0, 201) + of(3, 201, 230) for tag in ("loss", "acc", "lr")})


# --- lives --------------------------------------------------------------------------------------------------------


def batch(
    folder: Path, session: int, points: list[tuple[str, int, float]], restart: int | None = None, **run: Any
) -> Batch:
    """What a session logs: tag, step and wall time; ``restart`` before all of it, at the time of its first."""
    made = Session(bytes([session]) * 12, 0)
    tags = sorted({tag for tag, _, _ in points})
    definition = RunDefinition(0, str(folder), "host", session, **{"created": points[0][2], **run})
    definitions = [definition, *(TagDefinition(number, 0, tag) for number, tag in enumerate(tags))]
    made.feed_definitions(0, b"".join(map(pack_definition, definitions)))
    stream = b"" if restart is None else pack_text_record(RESTART, 0, restart, points[0][2], {}, None)
    for tag, step, wall_time in points:
        stream += pack_scalar(tags.index(tag), step, wall_time, 1000.0 * session + step)
    (result,) = made.feed_records(0, stream) or []
    return result


def write(folder: Path, *batches: Batch, writer: RunWriter | None = None, alive: bool = False) -> RunWriter:
    writer = writer or RunWriter(folder, lambda batch: None, alive=lambda session, began: alive)
    for given_batch in batches:
        writer.offer(given_batch)
        writer.write()
        assert not writer.error
    return writer


def logged(begin: int, end: int, at: float, tag: str = "a") -> list[tuple[str, int, float]]:
    return [(tag, step, at + step / 1000) for step in range(begin, end)]


def test_the_next_attempt_of_a_job_goes_on_whatever_the_clocks_say(tmp_path: Path) -> None:
    first = batch(tmp_path, 1, logged(0, 20, 2000.0), job="job", attempt=0)
    again = batch(tmp_path, 2, logged(10, 15, 1000.0), job="job", attempt=1)
    write(tmp_path, first, again).close()
    assert accumulated(tmp_path, "a") == of(1, 0, 10) + of(2, 10, 15)


def test_of_two_sessions_that_log_at_one_time_each_has_a_run(tmp_path: Path) -> None:
    one, other = logged(0, 20, 1000.0), logged(0, 20, 1000.005)
    batches = batch(tmp_path, 1, one), batch(tmp_path, 2, other, created=999.0)
    write(tmp_path, *batches, alive=True).close()
    assert accumulated(tmp_path, "a") == of(1, 0, 20)
    assert accumulated(tmp_path / "process-host-2-Jan01_00-16-39", "a") == of(2, 0, 20)


def test_who_has_begun_already_is_not_ended_by_another_purge_step(tmp_path: Path) -> None:
    alive: set[bytes] = set()
    writer = RunWriter(tmp_path, lambda batch: None, alive=lambda session, _: session in alive)
    write(tmp_path, batch(tmp_path, 1, logged(0, 20, 1000.0)), writer=writer)
    write(tmp_path, batch(tmp_path, 2, logged(10, 15, 2003.0), 10), writer=writer)
    alive.add(b"\2" * 12)
    # Processes that know nothing of each other: who logs already has begun anew.
    write(tmp_path, batch(tmp_path, 3, logged(15, 18, 2001.0), 10), writer=writer).close()
    assert accumulated(tmp_path, "a") == of(1, 0, 10) + of(2, 10, 15) + of(3, 15, 18)


def test_what_was_dropped_stays_in_the_run(tmp_path: Path) -> None:
    first = batch(tmp_path, 1, logged(0, 20, 1000.0))
    writer = write(tmp_path, first)
    writer.tell(first.run, first.session, {"journal_full": 7})
    writer.write()
    again = batch(tmp_path, 2, logged(10, 15, 2000.0), 10)
    write(tmp_path, again, writer=writer).close()
    assert accumulated(tmp_path, "a") == of(1, 0, 10) + of(2, 10, 15)
    assert accumulated(tmp_path, "tbxd/dropped/journal_full") == [(19, 7.0)]
    entry = write(tmp_path).entry(first.session)
    assert entry.count == 0, "nothing has been read yet"
    reader = RunWriter(tmp_path, lambda batch: None)
    reader.read_for(first.run)
    reader.write()
    assert (reader.entry(first.session).count, reader.entry(again.session).count) == (20, 6)
    reader.close()


@pytest.mark.long
def test_ten_thousand_tags_go_on_at_once(tmp_path: Path) -> None:
    tags = [f"tag/{number}" for number in range(10_000)]
    points = [(tag, step, 1000.0 + step) for step in range(3) for tag in tags]
    again = [(tag, step, 2000.0 + step) for step in (1, 2) for tag in tags]
    write(tmp_path, batch(tmp_path, 1, points), batch(tmp_path, 2, again)).close()
    assert len([event for event in events(tmp_path) if event.file_version == "brain.Event:1"]) == 1
    assert accumulated(tmp_path, "tag/9999") == of(1, 0, 1) + of(2, 1, 3)


# --- many ranks ---------------------------------------------------------------------------------------------------


def start(
    daemon: Daemon, directory: Path, world: int, begin: int, end: int, number: int, restart: bool = False
) -> None:
    """A start of the job that reduces three curves and has one of a single rank, up to the end of its ranks."""
    ranks = [Rank(directory, rank, world, attempt=number - 1, created=100.0 * number) for rank in range(world)]
    for rank in ranks:
        daemon.ranks.append(rank)
        daemon.sessions[rank.id] = Session(rank.id, 0)
        if restart:
            rank.add(pack_text_record(RESTART, 0, begin, 100.0 * number, {}, None))
        for step in range(begin, end):
            at = 100.0 * number + 1 + step / 1000
            for tag in ("loss", "acc") if number < 3 else ("loss",):
                rank.scalar(tag, step, 1000.0 * number + step + rank.rank - (world - 1) / 2, at)
            if not rank.rank and number < 3:
                rank.scalar("lr", step, 1000.0 * number + step, at)
                rank.text("words", step, f"{number}/{step}")
        daemon.feed(rank)
    daemon.write(2)
    for rank in ranks:
        daemon.leave(rank)
    daemon.write(2)
    assert all(rank.acked == len(rank.records) for rank in ranks)


@pytest.mark.parametrize("killed", [False, True])
def test_ranks_that_are_reduced_go_on_with_another_world_size(
    tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_tags, "JOIN_SECONDS", 0.0)
    daemon = Daemon(tmp_path, [])
    for number, world, begin, end in ((1, 2, 0, 20), (2, 3, 10, 15)):
        start(daemon, tmp_path, world, begin, end, number)
        if killed:
            daemon.kill()
            daemon.ranks.clear()
    whole = of(1, 0, 10) + of(2, 10, 15)
    for tag in ("loss", "acc", "lr"):
        assert accumulated(tmp_path, tag) == whole, tag
    for side, away in (("min", -1), ("max", 1)):
        assert accumulated(tmp_path / "ranks" / side, "loss") == [
            (step, value + away * (0.5 if value < 2000 else 1)) for step, value in whole
        ]
    assert [step for step, _ in accumulated(tmp_path / "ranks", "tbxd/ranks/std/loss")] == list(range(15))
    start(daemon, tmp_path, 2, 5, 8, 3, restart=True)
    expected = of(1, 0, 5) + of(3, 5, 8)
    assert accumulated(tmp_path, "loss") == expected
    assert [step for step, _ in accumulated(tmp_path / "ranks" / "min", "loss")] == [step for step, _ in expected]
    for folder in (tmp_path, tmp_path / "ranks" / "max"):
        assert [step for step, _ in accumulated(folder, "acc")] == list(range(5)), "also what is not logged again"
    assert accumulated(tmp_path, "lr") == of(1, 0, 5)
    daemon.writer.close()


# --- against models of the loaders ----------------------------------------------------------------------------


class Fast:
    """Source: ``run.rs`` and ``reservoir.rs`` of TensorBoard's data server; None is a point that is not shown."""

    def __init__(self) -> None:
        self.tags: dict[str, list[tuple[int, float | None]]] = {}

    def take(self, event: Any) -> None:
        for value in event.summary.value:
            kept = self.tags.setdefault(value.tag, [])
            while kept and kept[-1][0] >= event.step:
                kept.pop()
            kept.append((event.step, value.simple_value if value.WhichOneof("value") == "simple_value" else None))

    def shown(self, tag: str) -> Points:
        return [(step, value) for step, value in self.tags.get(tag, []) if value is not None]


class Slow:
    """Source: ``plugin_event_accumulator.py`` of TensorBoard."""

    def __init__(self) -> None:
        self.tags: dict[str, Points] = {}
        self.version, self.recent, self.started = 0, -1, False

    def take(self, event: Any) -> None:
        if event.file_version:
            self.version = int(event.file_version.rpartition(":")[2])
        if self.version >= 2:
            if event.session_log.status == schema.SESSION_START:
                if self.started:
                    self.purge(list(self.tags), event.step)
                self.started = True
        elif event.HasField("summary") and event.step < self.recent:
            self.purge([value.tag for value in event.summary.value], event.step)
        if event.HasField("summary"):
            self.recent = event.step
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                self.tags.setdefault(value.tag, []).append((event.step, value.simple_value))

    def purge(self, tags: list[str], step: int) -> None:
        for tag in tags:
            self.tags[tag] = [point for point in self.tags.get(tag, []) if point[0] < step]

    def shown(self, tag: str) -> Points:
        return self.tags.get(tag, [])


NAMES = ("a", "b", "c")
lives = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 12)),  # a restart of all
        st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=3),
        st.booleans(),  # in a file of its own
        st.integers(0, 40),  # a kill: so many records of what was written last are there, and it is written again
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(lives)
def test_both_loaders_show_the_last_life_of_each_step(
    tmp_path_factory: pytest.TempPathFactory, given_lives: Any
) -> None:
    folder = tmp_path_factory.mktemp("run")
    expected: dict[str, dict[int, float]] = {tag: {} for tag in NAMES}
    number = 0
    for life, (restart, tags, file_of_its_own, cut) in enumerate(given_lives, 1):
        created, own_file = 100.0 * life, file_of_its_own

        def written(resume: Resume) -> list[bytes]:
            resume.read()
            earlier = Life(resume.earlier(created))  # noqa: B023
            pieces = []
            if restart is not None:  # noqa: B023
                pieces.append(resume.end(dict.fromkeys(resume.beyond(restart), restart)))  # noqa: B023
                start = schema.SessionLog(status=schema.SESSION_START)
                pieces.append(frame(schema.Event(step=restart, session_log=start).SerializeToString()))  # noqa: B023
                earlier.restart(restart)  # noqa: B023
            for tag, (begin, count) in tags.items():  # noqa: B023
                for step in range(begin, begin + count):
                    value = schema.Summary.Value(tag=tag, simple_value=1000 * life + step)  # noqa: B023
                    event = schema.Event(wall_time=created, step=step, summary=schema.Summary(value=[value]))  # noqa: B023
                    pieces += [resume.end(earlier.cuts([(tag, step)])), frame(event.SerializeToString())]
            return [piece for piece in pieces if piece]

        def put(pieces: list[bytes], new: bool) -> None:
            nonlocal number
            number += new or not number
            with open(folder / f"events.out.tfevents.{number:010d}.host.1.0", "ab") as file:
                if not file.tell():
                    file.write(frame(schema.Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString()))
                file.write(b"".join(pieces))

        if cut and restart is not None:  # killed before its first point: what there is of it is done again
            size = sum(map(len, (pieces := written(Resume(Contents(folder))))[:1]))
            put([pieces[0][: size * cut // 40]], own_file)
            own_file = True
        put(written(Resume(Contents(folder))), own_file)
        for tag, (begin, _) in tags.items():
            expected[tag] = {step: value for step, value in expected[tag].items() if step < begin}
        if restart is not None:
            expected = {tag: {s: v for s, v in has.items() if s < restart} for tag, has in expected.items()}
        for tag, (begin, count) in tags.items():
            expected[tag] |= {step: 1000.0 * life + step for step in range(begin, begin + count)}
    fast, slow = Fast(), Slow()
    for event in events(folder):
        fast.take(event)
        slow.take(event)
    for tag in NAMES:
        wanted = sorted(expected[tag].items())
        assert fast.shown(tag) == wanted
        assert slow.shown(tag) == wanted
