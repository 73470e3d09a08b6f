"""Decides from the processes of this host if an unseen rank of a job may still come.

Only of a job that says that all of its ranks are on one host, and who has started them (`job_identity.launched`).
A rank is a process below the one that has started it, or one that was, where that has been killed. Where anything is
doubtful, one may come. What only Linux has: ``/proc``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tbxd_client.distributed.job_identity import Process, pid_namespace, process_of
from tbxd_client.process.helper import STARTED_VARIABLE

PROC = Path("/proc")
# So long ago a rank has to have been started: by then whoever starts all at once has started the others.
START_ALL_SECONDS = 1.0
LOOK_SECONDS_MIN, LOOK_SECONDS_MAX = 0.02, 0.5  # between looks, which double up,
LOOK_SHARE = 20  # and are this often as long as a look takes
_TEXT = re.compile(
    r"([0-9a-f]{1,16})/(\d{1,10})\.(\d{1,18})\.(\d{1,10})\.(\d{1,10})/(\d{1,18})/([\w.]{1,64})/([01])", re.ASCII
)
_OVER = ("Z", "X", "x")  # states of processes that have ended


class Host:
    """The processes of this host, as far as this one sees them."""

    def __init__(self) -> None:
        self.own = os.getpid()
        self.tick = 1 / os.sysconf("SC_CLK_TCK")  # seconds

    def namespace(self) -> int:
        """Return the pid namespace; 0 if unknown."""
        return pid_namespace()

    def ticks(self) -> float:
        """Return the ticks since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) / self.tick

    def processes(self) -> dict[int, Process]:
        """All of them, by number. 10 to 20 µs for each.

        Raises:
            OSError: nobody tells.
        """
        found = {}
        with os.scandir(PROC) as entries:
            for entry in entries:
                if entry.name.isdecimal():
                    process = process_of(int(entry.name))
                    if process is not None:
                        found[process.pid] = process
        return found

    def environ(self, pid: int) -> bytes:
        """Return the environment of a process, each variable after a zero byte; empty for another user's."""
        try:
            return b"\0" + (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            return b""

    def is_there(self, pid: int) -> bool:
        """Return True if a process exists, also a hidden one: of another user, under hidepid."""
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):  # the latter for a number that no process can have
            return False
        except OSError:
            pass
        return True


@dataclass(frozen=True, slots=True)
class Launched:
    """The process that has launched the ranks of a job.

    Args:
        pid, started, group, parent: of that process; ticks since the start of the system, its process group and parent.
        began: when a rank was started, in the same ticks.
        source: the variable that tells a rank which it is.
        at_once: it starts all of them before it waits for one.
    """

    pid: int
    started: int
    group: int
    parent: int
    began: int
    source: str
    at_once: bool
    host: Host

    @classmethod
    def read(cls, text: str, boot: bool, host: Host | None = None) -> Launched | None:
        """Parse a rank's text; return None if it is empty, or from another system or namespace.

        Args:
            text: `records.RunDefinition.launched`.
            boot: it was said under this start of this system.
            host: the processes; None for those that there are.
        """
        match = _TEXT.fullmatch(text)
        if match is None or not boot:
            return None
        host = host or Host()
        if int(match[1], 16) != host.namespace():
            return None
        pid, started, group, parent, began = (int(match[place]) for place in range(2, 7))
        return cls(pid, started, group, parent, began, match[7], match[8] == "1", host)

    def may_come(self) -> bool:
        """Return True if an unseen rank may exist; costs as much as `Host.processes`."""
        try:
            processes = self.host.processes()
        except OSError:
            return True
        launcher = processes.get(self.pid)
        if launcher is None and self.host.is_there(self.pid):
            return True
        if launcher is not None and launcher.started != self.started:  # another one with its number
            launcher = None
        if launcher is not None and launcher.state not in _OVER and not (self.at_once and self._all_started()):
            return True
        return any(self._may_be_one(process, processes) for process in processes.values())

    def _all_started(self) -> bool:
        return (self.host.ticks() - self.began) * self.host.tick >= START_ALL_SECONDS

    def _may_be_one(self, process: Process, processes: Mapping[int, Process]) -> bool:
        if process.pid == self.pid or process.started < self.started or process.state in _OVER:
            return False
        above: list[Process] = []  # those that are younger than who has started the ranks
        at = process
        while True:
            if at.pid == self.host.own:
                return False  # this daemon, or what it has started
            parent = processes.get(at.parent)
            if parent is None or parent.pid == self.pid or parent.started < self.started or len(above) > len(processes):
                break
            above.append(parent)
            at = parent
        mine = parent is not None and parent.pid == self.pid and parent.started == self.started
        marks, ours = self._told(process.pid)
        if ours:
            return False
        if mine:
            return True
        if marks:  # it was started as a rank, and by nobody who lives and is younger
            return all(self._told(other.pid)[0] for other in above)
        # A child of `multiprocessing` whose parent was killed is given to another process than that one's parent was.
        orphan = process.parent == 1 or process.parent != self.parent
        return process.group == self.group and not above and orphan

    def _told(self, pid: int) -> tuple[bool, bool]:
        """Return two flags: the process was started as a rank, and as a daemon or helper of this project."""
        environ = self.host.environ(pid)
        return f"\0{self.source}=".encode() in environ, f"\0{STARTED_VARIABLE}=".encode() in environ


class Absent:
    """Looks now and then whether ranks may be on their way.

    Args:
        launched: who has started them; None where that is not known: one may come always.
    """

    def __init__(self, launched: Launched | None) -> None:
        self._launched = launched
        self._pause = LOOK_SECONDS_MIN
        self.due = 0.0  # the next look, by the clock of ``now``; 0 for never

    def may_come(self, now: float, unread: Callable[[], bool]) -> bool:
        """Return True if a rank may come, according to the last look.

        Args:
            now: seconds, by a clock that does not jump.
            unread: whether something is on its way here of one that has ended already.
        """
        if self._launched is None:
            return True
        if now >= self.due:
            begun = time.perf_counter()
            if not self._launched.may_come() and not unread():  # in this order: who logs and ends leaves a journal
                return False
            self.due = now + max(self._pause, LOOK_SHARE * (time.perf_counter() - begun))
            self._pause = min(2 * self._pause, LOOK_SECONDS_MAX)
        return True
