"""How long a daemon knows a run: while somebody logs into it, and a little longer; what comes back is gone on with."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for, world
from tbxd import __version__
from tbxd.cli import status_view
from tbxd.ingest import hub as hub_module
from tbxd.ingest import presence
from tbxd.runs.run_writer import RunWriter
from tbxd.scheduler import run_registry, run_scheduler
from tbxd.tfevents.event_file import EventFile
from tbxd.transport.server_socket import Peer as Route
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.journal_files import journals
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar
from test_walls import Inside


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """A hub in this process that lets go of runs at once."""
    monkeypatch.setattr(run_registry, "KEPT_SECONDS", 0.2)
    monkeypatch.setattr(run_registry, "RANKS_KEPT_SECONDS", 0.1)
    monkeypatch.setattr(run_registry, "COOL_SECONDS", 0.02)
    monkeypatch.setattr(run_scheduler, "IDLE_SECONDS", 0.02)
    made = Inside(tmp_path)
    yield made
    assert made.hub.close(10), "no thread is left behind"


def finish(inside: Inside, session: bytes) -> None:
    inside.until(lambda: inside.settled(session), "the records")
    inside.hub.handle(inside.peer, wire.Goodbye(session))


def totals(inside: Inside) -> tuple[int, int, int]:
    found = inside.hub.status()["totals"]
    assert found["accepted"] == found["written"] + found["pending"] + sum(found["dropped"].values())
    return found["accepted"], found["written"], sum(found["dropped"].values())


def test_a_run_that_is_over_is_let_go_of_and_its_memory_is_free(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 100)
    finish(inside, session)
    writer = weakref.ref(next(iter(inside.hub.runs.values())).writer)
    before = totals(inside)
    gc.collect()
    gc.disable()
    try:
        inside.until(lambda: not inside.hub.runs, "the run to be let go of")
        assert writer() is None, "without a look for circles"
    finally:
        gc.enable()
    status = inside.hub.status()
    assert status["runs"] == {} and status["runs_forgotten"] == 1
    assert totals(inside) == before == (100, 100, 0)
    assert inside.hub.metrics()["runs"] == 0


def test_a_run_that_comes_back_is_gone_on_with_exactly_and_counted_once(inside: Inside) -> None:
    first = inside.begin()
    inside.log(first, 0, 100)
    inside.hub.handle(inside.peer, wire.Report(first, {0: [103, {"journal_full": 3}]}))
    finish(inside, first)
    inside.until(lambda: inside.counts()[0] == 103, "the note of what was dropped")
    inside.until(lambda: not inside.hub.runs, "the run to be let go of")
    assert totals(inside) == (103, 100, 3)
    second = inside.begin()
    inside.log(second, 100, 50)
    inside.until(lambda: inside.settled(second), "what comes later")
    assert totals(inside) == (153, 150, 3)
    # A session that the daemon has forgotten with its run sends all of it again: the event files remember.
    inside.hello(first, "a")
    inside.log(first, 0, 100)
    inside.until(lambda: inside.settled(first), "what was written before")
    assert totals(inside) == (153, 150, 3)
    finish(inside, second)
    finish(inside, first)
    inside.until(lambda: not inside.hub.runs, "the run to be let go of once more")
    assert totals(inside) == (153, 150, 3)
    found = scalars(inside.folder / "a")
    assert [step for step, _ in found["loss"]] == list(range(150))
    assert [value for _, value in found["tbxd/dropped/journal_full"]] == [3.0]


def test_totals_never_go_back_whatever_comes_goes_and_comes_back(inside: Inside) -> None:
    chance = random.Random(5)
    living: dict[bytes, str] = {}
    next_step: dict[str, int] = {}
    expected, last = 0, (0, 0, 0)
    for _ in range(150):
        if len(living) < 4 and chance.random() < 0.5:
            run = chance.choice("abcdef")
            living[inside.begin(run)] = run
        elif living:
            session = chance.choice(list(living))
            run, count = living[session], chance.randrange(1, 20)
            inside.log(session, next_step.get(run, 0), count)
            next_step[run] = next_step.get(run, 0) + count
            expected += count
            if chance.random() < 0.4:
                finish(inside, session)
                del living[session]
        for _ in range(chance.randrange(8)):
            inside.turn()
            now = totals(inside)
            assert now >= last and now[1] >= last[1], (now, last)
            last = now
        if chance.random() < 0.2:
            busy = {str(inside.folder / run) for run in living.values()}
            inside.until(lambda busy=busy: inside.hub.runs.keys() <= busy, "those that are over to be let go of")
    for session in living:
        finish(inside, session)
    inside.until(lambda: not inside.hub.runs, "all to be let go of")
    assert totals(inside) == (expected, expected, 0)
    assert inside.hub.status()["runs_forgotten"] > 12, "some of them came back"
    for run, steps in next_step.items():
        assert sorted(step for step, _ in scalars(inside.folder / run)["loss"]) == list(range(steps))


def test_a_run_of_ranks_is_let_go_of_when_all_have_ended_and_the_next_start_goes_on(inside: Inside) -> None:
    def job(attempt: int, first: int, last: int) -> None:
        ranks = [
            inside.begin("a", rank=rank, world=2, job="job", attempt=attempt, reduce=True, file_name="")
            for rank in range(2)
        ]
        for session in ranks:
            inside.log(session, first, last - first)
        for session in ranks:
            inside.hub.handle(inside.peer, wire.Flush(session, inside.sent[session], 1))
        for session in ranks:
            finish(inside, session)

    job(0, 0, 50)
    reduction = weakref.ref(next(iter(inside.hub.runs.values())).writer.ranks)
    inside.until(lambda: not inside.hub.runs, "the run to be let go of")
    assert reduction() is None
    before = totals(inside)
    job(1, 50, 80)
    inside.until(lambda: not inside.hub.runs, "the run to be let go of again")
    assert before == (100, 100, 0) and totals(inside) == (160, 160, 0)
    found = scalars(inside.folder / "a")["loss"]
    assert [step for step, _ in found] == list(range(80))
    assert all(value == step for step, value in found)


def test_what_cannot_be_written_is_kept_until_it_is(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 10)
    inside.until(lambda: inside.settled(session), "the records")
    shutil_away = inside.folder / "a"
    away = inside.folder / "away"
    inside.until(lambda: not next(iter(inside.hub.runs.values())).writer.open, "the run to be closed")
    shutil_away.rename(away)
    shutil_away.write_text("in the way")
    inside.log(session, 10, 10)
    inside.until(lambda: next(iter(inside.hub.runs.values())).writer.error, "trouble")
    inside.hub.forget(inside.hub.clients[session])
    until = time.monotonic() + 3 * run_registry.KEPT_SECONDS
    inside.until(lambda: time.monotonic() > until, "some time")
    assert len(inside.hub.runs) == 1 and inside.hub.status()["totals"]["pending"] == 0
    shutil_away.unlink()
    away.rename(shutil_away)
    inside.until(lambda: not inside.hub.runs, "the run to be written and let go of")
    assert [step for step, _ in scalars(inside.folder / "a")["loss"]] == list(range(20))


def test_many_runs_that_come_and_go_leave_few_behind_and_a_turn_looks_at_none(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_registry, "KEPT_SECONDS", 3600.0)
    monkeypatch.setattr(run_registry, "RANKS_KEPT_SECONDS", 3600.0)
    monkeypatch.setattr(run_registry, "KEPT_MAX", 20)
    for number in range(150):
        session = inside.begin(f"run{number}")
        inside.log(session, 0, 3)
        finish(inside, session)
    inside.until(lambda: len(inside.hub.runs) <= 20, "most of them to be let go of")
    inside.until(lambda: not inside.hub._registry.warm, "the others to be left alone")
    assert totals(inside) == (450, 450, 0)
    again = inside.begin("run149")
    inside.log(again, 3, 3)
    finish(inside, again)
    assert len(list((inside.folder / "run149").iterdir())) == 1, "one that is still known goes on in its file"


def test_at_the_bound_of_runs_a_session_is_told_and_waits_and_goes_on(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_registry, "RUNS_MAX", 3)
    monkeypatch.setattr(hub_module, "TRY_SECONDS", 0.1)
    over = inside.begin("over")
    inside.log(over, 0, 5)
    finish(inside, over)
    inside.until(lambda: next(iter(inside.hub.runs.values())).is_still, "it to be closed")
    living = [inside.begin(f"{number}") for number in range(3)]
    for session in living:
        inside.log(session, 0, 5)  # the one that is over makes room at once, however long it would be kept
        inside.until(lambda session=session: inside.settled(session), "the records")
    waits = inside.begin("waits")
    inside.log(waits, 0, 5)
    (told,) = [answer for answer in inside.answers if isinstance(answer, wire.Refused)]
    assert told.session == waits and "runs are logged to already" in told.reason
    assert inside.hub.clients[waits].again, "it is not for ever"
    finish(inside, living[0])

    def goes_on() -> bool:
        inside.hello(waits, "waits")
        inside.log(waits, 0, 5)
        return not inside.hub.clients[waits].broken

    inside.until(goes_on, "room")
    inside.until(lambda: inside.settled(waits), "its records")
    assert [step for step, _ in scalars(inside.folder / "waits")["loss"]] == list(range(5))
    assert totals(inside) == (25, 25, 0)


def test_a_journal_for_which_there_is_no_room_stays_until_there_is(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tbxd.ingest import journal_recovery

    monkeypatch.setattr(run_registry, "RUNS_MAX", 1)
    for module in (journal_recovery, hub_module):
        monkeypatch.setattr(module, "TRY_SECONDS", 0.1)
    monkeypatch.setattr(journal_recovery, "SCAN_SECONDS", 0.05)
    living = inside.begin("living")
    inside.log(living, 0, 5)
    spool = tmp_path / "spool"
    spool.mkdir()
    journal = Journal(spool, lambda: False)
    run = RunDefinition(0, str(inside.folder / "left"), "host", 1, 1.0)
    journal.define(pack_definition(run) + pack_definition(TagDefinition(0, 0, "loss")))
    for step in range(5):
        journal.append(pack_scalar(0, step, 1.0, float(step)))
    assert not journal.close()
    adopter = journal_recovery.Adopter(inside.hub, [spool])
    try:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            adopter.step(time.monotonic())
            inside.turn()
        assert adopter.quarantined == 0 and len(journals(spool)) == 1
        finish(inside, living)

        def written() -> bool:
            adopter.step(time.monotonic())
            return not journals(spool)

        inside.until(written, "the journal to be written")
    finally:
        adopter.close()
    assert [step for step, _ in scalars(inside.folder / "left")["loss"]] == list(range(5))


def test_a_trainer_that_was_killed_in_a_container_with_this_hosts_name_is_taken_off_the_list(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal cannot be seen here, and its pid is one of other processes."""
    monkeypatch.setattr(presence, "REMOTE_SILENCE_SECONDS", 0.3)
    session, seen = os.urandom(12), os.urandom(12)
    name = os.uname().nodename
    inside.hub.handle(Route(b"1", 1), wire.Hello(session, 0, 1, name, f"/spool/of/it/{session.hex()}", "train.py", ""))
    there = inside.folder / seen.hex()
    there.mkdir()
    inside.hub.handle(Route(b"2", 2), wire.Hello(seen, 0, 2, name, str(there), "train.py", ""))
    inside.hub.reap(time.monotonic())
    assert inside.hub.clients.keys() == {session, seen}

    def reaped() -> bool:
        inside.hub.reap(time.monotonic())
        return session not in inside.hub.clients

    inside.until(reaped, "it to be taken off")
    assert seen in inside.hub.clients, "one whose journal is there is the adopter's matter"
    there.rmdir()
    inside.hub.reap(time.monotonic())
    assert not inside.hub.clients


FORGETFUL = """
    import sys
    from tbxd.scheduler import run_registry as keeping, run_scheduler
    keeping.KEPT_SECONDS = keeping.RANKS_KEPT_SECONDS = run_scheduler.TRIM_SECONDS = 0.1
    keeping.COOL_SECONDS = run_scheduler.IDLE_SECONDS = 0.02
    from tbxd.cli.main import main
    main(["serve"])
    """


@pytest.mark.long
def test_the_memory_of_a_job_that_was_gone_on_with_is_given_back(tmp_path: Path) -> None:
    """A daemon that has taken over a job of ranks knows all its points; when the ranks have ended nobody needs them."""
    script = """
        import sys
        from tbxd_client import SummaryWriter
        first, last = map(int, sys.argv[1:])
        with SummaryWriter("logs/job") as writer:
            for step in range(first, last):
                for tag in range(200):
                    writer.add_scalar(f"tag/{tag}", float(step), step)
    """
    with world(tmp_path, TBXD_SYNC_SECONDS="0.1", TBXD_RANKS_SECONDS="5") as place:

        def memory() -> float:
            text = Path(f"/proc/{place.running()}/status").read_text()
            return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")) / 1024

        def job(attempt: int, first: int, last: int) -> None:
            ranks = [
                place.start(
                    script,
                    first,
                    last,
                    environ={
                        "RANK": f"{rank}",
                        "WORLD_SIZE": "2",
                        "TORCHELASTIC_RUN_ID": "job",
                        "TORCHELASTIC_RESTART_COUNT": f"{attempt}",
                    },
                )
                for rank in range(2)
            ]
            assert [rank.wait(60) for rank in ranks] == [0, 0]

        place.serve()
        job(0, 0, 700)
        place.kill_daemon()
        place.start(FORGETFUL)
        wait_for(place.running, "the daemon that takes over")
        young = memory()
        most = [young]
        watching = threading.Event()

        def watch() -> None:
            while not watching.wait(0.05):
                most.append(memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        job(1, 700, 800)
        wait_for(lambda: forgotten(place), "the run to be let go of")
        watching.set()
        watcher.join()
        assert max(most) > young + 25, "it did know them"
        wait_for(lambda: memory() < young + 20, "its memory")


def test_scripts_that_come_and_go_are_in_the_totals_of_status_and_metrics_for_ever(tmp_path: Path) -> None:
    """With a real daemon, which is told to forget at once."""
    with world(tmp_path, TBXD_SYNC_SECONDS="0.1") as place:
        place.start(FORGETFUL)
        wait_for(place.running, "the daemon")
        last = 0
        for number in range(6):
            result = place.run(
                """
                import sys
                from tbxd_client import SummaryWriter
                with SummaryWriter(f"logs/{int(sys.argv[1]) % 2}") as writer:
                    for step in range(10):
                        writer.add_scalar("loss", step, 10 * int(sys.argv[1]) + step)
                """,
                number,
            )
            assert result.returncode == 0, result.stderr
            status: Any = wait_for(lambda: forgotten(place), "the run to be let go of")
            assert status["totals"]["written"] == status["totals"]["accepted"] == 10 * (number + 1) > last
            last = status["totals"]["written"]
        assert status["runs_forgotten"] == 6
        for number in range(2):
            steps = [step for step, _ in scalars(place.logdir / f"{number}")["loss"]]
            assert steps == [10 * one + step for one in range(number, 6, 2) for step in range(10)]


def forgotten(place: World) -> Any:
    status: Any = place.status()
    return status if status is not None and not status["runs"] and not status["sessions"] else None


def test_a_disk_that_hangs_has_one_job_of_a_run_wait_however_long_it_does(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of ticks queued 7,199 jobs."""
    hang, hangs = threading.Event(), threading.Event()
    sync = EventFile.sync

    def hanging(file: EventFile) -> None:
        hangs.set()
        assert hang.wait(30)
        sync(file)

    monkeypatch.setattr(EventFile, "sync", hanging)
    session = inside.begin()
    inside.log(session, 0, 10)
    inside.until(hangs.is_set, "the disk to hang")
    (state,) = inside.hub.runs.values()
    now = time.monotonic()
    for second in range(3600):
        inside.hub.scheduler._next_sync = 0.0
        inside.hub.tick(now + second)
    assert len(state.strand._jobs) <= 1
    assert inside.hub.metrics()["queued_jobs"] <= 1
    hang.set()
    inside.until(lambda: state.is_still, "all of it on the disk")
    assert scalars(inside.folder / "a")["loss"][-1] == (9, 9.0)


def test_a_rank_that_ends_while_records_of_it_have_to_come_again_is_waited_for(inside: Inside) -> None:
    """What it has said last comes before what was lost, or could not be read where it is."""
    ranks = [inside.begin("a", rank=rank, world=2, job="job", reduce=True, file_name="") for rank in range(2)]
    inside.log(ranks[0], 0, 50)
    inside.hub.handle(inside.peer, wire.Flush(ranks[0], inside.sent[ranks[0]], 1))
    data = b"".join(pack_scalar(0, step, float(step), float(step)) for step in range(50))
    inside.hub.handle(inside.peer, wire.Data(ranks[1], wire.RECORDS, 340, data[340:]))  # the message before is lost
    inside.hub.handle(inside.peer, wire.Flush(ranks[1], len(data), 1))
    for _ in range(20):
        inside.turn()
    assert not inside.hub.clients[ranks[1]].complete
    inside.log(ranks[1], 0, 50)
    for session in ranks:
        finish(inside, session)
    inside.until(lambda: not inside.hub.runs, "the run to be let go of")
    assert totals(inside) == (100, 100, 0), "no value is late"
    assert scalars(inside.folder / "a")["loss"] == [(step, float(step)) for step in range(50)]


def test_a_status_looks_only_at_runs_for_which_something_is_done(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says of all of them what it would say of each."""
    monkeypatch.setattr(run_registry, "KEPT_SECONDS", 100.0)
    asked: list[str] = []
    known = RunWriter.known

    def asked_of(writer: RunWriter) -> Any:
        asked.append(writer.directory.name)
        return known(writer)

    monkeypatch.setattr(RunWriter, "known", asked_of)
    sessions = {run: inside.begin(run) for run in map(str, range(20))}
    for run, session in sessions.items():
        inside.log(session, 0, 10 + int(run))
        inside.hub.handle(inside.peer, wire.Report(session, {0: [12 + int(run), {"journal_full": 2}]}))
    inside.until(lambda: all(map(inside.settled, sessions.values())), "the records")
    inside.until(lambda: not inside.hub._registry.warm, "nothing to be done")
    before = inside.hub.status()
    assert len(before["runs"]) == 20
    asked.clear()
    assert inside.hub.status() == before and not asked
    inside.log(sessions["7"], 17, 5)
    inside.hub.handle(inside.peer, wire.Report(sessions["3"], {0: [20, {"journal_full": 2}]}))  # 5 are on their way
    while inside.hub._registry.warm:
        status = inside.hub.status()
        assert set(asked) <= {"7"}
        for counts in (*status["runs"].values(), *status["sessions"], status["totals"]):
            assert counts["accepted"] == counts["written"] + counts["pending"] + sum(counts["dropped"].values())
        inside.turn()
    after = inside.hub.status()
    one, other = (after["runs"][str(inside.folder / run)] for run in "73")
    assert (one["accepted"], one["written"]) == (24, 22) and one["dropped"] == {"journal_full": 2}
    assert (other["accepted"], other["written"], other["pending"]) == (20, 13, 5)
    assert after["totals"]["accepted"] == before["totals"]["accepted"] + 10
    assert after["totals"]["pending"] == 5
    asked.clear()
    assert inside.hub.status()["runs"][str(inside.folder / "3")]["pending"] == 5 and not asked


def test_a_status_for_people_shows_what_they_have_to_know_first_and_how_much_it_leaves_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = {"accepted": 1, "written": 1, "pending": 0, "dropped": {}, "error": "", "notice": "", "ranks": None}
    runs: dict[str, Any] = {f"/logs/{number:04}": dict(run) for number in range(1000)}
    runs["/logs/0900"]["error"] = "No space left on device"
    runs["/logs/0901"]["dropped"] = {"journal_full": 3}
    runs["/logs/0902"]["notice"] = "somebody else writes here"
    runs["/logs/0903"]["pending"] = 7
    answer = {
        "version": __version__,
        "protocol": wire.VERSION,
        "embedded": False,
        "service": "",
        "pid": 1,
        "started": time.time(),
        "address": "ipc:///x",
        "sessions": [],
        "runs": runs,
    }
    status_view.status(answer, 100)
    shown = capsys.readouterr().out
    for what in ("/logs/0900", "/logs/0901", "/logs/0902", "/logs/0903", "/logs/0095", "900 more runs not shown"):
        assert what in shown, what
    assert "/logs/0096" not in shown and shown.index("/logs/0095") < shown.index("/logs/0900")
    status_view.status(answer)
    shown = capsys.readouterr().out
    assert "/logs/0999" in shown and "not shown" not in shown


class Standing:
    """Of a run's writer what `Keeping` looks at."""

    def __init__(self) -> None:
        self.has_to_do = self.open = self.dirty = self.comes_back = False
        self.due = 0.0
        self.error, self.defined = "", None

    def known(self) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
        return {}, {}

    def forget(self) -> None:
        pass


def test_whatever_comes_and_goes_where_as_many_runs_are_known_as_may_be_each_is_known_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_registry, "RUNS_MAX", 5)
    monkeypatch.setattr(run_registry, "KEPT_MAX", 3)
    chance = random.Random(1)
    refused = 0
    for _ in range(1000):
        kept, held, now = run_registry.Keeping({}), dict[int, set[str]](), time.monotonic()
        for _ in range(80):
            what, directory = chance.randrange(5), chance.choice("abcdefghij")
            if what == 0:
                kept.hold(held.setdefault(chance.randrange(4), set()), [directory])
            elif what == 1 and held:
                kept.release(held.pop(chance.choice(list(held))), time.monotonic())
            elif what == 2:
                made: Any = partial(run_registry.RunState, directory, Standing(), None)  # type: ignore[arg-type]
                state = kept.state(directory, made)
                refused += state is None
                if state is not None:
                    state.writer.has_to_do = chance.random() < 0.3  # type: ignore[misc]
            elif what == 3:
                for state in kept.runs.values():
                    state.writer.has_to_do = False  # type: ignore[misc]
            else:
                now += chance.random() * 1000
                kept.cool(now)
            assert len(kept.runs) <= 5
            assert kept._over.keys() <= kept.runs.keys() and kept.warm.keys() <= kept.runs.keys()
            assert not kept._over.keys() & kept._holders.keys()
    assert refused, "it was full"


def test_a_status_makes_anew_only_what_has_changed_and_tells_the_same(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of runs that are warm: thousands that log now and then are as they were, most of the time."""
    monkeypatch.setattr(run_registry, "COOL_SECONDS", 60.0)
    made: list[str] = []
    account = run_registry.Keeping._account

    def counted(self: run_registry.Keeping, state: run_registry.RunState) -> run_registry.Account:
        made.append(state.directory)
        return account(self, state)

    monkeypatch.setattr(run_registry.Keeping, "_account", counted)
    hub = inside.hub
    sessions = [inside.begin(f"r{number % 3}") for number in range(6)]
    rng = random.Random(int(os.environ.get("TBXD_SEED", "5")))

    def quiet() -> bool:
        busy = (state.submitted or state.tidied or state.due or state.writer.dirty for state in hub.runs.values())
        return not any(busy)

    for turn in range(40):
        session = rng.choice(sessions)
        what = rng.randrange(4)
        if what == 0:
            inside.log(session, 5 * turn, 5)
        elif what == 1:
            inside.hub.handle(inside.peer, wire.Report(session, {0: [1000 + turn, {"journal_full": turn}]}))
        elif what == 2:
            hub.refusals.disconnect(hub.clients[session], f"turn {turn}") if rng.random() < 0.1 else hub.status()
        elif hub.runs:
            state = rng.choice(list(hub.runs.values()))
            monkeypatch.setattr(state.writer.files.others, "notice", f"turn {turn}")
            hub.scheduler._tidy(state, state.writer.sync)
        hub.status()  # in the middle of it
        inside.until(quiet, "what was logged")
        found = hub.status()
        for state in hub.runs.values():
            state.account = None
        for client in hub.clients.values():
            client.row = None
        assert found == hub.status()
    made.clear()
    hub.status()
    assert not made and hub._registry.warm
    inside.log(next(one for one in sessions if not hub.clients[one].broken), 10_000, 1)
    inside.until(quiet, "the record")
    made.clear()
    hub.status()
    assert len(made) == 1
