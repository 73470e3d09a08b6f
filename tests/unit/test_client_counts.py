"""The client's counts: accepted = written + pending + dropped, whatever happens to a record. No daemon is there."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import World, world
from tbxd_client.journal.fill_limits import SHARES_VARIABLE, default_shares, read_shares
from tbxd_client.protocol.kinds import HISTOGRAM, IMAGE, KIND_NAMES, RESTART, ROW, SCALAR
from tbxd_client.session import session as session_module
from tbxd_client.session.session import Counts, Session


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A script whose daemon never answers."""
    extra = {"TBXD_ADDRESS": f"ipc://{tmp_path}/nobody", "TBXD_FLUSH_SECONDS": "0.2", "TBXD_BLOCK_MS": "1"}
    with world(tmp_path, **extra) as made:
        yield made


@pytest.fixture
def forgets() -> Iterator[None]:
    """What is counted for the word at the end of this process is as it was."""
    before = dict(session_module._dropped)
    yield
    session_module._dropped.clear()
    session_module._dropped.update(before)


# --- sums ---------------------------------------------------------------------------------------------------------


def counts(accepted: int, settled: int, dropped: dict[str, int], refused: dict[str, int]) -> Counts:
    made = Counts()
    made.accepted, made.settled, made.dropped, made.refused = accepted, settled, dropped, refused
    return made


def test_what_was_counted_before_is_added_and_changes_with_nobody(forgets: None) -> None:
    one, other = counts(10, 4, {"a": 1}, {"b": 2}), counts(5, 2, {"a": 2, "c": 1}, {"b": 1})
    one.add(other)
    assert (one.accepted, one.settled, one.dropped, one.refused) == (15, 6, {"a": 3, "c": 1}, {"b": 3})
    assert (other.dropped, other.refused) == ({"a": 2, "c": 1}, {"b": 1})
    assert (one.written, one.missing) == (3, {"a": 3, "c": 1, "b": 3})
    assert one.told() == [15, {"a": 3, "c": 1}]


def test_what_is_lost_is_what_was_accepted_and_neither_settled_nor_dropped(forgets: None) -> None:
    lost = counts(10, 4, {"no_journal": 1}, {})
    lost.lose("no_journal")
    assert lost.dropped == {"no_journal": 6}
    lost.lose("no_journal")
    assert lost.dropped == {"no_journal": 6}, "once"
    assert lost.accepted == lost.settled + sum(lost.dropped.values())


def test_a_drop_counts_as_accepted_where_it_was_not_counted_before(forgets: None) -> None:
    made = Counts()
    made.drop("journal_full")
    made.drop("journal_full", accepted=0)
    assert (made.accepted, made.dropped) == (1, {"journal_full": 2})
    assert session_module._dropped["journal_full"] >= 2


# --- what the daemon says ------------------------------------------------------------------------------------------


class Bare(Session):
    """A session without journal and sender."""

    def __init__(self) -> None:
        self._counts = {0: Counts(), 1: Counts()}
        self._folders = {0: "/a", 1: "/b", 2: "/b", 3: "/gone"}
        gone = session_module.Defined(4, Counts(), "")
        self._removed = {"/gone": gone}
        self._runs = {"/a": session_module.Defined(0, self._counts[0], "")}
        self._runs["/b"] = session_module.Defined(1, self._counts[1], "")


def test_what_the_daemon_is_done_with_never_goes_back_and_what_it_refused_is_as_it_last_said() -> None:
    session = Bare()
    session._settled({0: [10, {"late_rank": 1}]})
    session._settled({0: [8, {"late_rank": 1, "bad_record": 1}], 7: [1, {}], 1: "x"})
    assert (session._counts[0].settled, session._counts[0].refused) == (10, {"late_rank": 1, "bad_record": 1})
    assert session._counts[0].written == 8 and session._counts[1].settled == 0
    session._settled({0: ["many", {}], 1: [3, {"a": "b"}]})
    assert session._counts[0].settled == 10 and session._counts[1].refused == {}
    session._settled({2: [5, {}]})
    assert session._counts[1].settled == 5, "the folder's first number, which an interruption has taken"
    session._settled({3: [6, {}]})
    assert session._removed["/gone"].counts.settled == 6, "of a folder that begins anew what was written before"


class Held:
    """A sender or journal that is as far as the test says."""

    def __init__(self, **more: Any) -> None:
        self.__dict__.update(more)


def test_a_session_waits_for_the_one_before_while_that_gets_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(session_module, "monotonic", lambda: now[0])
    before, after = Bare(), Bare()
    before.ended, before._got_to, before._got_on = False, 0, 0.0
    before.sender = Held(settled=0, refused="")  # type: ignore[assignment]
    before.journal = Held(committed=100)  # type: ignore[assignment]
    after._before = before
    now[0] = 1.0
    assert after._waits()
    for moved in range(1, 10):  # a little each four seconds
        now[0] += session_module.BEFORE_SECONDS - 1.0
        before.sender.settled = moved
        assert after._waits()
    now[0] += session_module.BEFORE_SECONDS + 0.1
    assert not after._waits(), "nothing has come of it for five seconds"
    before.sender.settled = 50
    assert after._waits()
    before.sender.settled = 100
    assert not after._waits(), "all is written"
    before.sender.settled, before.sender.refused = 60, "no"
    assert not after._waits()


def test_a_definition_that_the_disk_does_not_take_uses_no_number_up() -> None:
    session, defined = Bare(), []
    session._numbers = {"run": 0, "tag": 0, "row": 0}
    session._lock = session_module.RLock()

    def refuse(definition: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    session.journal = Held(define=refuse)  # type: ignore[assignment]
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            session.define_tag(0, "loss", "", "", "", False, "")
    session.journal = Held(define=defined.append)  # type: ignore[assignment]
    assert session.define_tag(0, "loss", "", "", "", False, "") == 0
    assert session.define_tag(0, "lr", "", "", "", False, "") == 1 and len(defined) == 2


def test_flush_is_true_when_all_is_kept_since_the_last_and_nothing_was_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: dict[str, int] = {}
    left: list[str] = []
    monkeypatch.setattr(session_module, "_dropped", dropped)
    monkeypatch.setattr(session_module, "_left_behind", left)
    monkeypatch.setattr(session_module, "_told_missing", 0)
    monkeypatch.setattr(session_module, "_current", None)
    assert session_module.flush()
    dropped["bad_argument"] = 3
    assert session_module.flush(), "that is the caller's"
    dropped["journal_full"] = 1
    assert not session_module.flush() and session_module.flush(), "each drop is told with one flush"
    left.append("/spool/a")
    assert not session_module.flush() and not session_module.flush()


def test_a_session_that_is_out_of_reach_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session, closed, kept = Bare(), [], []
    session._lock, session.ended = session_module.RLock(), False
    session.sender = Held(settled=5)  # type: ignore[assignment]
    session.journal = Held(committed=10, torn=False, place="/spool/a")  # type: ignore[assignment]
    monkeypatch.setattr(session_module, "_left_behind", left := [])

    def close(delivered: bool) -> None:
        closed.append(delivered)

    session._close = close  # type: ignore[method-assign]
    session._keep_refusals = lambda: kept.append(1)  # type: ignore[method-assign]
    session._finish()
    session._finish()
    assert closed == [False] and kept == [1] and left == ["/spool/a"]


def test_a_forked_child_knows_nothing_of_what_its_parent_has_dropped(alone: World) -> None:
    result = alone.run(
        """
        import os
        from tbxd_client import SummaryWriter
        from tbxd_client.session import session
        flush = session.flush
        writer = SummaryWriter("logs/a")
        writer._tbxd_run.refuse("too_large")
        session._left_behind.append("/spool/a")
        assert session._missing() == {"too_large": 1}
        child = os.fork()
        if not child:
            os._exit(0 if session._missing() == {} and flush() else 1)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("1 too_large") == 1


# --- calls --------------------------------------------------------------------------------------------------------


def stats_of(place: World, script: str, *arguments: object, **extra: str) -> dict[str, Any]:
    """What a script prints as JSON; ``stats`` is those of its writer."""
    text = "import json, os, sys\nimport numpy as np\nfrom tbxd_client import SummaryWriter\n"
    text += 'writer = SummaryWriter("logs/a")\nrun = writer._tbxd_run\n' + script
    text += '\nprint(json.dumps({"stats": writer.stats(), **globals().get("more", {})}))\n'
    result = place.run(text, *arguments, environ=extra)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout.splitlines()[-1]))


def assert_sums(stats: dict[str, Any]) -> None:
    assert stats["accepted"] == stats["written"] + stats["pending"] + sum(stats["dropped"].values()), stats


def test_records_that_are_too_large_or_find_no_journal_are_dropped_and_counted_in_the_journal_as_well(
    alone: World,
) -> None:
    found = stats_of(
        alone,
        """
import tbxd_client.session.run_handle as module
from tbxd_client.protocol.records import LocalProtocolError
writer.add_scalar("loss", 1.0, 0)
def too_large(*arguments):
    raise LocalProtocolError("too large")
whole, module.pack_record_head = module.pack_record_head, too_large
for step in range(3):
    writer.add_tensor("large", np.zeros(4), step)
module.pack_record_head = whole
more = {"journal": run.journal.dropped()}
""",
    )
    assert found["stats"]["dropped"] == {"too_large": 3} and found["journal"] == {"too_large": 3}
    assert found["stats"]["accepted"] == 4
    assert_sums(found["stats"])


def test_without_a_place_for_a_journal_each_record_is_dropped_and_kept_in_the_sum_when_there_is_one(
    alone: World,
) -> None:
    found = stats_of(
        alone,
        """
from tbxd_client.session import session
make = session.Session._make_journal
def nowhere(self, address):
    raise OSError(28, "No space left")
session.Session._make_journal = nowhere
for step in range(5):
    writer.add_scalar("loss", 1.0, step)
first = writer.stats()
assert first["dropped"] == {"no_journal": 5} and first["accepted"] == 5, first
session.Session._make_journal = make
session._next_try = 0.0
for step in range(4):
    writer.add_scalar("loss", 1.0, step)
""",
    )
    assert (found["stats"]["accepted"], found["stats"]["dropped"]) == (9, {"no_journal": 5})
    assert_sums(found["stats"])


def test_a_tag_that_is_known_takes_the_short_way_and_one_with_a_colour_its_own(alone: World) -> None:
    found = stats_of(
        alone,
        """
for step in range(3):
    writer.add_scalar("loss", 1.0, step)
    writer.log({"a": 1.0, "b": 2.0}, step)
short = "loss" in run.scalars
row = run.known_row(("a", "b"))
tags = dict(session_tags := run._tags)
number = run.tag(run.session, "loss", "red")
again = run.tag(run.session, "loss", "red")
plain = run.tag(run.session, "loss")
more = {"short": short, "row": row is not None, "numbers": [number, again, plain]}
""",
    )
    assert found["short"] and found["row"]
    coloured, again, plain = found["numbers"]
    assert coloured == again != plain


def test_what_a_handler_logs_beyond_the_limit_is_counted(alone: World) -> None:
    found = stats_of(
        alone,
        """
from tbxd_client.session import session
session.turns.run = lambda job: False
writer.add_text("note", "x", 0)
writer.add_scalar("new", 1.0, 0)
""",
    )
    assert found["stats"]["dropped"] == {"reentrant": 2}
    assert_sums(found["stats"])


def test_a_record_that_was_put_off_and_is_dropped_later_is_accepted_once(alone: World) -> None:
    found = stats_of(
        alone,
        """
writer.add_scalar("loss", 1.0, 0)
run._count("")
run._count_late("journal_full")
""",
    )
    assert (found["stats"]["accepted"], found["stats"]["dropped"]) == (2, {"journal_full": 1})
    assert_sums(found["stats"])


def test_after_the_end_of_its_session_a_run_goes_on_in_the_next(alone: World) -> None:
    found = stats_of(
        alone,
        """
import signal
signal.alarm(20)
writer.add_scalar("loss", 1.0, 0)
first = run.session_id
run.journal.close()  # as at the end of a program
run.journal.sealed = ""
from tbxd_client.session import session
session._current.ended = True
session._next_try = 0.0
writer.add_text("note", "x", 1)
writer.add_scalar("loss", 1.0, 1)
more = {"moved": run.session_id != first}
""",
    )
    assert found["moved"] and found["stats"]["accepted"] >= 2


def test_what_was_accepted_before_the_journal_was_out_of_reach_stays_in_the_sum(alone: World) -> None:
    found = stats_of(
        alone,
        """
import errno
for step in range(3):
    writer.add_scalar("loss", 1.0, step)
run.journal._seal(OSError(errno.EIO, "gone"))
for step in range(3, 5):
    writer.add_scalar("loss", 1.0, step)
""",
    )
    assert found["stats"]["accepted"] == 5
    assert_sums(found["stats"])


def test_what_use_metadata_has_set_is_as_before_when_it_ends(alone: World) -> None:
    found = stats_of(
        alone,
        """
with writer.use_metadata(global_step=7, walltime=5.0):
    with writer.use_metadata(walltime=6.0):
        inner = writer._tbxd_now(), writer._tbxd_default_step
    middle = writer._tbxd_now(), writer._tbxd_default_step
    try:
        with writer.use_metadata(global_step=9):
            raise KeyError
    except KeyError:
        pass
more = {"inner": inner, "middle": middle, "now": writer._tbxd_now() > 1e9, "step": writer._tbxd_default_step}
""",
    )
    assert (found["inner"], found["middle"], found["now"], found["step"]) == ([6.0, 7], [5.0, 7], True, None)


def test_an_array_that_is_logged_in_a_handler_is_kept_as_it_was_in_the_call(alone: World) -> None:
    found = stats_of(
        alone,
        """
from tbxd_client.session import session
from tbxd_client.process.reentrancy import Turns
writer.add_scalar("loss", 1.0, 0)
class Interrupted(Turns):  # a handler has come in the midst of a call: its job is done behind that
    interrupted, jobs = True, []
    def run(self, job):
        self.jobs.append(job)
        return True
session.turns = Interrupted()
array = np.zeros(1000)
writer.add_tensor("array", array, 1)
array += 7.0
for job in session.turns.jobs:
    job(True)
journal = run.journal
kept = journal.read(journal.committed - 8000, 8000)
more = {"kept": bytes(8000) == kept, "changed": float(array.sum())}
""",
    )
    assert found["kept"] and found["changed"] == 7000.0


def test_after_a_start_that_failed_a_journal_is_tried_again_five_seconds_later(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now, tried = [50.0], []

    def nowhere(before: Session | None = None) -> Session:
        tried.append(now[0])
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(session_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(session_module, "Session", nowhere)
    monkeypatch.setattr(session_module, "load", lambda: None)
    monkeypatch.setattr(session_module, "_current", None)
    monkeypatch.setattr(session_module, "_next_try", 0.0)
    while now[0] < 70.0:
        assert session_module.current() is None
        now[0] += 0.5
    assert tried == [50.0, 55.0, 60.0, 65.0] and "No space left" in capfd.readouterr().err


# --- shares -------------------------------------------------------------------------------------------------------


def test_shares_of_a_full_journal_are_those_of_the_kinds_and_a_setting_changes_what_is_no_scalar(
    capfd: pytest.CaptureFixture[str],
) -> None:
    shares = default_shares()
    assert shares[SCALAR] == shares[ROW] == shares[RESTART] == 1.0
    assert shares[IMAGE] < shares[HISTOGRAM] < 1.0 and shares.keys() == KIND_NAMES.keys()
    changed = read_shares({SHARES_VARIABLE: "image=100, histogram=0,text=101,scalar=10,row=5,nothing"}.get)
    assert changed == {**shares, IMAGE: 1.0, HISTOGRAM: 0.0}
    told = capfd.readouterr().err
    assert all(entry in told for entry in ("'text=101'", "'scalar=10'", "'row=5'", "'nothing'"))
    assert os.environ.get(SHARES_VARIABLE) is None and read_shares() == shares
