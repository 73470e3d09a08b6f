"""Faults for real: strace that fails or kills at a system call, small disks, a proxy that cuts."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import World, absent, wait_for
from tbxd.tfevents.contents import Contents
from tbxd_client.journal.journal_files import JournalError, journals, read_state

TRAINER = Path(__file__).with_name("trainer.py")
NOBODY = "ipc:///nonexistent/nobody.sock"
DETACH_SECONDS = 10.0
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


# --- trainers and daemons ------------------------------------------------------------------------------------


def train(
    place: World,
    number: int,
    folder: str,
    under: Sequence[str] = (),
    environ: dict[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start `trainer.py`; ``options`` are its own."""
    process = subprocess.Popen(
        [*under, sys.executable, str(TRAINER), str(number), json.dumps({"folder": folder, **options})],
        env={**place.environ, **(environ or {})},
        cwd=place.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    place.processes.append(process)
    return process


def told(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The next thing that a trainer says of itself."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"{"):
            return dict(json.loads(line))
    raise AssertionError(f"the trainer left with {process.wait()} and said nothing")


def say_go(process: subprocess.Popen[bytes]) -> None:
    """Let a trainer that waits go on."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def start_daemon(
    place: World, under: Sequence[str] = (), *arguments: str, environ: dict[str, str] | None = None
) -> Any:
    """Start a daemon that may not live long enough to answer."""
    process = subprocess.Popen(
        [*under, sys.executable, "-m", "tbxd", "serve", *arguments],
        env={**place.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})},
        stderr=subprocess.PIPE if under else None,
    )
    place.processes.append(process)
    return process


def replays_due(place: World, seen: dict[Path, Contents] | None = None) -> int:
    """How many journals hold records that are in an event file already: the next daemon is sent them again.

    Args:
        place: whose journals.
        seen: folders as the last call has read them, so that only what has come since is read.
    """
    ledger: dict[bytes, Any] = {}
    seen = {} if seen is None else seen
    for folder in {path.parent for path in place.logdir.rglob("*tfevents*")}:
        contents = seen.setdefault(folder, Contents(folder))
        contents.update()
        for session, entry in contents.ledger().items():
            if session not in ledger or ledger[session].end < entry.end:
                ledger[session] = entry
    found = 0
    for path in journals(place.spool):
        try:
            state = read_state(path)
        except JournalError:
            continue
        found += state.session in ledger and ledger[state.session].end > state.released
    return found


# --- strace --------------------------------------------------------------------------------------------------


def strace(calls: str, action: str, log: Path, path: Path | None = None) -> list[str]:
    """The command that runs another one and tampers with its system calls.

    Args:
        calls: a set of system calls, as strace wants it; ones that a machine does not have are marked with "?".
        action: such as ``signal=SIGKILL:when=3`` or ``error=EIO:when=1..2``. Calls are counted by each thread.
        log: where strace writes what it has done.
        path: tamper only with calls on this file.
    """
    if shutil.which("strace") is None:
        absent("strace is not installed (apt-get install strace)")
    only = ["-P", str(path)] if path is not None else []
    return [
        *("strace", "-f", "-qq", "-o", str(log), *only),
        *("-e", f"trace={calls}", "-e", "signal=none", "-e", f"inject={calls}:{action}"),
    ]


@contextmanager
def tampered(pid: int, calls: str, action: str, log: Path, path: Path | None = None) -> Iterator[None]:
    """Tamper with a process that runs already, until the block ends."""
    command = strace(calls, action, log, path)
    tracer = subprocess.Popen([*command, "-p", str(pid)])
    try:
        threads = psutil.Process(pid).num_threads()
        wait_for(lambda: tracer.poll() is not None or _traced(pid) >= threads, "strace to attach", 10)
        if tracer.poll() is not None:
            pytest.skip("no permission to trace a process")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it detaches; the process goes on
        try:
            tracer.wait(DETACH_SECONDS)
        except subprocess.TimeoutExpired:  # it waits for a delay to end, of a thread that is killed already
            tracer.kill()
            tracer.wait()


def _traced(pid: int) -> int:
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            found += "TracerPid:\t0\n" not in status.read_text()
    return found


def injected(log: Path) -> int:
    """Return the number of calls that strace has changed."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return 0
    return text.count("(INJECTED)") + text.count("(DELAYED)")


# --- disks ---------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, in memory, that is full soon."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("no permission to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a small disk: ``size=16m``, ``ro``, ``rw``."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


# --- the network ---------------------------------------------------------------------------------------------


class Proxy:
    """A TCP proxy over loopback that can be cut, and that can swallow either direction.

    ``mode``: "pass"; "cut" closes what is open and takes nothing new; "deaf" swallows what the daemon says (acks are
    lost); "mute" swallows what the clients say. Swallowed connections are broken when it passes again: what was lost
    inside a TCP stream cannot be continued.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._rung = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._rung, selectors.EVENT_READ, None)
        self._pairs: dict[socket.socket, tuple[socket.socket, bool]] = {}  # the other end; whether clients speak here
        self.mode = "pass"
        self._break = False
        self._end = False
        self.swallowed = 0  # bytes
        self.cuts = 0  # connections
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def set(self, mode: str) -> None:
        """Change the mode."""
        self._break = mode == "cut" or self.mode in ("deaf", "mute")
        self.mode = mode
        self._wake.send(b"x")

    def close(self) -> None:
        """End it."""
        self._end = True
        self._wake.send(b"x")
        self._thread.join()

    def _drop(self, one: socket.socket) -> None:
        other, _ = self._pairs.pop(one, (None, False))
        for end in (one, other):
            if end is not None:
                self._pairs.pop(end, None)
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(end)
                end.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            if self.mode == "cut":
                raise OSError
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        for one, other, speaks in ((client, server, True), (server, client, False)):
            self._pairs[one] = (other, speaks)
            self._selector.register(one, selectors.EVENT_READ, None)

    def _run(self) -> None:
        while not self._end:
            for key, _ in self._selector.select(1.0):
                end: Any = key.fileobj
                if end is self._rung:
                    self._rung.recv(100)
                elif end is self._listener:
                    self._accept()
                elif end in self._pairs:
                    self._pass(end)
            if self._break:
                self._break = False
                self.cuts += len(self._pairs) // 2
                for one in list(self._pairs):
                    self._drop(one)
        for one in [*self._pairs, self._listener, self._wake, self._rung]:
            one.close()

    def _pass(self, one: socket.socket) -> None:
        other, speaks = self._pairs[one]
        try:
            data = one.recv(1 << 16)
            if data and self.mode == ("mute" if speaks else "deaf"):
                self.swallowed += len(data)
            elif data:
                other.sendall(data)
            else:
                self._drop(one)
        except OSError:
            self._drop(one)


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def descriptors(pid: int) -> int:
    """Return the number of open file descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
