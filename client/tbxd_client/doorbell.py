"""A pipe that wakes a thread which polls."""

from __future__ import annotations

import contextlib
import os

from . import descriptors


class Doorbell:
    """A pipe that wakes the thread that polls it. Ringing never blocks and is safe in a signal handler."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._read, self._write = descriptors.open_pipe(os.O_NONBLOCK)

    @property
    def read_fd(self) -> int:
        """What is polled; -1 when it is closed."""
        return self._read.number

    def ring(self) -> None:
        """Wake the thread, or do not let it fall asleep."""
        with contextlib.suppress(OSError):  # full: it is rung already
            if self._write.mine:  # else closed, and the number may be that of a file of the program
                os.write(self._write.number, b"!")

    def clear(self) -> None:
        """Take note of having been woken. Where the program has closed the pipe, there is another one from now on."""
        with contextlib.suppress(OSError):
            if self._read.number >= 0 and not (self._read.mine and self._write.mine):
                self._write.close()
                self._read.close()
                self._open()
            while len(os.read(self._read.number, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Close the pipe; ringing does nothing from now on."""
        self._write.close()
        self._read.close()
