"""A pair of sockets that wakes a thread that polls.

It is not a pipe: between the check of a number and its use, a program may close all descriptors and open a file, and
``write`` and ``read`` would go to that file (`own_sockets`).
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
        """The descriptor to poll; -1 if closed."""
        return self._read.number

    def ring(self) -> None:
        """Wake the thread, or keep it from sleeping."""
        with contextlib.suppress(OSError):  # full: it is rung already
            if self._write.mine:  # else closed, and the number may be that of a socket of the program
                self._write.send(_WORD)

    def clear(self) -> None:
        """Acknowledge the wake-up; open a new pair if the program has closed this one."""
        with contextlib.suppress(OSError):
            if self._read.number >= 0 and not (self._read.mine and self._write.mine):
                self._write.close()
                self._read.close()
                self._open()
            while len(self._read.receive(4096)) == 4096:
                pass

    def close(self) -> None:
        """Close the sockets; ringing does nothing from now on."""
        self._write.close()
        self._read.close()
