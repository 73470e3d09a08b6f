"""Scripts, daemons and commands of several versions on one machine: with the real code of version 1, and with what a
later version would be."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from harness import World, scalars, wait_for, world
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import TagDefinition, pack_definition, pack_scalar
from test_daemon import Peer

ROOT = Path(__file__).parents[2]
FIRST = "94bb5dd"  # speaks version 1 and knows of no other

TRAIN = """
    import sys, tbxd_client
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    for step in range(100):
        writer.add_scalar("loss", step, step)
    writer.add_text("text", "hello", 1)
    print(writer.flush(30), tbxd_client.__file__)
    sys.stdout.flush()
    if len(sys.argv) > 2:
        sys.stdin.read()
"""
TBXD = "import runpy, sys; sys.argv[0] = 'tbxd'; runpy.run_module('tbxd', run_name='__main__')"
ALL = {"loss": [(step, float(step)) for step in range(100)]}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of the first version."""
    known = subprocess.run(["git", "-C", ROOT, "cat-file", "-e", f"{FIRST}^{{commit}}"], capture_output=True)
    if known.returncode:
        pytest.skip(f"{FIRST} is not here: no repository, or a shallow clone")
    packed = subprocess.run(["git", "-C", ROOT, "archive", FIRST, "tbxd", "client"], capture_output=True, check=True)
    place = tmp_path_factory.mktemp("first")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(place, filter="data")
    return f"{place}:{place / 'client'}"


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PYTHONPATH of programs that speak a version more, by whether they have given the first one up.

    Their messages have a field more, and a session says something that no earlier version knows.
    """
    code = """
import sys
def become(oldest):
    from tbxd_client.protocol import wire
    wire.VERSION, wire.OLDEST = 2, oldest
    pack, msgpack = wire.pack, wire.msgpack
    def with_more(message, version=0):
        frames = pack(message, version)
        values = msgpack.unpackb(frames[0], strict_map_key=False)
        return [msgpack.packb([*values, "a field of a later version"]), *frames[1:]]
    wire.pack = with_more
become({oldest})
"""
    result = {}
    for name, oldest in (("both", 1), ("two", 2)):
        place = tmp_path_factory.mktemp(name)
        (place / "sitecustomize.py").write_text(code.replace("{oldest}", str(oldest)))
        result[name] = f"{place}:{ROOT}:{ROOT / 'client'}"
    return result


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def serve(place: World, path: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a daemon of some version in the foreground."""
    script = (
        "import runpy, sys; sys.argv = ['tbxd', 'serve', *sys.argv[1:]]; runpy.run_module('tbxd', run_name='__main__')"
    )
    process = place.start(script, *arguments, environ={"PYTHONPATH": path} if path else {})
    wait_for(lambda: process.poll() is not None or place.running() == process.pid, "the daemon")
    assert process.poll() is None
    return process


def command(place: World, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of some version."""
    return place.run(TBXD, *arguments, environ={"PYTHONPATH": path} if path else {})


def train(place: World, path: str, run: str) -> subprocess.CompletedProcess[str]:
    return place.run(TRAIN, run, environ={"PYTHONPATH": path} if path else {})


def all_commands(place: World, path: str, process: subprocess.Popen[bytes]) -> None:
    """Everything that a command line asks a daemon, of which the last ends it."""
    status = command(place, path, "status", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["totals"]["written"] >= 101
    for arguments in (["status"], ["top", "--once"], ["top", "--once", "--json"], ["reload"], ["drain"]):
        result = command(place, path, *arguments)
        assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
    assert "Traceback" not in command(place, path, "doctor").stderr
    result = command(place, path, "stop")
    assert result.returncode == 0, result.stderr
    assert process.wait(30) == 0


def test_todays_script_and_commands_and_a_daemon_of_the_first_version(place: World, first: str) -> None:
    process = serve(place, first)
    result = train(place, "", "logs/a")
    assert result.returncode == 0 and result.stdout.startswith("True") and not result.stderr, result.stderr
    assert scalars(place.logdir / "a") == ALL
    all_commands(place, "", process)


def test_a_script_and_commands_of_the_first_version_and_todays_daemon(place: World, first: str) -> None:
    process = serve(place, "")
    result = train(place, first, "logs/a")
    assert result.returncode == 0 and result.stdout.startswith("True") and not result.stderr, result.stderr
    assert first.split(":")[1] in result.stdout, "it was the first version"
    assert scalars(place.logdir / "a") == ALL
    all_commands(place, first, process)


@pytest.mark.parametrize("order", ["older first", "newer first"])
def test_daemons_that_change_their_version_under_scripts_of_both_lose_and_double_nothing(
    place: World, first: str, order: str
) -> None:
    script = """
        import sys, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter(sys.argv[1])
        for step in range(3000):
            writer.add_scalar("loss", step, step)
            time.sleep(0.001)
        print(writer.flush(30))
    """
    place.extra["TBXD_ADDRESS"] = f"ipc://{place.runtime}/daemon.sock"  # and so none of them starts another
    paths = [first, ""] if order == "older first" else ["", first]
    trainers = [
        place.start(script, "logs/old", environ={"PYTHONPATH": first}),
        place.start(script, "logs/new"),
    ]
    wanted = {"loss": [(step, float(step)) for step in range(3000)]}
    for number, path in enumerate([*paths, *paths]):
        process = serve(place, path)
        if number < 3:
            before = {name: len(scalars(place.logdir / name).get("loss", ())) for name in ("old", "new")}

            def moved(before: dict[str, int] = before) -> bool:
                now = {name: len(scalars(place.logdir / name).get("loss", ())) for name in before}
                return all(now[name] > before[name] or now[name] == 3000 for name in now)

            wait_for(moved, "both to be written")
            process.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
            process.wait(30)
            wait_for(lambda: not place.running(), "it to be gone")
    for trainer in trainers:
        assert trainer.wait(60) == 0
    wait_for(lambda: all(scalars(place.logdir / name) == wanted for name in ("old", "new")), "each record once")


@pytest.mark.parametrize("daemon", ["first", "today"])
def test_a_script_of_a_later_version_falls_back_to_what_the_daemon_speaks(
    place: World, first: str, later: dict[str, str], daemon: str
) -> None:
    process = serve(place, first if daemon == "first" else "")
    script = place.start(
        TRAIN, "logs/a", "stay", environ={"PYTHONPATH": later["both"]}, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(lambda: scalars(place.logdir / "a") == ALL, "what is logged to be shown while the script lives", 20)
    assert script.stdin is not None and script.stderr is not None
    script.stdin.close()
    assert script.wait(30) == 0 and not script.stderr.read()
    assert "two versions" in command(place, later["both"], "status").stdout
    assert command(place, later["both"], "reload").returncode == 0
    assert command(place, later["both"], "stop").returncode == 0 and process.wait(30) == 0


def test_a_later_daemon_speaks_with_scripts_and_commands_of_versions_before_it(
    place: World, first: str, later: dict[str, str]
) -> None:
    process = serve(place, later["both"])
    for path, run in ((first, "a"), ("", "b"), (later["both"], "c")):
        result = train(place, path, f"logs/{run}")
        assert result.returncode == 0 and result.stdout.startswith("True") and not result.stderr, result.stderr
        assert scalars(place.logdir / run) == ALL
    assert command(place, first, "status").returncode == 0
    assert "two versions" in command(place, "", "status").stdout
    assert command(place, "", "stop").returncode == 0 and process.wait(30) == 0


def test_a_daemon_that_is_too_old_and_was_started_by_a_script_makes_way(
    place: World, first: str, later: dict[str, str]
) -> None:
    assert train(place, first, "logs/a").stdout.startswith("True")
    old = wait_for(place.running, "the daemon that the older script has started")
    result = train(place, later["two"], "logs/b")
    assert result.returncode == 0 and result.stdout.startswith("True"), result.stderr
    assert not result.stderr
    assert scalars(place.logdir / "a") == scalars(place.logdir / "b") == ALL
    assert place.running() not in (None, old)
    status = json.loads(command(place, later["two"], "status", "--json").stdout)
    assert status["embedded"] and status["protocol"] == 2


def test_a_daemon_that_is_too_old_and_was_started_by_hand_stays_and_the_user_is_told(
    place: World, first: str, later: dict[str, str]
) -> None:
    process = serve(place, first)
    result = place.run(TRAIN.replace("flush(30)", "flush(8)"), "logs/b", environ={"PYTHONPATH": later["two"]})
    assert result.returncode == 0 and result.stdout.startswith("False")
    assert (
        "speaks version 1" in result.stderr and "tbxd stop" in result.stderr and f"pid {process.pid}" in result.stderr
    )
    assert process.poll() is None
    shown = command(place, later["two"], "status")
    assert shown.returncode == 0 and "protocol 1" in shown.stdout and "protocol 2" in shown.stdout
    assert command(place, later["two"], "stop").returncode == 0 and process.wait(30) == 0
    process = serve(place, later["two"])  # which then writes what was kept
    wait_for(lambda: scalars(place.logdir / "b") == ALL, "what was kept")


def test_a_script_that_is_too_old_is_told_and_its_records_are_written_in_the_end(
    place: World, first: str, later: dict[str, str]
) -> None:
    process = serve(place, later["two"])
    result = place.run(TRAIN.replace("flush(30)", "flush(3)"), "logs/a", environ={"PYTHONPATH": first})
    assert result.returncode == 0 and "version 1; this tbxd speaks 2. Update the older side" in result.stderr
    wait_for(lambda: scalars(place.logdir / "a") == ALL, "its journal to be adopted")
    assert command(place, first, "stop").returncode == 0, "questions and refusals are of all versions"
    assert process.wait(30) == 0


def test_what_a_later_client_says_besides_costs_its_session_nothing(place: World) -> None:
    place.serve()
    peer, session = Peer(place), os.urandom(12)
    hello: list[Any] = ["hello", session, 0, os.getpid(), "elsewhere", "", "test", "", "more", 17]
    peer.send([msgpack.packb([2, *hello])])
    version, answer = wire.unpack_with_version(peer.socket.recv_multipart())
    assert version == 1 and isinstance(answer, wire.Refused) and answer.session == bytes(12)
    peer.send([msgpack.packb([1, *hello])])
    assert isinstance(peer.receive(), wire.Welcome)
    definition = {
        "k": "run",
        "id": 0,
        "dir": str(place.logdir / "a"),
        "host": "h",
        "pid": 1,
        "created": 1.0,
        "new": [1],
    }
    more = msgpack.packb(definition) + msgpack.packb({"k": "of a later version", "id": 0})
    tag = pack_definition(TagDefinition(0, 0, "loss"))
    peer.send([msgpack.packb([1, "data", session, wire.DEFINITIONS, 0, "more"]), more + tag])
    peer.send([msgpack.packb([1, "of a later version", session, 1])])
    assert isinstance(peer.receive(), wire.Refused)
    record = pack_scalar(0, 1, 1.0, 5.0)
    peer.send([msgpack.packb([1, "data", session, wire.RECORDS, 0, "more"]), record])
    peer.send([msgpack.packb([1, "flush", session, len(record), 0, "more"])])
    wait_for(lambda: scalars(place.logdir / "a") == {"loss": [(1, 5.0)]}, "the record")
    status = place.status()
    assert status is not None and [one["broken"] for one in status["sessions"]] == [""]
    peer.close()


def test_questions_refusals_and_answers_are_read_in_any_version() -> None:
    for message in (wire.Ask("status", ""), wire.Answer({"a": 1}), wire.Refused(bytes(12), "why")):
        for version in (1, 2, 9):
            frames = wire.pack(message, version)
            values = msgpack.unpackb(frames[0])
            assert values[0] == version
            assert wire.unpack_with_version([msgpack.packb([*values, "more"])]) == (version, message)
    with pytest.raises(wire.OtherVersion, match="version 2; this tbxd speaks 1") as raised:
        wire.unpack(wire.pack(wire.Goodbye(bytes(12)), 2))
    assert raised.value.version == 2
