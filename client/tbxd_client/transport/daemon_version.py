"""Agrees with a daemon on the version of the protocol, and deals with a daemon that is too old.

One that a script has started is asked to make way for a newer one. A service, or one at an address that was configured,
is left as it is, and the user is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocol import wire
from .greeting import token
from .local_connection import LocalLink

if TYPE_CHECKING:
    from .connection import Link

ASK_SECONDS = 3.0  # between two questions to a daemon that is too old
ASKS_MAX = 3  # of them: scripts of an older version may have started it again


class DaemonVersion:
    """The version that is spoken, and the questions to a daemon that does not speak it."""

    __slots__ = ("_asked", "_asks", "_next_ask", "spoken")

    def __init__(self) -> None:
        self.spoken = wire.VERSION  # that the daemon speaks as far as is known
        self._asked = ""  # what a daemon that is too old was asked
        self._next_ask = 0.0
        self._asks = 0

    def begin(self) -> None:
        """Speak the newest version again: the next daemon may be a newer one."""
        self.spoken = wire.VERSION

    def welcomed(self) -> None:
        """Take note that a daemon has answered in this version."""
        self._asks = 0

    def ask(self, link: Link | LocalLink, address: str, version: int, now: float, starts: bool) -> str:
        """Ask a daemon that is too old for its status; return why it cannot be spoken to, "" if that is not known.

        Args:
            link: to it.
            address: its.
            version: that it speaks.
            now: by the monotonic clock.
            starts: whether this process starts another in its place.
        """
        if now < self._next_ask:
            return ""
        self._next_ask = now + ASK_SECONDS
        if not starts or self._asks >= ASKS_MAX:
            return _reason(address, version, {})
        self._asks += 1
        self._asked = "status"
        link.send(wire.pack(wire.Ask(self._asked, token(address)), version))
        return ""

    def take_answer(self, link: Link | LocalLink, address: str, version: int, status: dict[str, Any]) -> str:
        """Ask the daemon to stop where its answer says that a script has started it; returns the same as `ask`."""
        asked, self._asked = self._asked, ""
        if asked != "status":
            return ""
        if not status.get("embedded") or status.get("service"):
            return _reason(address, version, status)
        self._asked = "stop"
        link.send(wire.pack(wire.Ask(self._asked, token(address)), version))
        return ""


def _reason(address: str, version: int, status: dict[str, Any]) -> str:
    who = f", tbxd {status['version']}, pid {status['pid']}," if {"version", "pid"} <= status.keys() else ""
    return (
        f"the daemon at {address}{who} speaks version {version} of the protocol, and this script "
        f"{wire.OLDEST} to {wire.VERSION}: update the daemon, or stop it (`tbxd stop`, a service with systemctl)"
    )
