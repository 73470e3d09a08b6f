"""The client's file descriptors: all of them registered, none below 3, none inherited by a forked child.

A child that kept one would keep a lock (the journal's, so that it is not adopted when its trainer is gone; the launch
lock, so that no process can start the daemon), the end of a pipe, or the connection to the daemon. So each file that
the client opens is a `Descriptor`, and a child closes them all first.

A fork waits for work that it must not interrupt (`uncut`): a descriptor that is open and not yet registered, a message
half written to stderr with its lock held. It waits for microseconds, or `FORK_SECONDS` if a disk hangs; descriptors
that were missed then are found by their path.

A program may close descriptors that are not its own (``os.closerange(3, 1024)``, as daemons do), and get the same
numbers for its own files. So each descriptor also records the identity of its file, which is checked before every
write or close.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import sys
from pathlib import Path
from types import TracebackType

from .native import get_ident, monotonic, sleep

FORK_SECONDS = 0.05  # the longest that a fork waits for what it would cut in two
NUMBERS_MAX = 4096  # that are tried where nobody tells which are open
PAUSE_SECONDS = 0.0002  # between looks whether that is over
DEVNULL = Path(os.devnull)
STANDARD = 3  # descriptors below are stdin, stdout and stderr, open or not


class DescriptorsClosed(Exception):
    """The program has closed descriptors that are not its own, perhaps all."""


class _Uncut:
    """See `uncut`. Threads do not exclude each other, and a signal handler may run in between."""

    def __enter__(self) -> None:
        me = get_ident()
        depth = _inside.get(me, 0)
        deadline = 0.0
        while True:
            # Before the look: of two that do so, one at least sees the other. Nothing is called between them, or what a
            # signal handler raises there would leave this thread in it.
            _inside[me] = depth + 1
            if depth or not _forking - {me}:
                return
            now = monotonic()
            deadline = deadline or now + FORK_SECONDS
            if now > deadline:
                # A fork that lasts, or one that is over and was kept from saying so by what a signal handler raised:
                # nobody waits for it again. What it cuts the child finds, as it sees who is in here.
                _forking.intersection_update({me})
                return
            _inside.pop(me, None)
            sleep(PAUSE_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        me = get_ident()
        depth = _inside.pop(me, 0)
        if depth > 1:
            _inside[me] = depth - 1
        _long.discard(me)


uncut = _Uncut()  # `with uncut:` no fork comes in between
_inside: dict[int, int] = {}  # threads, and how deep they are in it
_forking: set[int] = set()  # threads
# Those of which a fork has waited in vain: a disk hangs, or what a signal handler has raised has kept one from saying
# that it is out of it. No other fork waits for them.
_long: set[int] = set()


class Descriptor:
    """An open file of this process. ``number`` is -1 when it is closed.

    Args:
        number: the number from the system. A number below `STANDARD` is replaced by another.
        path: the path for opening the file again, if possible; changed when the file is moved.
        flags: the flags for opening it again.

    Raises:
        OSError: the descriptor is gone, or none is left.
    """

    __slots__ = ("_identity", "flags", "folder", "number", "path")

    def __init__(self, number: int, path: Path | None = None, flags: int = 0) -> None:
        self.number = number
        self.path = path
        self.flags = flags
        self.folder: Descriptor | None = None  # in which it is opened again, wherever that is meanwhile
        try:
            if number < STANDARD:
                self.number = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, STANDARD)
                os.close(number)
            state = os.fstat(self.number)
        except OSError:
            with contextlib.suppress(OSError):
                os.close(self.number)
            raise
        self._identity = (state.st_dev, state.st_ino)
        _all.add(self)

    def fileno(self) -> int:
        """Return the number, for `fcntl` and pollers."""
        return self.number

    @property
    def mine(self) -> bool:
        """True if the number still belongs to the file that was opened. Takes about a microsecond."""
        try:
            return self.is_of(os.fstat(self.number))
        except (OSError, ValueError):
            return False

    def is_of(self, state: os.stat_result) -> bool:
        """Return True if this is the state of the file that was opened."""
        return (state.st_dev, state.st_ino) == self._identity

    def valid(self) -> int:
        """Return the number; a file that the program has closed is opened again.

        Raises:
            OSError: the file was closed, and its path leads to another file, or to none.
        """
        if self.mine:
            return self.number
        if self.path is None or self.number < 0:
            raise OSError(errno.EBADF, "a descriptor of tbxd was closed")
        with uncut:
            other = _open_again(self)
            if other._identity != self._identity:
                other.close()
                raise OSError(errno.ESTALE, f"{self.path} is another file than it was")
            self.number, other.number = other.number, -1
            _all.discard(other)
            _all.add(self)
        return self.number

    def close(self) -> None:
        """Close the descriptor once; never another file that has its number now."""
        _all.discard(self)
        number = self.number
        if number >= 0 and self.mine:
            self.number = -1
            with contextlib.suppress(OSError):
                os.close(number)
        self.number = -1

    def forget(self) -> None:
        """Forget the number without closing it: it belongs to the program now."""
        _all.discard(self)
        self.number = -1


_all: set[Descriptor] = set()
_own_maps: set[Map] = set()  # those that a child does not have
_kept_maps: list[Map] = []  # never closed: their descriptors are somebody else's now
_folders: set[str] = set()  # where files of ours are


def open_file(path: Path, flags: int, mode: int = 0o600, folder: Descriptor | None = None) -> Descriptor:
    """Open a file by its path.

    Args:
        path: of the file.
        flags, mode: as for `os.open`.
        folder: if given, open the file by its name in this folder, even if the folder's path has changed.

    Raises:
        OSError: as `os.open`.
    """
    with uncut:
        if folder is None:
            number = os.open(path, flags | os.O_CLOEXEC, mode)
        else:
            number = os.open(path.name, flags | os.O_CLOEXEC, mode, dir_fd=folder.valid())
        result = Descriptor(number, path, flags & ~(os.O_CREAT | os.O_EXCL))
        result.folder = folder
        if flags & os.O_CREAT and not os.fstat(result.number).st_mode & 0o777:
            os.fchmod(result.number, mode)  # a umask of 0777 would keep the daemon from it
        return result


def _open_again(file: Descriptor) -> Descriptor:
    """Open a file of ours again, even if its mode forbids it.

    Raises:
        OSError: as `os.open`.
    """
    assert file.path is not None
    path, flags, folder = file.path, file.flags | os.O_NOFOLLOW, file.folder
    try:
        return open_file(path, flags, folder=folder)
    except PermissionError:
        looked = open_file(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, folder=folder)
        try:
            if looked._identity != file._identity:
                raise
            mode = stat.S_IMODE(os.fstat(looked.number).st_mode)
            os.fchmod(looked.number, mode | stat.S_IWUSR)
            try:
                return open_file(path, flags, folder=folder)
            finally:
                os.fchmod(looked.number, mode)
        finally:
            looked.close()


def open_pipe(flags: int = 0) -> tuple[Descriptor, Descriptor]:
    """Return the two ends of a pipe, the one for reading first.

    Raises:
        OSError: no descriptors are left.
    """
    with uncut:
        ends = os.pipe2(flags | os.O_CLOEXEC)
        try:
            first = Descriptor(ends[0])
        except OSError:
            os.close(ends[1])
            raise
        try:
            return first, Descriptor(ends[1])
        except OSError:
            first.close()
            raise


def duplicate(descriptor: Descriptor, least: int = STANDARD) -> Descriptor:
    """Return another descriptor of the same open file, with a number of at least ``least``.

    Raises:
        OSError: none is left, or the descriptor is closed.
    """
    with uncut:
        return Descriptor(fcntl.fcntl(descriptor.valid(), fcntl.F_DUPFD_CLOEXEC, least))


def another(descriptor: Descriptor) -> Descriptor:
    """Return another descriptor of the same file; by its path if this one is closed, also by another thread meanwhile.

    Raises:
        OSError: none is left, or the path leads to another file, or to none.
    """
    with uncut:
        found = None
        with contextlib.suppress(OSError):
            found = duplicate(descriptor)
        if found is None or found._identity != descriptor._identity:  # closed and given away between look and copy
            if found is not None:
                found.close()
            if descriptor.path is None:
                raise OSError(errno.EBADF, "a descriptor of tbxd was closed")
            found = _open_again(descriptor)
            if found._identity != descriptor._identity:
                found.close()
                raise OSError(errno.ESTALE, f"{descriptor.path} is another file than it was")
        return found


class Map(mmap.mmap):
    """A file in memory, without a descriptor of the file.

    Python's own map keeps a duplicate (before 3.13), which a child would keep as well; here it is one of /dev/null.
    """

    dummy: Descriptor | None = None

    def close(self) -> None:
        """Unmap the file, unless its descriptor's number belongs to another file now, which would be closed, too."""
        _own_maps.discard(self)
        if self.dummy is not None and not self.dummy.mine:
            _kept_maps.append(self)
            return
        super().close()


def map_file(descriptor: Descriptor, length: int, inherited: bool = True) -> Map:
    """Map the first ``length`` bytes of a file, shared for reading and writing.

    Args:
        descriptor: the file.
        length: in bytes.
        inherited: a forked child has the map, too. The map keeps the open file, with its locks, even if all of its
            descriptors are closed.

    Raises:
        OSError: the file cannot be mapped.
    """
    with uncut:
        if sys.version_info >= (3, 13):
            result = Map(descriptor.valid(), length, trackfd=False)
        else:
            result = _map_with_a_dummy(descriptor, length)
        if not inherited:
            result.madvise(mmap.MADV_DONTFORK)
            _own_maps.add(result)
        return result


def _map_with_a_dummy(descriptor: Descriptor, length: int) -> Map:
    number = descriptor.valid()
    null = _open_null()
    try:
        likely = os.dup(null)  # the number that the map's duplicate gets, if nobody opens anything now
        os.close(likely)
        result = Map(number, length)
        for candidate in (likely, *_numbers()):
            if candidate not in (number, null) and _is(candidate, descriptor):
                os.dup2(null, candidate, inheritable=False)
                result.dummy = _Dummy(candidate)
                break
        return result
    finally:
        os.close(null)


def _open_null() -> int:
    """Return a descriptor of /dev/null, or of an empty file in memory if that is missing (chroot).

    Raises:
        OSError: none is left.
    """
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return os.memfd_create("tbxd", os.MFD_CLOEXEC)


class _Dummy(Descriptor):
    """A map's descriptor of /dev/null; a child keeps it, as it keeps the map."""

    __slots__ = ()

    def __init__(self, number: int) -> None:
        state = os.fstat(number)
        self.number = number
        self.path, self.flags, self.folder = None, 0, None
        self._identity = (state.st_dev, state.st_ino)


def _is(number: int, descriptor: Descriptor) -> bool:
    try:
        state = os.fstat(number)
    except OSError:
        return False
    known = any(other.number == number for other in tuple(_all))
    return not known and (state.st_dev, state.st_ino) == descriptor._identity


def _numbers() -> list[int]:
    """Return the descriptors of this process; none without /proc."""
    try:
        return sorted(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - also right after a fork
    except OSError:
        return []


def open_numbers(least: int) -> list[int]:
    """Return the descriptors of this process from a number on, the program's and the client's; rather too many."""
    found = _numbers() or range(min(limit(), NUMBERS_MAX))
    return [number for number in found if number >= least]


def limit() -> int:
    """Return the limit of new descriptor numbers; one opened before the limit was lowered may be beyond it."""
    try:
        most = os.sysconf("SC_OPEN_MAX")
    except (OSError, ValueError):
        return 256
    return most if most >= 0 else sys.maxsize  # no limit


def fill_standard() -> None:
    """Open /dev/null if stdin, stdout or stderr is closed, so that no file of ours gets their number.

    A program that writes to a closed stderr would write into that file. Started children do not inherit it.
    """
    for number in range(STANDARD):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = _open_null()  # gets the lowest number
                if opened >= STANDARD:  # somebody was quicker
                    os.close(opened)


def know(folder: Path) -> None:
    """Register a folder of ours: a forked child closes its files even if the fork came before they were registered."""
    _folders.add(os.path.join(folder, ""))  # noqa: PTH118 - with a slash at its end


def _before_fork() -> None:
    me = get_ident()
    _forking.add(me)
    deadline = monotonic() + FORK_SECONDS
    while others := [thread for thread in tuple(_inside) if thread != me]:
        if monotonic() > deadline:
            for thread in others:
                _long.add(thread)
                _inside.pop(thread, None)
            return
        sleep(PAUSE_SECONDS)


def _after_fork_in_parent() -> None:
    _forking.discard(get_ident())


def _after_fork_in_child() -> None:
    cut = bool(_inside or _long)  # a disk hangs, or a signal handler forks
    _forking.clear()
    _inside.clear()
    _long.clear()
    for descriptor in tuple(_all):
        descriptor.close()
    for mapped in tuple(_own_maps):
        with contextlib.suppress(BufferError, OSError):
            mapped.close()
    _own_maps.clear()
    if cut:
        _close_ours()


def _close_ours() -> None:
    for number in _numbers():
        with contextlib.suppress(OSError):
            if number >= STANDARD and os.readlink(f"/proc/self/fd/{number}").startswith(tuple(_folders)):  # noqa: PTH115
                os.close(number)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
