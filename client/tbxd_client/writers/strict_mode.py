"""``TBXD_STRICT=0``: invalid arguments of a call are reported once and counted, and do not raise.

The first writer that is made while the setting is off replaces the methods that log in their class, for all writers and
the rest of the process. While the setting is on, which is the default, this costs a call nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from ..config import settings
from ..session import session
from ..session.run_handle import Run

REASON = "bad_argument"  # under which such calls are counted
SHUTDOWN = "shutdown"  # and those for which something has to be imported when Python imports nothing any more

_kinds: set[type] = set()


def soften(kind: type) -> None:
    """Keep the methods of a class that log from raising TypeError and ValueError, if ``TBXD_STRICT`` is off.

    Args:
        kind: a class whose objects have a `Run`, or None, as ``_tbxd_run``; if ``_tbxd_write`` is False, nothing is
            counted.
    """
    if kind not in _kinds:
        _kinds.add(kind)
        session.leaving.append(lambda: _replace(kind, _late))
    if settings.read(settings.STRICT) or "_tbxd_softened" in vars(kind):
        return
    _replace(kind, _soft)
    kind._tbxd_softened = True  # type: ignore[attr-defined]


def _replace(kind: type, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    for name in dir(kind):
        method = getattr(kind, name)
        if (name.startswith("add_") or name == "log") and callable(method):
            setattr(kind, name, change(method))


def _late(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method for the end of the program: a ``__del__`` may log when nothing can be imported any more."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return method(self, *arguments, **more)
        except ImportError:
            if sys.meta_path is not None:
                raise
            if (run := _run_of(self)) is not None:
                run.refuse(SHUTDOWN)
            settings.warn(
                f"{method.__name__} was called while Python shuts down and imports nothing any more: the record is "
                "dropped and counted",
                once=f"late {method.__name__}",
            )
            return None

    return call


def _run_of(writer: Any) -> Run | None:
    """Return the run that counts a writer's calls."""
    run: Run | None = writer._tbxd_run if getattr(writer, "_tbxd_write", True) else None
    return run


def _soft(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return method(self, *arguments, **more)
        except (TypeError, ValueError) as error:
            if (run := _run_of(self)) is not None:
                run.refuse(REASON)
            settings.warn(
                f"{method.__name__}: {error}; such calls are dropped and counted (TBXD_STRICT is off)",
                once=f"{method.__name__} {type(error).__name__}",
            )
            return None

    return call
