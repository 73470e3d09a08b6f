"""Notifications to a service manager: ready, status, watchdog, stopping.

The protocol is a datagram of ``NAME=value`` lines to the socket that ``$NOTIFY_SOCKET`` names: sd_notify(3),
sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping

log = logging.getLogger(__name__)

STATUS_SECONDS = 5.0  # between two looks whether the line of `systemctl status` has changed
STATUS_CHARACTERS_MAX = 300
FEEDS_PER_DEADLINE = 4  # sd_watchdog_enabled(3) asks for two
HUNGRY_SECONDS = 0.5  # between two looks whether it may be fed again
SEND_SECONDS = 1.0  # for a manager that is busy, where it has to know


class Notifier:
    """Notifies the manager that has started this process, if it asked for that.

    Args:
        environ: has the manager's variables. They are removed, so that no child sends in our name.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self._feed_seconds = _watchdog_seconds(environ) / FEEDS_PER_DEADLINE if self._address else 0.0
        self._ready = False
        self._status = ""
        self._next_status = 0.0
        self._next_feed = 0.0

    def turned(self, now: float, gets_on: bool, status: Callable[[], str]) -> float:
        """Report a turn of the main loop; the first one means that records are accepted.

        Args:
            now: by the monotonic clock.
            gets_on: accepted records are being written; otherwise the watchdog is not fed.
            status: makes the status line.

        Returns:
            The latest time of the next call.
        """
        if not self._address:
            return float("inf")
        if now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            if not self._ready:
                self._ready = self._send(["READY=1"], SEND_SECONDS)
            text = status().replace("\n", " ")[:STATUS_CHARACTERS_MAX]
            if text != self._status and self._send([f"STATUS={text}"]):
                self._status = text
        if self._feed_seconds and now >= self._next_feed:
            fed = gets_on and self._send(["WATCHDOG=1"])
            self._next_feed = now + (self._feed_seconds if fed else min(self._feed_seconds, HUNGRY_SECONDS))
        return min(self._next_status, self._next_feed or float("inf"))

    def reloading(self) -> None:
        """Report the start of a reload. The time is for managers of Type=notify-reload, sd_notify(3)."""
        self._send(
            ["RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"], SEND_SECONDS
        )

    def reloaded(self) -> None:
        """Report the end of a reload: the next turns of the loop send READY until the manager has it."""
        self._ready = False
        self._next_status = 0.0

    def stopping(self, status: str) -> None:
        """Report that the daemon writes queued records and exits."""
        self._send(["STOPPING=1", f"STATUS={status}"], SEND_SECONDS)

    def _send(self, lines: list[str], seconds: float = 0.0) -> bool:
        """Send lines; wait for ``seconds`` if the manager is busy. Return True if it has them."""
        if not self._address:
            return False
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as sender:
            sender.settimeout(seconds)
            try:
                sender.sendto("\n".join(lines).encode(errors="replace"), self._address)
                return True
            except OSError as error:  # it is tried again; logging goes on
                log.warning("cannot tell the service manager at %r: %s", os.fsdecode(self._address), error)
                return False


def _address(name: str) -> bytes:
    if name.startswith("@"):  # the abstract namespace, which has a NUL there
        return b"\0" + os.fsencode(name[1:])
    if name and not name.startswith("/"):
        log.warning("NOTIFY_SOCKET=%r: a path or @name was expected; the service manager is not notified", name)
        return b""
    return os.fsencode(name)


def _watchdog_seconds(environ: MutableMapping[str, str]) -> float:
    """Return the watchdog interval in seconds; 0 if the manager has none for this process."""
    text, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not text or (pid and pid != str(os.getpid())):
        return 0.0
    if not text.isascii() or not text.isdigit():
        log.warning("WATCHDOG_USEC=%r: a number of microseconds was expected; the watchdog is not fed", text)
        return 0.0
    return int(text) / 1e6
