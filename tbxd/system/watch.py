"""Decides when the node is sampled, and for which runs: those that are active on it and want samples.

`System` lives on the daemon's main thread. While no run wants samples it costs a comparison in each turn of the loop,
and the sampler is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbxd_client.protocol.records import SYSTEM_SECONDS_MIN

from ..config.settings import Settings
from ..ingest.client import Client
from ..ingest.hub import Hub
from ..process.serial_queue import Strand

if TYPE_CHECKING:
    from .curves import Curves
    from .sampler import Sample, Sampler

LOOK_SECONDS = 1.0  # between looks for runs that are active
FIRST_SECONDS = 1.0  # from the first reading, with which the next is compared, to the first sample
GATHER_SECONDS = 1.0  # what has not answered by then is left out of a sample
# A run is active while a process that has logged to it lives and has done so no longer ago than this; training may log
# once an hour. A process that has gone on to other runs since is done with it sooner.
QUIET_SECONDS = 3600.0
QUIET_SECONDS_OTHER = 60.0
RUNS_MAX = 64  # that are written at a time; those that have logged last
RESTING_MAX = 256  # that are not active and go on in their files when they are again; those that were so last
NEVER = float("inf")


@dataclass(slots=True)
class Active:
    """An active run: the folder of its writer, with everything below it."""

    used: float  # when it last got records
    seconds: float
    pids: set[int] = field(default_factory=set)  # the processes of this node that log to it
    umask: int | None = None  # of the first of them


@dataclass(slots=True)
class Target:
    """The destination of a run's samples."""

    curves: Curves
    strand: Strand
    busy: bool = False  # a sample is being written
    syncing: bool = False  # what is written is being brought onto the disk
    left_out: int = 0  # because the one before was not written yet


class System:
    """Samples the node for the runs of a hub.

    Args:
        settings: the daemon's settings.
        hub: the hub with the runs.
        wake: wakes the main thread; called from others.
    """

    def __init__(self, settings: Settings, hub: Hub, wake: Callable[[], None]) -> None:
        self._seconds = _seconds(settings)
        self._sync_seconds, self._durable = settings.sync_seconds, settings.durable
        self._next_sync = 0.0
        self._hub = hub
        self._wake = wake
        self._node = os.uname().nodename
        self._ipc = settings.address.startswith("ipc:")
        self._sampler: Sampler | None = None
        self._targets: dict[str, Target] = {}
        self._resting: dict[str, Target] = {}  # of runs that are not active, in the order of it, with nothing open
        self._active: dict[str, Active] = {}
        self._over = 0  # runs that are active and too many
        self._interval = 0.0  # of the runs that are active; 0 without any
        self._due = 0.0
        self._give_up = 0.0  # while a sample is being taken: when it is written with what has answered
        self._last: Sample | None = None
        self._last_values: dict[str, float] = {}

    @property
    def _wanted(self) -> bool:
        return bool(self._seconds) or self._hub.asks_system

    def configure(self, settings: Settings, now: float) -> None:
        """Apply settings that have changed while the daemon runs."""
        self._seconds = _seconds(settings)
        self._sync_seconds = settings.sync_seconds
        self._due = min(self._due, now + FIRST_SECONDS)

    def step(self, now: float) -> float:
        """Take and write a sample when due, and sync written ones; return the time of the next call."""
        return min(self._sample(now), self._sync(now))

    def _sync(self, now: float) -> float:
        """Sync written samples to disk at the same interval as runs; a disk that hangs has one job at a time."""
        if not any(target.curves.dirty for target in self._targets.values()):
            return NEVER
        if now >= self._next_sync:
            self._next_sync = now + self._sync_seconds
            for target in self._targets.values():
                if target.curves.dirty and not target.syncing:
                    target.syncing = True
                    target.strand.submit(partial(_bring, target))
        return self._next_sync

    def _sample(self, now: float) -> float:
        if not (self._wanted or self._interval or self._give_up):  # the last two: to be ended once it is not wanted
            return NEVER
        if self._give_up:
            assert self._sampler is not None
            if now < self._give_up and not self._sampler.ready:
                return self._give_up
            self._give_up = 0.0
            sample = self._sampler.take()
            if sample is not None:
                self._write(sample)
        if now < self._due:
            return self._due
        self._look(now)
        if not self._active:
            if self._interval:
                self._interval = 0.0
                assert self._sampler is not None
                self._sampler.rest()
            self._due = now + LOOK_SECONDS
            return self._due
        begins = not self._interval
        self._interval = min(active.seconds for active in self._active.values())
        self._due = max(now, self._due) if not begins else now
        self._due += min(self._interval, FIRST_SECONDS) if begins else self._interval
        if self._sampler is None:
            from .sampler import Sampler  # here, so that nobody pays for it who does not want it

            self._sampler = Sampler(self._wake)
        self._sampler.ask(pid for active in self._active.values() for pid in active.pids)
        self._give_up = now + GATHER_SECONDS
        return min(self._due, self._give_up)

    def _look(self, now: float) -> None:
        """Find the active runs, and close the curves of the others."""
        found: dict[str, Active] = {}
        for client in self._hub.clients.values():
            if client.peer is None or client.broken or client.key or not (self._ipc or client.host == self._node):
                continue  # dead, or training on another machine
            own = self._runs_of(client)
            latest = max((active.used for active in own.values()), default=0.0)
            for folder, active in own.items():
                quiet = now - active.used
                if quiet > QUIET_SECONDS or (active.used < latest and quiet > QUIET_SECONDS_OTHER):
                    continue
                known = found.setdefault(folder, active)
                known.used = max(known.used, active.used)
                known.seconds = min(known.seconds, active.seconds)
                known.pids |= active.pids
        chosen = sorted(found, key=lambda folder: found[folder].used, reverse=True)[:RUNS_MAX]
        self._over = len(found) - len(chosen)
        self._active = {folder: found[folder] for folder in chosen}
        for folder in [folder for folder in self._targets if folder not in self._active]:
            target = self._resting[folder] = self._targets.pop(folder)
            target.strand.submit(target.curves.close)
        while len(self._resting) > RESTING_MAX:
            del self._resting[next(iter(self._resting))]

    def _runs_of(self, client: Client) -> dict[str, Active]:
        """Return the runs of a session that want samples and have received records, by the folders of their writers."""
        assert client.peer is not None
        pid = client.peer.pid or client.pid  # as the kernel says where it does: a container has pids of its own
        own: dict[str, Active] = {}
        for run in client.session.runs:
            state = self._hub.runs.get(run.directory) if run is not None else None
            if run is None or state is None or not state.used:
                continue
            seconds = self._seconds if run.system is None else run.system
            if seconds:
                active = own.setdefault(run.above or run.directory, Active(state.used, seconds, {pid}, run.umask))
                active.used = max(active.used, state.used)
                active.seconds = min(active.seconds, seconds)
        return own

    def _write(self, sample: Sample) -> None:
        self._last = sample
        self._last_values = sample.values(())
        for folder, active in self._active.items():
            target = self._targets.get(folder)
            if target is None:
                rests = folder in self._resting
                target = self._resting.pop(folder) if rests else self._begin(folder, active)
                self._targets[folder] = target
            if target.busy:  # its disk hangs
                target.left_out += 1
            elif str(target.curves.directory) not in self._hub.runs:  # a writer may have chosen this very folder
                target.busy = True
                target.strand.submit(partial(_store, target, sample, active.pids))

    def _begin(self, folder: str, active: Active) -> Target:
        from .curves import Curves

        curves = Curves(Path(folder), self._node, active.umask, self._durable)
        told = partial(self._hub.walls.broke, "the metrics of the node", whose=folder)
        return Target(curves, self._hub.scheduler.strand(told))

    def close(self) -> None:
        """Close all files, at the end of the daemon."""
        for target in self._targets.values():
            target.strand.submit(target.curves.close)

    def status(self) -> dict[str, Any]:
        """Return the state for `tbxd status`.

        ``seconds``: the interval of samples, 0 while none are taken; ``on``: samples are taken when a run is active.
        """
        curves = {folder: target.curves for folder, target in self._targets.items()}
        return {
            "on": self._wanted,
            "seconds": self._interval,
            "runs": sorted(self._active),
            "runs_over_the_limit": self._over,
            "sampled": self._last.seconds if self._last is not None else None,
            "last": self._last_values,
            "trouble": self._sampler.trouble if self._sampler is not None else "",
            "errors": {folder: one.error for folder, one in curves.items() if one.error},
            "left_out": sum(target.left_out + target.curves.left_out for target in self._targets.values()),
        }


def _seconds(settings: Settings) -> float:
    return max(settings.system_seconds, SYSTEM_SECONDS_MIN) if settings.system_seconds else 0.0


def _bring(target: Target) -> None:
    try:
        target.curves.sync()
    finally:
        target.syncing = False


def _store(target: Target, sample: Sample, pids: set[int]) -> None:
    try:
        target.curves.write(sample.values(pids), sample.seconds)
    finally:  # what it raises is told by the strand, and the next sample is tried again
        target.busy = False
