"""Does a daemon that has lived for long do as well as one that has just begun?"""

from __future__ import annotations

import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from . import event_files
from .daemon_scalars import BURST_BYTES, DEADLINE, SCALAR_BYTES, Sender, Shape, send, served
from .meter import HelperMeter
from .peers import BASE, PEERS, MeasurementError, Peer
from .question import Figure, Outcome, Question

TAGS = 20  # of each run that comes and goes
STEPS = 2
STRETCH_BYTES = (
    (127 << 10) // SCALAR_BYTES * SCALAR_BYTES
)  # within the window of each of 500 sessions, see `tbxd.transport.credit`
TURN_SECONDS = 0.01  # between two turns that are timed: in 3 s two looks at the spool are among them
SETTLE_SECONDS = 60.0  # for a daemon to let go of what is over
PROCESSES = """
import os, sys
from tbxd_client import SummaryWriter
from tbxd_client.session import session
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        with SummaryWriter(sys.argv[1]) as writer:
            writer.add_scalar("train/loss", 1.0, number)
        session.active().end()
        os._exit(0)
    os.waitpid(child, 0)
"""


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one way to grow old; to be called in a fresh process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with served() as address:
        _probe(address, logs / "warm", counts)
    young_restart = min(_restart(logs / f"restart/{number}") for number in range(counts["tries"]))
    with served() as address:
        _probe(address, logs / "warm again", counts)
        young = _probe(address, logs / "young", counts)
        before = _resident()
        with CASES[peer.name](address, logs, counts) as run:
            _settle()
            _probe(address, logs / "old warm", counts)
            old = _probe(address, logs / "old", counts)
            after = _resident()
            old_restart = min(_restart(run) for _ in range(counts["tries"]))
    return Outcome(
        {
            "record_us": old.record,
            "record_times": old.record / young.record,
            "stretch_us": old.stretch,
            "stretch_times": old.stretch / young.stretch,
            "turn_ms": old.turn,
            "turn_times": old.turn / young.turn,
            "restart_s": old_restart,
            "restart_times": old_restart / young_restart,
            "grown_mib": after - before,
        },
        counted=True,
    )


# --- what makes it old -------------------------------------------------------------------------------------------


@contextmanager
def _nothing(address: str, logs: Path, counts: Mapping[str, int]) -> Iterator[Path]:
    yield logs / "nothing"


@contextmanager
def _sessions_and_runs(address: str, logs: Path, counts: Mapping[str, int]) -> Iterator[Path]:
    """Sessions that come, log to a run of their own, and go."""
    shape = Shape(1, TAGS, BURST_BYTES)
    for number in range(counts["sessions"]):
        sender = Sender(address, shape, STEPS, logs / f"came/{number}")
        send([sender], [len(sender.records)])
        sender.close()
    if len(list((logs / "came").iterdir())) != counts["sessions"]:
        raise MeasurementError("not every run is there")
    yield logs / f"came/{counts['sessions'] - 1}"


@contextmanager
def _processes(address: str, logs: Path, counts: Mapping[str, int]) -> Iterator[Path]:
    """Short processes that log one scalar each into one folder."""
    run = logs / "shared"
    subprocess.run([sys.executable, "-c", PROCESSES, run, str(counts["processes"])], check=True, timeout=1200)
    _wait(lambda: event_files.points(run).total() >= counts["processes"], "what the processes have logged")
    yield run


@contextmanager
def _points(address: str, logs: Path, counts: Mapping[str, int]) -> Iterator[Path]:
    """A long run is written, its daemon killed, and gone on with by the next one."""
    run = logs / "long"
    sender = Sender(address, Shape(1, 1, BURST_BYTES), counts["points"], run)
    send([sender], [len(sender.records)])
    _restart(run)
    yield run


@contextmanager
def _local_sessions(address: str, logs: Path, counts: Mapping[str, int]) -> Iterator[Path]:
    """Sessions of this host that live, each with its journal in the spool, and log nothing more."""
    import zmq

    from tbxd_client.config.paths import private_dir, spool_dir
    from tbxd_client.journal.journal import Journal
    from tbxd_client.protocol import wire
    from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar

    spool = private_dir(spool_dir())
    journals = []
    peer = zmq.Context.instance().socket(zmq.DEALER)
    peer.linger = 0
    peer.connect(address)
    try:
        for number in range(counts["locals"]):
            journal = Journal(spool, lambda: False, bytes_max=1 << 20)
            journals.append(journal)
            definitions = pack_definition(RunDefinition(0, str(logs / f"local/{number}"), "host", os.getpid(), 1.0))
            definitions += pack_definition(TagDefinition(0, 0, "train/loss"))
            journal.define(definitions)
            journal.append(pack_scalar(0, 0, 1.0, 1.0))
            host, place = socket.gethostname(), str(journal.path)
            for message in (
                wire.Hello(journal.session, 0, os.getpid(), host, place, "benchmark", ""),
                wire.Data(journal.session, wire.DEFINITIONS, 0, definitions),
                wire.Data(journal.session, wire.RECORDS, 0, pack_scalar(0, 0, 1.0, 1.0)),
            ):
                peer.send_multipart(wire.pack(message))
        _wait(lambda: len(list((logs / "local").glob("*"))) == counts["locals"], "the runs of local sessions")
        yield logs / "local/0"
    finally:
        for journal in journals:
            journal.release(journal.committed)
            journal.close()
        peer.close()


CASES = {
    "nothing, for comparison": _nothing,
    "10⁴ sessions and runs that came and went": _sessions_and_runs,
    "10³ processes into one folder": _processes,
    "10⁷ points, taken over": _points,
    "500 local sessions": _local_sessions,
}


# --- how it is ---------------------------------------------------------------------------------------------------


class Probe(NamedTuple):
    """What a record costs the daemon, µs of CPU, in large messages and in stretches; how long a client waits, ms."""

    record: float
    stretch: float
    turn: float


def _probe(address: str, folder: Path, counts: Mapping[str, int]) -> Probe:
    """The least of several of each: whatever else runs makes it longer."""
    daemon = HelperMeter(PEERS[BASE])
    found = []
    for number in range(counts["tries"]):
        sender = Sender(address, Shape(1, 1, BURST_BYTES), 2 * counts["records"], folder / f"{number}")
        most = len(sender.records)
        send([sender], [most // 20 // SCALAR_BYTES * SCALAR_BYTES])
        record = _cost(daemon, sender, [most // 2 // SCALAR_BYTES * SCALAR_BYTES])
        stretch = _cost(daemon, sender, [*range(sender.sent + STRETCH_BYTES, most, STRETCH_BYTES), most])
        found.append(Probe(record, stretch, _turn(sender, counts["turns"])))
        sender.close()
    return Probe(*map(min, zip(*found, strict=True)))


def _cost(daemon: HelperMeter, sender: Sender, ends: list[int]) -> float:
    """CPU of the daemon for each record up to these positions, each of which is waited for, µs."""
    cpu, sent = daemon.cpu(), sender.sent
    for end in ends:
        send([sender], [end])
    return (daemon.cpu() - cpu) / ((sender.sent - sent) / SCALAR_BYTES) * 1e6


def _turn(sender: Sender, count: int) -> float:
    """Of many flushes of a session that has nothing to flush, how long the daemon takes to answer: the mean, ms."""
    from tbxd_client.protocol import wire

    took = []
    for _ in range(count):
        start = time.perf_counter()
        sender._say(wire.Flush(sender.session, sender.end))
        if not sender._socket.poll(DEADLINE * 1000):
            raise MeasurementError("the daemon does not answer")
        sender._socket.recv_multipart()
        took.append(time.perf_counter() - start)
        time.sleep(max(0.0, TURN_SECONDS - took[-1]))
    return statistics.fmean(sorted(took)[: max(1, count * 99 // 100)]) * 1e3


def _pid() -> int:
    from tbxd_client.config.paths import lock_path

    return int(lock_path().read_text())


def _resident() -> float:
    """Memory of the daemon, MiB."""
    text = Path(f"/proc/{_pid()}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")) / 1024


def _restart(run: Path) -> float:
    """Seconds from the death of the daemon until another one has written a record to a run."""
    from tbxd_client.config.paths import lock_path
    from tbxd_client.transport.launcher import is_locked

    os.kill(_pid(), signal.SIGKILL)
    start = time.perf_counter()
    _wait(lambda: not is_locked(lock_path()), "the daemon to die")
    with served() as address:
        sender = Sender(address, Shape(1, 1, BURST_BYTES), 1, run)
        send([sender], [len(sender.records)])
        sender.close()
    return time.perf_counter() - start


def _settle() -> None:
    """Wait until the daemon has let go of what is over, and has closed what nobody logs to, so long at most."""
    from tbxd.config.settings import Settings
    from tbxd.scheduler.run_registry import KEPT_MAX
    from tbxd.transport import control_client

    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        status: Any = control_client.ask(Settings.of({}), "status", timeout=60)
        few = len(status["runs"]) <= KEPT_MAX + len(status["sessions"])
        if few and not status["metrics"]["event_files_open"]:
            return
        time.sleep(0.5)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise MeasurementError(f"waited {DEADLINE:g} s for {what}")
        time.sleep(0.005)


QUESTION = Question(
    name="age",
    title="a daemon that is old beside the same when it was young",
    notes=(
        "A real daemon, on one core, is measured before and after it has aged by one of these: sessions with a run "
        "of 20 tags each that come and go; processes that log one scalar each into one folder, one after the "
        "other; a run of 10⁷ scalars, whose daemon is killed and which the next one continues; 500 live sessions "
        "of this host that log nothing. A record: CPU of the daemon for each of 300,000 scalars of one session "
        "that sends as far as it may; and for as many scalars sent in stretches of 127 KiB, each of which is "
        "waited for. The window of each of 500 sessions has no more, because they share the daemon's memory. So "
        "the first figure is what a record costs then, and the second is what many sessions cost without the "
        "effect of smaller messages. A turn: how long a flush with nothing to flush waits; the mean of 300 in 3 s "
        "without the longest of a hundred. A restart: from kill -9 until another daemon has written a record to an "
        "existing run, compared with a record to a new run of a young daemon. All three are the minimum of three. "
        "Memory is the resident memory above that of the young daemon, after it has released what is over."
    ),
    figures=(
        Figure("record_us", "CPU of the daemon per record", "µs", compared=False),
        Figure("record_times", "… beside young", "times", compared=False),
        Figure("stretch_us", "… sent in stretches of 127 KiB", "µs", compared=False),
        Figure("stretch_times", "… beside young", "times", compared=False),
        Figure("turn_ms", "a turn", "ms", compared=False),
        Figure("turn_times", "… beside young", "times", compared=False),
        Figure("restart_s", "a restart", "s", compared=False),
        Figure("restart_times", "… beside young", "times", compared=False),
        Figure("grown_mib", "memory, over young", "MiB", compared=False, signed=True),
    ),
    full={
        "records": 300_000,
        "sessions": 10**4,
        "processes": 10**3,
        "points": 10**7,
        "locals": 500,
        "turns": 300,
        "tries": 3,
    },
    quick={"records": 5_000, "sessions": 20, "processes": 3, "points": 20_000, "locals": 5, "turns": 10, "tries": 1},
    measure=measure,
    peers={name: PEERS[BASE].named(name) for name in CASES},
    rounds_max=1,
)
