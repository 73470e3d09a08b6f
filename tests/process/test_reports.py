"""What clients and daemons say of very many runs: in messages that the other side takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import World, scalars, wait_for, world
from tbxd.config.settings import Settings
from tbxd.ingest.client_counts import CLIENT_REASONS, RECORDS_TOLD_MAX, Reported
from tbxd.transport import control_client
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RemoteProtocolError, RunDefinition, TagDefinition, pack_definition, pack_scalar
from tbxd_client.transport.count_reports import HEARTBEAT_SECONDS, Reports
from test_daemon import Peer


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


RUNS = 12_000

MANY = """
import itertools, json, sys
from tbxd_client import SummaryWriter
from tbxd_client.session import session
runs = int(sys.argv[1])
writer = SummaryWriter("logs/a")
writer.add_scalar("loss", 0.0, 0)
current = session.current()
for number in range(runs):  # names of one folder, so that the daemon has one run to write
    way = "".join("/./" if number >> bit & 1 else "/" for bit in range(16))
    name, who = f"{writer._tbxd_run.directory[:-2]}{way}a", writer._tbxd_run._member.who
    counts = current.define_run(name, "", "", False, who, False).counts
    for reason in ("journal_full", "too_large", "journal_error", "reentrant", "bad_argument", "shutdown"):
        counts.accepted += (1 << 20) + number
        counts.dropped[reason] = (1 << 20) + number
for step in range(1, 100):
    writer.add_scalar("loss", float(step), step)
print(writer.flush(60), flush=True)
sys.stdin.readline()
for step in range(100, 200):
    writer.add_scalar("loss", float(step), step)
print(writer.flush(60), flush=True)
"""


def test_a_session_of_very_many_runs_with_drops_gets_on_and_all_of_them_are_told(place: World) -> None:
    """A report of all of them would be 1.5 MB; a daemon takes a megabyte in one message."""
    place.serve()
    script = place.start(MANY, RUNS, stdin=-1, stdout=-1)
    assert script.stdout is not None and script.stdin is not None
    assert script.stdout.readline() == b"True\n"

    def told() -> bool:
        status: Any = place.status()
        return set(status["totals"]["dropped"].values()) == {(1 << 20) + RUNS - 1}

    wait_for(told, "the drops of the last of them")
    script.stdin.write(b"\n")
    script.stdin.close()
    assert script.stdout.readline() == b"True\n" and script.wait(60) == 0
    found: Any = place.status()
    assert found["refused_messages"] == 0
    assert [step for step, _ in scalars(place.logdir / "a")["loss"]] == list(range(200))


def test_a_report_of_an_older_client_that_is_too_long_is_passed_over_and_its_session_goes_on(place: World) -> None:
    place.serve()
    peer = Peer(place)
    session = os.urandom(12)
    assert isinstance(peer.hello(session), wire.Welcome)
    definition = RunDefinition(0, str(place.logdir / "a"), "host", 1, 0.0)
    peer.send(
        wire.Data(
            session, wire.DEFINITIONS, 0, pack_definition(definition) + pack_definition(TagDefinition(0, 0, "loss"))
        )
    )
    peer.send([msgpack.packb([1, "report", session, {number: [1 << 20, {}] for number in range(120_000)}])])
    peer.send(wire.Data(session, wire.RECORDS, 0, pack_scalar(0, 1, 1.0, 1.0)))
    peer.send(wire.Flush(session, 34))
    answers = [peer.receive()]
    while not (isinstance(answers[-1], wire.Ack) and answers[-1].written == 34):
        answers.append(peer.receive())
    assert not any(isinstance(answer, wire.Refused) for answer in answers)
    status: Any = place.status()
    assert status["refused_messages"] == 1, "it is counted"
    peer.send([msgpack.packb([1, "goodbye", session, "x" * wire.MESSAGE_BYTES_MAX])])
    assert isinstance(peer.receive(), wire.Refused), "what is too long otherwise is answered"
    peer.close()


def test_a_status_of_very_many_sessions_is_answered_and_read(place: World) -> None:
    place.serve()
    peer = Peer(place)
    for _ in range(1500):
        session = os.urandom(12)
        peer.send(wire.Hello(session, 0, os.getpid(), "elsewhere", f"/{'j' * 2000}", "p" * 1000, ""))
        assert isinstance(peer.receive(), wire.Welcome)
    found = control_client.ask(Settings.of({"runtime_dir": str(place.runtime)}), "status", timeout=30)
    assert len(msgpack.packb(found)) > wire.FRAME_BYTES_MAX, "more than any other message may have"
    assert len(found["sessions"]) == 1500
    shown = place.tbxd("status")
    assert shown.returncode == 0 and "1500 sessions" in shown.stdout, shown.stderr or shown.stdout[-500:]
    peer.close()


COUNTS = st.tuples(
    st.integers(0, 1 << 62), st.dictionaries(st.text(max_size=80), st.integers(0, 1 << 62), max_size=60)
).map(list)


@given(st.dictionaries(st.integers(0, 1 << 40), COUNTS, max_size=40), st.integers(1, 300))
def test_the_parts_of_what_is_said_of_runs_are_all_of_it_and_fit_a_message(runs: dict[int, Any], times: int) -> None:
    many = {number + (place << 41): counts for place in range(times) for number, counts in runs.items()}
    parts = list(wire.parts(many))
    assert {number: counts for part in parts for number, counts in part.items()} == many
    assert sum(map(len, parts)) == len(many)
    assert parts, "an acknowledgement without news is one as well"
    for part in parts:
        assert len(wire.pack(wire.Ack(bytes(12), 0, 0, part, 0, 0, "x" * 1000))[0]) <= wire.MESSAGE_BYTES_MAX


def test_what_has_not_changed_is_not_told_again_to_a_daemon_that_keeps_it() -> None:
    counts: dict[int, Any] = {number: [1, {}] for number in range(10)}
    reports = Reports(bytes(12), lambda: {number: [told[0], dict(told[1])] for number, told in counts.items()})
    reports.begin(keeps=True)
    assert [report.runs for report in reports.messages(100.0)] == [counts]
    assert reports.settled and reports.messages(100.5) == [], "not so soon"
    counts[3][0], counts[4][1]["too_large"] = 2, 1
    assert not reports.settled, "or a client without more to send would sleep until its next heartbeat"
    assert [report.runs for report in reports.messages(102.0)] == [{3: counts[3], 4: counts[4]}]
    assert reports.messages(104.0) == [], "no news"
    assert [report.runs for report in reports.messages(102.0 + HEARTBEAT_SECONDS + 1)] == [{}]
    assert [report.runs for report in reports.messages(119.0, last=True)] == [{}]
    reports.begin(keeps=True)
    assert [report.runs for report in reports.messages(120.0)] == [counts], "another daemon"
    reports.begin(keeps=False)  # an older one takes each as all there is
    assert [report.runs for report in reports.messages(130.0)] == [counts]
    counts[3][0] = 3
    assert [report.runs for report in reports.messages(132.0)] == [counts]
    assert [report.runs for report in reports.messages(132.0 + HEARTBEAT_SECONDS + 1)] == [counts]


def test_reports_are_put_together_and_bounded_over_all_of_them() -> None:
    reported = Reported()
    assert reported.take({0: [5, {}], 1: [7, {"too_large": 2}]}) == {1: {"too_large": 2}}
    assert reported.take({1: [8, {"too_large": 2}], 2: [1, {}]}) == {}, "the same drops"
    assert (reported.accepted(0), reported.accepted(1), reported.accepted(2), reported.accepted(3)) == (5, 8, 1, 0)
    assert reported.take({0: [6, {"journal_full": 1}]}) == {0: {"journal_full": 1}}
    assert dict(reported.drops()) == {0: {"journal_full": 1}, 1: {"too_large": 2}, 2: {}}
    with pytest.raises(RemoteProtocolError, match="records"):
        reported.take({5: [RECORDS_TOLD_MAX, {}]})
    full = Reported()
    full.take({0: [RECORDS_TOLD_MAX, dict.fromkeys(CLIENT_REASONS, 0)]})
    full.take({0: [RECORDS_TOLD_MAX, {}]})
    with pytest.raises(RemoteProtocolError, match="records"):
        full.take({1: [1, {}]})
