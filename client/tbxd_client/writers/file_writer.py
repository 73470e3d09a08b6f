"""``FileWriter``: the level below `SummaryWriter`, for callers that build protocol buffers of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..config.paths import configured_address, is_remote
from ..config.settings import warn
from ..distributed.rank_policy import member
from ..protocol import kinds
from ..protocol.protowire import WireError, field, fields
from ..session.run_handle import Run, run_of
from ..session.session import active, flush
from ..values.arrays import Array, to_float, to_step
from . import interception
from .overrides import is_overridden
from .strict_mode import soften

MESSAGE_BYTES_MAX = 1 << 29  # of one protocol buffer
ADDING = ("add_event", "add_summary", "add_graph", "add_onnx_graph", "add_openvino_graph")  # what people override
RUN_METADATA_TAG = "step1"  # where torch's writer puts what it has beside a graph


class EventFileWriter:
    """Stands where the originals have the object that writes: tools look for the name of the event file here.

    Args:
        logdir: the folder of the run.
        max_queue_size, flush_secs: accepted for compatibility.
        filename_suffix: appended to the name of the event file.

    Raises:
        ValueError: a folder or a suffix that cannot be.
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        max_queue_size: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
    ) -> None:
        owner = FileWriter(logdir, filename_suffix=filename_suffix)
        self._tbxd_run, self._tbxd_owner = owner._tbxd_run, owner

    @classmethod
    def of(cls, run: Run, owner: FileWriter) -> EventFileWriter:
        """That of a file writer."""
        writer = cls.__new__(cls)
        writer._tbxd_run, writer._tbxd_owner = run, owner
        return writer

    def get_logdir(self) -> str:
        """The folder of the run, as it was given."""
        return self._tbxd_owner.get_logdir()

    def add_event(self, event: Any) -> None:
        """Log an event with its own step and time; see `FileWriter.add_event`."""
        owner = self._tbxd_owner
        owner._tbxd_log_event(event, owner._tbxd_step(event, None), getattr(event, "wall_time", None) or None)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "add_event":
            self._tbxd_owner._tbxd_look()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name == "add_event":
            self._tbxd_owner._tbxd_look()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far is in the event files; see `SummaryWriter.flush`."""
        return self._tbxd_owner.flush(timeout)

    def close(self) -> None:
        """Flush; see `SummaryWriter.close`."""
        self._tbxd_owner.close()

    def reopen(self) -> None:
        """Do nothing: a writer that is used is open."""

    @property
    def _logdir(self) -> str:
        """The folder of the run, as it was given."""
        return self._tbxd_owner.get_logdir()

    @property
    def _ev_writer(self) -> EventFileWriter:
        return self

    @property
    def _file_name(self) -> str:
        """The event file of this run: the one that is there, or the one that its first record makes.

        Where the daemon is on another host, it is the path there, as far as it can be known here, which is said once.
        """
        if self._tbxd_run is None:
            return ""
        path, address = self._tbxd_run.event_file, configured_address() or ""
        if is_remote(address) and not os.path.exists(path):  # noqa: PTH110 - a string, as in the originals
            warn(f"{path} is the event file's name on the host of {address}; this host has no such file", once="remote")
        return path

    @property
    def _py_recordio_writer(self) -> EventFileWriter:
        return self

    @property
    def path(self) -> str:
        """The event file of this run."""
        return self._file_name


class FileWriter:
    """Logs protocol buffers of the caller's own to a run.

    Args:
        logdir: the folder of the run.
        max_queue, flush_secs: accepted for compatibility.
        filename_suffix: appended to the name of the event file.
        log_dir: torch's name of ``logdir``.
        ranks: as for `SummaryWriter`.

    Raises:
        TypeError: no folder.
        ValueError: a folder or a suffix that cannot be, or a word for the ranks that is none.
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        *,
        log_dir: str | os.PathLike[str] | None = None,
        ranks: str | None = None,
    ) -> None:
        chosen = log_dir if logdir is None else logdir
        if chosen is None:
            raise TypeError("FileWriter without logdir")
        place = member(ranks)
        self._tbxd_logdir = place.folder(os.fsdecode(chosen))
        self._tbxd_bind(run_of(self._tbxd_logdir, place, filename_suffix) if place.writes else None)

    def __new__(cls, *arguments: Any, **more: Any) -> FileWriter:
        """How wrong arguments are met is a matter of this process, also for what was pickled."""
        soften(FileWriter)
        return super().__new__(cls)

    _tbxd_told: Callable[[], Any] | None = None  # the writer that it belongs to, as long as there is one

    def _tbxd_bind(self, run: Run | None) -> None:
        self._tbxd_run = run
        self._tbxd_default: tuple[Any, float | None] = None, None  # step and time of what is given none
        self.event_writer = EventFileWriter.of(run, self) if run is not None else None

    @classmethod
    def of(cls, run: Run | None, logdir: str, told: Callable[[], Any] | None = None) -> FileWriter:
        """That of a `SummaryWriter`; None is one that writes nothing.

        Args:
            told: gives the writer, which looks again at what it has when one of these methods is replaced.
        """
        writer = cls.__new__(cls)
        writer._tbxd_logdir = logdir
        writer._tbxd_bind(run)
        writer._tbxd_told = told
        return writer

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tbxd_told": None}

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in ADDING or name == "event_writer":
            self._tbxd_look()

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name in ADDING:
            self._tbxd_look()

    def _tbxd_look(self) -> None:
        """Look what of this people have put something else in the place of, and tell the writer that it belongs to.

        As in the originals, a summary and a graph become events, and events go on to ``event_writer``; where all of
        these are ours there is a shorter way.
        """
        below = vars(self).get("event_writer")
        self._tbxd_events_go_on = below is not None and (
            not isinstance(below, EventFileWriter) or is_overridden(below, "add_event")
        )
        self._tbxd_events_made = self._tbxd_events_go_on or is_overridden(self, "add_event")
        writer = self._tbxd_told() if self._tbxd_told is not None else None
        if writer is not None:
            writer._tbxd_look()

    def _tbxd_plain_for(self, run: Run | None) -> bool:
        """Whether this logs to a run, and nobody steps in."""
        return self._tbxd_run is run and not self._tbxd_events_made and not is_overridden(self, *ADDING)

    def get_logdir(self) -> str:
        """The folder of the run, as it was given."""
        return self._tbxd_logdir

    def add_event(self, event: Any, step: Any = None, walltime: float | None = None) -> None:
        """Log an event.

        Args:
            event: an ``Event`` of TensorFlow's, TensorBoard's or tensorboardX's, or its bytes.
            step: integer step; None is the event's own.
            walltime: seconds since the epoch; None is now.

        Raises:
            TypeError: it is no protocol buffer.
            ValueError: it is too large, or the step is none.
        """
        step = self._tbxd_step(event, step)
        if self._tbxd_events_go_on and self.event_writer is not None:
            self.event_writer.add_event(_told(event, to_step(step), self._tbxd_time(walltime)))
            return
        self._tbxd_log_event(event, step, walltime)

    def add_summary(self, summary: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Log a summary: a ``Summary``, or its bytes. Steps, times and errors as in `add_event`."""
        if self._tbxd_events_made:
            self.add_event(_event(self, field(5, _bytes(summary))), global_step, walltime)
            return
        step = self._tbxd_default[0] if global_step is None else global_step
        data = _bytes(summary)
        if not interception.taken(self._tbxd_run, lambda: data, to_step(step), self._tbxd_time(walltime)):
            self._tbxd_log(field(5, data), step, walltime)

    def add_graph(self, graph_profile: Any, walltime: float | None = None) -> None:
        """Log a graph.

        Args:
            graph_profile: a ``GraphDef``, or a pair of that and ``RunMetadata`` or None; each may also be its bytes.
            walltime: seconds since the epoch; None is now.

        Raises:
            TypeError: it is no protocol buffer.
            ValueError: it is too large.
        """
        given = list(graph_profile) if isinstance(graph_profile, tuple | list) else [graph_profile]
        graph, metadata, *_ = [*given, None, None]
        data, metadata = _bytes(graph), None if metadata is None else _bytes(metadata)
        walltime = time.time() if walltime is None else to_float(walltime, "walltime")
        for part in [field(4, data)] + ([] if metadata is None else [run_metadata_event(metadata)]):
            if self._tbxd_events_made:
                self.add_event(_event(self, part), None, walltime)
            else:
                self._tbxd_log(part, 0, walltime)

    def add_onnx_graph(self, graph: Any, walltime: float | None = None) -> None:
        """Log a graph; the same as `add_graph`."""
        self.add_graph(graph, walltime)

    def add_openvino_graph(self, graph: Any, walltime: float | None = None) -> None:
        """Log a graph; the same as `add_graph`."""
        self.add_graph(graph, walltime)

    @contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[FileWriter]:
        """Within this context, calls that are given no step or no time of their own have these.

        Raises:
            ValueError, TypeError: none of them, or what is no step and no time.
        """
        if global_step is None and walltime is None:
            raise ValueError("use_metadata without global_step and walltime says nothing")
        before = self._tbxd_default
        step, seconds = before
        self._tbxd_default = (
            step if global_step is None else to_step(global_step),
            seconds if walltime is None else to_float(walltime, "walltime"),
        )
        try:
            yield self
        finally:
            self._tbxd_default = before

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far is in the event files; see `SummaryWriter.flush`."""
        return self._tbxd_run is None or flush(timeout)

    def close(self) -> None:
        """Flush; see `SummaryWriter.close`."""
        if self._tbxd_run is None:
            return
        session = active()
        if session is not None:
            session.flush(closing=True)
        self._tbxd_run.leave_file()

    def reopen(self) -> None:
        """Do nothing: a writer that is used is open."""

    def _tbxd_step(self, event: Any, step: Any) -> Any:
        """The step of an event: the one that is given, the one that is none's own, or the event's."""
        if step is None:
            step = self._tbxd_default[0]
        return getattr(event, "step", 0) if step is None else step

    def _tbxd_time(self, walltime: Any) -> float:
        walltime = self._tbxd_default[1] if walltime is None else walltime
        return time.time() if walltime is None else to_float(walltime, "walltime")

    def _tbxd_log_event(self, event: Any, step: Any, walltime: Any) -> None:
        data = _bytes(event)
        when = self._tbxd_time(walltime)
        if not interception.taken(self._tbxd_run, lambda: _summary_of(data), to_step(step), when):
            self._tbxd_log(data, step, when)

    def _tbxd_log(self, data: bytes, step: Any, walltime: float | None) -> None:
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(f"a protocol buffer of {len(data):,} bytes; at most {MESSAGE_BYTES_MAX:,} are possible")
        if self._tbxd_run is not None:
            when = self._tbxd_time(walltime)
            self._tbxd_run.array(kinds.EVENT, "", to_step(step), when, Array("|u1", (len(data),), data), {})


def run_metadata_event(metadata: bytes) -> bytes:
    """The event that says how a graph ran: a ``RunMetadata`` with its tag, in ``tagged_run_metadata``."""
    return field(8, field(1, RUN_METADATA_TAG.encode()) + field(2, metadata))


def _event(reader: Any, data: bytes) -> Any:
    """An event as a protocol buffer, of the package that ``reader`` is of; its bytes where there is no such package."""
    from . import original_protos

    made = original_protos.made_by(reader)
    return data if made is None else made.event.FromString(data)


T = TypeVar("T")


def _told(event: T, step: int, walltime: float) -> T:
    """An event that says its step and time itself, as in the originals."""
    if not isinstance(event, bytes):
        event.step, event.wall_time = step, walltime  # type: ignore[attr-defined]
    return event


def _summary_of(event: bytes) -> bytes:
    """The summary within the bytes of an event; empty where there is none."""
    try:
        return next((bytes(value) for number, _, value in fields(event) if number == 5 and value), b"")
    except WireError:
        return b""


def _bytes(message: Any) -> bytes:
    if isinstance(message, bytes):
        return message
    serialize = getattr(message, "SerializeToString", None)
    if serialize is None:
        raise TypeError(f"{type(message).__name__} was given; a protocol buffer or its bytes are expected")
    try:
        return bytes(serialize())
    except Exception as error:  # protobuf's own, of a message that lacks what it has to have
        raise TypeError(f"a {type(message).__name__} that cannot be serialised: {error!s:.200}") from error


# All that torch's writer says of how a model ran, wherever it did: RunMetadata.step_stats.dev_stats.device.
CPU_RUN_METADATA = field(1, field(1, field(1, b"/device:CPU:0")))
