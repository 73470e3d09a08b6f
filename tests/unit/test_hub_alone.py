"""The hub's messages to clients, and its writes: messages come from the test, and the runs are real."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import scalars
from tbxd.config.settings import Settings
from tbxd.ingest import acknowledgements
from tbxd.ingest.client import Client
from tbxd.ingest.presence import OVERLAP_MS, QUIET_SECONDS, REMOTE_SILENCE_SECONDS
from tbxd.ingest.session import Session
from tbxd.scheduler import run_scheduler
from tbxd.scheduler.run_registry import RunState
from tbxd.scheduler.run_scheduler import RETRY_SECONDS
from tbxd.transport.allowed_roots import Roots
from tbxd.transport.credit import GRANT_SECONDS, GRANTS_BYTES_MAX
from tbxd.transport.server_socket import Peer as Route
from tbxd_client.protocol import wire
from tbxd_client.protocol.kinds import HISTOGRAM
from tbxd_client.protocol.records import SCALAR_BYTES, pack_record_head
from test_walls import Inside

LATER = 60_000  # milliseconds before a write that nobody asks for


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    """A hub that writes by itself after a minute."""
    made = Inside(tmp_path, batch_ms=LATER)
    yield made
    assert made.hub.close(10), "no thread is left behind"


def written(inside: Inside, session: bytes) -> None:
    """Have a session flushed, and wait for it."""
    inside.hub.handle(inside.peer, wire.Flush(session, inside.sent[session]))
    inside.until(lambda: inside.settled(session), "the records")


def answer(inside: Inside, kind: type) -> Any:
    return next(message for message in reversed(inside.answers) if isinstance(message, kind))


# --- greetings ----------------------------------------------------------------------------------------------------


def test_a_session_that_is_over_is_not_begun_again(inside: Inside) -> None:
    session = os.urandom(12)
    inside.hub.ended._sessions[session] = None
    inside.hub.handle(inside.peer, wire.Hello(session, 0, 1, "host", "", "test", ""))
    assert answer(inside, wire.Refused).reason == "the session is over" and not inside.hub.clients


def test_who_greets_again_is_told_what_was_written_meanwhile(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 10)
    written(inside, session)
    inside.answers.clear()
    inside.hub.handle(inside.peer, wire.Hello(session, 0, 1, "host", "", "test", ""))
    welcome, ack = inside.answers
    assert isinstance(welcome, wire.Welcome) and welcome.records == 10 * SCALAR_BYTES
    assert isinstance(ack, wire.Ack) and ack.written == 10 * SCALAR_BYTES
    inside.answers.clear()
    inside.hub.handle(inside.peer, wire.Hello(session, ack.written, 1, "host", "", "test", ""))
    assert [type(message) for message in inside.answers] == [wire.Welcome], "who knows it is not told"


@pytest.mark.parametrize("other", [Route(b"other", 1), Route(b"route", os.getpid(), key="laptop")])
def test_a_session_of_another_process_or_key_is_refused(inside: Inside, other: Route) -> None:
    session = inside.begin()
    inside.hub.handle(other, wire.Hello(session, 0, 1, "host", "", "test", ""))
    assert "belongs to another process" in answer(inside, wire.Refused).reason
    assert inside.hub.clients[session].peer == inside.peer
    again = Route(b"a new connection", os.getpid())
    inside.hub.handle(again, wire.Hello(session, 0, 1, "host", "", "test", ""))
    assert inside.hub.clients[session].peer == again


# --- limits -------------------------------------------------------------------------------------------------------


def test_nothing_is_read_or_taken_beyond_what_was_ever_promised(inside: Inside) -> None:
    session = inside.begin()
    client = inside.hub.clients[session]
    most = client.promised
    client.announced = 0  # there are more sessions by now, and it is told less
    inside.log(session, 0, 10)
    assert not client.broken, "it keeps to what it was told before"
    client.readable = inside.folder
    inside.hub.handle(inside.peer, wire.Stored(session, client.session.expected, most, 1))
    assert "the limit was" in answer(inside, wire.Refused).reason and client.broken


def test_a_window_that_is_half_used_is_written_at_once_and_else_what_is_queued_waits(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = inside.begin()
    inside.log(session, 0, 10)
    (state,) = inside.hub.runs.values()
    assert not state.submitted and state.due > time.monotonic() + 1.0
    monkeypatch.setattr(acknowledgements, "window", lambda sessions: 1 << 40)
    inside.log(session, 10, 10)
    assert state.submitted
    inside.until(lambda: inside.settled(session), "both")


def test_a_key_is_given_no_more_credit_than_its_bytes_a_second(inside: Inside) -> None:
    far = Route(b"far", None, key="laptop")
    inside.hub._roots = Roots(str(inside.folder))
    inside.hub.configure(Settings.of({"key_bytes_second": 1000, "batch_ms": LATER, "sync_seconds": 0.05}))
    session = inside.begin("a", far)
    assert inside.hub.clients[session].announced == 1000
    inside.log(session, 0, 20, far)
    assert inside.hub.clients[session].announced == 1000
    assert inside.hub._quotas.status(time.monotonic())["laptop"]["bytes"] == 20 * SCALAR_BYTES


def test_whoever_is_over_holds_no_grant_no_share_and_no_name_of_its_own(inside: Inside) -> None:
    far, hub = Route(b"far", None, key="laptop"), inside.hub
    hub._roots = Roots(str(inside.folder))
    session = inside.begin("a", far)
    hub.acks._credit._grants[session] = (1 << 20, 0, time.monotonic(), "laptop")
    hub.acks._credit._hurried[session] = (10, 5)
    share = hub._quotas._shares["laptop"]
    assert (share.sessions, share.tags) == (1, 1)
    hub.handle(far, wire.Goodbye(session))
    assert not hub.clients and not hub.acks._credit._grants and not hub.acks._credit._hurried
    assert (share.sessions, share.tags) == (0, 0)
    assert session in hub.presence._ends, "when it ended is known"


def test_a_record_for_which_there_is_no_grant_goes_on_when_whoever_has_it_makes_nothing_of_it(inside: Inside) -> None:
    session = inside.begin()
    client, credit, now = inside.hub.clients[session], inside.hub.acks._credit, time.monotonic()
    credit._grants[b"other"] = (GRANTS_BYTES_MAX, 0, now, "")
    size = 64 << 20
    head = pack_record_head(HISTOGRAM, 0, 0, 1.0, {"dtype": "<f4", "shape": [size // 4]}, size)
    inside.hub.handle(inside.peer, wire.Data(session, wire.RECORDS, 0, head))
    inside.hub.tick(now)
    assert credit.waiting == {session} and client.announced < size
    credit._grants[b"other"] = (GRANTS_BYTES_MAX, 0, now - GRANT_SECONDS, "")
    inside.answers.clear()
    inside.hub.tick(now)
    assert not credit.waiting and answer(inside, wire.Ack).limit == client.announced >= size


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_an_acknowledgement_names_the_runs_that_have_written_since_the_last(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 10)
    written(inside, session)
    assert answer(inside, wire.Ack).runs == {0: [10, {}]}
    client = inside.hub.clients[session]
    assert client.news == {} and client.under_way == 0
    inside.hub.acks.send(client, moved=True)
    assert answer(inside, wire.Ack).runs == {}


def test_a_session_that_ends_is_complete_when_all_before_its_end_has_come(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 5)
    inside.hub.handle(inside.peer, wire.Flush(session, 10 * SCALAR_BYTES, 1))
    client = inside.hub.clients[session]
    assert client.ends and not client.complete, "some of it has yet to come"
    inside.log(session, 5, 5)
    assert client.complete


def test_ranks_are_told_of_a_session_that_is_over(inside: Inside) -> None:
    session = inside.begin("a", rank=0, world=2, job="job", reduce=True)
    inside.log(session, 0, 5)
    written_rank = inside.hub.runs[str(inside.folder / "a")]
    inside.hub.handle(inside.peer, wire.Goodbye(session))
    assert written_rank.writer.ranks.news and written_rank.writer.ranks.gone == 1


def test_what_was_dropped_is_no_longer_pending(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 7)
    inside.hub.handle(inside.peer, wire.Report(session, {0: [12, {"journal_full": 3}]}))
    assert inside.counts() == (12, 0, 9), "two are on their way"
    written(inside, session)
    inside.until(lambda: inside.counts() == (12, 7, 2), "the drops to be noted")
    (found,) = inside.hub.status()["sessions"]
    assert (found["accepted"], found["written"], found["pending"]) == (12, 7, 2)
    assert found["dropped"] == {"journal_full": 3}


def test_what_the_journal_of_a_dead_trainer_counts_and_no_report_did_is_added_once(inside: Inside) -> None:
    session = inside.begin()
    inside.log(session, 0, 7)
    inside.hub.handle(inside.peer, wire.Report(session, {0: [9, {"journal_full": 2}]}))
    written(inside, session)
    client = inside.hub.clients[session]
    inside.hub.configure(Settings.of({"batch_ms": 5, "sync_seconds": 0.05}))
    for _ in range(2):
        inside.until(lambda: inside.hub.drops.tell_rest(client, {"journal_full": 5}), "all drops to be in the file")
    (state,) = inside.hub.runs.values()
    assert state.writer.entry(session).dropped == {"journal_full": 5}
    assert [value for _, value in scalars(inside.folder / "a")["tbxd/dropped/journal_full"]] == [2.0, 5.0]


def test_drops_of_a_trainer_that_had_no_run_are_counted(inside: Inside) -> None:
    client = Client(Session(os.urandom(12), 0), None, 1, "", "/spool/a", "", time.monotonic())
    assert inside.hub.drops.tell_rest(client, {"journal_full": 4, "too_large": 1}) and inside.hub.drops.homeless == 5


# --- newcomers ----------------------------------------------------------------------------------------------------


def test_what_a_newcomer_logs_is_written_when_it_is_admitted_and_its_flush_is_not_forgotten(inside: Inside) -> None:
    inside.hub.gated = True
    session = inside.begin()
    inside.log(session, 0, 10)
    inside.hub.handle(inside.peer, wire.Flush(session, 10 * SCALAR_BYTES))
    for _ in range(20):
        inside.turn()
    assert not inside.hub.runs and inside.hub.newcomers
    inside.hub.admit(inside.hub.clients[session])
    inside.until(lambda: inside.settled(session), "the records", 10.0)
    assert len(scalars(inside.folder / "a")["loss"]) == 10 and not inside.hub.newcomers


def test_a_look_at_a_folder_wakes_the_main_thread(inside: Inside) -> None:
    session = inside.begin()
    inside.woken.clear()
    inside.hub.folder_looks._see(inside.hub.clients[session], str(inside.folder), (0, 0))
    assert inside.woken.is_set()
    inside.hub.clients[session].undecided = 1
    inside.hub.collect()
    assert "not the folder" in answer(inside, wire.Refused).reason and not inside.hub.clients


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "pause"), [("", 0.0), ("No space left", RETRY_SECONDS)])
def test_a_run_that_could_not_be_written_is_tried_again_after_a_second(
    inside: Inside, error: str, pause: float
) -> None:
    writer: Any = SimpleNamespace(error=error, has_to_do=True, due=0.0, directory=inside.folder, kept_out=None)
    state = RunState("/a", writer, None)  # type: ignore[arg-type]
    before = time.monotonic()
    assert inside.hub.scheduler.come_back(state) is bool(error)
    assert pause <= state.due - before < pause + 0.5 and state.rounds == 1


def test_what_is_written_is_synced_and_the_runs_used_last_stay_open(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [inside.begin(run) for run in "abc"]
    for session in sessions:
        inside.log(session, 0, 5)
        written(inside, session)
    states = [inside.hub.runs[str(inside.folder / run)] for run in "abc"]
    inside.until(lambda: not any(state.writer.dirty for state in states), "all to be synced")
    assert all(state.writer.open for state in states)
    inside.hub.scheduler._open_files = 1
    inside.until(lambda: sum(state.writer.open for state in states) == 1, "some to be parked", 5.0)
    assert states[2].writer.open
    monkeypatch.setattr(run_scheduler, "IDLE_SECONDS", 0.05)
    inside.until(lambda: not states[2].writer.open, "the last as well", 5.0)


def test_whether_a_process_lives_is_what_its_session_and_its_last_word_say(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, unknown = inside.hub, os.urandom(12)
    hub.presence._ends[unknown] = 10_000
    assert hub.presence.alive(unknown, 10_000 - OVERLAP_MS - 1), "it had not ended when the other began"
    assert not hub.presence.alive(unknown, 10_000 - OVERLAP_MS), "what one has said may be read a moment later"
    assert not hub.presence.alive(unknown, 0)
    session = inside.begin()
    client = hub.clients[session]
    assert hub.presence.alive(session, 0)
    for name in ("complete", "gone"):
        setattr(client, name, True)
        assert not hub.presence.alive(session, 0), name
        setattr(client, name, False)
    client.key = "laptop"
    client.heard = time.monotonic() - QUIET_SECONDS - 1
    assert not hub.presence.alive(session, 0), "on another host it would have said something"
    client.key, client.peer = "", None
    assert not hub.presence.alive(session, 0), "its journal is adopted"


def test_a_session_of_another_host_that_is_silent_for_two_minutes_is_forgotten(inside: Inside) -> None:
    session = inside.begin()
    now = inside.hub.clients[session].heard
    inside.hub.reap(now + REMOTE_SILENCE_SECONDS)
    assert session in inside.hub.clients
    inside.hub.reap(now + REMOTE_SILENCE_SECONDS + 1)
    assert not inside.hub.clients


def test_each_message_of_a_session_is_a_word_of_it(inside: Inside) -> None:
    session = inside.begin()
    client = inside.hub.clients[session]
    for message in (wire.Flush(session, 0), wire.Report(session, {0: [0, {}]})):
        client.heard, client.gone = 0.0, True
        inside.hub.handle(inside.peer, message)
        assert client.heard > 0.0 and not client.gone
