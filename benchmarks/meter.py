"""Reading CPU time, memory and disk use, from inside the process that is measured."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import resource
import sys
import time
from pathlib import Path

from .peers import PEERS, MeasurementError, Peer

MEBIBYTE = 1 << 20


def _memory(pid: int, field: str) -> float:
    match = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    if match is None:
        raise MeasurementError(f"/proc/{pid}/status has no {field}")
    return int(match[1]) / 1024


def resident(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return _memory(pid, "VmRSS")


def peak(pid: int) -> float:
    """The most that a process has had resident since `forget_peak`, in MiB."""
    return _memory(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak of a process begin anew; see ``clear_refs`` in proc(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    if peak(pid) > resident(pid) + 1:
        raise MeasurementError(f"the memory peak of process {pid} cannot be reset")


def _process_cpu(pid: int) -> float:
    """CPU seconds of another process, threads that have ended included, in nanoseconds' resolution.

    ``psutil.cpu_times`` counts ticks of 10 ms, which is more than 20 small histograms take. The clock's number is
    what clock_getcpuclockid(3) makes of a pid.
    """
    return time.clock_gettime((~pid << 3) | 2)


class HelperMeter:
    """Who works for this process beside it: tbxd's daemon, the processes that a tracker has started, or nobody."""

    def __init__(self, peer: Peer) -> None:
        """To be made after the first record has been flushed: the daemon is there then."""
        self._daemon = daemon_pid() if peer.daemon else 0
        self._seen = 0.0

    def cpu(self) -> float:
        """CPU seconds so far."""
        if self._daemon:
            return _process_cpu(self._living())
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        living = sum(_process_cpu(pid) + _ended_children_cpu(pid) for pid in descendants(os.getpid()))
        # What ends is counted in ticks from then on, and may seem to have used a little less than before.
        self._seen = max(self._seen, ended.ru_utime + ended.ru_stime + living)
        return self._seen

    def peak(self) -> float:
        """Peak memory in MiB; of several processes the sum."""
        return peak(self._living()) if self._daemon else sum(map(peak, descendants(os.getpid())))

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        for pid in [self._living()] if self._daemon else descendants(os.getpid()):
            forget_peak(pid)

    def _living(self) -> int:
        if daemon_pid() != self._daemon:
            raise MeasurementError("the daemon has been replaced during the measurement")
        return self._daemon


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on, which is the third in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _ended_children_cpu(pid: int) -> float:
    """CPU seconds of the children that a process has had, in ticks of 10 ms."""
    cutime, cstime = _stat(pid)[13:15]
    return (int(cutime) + int(cstime)) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The living children of a process, theirs, and so on."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            for child in map(int, (thread / "children").read_text().split()):
                if _stat(child)[0] != "Z":
                    found += [child, *descendants(child)]
    return found


def daemon_pid() -> int:
    """The pid of the daemon of this process's runtime folder.

    Raises:
        MeasurementError: there is none.
    """
    # Here and not above: the process that is measured is to meet its writer in the measurement, not before.
    from tbxd_client.config.paths import lock_path
    from tbxd_client.transport.launcher import is_locked

    lock = lock_path()
    if not is_locked(lock):
        raise MeasurementError(f"no daemon holds {lock}")
    return int(lock.read_text())


class CpuMeter:
    """CPU seconds of this process (all its threads) and of those that work for it, from when it is made."""

    def __init__(self, helper: HelperMeter) -> None:
        self._helper = helper
        self._helper_start = helper.cpu()
        self._start = time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds of the trainer and of its helpers."""
        trainer = time.process_time() - self._start
        return trainer, self._helper.cpu() - self._helper_start


class MemoryMeter:
    """Peak memory of this process over what it had when this was made."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._baseline = resident(self._pid)
        forget_peak(self._pid)

    def over_baseline(self) -> float:
        """MiB, the most since the beginning or the last `forget`."""
        return peak(self._pid) - self._baseline

    def forget(self) -> None:
        """Let the peak begin anew; the baseline stays."""
        forget_peak(self._pid)


def file_bytes(folder: Path) -> int:
    """The size of everything below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def import_what_a_trainer_has(torch: bool) -> None:
    """So that the memory of numpy and torch is not charged to the writer that imports them first.

    Args:
        torch: that too, where it is installed.

    Raises:
        MeasurementError: a writer has been imported before its time.
    """
    early = {peer.imports for peer in PEERS.values()} & sys.modules.keys()
    if early:
        raise MeasurementError(f"imported before it is measured: {', '.join(early)}")
    import numpy  # noqa: F401

    if torch and importlib.util.find_spec("torch"):
        import torch as _  # noqa: F401
