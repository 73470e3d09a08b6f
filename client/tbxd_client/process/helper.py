"""Starts processes for a trainer: the daemon, and the one that sends journals to another host.

A fork of the trainer at any moment does no harm: nothing is imported, nothing waits for a pipe, and every descriptor is
registered (`descriptors`). ``posix_spawn`` makes no copy of the trainer. A shell starts the program and ends after a
millisecond, so the trainer has a child only for that long; its own ``os.wait`` might reap it.

The new process and its descendants carry `STARTED_VARIABLE`, until `take_mark` removes it: an impostor with that mark
starts no process here. The new process holds the end of a pipe, which shows that it lives. If it ends with an error
before it has detached itself, the shell writes so to the pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping, Sequence

from . import descriptors
from .descriptors import STANDARD, Descriptor
from .native import monotonic, poller, posix_spawn, sleep, waitpid

STARTED_VARIABLE = "TBXD_STARTED"  # NUMBER:INODE of the pipe
ALIVE = STANDARD  # that descriptor
SHELL = "/bin/sh"
# In "/" no module of the working directory shadows one of ours.
_SCRIPT = f'cd / || exit 1; {{ "$@" || echo $? >&{ALIVE}; }} &'
# Where there is no shell: the same by the Python itself, whose arguments follow: -m MODULE …
_BOOT = (
    "import os, sys; os.chdir('/'); del sys.argv[:2]; import runpy; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
REAP_SECONDS, REAP_PAUSE_SECONDS = 0.1, 0.001  # for the shell to end
WORD_BYTES = 64
IMPOSTOR = 126  # instead of an exit code: what was started is something else
SIGNALLED = 128  # the exit code of a shell's child that a signal has ended is this much larger
_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def is_started() -> bool:
    """Return True if this process, or an ancestor, was started here and is not the intended program."""
    return STARTED_VARIABLE in os.environ


def take_mark() -> None:
    """Remove the mark, in the intended program: its own children may start processes."""
    number = _pipe()
    os.environ.pop(STARTED_VARIABLE, None)
    if number >= 0:
        os.set_inheritable(number, False)
    # Nothing can be opened there here: it is the trainer's, which could not be told to leave it behind (`_spawn`).
    for beyond in descriptors.open_numbers(max(descriptors.limit(), ALIVE + 1)):
        with contextlib.suppress(OSError):
            os.close(beyond)


def say_impostor() -> None:
    """Report to the trainer that this is not the intended program, so that it does not start it again."""
    number = _pipe()
    if number >= 0:
        with contextlib.suppress(OSError):
            os.write(number, b"%d\n" % IMPOSTOR)


def _pipe() -> int:
    """Return the pipe that the mark names, if it is open here; else -1."""
    try:
        number, inode = map(int, os.environ.get(STARTED_VARIABLE, "").split(":"))
        return number if os.fstat(number).st_ino == inode else -1
    except (OSError, OverflowError, ValueError):
        return -1


class Helper:
    """A started process that does not end with this one.

    Args:
        command: the path of the program, and its arguments.
        environ: its variables.
        output: the file for its stdout and stderr; None discards them.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], output: Descriptor | None = None) -> None:
        self.code: int | None = None  # with which it has ended before it had detached itself
        self._pid = 0
        self._alive, held = descriptors.open_pipe(os.O_NONBLOCK)
        self._null: Descriptor | None = None
        own = [held]
        try:
            null = descriptors.open_file(descriptors.DEVNULL, os.O_RDWR)
            own.append(null)
            # Above those that they become, or one would be closed before it is used.
            given = [descriptors.duplicate(one, ALIVE + 1) for one in (null, output or null, held)]
            own += given
            stdin, out, pipe = given
            self._pid = _spawn(command, environ, stdin, out, pipe)
        except OSError:
            self._alive.close()
            raise
        finally:
            for one in own:
                one.close()
        self._reap(REAP_SECONDS)

    def _reap(self, seconds: float = 0.0) -> None:
        """Reap the shell, which ends at once."""
        deadline = monotonic() + seconds
        while self._pid:
            try:
                pid, status = waitpid(self._pid, os.WNOHANG)
            except OSError:  # the trainer has waited for it, or waits for none
                pid, status = self._pid, 0
            if pid:
                self._pid = 0
                self._ended(os.waitstatus_to_exitcode(status))
            elif monotonic() < deadline:
                sleep(REAP_PAUSE_SECONDS)
            else:
                return

    def gone(self) -> bool:
        """Return True if the process has ended; `code` is set if it failed at its start."""
        self._reap()
        if self._alive.number < 0:
            return True
        pipe = poller()
        pipe.register(self._alive.number, select.POLLIN)
        if not pipe.poll(0):
            return False
        with contextlib.suppress(OSError, ValueError):
            if self._alive.mine:
                self._ended(int(os.read(self._alive.number, WORD_BYTES)))
        return True

    def _ended(self, code: int) -> None:
        if 0 < code < SIGNALLED:
            self.code = code

    def close(self) -> None:
        """Stop watching the process."""
        self._reap()
        self._alive.close()


def _spawn(
    command: Sequence[str], environ: Mapping[str, str], stdin: Descriptor, output: Descriptor, pipe: Descriptor
) -> int:
    """Start a program, by a shell if there is one, in "/" and in a session of its own.

    So signals to the trainer's process group, such as Ctrl-C, do not end it.
    """
    # What the trainer has for its own children, sockets that listen above all, is not for this one. A number beyond
    # the limit (`ulimit -n` came after it was opened) is refused here; what is started closes it (`take_mark`).
    limit = descriptors.limit()
    closed = [(os.POSIX_SPAWN_CLOSE, number) for number in descriptors.open_numbers(ALIVE + 1) if number < limit]
    if os.access(SHELL, os.X_OK):
        command = [SHELL, "-c", _SCRIPT, "tbxd", *command]
    else:
        command = [command[0], "-c", _BOOT, *command[1:]]
    inode = os.fstat(pipe.valid()).st_ino
    # Last: by now the program may have closed them, and what is started would write into a file of its own.
    actions: list[tuple[int, ...]] = [
        (os.POSIX_SPAWN_DUP2, stdin.valid(), 0),
        (os.POSIX_SPAWN_DUP2, output.valid(), 1),
        (os.POSIX_SPAWN_DUP2, output.valid(), 2),
        (os.POSIX_SPAWN_DUP2, pipe.valid(), ALIVE),
        *closed,
    ]
    return posix_spawn(
        command[0],
        command,
        {**environ, STARTED_VARIABLE: f"{ALIVE}:{inode}"},
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_SIGNALS,
    )
