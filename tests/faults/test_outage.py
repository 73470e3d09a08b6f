"""When nobody answers it is said: once, soon, with what was tried; training goes on and its records come later."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from hosts import Hosts, free_port, hosts
from tbxd_client.config.paths import KEY_VARIABLE
from tbxd_client.transport import connection, local_connection, outage

TOLD_SECONDS = outage.FIRST_SECONDS + 15  # also on a machine that is busy with other things
LOG = """
    import sys, time
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    writer.add_scalar("value", 0, 0)
    print("begun", flush=True)
    for line in sys.stdin:
        writer.add_scalar("value", 1, 1)
        print(writer.flush(float(line)), flush=True)
"""


class Trainer:
    """A script that logs and waits, and what it says on stderr."""

    def __init__(self, place: World, environ: dict[str, str]) -> None:
        self._said = place.root / "trainer.stderr"
        with self._said.open("wb") as file:
            self.process = place.start(
                LOG,
                place.logdir / "a",
                environ={"TBXD_FLUSH_SECONDS": "0.2", **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        assert self.process.stdout is not None and self.process.stdout.readline() == "begun\n"

    @property
    def lines(self) -> list[str]:
        return self._said.read_text().splitlines()

    def flush(self, seconds: float) -> bool:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "True\n"


@pytest.fixture
def far(place: World) -> Iterator[Hosts]:
    """A daemon's host, and another."""
    with hosts(place) as result:
        yield result


@contextmanager
def deaf() -> Iterator[str]:
    """An address whose host answers nothing: a full queue drops what comes, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        filling = [socket.socket() for _ in range(4)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield f"tcp://127.0.0.1:{port}"
        for one in filling:
            one.close()


def test_an_address_that_nobody_answers_is_said_once_and_with_the_reason(place: World, far: Hosts) -> None:
    """All at once, for each takes its seconds."""
    key = far.key("gpu17")
    with deaf() as silent:
        cases = {
            "tcp://nosuchhost.invalid:7007": (connection.NO_NAME, "the key 'gpu17'"),
            f"tcp://127.0.0.1:{free_port()}": (connection.NO_LISTENER, f"the token of this user ({KEY_VARIABLE}"),
            silent: (connection.NO_ANSWER, f"the token of this user ({KEY_VARIABLE}"),
            f"ipc://{place.root}/nobody.sock": (local_connection.NO_SOCKET, ""),
        }
        trainers = {}
        for number, address in enumerate(cases):
            with_key = {"TBXD_KEY": str(key)} if "nosuch" in address else {}
            one = World(place.root / str(number), place.extra)
            trainers[address] = Trainer(one, {"TBXD_ADDRESS": address, **with_key})
            place.processes.append(trainers[address].process)
        for address, (why, shown) in cases.items():
            trainer = trainers[address]
            (line,) = wait_for(lambda trainer=trainer: trainer.lines, address, TOLD_SECONDS)
            assert line.startswith(f"tbxd: no daemon answers at {address} (TBXD_ADDRESS): {why}"), line
            assert shown in line and "Records wait in " in line and Path(line.rpartition(" ")[2]).is_dir()
        for trainer in trainers.values():
            assert not trainer.flush(0.5) and len(trainer.lines) == 1, "it is said once"


def test_a_daemon_that_comes_is_said_too_and_gets_what_has_waited(place: World) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    place.extra["TBXD_ADDRESS"] = address
    trainer = Trainer(place, {})
    wait_for(lambda: trainer.lines, "the word that nobody answers", TOLD_SECONDS)
    daemon = place.start("from tbxd.cli.main import main; main()", "serve")
    assert trainer.flush(30)
    assert f"tbxd: the daemon at {address} answers after " in trainer.lines[1] and len(trainer.lines) == 2
    assert len(scalars(place.logdir / "a")["value"]) == 2
    daemon.kill()


def test_a_daemon_that_is_back_within_half_a_minute_is_not_missed_aloud(place: World) -> None:
    place.extra["TBXD_ADDRESS"] = f"ipc://{place.runtime}/daemon.sock"
    daemon = place.serve()
    trainer = Trainer(place, {})
    assert trainer.flush(30)
    daemon.kill()
    daemon.wait()
    time.sleep(outage.FIRST_SECONDS)  # longer than one that has never answered would be waited for
    place.serve()
    assert trainer.flush(30) and not trainer.lines


def test_a_tunnel_without_a_key_and_a_key_without_a_tunnel_are_said_with_what_to_set(far: Hosts) -> None:
    """On loopback it is the token, unless TBXD_KEY names a key: the other side may want the other."""
    key, place = far.key("gpu17"), far.place
    far.serve()
    for command in ("status", "top --once", "stop"):
        begun = time.monotonic()
        place.extra |= far.environ(None, PYTHONPATH="")
        result = place.tbxd(*command.split())
        assert result.returncode == 3, result
        assert "TBXD_KEY" in result.stdout + result.stderr and "token" in result.stdout + result.stderr
        assert time.monotonic() - begun < TOLD_SECONDS
    trainer = Trainer(place, {})
    (line,) = wait_for(lambda: trainer.lines, "the reason", TOLD_SECONDS)
    assert "refuses a connection without a key" in line and "set TBXD_KEY to the file" in line
    trainer.process.kill()
    place.extra["TBXD_KEY"] = str(key)  # what it says to do
    assert place.tbxd("status").returncode == 0
    assert json.loads(far.log(key, place.logdir / "far", 0, 10).stdout)["written"] == 10


def test_a_key_that_is_shown_to_a_daemon_of_this_host_is_said(far: Hosts) -> None:
    place, address = far.place, far.address
    key = far.key("gpu17")
    place.start("from tbxd.cli.main import main; main()", "serve", "--address", address)
    wait_for(lambda: place.tbxd("status", "--address", address).returncode == 0, "the daemon")
    place.extra |= {"TBXD_ADDRESS": address, "TBXD_KEY": str(key)}
    result = place.tbxd("status")
    assert result.returncode == 3 and "refuses the key 'gpu17'" in result.stdout
    assert "takes the token instead, for which TBXD_KEY is to be unset" in result.stdout
    trainer = Trainer(place, {})
    (line,) = wait_for(lambda: trainer.lines, "the reason", TOLD_SECONDS)
    assert "TBXD_KEY is to be unset" in line
    # And with the token of another runtime folder.
    place.extra |= {"TBXD_KEY": "", "TBXD_RUNTIME_DIR": str(far.far / "run")}
    refused = place.tbxd("status")
    assert (
        refused.returncode == 3 and "tcp.token in its runtime folder" in refused.stdout and "TBXD_KEY" in refused.stdout
    )
