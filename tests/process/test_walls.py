"""One message, one job, one part of the main loop that breaks costs its own session or run a while, and nobody else."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from harness import World, scalars, wait_for, world
from tbxd.config.settings import Settings
from tbxd.ingest import hub as hub_module
from tbxd.ingest.client_counts import RECORDS_TOLD_MAX
from tbxd.ingest.hub import Hub
from tbxd.ingest.journal_recovery import Adopter
from tbxd.ingest.session import Session
from tbxd.process.io_pool import Pool
from tbxd.process.serial_queue import Strand
from tbxd.reduce.companion_runs import Folders
from tbxd.runs.batch_writer import BatchWriter
from tbxd.runs.record_encoder import RecordEncoder
from tbxd.runs.run_files import RunFiles
from tbxd.runs.run_writer import RunWriter
from tbxd.scheduler import run_scheduler
from tbxd.tfevents.event_file import EventFile
from tbxd.transport.server_socket import Peer as Route
from tbxd_client.journal.journal_files import JournalReader
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar
from test_daemon import Peer

RAISED = [
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ValueError("a fault of ours"),
    MemoryError(),
    RecursionError("too deep"),
    SystemExit(3),
]


def named(error: BaseException) -> str:
    return type(error).__name__


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


class Inside:
    """A hub with its threads, in this process, and sessions that log to it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.woken = threading.Event()
        self.answers: list[wire.Message] = []
        self.hub = Hub(
            Settings.of({"sync_seconds": 0.05, "batch_ms": 5, **settings}),
            self.woken.set,
            lambda peer, message: self.answers.append(message),
        )
        self.peer = Route(b"route", os.getpid())
        self.sent: dict[bytes, int] = {}

    def begin(self, run: str = "a", peer: Route | None = None, **more: Any) -> bytes:
        session = os.urandom(12)
        self.hello(session, run, peer, **more)
        return session

    def hello(self, session: bytes, run: str, peer: Route | None = None, **more: Any) -> None:
        peer = peer or self.peer
        self.hub.handle(peer, wire.Hello(session, 0, 1, "host", "", "test", ""))
        directory = str(self.folder / run)
        self.sent[session] = 0
        definition = RunDefinition(0, directory, "host", 1, 1.0, **more)
        both = pack_definition(definition) + pack_definition(TagDefinition(0, 0, "loss"))
        self.hub.handle(peer, wire.Data(session, wire.DEFINITIONS, 0, both))

    def log(self, session: bytes, first: int, count: int, peer: Route | None = None) -> None:
        data = b"".join(pack_scalar(0, step, float(step), float(step)) for step in range(first, first + count))
        self.hub.handle(peer or self.peer, wire.Data(session, wire.RECORDS, self.sent[session], data))
        self.sent[session] += len(data)

    def turn(self) -> None:
        self.woken.wait(0.005)
        self.woken.clear()
        self.hub.collect()
        self.hub.tick(time.monotonic())

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
        def turned() -> Any:
            self.turn()
            return condition()

        return wait_for(turned, what, seconds, pause=0)

    def settled(self, session: bytes) -> bool:
        return self.hub.clients[session].session.written == self.sent[session]

    def counts(self, run: str = "a") -> tuple[int, int, int]:
        status = self.hub.status()
        msgpack.packb(status)
        json.dumps(status)
        found = status["runs"][str(self.folder / run)]
        return found["accepted"], found["written"], found["pending"]


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    made = Inside(tmp_path)
    yield made
    assert made.hub.close(10), "no thread is left behind"


class Once:
    """Raises at the calls of a method that are named, and does what the method does at all others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException, *at: int) -> None:
        self.raised = 0
        number = itertools.count(1)
        method = getattr(owner, name)

        def instead(*arguments: Any, **more: Any) -> Any:
            if next(number) in at:
                self.raised += 1
                raise error
            return method(*arguments, **more)

        monkeypatch.setattr(owner, name, instead)


# --- messages ----------------------------------------------------------------------------------------------------


def test_numbers_that_no_client_counts_end_its_session_and_nobody_elses(place: World) -> None:
    daemon = place.serve()
    peer, session = Peer(place), os.urandom(12)
    assert isinstance(peer.hello(session), wire.Welcome)
    runs = b"".join(
        pack_definition(RunDefinition(number, str(place.logdir / name), "host", 1, 0.0))
        for number, name in enumerate("ab")
    )
    peer.send(wire.Data(session, wire.DEFINITIONS, 0, runs))
    most = 2**64 - 1
    peer.send([msgpack.packb([1, "report", session, {0: [most, {"too_large": 1}], 1: [most, {"too_large": 1}]}])])
    answer = peer.receive()
    assert isinstance(answer, wire.Refused) and answer.session == session and "report" in answer.reason
    status = place.status()
    assert status is not None and [one["broken"] != "" for one in status["sessions"]] == [True]
    result = place.run("from tbxd_client import SummaryWriter; SummaryWriter('logs/c').add_scalar('value', 1.0, 0)")
    assert result.returncode == 0
    assert scalars(place.logdir / "c") == {"value": [(0, 1.0)]}
    assert daemon.poll() is None
    peer.close()


@pytest.mark.parametrize(
    "report",
    [
        {0: [-1, {}]},
        {0: [1, {"too_large": -1}]},
        {0: [RECORDS_TOLD_MAX, {}], 1: [1, {}]},
        {0: [0, {"too_large": RECORDS_TOLD_MAX + 1}]},
        {0: [True, {}]},
    ],
)
def test_a_report_is_within_its_bounds_or_ends_its_session(inside: Inside, report: dict[int, Any]) -> None:
    session = inside.begin()
    inside.hub.handle(inside.peer, wire.Report(session, report))
    assert isinstance(inside.answers[-1], wire.Refused)
    assert inside.counts()[0] == 0 if inside.hub.runs else True


def test_sums_of_what_files_and_clients_say_are_never_more_than_can_be_told(inside: Inside) -> None:
    for _ in range(5):
        session = inside.begin()
        inside.log(session, 0, 1)
        inside.hub.handle(inside.peer, wire.Report(session, {0: [RECORDS_TOLD_MAX, {}]}))
    for state in inside.hub.runs.values():  # as a ledger may say that somebody has made
        for number in range(5):
            state.writer.tell(RunDefinition(0, "/x", "host", 1, 1.0), bytes([number] * 12), {"too_large": 2**63 - 1})
    accepted, _, _ = inside.counts()
    assert accepted > 0


@pytest.mark.parametrize("error", RAISED, ids=named)
@pytest.mark.parametrize("handler", ["_hello", "_data", "_report", "flush", "_offer"])
def test_a_handler_that_breaks_ends_its_session_for_now_and_no_other(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, handler: str, error: BaseException
) -> None:
    others = Route(b"other", os.getpid())
    first = inside.begin("a", others)
    inside.log(first, 0, 10, others)
    second = inside.begin("b")
    inside.log(second, 0, 10)
    inside.until(lambda: inside.settled(second), "what came before")
    with monkeypatch.context() as patch:
        once = Once(patch, inside.hub, handler, error, 1)
        if handler == "_hello":
            inside.hub.handle(inside.peer, wire.Hello(second, 0, 1, "host", "", "test", ""))
        elif handler == "_report":
            inside.hub.handle(inside.peer, wire.Report(second, {0: [10, {}]}))
        elif handler == "flush":
            inside.hub.handle(inside.peer, wire.Flush(second, 0))
        else:
            inside.log(second, 10, 5)
        assert once.raised == 1
    answer = inside.answers[-1]
    assert isinstance(answer, wire.Refused) and answer.session == second and named(error) in answer.reason
    inside.log(first, 10, 10, others)
    inside.until(lambda: inside.settled(first), "the other session")
    (where,) = inside.hub.status()["internal_errors"].values()
    assert where["count"] == 1 and second.hex() in where["whose"] and named(error) in where["error"]
    assert inside.hub.metrics()["internal_errors"] == 1
    # It may begin anew after a while; what it sends again is compared with what is written.
    inside.until(lambda: not inside.hub.clients[second].under_way, "what is under way")
    inside.hub.clients[second].again -= hub_module.TRY_SECONDS
    inside.hello(second, "b")
    inside.log(second, 0, 20)
    inside.until(lambda: inside.settled(second), "all of it")
    assert scalars(inside.folder / "b") == {"loss": [(step, float(step)) for step in range(20)]}
    assert inside.counts("b") == (20, 20, 0)


# --- jobs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", RAISED, ids=named)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RunWriter, "write"),
        (BatchWriter, "write"),
        (RecordEncoder, "encode"),
        (BatchWriter, "finish"),
        (RecordEncoder, "note_drops"),
        (RunWriter, "_done_"),
        (RunWriter, "sync"),
        (RunWriter, "park"),
        (EventFile, "write"),
        (EventFile, "sync"),
        (EventFile, "park"),
        (EventFile, "close"),
    ],
)
def test_a_job_that_breaks_leaves_its_run_able_to_be_written(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException
) -> None:
    monkeypatch.setattr(run_scheduler, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(run_scheduler, "RETRY_SECONDS", 0.02)
    if name == "_done_":
        once = Once(monkeypatch, inside.hub, "_on_written", error, 2)
    else:
        once = Once(monkeypatch, owner, name, error, 2)
        if name == "close":  # is called where something else has broken
            Once(monkeypatch, EventFile, "sync", ValueError(), 2)
            once.raised = 1
    session, other = inside.begin("a"), inside.begin("b")
    step = 0
    deadline = time.monotonic() + 15
    while not once.raised and time.monotonic() < deadline:
        inside.log(session, step, 5)
        inside.log(other, step, 5)
        step += 5
        for _ in range(30):
            inside.turn()
    assert once.raised, "it did break"
    inside.log(session, step, 5)
    inside.log(other, step, 5)
    inside.until(lambda: inside.settled(session) and inside.settled(other), "both runs")
    wanted = [(number, float(number)) for number in range(step + 5)]
    for run in "ab":
        assert scalars(inside.folder / run) == {"loss": wanted}
        assert inside.counts(run) == (step + 5, step + 5, 0)
    inside.until(lambda: not any(state.writer.error for state in inside.hub.runs.values()), "all to be well again")


@pytest.mark.parametrize("kept", [True, False], ids=["open", "parked"])
def test_a_run_that_could_not_be_looked_at_is_well_again_when_it_can(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """The error of a job that only tidies is gone with its cause, though the run is never written again."""
    monkeypatch.setattr(run_scheduler, "IDLE_SECONDS", 3600.0 if kept else 0.02)
    session = inside.begin("a")
    inside.log(session, 0, 5)
    inside.until(lambda: inside.settled(session), "the run")
    (state,) = inside.hub.runs.values()
    inside.until(lambda: not state.writer.dirty and state.writer.open is kept, "it to be tidy")
    once = Once(monkeypatch, RunFiles, "see_others", OSError(errno.EMFILE, os.strerror(errno.EMFILE)), 1)
    monkeypatch.setattr(state.writer.files.others, "_next", 0.0)
    if not kept:  # it is opened once more, for the disk
        state.writer.file.dirty = True
    state.strand.submit(state.writer.sync)
    inside.until(lambda: once.raised, "the error")
    inside.until(lambda: not state.writer.error, "it to be well again", seconds=5)


@pytest.mark.parametrize("error", RAISED, ids=named)
def test_a_run_of_ranks_whose_job_breaks_goes_on(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(run_scheduler, "RETRY_SECONDS", 0.02)
    once = Once(monkeypatch, Folders, "write", error, 2, 5)
    sessions = [inside.begin("a", rank=rank, world=2, job="job", reduce=True) for rank in range(2)]
    for step in range(0, 50, 5):
        for session in sessions:
            inside.log(session, step, 5)
        for _ in range(5):
            inside.turn()
    for session in sessions:
        inside.hub.handle(inside.peer, wire.Flush(session, inside.sent[session], 1))
    inside.until(lambda: all(map(inside.settled, sessions)), "both ranks")
    assert once.raised == 2
    assert scalars(inside.folder / "a")["loss"] == [(step, float(step)) for step in range(50)]
    assert inside.counts() == (100, 100, 0)


def test_a_strand_goes_on_behind_what_raises_even_where_nobody_can_be_told() -> None:
    told: list[BaseException] = []

    def broke(error: BaseException) -> None:
        told.append(error)
        if isinstance(error, MemoryError):
            raise MemoryError

    pool = Pool(2)
    strand = Strand(pool, broke)
    done: list[int] = []

    def job(number: int) -> None:
        done.append(number)
        if number % 3 == 0:
            raise RAISED[number % len(RAISED)]

    for number in range(60):
        strand.submit(lambda number=number: job(number))  # type: ignore[misc]
    wait_for(lambda: len(done) == 60 and not strand._running, "all jobs, each once and in order")
    assert done == list(range(60)) and len(told) == 20
    assert pool.close(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant to die
def test_a_thread_of_the_pool_that_is_gone_is_replaced_and_the_pool_still_tells_how_it_is() -> None:
    pool = Pool(2)
    gate = threading.Event()
    inside_job = threading.Event()

    def spin() -> None:
        inside_job.set()
        while not gate.is_set():
            time.sleep(0.001)

    pool.submit(spin)
    assert inside_job.wait(10)
    # As if it had ended with nobody the wiser: what the pool knows of it stands.
    thread = next(iter(pool._threads.values()))
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join()
    with pool._changed:
        pool._threads[thread.ident] = gone  # type: ignore[index]
    done = threading.Event()
    for _ in range(3):
        pool.submit(done.set)
    assert done.wait(10)
    assert pool.status()["threads"] >= 1
    assert pool.relieve()
    gate.set()
    assert pool.close(10)
    # And one that an exception strikes outside of any job.
    pool = Pool(1)
    ready = threading.Event()
    pool.submit(ready.set)
    assert ready.wait(10)
    thread = next(iter(pool._threads.values()))
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    again = threading.Event()
    pool.submit(lambda: None)

    def others() -> bool:
        pool.submit(again.set)
        pool.relieve()
        assert pool.status()["queued_jobs"] >= 0
        return again.is_set()

    wait_for(others, "a job behind a thread that has died")
    assert pool.close(10)


# --- the disk ----------------------------------------------------------------------------------------------------


def test_a_sync_that_failed_is_owed_also_by_a_run_that_is_parked(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_scheduler, "IDLE_SECONDS", 0.0)
    refused = 0
    real = os.fdatasync
    broken = threading.Event()
    broken.set()

    def fdatasync(fd: int) -> None:
        nonlocal refused
        if broken.is_set():
            refused += 1
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    session = inside.begin()
    inside.log(session, 0, 10)
    (state,) = inside.hub.runs.values()
    inside.until(lambda: inside.settled(session) and refused >= 3 and not state.writer.open, "refusals, and the park")
    file = state.writer.file
    assert file is not None and file.dirty and file._synced < file.size
    inside.until(lambda: "fsync" in state.writer.error, "the error to be told")
    for _ in range(20):
        inside.turn()
    assert "fsync" in state.writer.error, "and it is not forgotten"
    broken.clear()
    inside.until(lambda: not state.writer.dirty and not state.writer.error, "the disk to have it")
    assert file._synced == file.size == file.path.stat().st_size > 0
    inside.until(lambda: not state.writer.open, "the park afterwards")
    inside.log(session, 10, 10)
    inside.until(lambda: inside.settled(session), "more records")
    assert scalars(inside.folder / "a") == {"loss": [(step, float(step)) for step in range(20)]}


def test_a_disk_that_says_with_close_what_it_did_not_take_is_given_it_again(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does, with EDQUOT."""
    monkeypatch.setattr(run_scheduler, "IDLE_SECONDS", 0.0)
    real, refused, stored = os.close, 0, 0
    pwrite = os.pwrite

    def close(fd: int) -> None:
        nonlocal refused
        path = os.readlink(f"/proc/self/fd/{fd}")
        real(fd)
        if "tfevents" in path and not refused:
            refused += 1
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def count(fd: int, data: bytes, position: int) -> int:
        nonlocal stored
        stored += len(data)
        return pwrite(fd, data, position)

    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(os, "pwrite", count)
    session = inside.begin()
    inside.log(session, 0, 10)
    (state,) = inside.hub.runs.values()
    inside.until(lambda: refused and inside.settled(session), "a close that fails")
    inside.until(lambda: not state.writer.dirty and not state.writer.error, "the disk to have it")
    inside.log(session, 10, 10)
    inside.until(lambda: inside.settled(session), "more records")
    assert scalars(inside.folder / "a") == {"loss": [(step, float(step)) for step in range(20)]}


LEAVE = """
    import os, sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    for step in range(1000):
        writer.add_scalar("loss", step, step)
    os.kill(os.getpid(), 9)
"""


def left_by_a_killed_trainer(place: World, run: str) -> None:
    environ = {"TBXD_ADDRESS": f"ipc://{place.root}/nobody"}  # no daemon takes any of it meanwhile
    assert place.run(LEAVE, run, environ=environ).returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["always", "once"])
def test_a_journal_in_which_nothing_can_be_noted_is_adopted_all_the_same(
    place: World, inside: Inside, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    left_by_a_killed_trainer(place, str(place.logdir / "a"))
    adopter = Adopter(inside.hub, [place.spool])
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    once = Once(monkeypatch, JournalReader, "release", error, *(range(1, 9999) if when == "always" else [1]))

    def done() -> bool:
        adopter.step(time.monotonic())
        return not adopter.busy and not list(place.spool.glob("[0-9a-f]*"))

    inside.until(done, "the journal to be written and deleted")
    assert once.raised
    assert scalars(place.logdir / "a") == {"loss": [(step, float(step)) for step in range(1000)]}
    assert adopter.quarantined == 0 and not inside.hub.clients
    adopter.close()


@pytest.mark.parametrize("error", RAISED[1:], ids=named)
@pytest.mark.parametrize("name", ["read", "definitions"])
def test_a_journal_whose_adoption_breaks_is_adopted_anew_and_put_aside_at_last(
    place: World, inside: Inside, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    monkeypatch.setattr("tbxd.ingest.journal_recovery.TRY_SECONDS", 0.0)
    monkeypatch.setattr("tbxd.ingest.journal_recovery.SCAN_SECONDS", 0.0)
    monkeypatch.setattr(hub_module, "TRY_SECONDS", 0.0)
    left_by_a_killed_trainer(place, str(place.logdir / "a"))
    adopter = Adopter(inside.hub, [place.spool])
    with monkeypatch.context() as patch:
        once = Once(patch, JournalReader, name, error, 1)

        def done() -> bool:
            adopter.step(time.monotonic())
            return bool(once.raised) and not adopter.busy and not list(place.spool.glob("[0-9a-f]*"))

        inside.until(done, "the journal to be written and deleted")
    assert scalars(place.logdir / "a") == {"loss": [(step, float(step)) for step in range(1000)]}
    assert adopter.quarantined == 0 and not inside.hub.clients
    left_by_a_killed_trainer(place, str(place.logdir / "b"))
    with monkeypatch.context() as patch:
        Once(patch, JournalReader, name, error, *range(1, 100))

        def aside() -> bool:
            adopter.step(time.monotonic())
            return bool(adopter.quarantined)

        inside.until(aside, "it to be put aside")
    assert len(list((place.spool / "quarantine").iterdir())) == 1 and not inside.hub.clients
    adopter.close()


def test_a_look_at_a_folder_that_breaks_lets_nobody_wait_for_ever(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a client of another mount namespace: it goes to a daemon there, as where the folder is another one."""
    run = tmp_path / "a"
    run.mkdir()
    with monkeypatch.context() as patch:
        once = Once(patch, os.path, "realpath", MemoryError(), *range(1, 100))
        session = inside.begin("a", view="another", folder=(run.stat().st_dev, run.stat().st_ino))
        inside.log(session, 0, 10)
        inside.until(lambda: session not in inside.hub.clients, "the client to be sent away")
    assert once.raised
    assert any(isinstance(one, wire.Refused) and one.reason.startswith(wire.ELSEWHERE) for one in inside.answers)
    assert inside.hub.walls.status()["the look at a folder"]["count"] == 1


# --- the daemon --------------------------------------------------------------------------------------------------

PARTS = """
    import itertools, os, sys
    from tbxd.ingest import journal_recovery as adopt
    from tbxd.daemon import lifecycle as daemon
    from tbxd.metrics import http_endpoint as endpoint
    from tbxd.ingest import acknowledgements, hub
    from tbxd.process import logs
    from tbxd.process import sd_notify as notify
    from tbxd.transport import server_socket as receiver
    from tbxd.daemon import reload
    from tbxd.process import incident_log as troubles
    from tbxd.system import watch

    ERRORS = itertools.cycle([ValueError("broken on purpose"), MemoryError(), RecursionError("deep"), SystemExit(1)])

    def breaks(owner, name, every=2):
        method, number = getattr(owner, name), itertools.count(1)
        def instead(*arguments, **more):
            if next(number) % every == 0:
                raise next(ERRORS)
            return method(*arguments, **more)
        setattr(owner, name, instead)

    breaks(adopt.Adopter, "step")
    breaks(adopt.Adopter, "_scan")
    breaks(hub.Hub, "tick")
    breaks(hub.Hub, "reap")
    breaks(hub.Hub, "collect", 3)
    breaks(acknowledgements.Acknowledgements, "send", 7)
    breaks(watch.System, "step")
    breaks(notify.Notifier, "turned")
    breaks(troubles.Troubles, "look")
    breaks(reload.Reloader, "step")
    breaks(logs.Limiter, "tell")
    breaks(receiver.Receiver, "watch")
    breaks(endpoint.Endpoint, "answer")
    breaks(hub.RunWriter, "write")
    breaks(daemon, "vitals", 3)
    from tbxd.cli.main import main
    sys.argv = ["tbxd", "serve", "--metrics", f"unix:{os.environ['TBXD_RUNTIME_DIR']}/metrics"]
    main()
"""

TRAIN = """
    import sys, time
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    for step in range(2000):
        writer.add_scalar("loss", step, step)
        if step % 100 == 0:
            time.sleep(0.01)
    print(writer.flush(30))
"""


@pytest.mark.long
def test_a_daemon_all_of_whose_parts_break_now_and_then_goes_on_writing_and_says_so(place: World) -> None:
    daemon = place.start(PARTS, stderr=(place.root / "log").open("wb"))
    wait_for(place.running, "the daemon")
    trainers = [place.start(TRAIN, f"logs/{name}") for name in "ab"]
    for trainer in trainers:
        trainer.wait(60)
    wanted = {"loss": [(step, float(step)) for step in range(2000)]}
    wait_for(lambda: all(scalars(place.logdir / name) == wanted for name in "ab"), "all records, each once")

    def answered() -> Any:
        result = place.tbxd("status", "--json")  # one in three questions breaks
        return result.returncode == 0 and json.loads(result.stdout)

    status = wait_for(answered, "an answer")
    broken = status["internal_errors"]
    assert {"adoption", "the look at runs", "what was written", "the look for troubles", "a job of a run"} <= set(
        broken
    )
    assert all(one["count"] > 0 and one["error"] for one in broken.values())
    assert daemon.poll() is None
    assert "internal error" in wait_for(lambda: (r := place.tbxd("status")).returncode == 0 and r.stdout, "a table")
    log = (place.root / "log").read_text()
    assert log.count("Traceback") <= 100 and "broken on purpose" in log
    wait_for(lambda: place.tbxd("stop").returncode == 0 or daemon.poll() is not None, "it to stop")
    assert daemon.wait(30) == 0


def test_a_question_that_cannot_be_answered_is_refused_with_the_reason(place: World) -> None:
    script = """
        import sys
        from tbxd.daemon import lifecycle as daemon
        def vitals():
            raise OverflowError("int too big to convert")
        daemon.vitals = vitals
        from tbxd.cli.main import main
        sys.argv = ["tbxd", "serve"]
        main()
    """
    process = place.start(script)
    wait_for(place.running, "the daemon")
    result = place.tbxd("status")
    assert result.returncode != 0 and "OverflowError" in result.stdout + result.stderr
    assert place.tbxd("stop").returncode in (0, 3)
    assert process.wait(30) == 0


# --- what other threads read -------------------------------------------------------------------------------------


def test_the_status_of_a_run_is_read_by_any_thread_while_ranks_come(tmp_path: Path) -> None:
    ranks, job = 150, "job"
    writer = RunWriter(tmp_path / "a", lambda batch: None)
    stop = threading.Event()
    errors: list[BaseException] = []
    calls = 0

    def look() -> None:
        nonlocal calls
        while not stop.is_set():
            try:
                status = writer.ranks.status()
                assert status is None or 0 <= status["alive"] <= status["joined"] <= ranks
                assert writer.ranks.due >= 0
                writer.queued()
                writer.settled()
                assert isinstance(writer.name, str) and writer.dirty in (True, False)
            except BaseException as error:
                errors.append(error)
            calls += 1

    threads = [threading.Thread(target=look) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for rank in range(ranks):
            session = Session(rank.to_bytes(12, "big"), 0)
            run = RunDefinition(0, str(tmp_path / "a"), "host", 1, 1.0, "", "", rank, ranks, job, 0, True)
            tags = b"".join(pack_definition(TagDefinition(number, 0, f"tag{number}")) for number in range(3))
            session.feed_definitions(0, pack_definition(run) + tags)
            batches = session.feed_records(0, b"".join(pack_scalar(tag, 1, 1.0, 1.0) for tag in range(3)))
            for batch in batches or ():
                writer.offer(batch)
            writer.write()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
        writer.close()
    assert not writer.error
    status = writer.ranks.status()
    assert status is None or status["joined"] == ranks
    assert calls > 50 and not errors, f"{len(errors)} of {calls}: {errors[:1]}"


def test_the_end_of_a_rank_comes_behind_what_waits_for_a_look_at_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Inside(tmp_path)
    look: list[Callable[[], None]] = []
    see = inside.hub.folder_looks._see
    monkeypatch.setattr(inside.hub.folder_looks, "_see", lambda *what: look.append(lambda: see(*what)))
    (tmp_path / "a").mkdir()
    state = (tmp_path / "a").stat()
    job = {"world": 2, "job": "job", "reduce": True}
    one = inside.begin(rank=0, **job)
    inside.log(one, 0, 3)
    two = inside.begin(rank=1, view="another", folder=(state.st_dev, state.st_ino), **job)
    inside.log(two, 0, 3)
    inside.hub.handle(inside.peer, wire.Flush(two, inside.sent[two], 1))
    inside.until(lambda: look and inside.hub.runs[str(tmp_path / "a")].rounds, "a write")
    assert not inside.settled(one), "it waits for the other"
    look[0]()
    inside.until(lambda: inside.settled(one) and inside.settled(two), "both")
    assert inside.hub.status()["totals"]["dropped"] == {}
    inside.hub.handle(inside.peer, wire.Goodbye(two))
    inside.log(one, 3, 1)
    inside.until(lambda: inside.settled(one), "nobody waits for who has left")
    inside.hub.close(5.0)
