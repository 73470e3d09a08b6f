"""The real thing for tests: daemons and trainers as processes, and the strict reading of what they wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from tbxd.config.settings import PLACES, SETTINGS
from tbxd.config.sources import ENVIRONMENT, Given, Origin, Source
from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import read_records
from tbxd.transport.control_client import NotRunning, ask
from tbxd_client.logdir.event_names import event_files
from tbxd_client.transport.launcher import is_locked

DEADLINE = 60.0  # for a process from its beginning to its end; a machine under load is slow, not wrong
# For what tbxd does by itself. It promises nothing that takes longer than a few seconds: a record is in the file after
# 0.1 s, a journal is adopted after 2 s, `close` gives up after 5 s. Beside two other tests and with five times as many
# processes as processors, no such wait took 15 s.
PATIENCE = 20.0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE, pause: float = 0.01) -> Any:
    """The first true value of ``condition``, asked again after each pause."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(pause)


def absent(what: str) -> NoReturn:
    """Skip a test, but in continuous integration (CI=true) fail it, so that nobody takes that for a success."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(what)
    pytest.skip(what)


@dataclass
class World:
    """A runtime folder, a spool and a log folder of one test, and the processes that use them."""

    root: Path
    extra: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runtime = self.root / "run"
        self.spool = self.root / "spool"
        self.logdir = self.root / "logs"
        self.config = self.root / "config.toml"
        self.root.mkdir(exist_ok=True)

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of a process of this world."""
        base = {key: value for key, value in os.environ.items() if not key.startswith("TBXD_")}
        return {
            **base,
            "TBXD_RUNTIME_DIR": str(self.runtime),
            "TBXD_SPOOL": str(self.spool),
            "TBXD_CONFIG": f"-{self.config}",  # and not this user's own
            "TBXD_IDLE_SECONDS": "30",
            "OMP_NUM_THREADS": "1",
            **self.extra,
        }

    # --- daemons ---------------------------------------------------------------------------------------------

    def tbxd(self, *arguments: str, under: Sequence[str] = (), **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line to its end; ``under`` is the command that runs it."""
        return subprocess.run(
            [*under, sys.executable, "-m", "tbxd", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            **kwargs,
        )

    def serve(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a daemon in the foreground and wait until it answers."""
        process = subprocess.Popen([sys.executable, "-m", "tbxd", "serve", *arguments], env=self.environ)
        self.processes.append(process)
        wait_for(lambda: process.poll() is not None or self.running() == process.pid, "the daemon")
        assert process.poll() is None, f"the daemon left with {process.returncode}"
        return process

    def ensure(self) -> None:
        """Have a daemon, whoever starts it: one that a trainer has just launched will do."""
        if not self.running():
            self.processes.append(subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=self.environ))
            wait_for(self.running, "any daemon")

    def running(self) -> int | None:
        """The pid of the daemon that holds the lock and whose socket is there."""
        lock = self.runtime / "daemon.lock"
        if not is_locked(lock) or not (self.runtime / "daemon.sock").exists():
            return None
        text = lock.read_text().strip()
        return int(text) if text else None

    def kill_daemon(self) -> int:
        """SIGKILL the daemon of this world; returns its pid."""
        pid = wait_for(self.running, "a daemon to kill")
        process = psutil.Process(pid)
        process.kill()
        wait_for(lambda: self.running() != pid, "the daemon to die")  # a trainer may start another at once
        return int(pid)

    def status(self) -> dict[str, Any] | None:
        """Return the output of `tbxd status --json`, or None without a daemon; asked from this process if possible.

        A process for each look would take 0.3 s of a processor. `process/test_cli.py` holds that both say the same.
        """
        environ = self.environ
        given = {
            setting.name: Given(environ[setting.variable], Origin(ENVIRONMENT, setting.variable))
            for setting in SETTINGS
            if setting.name in PLACES and environ.get(setting.variable)
        }
        try:
            settings = Source(given, environ["TBXD_CONFIG"]).load_leniently().settings
            if settings.address.startswith("tcp:"):  # the key is in the environment
                result = self.tbxd("status", "--json")
                return json.loads(result.stdout) if result.returncode == 0 else None
            answer = ask(settings, "status")
        except (NotRunning, ValueError, OSError):
            return None
        return json.loads(json.dumps({"running": True, **answer}))  # keys are text, as there

    def drained(self) -> bool:
        """Return True if no journal is left in the spool."""
        return not self.journals()

    def journals(self) -> list[Path]:
        """The journals in the spool, those for daemons on other hosts among them."""
        own = [path for path in self.spool.glob("*") if path.name not in ("quarantine", "remote", "ledgers")]
        return own + list(self.spool.glob("remote/*/*"))

    # --- trainers --------------------------------------------------------------------------------------------

    def start(
        self, script: str, *arguments: object, under: Sequence[str] = (), **kwargs: Any
    ) -> subprocess.Popen[bytes]:
        """Start a Python script, given as text; ``under`` is the command that runs it."""
        process = subprocess.Popen(
            [*under, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            env={**self.environ, **kwargs.pop("environ", {})},
            cwd=self.root,
            **kwargs,
        )
        self.processes.append(process)
        return process

    def run(self, script: str, *arguments: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run a Python script, given as text, to its end."""
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            env={**self.environ, **kwargs.pop("environ", {})},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=kwargs.pop("timeout", DEADLINE),
            **kwargs,
        )

    def shell(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script of bash to its end."""
        return subprocess.run(
            ["bash", "-c", textwrap.dedent(script), "bash", *arguments],
            env=self.environ,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def end(self) -> None:
        """Kill whatever is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self.running():
            wait_for(self._kill_daemon, "the daemon to die")

    def _kill_daemon(self) -> bool:
        """Kill the daemon, or the one that has waited for its end; whether none is left."""
        pid = self.running()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not is_locked(self.runtime / "daemon.lock")


@contextmanager
def world(root: Path, **extra: str) -> Iterator[World]:
    """A world that is gone afterwards."""
    result = World(root, extra)
    try:
        yield result
    finally:
        result.end()


def each_event(directory: Path) -> Iterator[Any]:
    """Every event of a folder in the order in which TensorBoard reads it; strict: checksums and whole records only.

    Raises:
        DamagedFile: a record is wrong.
    """
    for name in event_files(directory):
        with open(directory / name, "rb") as file:
            for _, data in read_records(file.read):
                event = schema.Event()
                event.ParseFromString(data)
                yield event


def events(directory: Path) -> list[Any]:
    """Return all events at once; see `each_event`."""
    return list(each_event(directory))


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a folder: tag to (step, value), in file order, repetitions included."""
    found: dict[str, list[tuple[int, float]]] = {}
    if not directory.exists():
        return found
    for event in each_event(directory):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
