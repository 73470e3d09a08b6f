"""Between hosts: connections with keys; daemons and trainers that are killed; a link that is cut for long."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from harness import World, scalars, wait_for
from hosts import Hosts, connected, expected, go_on, hosts, network, said, wait_connected
from inject import say_go, told, train
from oracle import judge, read_count
from report import account
from tbxd_client.transport.connection import SILENCE_MS


@pytest.fixture
def two(place: World) -> Iterator[Hosts]:
    """A daemon's host, and another."""
    with hosts(place) as result:
        yield result


@pytest.mark.long
@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.matrix)])
def test_kills_of_daemon_and_trainers_on_two_hosts_lose_and_double_nothing(two: Hosts, seed: int, kills: int) -> None:
    place, key, rng = two.place, two.key("gpu"), random.Random(seed)
    two.serve()
    number, folder = 0, str(place.logdir / "a")

    def start(count: int = 10**9) -> None:
        alive[number] = train(place, number, folder, count=count, hz=500, environ=two.environ(key))

    alive: dict[int, object] = {}
    start()
    trainers = {0}
    for kill in range(kills):
        before = read_count(place, number).returned
        more = rng.randrange(30, 300)
        wait_for(lambda n=number, most=before + more: read_count(place, n).returned > most, "it to log")
        if kill % 3 != 1:
            pid = wait_for(place.running, "a daemon")
            place.kill_daemon()
            two.serve()
            assert place.running() != pid
        if kill % 3 != 0:
            alive[number].kill()  # type: ignore[attr-defined]
            alive[number].wait()  # type: ignore[attr-defined]
            number += 1
            trainers.add(number)
            start()
    alive[number].kill()  # type: ignore[attr-defined]
    alive[number].wait()  # type: ignore[attr-defined]
    wait_for(lambda: two.tbxd(key, "drain", "--json").returncode == 0 and not two.left(), "what was left", 120)
    account("network", kills, judge([place.logdir / "a"], {n: read_count(place, n) for n in trainers}))


@pytest.mark.long
@pytest.mark.parametrize(
    "killed", ["", *(pytest.param(who, marks=pytest.mark.matrix) for who in ("daemon", "trainer"))]
)
def test_a_link_that_is_cut_for_longer_than_pings_and_heals_loses_and_doubles_nothing(two: Hosts, killed: str) -> None:
    place, key = two.place, two.key("gpu")
    with network(f"cut{killed}") as net:
        two.address = f"tcp://{net.here}:{two.port}"
        two.options = ("--listen", two.address, "--roots", str(place.logdir))
        two.serve()
        environ = two.environ(key)
        busy = train(
            *(place, 0, str(place.logdir / "busy")),
            under=net.under,
            environ=environ,
            **{"count": 10**9 if killed == "trainer" else 14_000, "hz": 500, "wait": True, "flush": 90},
        )
        idle = two.start(key, place.logdir / "idle", 0, 100, under=net.under)
        assert said(idle)["accepted"] == 100
        wait_for(lambda: read_count(place, 0).returned > 500, "the trainer to log")
        wait_for(lambda: two.status()["totals"]["written"] > 300, "its records to be written")
        assert connected(net, two.port)
        net.cut()
        logged = read_count(place, 0).returned
        wait_for(lambda: read_count(place, 0).returned > logged + 500, "training to go on")
        if killed == "daemon":
            place.kill_daemon()
            two.serve()
        elif killed == "trainer":
            busy.kill()
            busy.wait()
        wait_connected(net, two.port, False, SILENCE_MS / 1000 * 3)  # pings were not answered: it was given up here
        written = two.status()["totals"]["written"]
        logged = read_count(place, 0).returned
        net.heal()
        if killed == "trainer":
            drained = wait_for(
                lambda: (done := two.tbxd(key, "drain", "--json", under=net.under)).returncode == 0 and done,
                "what it left to be sent",
            )
            assert '"journals": 0' in drained.stdout
        else:
            assert told(busy)["p99"] < 0.01
            say_go(busy)
            assert told(busy)["flushed"]
            assert busy.wait(60) == 0
        assert two.status()["totals"]["written"] > written
        assert read_count(place, 0).returned >= logged
        assert go_on(idle)["written"] == 100 and idle.wait(60) == 0
        wait_for(lambda: not two.left(), "the journals")
    account("network", 1, judge([place.logdir / "busy"], {0: read_count(place, 0)}))
    assert scalars(place.logdir / "idle") == {"value": expected(100)}
