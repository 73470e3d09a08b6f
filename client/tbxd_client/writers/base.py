"""The common part of a writer's methods: the run, the step and the wall time, and whether anything is logged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

from ..config.paths import configured_address, is_remote
from ..logdir.folder_names import accepted, is_suspect
from ..protocol import kinds
from ..session.run_handle import Run
from ..values.arrays import Array, to_float, to_step
from ..values.names import clean_tag, given_tag, parse_color
from ..values.numbers import Numbers


class FixedTime:
    """A clock that always returns the same time."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


T = TypeVar("T")

# Parts of a name below the run that are none of a folder; each has its own, so that no two curves share one.
_NO_NAMES = {"": "_", ".": "_.", "..": "_.."}


class Computed(Generic[T]):
    """An attribute that is computed until it is set: the originals' are plain, and scripts assign them.

    Values that are set are in the writer's ``_tbxd_set``, by name.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Computed[T]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Computed[T] | T:
        if instance is None:
            return self
        own: dict[str, T] = instance._tbxd_set  # type: ignore[attr-defined]
        return own[self._name] if self._name in own else self._compute(instance)

    def __set__(self, instance: Any, value: T) -> None:
        instance._tbxd_set[self._name] = value

    def __delete__(self, instance: Any) -> None:
        if self._name not in instance._tbxd_set:
            raise AttributeError(self._name)
        del instance._tbxd_set[self._name]


class Given(Computed[Any]):
    """An argument of the constructor, under the originals' name for it, until that is set.

    It is in the class and not in the object, so that a subclass's own method or property of this name wins: one of the
    originals does not have this attribute.
    """

    def __init__(self, argument: str) -> None:
        super().__init__(lambda writer: writer._tbxd_given[argument])
        self.__doc__ = f"The argument ``{argument}``, as it was given."


class WriterBase:
    """A run, and records for it. ``_tbxd_write`` False: every method does nothing.

    Subclasses of users have attributes and methods of any name. So private names here begin with ``_tbxd_``, and
    nothing here calls a method or reads an attribute that a subclass may define, except where the originals do the
    same. `tests/compatibility/test_subclasses.py` checks this.
    """

    _tbxd_given: dict[str, Any]  # arguments of the constructor
    _tbxd_set: dict[str, Any]  # what people have set of the attributes that are computed or watched

    _tbxd_run: Run  # what is logged goes there; `interception.Intercepted` where somebody steps in
    _tbxd_own: Run  # the run itself
    _tbxd_subruns: dict[str, Run]  # by their names below the run
    _tbxd_named: dict[str, str]  # their folders to these names
    _tbxd_write: bool  # whether a record is made of a call
    _tbxd_disk: bool  # whether one may come into a file
    _tbxd_now: Callable[[], float]  # the time of what is given none
    _tbxd_default_step: int | None  # the step of what is given none
    _tbxd_opened_in: int  # the process that has made it; 0 of a copy
    _tbxd_charts: dict[str, str]  # of these, those that `add_scalars` has made, and their tags
    _tbxd_beside = False  # it logs to the folder of another writer, which has been found already
    _tbxd_numbered = False  # what is logged has no steps; the daemon counts it

    @property
    def _tbxd_runs(self) -> list[Run]:
        return [self._tbxd_own, *self._tbxd_subruns.values()]

    def _tbxd_step(self, step: Any) -> int:
        return to_step(self._tbxd_default_step if step is None else step)

    def _tbxd_time(self, walltime: Any) -> float:
        return self._tbxd_now() if walltime is None else to_float(walltime, "walltime")

    def _tbxd_array(
        self,
        kind: int,
        tag: str,
        arrays: Array | Mapping[str, Array],
        attrs: dict[str, Any],
        global_step: Any,
        walltime: float | None,
        color: Any = None,
    ) -> None:
        """Log one array, or several by their names."""
        self._tbxd_run.array(
            kind,
            given_tag(tag),
            self._tbxd_step(global_step),
            self._tbxd_time(walltime),
            arrays,
            attrs,
            parse_color(color) if color is not None else "",
        )

    def _tbxd_histogram(
        self,
        tag: str,
        numbers: Numbers,
        attrs: dict[str, Any],
        global_step: Any,
        walltime: float | None,
        color: Any = None,
    ) -> None:
        """Log the histogram of an array."""
        self._tbxd_run.histogram(
            tag,
            self._tbxd_step(global_step),
            self._tbxd_time(walltime),
            numbers,
            attrs,
            parse_color(color) if color is not None else "",
        )

    def _tbxd_text(
        self, kind: int, tag: str, text: str, global_step: Any, walltime: float | None, color: Any = None
    ) -> None:
        self._tbxd_run.text(
            kind,
            clean_tag(tag),
            self._tbxd_step(global_step),
            self._tbxd_time(walltime),
            text,
            parse_color(color) if color is not None else "",
        )

    def _tbxd_below(self, run: Run) -> Run:
        """Return the object that logs to a run below this one."""
        raise NotImplementedError

    def _tbxd_subrun(self, name: str) -> Run:
        """Return the run in a folder below this one; ``name`` cannot lead out of it.

        Raises:
            TypeError: the name is not text.
            ValueError: the name or a part of it is too long, the file system refuses it, or its folder is that of
                another name of this writer.
        """
        run = self._tbxd_subruns.get(name)
        if run is None:
            clean = clean_tag(os.fspath(name))
            parts = [_NO_NAMES.get(part, part) for part in clean.split("/")]
            if any(len(part.encode()) > 255 for part in parts):
                raise ValueError(f"{clean[:80]!r}…: a part of a run's name has at most 255 bytes")
            if any(map(is_suspect, parts)) and self._tbxd_disk and not is_remote(configured_address() or ""):
                parts = accepted(self._tbxd_own.directory, parts)
            directory = os.path.join(self._tbxd_own.directory, *parts)  # noqa: PTH118 - bytes that are no path are kept
            other = self._tbxd_named.setdefault(directory, name)
            if other != name:
                raise ValueError(f"{name[:80]!r} and {other[:80]!r} are one folder, {directory!r}; use another name")
            run = self._tbxd_subruns[name] = self._tbxd_below(self._tbxd_own.below(directory))
            # Once: each further one would wipe, in the slow loader, what others have logged since.
            purge_step = self._tbxd_given["purge_step"]
            if purge_step is not None and self._tbxd_opened_in == os.getpid():
                run.text(kinds.RESTART, "", to_step(purge_step), time.time(), None)
        return run
