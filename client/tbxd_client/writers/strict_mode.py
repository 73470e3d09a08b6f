"""``TBXD_STRICT=0``: what is wrong with the arguments of a call is said once and counted, and not raised.

The methods that log are replaced in their class when the first writer is made while the setting is off, for all writers
of the process and for as long as it lasts. While it is on, which is the default, nothing of this is in a call's way.
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
    """Make the methods of a class that log raise no TypeError and no ValueError, where the user wants it so.

    Args:
        kind: a class whose objects have a `Run`, or None, as ``_tbxd_run``; where ``_tbxd_write`` is False, nothing is
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
    """What a method is once the program is at its end: a ``__del__`` may log when nothing can be imported any more."""

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
                f"{method.__name__} in the last moment of Python, which imports nothing any more: the record is "
                "dropped and counted",
                once=f"late {method.__name__}",
            )
            return None

    return call


def _run_of(writer: Any) -> Run | None:
    """Where a writer's calls are counted."""
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
