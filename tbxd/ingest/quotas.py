"""Quotas: how much of a daemon each client on another host may take, by the name of its key.

Whoever logs on the daemon's own host is its user, whose share of the machine is what the system gives him. Who comes
with a key takes of that, so each key has limits of its own:

- bytes of records, a second and a day. Where they are used up the key's sessions are given no further credit until
  there is room again: their records wait in their journals, and none is lost.
- sessions, runs and tags. What would be one too many is refused, counted and told with its reason; its records wait.

No sockets or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tbxd_client.protocol.records import RemoteProtocolError

from ..config.settings import Settings

SECOND, DAY = 1.0, 86_400.0
TRY_SECONDS = 10.0  # before a session that was refused may try again: its key may have more by then


class OverQuota(RemoteProtocolError):
    """A key would have more than it may; the message says of what, and who can change it."""


class Allowance:
    """So many bytes in each stretch of time. What was more than that is made good in those that follow.

    Args:
        seconds: how long a stretch is.
        now: when the first one begins, by a clock that does not jump.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._begun = now
        self._used = 0

    def spend(self, count: int) -> None:
        """So many bytes have come."""
        self._used += count

    def wait(self, most: float, now: float) -> float:
        """The seconds until there is room again; 0 when there is.

        Args:
            most: the bytes of a stretch; 0 for no limit.
            now: by the same clock.
        """
        gone = int((now - self._begun) // self._seconds)
        if gone > 0:
            self._begun += gone * self._seconds
            self._used = max(0, self._used - int(gone * most))
        if not most:
            self._used = 0
        if not most or self._used < most:
            return 0.0
        return max(0.0, self._begun + self._used // most * self._seconds - now)

    def room(self, most: float) -> float:
        """How many bytes may still come in the stretch that `wait` was last asked about."""
        return max(0.0, most - self._used) if most else float("inf")


@dataclass(slots=True)
class Share:
    """What one key has at this moment, and has had since the daemon was started (folders, bytes, refusals)."""

    second: Allowance
    day: Allowance
    sessions: int = 0
    tags: int = 0
    bytes: int = 0
    folders: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)  # by the name of the setting
    held: bool = False  # a session of it was given no further credit


class Quotas:
    """The shares of all keys.

    Args:
        settings: the daemon's; those that begin with ``key_`` are meant.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shares: dict[str, Share] = {}

    def configure(self, settings: Settings) -> None:
        """Take over what is changed in the settings while the daemon runs."""
        self._settings = settings

    def _share(self, key: str, now: float) -> Share:
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(Allowance(SECOND, now), Allowance(DAY, now))
        return share

    def enter(self, key: str, now: float) -> None:
        """Count a session that begins.

        Raises:
            OverQuota: it is one too many.
        """
        share, most = self._share(key, now), self._settings.key_sessions
        if share.sessions >= most:
            raise self._over(key, share, "key_sessions", f"{most:,} sessions at a time")
        share.sessions += 1

    def leave(self, key: str, tags: int) -> None:
        """A session of so many tags is over."""
        share = self._shares[key]
        share.sessions -= 1
        share.tags -= tags

    def define(self, key: str, folders: Iterable[str], tags: int) -> None:
        """Count what a session has defined: runs, by their folders, and tags.

        Raises:
            OverQuota: that is too much. Its tags are counted all the same, until the session is over; its runs are not:
                nothing of them is made, and those that the key has go on.
        """
        share, settings = self._shares[key], self._settings
        share.tags += tags
        fresh = set(folders) - share.folders
        if fresh and len(share.folders) + len(fresh) > settings.key_runs:
            raise self._over(key, share, "key_runs", f"{settings.key_runs:,} runs until this daemon is started again")
        if share.tags > settings.key_tags:
            raise self._over(key, share, "key_tags", f"{settings.key_tags:,} tags in all of its sessions together")
        share.folders |= fresh

    @staticmethod
    def _over(key: str, share: Share, setting: str, what: str) -> OverQuota:
        share.refused[setting] = share.refused.get(setting, 0) + 1
        return OverQuota(
            f"the key {key!r} may have {what}; the daemon's owner can raise {setting} and run `tbxd reload`"
        )

    def spend(self, key: str, count: int) -> None:
        """So many bytes of records have come."""
        share = self._shares[key]
        share.bytes += count
        share.second.spend(count)
        share.day.spend(count)

    def _wait(self, share: Share, now: float) -> float:
        return max(
            share.second.wait(self._settings.key_bytes_second, now), share.day.wait(self._settings.key_bytes_day, now)
        )

    def room(self, key: str, now: float) -> float:
        """The bytes for which a key may be given credit now; 0 where it is held until `freed` names it."""
        share, settings = self._shares[key], self._settings
        share.held = share.held or self._wait(share, now) > 0
        if share.held:
            return 0.0
        return min(share.second.room(settings.key_bytes_second), share.day.room(settings.key_bytes_day))

    def freed(self, now: float) -> set[str]:
        """The keys that were held and may go on."""
        found = {key for key, share in self._shares.items() if share.held and not self._wait(share, now)}
        for key in found:
            self._shares[key].held = False
        return found

    def due(self, now: float) -> float:
        """When `freed` has something to tell; infinite where nobody is held."""
        waits = (self._wait(share, now) for share in self._shares.values() if share.held)
        return now + min(waits, default=float("inf"))

    def folders(self, key: str) -> set[str]:
        """The folders of the runs that a key has had."""
        return self._shares[key].folders if key in self._shares else set()

    def status(self, now: float) -> dict[str, dict[str, Any]]:
        """What each key has, as `tbxd status --json` shows it. ``waits_seconds``: until it is given credit again."""
        return {
            key: {
                "sessions": share.sessions,
                "runs": len(share.folders),
                "tags": share.tags,
                "bytes": share.bytes,
                "waits_seconds": round(self._wait(share, now), 3) if share.held else 0.0,
                "refused": dict(share.refused),
            }
            for key, share in self._shares.items()
        }
