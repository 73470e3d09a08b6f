"""Two hosts for tests: a daemon that listens with keys, and trainers that share nothing with it but the connection.

The second host is another spool, runtime folder and home; `Hosts.network` makes it a network namespace of its own, with
a link that can be cut.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import World, wait_for

LOG = """
    import json, sys
    from tbxd_client import SummaryWriter
    folder, first, count, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    writer = SummaryWriter(folder)
    for step in range(first, first + count):
        writer.add_scalar("value", step * 3, step)
    flushed = writer.flush(30 if end == "flush" else 0.3)
    print(json.dumps({"flushed": flushed, **writer.stats()}), flush=True)
    if end == "wait":
        sys.stdin.readline()
        print(json.dumps({"flushed": writer.flush(60), **writer.stats()}), flush=True)
    if end == "kill":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def expected(count: int, first: int = 0) -> list[tuple[int, float]]:
    """Return the records of `LOG`."""
    return [(step, step * 3.0) for step in range(first, first + count)]


class Hosts:
    """A world whose daemon listens, and another host."""

    def __init__(self, place: World) -> None:
        self.place = place
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.keys = place.root / "keys"
        self.far = place.root / "far"
        self.far.mkdir()
        place.logdir.mkdir()
        place.extra |= {"TBXD_KEYS": str(self.keys)}
        self.options: tuple[str, ...] = ("--listen", self.address, "--roots", str(place.logdir))

    def another(self, name: str) -> Hosts:
        """The same with one more host in the place of the other."""
        result = copy.copy(self)
        result.far = self.place.root / name
        result.far.mkdir()
        return result

    def key(self, name: str, file: str = "") -> Path:
        """Make a key; its file is on the other host then."""
        path = self.far / (file or f"{name}.key")
        made = self.place.tbxd("keys", "new", name, "--out", str(path))
        assert made.returncode == 0, made.stderr
        return path

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the daemon, which listens."""
        return self.place.serve(*self.options)

    def environ(self, key: Path | None = None, **extra: str) -> dict[str, str]:
        """Return the environment of a process on the other host."""
        return {
            "TBXD_ADDRESS": self.address,
            "TBXD_RUNTIME_DIR": str(self.far / "run"),
            "TBXD_SPOOL": str(self.far / "spool"),
            "HOME": str(self.far),
            "XDG_CONFIG_HOME": str(self.far / "config"),
            "TBXD_FLUSH_SECONDS": "2",
            "TBXD_KEY": str(key) if key is not None else "",
            **extra,
        }

    def log(
        self, key: Path | None, folder: object, first: int, count: int, end: str = "flush", **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Log on the other host until the end."""
        return self.place.run(LOG, folder, first, count, end, environ=self.environ(key, **extra))

    def start(
        self, key: Path | None, folder: object, first: int, count: int, under: Sequence[str] = (), **extra: str
    ) -> subprocess.Popen[Any]:
        """Start logging on the other host; the process then waits for a line."""
        return self.place.start(
            LOG,
            *(folder, first, count, "wait"),
            under=under,
            environ=self.environ(key, **extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tbxd(
        self, key: Path | None, *arguments: str, under: Sequence[str] = (), **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """A command on the other host."""
        before = dict(self.place.extra)
        self.place.extra |= self.environ(key, **extra)
        try:
            return self.place.tbxd(*arguments, under=under)
        finally:
            self.place.extra.clear()
            self.place.extra.update(before)

    def left(self) -> list[Path]:
        """The journals of the other host."""
        return [path for path in (self.far / "spool").glob("remote/*/*") if len(path.name) == 24]

    def status(self) -> dict[str, Any]:
        """Return the daemon's status for its owner."""
        found = self.place.status()
        assert found is not None
        return found

    def end(self) -> None:
        """End what the trainers have left to send what they left."""
        for process in psutil.process_iter():
            try:
                if process.environ().get("TBXD_SPOOL") == str(self.far / "spool"):
                    process.kill()
                    process.wait(10)
            except psutil.Error:
                continue


def said(process: subprocess.Popen[Any]) -> dict[str, Any]:
    """The next thing that a trainer says."""
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def go_on(process: subprocess.Popen[Any]) -> dict[str, Any]:
    """Let a trainer that waits flush and end; what it says."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return said(process)


@contextmanager
def hosts(place: World) -> Iterator[Hosts]:
    """Two hosts that are gone afterwards."""
    result = Hosts(place)
    try:
        yield result
    finally:
        result.end()


# --- a network between them -----------------------------------------------------------------------------------------


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


_numbers = itertools.count()  # of the networks of this process


class Network:
    """A network namespace for the other host, and a link to it that can be cut."""

    def __init__(self, name: str) -> None:
        self.name = f"tbxd-{name}"
        nth = next(_numbers) % 40
        subnet = f"10.{213 + nth}.{os.getpid() % 250 + 1}"
        self.here, self.there = f"{subnet}.1", f"{subnet}.2"
        self._link = f"tbx{os.getpid() % 10**7}x{nth}"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "host0", "netns", self.name)
        _ip("addr", "add", f"{self.here}/24", "dev", self._link)
        _ip("link", "set", self._link, "up")
        _ip("-n", self.name, "addr", "add", f"{self.there}/24", "dev", "host0")
        _ip("-n", self.name, "link", "set", "host0", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Take the link down: packets are gone without a word."""
        _ip("link", "set", self._link, "down")

    def heal(self) -> None:
        """Take it up again."""
        _ip("link", "set", self._link, "up")

    @property
    def under(self) -> list[str]:
        """Return the prefix of a command that runs on the other host."""
        return ["ip", "netns", "exec", self.name]

    def close(self) -> None:
        """Remove it all."""
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, timeout=30)
        subprocess.run(["ip", "link", "del", self._link], capture_output=True, timeout=30)


@contextmanager
def network(name: str) -> Iterator[Network]:
    """A network that is gone afterwards; a skip where none can be made."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root, and ip (apt-get install iproute2)")
    made = None
    try:
        try:
            made = Network(name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace can be made here: {error.stderr.decode(errors='replace').strip()}")
        yield made
    finally:
        if made is not None:
            made.close()
        else:
            subprocess.run(["ip", "netns", "del", f"tbxd-{name}"], capture_output=True, timeout=30)


def connected(network: Network, port: int) -> bool:
    """Return True if the kernel has a connection to the port over this link."""
    text = subprocess.run(
        ["ss", "-Htn", "state", "established", f"( sport = :{port} )"], capture_output=True, text=True, timeout=30
    ).stdout
    return network.there in text


def wait_connected(network: Network, port: int, there: bool, seconds: float) -> None:
    """Wait until it has one, or none."""
    wait_for(lambda: connected(network, port) == there, f"a connection to be {there}", seconds, pause=0.1)
