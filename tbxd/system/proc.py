"""Linux's counters of a node, of cgroups on it with limits of their own, and of single processes.

Everything is read from ``/proc`` and ``/sys`` (proc(5); the kernel's Documentation/admin-guide/cgroup-v2.rst,
iostats.rst). `Reading` holds counters; functions such as `node_values` compute values from two readings. The values of
a file that is missing or unreadable are left out.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512  # of /proc/diskstats, whatever the disk has
GIB, MB = 1 << 30, 1e6  # what values are told in: TensorBoard has no units, and makes 2e+10 of bytes
READ_BYTES = 1 << 20  # of one file, at most; /proc/stat of 4,096 processors has 400 KB
PROCESSES_MAX = 1024  # looked at for a reading
GROUP_SECONDS = 60.0  # between looks at which group a process is in, and which limits a group has
GROUPS_MAX = 1024  # whose limits are remembered

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Counters = dict[str, tuple[int, int]]


@dataclass(slots=True)
class Process:
    """A process. ``group``: its cgroup, "" if unknown; ``started`` distinguishes it from a later one with its pid."""

    started: int
    cpu_seconds: float
    memory_bytes: int
    group: str = ""


@dataclass(slots=True)
class Limits:
    """The tightest limits of a group, and the group (itself or one above it) that has them.

    None without a limit.
    """

    memory_bytes: int | None = None
    memory_group: str = ""
    cores: float | None = None
    cores_group: str = ""


@dataclass(slots=True)
class Group:
    """A group's use of its limited resources. None without a limit."""

    limits: Limits
    cpu_seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(slots=True)
class Reading:
    """Counters and levels of one moment; ``time`` is that of a monotonic clock, in seconds."""

    time: float
    processors: Counters = field(default_factory=dict)  # name to (ticks busy, ticks); "cpu" is all of them
    disks: Counters = field(default_factory=dict)  # name to bytes (read, written)
    network: Counters = field(default_factory=dict)  # name to bytes (received, sent)
    memory: dict[str, int] = field(default_factory=dict)  # as in /proc/meminfo, in bytes
    load: float | None = None
    groups: dict[str, Group] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)


class Node:
    """Takes readings.

    Args:
        root: the folder of ``proc`` and ``sys``.
    """

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        root = os.fspath(root).rstrip("/")
        self._proc, self._sys = f"{root}/proc", f"{root}/sys"
        self._groups: dict[tuple[int, int], str] = {}  # pid and start of a process to its group
        self._groups_known = -GROUP_SECONDS  # since when
        self._real: dict[str, bool] = {}  # folder of a disk or an interface to whether a device is behind it
        self._limits: dict[str, tuple[float, Limits]] = {}  # group to its limits, and when they were looked at

    def read(self, pids: Iterable[int] = ()) -> Reading:
        """Return a reading, with these processes and their groups."""
        reading = Reading(
            time.monotonic(),
            _processors(_text(f"{self._proc}/stat")),
            self._disks(),
            self._network(),
            _memory(_text(f"{self._proc}/meminfo")),
        )
        with contextlib.suppress(ValueError, IndexError):
            reading.load = float(_text(f"{self._proc}/loadavg").split()[0])
        if reading.time - self._groups_known > GROUP_SECONDS:
            self._groups, self._groups_known = {}, reading.time
        for pid in sorted(set(pids))[:PROCESSES_MAX]:
            process = _process(_text(f"{self._proc}/{pid}/stat"))
            if process is None:
                continue
            reading.processes[pid] = process
            known = self._groups.get((pid, process.started))
            if known is None:
                known = self._groups[pid, process.started] = _group(_text(f"{self._proc}/{pid}/cgroup"))
            process.group = known
            if process.group and process.group not in reading.groups:
                reading.groups[process.group] = self._use(process.group, reading)
        return reading

    def _disks(self) -> Counters:
        found = {}
        for line in _text(f"{self._proc}/diskstats").splitlines():
            words = line.split()
            with contextlib.suppress(ValueError, IndexError):
                if self._is_real(f"block/{words[2]}"):  # no partition, and nothing that is made of other disks
                    found[words[2]] = (SECTOR_BYTES * int(words[5]), SECTOR_BYTES * int(words[9]))
        return found

    def _network(self) -> Counters:
        """Return the counters of interfaces with a device (others count bytes twice); in a container, of all."""
        found = {}
        for line in _text(f"{self._proc}/net/dev").splitlines()[2:]:
            name, _, numbers = line.partition(":")
            words = numbers.split()
            with contextlib.suppress(ValueError, IndexError):
                found[name.strip()] = (int(words[0]), int(words[8]))
        found.pop("lo", None)
        return {name: counts for name, counts in found.items() if self._is_real(f"class/net/{name}")} or found

    def _is_real(self, folder: str) -> bool:
        real = self._real.get(folder)
        if real is None:
            real = self._real[folder] = os.path.exists(f"{self._sys}/{folder}/device")  # noqa: PTH110 - False where it cannot be looked at
        return real

    def _use(self, group: str, reading: Reading) -> Group:
        known = self._limits.get(group)
        if known is None or reading.time - known[0] > GROUP_SECONDS:
            if len(self._limits) >= GROUPS_MAX:
                self._limits.clear()
            known = self._limits[group] = reading.time, self._limits_of(group, reading)
        limits = known[1]
        use = Group(limits)
        if limits.memory_bytes is not None:
            folder = self._folder(limits.memory_group)
            current = _number(_text(f"{folder}/memory.current"))
            if current is not None:  # without what would be given back at once, as elsewhere
                cached = _keys(_text(f"{folder}/memory.stat")).get("inactive_file", 0)
                use.memory_bytes = max(0, current - cached)
        if limits.cores is not None:
            used = _keys(_text(f"{self._folder(limits.cores_group)}/cpu.stat")).get("usage_usec")
            use.cpu_seconds = None if used is None else used / 1e6
        return use

    def _folder(self, group: str) -> str:
        return f"{self._sys}/fs/cgroup{group}"

    def _limits_of(self, group: str, reading: Reading) -> Limits:
        """Return the limits that are below the node's resources."""
        limits = Limits()
        least = reading.memory.get("MemTotal", 1 << 62)
        cores: float = max(1, len(reading.processors) - 1)
        for above in (group, *map(str, Path(group).parents)):
            folder = self._folder(above)
            memory = _number(_text(f"{folder}/memory.max"))
            if memory is not None and 0 < memory < least:
                limits.memory_bytes, limits.memory_group, least = memory, above, memory
            words = _text(f"{folder}/cpu.max").split()
            with contextlib.suppress(ValueError, IndexError, ZeroDivisionError):
                quota = int(words[0]) / int(words[1])
                if 0 < quota < cores:
                    limits.cores, limits.cores_group, cores = quota, above, quota
        return limits


def _text(path: str) -> str:
    """Return the contents of a file; "" if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, READ_BYTES).decode("ascii", "replace")
    except OSError:  # a process that has just ended
        return ""
    finally:
        os.close(fd)


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or nothing
        return None


def _keys(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        with contextlib.suppress(ValueError):
            found[name] = int(number)
    return found


def _processors(stat: str) -> Counters:
    found = {}
    for line in stat.splitlines():
        if not line.startswith("cpu"):
            break
        name, *words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            # user, nice, system, idle, iowait, irq, softirq, steal; what guests take is in user already.
            ticks = list(map(int, words[:8]))
            total = sum(ticks)
            found[name] = (total - ticks[3] - ticks[4], total)
    return found


def _memory(meminfo: str) -> dict[str, int]:
    found = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree"):
            with contextlib.suppress(ValueError, IndexError):
                found[name] = 1024 * int(rest.split()[0])
    return found


def _process(stat: str) -> Process | None:
    words = stat.rpartition(")")[2].split()  # its name, in front, may hold anything
    try:
        return Process(int(words[19]), (int(words[11]) + int(words[12])) / _CLOCK_TICKS, int(words[21]) * _PAGE_BYTES)
    except (ValueError, IndexError):
        return None


def _group(cgroup: str) -> str:
    """Return the group of version 2 in a process's list; one outside of this namespace begins with ``/..``."""
    for line in cgroup.splitlines():
        if line.startswith("0::/") and not line.startswith("0::/.."):
            return line[3:]
    return ""


def node_values(before: Reading, after: Reading) -> dict[str, float]:
    """Return the node's values between two readings, by name. Percentages are of all processors, and of all memory."""
    values: dict[str, float] = {}
    shares = {
        name: 100 * (busy - before.processors[name][0]) / (total - before.processors[name][1])
        for name, (busy, total) in after.processors.items()
        if name in before.processors and total > before.processors[name][1]
    }
    if "cpu" in shares:
        values["cpu_percent"] = _percent(shares.pop("cpu"))
    if shares:
        values["cpu_busiest_percent"] = _percent(max(shares.values()))
    if after.load is not None:
        values["load"] = after.load
    memory = after.memory
    if memory.get("MemTotal") and "MemAvailable" in memory:
        used = memory["MemTotal"] - memory["MemAvailable"]
        values["memory_gib"] = used / GIB
        values["memory_percent"] = 100 * used / memory["MemTotal"]
    if memory.get("SwapTotal"):
        values["swap_gib"] = (memory["SwapTotal"] - memory.get("SwapFree", 0)) / GIB
    seconds = after.time - before.time
    for (first, second), old, new in (
        (("disk_read_mb_s", "disk_written_mb_s"), before.disks, after.disks),
        (("network_received_mb_s", "network_sent_mb_s"), before.network, after.network),
    ):
        both = old.keys() & new.keys()
        if both and seconds > 0:  # one that was put in meanwhile begins with the next reading
            values[first] = sum(max(0, new[name][0] - old[name][0]) for name in both) / seconds / MB
            values[second] = sum(max(0, new[name][1] - old[name][1]) for name in both) / seconds / MB
    return values


def group_values(before: Reading, after: Reading, name: str) -> dict[str, float]:
    """Return the values of a group, as far as it has limits; percentages are of these limits."""
    values: dict[str, float] = {}
    group, old, seconds = after.groups.get(name), before.groups.get(name), after.time - before.time
    if group is None:
        return values
    if group.memory_bytes is not None and group.limits.memory_bytes:
        values["memory_gib"] = group.memory_bytes / GIB
        values["memory_percent"] = 100 * group.memory_bytes / group.limits.memory_bytes
    if (
        group.cpu_seconds is not None
        and group.limits.cores
        and old is not None
        and old.cpu_seconds is not None
        and old.limits.cores_group == group.limits.cores_group
        and seconds > 0
    ):
        values["cpu_percent"] = max(0.0, 100 * (group.cpu_seconds - old.cpu_seconds) / seconds / group.limits.cores)
    return values


def process_values(before: Reading, after: Reading, pids: Iterable[int]) -> dict[str, float]:
    """Return the memory and processor cores that these processes use together."""
    there = {pid: after.processes[pid] for pid in set(pids) if pid in after.processes}
    if not there:
        return {}
    values = {"trainers_memory_gib": sum(process.memory_bytes for process in there.values()) / GIB}
    seconds = after.time - before.time
    known = [
        (process, before.processes[pid])
        for pid, process in there.items()
        if pid in before.processes and before.processes[pid].started == process.started
    ]
    if known and seconds > 0:
        values["trainers_cpu_cores"] = sum(new.cpu_seconds - old.cpu_seconds for new, old in known) / seconds
    return values


def _percent(value: float) -> float:
    return min(100.0, max(0.0, value))  # the ticks of idle processors do not always go up
