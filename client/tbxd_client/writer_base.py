"""What the methods of a writer have in common: whether anything is logged at all, where, and when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .names import clean_tag, parse_color
from .run import Run
from .snapshot import Array, to_step


class WriterBase:
    """A run, and records for it. ``_write`` False: every method does nothing."""

    _run: Run
    _write: bool

    def _array(
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
        self._run.array(
            kind,
            clean_tag(tag),
            to_step(global_step),
            time.time() if walltime is None else float(walltime),
            arrays,
            attrs,
            parse_color(color) if color is not None else "",
        )

    def _text(
        self, kind: int, tag: str, text: str, global_step: Any, walltime: float | None, color: Any = None
    ) -> None:
        self._run.text(
            kind,
            clean_tag(tag),
            to_step(global_step),
            time.time() if walltime is None else float(walltime),
            text,
            parse_color(color) if color is not None else "",
        )
