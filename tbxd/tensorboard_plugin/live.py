"""The state of the daemon for the tab: the frames of ``tbxd top``, limited to TensorBoard's log folder."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.settings import CONFIG, PLACES, SETTINGS, BadSetting
from ..config.sources import ENVIRONMENT, Given, Origin, Source
from ..drop_reasons import HINTS
from ..tools.top import NAME, Frame, Row, Top, ordered
from .curves import told

FRESH_SECONDS = 1.0  # how long an answer serves all who look
ROWS_MAX = 500  # runs that are told of
VALUES_MAX = 3  # last values of each


class Live:
    """The state of this user's daemon: the one that a script started beside TensorBoard would log to.

    Runs outside of the log folder are only counted: users of TensorBoard may not be meant to see them.

    Args:
        logdir: TensorBoard's log folder; "" if it has several, or one that is not a path. Then all runs are outside.
    """

    def __init__(self, logdir: str) -> None:
        self._logdir = Path(logdir).expanduser().resolve() if logdir and "://" not in logdir else None
        self._lock = threading.Lock()
        self._top: Top | None = None
        self._made = -FRESH_SECONDS
        self._state: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """Return a frame as a dict, at most `FRESH_SECONDS` old; ``trouble`` is the reason if there is no daemon."""
        with self._lock:
            if time.monotonic() - self._made >= FRESH_SECONDS:
                self._state = self._look()
                self._made = time.monotonic()
            return self._state

    def _look(self) -> dict[str, Any]:
        if self._top is None:
            try:
                self._top = Top(_source().load_leniently().settings)
            except (BadSetting, OSError) as error:
                return {"trouble": str(error), "runs": [], "elsewhere": 0, "hints": {}}
        frame = self._top.look()
        inside = [row for row in frame.rows if self._name(row) is not None]
        shown = ordered(inside, NAME)[:ROWS_MAX]
        self._top.fill(frame, shown)
        return {**_about(frame), **_runs(inside, [(self._name(row) or "", row) for row in shown], len(frame.rows))}

    def _name(self, row: Row) -> str | None:
        """Return TensorBoard's name of a run; None if it is outside of the log folder."""
        path = Path(row.directory)
        if self._logdir is None or not path.is_relative_to(self._logdir):
            return None
        return str(path.relative_to(self._logdir))


def _about(frame: Frame) -> dict[str, Any]:
    about = asdict(frame)
    del about["rows"], about["address"], about["totals"]
    for disk in about["disks"]:
        del disk["path"]
    return about


def _runs(inside: list[Row], shown: list[tuple[str, Row]], known: int) -> dict[str, Any]:
    dropped: dict[str, int] = {}
    for row in inside:
        for reason, count in row.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return {
        "runs": [
            {
                "run": name,
                "rate": row.rate,
                "pending": row.pending,
                "dropped": row.dropped,
                "error": row.error,
                "ranks": row.ranks,
                "values": [
                    [tag, str(step), told(value)] for tag, (step, value) in list(row.values.items())[:VALUES_MAX]
                ],
            }
            for name, row in shown
        ],
        "elsewhere": known - len(inside),
        "left_out": len(inside) - len(shown),
        "dropped": dropped,
        "pending": sum(row.pending for row in inside),
        "hints": {reason: HINTS[reason] for reason in dropped if reason in HINTS},
    }


def _source() -> Source:
    """Return the source of the settings for the daemon's place; there is no command line here."""
    given = {
        setting.name: Given(os.environ[setting.variable], Origin(ENVIRONMENT, setting.variable))
        for setting in SETTINGS
        if setting.name in PLACES and os.environ.get(setting.variable)
    }
    return Source(given, os.environ.get(CONFIG.variable, ""))
