"""Between trainer and daemon: stopped, away, cut, deaf; a second daemon; connections that say nothing."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from harness import World, absent, wait_for
from inject import Proxy, free_port, replays_due, say_go, start_daemon, told, train
from oracle import judge, read_count
from report import account

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def pause(seconds: float) -> None:
    """Let a fault last for a while."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > until, "the fault to last")


def finish(place: World, row: str, times: int, trainer: Any, folder: str = "a", seconds: float = 60.0) -> None:
    """Let trainer 0 end, and judge."""
    if trainer.poll() is None and not read_count(place, 0).ended:
        wait_for(lambda: read_count(place, 0).ended, "the trainer to end", seconds)
    said = told(trainer)
    assert said["p99"] < 0.002, said
    say_go(trainer)
    assert told(trainer)["flushed"]
    assert trainer.wait(60) == 0
    wait_for(place.drained, "the journals")
    account(row, times, judge([place.logdir / folder], {0: read_count(place, 0)}))


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.matrix)])
def test_a_daemon_that_is_stopped_for_a_while_catches_up(place: World, seconds: int) -> None:
    daemon = place.serve()
    trainer = train(place, 0, "logs/a", count=seconds * 1000, hz=1000, wait=True, flush=60)
    wait_for(lambda: read_count(place, 0).returned > 500, "the trainer to log")
    daemon.send_signal(signal.SIGSTOP)
    before = read_count(place, 0).returned
    pause(seconds * 0.8)
    assert read_count(place, 0).returned > before + seconds * 300, "training went on"
    daemon.send_signal(signal.SIGCONT)
    finish(place, "stopped", 1, trainer)


@pytest.mark.matrix
def test_a_trainer_that_is_stopped_with_a_daemon_that_is_killed_meanwhile_catches_up(place: World) -> None:
    place.serve()
    trainer = train(place, 0, "logs/a", count=3000, hz=1000, wait=True, flush=60)
    wait_for(lambda: read_count(place, 0).returned > 500, "the trainer to log")
    trainer.send_signal(signal.SIGSTOP)
    place.kill_daemon()
    place.ensure()
    pause(3)
    trainer.send_signal(signal.SIGCONT)
    finish(place, "stopped", 1, trainer)


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "offset"),
    [
        ("clock", "-1h"),
        pytest.param("away", "+1d", marks=pytest.mark.matrix),
        *(pytest.param("clock", offset, marks=pytest.mark.matrix) for offset in ("+1y", "-30y")),
    ],
)
def test_whatever_the_clock_of_the_next_daemon_says_all_is_written_in_order(
    place: World, row: str, offset: str
) -> None:
    """And its files sort behind those that are there, which is the order in which TensorBoard reads."""
    from test_kills import assert_shown, tailing

    if FAKETIME is None:
        absent("libfaketime is not installed (apt-get install libfaketime)")
    place.serve()
    place.logdir.mkdir()
    with tailing(place.logdir) as boards:
        address = f"ipc://{place.runtime}/daemon.sock"
        trainer = train(place, 0, "logs/a", count=9000, hz=1000, wait=True, flush=60, environ={"TBXD_ADDRESS": address})
        kills = 0
        for clock in (offset, "+0", offset):
            wait_for(lambda kills=kills: len(list(place.logdir.glob("a/*"))) > kills, "the daemon to write")
            place.kill_daemon()
            kills += 1
            other = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            start_daemon(place, environ=other)
            wait_for(place.running, "a daemon with another clock")
            if clock == offset:
                there = place.status()
                assert there is not None and abs(there["started"] - time.time()) > 1800, "its clock is another one"
        wait_for(lambda: len(list(place.logdir.glob("a/*"))) > kills, "the daemon to write")
        finish(place, row, kills, trainer)
        assert_shown(boards, {0: "a"}, {0: read_count(place, 0)})
    names = sorted((place.logdir / "a").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(names) > 3 and [path.name for path in names] == sorted(path.name for path in names)


def over_tcp(place: World) -> tuple[Proxy, Any]:
    port = free_port()
    daemon = start_daemon(place, (), "--address", f"tcp://127.0.0.1:{port}")
    wait_for((place.runtime / "tcp.token").exists, "the daemon")
    proxy = Proxy(port)
    address = f"tcp://127.0.0.1:{proxy.port}"
    return proxy, (daemon, port, address)


@pytest.mark.parametrize("faults", [4, pytest.param(40, marks=pytest.mark.matrix)])
def test_a_network_that_is_cut_and_heals_and_swallows_either_direction_loses_nothing(
    place: World, faults: int, seed: int
) -> None:
    rng = random.Random(seed)
    proxy, (_, _, address) = over_tcp(place)
    try:
        trainer = train(
            place, 0, "logs/a", count=1500 * faults, hz=1000, wait=True, flush=60, environ={"TBXD_ADDRESS": address}
        )
        wait_for(lambda: read_count(place, 0).returned > 300, "the trainer to log")
        modes = ["cut", "deaf", "mute", "cut"] * (faults // 4)
        rng.shuffle(modes)
        for mode in modes:
            proxy.set(mode)
            pause(rng.uniform(0.1, 1.5))
            proxy.set("pass")
            pause(rng.uniform(0.0, 0.5))
        assert proxy.cuts and proxy.swallowed, "something was really cut and swallowed"
        finish(place, "network", len(modes), trainer, seconds=120)
    finally:
        proxy.close()


@pytest.mark.matrix
def test_lost_acks_and_a_daemon_killed_meanwhile_double_nothing(place: World) -> None:
    proxy, (daemon, port, address) = over_tcp(place)
    try:
        trainer = train(place, 0, "logs/a", count=4000, hz=1000, wait=True, flush=60, environ={"TBXD_ADDRESS": address})
        wait_for(lambda: read_count(place, 0).returned > 300, "the trainer to log")
        wait_for(lambda: list(place.logdir.glob("a/*tfevents*")), "the daemon to write")
        proxy.set("deaf")
        logged = read_count(place, 0).returned
        wait_for(lambda: read_count(place, 0).returned > logged + 500, "the trainer to log on")
        wait_for(lambda: proxy.swallowed and replays_due(place), "acks to be swallowed")
        daemon.kill()
        daemon.wait()
        assert replays_due(place), "what is written is not acknowledged"
        proxy.set("pass")
        start_daemon(place, (), "--address", f"tcp://127.0.0.1:{port}")
        finish(place, "network", 1, trainer)
    finally:
        proxy.close()


@pytest.mark.matrix
def test_of_many_daemons_that_start_at_once_over_stale_files_one_stays(place: World) -> None:
    """Socket and locks are those that a kill has left; whoever comes second leaves and says why."""
    place.serve()
    trainer = train(place, 0, "logs/a", count=10_000, hz=1000, wait=True, flush=60)
    kills = 0
    for _ in range(2):
        logged = read_count(place, 0).returned
        wait_for(lambda logged=logged: read_count(place, 0).returned > logged + 300, "the trainer to log")
        place.kill_daemon()
        kills += 1
        assert (place.runtime / "daemon.sock").exists() and (place.runtime / "daemon.lock").exists()
        several = [
            subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=subprocess.PIPE)
            for _ in range(5)
        ]
        place.processes += several
        wait_for(lambda several=several: sum(one.poll() is None for one in several) <= 1, "all but one to leave")
        wait_for(place.running, "the one that stays")
        left = [one for one in several if one.poll() is not None]
        assert len(left) >= 4
        for one in left:
            assert one.returncode == 4 and one.stderr is not None
            assert b"is running already" in one.stderr.read()
    finish(place, "second_daemon", kills * 5, trainer)


@pytest.mark.matrix
def test_mute_connections_and_garbage_disturb_nobody(place: World) -> None:
    place.serve()
    trainer = train(place, 0, "logs/a", count=3000, hz=1000, wait=True, flush=60)
    path = str(place.runtime / "daemon.sock")
    mute = []
    try:
        for number in range(1000):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(5)
            try:
                one.connect(path)
                if number % 3:
                    one.send(os.urandom(random.Random(number).randrange(1, 500)))
            except OSError:  # it has no descriptors left for us
                pass
            mute.append(one)
        garbage = zmq.Context()
        dealer = garbage.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(f"ipc://{path}")
        for number in range(1000):
            dealer.send_multipart([random.Random(number).randbytes(number % 700)])
        wait_for(lambda: read_count(place, 0).ended, "the trainer to end")
        status = place.status()
        assert status is not None and status["refused_messages"] >= 0
        dealer.close()
        garbage.term()
    finally:
        for one in mute:
            one.close()
    finish(place, "mute", len(mute), trainer)
