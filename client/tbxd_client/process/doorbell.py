"""What wakes a thread that polls: a pair of sockets.

Not a pipe: between the look whether a number is still ours and its use a program may close all and open a file, and
``write`` and ``read`` would go into that (`own_sockets`).
"""

from __future__ import annotations

import contextlib

from .own_sockets import open_pair

_WORD: list[bytes | memoryview] = [b"!"]


class Doorbell:
    """Wakes the thread that polls it. Ringing never blocks and is safe in a signal handler."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._read, self._write = open_pair()

    @property
    def read_fd(self) -> int:
        """What is polled; -1 when it is closed."""
        return self._read.number

    def ring(self) -> None:
        """Wake the thread, or do not let it fall asleep."""
        with contextlib.suppress(OSError):  # full: it is rung already
            if self._write.mine:  # else closed, and the number may be that of a socket of the program
                self._write.send(_WORD)

    def clear(self) -> None:
        """Take note of having been woken. Where the program has closed it, there is another one from now on."""
        with contextlib.suppress(OSError):
            if self._read.number >= 0 and not (self._read.mine and self._write.mine):
                self._write.close()
                self._read.close()
                self._open()
            while len(self._read.receive(4096)) == 4096:
                pass

    def close(self) -> None:
        """Close it; ringing does nothing from now on."""
        self._write.close()
        self._read.close()
