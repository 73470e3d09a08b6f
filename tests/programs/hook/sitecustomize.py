"""Put on PYTHONPATH for the programs of the gallery: tbxd in the original's place, and the time that calls take.

``TBXD_GALLERY_WRITER=tbxd`` has `tensorboardX` and `torch.utils.tensorboard` be the client, in children too. With
either writer the methods of ``SummaryWriter`` are timed: a line for each call, in a file for each process in
``TBXD_GALLERY_CALLS``. No descriptor stays open and no lock is held, so nothing of this is there for a fork to inherit.
"""

import atexit
import importlib.abc
import importlib.machinery
import os
import sys
import threading
import time
from collections import deque

CALLS = os.environ.get("TBXD_GALLERY_CALLS", "")
INSTEAD = os.environ.get("TBXD_GALLERY_WRITER", "") == "tbxd"
NAMES = ("tensorboardX", "tensorboardX.writer", "torch.utils.tensorboard", "torch.utils.tensorboard.writer")
OFFERED = ("SummaryWriter", "FileWriter", "GlobalSummaryWriter", "RecordWriter", "TorchVis")
KEPT_MAX = 64  # calls that a process which is killed may take with it
LONG_NS = 2_000_000  # a call that takes longer is on the disk at once

_calls: deque[str] = deque()
_inside = threading.local()


def _waited() -> int:
    """Nanoseconds in which this thread was ready and another had its core; -1 where nobody tells (no /proc)."""
    try:
        fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return int(os.read(fd, 100).split()[1])
    except (OSError, ValueError, IndexError):
        return -1
    finally:
        os.close(fd)


def _write() -> None:
    lines = []
    while True:
        try:
            lines.append(_calls.popleft())
        except IndexError:
            break
    if not lines:
        return
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(os.path.join(CALLS, str(os.getpid())), flags, 0o666)
    except OSError:  # no descriptor is left at the moment, say
        _calls.extendleft(reversed(lines))
        return
    try:
        os.write(fd, "".join(lines).encode())
    except OSError:
        pass
    finally:
        os.close(fd)


def _timed(name, method):
    def call(*arguments, **more):
        if getattr(_inside, "call", False):
            return method(*arguments, **more)
        _inside.call = True
        waited = _waited()
        cpu = time.thread_time_ns()
        began = time.perf_counter_ns()
        try:
            return method(*arguments, **more)
        finally:
            wall = time.perf_counter_ns() - began
            cpu = time.thread_time_ns() - cpu
            _inside.call = False
            after = _waited()
            _calls.append(f"{name} {wall} {cpu} {after - waited if waited >= 0 <= after else -1}\n")
            if wall > LONG_NS or len(_calls) > KEPT_MAX or name in ("close", "flush"):
                _write()

    call.__name__ = getattr(method, "__name__", name)
    call.__doc__ = method.__doc__
    return call


def _time_methods(kind) -> None:
    if not CALLS or "_gallery" in vars(kind):
        return
    kind._gallery = True
    names = [name for name in dir(kind) if name.startswith("add_") or name in ("log", "flush", "close", "__init__")]
    for name in names:
        setattr(kind, name, _timed(name, getattr(kind, name)))


class _Instead(importlib.abc.Loader):
    """Makes a module of this name out of tbxd's client."""

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        import tbxd_client

        for name in OFFERED:
            setattr(module, name, getattr(tbxd_client, name))
        module.__version__ = tbxd_client.__version__
        module.__all__ = list(OFFERED)
        _time_methods(tbxd_client.SummaryWriter)


class _Timed(importlib.abc.Loader):
    """Loads the original, and has its calls timed."""

    def __init__(self, loader) -> None:
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        self._loader.exec_module(module)
        _time_methods(module.SummaryWriter)

    def __getattr__(self, name):
        return getattr(self._loader, name)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname not in NAMES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if INSTEAD:
            found = importlib.machinery.ModuleSpec(fullname, _Instead())
            if spec is not None:  # its other modules are there as ever: Stable-Baselines3 takes `summary`
                found.submodule_search_locations = spec.submodule_search_locations
            return found
        if spec is not None and spec.loader is not None:
            spec.loader = _Timed(spec.loader)
        return spec


if CALLS or INSTEAD:
    sys.meta_path.insert(0, _Finder())
if CALLS:
    atexit.register(_write)
    os.register_at_fork(after_in_child=_calls.clear)
