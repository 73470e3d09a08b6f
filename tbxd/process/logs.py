"""Log lines: their format, and the limit of repeated ones.

A problem often repeats each second, for each run or client. The same text is logged once in ``REPEAT_SECONDS``, and
texts that differ only in their arguments a limited number of times; the number of those left out is logged.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

REPEAT_SECONDS = 30.0  # in which one text is told once
LOOK_SECONDS = 1.0  # between two looks for windows that are over
BURST = 20  # texts of one kind in that time
KEYS_MAX = 1000  # texts that are remembered; beyond that only their kinds are
# syslog(3); journald reads "<N>" at the beginning of a line, sd-daemon(3).
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


@dataclass(slots=True)
class _Window:
    """The messages of one key since it began."""

    began: float
    told: int = 0
    left_out: int = 0
    level: int = logging.INFO
    name: str = ""
    text: str = ""


class Limiter(logging.Filter):
    """Limits repetitions of the same message, and the number of messages of the same kind."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, ...], _Window] = {}
        self._lock = threading.Lock()
        self._next_look = self._next_forget = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if a message is logged; it then has the count of those left out."""
        if getattr(record, "unlimited", False):
            return True
        now = time.monotonic()
        kind = (record.name, str(record.msg))
        text = record.getMessage()
        if record.exc_info:
            text += f": {record.exc_info[1]!r}"
        with self._lock:
            if len(self._windows) >= KEYS_MAX:
                self._forget(now)
            windows = [(self._window(kind, now), BURST)]
            if len(self._windows) < KEYS_MAX or (*kind, text) in self._windows:
                windows.append((self._window((*kind, text), now), 1))
            full = [window for window, most in windows if window.told >= most]
            if full:
                window = full[-1]
                window.left_out += 1
                window.level, window.name, window.text = max(window.level, record.levelno), record.name, text
                return False
            for window, _ in windows:
                window.told += 1
            return True

    def _window(self, key: tuple[str, ...], now: float) -> _Window:
        window = self._windows.get(key)
        if window is None or (now - window.began >= REPEAT_SECONDS and not window.left_out):
            window = self._windows[key] = _Window(now)
        return window

    def _forget(self, now: float) -> None:
        if now < self._next_forget:
            return
        self._next_forget = now + LOOK_SECONDS
        for key, window in list(self._windows.items()):
            if now - window.began >= REPEAT_SECONDS and not window.left_out:
                del self._windows[key]

    def tell(self, now: float | None = None) -> None:
        """Log the counts of messages left out in ended windows; without ``now`` in all of them. Call it often."""
        if now is not None:
            if now < self._next_look:
                return
            self._next_look = now + LOOK_SECONDS
        ended = []
        with self._lock:
            for key, window in list(self._windows.items()):
                if now is None or now - window.began >= REPEAT_SECONDS:
                    del self._windows[key]
                    if window.left_out:
                        ended.append(window)
        for window in ended:
            logging.getLogger(window.name).log(
                window.level,
                "%d more like this in %.0f s: %s",
                window.left_out,
                (time.monotonic() if now is None else now) - window.began,
                window.text,
                extra={"unlimited": True},
            )


class JournalFormatter(logging.Formatter):
    """The format for journald: each line with its priority, and without a time, which the journal adds."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the message; a traceback is several lines of one priority."""
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def is_journal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Return True if a stream is journald's: ``$JOURNAL_STREAM`` is its device and inode, systemd.exec(5)."""
    try:
        state = os.fstat(stream.fileno() if stream is not None else -1)
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


def begin(level: str) -> Limiter:
    """Log to stderr from now on.

    Args:
        level: one of `settings.LEVELS`.
    """
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
    if is_journal(sys.stderr, os.environ):
        handler.setFormatter(JournalFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    limiter = Limiter()
    handler.addFilter(limiter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    return limiter


def set_level(level: str) -> None:
    """Set the log level, one of `settings.LEVELS`."""
    logging.getLogger().setLevel(level.upper())
