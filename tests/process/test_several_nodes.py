"""Trainers on other hosts: real daemons that listen with keys, real connections, and those who may not."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import tb
from harness import World, scalars, wait_for
from hosts import Hosts, expected, go_on, hosts, said
from tbxd_client.protocol import wire
from tbxd_client.transport.keys import read_client_key
from tbxd_client.writers.kept_points import KeptPoints


@pytest.fixture
def two(place: World) -> Iterator[Hosts]:
    """A daemon's host, and another."""
    with hosts(place) as result:
        yield result


class Peer:
    """A client of the test's own, which may send what it likes."""

    def __init__(self, address: str, key: Path | None = None, route: bytes = b"") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 10_000
        if route:
            self.socket.routing_id = route
        if key is not None:
            found = read_client_key(key)
            self.socket.curve_serverkey = found.daemon.encode()
            self.socket.curve_publickey = found.public.encode()
            self.socket.curve_secretkey = found.secret.encode()
        self.socket.connect(address)

    def ask(self, message: wire.Message) -> wire.Message:
        self.socket.send_multipart(wire.pack(message))
        return wire.unpack(self.socket.recv_multipart())

    def close(self) -> None:
        self.socket.close()
        self.context.term()


def test_nobody_is_let_in_from_elsewhere_without_keys_and_roots(place: World) -> None:
    place.extra["TBXD_KEYS"] = str(place.root / "keys")
    for options, advice in (
        (("--address", "tcp://0.0.0.0:0"), "--listen tcp://0.0.0.0:0 --roots"),
        (("--listen", "tcp://0.0.0.0:0"), "tbxd keys new NAME"),
        (("--listen", "tcp://127.0.0.1:0", "--roots", str(place.root)), "tbxd keys new NAME"),
    ):
        refused = place.tbxd("serve", *options)
        assert refused.returncode == 1 and advice in refused.stderr, refused.stderr
    assert place.tbxd("keys", "new", "a", "--out", str(place.root / "a.key")).returncode == 0
    for options, advice in (
        (("--listen", "tcp://127.0.0.1:0"), "--roots FOLDER"),
        (("--listen", "tcp://127.0.0.1:0", "--roots", "/"), "everything that you may write"),
        (("--listen", "tcp://192.0.2.1:7007", "--roots", str(place.root)), "cannot listen at tcp://192.0.2.1:7007"),
    ):
        refused = place.tbxd("serve", *options)
        assert refused.returncode == 1 and advice in refused.stderr, refused.stderr
    refused = place.tbxd("serve", "--listen", f"ipc://{place.root}/s", "--roots", str(place.root))
    assert refused.returncode == 2 and "tcp://INTERFACE:PORT" in refused.stderr, refused.stderr
    assert not (place.runtime / "daemon.sock").exists()


def test_with_a_key_it_is_as_on_one_host_and_local_trainers_log_beside(two: Hosts) -> None:
    key, place = two.key("gpu17"), two.place
    two.serve()
    logged = two.log(key, place.logdir / "far", 0, 2000)
    assert logged.returncode == 0 and not logged.stderr, logged.stderr
    told = json.loads(logged.stdout)
    assert told["flushed"] and told["written"] == told["accepted"] == 2000
    assert place.run(LOCAL, place.logdir / "near").returncode == 0
    for loader in tb.LOADERS:
        with tb.board(place.logdir, loader) as board:
            board.until(lambda board=board: board.scalars("near", "value") == [(0, 1.0)], "the run of this host")
            board.until(lambda board=board: board.scalars("far", "value") == expected(2000), "that of the other")
    assert not two.left() and place.drained()
    status = two.status()
    assert status["listen"] == [{"address": two.address, "clients": 1, "denied": 0}]
    assert "keys admitted: 1" in place.tbxd("status").stdout


LOCAL = """
    import sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    writer.add_scalar("value", 1.0, 0)
    assert writer.flush(30)
"""


def test_a_key_is_found_where_settings_are(two: Hosts) -> None:
    """Over loopback a key has to be named, for there the token would do; elsewhere the one that is there is used."""
    address = next((a for _, a in _own_addresses()), "")
    if not address:
        pytest.skip("this machine has no address but loopback")
    two.address = f"tcp://{address}:{two.port}"
    two.options = ("--listen", two.address, "--roots", str(two.place.logdir))
    (two.far / "config" / "tbxd").mkdir(parents=True)
    two.key("gpu17", "config/tbxd/client.key")
    two.serve()
    logged = two.log(None, two.place.logdir / "far", 0, 10)
    assert json.loads(logged.stdout)["written"] == 10, logged.stderr


def _own_addresses() -> list[tuple[str, str]]:
    import psutil

    return [
        (name, one.address)
        for name, several in psutil.net_if_addrs().items()
        for one in several
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]


@pytest.mark.parametrize("what", ["unknown", "of another daemon", "none", "open to others", "no daemon's"])
def test_a_key_that_does_not_do_is_said_once_and_costs_nothing(two: Hosts, what: str) -> None:
    place, good = two.place, two.key("good")
    key = two.far / "bad.key"
    daemon_says = True
    if what == "unknown":
        two.key("bad")
        assert place.tbxd("keys", "revoke", "bad").returncode == 0
        advice = "does not know the key 'bad'"
    elif what == "of another daemon":
        place.extra["TBXD_KEYS"] = str(place.root / "other")
        two.key("bad")
        place.extra["TBXD_KEYS"] = str(two.keys)
        advice = "refuses the key 'bad'"
    elif what == "none":
        advice, daemon_says = "there is no key in", False
    elif what == "open to others":
        key.write_text(good.read_text())
        key.chmod(0o644)
        advice, daemon_says = "chmod 600", False
    else:
        key.write_text("garbage")
        key.chmod(0o600)
        advice, daemon_says = "does not begin with", False
    two.serve()
    begun = time.monotonic()
    trainer = two.start(key, place.logdir / "far", 0, 500)
    told = said(trainer)
    assert not told["flushed"] and told["accepted"] == told["pending"] == 500
    assert time.monotonic() - begun < 20
    if daemon_says:
        wait_for(lambda: two.status()["listen"][0]["denied"] or two.status()["refused_messages"], "it to be counted")
    assert two.left() and not scalars(place.logdir / "far")
    # What becomes of it when the right key is there, with nobody doing anything else.
    fresh = two.far / "fresh.key"
    fresh.write_text(good.read_text())
    fresh.chmod(0o600)
    fresh.rename(key)
    assert go_on(trainer)["written"] == 500
    assert trainer.wait(60) == 0
    assert trainer.stderr is not None
    errors = trainer.stderr.read()
    assert errors.count("tbxd:") == 1 and advice in errors, errors
    assert scalars(place.logdir / "far") == {"value": expected(500)} and not two.left()


def test_a_key_that_is_revoked_is_refused_at_once_and_its_records_wait_until_it_has_another(two: Hosts) -> None:
    place, key = two.place, two.key("gpu17")
    other = two.key("gpu18")
    two.serve()
    script = """
        import json, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter(sys.argv[1])
        for first in (0, 100, 200):
            for step in range(first, first + 100):
                writer.add_scalar("value", step * 3, step)
            print(json.dumps({"flushed": writer.flush(0.7 if first == 100 else 60), **writer.stats()}), flush=True)
            sys.stdin.readline()
    """
    pipes: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": -1, "text": True}
    trainer = place.start(script, place.logdir / "far", environ=two.environ(key), **pipes)
    assert said(trainer)["written"] == 100
    assert place.tbxd("keys", "revoke", "gpu17").returncode == 0
    # It is connected. What it sends from now on is not taken, and the daemon need not be started again.
    wait_for(lambda: two.status()["listen"][0]["clients"] == 1 or _knock(two, other), "the daemon to notice")
    told = go_on(trainer)
    assert not told["flushed"] and told["written"] == 100 and told["pending"] == 100
    assert scalars(place.logdir / "far") == {"value": expected(100)}
    status = wait_for(lambda: (s := two.status())["listen"][0]["denied"] and s, "its next attempt to be refused")
    assert status["refused_messages"] >= 1, "its open connection was ended with its next message"
    assert two.log(other, place.logdir / "other", 0, 10).returncode == 0, "others are not concerned"
    # The same name with another key, in the place of the old one.
    two.key("gpu17", "new.key").rename(key)
    assert go_on(trainer)["written"] == 300
    assert trainer.stdin is not None and trainer.stderr is not None
    trainer.stdin.close()
    assert trainer.wait(60) == 0
    errors = trainer.stderr.read()
    assert errors.count("tbxd:") == 1 and "was revoked" in errors and "tbxd keys new" in errors, errors
    assert scalars(place.logdir / "far") == {"value": expected(300)} and not two.left()


def _knock(two: Hosts, key: Path) -> bool:
    """Have the daemon look at its list, which it does when somebody speaks."""
    two.tbxd(key, "status", "--json")
    return False


def test_a_client_may_log_below_the_roots_only_and_what_is_refused_waits(two: Hosts) -> None:
    place, key = two.place, two.key("gpu17")
    two.serve()
    outside = place.root / "outside"
    (place.logdir / "link").symlink_to(place.root)
    for folder, advice in (
        (outside, "is not below"),
        (f"{place.logdir}/../outside", "is not below"),
    ):
        refused = two.log(key, folder, 0, 10, "end")
        assert refused.returncode == 0 and advice in refused.stderr and str(place.logdir) in refused.stderr
    assert not list(outside.glob("*tfevents*")), "nothing was written there"
    assert len(two.left()) == 2
    # Named by a client of somebody else's make, with a link that stands in a root.
    peer = Peer(two.address, key)
    session = os.urandom(12)
    assert isinstance(peer.ask(wire.Hello(session, 0, 1, "far", "", "", "")), wire.Welcome)
    from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar

    definitions = pack_definition(RunDefinition(0, f"{place.logdir}/link/outside", "far", 1, 1.0, "", ""))
    definitions += pack_definition(TagDefinition(0, 0, "value"))
    peer.socket.send_multipart(wire.pack(wire.Data(session, wire.DEFINITIONS, 0, definitions)))
    peer.socket.send_multipart(wire.pack(wire.Data(session, wire.RECORDS, 0, pack_scalar(0, 0, 1.0, 1.0))))
    error = wait_for(
        lambda: next((run["error"] for name, run in two.status()["runs"].items() if "link" in name), ""), "the refusal"
    )
    assert "is a link" in error
    peer.close()
    assert not list(outside.glob("*tfevents*"))
    assert two.log(key, place.logdir / "inside", 0, 10).returncode == 0
    # The owner lets them log there after all: what waited comes with `tbxd drain`, or the next script.
    assert place.tbxd("stop").returncode == 0
    outside.mkdir(exist_ok=True)
    two.options = ("--listen", two.address, "--roots", f"{place.logdir}{os.pathsep}{outside}")
    two.serve()
    drained = two.tbxd(key, "drain", "--json")
    assert drained.returncode == 0 and json.loads(drained.stdout)["journals"] == 0, drained.stdout
    wait_for(lambda: not two.left(), "the journals")
    # Both log the same steps, and neither is a restart of the other: each has a run.
    folders = [outside, *filter(Path.is_dir, outside.iterdir())]
    assert [scalars(folder)["value"] for folder in folders] == [expected(10)] * 2


def test_who_has_a_key_may_see_how_his_own_runs_are_and_stop_nobody(two: Hosts) -> None:
    place, key, other = two.place, two.key("a"), two.key("b")
    two.serve()
    trainer = two.start(key, place.logdir / "far", 0, 10)
    assert said(trainer)["accepted"] == 10
    assert place.run(LOCAL, place.logdir / "near").returncode == 0
    wait_for(lambda: len(two.status()["runs"]) == 2, "both runs")
    own = json.loads(two.tbxd(key, "status", "--json").stdout)
    assert list(own["runs"]) == [str(place.logdir / "far")] and [s["key"] for s in own["sessions"]] == ["a"]
    assert str(place.logdir) not in two.tbxd(other, "status", "--json").stdout
    shown = two.tbxd(key, "status")
    assert shown.returncode == 0 and "far" in shown.stdout and two.address in shown.stdout, shown.stderr
    examined = two.tbxd(key, "doctor")
    assert "Traceback" not in examined.stderr and "the key 'a'" in examined.stdout, examined
    forgotten = two.tbxd(two.far / "none", "doctor")
    assert forgotten.returncode == 1 and "tbxd keys new NAME" in forgotten.stdout
    refused = two.tbxd(key, "stop")
    assert refused.returncode == 3 and "on its own host" in refused.stderr
    assert go_on(trainer)["written"] == 10 and trainer.wait(60) == 0
    assert "far" in two.tbxd(key, "status").stdout, "also when it is over"
    assert place.tbxd("stop").returncode == 0, "its owner may"


def test_clients_whose_routes_are_the_same_bytes_are_told_apart(two: Hosts) -> None:
    key = two.key("a")
    two.serve()
    near, far = Peer(f"ipc://{two.place.runtime}/daemon.sock", route=b"same"), Peer(two.address, key, route=b"same")
    sessions = [os.urandom(12), os.urandom(12)]
    for peer, session in zip((near, far), sessions, strict=True):
        welcome = peer.ask(wire.Hello(session, 0, os.getpid(), "host", "", "", ""))
        assert isinstance(welcome, wire.Welcome) and welcome.session == session
    # Neither may speak for the other, and each gets what is its own.
    for peer, session in zip((far, near), sessions, strict=True):
        assert peer.ask(wire.Flush(session, 0, 0)) == wire.Unknown(session)
        assert isinstance(peer.ask(wire.Hello(session, 0, 1, "host", "", "", "")), wire.Refused)
    for peer, session in zip((near, far), sessions, strict=True):
        answer = peer.ask(wire.Flush(session, 0, 0))
        assert isinstance(answer, wire.Ack) and answer.session == session
        peer.close()


def test_a_session_stays_with_the_key_that_began_it(two: Hosts) -> None:
    mine, theirs = two.key("a"), two.key("b")
    two.serve()
    session = os.urandom(12)
    first, second = Peer(two.address, mine), Peer(two.address, theirs)
    assert isinstance(first.ask(wire.Hello(session, 0, 1, "x", "", "", "")), wire.Welcome)
    taken = second.ask(wire.Hello(session, 0, 1, "x", "", "", ""))
    assert isinstance(taken, wire.Refused) and "another process" in taken.reason
    again = Peer(two.address, mine)  # after its connection was cut
    assert isinstance(again.ask(wire.Hello(session, 0, 1, "x", "", "", "")), wire.Welcome)
    for peer in (first, second, again):
        peer.close()


def test_a_path_that_a_client_on_another_host_names_is_not_looked_at(two: Hosts) -> None:
    """The journal of a local trainer, say: neither read nor adopted, even by its right name and session."""
    place, key = two.place, two.key("a")
    nobody = {"TBXD_ADDRESS": f"ipc://{place.root}/nobody", "TBXD_FLUSH_SECONDS": "0"}
    place.run(LOCAL.replace("assert writer.flush(30)", ""), place.logdir / "near", environ=nobody)
    (journal,) = place.journals()
    aside = place.root / "elsewhere" / journal.name
    aside.parent.mkdir()
    journal.rename(aside)
    two.serve()
    peer = Peer(two.address, key)
    welcome = peer.ask(wire.Hello(bytes.fromhex(aside.name), 0, 1, os.uname().nodename, str(aside), "", ""))
    assert isinstance(welcome, wire.Welcome) and welcome.journal == 0
    (session,) = two.status()["sessions"]
    assert session["journal"] == "" and not session["adopted"]
    peer.close()
    assert stat.S_ISDIR(aside.stat().st_mode)


def test_garbage_at_the_door_is_refused_and_disturbs_nobody(two: Hosts) -> None:
    place, key = two.place, two.key("a")
    two.serve()
    trainer = two.start(key, place.logdir / "far", 0, 1000)
    assert said(trainer)["accepted"] == 1000
    rng = random.Random(5)
    greeting = b"\xff\0\0\0\0\0\0\0\1\x7f\3\1"
    beginnings = [
        *(rng.randbytes(rng.randrange(1, 700)) for _ in range(60)),
        *(greeting + name.ljust(20, b"\0") + bytes(32) + rng.randbytes(300) for name in (b"NULL", b"PLAIN", b"CURVE")),
        *(greeting + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\4\xc8\5HELLO" + rng.randbytes(194) for _ in range(20)),
        greeting + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\6" + b"\x7f" * 8 + bytes(100),  # a command without end
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ]
    mute = []
    for text in beginnings:
        one = socket.create_connection(("127.0.0.1", two.port), 10)
        one.send(text)
        mute.append(one)
    plain = Peer(two.address)  # a ZeroMQ client without a key
    plain.socket.send_multipart(wire.pack(wire.Ask("stop", "")))
    inside = Peer(two.address, key)  # one that is let in, and sends what it likes
    for _ in range(200):
        inside.socket.send_multipart([rng.randbytes(rng.randrange(0, 400)) for _ in range(rng.randrange(1, 4))])
    answer = wire.unpack(inside.socket.recv_multipart())
    assert isinstance(answer, wire.Refused)
    status = wait_for(lambda: (s := two.status())["refused_messages"] > 200 and s, "it to be counted")
    assert status["pid"] == place.running()
    assert two.log(key, place.logdir / "more", 0, 50).returncode == 0
    assert go_on(trainer)["written"] == 1000
    for one in mute:
        one.close()
    plain.close()
    inside.close()
    assert scalars(place.logdir / "far") == {"value": expected(1000)}


def test_what_a_killed_trainer_has_left_on_its_host_is_sent_by_the_next_one(two: Hosts) -> None:
    place, key = two.place, two.key("a")
    killed = two.log(key, place.logdir / "a", 0, 300, "kill")
    assert killed.returncode == -9 and len(two.left()) == 1
    # A daemon of that host does not take it: it is not for that host's disk.
    here = dict(place.extra)
    left = two.tbxd(None, "drain", TBXD_ADDRESS="")
    assert left.returncode == 1 and f"TBXD_ADDRESS={two.address} tbxd drain" in left.stdout, left
    assert place.extra == here and len(two.left()) == 1 and not scalars(place.logdir / "a")
    stalled = two.tbxd(two.far / "none.key", "drain", "--json")
    assert stalled.returncode == 1 and "there is no key" in stalled.stdout
    two.serve()
    trainer = two.start(key, place.logdir / "b", 0, 5)
    assert said(trainer)["accepted"] == 5
    wait_for(lambda: len(two.left()) == 1, "what was left to be sent, beside a trainer that lives")
    assert scalars(place.logdir / "a") == {"value": expected(300)}
    assert go_on(trainer)["written"] == 5
    wait_for(lambda: not two.left(), "the trainer's own")


def test_without_the_daemon_a_script_ends_in_time_and_what_it_left_comes_by_itself(two: Hosts) -> None:
    place, key = two.place, two.key("a")
    begun = time.monotonic()
    left = two.log(key, place.logdir / "a", 0, 200, "end", TBXD_FLUSH_SECONDS="0.5")
    assert left.returncode == 0 and "tbxd drain" in left.stderr and time.monotonic() - begun < 20
    assert len(two.left()) == 1
    two.serve()
    wait_for(lambda: not two.left(), "what it had left to send it")
    assert scalars(place.logdir / "a") == {"value": expected(200)}


def test_what_add_scalars_has_logged_is_told_without_the_files_of_the_other_host(two: Hosts) -> None:
    key = two.key("gpu17")
    two.serve()
    result = two.place.run(
        """
        import json, sys
        from tbxd_client import SummaryWriter
        w = SummaryWriter("nowhere/far")
        for step in range(3):
            w.add_scalars("loss", {"a": step / 10, "b": step}, step, 5.0)
        name = w.file_writer.event_writer._ev_writer._file_name
        name == w.file_writer.event_writer._ev_writer._file_name
        w.export_scalars_to_json("out.json")
        print(json.dumps([json.load(open("out.json")), w.scalar_dict, name]))
        """,
        environ=two.environ(key),
    )
    assert result.returncode == 0, result.stderr
    exported, left, name = json.loads(result.stdout)
    assert exported == {
        "nowhere/far/loss/a": [[5.0, 0, 0.0], [5.0, 1, 0.1], [5.0, 2, 0.2]],
        "nowhere/far/loss/b": [[5.0, 0, 0.0], [5.0, 1, 1.0], [5.0, 2, 2.0]],
    }
    assert left == {}
    assert name.startswith(str(two.place.root / "nowhere" / "far" / "events.out.tfevents."))
    assert result.stderr.count("this host has no such file") == 1


def test_what_is_kept_of_add_scalars_has_a_bound_and_that_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    points = KeptPoints(3)
    for step in range(5):
        points.add("a" if step % 2 else "b", 1.0, step, 0.1)
    assert points.read() == {"b": [[1.0, 0, 0.1], [1.0, 2, 0.1]], "a": [[1.0, 1, 0.1]]}
    assert capfd.readouterr().err.count("3 points") <= 1, "once in a process"
    points.clear()
    points.add("a", 1.0, 2**40, 0.5)
    assert points.read() == {"a": [[1.0, 2**40, 0.5]]}
