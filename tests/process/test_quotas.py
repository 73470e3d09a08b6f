"""Quotas of keys, and that who floods starves nobody: real daemons, real connections."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from harness import World, scalars, wait_for
from hosts import LOG, Hosts, expected, go_on, hosts, said
from tbxd.config.settings import Settings
from tbxd.ingest import hub as hub_module
from tbxd.ingest.hub import Hub
from tbxd.ingest.quotas import Allowance, OverQuota, Quotas
from tbxd.transport.server_socket import Peer as HubPeer
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RowDefinition, RunDefinition, TagDefinition, pack_definition, pack_scalar
from tbxd_client.transport.keys import read_client_key


@pytest.fixture
def two(place: World) -> Iterator[Hosts]:
    """A daemon's host, whose settings are in a file, and another host."""
    with hosts(place) as result:
        place.extra["TBXD_CONFIG"] = str(place.root / "config.toml")
        settle(place)
        yield result


def settle(place: World, **settings: float) -> None:
    """Write the file of settings, and have a daemon that runs read it."""
    file = Path(place.extra["TBXD_CONFIG"])
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    if place.running():
        result = place.tbxd("reload")
        assert result.returncode == 0, result.stderr


class Peer:
    """A client of the test's own, which may send what it likes."""

    def __init__(self, address: str, key: Path | None = None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 20_000
        if key is not None:
            found = read_client_key(key)
            self.socket.curve_serverkey = found.daemon.encode()
            self.socket.curve_publickey = found.public.encode()
            self.socket.curve_secretkey = found.secret.encode()
        self.socket.connect(address)

    def send(self, message: wire.Message) -> None:
        self.socket.send_multipart(wire.pack(message))

    def ask(self, message: wire.Message) -> wire.Message:
        self.send(message)
        return wire.unpack(self.socket.recv_multipart())

    def refusal(self) -> str:
        """The reason of the next refusal, whatever comes before."""
        while True:
            answer = wire.unpack(self.socket.recv_multipart())
            if isinstance(answer, wire.Refused):
                return answer.reason

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.close()


def hello(session: bytes) -> wire.Hello:
    return wire.Hello(session, 0, 1, "far", "", "test", "")


# --- bytes ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 5000)), max_size=60), st.integers(1, 3000))
def test_who_waits_as_long_as_he_is_told_never_has_more_than_his_part(come: list[tuple[float, int]], most: int) -> None:
    """What is sent comes only where there is room, and what was over it is made good before more comes."""
    allowance, now, spent, over = Allowance(10.0, 0.0), 0.0, 0, 0
    for pause, count in come:
        now += pause
        now += allowance.wait(most, now)
        assert allowance.wait(most, now + 1e-6) == 0, "there is room then"
        now += 1e-6
        room = allowance.room(most)
        assert 0 < room <= most
        allowance.spend(count)
        spent, over = spent + count, max(over, count)
        assert spent <= most * (now // 10.0 + 1) + over


def test_without_a_limit_nobody_waits_and_nothing_is_remembered() -> None:
    allowance = Allowance(1.0, 0.0)
    allowance.spend(10**12)
    assert allowance.wait(0, 0.5) == 0 and allowance.room(0) == float("inf")
    assert allowance.wait(100, 0.6) == 0, "what was sent while there was none is not held against anybody"


@pytest.mark.parametrize("setting", ["key_bytes_second", "key_bytes_day"])
def test_who_has_sent_what_he_may_waits_and_loses_nothing_and_others_go_on(two: Hosts, setting: str) -> None:
    place, flood, other = two.place, two.key("flood"), two.key("other")
    most = 100_000
    settle(place, **{setting: most})
    two.serve()
    count = 60_000  # 2 MB
    trainer = two.start(flood, place.logdir / "flood", 0, count, TBXD_FLUSH_SECONDS="30")
    status = wait_for(lambda: (s := two.status())["keys"].get("flood", {}).get("waits_seconds") and s, "it to be held")
    assert most <= status["keys"]["flood"]["bytes"] <= 10 * most, "and a second or a day is not over much sooner"
    logged = two.log(other, place.logdir / "other", 0, 500)  # 17 kB
    assert logged.returncode == 0 and '"flushed": true' in logged.stdout, logged.stdout
    assert scalars(place.logdir / "other") == {"value": expected(500)}
    status = two.status()
    assert status["keys"]["flood"]["bytes"] < count * 34, "it is still held, and nobody else was"
    assert status["keys"]["other"]["waits_seconds"] == 0
    if setting == "key_bytes_day":
        assert "key flood: quota used up" in place.tbxd("status").stdout
        assert two.tbxd(other, "status", "--json").stdout.count('"waits_seconds"') == 1, "nothing of others is told"
    settle(place)
    told = said(trainer)
    assert told["accepted"] == count and not told["dropped"]
    assert go_on(trainer)["written"] == count and trainer.wait(60) == 0
    assert scalars(place.logdir / "flood") == {"value": expected(count)}


# --- sessions, runs, tags -------------------------------------------------------------------------------------------


def test_one_run_too_many_is_refused_with_the_reason_and_comes_when_the_key_may_have_more(two: Hosts) -> None:
    place, key, other = two.place, two.key("a"), two.key("b")
    settle(place, key_runs=2)
    two.serve()
    for name in ("one", "two"):
        assert two.log(key, place.logdir / name, 0, 10).returncode == 0
    trainer = two.start(key, place.logdir / "three", 0, 10, TBXD_FLUSH_SECONDS="1")
    wait_for(lambda: two.status()["keys"]["a"]["refused"].get("key_runs"), "the refusal")
    assert two.log(key, place.logdir / "two", 10, 10).returncode == 0
    wait_for(lambda: scalars(place.logdir / "two") == {"value": expected(20)}, "runs that it has to go on")
    assert two.status()["keys"]["a"]["runs"] == 2, "what was refused takes no room"
    assert two.log(other, place.logdir / "of b", 0, 10).returncode == 0, "and so do others"
    assert not list((place.logdir).glob("three/*")), "nothing of it was made"
    shown = place.tbxd("status").stdout
    assert "key a: sessions refused: " in shown and "for key_runs" in shown
    settle(place, key_runs=3)
    wait_for(lambda: scalars(place.logdir / "three") == {"value": expected(10)}, "what waited, without a restart")
    said(trainer)
    assert go_on(trainer)["written"] == 10 and trainer.wait(60) == 0
    assert trainer.stderr is not None
    errors = trainer.stderr.read()
    assert "the key 'a' may have 2 runs" in errors and "tbxd reload" in errors, errors


def test_one_session_too_many_is_refused_until_another_one_is_over(two: Hosts, peers: list[Peer]) -> None:
    key, other = two.key("a"), two.key("b")
    settle(two.place, key_sessions=2)
    two.serve()
    peers += [Peer(two.address, key), Peer(two.address, other)]
    first, second, third = (os.urandom(12) for _ in range(3))
    for session in (first, second):
        assert isinstance(peers[0].ask(hello(session)), wire.Welcome)
    refused = peers[0].ask(hello(third))
    assert isinstance(refused, wire.Refused) and "2 sessions at a time" in refused.reason
    assert isinstance(peers[1].ask(hello(os.urandom(12))), wire.Welcome), "another key has its own"
    peers[0].send(wire.Goodbye(first))
    assert isinstance(peers[0].ask(hello(third)), wire.Welcome)
    status = two.status()["keys"]
    assert status["a"]["sessions"] == 2 and status["a"]["refused"] == {"key_sessions": 1}


@pytest.mark.parametrize("how", ["tags", "rows"])
def test_tags_of_all_sessions_of_a_key_are_capped_together(two: Hosts, peers: list[Peer], how: str) -> None:
    key, place = two.key("a"), two.place
    settle(place, key_tags=100)
    two.serve()
    peers.append(Peer(two.address, key))
    run = pack_definition(RunDefinition(0, str(place.logdir / "a"), "far", 1, 1.0, "", ""))
    sessions = [os.urandom(12) for _ in range(2)]
    for number, session in enumerate(sessions):
        assert isinstance(peers[0].ask(hello(session)), wire.Welcome)
        tags = [pack_definition(TagDefinition(tag, 0, f"{tag}")) for tag in range(60 if how == "tags" else 5)]
        rows = [pack_definition(RowDefinition(row, 0, tuple(range(5)))) for row in range(11 if how == "rows" else 0)]
        peers[0].send(wire.Data(session, wire.DEFINITIONS, 0, b"".join([run, *tags, *rows])))
        if not number:
            assert isinstance(peers[0].ask(wire.Flush(session, 0, 0)), wire.Ack), "60 are not too many"
    assert "100 tags in all of its sessions together" in peers[0].refusal()
    status = two.status()
    assert status["keys"]["a"]["tags"] == 120 and status["keys"]["a"]["refused"] == {"key_tags": 1}
    assert [bool(session["broken"]) for session in status["sessions"]] == [False, True]


# --- who does not keep to what was said -----------------------------------------------------------------------------


def test_records_beyond_the_limit_break_their_session_and_take_no_memory(two: Hosts, peers: list[Peer]) -> None:
    place, key = two.place, two.key("a")
    settle(place, key_bytes_second=100_000)
    two.serve()
    peers += [Peer(two.address, key), Peer(f"ipc://{place.runtime}/daemon.sock")]
    for peer in peers:
        session = os.urandom(12)
        welcome = peer.ask(hello(session))
        assert isinstance(welcome, wire.Welcome)
        stretch = pack_scalar(0, 0, 1.0, 1.0) * 1000
        peer.send(wire.Data(session, wire.RECORDS, welcome.limit - len(stretch) + 1, stretch))
        assert f"the limit was {welcome.limit:,}" in peer.refusal()
    assert two.log(key, place.logdir / "a", 0, 10).returncode == 0, "the daemon and the key's other sessions go on"


def test_definitions_without_an_end_break_their_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "DEFINITIONS_BYTES_MAX", 1000)
    settings = Settings.of({"runtime_dir": str(tmp_path / "run"), "spool": str(tmp_path / "spool")})
    answers: list[wire.Message] = []
    hub = Hub(settings, lambda: None, lambda peer, message: answers.append(message))
    peer, session = HubPeer(b"route", 1, "", 0), os.urandom(12)
    hub.handle(peer, hello(session))
    run = pack_definition(RunDefinition(0, str(tmp_path / "a"), "far", 1, 1.0, "", ""))
    hub.handle(peer, wire.Data(session, wire.DEFINITIONS, 0, run))
    assert not hub.clients[session].broken
    tags = b"".join(pack_definition(TagDefinition(tag, 0, f"tag {tag}")) for tag in range(100))
    hub.handle(peer, wire.Data(session, wire.DEFINITIONS, len(run), tags))
    assert "more than 1,000 bytes" in hub.clients[session].broken
    hub.close(1.0)


def test_a_share_goes_down_when_sessions_are_over() -> None:
    quotas = Quotas(Settings.of({"key_sessions": 1, "key_tags": 10}))
    quotas.enter("a", 0.0)
    quotas.define("a", ["/x"], 10)
    with pytest.raises(OverQuota):
        quotas.enter("a", 0.0)
    quotas.leave("a", 10)
    quotas.enter("a", 0.0)
    quotas.define("a", ["/x"], 10)
    assert quotas.folders("a") == {"/x"} and quotas.status(0.0)["a"]["tags"] == 10


# --- who floods -----------------------------------------------------------------------------------------------------

FLOOD = """
    import sys, threading
    from tbxd_client import SummaryWriter
    writers = [SummaryWriter(f"{sys.argv[1]}/{number}") for number in range(4)]
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
    step = 0
    while not over.is_set():
        for writer in writers:
            writer.add_scalar("value", step * 3, step)
        step += 1
        if step == 1000:
            print("going", flush=True)
"""


@pytest.mark.parametrize("where", ["with keys", "of one user"])
def test_who_floods_starves_nobody(two: Hosts, where: str) -> None:
    """No quota is set: the others' records are in the file while the flood goes on and has more waiting than they."""
    place, flood, other = two.place, two.key("flood"), two.key("other")
    two.serve()
    far = where == "with keys"
    pipes: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": subprocess.DEVNULL, "text": True}
    flooders = [
        place.start(FLOOD, place.logdir / f"flood{number}", environ=two.environ(flood) if far else {}, **pipes)
        for number in range(3)
    ]
    for one in flooders:
        assert one.stdout is not None and one.stdout.readline() == "going\n"
    for number in range(3):
        folder = place.logdir / f"other{number}"
        logged = two.log(other, folder, 0, 2000) if far else place.run(LOG, folder, 0, 2000, "flush")
        assert logged.returncode == 0 and '"flushed": true' in logged.stdout, (logged.stdout, logged.stderr)
        assert scalars(folder) == {"value": expected(2000)}
        assert all(one.poll() is None for one in flooders), "they flood all the while"
    for one in flooders:
        one.kill()
        one.wait()
