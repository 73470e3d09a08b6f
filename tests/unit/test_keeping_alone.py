"""The runs that a daemon keeps: runs without files, and the test's clock."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from tbxd.scheduler import run_registry as keeping_module
from tbxd.scheduler.run_registry import COOL_SECONDS, KEPT_SECONDS, RANKS_KEPT_SECONDS, Keeping, RunState
from tbxd.tfevents.ledger import Entry
from tbxd_client.protocol.records import RunDefinition


class Writer:
    """A run that is still unless the test says something else; what its files hold outlives it."""

    files: dict[str, dict[bytes, Entry]]

    def __init__(self, directory: str, files: dict[str, dict[bytes, Entry]], reduced: bool) -> None:
        self.directory = directory
        self.ledger = files.setdefault(directory, {})
        self.comes_back = self.open = self.dirty = self.waiting = False
        self.error, self.due = "", 0.0
        job = {"world": 2, "job": "job", "reduce": True} if reduced else {}
        self.defined = RunDefinition(0, directory, "host", 1, 1.0, **job)
        self._found: dict[bytes, Entry] | None = None
        self.forgotten = False

    @property
    def has_to_do(self) -> bool:
        return self.waiting

    def told(self) -> dict[str, Any]:
        return {"file": "", "error": self.error}

    def known(self) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
        if self.comes_back and self._found is None:
            self._found = {session: entry.copy() for session, entry in self.ledger.items()}
        return dict(self.ledger), self._found or {}

    def log(self, session: bytes, count: int) -> None:
        self.known()
        self.ledger.setdefault(session, Entry()).count += count

    def forget(self) -> None:
        self.forgotten = True


class Kept:
    """Runs, and their files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.files = 1000.0, {}  # type: float, dict[str, dict[bytes, Entry]]
        monkeypatch.setattr(keeping_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.runs: dict[str, RunState] = {}
        self.keeping = Keeping(self.runs)

    def run(self, directory: str, reduced: bool = False) -> Any:
        made = self.keeping.state(
            directory,
            lambda: RunState(directory, Writer(directory, self.files, reduced), None),  # type: ignore[arg-type]
        )
        assert made is not None
        return made.writer

    def total(self) -> int:
        return self.keeping.total(self.keeping.accounts().values(), 0).accepted

    def later(self, seconds: float) -> None:
        for _ in range(3):  # it is seen to be still, then cool, then let go of
            self.now += seconds / 3
            self.keeping.cool(self.now)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(monkeypatch)


def test_a_run_is_kept_while_a_session_holds_it_and_some_minutes_more(kept: Kept) -> None:
    one: set[str] = set()
    other: set[str] = set()
    kept.keeping.hold(one, ["a"])
    kept.keeping.hold(other, ["a", "a"])
    writer = kept.run("a")
    kept.keeping.release(one, kept.now)
    kept.later(2 * KEPT_SECONDS)
    assert "a" in kept.runs and one == set() and "a" not in kept.keeping.warm
    kept.keeping.release(other, kept.now)
    kept.later(KEPT_SECONDS - 1.0)
    assert "a" in kept.runs
    kept.keeping.hold(one, ["a"])
    kept.later(2 * KEPT_SECONDS)
    assert "a" in kept.runs, "somebody has come back to it"
    kept.keeping.release(one, kept.now)
    kept.later(KEPT_SECONDS + 2.0)
    assert not kept.runs and writer.forgotten and kept.keeping.forgotten == 1


def test_a_run_of_ranks_is_kept_for_a_minute(kept: Kept) -> None:
    for directory, reduced in (("plain", False), ("ranks", True)):
        held: set[str] = set()
        kept.keeping.hold(held, [directory])
        kept.run(directory, reduced)
        kept.keeping.release(held, kept.now)
    kept.later(RANKS_KEPT_SECONDS + 2.0)
    assert list(kept.runs) == ["plain"]


@pytest.mark.parametrize("what", ["open", "dirty", "waiting", "error"])
def test_a_run_that_is_not_still_stays(kept: Kept, what: str) -> None:
    writer = kept.run("a")
    setattr(writer, what, "full" if what == "error" else True)
    kept.later(3 * KEPT_SECONDS)
    assert "a" in kept.runs and "a" in kept.keeping.warm
    setattr(writer, what, "" if what == "error" else False)
    kept.now += 1.0
    kept.keeping.cool(kept.now)
    kept.keeping.cool(kept.now + COOL_SECONDS)
    assert "a" in kept.keeping.warm
    kept.keeping.cool(kept.now + COOL_SECONDS + 1.0)
    assert "a" not in kept.keeping.warm


def test_what_is_told_of_a_run_is_kept_while_no_job_is_under_way_and_looked_up_while_one_is(kept: Kept) -> None:
    writer = kept.run("a")
    state = kept.runs["a"]
    for name in ("submitted", "tidied"):
        kept.run("a")
        before = writer.known()[0].get(b"1", Entry()).count
        setattr(state, name, True)
        for more in (5, 10):
            writer.log(b"1", 5)
            assert kept.keeping.accounts()["a"].tally.accepted == before + more, name
        setattr(state, name, False)
    first = kept.keeping.accounts()["a"]
    assert kept.keeping.accounts()["a"] is first
    kept.run("a").log(b"1", 5)
    assert kept.keeping.accounts()["a"].tally.accepted == 25


@pytest.mark.parametrize("seed", range(3))
def test_totals_are_what_was_ever_logged_however_runs_come_and_go(kept: Kept, seed: int) -> None:
    chance, expected = random.Random(seed), 0
    for number in range(300):
        directory = f"run {chance.randrange(40)}"
        held: set[str] = set()
        kept.keeping.hold(held, [directory])
        writer = kept.run(directory)
        count = chance.randrange(5)
        writer.log(b"%d" % number, count)
        expected += count
        kept.keeping.release(held, kept.now)
        assert kept.total() == expected
        if chance.random() < 0.3:
            kept.later(KEPT_SECONDS + 2.0)
            assert not kept.runs and kept.total() == expected
    assert kept.keeping.forgotten > 40
