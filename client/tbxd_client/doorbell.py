"""A pipe that wakes a thread which polls."""

from __future__ import annotations

import contextlib
import os


class Doorbell:
    """A pipe that wakes the thread that polls it. Ringing never blocks and is safe in a signal handler."""

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """Wake the thread, or do not let it fall asleep."""
        with contextlib.suppress(OSError):  # full: it is rung already; closed: nobody to wake
            os.write(self._write_fd, b"!")

    def clear(self) -> None:
        """Take note of having been woken."""
        try:
            while len(os.read(self.read_fd, 4096)) == 4096:
                pass
        except OSError:
            pass

    def close(self) -> None:
        """Close the pipe; ringing does nothing from now on."""
        read_fd, write_fd = self.read_fd, self._write_fd
        self.read_fd = self._write_fd = -1
        os.close(write_fd)
        os.close(read_fd)
