"""The command line as it is installed: help, exit codes, refusals."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from tbxd import __version__
from tbxd.cli.main import main
from tbxd.config.settings import SETTINGS, Settings
from tbxd.tools.drain import CannotDrain, drain
from tbxd_client.protocol.wire import VERSION


def test_help_names_every_setting_with_its_variable(place: World) -> None:
    text = place.tbxd("serve", "--help").stdout
    for setting in SETTINGS:
        assert "--" + setting.name.replace("_", "-") in text
        assert setting.variable in text.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    "command",
    [*sorted(main.commands), "service install", "service remove", "config show", "config check", "config path"],
)
def test_every_command_explains_itself(place: World, command: str) -> None:
    result = place.tbxd(*command.split(), "--help")
    assert result.returncode == 0 and len(result.stdout.splitlines()) > 6


def test_exit_codes(place: World) -> None:
    assert place.tbxd("--version").stdout.startswith("tbxd, version ")
    assert place.tbxd("status").returncode == 3
    assert json.loads(place.tbxd("status", "--json").stdout) == {"running": False, "journals": []}
    assert place.tbxd("stop").returncode == 3
    assert place.tbxd("no-such-command").returncode == 2
    refused = place.tbxd("serve", "--batch-ms", "-1")
    assert refused.returncode == 2 and "batch-ms is -1; 0 to 60000 are possible" in refused.stderr
    refused = place.tbxd("serve", "--address", "http://x")
    assert refused.returncode == 2 and "expected ipc:///path" in refused.stderr


ADDRESSES = {
    "localhost:7999": "for a port: tcp://localhost:7999",
    "/tmp/x.sock": "for a socket: ipc:///tmp/x.sock",
    "http://x": "expected ipc:///path/to/socket or tcp://host:port",
    "tcp://": "expected ipc:///path/to/socket or tcp://host:port",
    "ipc://": "expected ipc:///path/to/socket or tcp://host:port",
    "ipc:///tmp/": "this is that of a folder",
    f"ipc:///{'x' * 120}": "at most 107 bytes, this one 121",
    "tcp://local host:7007": "its host is 'local host'",
    "tcp://host:70000": "its port is '70000'",
    "tcp://host:http": "its port is 'http'",
    "tcp://host:0": "its port is '0'; 1 to 65535",
    "tcp://*:7007": "its host is '*'",
    "tcp://host": "the port is missing: tcp://host:PORT",
    "tcp://::1:7007": "stands in brackets",
    "tcp://[::1:7007": "stands in brackets",
    " tcp://host:7007": "there is a blank at its beginning or end",
}
ASKING = ("status", "stop", "drain", "reload", "top --once", "config show")


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_can_be_none_is_said_in_a_line_with_where_it_is_from(place: World, address: str) -> None:
    """All commands that ask have one way to read it, so each address goes through one of them."""
    command = ASKING[list(ADDRESSES).index(address) % len(ASKING)].split()
    place.extra["TBXD_ADDRESS"] = address
    result = place.tbxd(*command)
    assert result.returncode == 2 and not result.stdout, result
    (line,) = result.stderr.splitlines()
    assert line.startswith("tbxd: TBXD_ADDRESS") and ADDRESSES[address] in line


@pytest.mark.parametrize("command", ASKING)
def test_each_command_that_asks_says_what_is_wrong_with_an_address(place: World, command: str) -> None:
    result = place.tbxd(*command.split(), "--address", "localhost:7999")
    assert result.returncode == 2 and not result.stdout, result
    (line,) = result.stderr.splitlines()
    assert line.startswith("tbxd: --address is 'localhost:7999'; ") and "tcp://localhost:7999" in line


def test_an_address_in_the_file_that_can_be_none_is_said_with_its_line(place: World) -> None:
    place.config.write_text("\n# where\naddress = 'localhost:7999'\n")
    for command, code in (("drain", 2), ("config show", 2), ("status", 3)):  # what only looks goes on without it
        result = place.tbxd(*command.split())
        assert result.returncode == code and f"tbxd: {place.config}:3: address is 'localhost:7999'; " in result.stderr


@pytest.mark.parametrize("address", ["localhost:7999", "tcp://", f"tcp://{'h' * 300}:7", "ipc:///" + "x" * 120])
def test_training_goes_on_with_an_address_that_can_be_none_and_its_records_are_kept(place: World, address: str) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(1000):
            writer.add_scalar("value", step, step)
        assert not writer.flush(0.1)
        writer.close()
        print(writer.stats()["dropped"])
        """,
        environ={"TBXD_ADDRESS": address, "TBXD_FLUSH_SECONDS": "0.2"},
    )
    assert result.returncode == 0 and result.stdout == "{}\n", result
    assert result.stderr.count("tbxd: TBXD_ADDRESS: address ") == 1 and "Records are kept in" in result.stderr
    assert place.tbxd("drain").returncode == 0
    assert len(scalars(place.logdir / "a")["value"]) == 1000


def test_the_status_that_tests_ask_for_is_what_the_command_prints(place: World) -> None:
    """`World.status` asks from the process of the test."""
    assert place.status() is None
    place.serve()
    place.run("from tbxd_client import SummaryWriter\nwith SummaryWriter('logs/a') as w: w.add_scalar('x', 1.0, 1)")
    wait_for(place.drained, "the record")

    def both() -> bool:
        asked, printed = place.status(), json.loads(place.tbxd("status", "--json").stdout)
        assert asked is not None and asked.keys() == printed.keys() and asked["running"] is True
        return bool(asked["runs"] == printed["runs"] and asked["pid"] == printed["pid"])

    wait_for(both, "two looks between which nothing has changed")


def test_a_daemon_that_listens_elsewhere_is_named(place: World) -> None:
    daemon = place.serve()
    right = f"ipc://{place.runtime}/daemon.sock"
    for command in ("status", "stop", "reload", "top --once"):
        result = place.tbxd(*command.split(), "--address", f"ipc://{place.root}/other.sock")
        assert result.returncode == 3 and f"listens at {right}" in result.stderr + result.stdout, result
    assert daemon.poll() is None


@pytest.mark.parametrize("command", ["status", "top", "stop", "drain", "reload", "doctor"])
def test_the_help_of_who_asks_says_where_the_daemon_is(place: World, command: str) -> None:
    text = " ".join(place.tbxd(command, "--help").stdout.split())
    assert "Where the daemon is:" in text and "Where to listen" not in text


def test_nobody_is_told_to_install_a_package_that_there_is_not() -> None:
    """tbxd is installed from its repository; on PyPI there is none."""
    root = Path(__file__).parents[2]
    texts = [
        *root.glob("*.md"),
        *(root / "docs").rglob("*"),
        *(root / "tbxd").rglob("*.py"),
        *root.glob("client/**/*.py"),
    ]
    told = re.compile(r"pip install [^\n`]*?(?<![\w./-])[\"']?tbxd(?:_client)?[\[\s\"'`;)]")
    for path in texts:
        if path.suffix in (".md", ".py", "", ".yaml", ".sh") and path.is_file():
            found = told.search(path.read_text())
            assert not found, (path, found)


def test_versions_are_printed_for_people_and_for_programs(place: World) -> None:
    versions = json.loads(place.tbxd("version", "--json").stdout)
    assert versions["tbxd"] == __version__ and versions["protocol"] == str(VERSION)
    lines = [line.split() for line in place.tbxd("version").stdout.splitlines()]
    assert [line[0] for line in lines] == list(versions) and "libzmq" in versions


def test_a_shell_completes_commands_and_options(place: World) -> None:
    place.extra["_TBXD_COMPLETE"] = "bash_source"
    assert "complete " in place.tbxd().stdout
    place.extra.update(_TBXD_COMPLETE="bash_complete", COMP_WORDS="tbxd ch", COMP_CWORD="1")
    assert place.tbxd().stdout.splitlines() == ["plain,check"]
    place.extra.update(COMP_WORDS="tbxd check --re", COMP_CWORD="2")
    assert place.tbxd().stdout.splitlines() == ["plain,--repair-into"]


def test_a_client_setting_that_makes_no_sense_is_said_once_and_not_used(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        for name in "ab":
            with SummaryWriter(f"logs/{name}") as writer:
                writer.add_scalar("value", 1.0, 0)
        """,
        environ={"TBXD_FLUSH_SECONDS": "soon"},
    )
    assert result.returncode == 0
    assert result.stderr.count("TBXD_FLUSH_SECONDS='soon': 0 to 3600 seconds are possible; 5 is used") == 1


LEFT_BEHIND = """
    import os
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/a")
    for step in range(50_000):
        writer.add_scalar("value", step % 100, step)
    os._exit(0)
"""


def test_drain_writes_what_is_left_and_leaves_nothing_running(place: World) -> None:
    """Without a daemon one is started for it; with one that is used."""
    nothing = place.tbxd("drain")
    assert nothing.returncode == 0 and "0 bytes of records were written" in nothing.stdout
    wait_for(lambda: not place.running(), "the daemon to leave again")
    for life in (1, 2):
        place.run(LEFT_BEHIND, environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock"})
        assert place.journals()
        if life == 2:
            place.serve()
        result = place.tbxd("drain", "--json")
        assert result.returncode == 0, result.stderr
        ended = json.loads(result.stdout)
        # A daemon that runs may have begun before it was asked.
        assert ended["journals"] == ended["bytes"] == 0 and (life == 2 or ended["written"] == 50_000 * 34)
        assert place.drained() and len(scalars(place.logdir / "a")["value"]) == 50_000 * life
        if life == 1:
            wait_for(lambda: not place.running(), "the daemon to leave again")


def test_drain_says_what_holds_it_up(place: World) -> None:
    place.run(LEFT_BEHIND, environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock"})
    (place.logdir / "a").rmdir()
    (place.logdir / "a").write_text("a file where the folder of the run should be")
    place.serve()
    progress = drain(Settings.of({"runtime_dir": place.runtime, "spool": place.spool}), lambda progress: None, 2.0)
    assert progress.journals == 1 and progress.bytes == 50_000 * 34 and progress.written == 0
    assert progress.reasons == {str(place.logdir / "a"): "Not a directory"}
    with pytest.raises(CannotDrain, match=r"drains .*, not "):
        drain(Settings.of({"runtime_dir": place.runtime, "spool": place.root / "other"}), lambda progress: None)
    (place.logdir / "a").unlink()
    assert place.tbxd("drain").returncode == 0
    assert len(scalars(place.logdir / "a")["value"]) == 50_000


@pytest.mark.parametrize("command", ["--version", "--help", "check logs", "check --json logs", "doctor", "config show"])
def test_output_that_cannot_be_written_is_said_and_is_an_error(place: World, command: str) -> None:
    """A full disk below a redirected stdout. Who has read enough and left is no error to tell of."""
    place.logdir.mkdir()
    ended = place.shell(f"{sys.executable} -m tbxd {command} > /dev/full; echo $?")
    assert ended.stdout == "1\n"
    assert ended.stderr.endswith(
        "tbxd: the output of this command could not be written to stdout: No space left on device\n"
    )
    assert "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) <= 2
    left = place.shell(f"{sys.executable} -m tbxd {command} | true")
    assert left.returncode == 0 and "Traceback" not in left.stderr and "written" not in left.stderr
