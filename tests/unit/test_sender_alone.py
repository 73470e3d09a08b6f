"""A sender's messages to and from a daemon, without a thread, a socket or a daemon: its clock is the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tbxd_client.journal.journal import Journal
from tbxd_client.process.doorbell import Doorbell
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import TagDefinition, pack_definition, pack_scalar
from tbxd_client.transport import journal_sync, launcher
from tbxd_client.transport import sender as sender_module
from tbxd_client.transport.connection import Link
from tbxd_client.transport.count_reports import HEARTBEAT_SECONDS
from tbxd_client.transport.journal_sync import SYNC_SECONDS
from tbxd_client.transport.pace import QUIET_SECONDS, TICK_SECONDS
from tbxd_client.transport.sender import HELLO_SECONDS, LIVES_SECONDS, SILENCE_SECONDS, Sender


class Line(Link):
    """A connection that keeps what is sent, and gives what the test puts there."""

    def __init__(self) -> None:
        self.sent: list[wire.Message] = []
        self.coming: list[list[bytes]] = []
        self.takes = True
        self.remote = False
        self.trouble = ""

    def send(self, frames: list[bytes]) -> bool:
        """Take a message, where it takes one."""
        if self.takes:
            self.sent.append(wire.unpack(frames))
        return self.takes

    def receive(self) -> list[bytes] | None:
        """The next message of the daemon."""
        return self.coming.pop(0) if self.coming else None


class Starter:
    """A launcher that starts nothing and counts."""

    def __init__(self) -> None:
        self.asked = self.answers = self.ends = 0
        self.there = True

    def is_there(self) -> bool:
        return self.there

    def ensure(self) -> None:
        self.asked += 1

    def answered(self) -> None:
        self.answers += 1

    def done(self) -> None:
        self.ends += 1


class Alive:
    """A thread that runs, as far as is seen."""

    alive, is_this = True, False

    def join(self, timeout: float) -> None:
        pass


class Waiter:
    """The lock of somebody who waits: time goes on for him, and what the test wants to happen does."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._held:
            self._side.now += timeout
            self._side.on_wait(timeout)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False


class Side:
    """A journal, its sender and its line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (sender_module, journal_sync):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(sender_module.headroom, "crowding", lambda: 1.0)
        self.bell, self.journal, self.link = Doorbell(), Journal(folder, lambda: False), Line()
        self.counts: dict[int, Any] = {}
        self.settled: list[dict[int, Any]] = []
        self.starter = Starter()
        self.sender = Sender(
            self.journal,
            self.bell,
            "ipc:///nobody",
            self.starter,  # type: ignore[arg-type]
            lambda: dict(self.counts),
            self.settled.append,
            aloud=False,
            elsewhere=lambda: ("ipc:///elsewhere", self.starter),  # type: ignore[arg-type, return-value]
        )
        self.sender._link = self.link
        self.sender._thread = Alive()  # type: ignore[assignment]
        self.on_wait: Callable[[float], object] = lambda seconds: None
        monkeypatch.setattr(sender_module, "allocate_lock", lambda: Waiter(self))
        self.tags = 0

    def log(self, count: int = 1) -> int:
        """Log scalars of a new tag; returns the position behind them."""
        self.journal.define(pack_definition(TagDefinition(self.tags, 0, f"tag {self.tags}")))
        for step in range(count):
            assert self.journal.append(pack_scalar(self.tags, step, 1.0, 1.0)) == ""
        self.tags += 1
        return self.journal.committed

    def hear(self, *messages: wire.Message) -> None:
        """Let the daemon say something."""
        self.link.coming += [wire.pack(message) for message in messages]
        self.sender._receive(self.link)

    def welcome(self, records: int = 0, definitions: int = 0, limit: int = 1 << 30, **more: Any) -> None:
        more = {"leftovers": 1, "reports": 1, **more}
        self.hear(wire.Welcome(self.journal.session, records, definitions, limit, **more))

    def ack(self, written: int, limit: int = 0, **more: Any) -> None:
        self.hear(wire.Ack(self.journal.session, written, limit, more.pop("runs", {}), **more))

    def send(self) -> list[wire.Message]:
        """Return the messages sent now."""
        self.link.sent.clear()
        if self.sender._welcomed:
            self.sender._send(self.link)
        return list(self.link.sent)

    def greet(self) -> list[wire.Hello]:
        """The greetings of this moment."""
        self.link.sent.clear()
        self.sender._greet(self.link, self.now)
        return [message for message in self.link.sent if isinstance(message, wire.Hello)]

    def spans(self) -> list[tuple[int, int]]:
        """The stretches of records that are sent now."""
        return [
            (message.position, message.position + len(message.payload))
            for message in self.send()
            if isinstance(message, wire.Data) and message.stream == wire.RECORDS
        ]


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    made = Side(tmp_path, monkeypatch)
    yield made
    made.journal.close()
    made.bell.close()


# --- greetings ----------------------------------------------------------------------------------------------------


def test_while_nobody_answers_it_greets_four_times_a_second_and_looks_after_the_start(side: Side) -> None:
    assert len(side.greet()) == 1 and side.starter.asked == 1
    assert not side.greet() and side.starter.asked == 2
    side.now += HELLO_SECONDS
    assert len(side.greet()) == 1


def test_a_greeting_that_could_not_be_sent_is_sent_as_soon_as_somebody_is_there(side: Side) -> None:
    side.link.takes = False
    assert not side.greet()
    side.link.takes = True
    assert len(side.greet()) == 1, "at the next look, whenever that is"
    assert not side.greet()


def test_a_daemon_that_owes_an_answer_is_greeted_after_three_seconds_and_one_that_owes_none_never(side: Side) -> None:
    end = side.log()
    assert side.greet()[0].start == 0
    side.welcome()
    assert side.spans() == [(0, end)]
    side.now += SILENCE_SECONDS
    assert not side.greet()
    side.now += 0.1
    assert len(side.greet()) == 1 and side.starter.asked == 1, "no daemon is started beside one that is there"
    side.now += SILENCE_SECONDS - 0.1
    assert not side.greet(), "so often"
    side.now += 0.1
    assert len(side.greet()) == 1
    side.ack(end)
    side.now += 100.0
    assert not side.greet()
    assert side.sender.settled == end


def test_a_daemon_that_does_not_know_the_session_is_greeted_at_once(side: Side) -> None:
    end = side.log()
    side.greet()
    side.welcome()
    side.send()
    side.hear(wire.Unknown(side.journal.session))
    assert not side.sender.connected and len(side.greet()) == 1
    side.welcome()
    assert side.spans() == [(0, end)], "all that is not acknowledged comes again"


def test_the_greeting_names_what_is_acknowledged(side: Side) -> None:
    end = side.log()
    side.welcome()
    side.send()
    side.ack(end)
    side.hear(wire.Unknown(side.journal.session))
    assert side.greet()[0].start == end


# --- a daemon that begins -----------------------------------------------------------------------------------------


def test_a_daemon_is_sent_what_it_does_not_have(side: Side) -> None:
    first, last = side.log(10), side.log(10)
    side.welcome(records=first, definitions=0)
    sent = side.send()
    assert [type(message) for message in sent] == [wire.Data, wire.Data]
    assert isinstance(sent[0], wire.Data) and sent[0].stream == wire.DEFINITIONS and sent[0].position == 0
    assert isinstance(sent[1], wire.Data) and (sent[1].position, len(sent[1].payload)) == (first, last - first)
    side.welcome(records=first, definitions=side.journal.definitions_end)
    assert [message.position for message in side.send() if isinstance(message, wire.Data)] == [first]
    assert side.starter.answers == 2


def test_a_welcome_of_another_journal_is_passed_over(side: Side) -> None:
    end = side.log()
    side.welcome(records=end + 1)
    assert not side.sender.connected
    side.welcome()
    side.send()
    side.ack(end)
    side.welcome(records=0)
    assert side.spans() == [], "what is acknowledged is not there any more"


def test_what_a_daemon_before_had_is_asked_for_and_told_again(side: Side) -> None:
    """Flush, end, leftovers, reports and what waits for other ranks are those of one daemon."""
    end = side.log()
    side.counts[0] = [1, {}]
    side.welcome()
    assert not side.sender.flush(end, 0.0, last=True, leftovers=True)
    wanted = wire.Flush(side.journal.session, end, 1, 1)
    assert side.send()[-1] == wanted
    assert not any(isinstance(message, wire.Flush) for message in side.send()), "once"
    side.ack(0, held=end)
    assert side.sender.settled == end
    side.link.sent.clear()
    side.sender._report(side.link, side.now)
    assert [message.runs for message in side.link.sent if isinstance(message, wire.Report)] == [{0: [1, {}]}]
    side.hear(wire.Unknown(side.journal.session))
    assert side.sender.settled == 0, "a daemon that is gone has nothing"
    side.welcome()
    assert side.sender.settled == 0, "nor has the next, before it says so"
    assert side.send()[-1] == wanted
    side.link.sent.clear()
    side.sender._report(side.link, side.now)
    assert [message.runs for message in side.link.sent if isinstance(message, wire.Report)] == [{0: [1, {}]}]


def test_the_limit_is_that_of_the_daemon_that_is_there(side: Side) -> None:
    side.log(10)
    side.welcome()
    side.hear(wire.Unknown(side.journal.session))
    side.welcome(limit=100)
    assert side.spans() == [(0, 100)]


def test_a_daemon_that_takes_nothing_is_greeted_anew(side: Side) -> None:
    end = side.log()
    side.welcome()
    side.link.takes = False
    assert side.spans() == [] and not side.sender.connected
    side.link.takes = True
    assert len(side.greet()) == 1
    side.welcome()
    assert side.spans() == [(0, end)]


def test_who_has_a_new_daemon_waits_for_it_although_the_last_flush_was_in_vain(side: Side) -> None:
    end = side.log()
    side.welcome()
    assert not side.sender.flush(end, 0.5)
    waits: list[float] = []
    side.on_wait = waits.append
    assert not side.sender.flush(end, 0.5, again=False) and not waits
    side.hear(wire.Unknown(side.journal.session))
    side.welcome()
    assert not side.sender.flush(end, 0.5, again=False) and waits


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_an_acknowledgement_never_goes_back_nor_beyond_what_was_sent(side: Side) -> None:
    half, end = side.log(), side.log()
    side.welcome(limit=half)
    assert side.spans() == [(0, half)]
    side.ack(end, limit=half)
    assert side.sender.acknowledged == 0, "more than was sent"
    side.ack(half, limit=end, runs={0: [1, {}]})
    assert side.sender.acknowledged == half and side.settled[-1] == {0: [1, {}]}
    side.ack(0, limit=0)
    assert side.sender.acknowledged == half and side.spans() == [(half, end)], "nor does the limit"
    side.ack(half, held=end + 1)
    assert side.sender.settled == half
    side.ack(half, held=end)
    assert side.sender.settled == end and side.sender.acknowledged == half
    side.ack(half, held=half)
    assert side.sender.settled == end


def test_nothing_is_sent_beyond_the_limit_and_a_flush_only_behind_its_records(side: Side) -> None:
    end = side.log(4)
    side.welcome(limit=50)
    assert not side.sender.flush(end, 0.0)
    sent = side.send()
    assert side.sender._sent == 50 and not any(isinstance(message, wire.Flush) for message in sent)
    side.ack(0, limit=end)
    assert side.send()[-1] == wire.Flush(side.journal.session, end, 0, 0)


def test_leftovers_are_written_when_the_daemon_says_so_and_each_is_asked_for_once(side: Side) -> None:
    end = side.log()
    side.welcome()
    for number in (1, 2):
        assert not side.sender.flush(end, 0.0, leftovers=True)
        assert side.send()[-1] == wire.Flush(side.journal.session, end, 0, number)
    side.ack(end, leftovers=1)
    assert side.sender.flush(end, 0.0), "its own records are written"
    assert not side.sender._is_there(end, 2, False)
    side.ack(end, leftovers=3)
    assert not side.sender._is_there(end, 2, False), "nobody has asked for that"
    side.ack(end, leftovers=2)
    assert side.sender._is_there(end, 2, False)


def test_a_daemon_that_does_not_know_of_leftovers_is_not_asked_and_not_waited_for(side: Side) -> None:
    end = side.log()
    side.welcome(leftovers=0)
    assert not side.sender.flush(end, 0.0, leftovers=True)
    assert side.send()[-1] == wire.Flush(side.journal.session, end, 0, 0)
    side.ack(end)
    assert side.sender._is_there(end, 1, False)


def test_what_waits_for_other_ranks_is_flushed_but_not_written(side: Side) -> None:
    end = side.log()
    side.welcome()
    side.send()
    side.ack(0, held=end)
    assert side.sender.flush(end, 0.0) and not side.sender.flush(end, 0.0, written=True)


def test_a_second_flush_does_not_wait_where_the_first_was_in_vain_and_nothing_has_moved(side: Side) -> None:
    half, end = side.log(), side.log()
    side.welcome()
    side.send()
    waits: list[float] = []
    side.on_wait = waits.append
    assert not side.sender.flush(end, 0.5)
    assert waits, "the first one waits"
    waits.clear()
    assert not side.sender.flush(end, 0.5, again=False) and not waits
    assert not side.sender.flush(end, 0.5) and waits, "one with a time of its own does"
    waits.clear()
    assert not side.sender.flush(end, 2.0, again=False) and waits, "one that may take longer does"
    waits.clear()
    side.ack(half)
    assert not side.sender.flush(end, 0.5, again=False) and waits, "and where something has come"


def test_whoever_waits_is_told_when_something_has_come(side: Side) -> None:
    end = side.log()
    side.welcome()
    side.send()
    answers = iter([lambda: side.ack(end)])

    def wait(seconds: float) -> None:
        next(answers)()
        assert side.sender._heard_of, "or it would wait for its next look"

    side.on_wait = wait
    assert side.sender.flush(end, 5.0)


# --- trouble ------------------------------------------------------------------------------------------------------


def test_a_daemon_that_refuses_is_sent_nothing_more_until_one_says_welcome(
    side: Side, capfd: pytest.CaptureFixture[str]
) -> None:
    end = side.log()
    side.welcome(limit=34, journal=1)
    assert side.sender.gets_on
    side.hear(wire.Refused(side.journal.session, "no room"))
    assert side.spans() == [] and side.sender.refused == "no room" and not side.sender.gets_on
    assert "no room" in capfd.readouterr().err
    assert not side.sender.flush(end, 10.0), "nobody waits for it"
    side.welcome()
    assert side.sender.refused == "" and side.spans() == [(0, end)]


def test_a_daemon_that_refuses_is_sent_nothing_more_although_it_had_room(
    side: Side, capfd: pytest.CaptureFixture[str]
) -> None:
    first = side.log()
    side.welcome()
    assert side.spans() == [(0, first)]
    side.hear(wire.Refused(side.journal.session, "no room"))
    side.log()
    assert side.spans() == []
    assert "no room" in capfd.readouterr().err


def test_a_daemon_that_sees_other_files_is_left_for_the_one_that_sees_them_once(side: Side) -> None:
    side.log()
    side.greet()
    side.welcome(journal=0)
    side.send()
    side.hear(wire.Refused(side.journal.session, f"{wire.ELSEWHERE}: another root"))
    assert side.sender._moved and side.sender._address == "ipc:///elsewhere", "another link is made"
    assert not side.sender.connected and not side.sender.refused
    assert len(side.greet()) == 1, "at once"
    side.welcome()
    assert [type(message) for message in side.send()] == [wire.Data, wire.Data], "all definitions, too"
    side.hear(wire.Refused(side.journal.session, f"{wire.ELSEWHERE}: that one as well"))
    assert side.sender.refused and side.sender._address == "ipc:///elsewhere"


def test_what_keeps_a_run_from_being_written_is_known_until_it_is_over(side: Side) -> None:
    side.log()
    side.welcome(journal=1)
    assert side.sender.gets_on
    side.ack(0, trouble="No space left")
    assert side.sender.held_up == "No space left" and not side.sender.gets_on
    side.ack(0, trouble="")
    assert side.sender.gets_on and not side.sender.held_up
    side.ack(0, trouble="No space left")
    side.welcome(journal=1)
    assert side.sender.gets_on and not side.sender.held_up, "another daemon"


def test_a_daemon_that_owes_an_answer_for_ten_seconds_does_not_get_on(side: Side) -> None:
    side.log()
    side.welcome(journal=1)
    side.now += 100.0
    assert side.sender.gets_on, "it owes none"
    side.send()
    side.now += LIVES_SECONDS
    assert side.sender.gets_on
    side.now += 0.1
    assert not side.sender.gets_on
    side.send()
    side.now += 1.0
    side.ack(0)
    assert side.sender.gets_on
    for journal, leftovers in ((0, 1), (1, 0)):
        side.welcome(journal=journal, leftovers=leftovers)
        assert not side.sender.gets_on, "a daemon that cannot read the journal, or is too old"


def test_a_daemon_is_left_to_when_it_gets_on_and_is_there(side: Side) -> None:
    side.log()
    side.welcome(journal=1)
    side.sender.stop(0.0)
    assert side.sender.left_to_daemon
    side.starter.there = False
    side.sender.stop(0.0)
    assert not side.sender.left_to_daemon


# --- the end ------------------------------------------------------------------------------------------------------


def test_at_the_end_the_last_counts_are_told_and_goodbye_is_said_if_all_is_acknowledged(side: Side) -> None:
    end = side.log()
    side.counts[0] = [1, {}]
    side.sender._say_goodbye(side.link)
    assert side.link.sent == [], "nobody is there"
    side.welcome()
    side.send()
    side.sender._report(side.link, side.now)
    side.counts[0] = [2, {"journal_full": 1}]
    for acknowledged in (0, end):
        side.ack(acknowledged)
        side.link.sent.clear()
        side.sender._say_goodbye(side.link)
        expected: list[Any] = [wire.Report(side.journal.session, {} if acknowledged else side.counts)]
        expected += [wire.Goodbye(side.journal.session)] if acknowledged else []
        assert side.link.sent == expected


# --- sleep and sync -----------------------------------------------------------------------------------------------


def test_what_nobody_acknowledges_is_synced_each_second_and_what_is_acknowledged_is_not(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[float] = []
    monkeypatch.setattr(side.journal, "sync", lambda: synced.append(side.now))
    side.sender._journal_sync.look(side.now, side.sender.acknowledged)
    end = side.log()
    for _ in range(40):
        side.now += SYNC_SECONDS / 10
        side.sender._journal_sync.look(side.now, side.sender.acknowledged)
    assert len(synced) in (2, 3), "what has waited for a second, once a second"
    synced.clear()
    side.welcome()
    side.send()
    side.ack(end)
    for _ in range(40):
        side.now += SYNC_SECONDS / 10
        side.sender._journal_sync.look(side.now, side.sender.acknowledged)
    assert not synced


def test_a_disk_that_refuses_to_sync_ends_nothing_and_is_asked_again(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def refuse() -> None:
        tried.append(side.now)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(side.journal, "sync", refuse)
    side.sender._journal_sync.look(side.now, side.sender.acknowledged)
    side.log()
    for _ in range(4):
        side.now += SYNC_SECONDS
        side.sender._journal_sync.look(side.now, side.sender.acknowledged)
    assert len(tried) == 3


def test_it_looks_often_while_records_come_and_sleeps_when_all_is_written(side: Side) -> None:
    patience = side.sender._patience
    assert patience(side.now) < HELLO_SECONDS, "nobody has answered"
    end = side.log()
    side.welcome()
    side.sender._pace.has_grown(side.now)
    assert patience(side.now) == TICK_SECONDS
    side.now += 10.0
    assert patience(side.now) == TICK_SECONDS, "something is to be sent"
    side.send()
    assert TICK_SECONDS < patience(side.now) <= SILENCE_SECONDS / 3, "an answer is owed"
    side.ack(end)
    side.journal.release(end)
    assert patience(side.now) == HEARTBEAT_SECONDS
    assert not side.journal._armed or side.journal.limit < 0, "the next record rings"
    side.counts[0] = [1, {}]
    side.sender._report(side.link, side.now)
    side.counts[0] = [2, {}]
    assert patience(side.now) <= 1.0, "counts are to be told"
    side.log()
    assert patience(side.now) == TICK_SECONDS, "a record that came just now keeps it up"


def test_after_a_while_of_records_it_stays_awake_for_two_seconds_and_after_single_ones_it_does_not(side: Side) -> None:
    side.welcome()
    for busy, awake in ((False, False), (True, True)):
        side.now += 100.0
        for _ in range(20 if busy else 1):
            end = side.log()
            side.send()
            side.ack(end)
            side.journal.release(end)
            side.now += TICK_SECONDS
            side.sender._pace.has_grown(side.now)
        side.now += QUIET_SECONDS / 2
        assert (side.sender._patience(side.now) == TICK_SECONDS) is awake
        side.now += QUIET_SECONDS
        assert side.sender._patience(side.now) > TICK_SECONDS


# --- older daemons ------------------------------------------------------------------------------------------------


def old(side: Side, version: int, message: wire.Message) -> None:
    side.link.coming.append(wire.pack(message, version))
    side.sender._receive(side.link)


def test_a_daemon_too_old_that_a_script_has_started_makes_way_and_others_are_told(
    side: Side, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "OLDEST", wire.VERSION)
    side.log()
    side.greet()
    side.link.sent.clear()
    asked: list[str] = []
    monkeypatch.setattr(side.link, "send", lambda frames: asked.append(str(frames)) or True)
    side.sender._fall_back(side.link, wire.VERSION - 1)
    assert len(asked) == 1 and "status" in asked[0]
    side.sender._fall_back(side.link, wire.VERSION - 1)
    assert len(asked) == 1, "not so soon"
    old(side, wire.VERSION - 1, wire.Answer({"embedded": True}))
    assert len(asked) == 2 and "stop" in asked[1]
    old(side, wire.VERSION - 1, wire.Answer({"embedded": True}))
    assert len(asked) == 2, "nobody was asked"
    side.now += 10.0
    side.sender._fall_back(side.link, wire.VERSION - 1)
    old(side, wire.VERSION - 1, wire.Answer({"embedded": True, "service": "tbxd.service"}))
    assert len(asked) == 3 and "speaks version" in side.sender.refused, "a service is not stopped"
    assert "speaks version" in capfd.readouterr().err


def test_a_daemon_of_a_version_that_is_spoken_is_greeted_in_it_at_once(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "OLDEST", wire.VERSION - 1)
    side.greet()
    side.sender._fall_back(side.link, wire.VERSION - 1)
    assert side.sender._version.spoken == wire.VERSION - 1
    frames: list[list[bytes]] = []
    monkeypatch.setattr(side.link, "send", lambda sent: frames.append(sent) or True)
    side.sender._greet(side.link, side.now)
    assert frames == [wire.pack(wire.unpack(frames[0]), wire.VERSION - 1)]
    side.sender._welcomed = True
    monkeypatch.setattr(side.link, "send", lambda sent: False)
    side.sender._push(side.link, wire.Goodbye(side.journal.session))
    assert side.sender._version.spoken == wire.VERSION, "the next daemon may be a newer one"


# --- starts -------------------------------------------------------------------------------------------------------


class Started:
    """A process that a launcher has started."""

    def __init__(self, *arguments: Any) -> None:
        self.code: int | None = None
        self.is_gone = self.closed = False
        Started.made.append(self)

    made: ClassVar[list[Started]] = []

    def gone(self) -> bool:
        return self.is_gone

    def close(self) -> None:
        self.closed = True


class Starts:
    """A launcher whose processes do what the test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from tbxd_client.process import helper

        self.now, self.locked = 1000.0, False
        Started.made = []
        monkeypatch.setattr(launcher, "monotonic", lambda: self.now)
        monkeypatch.setattr(launcher, "is_locked", lambda path: self.locked)
        monkeypatch.setattr(launcher, "awaited_service", lambda runtime: "")
        monkeypatch.setattr(helper, "Helper", Started)
        self.launcher = launcher.Launcher(folder / "run", folder / "spool")
        (folder / "run").mkdir(mode=0o700)

    def step(self, seconds: float = 0.0) -> int:
        """Go on for so long, with a look ten times a second; returns how many were started then."""
        before = len(Started.made)
        until = self.now + seconds
        while True:
            self.launcher.ensure()
            if self.now >= until:
                return len(Started.made) - before
            self.now = round(self.now + 0.1, 3)


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(tmp_path, monkeypatch)


def test_a_daemon_that_fails_is_started_again_after_ever_longer_pauses_up_to_a_minute(
    starts: Starts, capfd: pytest.CaptureFixture[str]
) -> None:
    began = starts.now
    moments: list[float] = []
    while starts.now < began + 400.0:
        if starts.step(0.1):
            moments.append(starts.now - began)
            Started.made[-1].is_gone, Started.made[-1].code = True, 3
    pauses = [after - before for before, after in pairwise(moments)]
    assert [round(pause / 5) for pause in pauses[:5]] == [1, 2, 4, 8, 12], pauses
    assert all(pause < 61.0 for pause in pauses)
    assert capfd.readouterr().err.count("did not start") == 1
    starts.launcher.answered()
    assert starts.step() == 1, "at once"
    Started.made[-1].is_gone, Started.made[-1].code = True, 3
    moments = []
    began = starts.now
    while not moments:
        if starts.step(0.1):
            moments.append(starts.now - began)
    assert moments[0] < 6.0, "an answer begins the pauses anew"


def test_daemons_that_are_killed_before_they_answer_are_started_again_at_once_five_times(starts: Starts) -> None:
    assert starts.step() == 1
    quick = 0
    for _ in range(10):
        Started.made[-1].is_gone = True
        quick += starts.step(0.5)
    assert quick == launcher.AT_ONCE_MAX


def test_a_daemon_that_does_not_answer_in_time_is_given_up_and_another_one_may_be_started(starts: Starts) -> None:
    assert starts.step() == 1
    first = Started.made[0]
    assert starts.step(launcher.START_SECONDS_MAX) == 0 and not first.closed, "one at a time"
    assert starts.step(0.3) == 1 and first.closed


def test_where_a_daemon_runs_or_another_process_starts_one_none_is_started(starts: Starts, tmp_path: Path) -> None:
    starts.locked = True
    assert starts.step(20.0) == 0
    starts.locked = False
    other = launcher.Launcher(tmp_path / "run", tmp_path / "spool")
    assert starts.step(0.1) == 1
    other.ensure()
    assert len(Started.made) == 1, "the lock is held"
    starts.launcher.answered()
    other._next_look = 0.0
    other.ensure()
    assert len(Started.made) == 2 and Started.made[0].closed


def test_what_others_have_left_for_a_far_daemon_is_sent_when_nobody_holds_it_and_by_one_at_a_time(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []
    monkeypatch.setattr(launcher, "journals", lambda folder: left)
    forwarder = launcher.Forwarder(tmp_path, tmp_path / "far", "tcp://far:1")
    forwarder.look(0.0)
    left.append(tmp_path / "one")
    forwarder.look(1.0)
    assert not Started.made, "not so soon"
    starts.locked = True
    forwarder.look(launcher.FORWARD_SECONDS)
    assert not Started.made, "its owner lives"
    starts.locked = False
    forwarder.look(2 * launcher.FORWARD_SECONDS)
    assert len(Started.made) == 1
    forwarder.look(3 * launcher.FORWARD_SECONDS)
    assert len(Started.made) == 1
    Started.made[0].is_gone = True
    forwarder.look(4 * launcher.FORWARD_SECONDS)
    assert len(Started.made) == 2 and Started.made[0].closed
