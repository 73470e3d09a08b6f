"""``FileWriter``: the level below `SummaryWriter`, for callers that build their own protocol buffers."""

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
    """Takes the place of the originals' event file writer: tools look for the name of the event file here.

    Args:
        logdir: the folder of the run.
        max_queue_size, flush_secs: accepted for compatibility.
        filename_suffix: appended to the name of the event file.

    Raises:
        ValueError: the folder or the suffix is invalid.
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
        """Make the event file writer of a file writer."""
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
        """The event file of this run: the existing one, or the one that the first record will make.

        If the daemon is on another host, this is the path there, as far as known here; one warning says so.
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
    """Logs the caller's own protocol buffers to a run.

    Args:
        logdir: the folder of the run.
        max_queue, flush_secs: accepted for compatibility.
        filename_suffix: appended to the name of the event file.
        log_dir: torch's name of ``logdir``.
        ranks: as for `SummaryWriter`.

    Raises:
        TypeError: the folder is missing.
        ValueError: the folder, the suffix or the word for the ranks is invalid.
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
            raise TypeError("FileWriter needs logdir")
        place = member(ranks)
        self._tbxd_logdir = place.folder(os.fsdecode(chosen))
        self._tbxd_bind(run_of(self._tbxd_logdir, place, filename_suffix) if place.writes else None)

    def __new__(cls, *arguments: Any, **more: Any) -> FileWriter:
        """Apply ``TBXD_STRICT`` of this process, to unpickled writers as well."""
        soften(FileWriter)
        return super().__new__(cls)

    _tbxd_told: Callable[[], Any] | None = None  # the writer that it belongs to, as long as there is one

    def _tbxd_bind(self, run: Run | None) -> None:
        self._tbxd_run = run
        self._tbxd_default: tuple[Any, float | None] = None, None  # step and time of what is given none
        self.event_writer = EventFileWriter.of(run, self) if run is not None else None

    @classmethod
    def of(cls, run: Run | None, logdir: str, told: Callable[[], Any] | None = None) -> FileWriter:
        """Make the file writer of a `SummaryWriter`; with run None it writes nothing.

        Args:
            told: gives the writer, which checks its overrides again when one of these methods is replaced.
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
        """Check which methods the program has overridden, and tell the writer that this belongs to.

        As in the originals, a summary and a graph become events, and events go to ``event_writer``. If all of these are
        ours, a shorter way is used.
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
        """Return True if this logs to the run and nothing is overridden."""
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
            TypeError: the event is not a protocol buffer.
            ValueError: the event is too large, or the step is invalid.
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
            TypeError: the graph is not a protocol buffer.
            ValueError: the graph is too large.
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
        """Set a default step or wall time for calls in this context.

        Raises:
            ValueError, TypeError: both are missing, or one is invalid.
        """
        if global_step is None and walltime is None:
            raise ValueError("use_metadata needs global_step or walltime")
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
        """Return the step of an event: the given one, else that of `use_metadata`, else the event's own."""
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
    """Return the event with a graph's ``RunMetadata`` and its tag, in ``tagged_run_metadata``."""
    return field(8, field(1, RUN_METADATA_TAG.encode()) + field(2, metadata))


def _event(reader: Any, data: bytes) -> Any:
    """Return an event as a protocol buffer of the package of ``reader``; its bytes if there is no such package."""
    from . import original_protos

    made = original_protos.made_by(reader)
    return data if made is None else made.event.FromString(data)


T = TypeVar("T")


def _told(event: T, step: int, walltime: float) -> T:
    """Set the step and the wall time of an event, as the originals do, and return it."""
    if not isinstance(event, bytes):
        event.step, event.wall_time = step, walltime  # type: ignore[attr-defined]
    return event


def _summary_of(event: bytes) -> bytes:
    """Return the summary within the bytes of an event; empty if there is none."""
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
