"""Hundreds of sessions that live and log little cost one that logs much neither time nor the daemon its loop."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
import zmq

from benchmarks.daemon_scalars import SCALAR_BYTES, Sender, Shape, send
from harness import World
from tbxd.config.settings import Settings
from tbxd.ingest import journal_recovery
from tbxd.ingest.hub import Hub
from tbxd.process.inotify import Q_OVERFLOW, Happened
from tbxd.transport.credit import QUEUE_BYTES_MAX, WINDOW_BYTES_MIN, window
from tbxd_client.journal.journal import Journal
from tbxd_client.protocol import wire

QUIET = QUEUE_BYTES_MAX // WINDOW_BYTES_MIN + 10  # so many sessions that windows are as small as they get
BATCH_SECONDS = 2.0
WINDOWS = 10


def test_one_of_many_sessions_does_not_wait_for_the_time_of_a_write_at_the_end_of_each_window(place: World) -> None:
    place.extra["TBXD_BATCH_MS"] = f"{BATCH_SECONDS * 1000:.0f}"
    place.serve()
    address = f"ipc://{place.runtime}/daemon.sock"
    quiet = zmq.Context.instance().socket(zmq.DEALER)
    quiet.linger = 0
    quiet.connect(address)
    try:
        for _ in range(QUIET):
            hello = wire.Hello(os.urandom(12), 0, os.getpid(), socket.gethostname(), "", "quiet", "")
            quiet.send_multipart(wire.pack(hello))
        for _ in range(QUIET):
            assert quiet.poll(10_000), "each is welcome"
            quiet.recv_multipart()
        assert window(QUIET) == WINDOW_BYTES_MIN
        busy = Sender(address, Shape(1, 1, WINDOW_BYTES_MIN), WINDOWS * WINDOW_BYTES_MIN // SCALAR_BYTES, place.logdir)
        begun = time.monotonic()
        send([busy], [len(busy.records)])
        assert time.monotonic() - begun < WINDOWS * BATCH_SECONDS / 2
        busy.close()
    finally:
        quiet.close()


def test_journals_whose_owners_live_are_looked_at_in_turns_where_the_system_tells_of_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    looks: list[str] = []
    is_locked = journal_recovery.is_locked
    monkeypatch.setattr(journal_recovery, "is_locked", lambda path: looks.append(path.parent.name) or is_locked(path))
    living = [Journal(spool, lambda: False) for _ in range(2 * journal_recovery.ROUND_LEAST)]
    hub = Hub(Settings.of({"TBXD_SPOOL": str(spool)}), lambda: None, lambda peer, message: None)
    adopter = journal_recovery.Adopter(hub, [spool])
    now = time.monotonic()

    def scan() -> list[str]:
        nonlocal now
        looks.clear()
        now += journal_recovery.SCAN_SECONDS
        adopter.step(now)
        return list(looks)

    try:
        assert len(scan()) == len(living), "whom it has not seen yet it looks at"
        rounds = [scan() for _ in range(journal_recovery.ROUNDS)]
        assert all(len(names) < len(living) for names in rounds)
        assert sorted(name for names in rounds for name in names) == sorted(journal.path.name for journal in living), (
            "each in its turn"
        )
        monkeypatch.setattr(adopter._inotify, "read", lambda: [Happened(-1, Q_OVERFLOW, "")])
        assert len(scan()) == len(living), "what it was told is lost"
    finally:
        adopter.close()
        for journal in living:
            journal.close()
        hub.close(5.0)
