"""A power cut at any moment of a daemon's life: its event files, and what stands beside them, are gone on with.

What a real daemon stores, names and syncs is noted call by call (`disk_log`, with strace). For each moment the disks
that there may be then are built in its folders, with the journals that its clients have then, and a daemon in this
process goes on with them, as after a start of the system. Then nothing that was acknowledged for certain is missing,
nothing is there twice, and TensorBoard's readers read it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.tensorflow_stub.errors import DataLossError

import disk_log
from disk_log import Disk, DiskLog
from harness import World, absent, wait_for
from tb import LOADERS, board
from tbxd.config.settings import Settings
from tbxd.ingest import hub, journal_recovery
from tbxd.tfevents import checkpoint
from tbxd_client.journal import journal_files
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.journal_files import JournalReader
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar

OTHER_BOOT = b"another boot id!"
SERVE = """
import sys
from tbxd.scheduler import run_scheduler
run_scheduler.IDLE_SECONDS = 0.1
from tbxd.cli.main import main
sys.argv = ["tbxd", "serve"]
sys.exit(main())
"""


class Client:
    """A trainer with a journal of its own, which the daemon does not see while it lives: as one on another host."""

    def __init__(self, place: World, directory: Path, number: int, **more: Any) -> None:
        kept = place.root / "kept"
        kept.mkdir(exist_ok=True)
        self._place = place
        self.directory = directory
        self.number = number
        self.journal = Journal(kept, lambda: False, durable=True)
        self.session = self.journal.session
        self.steps: list[int] = []
        self.ends: list[int] = []
        self.sent = self.written = 0
        self.definitions = pack_definition(RunDefinition(0, str(directory), "host", 100 + number, 1.0, **more))
        self.definitions += pack_definition(TagDefinition(0, 0, "loss"))
        self.journal.define(self.definitions)
        self.meet()

    def meet(self) -> None:
        """Say hello to the daemon that runs now."""
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(f"ipc://{self._place.runtime}/daemon.sock")
        self._say(wire.Hello(self.session, self.written, os.getpid(), socket.gethostname(), "", "test", ""))
        self._say(wire.Data(self.session, wire.DEFINITIONS, 0, self.definitions))
        self.sent = self.written

    def _say(self, message: wire.Message) -> None:
        self._socket.send_multipart(wire.pack(message))

    def log(self, first: int, count: int) -> None:
        """Keep scalars and send them."""
        for step in range(first, first + count):
            assert self.journal.append(pack_scalar(0, step, float(step), float(step))) == ""
            self.steps.append(step)
            self.ends.append(self.journal.committed)
        data = self._data()
        if data:
            self._say(wire.Data(self.session, wire.RECORDS, self.sent, data))
        self.sent = self.journal.committed

    def _data(self) -> bytes:
        begin = self.ends.index(self.sent) + 1 if self.sent else 0
        return b"".join(pack_scalar(0, step, float(step), float(step)) for step in self.steps[begin:])

    def flush(self) -> None:
        """Have all of it written."""
        self._say(wire.Flush(self.session, self.sent))

        def acknowledged() -> bool:
            while self._socket.poll(0):
                message = wire.unpack(self._socket.recv_multipart())
                assert not isinstance(message, wire.Refused), message
                if isinstance(message, wire.Ack):
                    self.written = max(self.written, message.written)
            return self.written >= self.sent

        wait_for(acknowledged, "what was logged to be acknowledged")

    def newest(self) -> Path:
        """The event file that is written now."""
        return self.directory / event_files(self.directory)[-1]

    def leave(self) -> None:
        """The connection ends; the journal stays."""
        self._socket.close()


@contextmanager
def recorded(place: World, log: Path, *more: str) -> Iterator[Any]:
    """A daemon whose calls are noted; it is killed in the end. ``more`` is for strace."""
    daemon = place.start(SERVE, under=[*disk_log.command(log), *more])
    wait_for(place.running, "the daemon")
    yield daemon
    place.kill_daemon()
    daemon.wait(30)


def parked(place: World) -> None:
    """All that was written has been synced, and no run is open any more."""

    def closed() -> bool:
        status = place.status()
        return status is not None and status["metrics"]["event_files_open"] == 0

    wait_for(closed, "all runs to be synced and closed")


class Cut:
    """Power cuts of what was recorded, and what comes of them."""

    def __init__(self, place: World, clients: list[Client], log: DiskLog, always: bool, seed: int) -> None:
        self._place, self._clients, self._log, self._always = place, clients, log, always
        self._rng = random.Random(seed)
        self._kept = place.root / "kept"
        self.looked = 0

    def everywhere(self, most: int, several: int, loaders: int) -> None:
        """Cut at so many moments, and look at so many disks of each; TensorBoard itself looks at some."""
        moments = self._log.moments
        if len(moments) > most:
            moments = sorted(self._rng.sample(moments, most))
        shown = set(self._rng.sample(moments, min(loaders, len(moments))))
        for moment in moments:
            for nth, disk in enumerate(self._log.disks(moment, self._rng, several)):
                self._cut(moment, disk, nth == 2 and moment in shown)

    def at_the_end(self) -> None:
        """Cut when everything has had its time to be synced: all that was acknowledged is certain."""
        (disk,) = self._log.disks(self._log.moments[-1], self._rng, 1)
        self._always = True
        self._cut(self._log.moments[-1], disk, show=False)

    def _cut(self, moment: int, disk: Disk, show: bool) -> None:
        root = self._log.root
        for path in root.iterdir():
            shutil.rmtree(path)
        disk.build(root)
        safe = {client.directory: self._steps(client.directory) for client in self._clients}
        acknowledged = {client: self._log.acknowledged(moment, client.session) for client in self._clients}
        spool = root / "spool"
        spool.mkdir(exist_ok=True)
        said = ["files:", *_listed(root / "logs"), "acknowledged and released:"]
        for client, position in acknowledged.items():
            released = self._rng.choice((0, position, self._rng.choice([0, *client.ends])))
            said.append(f"  {client.number} in {client.directory.name}: {position}, {min(released, position)}")
            path = spool / client.journal.path.name
            shutil.copytree(client.journal.path, path)
            reader = JournalReader(path)
            reader.release(min(released, position))
            reader.close()
        self._go_on(spool)
        where = f"moment {moment} of {self._log.moments[-1]}, disk {self.looked}"
        found = {directory: self._steps(directory) for directory in safe}
        for directory, steps in found.items():
            assert len(steps) == len(set(steps)), f"{where}: {directory} has some twice"
            owed = {
                step
                for client, position in acknowledged.items()
                for step, end in zip(client.steps, client.ends, strict=True)
                if client.directory == directory and (self._always or end > position)
            }
            if directory.name == "ranks":
                for side in ("min", "max"):
                    spread = self._steps(directory / "ranks" / side)
                    assert len(spread) == len(set(spread)), f"{where}: {side} has some twice"
                    assert not self._always or spread == steps, f"{where}: {side} has {len(spread)} of {len(steps)}"
            lost = (owed | set(safe[directory])) - set(steps)
            said += ["files then:", *_listed(root / "logs")] if lost else []
            assert not lost, "\n".join(
                (
                    f"{where}: {directory} has lost {sorted(lost)[:5]}…, {len(lost)} steps, of which "
                    f"{len(lost & set(safe[directory]))} were on the disk, and {len(lost & owed)} in journals",
                    *said,
                )
            )
        if show:
            for loader in LOADERS:
                with board(root / "logs", loader) as shown:
                    for directory, steps in found.items():
                        run = str(directory.relative_to(root / "logs"))
                        shown.until(
                            lambda run=run, steps=steps: (
                                sorted(step for step, _ in shown.scalars(run, "loss")) == sorted(steps)
                            ),
                            f"{where}: {run} with the {loader} loader",
                        )
        self.looked += 1

    @staticmethod
    def _steps(directory: Path) -> list[int]:
        """The steps that TensorBoard shows of a run."""
        if not directory.is_dir():
            return []
        accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
        accumulator.Reload()
        if "loss" not in accumulator.Tags()["scalars"]:
            return []
        points = accumulator.Scalars("loss")
        assert all(point.value == point.step for point in points)
        return [point.step for point in points]

    def _go_on(self, spool: Path) -> None:
        """A daemon starts and takes what the journals hold."""
        settings = Settings.of({"spool": spool, "sync": "always" if self._always else "periodic", "batch_ms": 0})
        made = hub.Hub(settings, lambda: None, lambda peer, message: None)
        adopter = journal_recovery.Adopter(made, [spool])

        def done() -> bool:
            made.collect()
            now = time.monotonic()
            adopter.step(now)
            made.tick(now)
            return not adopter.busy and not journal_files.journals(spool)

        try:
            wait_for(done, "the journals to be written", pause=0.0005)
            assert adopter.quarantined == 0
        finally:
            adopter.close()
            assert made.close(30)


def _listed(folder: Path) -> list[str]:
    """Each file below a folder, with its size and the steps that are read in it alone."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        points = [] if ".tfevents." not in path.name else _points(path)
        shown = f"{points[0]} to {points[-1]} in {len(points)} events" if points else "none"
        lines.append(f"  {path.relative_to(folder)}: {path.stat().st_size} bytes, steps {shown}")
    return lines


def _points(path: Path) -> list[int]:
    steps = []
    with contextlib.suppress(DataLossError):
        for event in EventFileLoader(str(path)).Load():
            steps += [event.step for value in event.summary.value if value.tag == "loss"]
    return steps


@pytest.fixture
def other_boot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the system have started anew from here on."""
    return lambda: [  # type: ignore[return-value]
        monkeypatch.setattr(module, "boot_id", lambda: OTHER_BOOT)
        for module in (journal_files, journal_recovery, checkpoint)
    ]


def record(place: World, sync: str) -> tuple[list[Client], DiskLog]:
    """Two daemons one after the other, the first of which is killed, and clients that log through both."""
    if shutil.which("strace") is None:
        absent("strace is not installed")
    root = place.root / "disk"
    root.mkdir()
    place.spool = root / "spool"
    place.extra |= {"TBXD_SYNC": sync, "TBXD_SYNC_SECONDS": "0.2", "TBXD_BATCH_MS": "1", "TBXD_SPOOL": str(place.spool)}
    logs = root / "logs"
    tapes = [place.root / "first", place.root / "second"]
    slow = ("-e", "inject=fdatasync:delay_enter=100ms")  # so that a kill comes between a write and its sync
    with recorded(place, tapes[0], *slow):
        a = Client(place, logs / "deep" / "a", 1)
        b = Client(place, logs / "b", 2)
        ranks = [
            Client(place, logs / "ranks", 10 + rank, rank=rank, world=2, job="job", reduce=True) for rank in range(2)
        ]
        for turn in range(3):
            for client, count in ((a, 40), *((rank, 15) for rank in ranks)):
                client.log(turn * count, count)
            for client in (a, *ranks):
                client.flush()
            b.log(turn * 10, 10)
            time.sleep(0.25)  # syncs come in between
        b.flush()
        parked(place)
        a.log(120, 20)
        a.flush()
        written = os.stat(a.newest()).st_size
        a.log(140, 20)
        wait_for(lambda: os.stat(a.newest()).st_size > written, "what is not synced when the daemon is killed")
    for client in (a, b, *ranks):
        client.leave()
    with recorded(place, tapes[1]):
        a.meet()
        a.log(160, 20)
        a.flush()
        c = Client(place, logs / "deep" / "a", 3, script="later.py")
        c.log(180, 30)
        c.flush()
        b.meet()
        for client, first in ((b, 30), *((rank, 45) for rank in ranks)):
            client.meet() if client is not b else None
            client.log(first, 5)
        for client in (b, *ranks):
            client.flush()
        parked(place)
    for client in (a, b, c, *ranks):
        client.leave()
    log = DiskLog(root)
    for tape in tapes:
        log.read(tape)
    assert log.acknowledged(log.moments[-1], a.session) == a.journal.committed, "the tape has it all"
    return [a, b, c, *ranks], log


@pytest.mark.long
@pytest.mark.parametrize("sync", ["always", "periodic"])
def test_a_power_cut_at_any_call_of_a_daemon_costs_nothing_that_was_on_the_disk(
    place: World, sync: str, other_boot: Callable[[], None]
) -> None:
    clients, log = record(place, sync)
    other_boot()
    cut = Cut(place, clients, log, sync == "always", int(os.environ.get("TBXD_SEED", "1")))
    cut.everywhere(most=20, several=3, loaders=1)
    cut.at_the_end()
    assert cut.looked >= 60 or cut.looked == 3 * len(log.moments)
    for client in clients:
        client.journal.close()


@pytest.mark.matrix
@pytest.mark.parametrize("sync", ["always", "periodic"])
def test_a_power_cut_at_every_call_of_a_daemon_costs_nothing_that_was_on_the_disk(
    place: World, sync: str, other_boot: Callable[[], None]
) -> None:
    clients, log = record(place, sync)
    other_boot()
    cut = Cut(place, clients, log, sync == "always", int(os.environ.get("TBXD_SEED", "2")))
    cut.everywhere(most=len(log.moments), several=5, loaders=20)
    cut.at_the_end()
    for client in clients:
        client.journal.close()
