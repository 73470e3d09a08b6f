"""Single keys from a terminal, whose mode is restored afterwards."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from types import FrameType
from typing import Any

READ_BYTES = 256
REST_SECONDS = 0.05  # for what a terminal sends behind the first byte of a key's sequence
UP, DOWN, PAGE_UP, PAGE_DOWN, HOME, END, OTHER = "up", "down", "page up", "page down", "home", "end", "other"
# What terminals send for keys that are no letters (terminfo(5): kcuu1, kcud1, kpp, knp, khome, kend).
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*([A-Za-z~])|O([A-Za-z]))")
_BY_LETTER = {b"A": UP, b"B": DOWN, b"H": HOME, b"F": END}
_BY_NUMBER = {b"1": HOME, b"7": HOME, b"4": END, b"8": END, b"5": PAGE_UP, b"6": PAGE_DOWN}


class Keyboard:
    """A context in which keys come one by one, without echo. If stdin is not a terminal, none come."""

    def __init__(self) -> None:
        self._fd = -1
        self._before: list[Any] | None = None
        self._read = b""  # and not given out yet

    def __enter__(self) -> Keyboard:
        try:
            fd = sys.stdin.fileno()
            if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():  # in the background a change would stop us
                self._before = termios.tcgetattr(fd)
                tty.setcbreak(fd)
                self._fd = fd
                signal.signal(signal.SIGTERM, _leave)  # the terminal is put right also then
        except (OSError, ValueError, AttributeError, termios.error):
            self._fd = -1
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0 and self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._fd = -1

    def wait(self, seconds: float) -> str:
        """Return the next key, a letter or one of the words above; "" if none comes in time."""
        if self._fd < 0:
            time.sleep(seconds)
            return ""
        if not self._read and not self._more(seconds):
            return ""
        while self._read.startswith(b"\x1b") and not _SEQUENCE.match(self._read) and self._more(REST_SECONDS):
            pass
        found = _SEQUENCE.match(self._read)
        length = found.end() if found else 1
        sequence, self._read = self._read[:length], self._read[length:]
        if not found:
            return sequence.decode(errors="replace")
        last = found[1] or found[2]
        return (_BY_NUMBER.get(sequence[2:-1], OTHER) if last == b"~" else _BY_LETTER.get(last, OTHER)) or OTHER

    def _more(self, seconds: float) -> bool:
        """Read typed bytes, if any come in time."""
        if self._fd < 0 or not select.select([self._fd], [], [], seconds)[0]:
            return False
        found = os.read(self._fd, READ_BYTES)
        if not found:  # the terminal is gone
            self._fd = -1
        self._read += found
        return bool(found)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
