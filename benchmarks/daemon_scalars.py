"""How many scalars does the daemon take a second, from its socket to the event file?"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .meter import HelperMeter, file_bytes
from .peers import BASE, PEERS, MeasurementError, Peer
from .question import Figure, Logged, Outcome, Question

BURST_BYTES = 1 << 18  # of a message, as the client's sender reads them from its journal
TICK_SCALARS = 600  # what 64 senders that look every 50 ms find when they log 800,000 a second together
WARM = 20  # one scalar in so many is sent before anything is measured
WALL_TIME, CALL_SECONDS = 1.75e9, 1e-6
DEADLINE = 120.0
SCALAR_BYTES = 34


@dataclass(frozen=True, slots=True)
class Shape:
    """What is logged: by how many sessions, to a run each, and how many tags a step has."""

    sessions: int
    tags: int
    message: int  # bytes

    def names(self) -> list[str]:
        """The tags."""
        return [f"train/metric_{number:0{len(str(self.tags - 1))}}" for number in range(self.tags)]


SHAPES = {
    "1 session": Shape(1, 1, BURST_BYTES),
    "8 sessions": Shape(8, 1, BURST_BYTES),
    "64 sessions": Shape(64, 1, TICK_SCALARS * SCALAR_BYTES),
    "100 tags": Shape(1, 100, BURST_BYTES),
    "64 sessions, 100 tags": Shape(64, 100, TICK_SCALARS * SCALAR_BYTES),
    "10,000 tags": Shape(1, 10_000, BURST_BYTES),
}


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one shape; to be called in a fresh process."""
    shape = SHAPES[peer.name]
    steps = max(2, counts["scalars"] // (shape.sessions * shape.tags))
    with served() as address:
        senders = [Sender(address, shape, steps, logs / f"run{number}") for number in range(shape.sessions)]
        warm = [max(1, steps // WARM) * shape.tags * SCALAR_BYTES for _ in senders]
        send(senders, warm)
        daemon = HelperMeter(PEERS[BASE])
        daemon.forget_peak()
        cpu, start = daemon.cpu(), time.perf_counter()
        send(senders, [len(sender.records) for sender in senders])
        seconds, cpu = time.perf_counter() - start, daemon.cpu() - cpu
        peak = daemon.peak()
        for sender in senders:
            sender.close()
    scalars = sum(len(sender.records) - begin for sender, begin in zip(senders, warm, strict=True)) // SCALAR_BYTES
    return Outcome(
        {
            "millions_per_cpu_second": scalars / cpu / 1e6,
            "millions_per_second": scalars / seconds / 1e6,
            "cpu_us": cpu / scalars * 1e6,
            "disk_bytes": file_bytes(logs) / (steps * shape.tags * shape.sessions),
            "peak_mib": peak,
        },
        [
            Logged(f"run{number}", tag, "simple_value", steps)
            for number in range(shape.sessions)
            for tag in shape.names()
        ],
    )


# --- the load ----------------------------------------------------------------------------------------------------


class Sender:
    """One session, whose bytes are all made before anything is measured."""

    def __init__(self, address: str, shape: Shape, steps: int, folder: Path) -> None:
        import zmq

        from tbxd_client.protocol import wire
        from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition

        self.session = os.urandom(12)
        self.records = memoryview(_records(shape.tags, steps))
        self.sent = self.written = self.limit = 0
        self.end = 0
        self._message = shape.message
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.sndhwm = self._socket.rcvhwm = 0
        self._socket.linger = 0
        self._socket.connect(address)
        self._say(wire.Hello(self.session, 0, os.getpid(), socket.gethostname(), "", "benchmark", ""))
        definitions = pack_definition(RunDefinition(0, str(folder), "host", os.getpid(), time.time()))
        definitions += b"".join(pack_definition(TagDefinition(n, 0, tag)) for n, tag in enumerate(shape.names()))
        for begin in range(0, len(definitions), BURST_BYTES):
            self._say(wire.Data(self.session, wire.DEFINITIONS, begin, definitions[begin : begin + BURST_BYTES]))

    def _say(self, message: Any) -> None:
        from tbxd_client.protocol import wire

        self._socket.send_multipart(wire.pack(message))

    def turn(self) -> bool:
        """Hear what the daemon says, and send one message if it may be. True when there was something to do."""
        import zmq

        from tbxd_client.protocol import wire

        heard = False
        while self._socket.poll(0):
            answer = wire.unpack(self._socket.recv_multipart(zmq.NOBLOCK))
            heard = True
            if isinstance(answer, wire.Refused):
                raise MeasurementError(f"the daemon refuses: {answer.reason}")
            if isinstance(answer, wire.Ack):
                self.written = answer.written
            if isinstance(answer, wire.Ack | wire.Welcome):
                self.limit = max(self.limit, answer.limit)
        end = min(self.end, self.limit, self.sent + self._message)
        if end > self.sent:
            payload = bytes(self.records[self.sent : end])
            self._say(wire.Data(self.session, wire.RECORDS, self.sent, payload))
            self.sent = end
            if end == self.end:
                self._say(wire.Flush(self.session, end))
            return True
        return heard

    def close(self) -> None:
        """Say goodbye."""
        from tbxd_client.protocol import wire

        self._socket.linger = 1000
        self._say(wire.Goodbye(self.session))
        self._socket.close()


def _records(tags: int, steps: int) -> bytes:
    import numpy as np

    from tbxd.batch import SCALAR_DTYPE
    from tbxd_client.protocol.records import pack_scalar

    numbers = np.arange(tags * steps)
    records = np.tile(np.frombuffer(pack_scalar(0, 0, 0.0, 0.0), SCALAR_DTYPE), tags * steps)
    records["tag"], records["step"] = numbers % tags, numbers // tags
    records["wall_time"] = WALL_TIME + numbers * CALL_SECONDS
    records["value"] = np.sin(numbers)
    return records.tobytes()


def send(senders: list[Sender], ends: list[int]) -> None:
    """Send everything up to these positions, the sessions in turn, until it is acknowledged."""
    deadline = time.monotonic() + DEADLINE
    for sender, end in zip(senders, ends, strict=True):
        sender.end = end
    waiting = [sender for sender in senders if sender.written < sender.end]
    for turn in itertools.count():
        busy = [sender.turn() for sender in waiting]
        if not turn % 16 or not any(busy):
            waiting = [sender for sender in waiting if sender.written < sender.end]
        if not waiting:
            return
        if not any(busy):
            time.sleep(0.0002)
        if time.monotonic() > deadline:
            raise MeasurementError(f"{len(waiting)} sessions are not written after {DEADLINE:g} s")


@contextmanager
def served() -> Iterator[str]:
    """A daemon, on one core where there are several, while the load is made on another. The harness stops it."""
    from tbxd_client.config.paths import default_address, lock_path
    from tbxd_client.transport.launcher import is_locked

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[-1:])
    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "serve"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.sched_setaffinity(process.pid, cores[:1])
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    address = default_address()
    deadline = time.monotonic() + DEADLINE
    while not is_locked(lock_path()) or not Path(address.removeprefix("ipc://")).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise MeasurementError("the daemon does not start")
        time.sleep(0.01)
    yield address


QUESTION = Question(
    name="daemon_scalars",
    title="scalars a second that the daemon takes, from its socket to the event file",
    notes=(
        "A real daemon, on one core. The bytes of its sessions are made before, so making them costs nothing here: "
        "240,000 scalars in all, each session to a run of its own, until everything is written and acknowledged. 1 "
        "and 8 sessions: one tag in a burst, in messages of 256 KiB, as from a sender that is behind. 64 sessions: "
        f"{TICK_SCALARS} scalars a message, which is what 64 senders find every 50 ms when they log 800,000 a "
        "second together. 100 and 10,000 tags: that many scalars share a step. A twentieth is sent before, so that "
        "the daemon knows the runs. CPU is that of the whole daemon. The event files are read and checked "
        "afterwards."
    ),
    figures=(
        Figure("millions_per_cpu_second", "scalars per CPU second of the daemon", "millions", compared=False),
        Figure("millions_per_second", "scalars per second", "millions", compared=False),
        Figure("cpu_us", "CPU of the daemon per scalar", "µs", compared=False),
        Figure("disk_bytes", "event file, per scalar", "bytes", compared=False),
        Figure("peak_mib", "peak memory of the daemon", "MiB", compared=False),
    ),
    full={"scalars": 240_000},
    quick={"scalars": 12_800},
    measure=measure,
    peers={name: PEERS[BASE].named(name) for name in SHAPES},
)
