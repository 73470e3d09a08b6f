"""``TBXD_STRICT=0``: what is wrong with the arguments of a call is said once and counted, and not raised.

The methods that log are replaced in their class when the first writer is made while the setting is off, for all writers
of the process and for as long as it lasts. While it is on, which is the default, nothing of this is in a call's way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from . import settings
from .run import Run

REASON = "bad_argument"  # under which such calls are counted


def soften(kind: type) -> None:
    """Make the methods of a class that log raise no TypeError and no ValueError, where the user wants it so.

    Args:
        kind: a class whose objects have a `Run`, or None, as ``_run``; with ``_write`` False nothing is counted.
    """
    if settings.read(settings.STRICT) or "_softened" in vars(kind):
        return
    for name in dir(kind):
        method = getattr(kind, name)
        if (name.startswith("add_") or name == "log") and callable(method):
            setattr(kind, name, _soft(method))
    kind._softened = True  # type: ignore[attr-defined]


def _soft(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return method(self, *arguments, **more)
        except (TypeError, ValueError) as error:
            run: Run | None = self._run if getattr(self, "_write", True) else None
            if run is not None:
                run.refuse(REASON)
            settings.warn(
                f"{method.__name__}: {error}; such calls are dropped and counted (TBXD_STRICT is off)",
                once=f"{method.__name__} {type(error).__name__}",
            )
            return None

    return call
