"""A service manager for tests: the notification socket of systemd, and what a daemon says on it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import DEADLINE


class Manager:
    """Listens as systemd does.

    Args:
        address: a path, or "@" and a name in the abstract namespace.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[str] = []  # every line, in order

    def environ(self, watchdog_seconds: float = 0, pid: int | None = None) -> dict[str, str]:
        """Return the manager's variables for a service."""
        result = {"NOTIFY_SOCKET": self.address}
        if watchdog_seconds:
            result["WATCHDOG_USEC"] = str(round(watchdog_seconds * 1e6))
        if pid is not None:
            result["WATCHDOG_PID"] = str(pid)
        return result

    def listen(self, seconds: float) -> list[str]:
        """The lines of the next datagram; [] when none comes in time."""
        self._socket.settimeout(max(0.001, seconds))
        try:
            lines = self._socket.recv(65536).decode().split("\n")
        except TimeoutError:
            return []
        self.heard += lines
        return lines

    def wait(self, what: str, seconds: float = DEADLINE) -> str:
        """The next line that begins with ``what``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.listen(deadline - time.monotonic()):
                if line.startswith(what):
                    return line
        raise AssertionError(f"waited {seconds:g} s for {what}; heard {self.heard[-20:]}")

    def fed(self, seconds: float) -> bool:
        """Return True if the watchdog is fed within its deadline, from now on."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if "WATCHDOG=1" in self.listen(deadline - time.monotonic()):
                return True
        return False

    def drop(self) -> None:
        """Forget what has come already."""
        self._socket.settimeout(0)
        try:
            while True:
                self.heard += self._socket.recv(65536).decode().split("\n")
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._socket.close()


@contextmanager
def manager(root: Path, abstract: bool = False) -> Iterator[Manager]:
    """A manager with a socket of its own."""
    address = f"@tbxd-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(root / "notify")
    listening = Manager(address)
    try:
        yield listening
    finally:
        listening.close()
