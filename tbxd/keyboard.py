"""Single keys from a terminal, which is left as it was found."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from types import FrameType
from typing import Any


class Keyboard:
    """While it is entered, keys come one by one and without an echo. Where stdin is no terminal there are none."""

    def __init__(self) -> None:
        self._fd = -1
        self._before: list[Any] | None = None

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
        """The next key, or "" when none comes in time."""
        if self._fd < 0:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if not ready:
            return ""
        key = os.read(self._fd, 1)
        if not key:  # the terminal is gone
            self._fd = -1
        return key.decode(errors="replace")


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
