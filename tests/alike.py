"""One call, three writers, one process: the contents of each file for TensorBoard's loader.

Ours is all real but for the socket: the client's journal is read here and fed to the daemon's session and run, and the
event file that comes out is read by TensorBoard's loader. The originals' events are caught where their files would
begin, and go through the same loader's steps.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX.writer
import torch.utils.tensorboard.writer
from PIL import Image
from tensorboard import data_compat, dataclass_compat
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto import event_pb2
from tensorboard.util import tensor_util

import tbxd_client
from tbxd.batch import Batch
from tbxd.ingest import session as daemon_session
from tbxd.runs.run_writer import RunWriter
from tbxd_client.session import session as client_session

PEERS = ("tensorboardX", "torch")
_MODULES = {"tensorboardX": tensorboardX.writer, "torch": torch.utils.tensorboard.writer}


@dataclass(slots=True)
class Value:
    """One value of a summary, as TensorBoard keeps it. ``run`` is relative to the writer's folder."""

    run: str
    tag: str
    step: int
    wall_time: float
    plugin: str
    content: bytes
    display_name: str
    description: str
    data_class: int
    data: Any  # numpy's array of the tensor

    @property
    def when(self) -> tuple[str, str, int, float]:
        """Its run, tag, step and wall time."""
        return self.run, self.tag, self.step, self.wall_time

    @property
    def told(self) -> tuple[str, str, str, int]:
        """What is said of it beside its numbers and the plugin's own words."""
        return self.plugin, self.display_name, self.description, self.data_class


@dataclass(slots=True)
class Outcome:
    """What became of a call: values in the file, what it raised, why the daemon refused it."""

    values: list[Value] = field(default_factory=list)
    error: Exception | None = None
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def logged(self) -> bool:
        """True if the call was logged."""
        return self.error is None and not self.refused


def values_of(run: str, event: Any) -> list[Value]:
    """The values in an event that has been through the loader."""
    return [
        Value(
            run,
            value.tag,
            event.step,
            event.wall_time,
            value.metadata.plugin_data.plugin_name,
            value.metadata.plugin_data.content,
            value.metadata.display_name,
            value.metadata.summary_description,
            value.metadata.data_class,
            tensor_util.make_ndarray(value.tensor),
        )
        for value in event.summary.value
    ]


class Ours:
    """A `SummaryWriter` of tbxd, and the daemon's way from its journal to the event file."""

    def __init__(self, root: Path) -> None:
        self.root = root / "tbxd"
        self.writer = tbxd_client.SummaryWriter(self.root)
        self._session: client_session.Session | None = None
        self._runs: dict[str, tuple[RunWriter, list[EventFileLoader]]] = {}

    def call(self, call: Callable[[Any], object]) -> Outcome:
        """Make a call, and write and read what it has logged."""
        outcome = Outcome()
        try:
            call(self.writer)
        except Exception as error:
            assert isinstance(error, TypeError | ValueError) and str(error), repr(error)
            outcome.error = error
        session = client_session.active()
        if session is not None:
            self._drain(session, outcome)
        return outcome

    def _drain(self, session: client_session.Session, outcome: Outcome) -> None:
        if session is not self._session:
            self._session = session
            self._daemon = daemon_session.Session(session.journal.session, 0)
            self._definitions = self._records = 0
        journal, daemon = session.journal, self._daemon
        while stretch := journal.read_definitions(daemon.definitions_expected, 1 << 20):
            assert daemon.feed_definitions(daemon.definitions_expected, stretch)
        while stretch := journal.read(daemon.expected, 1 << 20):
            batches = daemon.feed_records(daemon.expected, stretch)
            assert batches is not None
            for batch in batches:
                self._write(batch, outcome)
        assert daemon.written == daemon.expected == journal.committed and not daemon.homeless
        journal.release(daemon.written)
        outcome.values += sorted(self._read(), key=lambda value: value.run)

    def _write(self, batch: Batch, outcome: Outcome) -> None:
        known = self._runs.get(batch.run.directory)
        if known is None:
            known = RunWriter(Path(batch.run.directory), self._done), []
            self._runs[batch.run.directory] = known
        run = known[0]
        before = _refused(run)
        run.offer(batch)
        run.write()
        assert not run.error, run.error
        for reason, count in _refused(run).items():
            if count > before.get(reason, 0):
                outcome.refused[reason] = outcome.refused.get(reason, 0) + count - before.get(reason, 0)
        if not known[1] and run.file is not None:
            known[1].append(EventFileLoader(str(run.file.path)))

    def _done(self, batch: Batch) -> None:
        self._daemon.done(batch)

    def _read(self) -> Iterator[Value]:
        for directory, (_, loaders) in self._runs.items():
            for loader in loaders:
                for event in loader.Load():
                    yield from values_of(os.path.relpath(directory, self.root), event)

    def close(self) -> None:
        """Close the files."""
        for run, _ in self._runs.values():
            run.close()


def _refused(run: RunWriter) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in run.settled().values():
        for reason, count in entry.refused.items():
            found[reason] = found.get(reason, 0) + count
    return found


class Theirs:
    """The `SummaryWriter` of an original, whose events are caught."""

    def __init__(self, name: str, root: Path) -> None:
        self.root = root / name
        self._events: list[tuple[str, bytes]] = []
        self._metadata: dict[str, dict[str, Any]] = {}
        catch = self._events.append

        class Catcher:
            def __init__(self, logdir: Any, *arguments: Any, **more: Any) -> None:
                self._logdir = str(logdir)

            def get_logdir(self) -> str:
                return self._logdir

            def add_event(self, event: Any) -> None:
                catch((self._logdir, event.SerializeToString()))

            def flush(self) -> None: ...

            def close(self) -> None: ...

            def reopen(self) -> None: ...

        self._catcher, self._module = Catcher, _MODULES[name]
        with self._caught():
            self.writer = self._module.SummaryWriter(str(self.root))

    @contextmanager
    def _caught(self) -> Iterator[None]:
        before = self._module.EventFileWriter
        self._module.EventFileWriter = self._catcher
        try:
            yield
        finally:
            self._module.EventFileWriter = before

    def call(self, call: Callable[[Any], object]) -> Outcome:
        """Make a call, and read what it would have written."""
        outcome = Outcome()
        self._events.clear()
        try:
            with self._caught(), np.errstate(all="ignore"):
                call(self.writer)
        except Exception as error:  # of any kind: what an original cannot do it says in many ways
            outcome.error = error
        for logdir, data in self._events:
            run = os.path.relpath(logdir, self.root)
            event = data_compat.migrate_event(event_pb2.Event.FromString(data))
            for migrated in dataclass_compat.migrate_event(event, self._metadata.setdefault(run, {})):
                try:
                    outcome.values += values_of(run, migrated)
                except Exception as error:  # TensorBoard cannot read it
                    outcome.error = error
        outcome.values.sort(key=lambda value: value.run)
        return outcome


@contextmanager
def writers(root: Path) -> Iterator[dict[str, Any]]:
    """All three, below a folder; to be used in a process that has no session of tbxd's."""
    assert client_session.active() is None
    settings = {
        "TBXD_ADDRESS": f"ipc://{root}/nobody",
        "TBXD_SPOOL": str(root / "spool"),
        "TBXD_RUNTIME_DIR": str(root / "run"),
        "TBXD_FLUSH_SECONDS": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    ours = Ours(root)
    try:
        yield {"tbxd": ours, **{name: Theirs(name, root) for name in PEERS}}
    finally:
        ours.close()
        session = client_session.active()
        if session is not None:
            session.end()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


# --- what is in a value ----------------------------------------------------------------------------------------


def picture(value: Value) -> tuple[int, int, Any]:
    """Width and height as they are told, and the pixels of an image (of a GIF those of its first frame)."""
    width, height, data = value.data.tolist()
    return int(width), int(height), np.asarray(Image.open(io.BytesIO(data)))
