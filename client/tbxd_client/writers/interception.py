"""Writers whose file writer a program overrides, replaces or patches: it is called as the originals call theirs.

The originals make a summary in each call and give it to ``self._get_file_writer().add_summary(summary, step, time)``,
and programs intercept there: they count, rename, copy to another tracker, or put a mock. For such a writer
`Intercepted` replaces its `Run` and does the same. The last in the chain, our own `FileWriter`, recognises the
summary, and if it is unchanged, logs the record that it was made of: with the daemon's histograms, the ranks'
reduction and the colour. So a program that only observes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

from ..protocol import kinds
from ..session.run_handle import Row, Run
from ..statistics.moments import Moments
from ..values.arrays import Array
from ..values.counted import TENSORFLOW, counted
from ..values.media import histogram_attrs
from ..values.numbers import Numbers

_Log = Callable[[int, float], None]  # the record itself, with a step and a time


class _Offer(NamedTuple):
    """A summary on its way through a file writer."""

    run: Run | None
    summary: bytes
    log: _Log


_offer: ContextVar[_Offer | None] = ContextVar("_offer", default=None)


def taken(run: Run | None, message: Callable[[], bytes], step: Any, walltime: float) -> bool:
    """Log the record behind the summary on its way, if this is that summary, unchanged.

    Args:
        run: the run of the file writer that received the summary.
        message: gives the bytes of the received summary.
        step, walltime: received with the summary.

    Returns:
        False if it is another summary; the caller logs it as it is.
    """
    offer = _offer.get()
    if offer is None or offer.run is not run or message() != offer.summary:
        return False
    offer.log(step, walltime)
    return True


@contextmanager
def _on_its_way(offer: _Offer) -> Iterator[None]:
    token = _offer.set(offer)
    try:
        yield
    finally:
        _offer.reset(token)


class Intercepted:
    """Replaces a writer's `Run`: every record goes through the file writer that ``file_writer`` gives.

    Args:
        run: the run.
        file_writer: gives the file writer; called for each record.
        writes: False if the writer writes nothing: only the file writer is called.
    """

    scalars: Mapping[str, int] = MappingProxyType({})  # so that `add_scalar` never takes its short way

    def __init__(self, run: Run, file_writer: Callable[[], Any], writes: bool) -> None:
        self.run = run
        self._file_writer = file_writer
        self._writes = writes

    def __getattr__(self, name: str) -> Any:
        if name == "run":  # not there yet: it is being copied
            raise AttributeError(name)
        return getattr(self.run, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_it_is, (self.run,)  # a writer that is copied looks anew

    def known_row(self, tags: tuple[str, ...]) -> Row | None:
        """Return None: each value is logged by itself."""
        return None

    def values(self, tags: tuple[str, ...], step: int, wall_time: float, values: list[float]) -> None:
        """As `Run.values`."""
        for tag, value in zip(tags, values, strict=True):
            self.scalar(tag, step, wall_time, value)

    def scalar(
        self,
        tag: str,
        step: int,
        wall_time: float,
        value: float,
        color: str = "",
        name: str = "",
        description: str = "",
    ) -> None:
        """As `Run.scalar`."""
        from . import original_protos

        self._hand(
            lambda reader: original_protos.scalar(reader, tag, value, name, description),
            lambda step, when: self.run.scalar(tag, step, when, value, color, name, description),
            step,
            wall_time,
        )

    def array(
        self,
        kind: int,
        tag: str,
        step: int,
        wall_time: float,
        arrays: Array | Mapping[str, Array],
        attrs: dict[str, Any],
        color: str = "",
    ) -> None:
        """As `Run.array`."""
        from . import original_protos

        self._hand(
            lambda reader: original_protos.array(reader, kind, tag, arrays, attrs),
            lambda step, when: self.run.array(kind, tag, step, when, arrays, attrs, color),
            step,
            wall_time,
        )

    def histogram(
        self, tag: str, step: int, wall_time: float, numbers: Numbers, attrs: dict[str, Any], color: str = ""
    ) -> None:
        """As `Run.histogram`."""
        from . import original_protos

        self._hand(
            lambda reader: original_protos.array(reader, kinds.HISTOGRAM, tag, numbers.array, attrs),
            lambda step, when: self.run.histogram(tag, step, when, numbers, attrs, color),
            step,
            wall_time,
        )

    def distribution(self, tag: str, step: int, wall_time: float, numbers: Numbers) -> Moments | None:
        """As `Run.distribution`; the numbers are read twice."""
        self.histogram(tag, step, wall_time, numbers, histogram_attrs(TENSORFLOW, None))
        found = counted(numbers, TENSORFLOW, self.run.merges(tag), f"the histogram {tag!r}")
        return None if found is None else found[1]

    def text(self, kind: int, tag: str, step: int, wall_time: float, text: str | None, color: str = "") -> None:
        """As `Run.text`."""
        from . import original_protos

        def log(step: int, when: float) -> None:
            self.run.text(kind, tag, step, when, text, color)

        if kind == kinds.RESTART:
            if self._writes:
                log(step, wall_time)
            return
        self._hand(lambda reader: original_protos.text(reader, kind, tag, text or ""), log, step, wall_time)

    def graph(self, model: Any, inputs: Any, verbose: bool, strict: bool, walltime: float) -> bool:
        """Give the graph of a model to the file writer, as torch's own writer makes it.

        Returns:
            False if torch's functions are missing or fail; nothing has been done.
        """
        from . import original_protos

        graph = original_protos.graph(model, inputs, verbose, strict)
        if graph is not None:
            self._file_writer().add_graph(graph, walltime)
        return graph is not None

    def _hand(self, make: Callable[[Any], Any], log: _Log, step: int, wall_time: float) -> None:
        reader = self._file_writer()
        summary = make(reader)
        if summary is None:  # there is no such summary: the file writer has been asked for, and that is all
            if self._writes:
                log(step, wall_time)
            return
        data = summary if isinstance(summary, bytes) else summary.SerializeToString()
        offer = _Offer(self.run if self._writes else None, data, log if self._writes else _nothing)
        with _on_its_way(offer):
            reader.add_summary(summary, step, wall_time)


def _nothing(step: int, walltime: float) -> None:
    pass


def _as_it_is(run: Run) -> Run:
    return run
