"""Sequences of processes that log into one folder, drawn by hypothesis: who opens it, logs which steps, ends, comes
late, with which daemons. What is shown is what docs/COMPATIBILITY.md says, in models of both loaders."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import events
from tbxd.ingest.session import Session
from tbxd.runs import runs_beside as beside
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents import checkpoint
from tbxd.tfevents.checkpoint import Checkpoints
from tbxd.tfevents.contents import contents_of
from tbxd.tfevents.event_file import EventFile
from tbxd_client.distributed import process_identity
from tbxd_client.protocol.kinds import RESTART
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar, pack_text_record
from test_resume import Fast, Slow

TAGS = ("a", "b")
NEVER = 1e9


class Killed(BaseException):
    """The daemon is killed in the middle of a write."""


@dataclass
class Life:
    """A process: as it was drawn, and what it has logged."""

    number: int
    program: str
    word: str
    overlaps: bool  # it does not end before the next one begins
    firsts: dict[str, int]
    id: bytes = b""
    definitions: bytes = b""
    records: bytes = b""
    steps: dict[str, int] = field(default_factory=dict)
    # Of the oracle:
    purged: bool = False
    whole: bool = False
    away: set[str] = field(default_factory=set)
    beside: dict[str, dict[int, float]] = field(default_factory=dict)
    seen: bool = False

    @property
    def began(self) -> int:
        return 1000 * (self.number + 1)

    @property
    def ended(self) -> float:
        return NEVER if self.overlaps else self.began + 500

    def define(self, directory: Path) -> None:
        self.id = hashlib.sha256(f"{self.number}".encode()).digest()[:12]
        kin = hashlib.sha256(self.program.encode()).hexdigest()[:16] if self.program != "unknown" else ""
        self.run = RunDefinition(0, str(directory), "host", self.number + 1, 1e6 + self.number)._replace(
            script=self.program, kin=kin, boot=process_identity.boot(), began=self.began, resume=self.word
        )
        tags = [TagDefinition(number, 0, tag) for number, tag in enumerate(TAGS)]
        self.definitions = b"".join(map(pack_definition, [self.run, *tags]))

    def log(self, tag: str, count: int) -> list[int]:
        begin = self.steps.get(tag, self.firsts[tag])
        self.steps[tag] = begin + count
        steps = list(range(begin, begin + count))
        for step in steps:
            self.records += pack_scalar(TAGS.index(tag), step, 1e6, self.value(step))
        return steps

    def restart(self, step: int) -> None:
        self.records += pack_text_record(RESTART, 0, step, 1e6, {}, None)

    def value(self, step: int) -> float:
        return 1000.0 * self.number + step


@dataclass
class Tag:
    """What the run shows of one, as the oracle has it."""

    points: dict[int, float] = field(default_factory=dict)
    last: int = -(1 << 62)
    most: int = -(1 << 62)
    owner: Life | None = None
    era: Life | None = None

    def cut(self, step: int, life: Life) -> None:
        self.points = {at: value for at, value in self.points.items() if at < step}
        self.last, self.most, self.era = min(self.last, step - 1), min(self.most, step - 1), life


class Oracle:
    """What is to be shown: docs/COMPATIBILITY.md, "Processes and writers that follow each other"."""

    def __init__(self, lives: list[Life]) -> None:
        self.lives = lives
        self.tags: dict[str, Tag] = {}
        self.purges: list[tuple[Life, int]] = []

    def follows(self, life: Life, other: Life) -> bool:
        """Whether a life goes on with the work of another."""
        if life.word == "always":
            return True
        if other.ended > life.began or other.began > life.began or life.word == "never":
            return False
        return life.purged or "unknown" in (life.program, other.program) or life.program == other.program

    def is_said_once(self, tag: Tag) -> bool:
        """Whether who was the last to log a tag has come further with others."""
        others = [other.most for other in self.tags.values() if other.owner is tag.owner]
        return tag.most <= 1 < max(others)

    def log(self, life: Life, tag: str, step: int) -> None:
        life.seen = True
        known = self.tags.setdefault(tag, Tag())
        if life.whole or tag in life.away:
            life.beside.setdefault(tag, {})[step] = life.value(step)
            return
        late = known.era is not None and known.era.began > life.began
        late = late or any(other.began > life.began and step >= at for other, at in self.purges)
        foreign = known.owner is not None and known.owner is not life and step <= known.last
        if late or foreign:
            assert late or known.owner is not None
            if not late and known.owner is not None and self.follows(life, known.owner):
                known.cut(step, life)
            else:
                followed = any(self.follows(life, other) for other in self.lives if other.seen and other is not life)
                once = known.owner is not None and known.owner.ended <= life.began and self.is_said_once(known)
                if not late and (followed or once or (known.owner is not None and known.owner.began > life.began)):
                    life.away.add(tag)
                else:
                    life.whole = True
                self.log(life, tag, step)
                return
        known.points[step] = life.value(step)
        known.last, known.owner = step, life
        known.most = max(known.most, step)

    def purge(self, life: Life, step: int) -> None:
        life.seen = True
        if life.whole:
            life.beside = {
                tag: {at: value for at, value in has.items() if at < step} for tag, has in life.beside.items()
            }
            return
        for known in self.tags.values():
            if known.owner is None or max(known.last, known.most) < step:
                continue
            if known.owner is not life and (known.owner.ended > life.began or known.owner.began > life.began):
                continue
            known.cut(step, life)
        life.purged = True
        self.purges.append((life, step))


class Place:
    """The folder and its daemons."""

    def __init__(self, root: Path, lives: list[Life]) -> None:
        self.run, self.ledgers = root / "run", root / "ledgers"
        self.lives = lives
        for life in lives:
            life.define(self.run)
        self.begin()

    def begin(self) -> None:
        self.sessions = {life.id: Session(life.id, 0) for life in self.lives}
        by_id = {life.id: life for life in self.lives}
        now = NEVER - 1
        self.writer = RunWriter(
            self.run,
            lambda batch: None,
            checkpoints=Checkpoints(self.ledgers),
            alive=lambda session, began: by_id[session].ended > (began or now) if session in by_id else False,
        )

    def deliver(self, life: Life) -> None:
        session = self.sessions[life.id]
        session.feed_definitions(session.definitions_expected, life.definitions[session.definitions_expected :])
        for batch in session.feed_records(session.expected, life.records[session.expected :]) or []:
            self.writer.offer(batch)

    def write(self) -> None:
        self.writer.write()
        assert not self.writer.error, self.writer.error

    def write_until_killed(self, writes: int, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Write, and be killed in the so-many-th write to a file, of which a part is there."""
        left = writes
        whole = EventFile.write

        def write(file: EventFile, data: bytes) -> None:
            nonlocal left
            left -= bool(data)
            if left < 0 and data:
                whole(file, data[: int(part * len(data))])
                raise Killed
            whole(file, data)

        with monkeypatch.context() as patch:
            patch.setattr(EventFile, "write", write)
            try:
                self.writer.write()
            except Killed:
                pass
        self.kill(kept=True)

    def kill(self, kept: bool) -> None:
        """Another daemon comes, with the last one's checkpoints or without; who lives sends everything again."""
        self.writer.besides.close()
        self.writer.close()
        if not kept:
            shutil.rmtree(self.ledgers, ignore_errors=True)
        self.begin()

    def shown(self, folder: Path, model: Callable[[], Any]) -> dict[str, list[tuple[int, float]]]:
        loader = model()
        for event in events(folder) if folder.is_dir() else ():
            loader.take(event)
        return {tag: points for tag in TAGS if (points := loader.shown(tag))}


programs = st.sampled_from(["train", "train", "train", "eval", "unknown"])
life_shapes = st.tuples(
    programs,
    st.sampled_from(["", "", "", "", "always", "never"]),
    st.booleans(),
    st.fixed_dictionaries({tag: st.integers(0, 12) for tag in TAGS}),
)
steps = st.one_of(
    st.tuples(st.just("log"), st.integers(0, 3), st.sampled_from(TAGS), st.integers(1, 6)),
    st.tuples(st.just("log"), st.integers(0, 3), st.sampled_from(TAGS), st.integers(1, 6)),
    st.tuples(st.just("purge"), st.integers(0, 3), st.just(""), st.integers(0, 14)),
    st.tuples(st.just("write"), st.integers(0, 3), st.just(""), st.just(0)),
    st.tuples(st.just("kill"), st.integers(0, 3), st.sampled_from(["kept", "lost"]), st.just(0)),
    st.tuples(st.just("killed"), st.integers(0, 3), st.sampled_from(["0", "0.3", "0.9", "1"]), st.integers(0, 6)),
)


@settings(max_examples=60, deadline=None)
@given(shapes=st.lists(life_shapes, min_size=1, max_size=4), calls=st.lists(steps, max_size=14))
@example(  # an evaluation of an older checkpoint, and another that goes on
    shapes=[("train", "", False, {"a": 4, "b": 0}), ("eval", "", False, {"a": 5, "b": 0})],
    calls=[("log", 0, "a", 6), ("write", 0, "", 0), ("log", 1, "a", 2), ("log", 1, "b", 2), ("kill", 0, "lost", 0)],
)
@example(  # a dead host's journal that comes late, in the middle of it a kill
    shapes=[("train", "", False, {"a": 0, "b": 0}), ("train", "", False, {"a": 3, "b": 0})],
    calls=[
        *[("log", 0, "a", 5), ("write", 0, "", 0), ("log", 1, "a", 6), ("write", 1, "", 0), ("log", 0, "a", 3)],
        *[("log", 0, "b", 2), ("killed", 0, "0.3", 1)],
    ],
)
@example(  # a dead host's journal that comes late, and reaches beyond the purge_step of the next process
    shapes=[("train", "", False, {"a": 8, "b": 0}), ("train", "", False, {"a": 0, "b": 0})],
    calls=[("purge", 1, "", 9), ("log", 1, "a", 1), ("log", 0, "a", 2)],
)
def test_what_is_shown_is_what_the_oracle_says(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[Any], calls: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("sequence")
    lives = [Life(number, *shape) for number, shape in enumerate(shapes)]
    place, oracle = Place(root, lives), Oracle(lives)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(checkpoint, "IDLE_BYTES", 100)
    try:
        for kind, who, what, number in calls:
            life = lives[who % len(lives)]
            if kind == "log":
                for step in life.log(what, number):
                    oracle.log(life, what, step)
                place.deliver(life)
            elif kind == "purge":
                life.restart(number)
                oracle.purge(life, number)
                place.deliver(life)
            elif kind == "write":
                place.write()
            elif kind == "kill":
                place.write()
                place.kill(what == "kept")
                for other in lives:
                    place.deliver(other)
            else:
                place.write()  # of several that are not written yet nobody knows which was the first
                for tag in TAGS[: 1 + number % 2]:
                    for step in life.log(tag, 3):
                        oracle.log(life, tag, step)
                place.deliver(life)
                place.write_until_killed(number, float(what), monkeypatch)
                for other in lives:
                    place.deliver(other)
                place.write()
        place.write()
    finally:
        monkeypatch.undo()
    expected = {tag: sorted(known.points.items()) for tag, known in oracle.tags.items() if known.points}
    for model in (Fast, Slow):
        assert place.shown(place.run, model) == expected, model
        for life in lives:
            folder = place.run / beside.name_of(life.run)
            wanted = {tag: sorted(points.items()) for tag, points in life.beside.items() if points}
            assert place.shown(folder, model) == wanted, (model, life)
    settled = place.writer.settled()
    for life in lives:
        entry = settled.get(life.id)
        assert (entry.end if entry is not None else 0) == len(life.records), "each record is settled"
    place.writer.close()
    if place.run.is_dir():
        assert contents_of(place.run).ledger() == settled
    shutil.rmtree(root)
    assert os.path.isdir(root.parent)
