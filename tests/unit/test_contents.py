"""What a folder's files hold is found many events at a time, and only what is new is read: it is what they say."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import one_by_one
from amount import examples
from tbxd.tfevents import contents, plain_scalars, schema, tape
from tbxd.tfevents.contents import Contents, contents_of
from tbxd.tfevents.ledger import NOTE, Entry, Marker, carry_over, encode_ranks, notes
from tbxd.tfevents.rank_notes import Looked, Restarted, encode_looked, encode_member
from tbxd.tfevents.scalar_encoder import ScalarEncoder
from tbxd.tfevents.tfrecord import frame

SESSIONS = [bytes([number]) * 12 for number in range(3)]
STEPS = st.one_of(st.integers(0, 200), st.sampled_from([127, 128, 16383, 16384, 2**40, 2**63 - 1, -1, -(2**63)]))
TAGS = st.sampled_from(["a", "b", "loss/train", "ü", "x" * 130])

NOTES = ("member", "looked", "restart")  # about ranks

# What is written one after the other.
scalars = st.tuples(
    st.just("scalars"),
    st.integers(0, 2),  # whose
    st.lists(TAGS, min_size=1, max_size=40),
    STEPS,
    st.integers(1, 60),  # so many events, with steps that follow each other
    st.booleans(),  # a record each, or one
)
others = st.tuples(
    st.sampled_from(
        ["histo", "image", "text", "metadata", "end", "start", "note", "ranks", "settle", "job", "bytes", *NOTES]
    ),
    st.integers(0, 2),
    TAGS,
    STEPS,
)
parts = st.lists(st.one_of(scalars, others, st.tuples(st.sampled_from(["file", "foreign", "look"]))), max_size=25)


def test_a_loop_with_many_tags_is_taken_apart_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    names = [f"layer{number}/weight" for number in range(1000)]
    for step in range(20):  # cut anywhere
        cuts = [0, 1 + step, 300 + 7 * step, 700 + step, 1000]
        for begin, end in pairwise(cuts):
            files.scalars(0, names[begin:end], step, 1, each=True)
    taken: list[int] = []
    values = plain_scalars._values

    def counted(data: bytes, at: int, stop: int) -> Any:
        taken.append(stop - at)
        return values(data, at, stop)

    monkeypatch.setattr(plain_scalars, "_values", counted)
    found = contents_of(tmp_path)
    assert 0 < sum(size >= plain_scalars.MANY_BYTES for size in taken) < 10, "of 60"
    one_by_one.check(found)


class Files:
    """A folder whose files grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.entries = {session: Entry() for session in SESSIONS}
        self.encoder = ScalarEncoder()
        self.begin(ours=True)

    def begin(self, ours: bool) -> None:
        self.number += 1
        self.path = self.folder / f"events.out.tfevents.{self.number:010d}.host.1.0"
        self.path.touch()
        self.marker = Marker()
        self.event(1, "tbxd 0" if ours else "", file_version="brain.Event:2")
        if ours:
            for text in carry_over(self.entries):
                self.event(1, text)

    def add(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def event(self, step: int, mark: str, wall_time: float = 1.0, **what: Any) -> None:
        event = schema.Event(wall_time=wall_time, step=step, **what)
        if mark:
            event.source_metadata.writer = mark
        self.add(frame(event.SerializeToString()))

    def mark(self, session: bytes, records: int, size: int = 34) -> str:
        entry = self.entries[session]
        entry.end += records * size
        entry.count += records
        return self.marker.mark_values(session, entry, size, records)

    def scalars(self, whose: int, tags: list[str], step: int, count: int, each: bool) -> None:
        session = SESSIONS[whose]
        for number in range(count):
            at = min(step + number, 2**63 - 1)
            entry = self.entries[session]
            if each:
                mark = self.mark(session, len(tags))
            else:
                entry.end += 100
                entry.count += 1
                mark = self.marker.mark(session, entry, 100)
            values = struct.pack(f"<{len(tags)}f", *range(len(tags)))
            self.add(self.encoder.event(tags, at, 1e9 + number, values, mark))

    def other(self, kind: str, whose: int, tag: str, step: int) -> None:
        session, value = SESSIONS[whose], schema.Summary.Value(tag=tag)
        match kind:
            case "histo":
                value.histo.num = 1
            case "image":
                value.image.height = 1
            case "text":
                value.tensor.dtype = 7
            case "metadata":
                value.simple_value = 1.5
                value.metadata.display_name = "name"
            case "end":
                value.obsolete_old_style_histogram = b""
                self.event(step, NOTE, summary=schema.Summary(value=[value]))
                return
            case "start":
                self.event(step, self.mark(session, 1), session_log=schema.SessionLog(status=schema.SESSION_START))
                return
            case "note":
                self.entries[session].dropped = {"journal_full": 1 + step % 7}
                for text in notes({session: self.entries[session].dropped}):
                    self.event(0, text)
                return
            case "ranks":
                self.marker.interrupt()
                self.event(
                    step, encode_ranks([whose] if whose else None, step % 3), summary=schema.Summary(value=[value])
                )
                return
            case "settle":
                self.entries[session].end += 34
                self.entries[session].count += 1
                for text in self.marker.settle({session: self.entries[session]}):
                    self.event(0, text)
                return
            case "job":
                self.marker.interrupt()
                self.event(0, f"G{whose}.{step % 2}")
                return
            case "member" | "looked" | "restart":
                self.marker.interrupt()
                position = abs(step) % 1000
                texts = {
                    "member": [encode_member(whose, session)],
                    "looked": encode_looked([Looked(session, position, whose, position, step % 3), Looked(session, 9)]),
                    "restart": [Restarted(1 + step % 3, whose, session, position).encode()],
                }
                for text in texts[kind]:
                    self.event(0, text)
                return
            case "bytes":  # no writer of ours makes any
                self.event(step, f"M{whose}=", wall_time=float("nan"))
                self.marker.interrupt()
                return
        self.event(step, self.mark(session, 1), summary=schema.Summary(value=[value]))


@settings(deadline=None, max_examples=examples(150))
@given(parts, st.integers(200, 5000))
def test_what_is_found_many_at_a_time_is_what_the_events_say_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, given_parts: list[Any], chunk: int
) -> None:
    files = Files(tmp_path_factory.mktemp("run"))
    grown = Contents(files.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "CHUNK_BYTES", chunk)
        for module in (contents, plain_scalars):
            patch.setattr(module, "MANY_BYTES", chunk // 20)
        patch.setattr(tape, "BYTES_MAX", chunk)
        for kind, *how in given_parts:
            if kind == "scalars":
                files.scalars(*how)
            elif kind in ("file", "foreign"):
                files.begin(kind == "file")
            elif kind == "look":
                grown.update()
                one_by_one.check(grown)
            else:
                files.other(kind, *how)
        grown.update()
        one_by_one.check(grown)
        one_by_one.check(contents_of(files.folder))
        assert grown.in_order


@settings(deadline=None, max_examples=examples(100))
@given(data=st.data())
def test_whatever_is_cut_or_damaged_what_stands_before_it_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = Files(tmp_path_factory.mktemp("run"))
    for session in range(2):
        files.scalars(session, ["a", "b"], 100, 100, each=True)
        files.scalars(session, ["a"], 100, 100, each=False)
    content = bytearray(files.path.read_bytes())
    cut = data.draw(st.integers(0, len(content)), label="cut")
    if data.draw(st.booleans(), label="flipped"):
        place = data.draw(st.integers(0, len(content) - 1), label="place")
        content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
        files.path.write_bytes(content)
        one_by_one.check(contents_of(files.folder))
    files.path.write_bytes(content[:cut])
    found = contents_of(files.folder)
    one_by_one.check(found)
    with files.path.open("ab") as file:  # the rest of it comes
        file.write(content[cut:])
    found.update()
    one_by_one.check(found)


def test_files_that_are_removed_cut_or_replaced_are_read_anew(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.scalars(0, ["a"], 0, 50, each=True)
    first = files.path
    files.begin(ours=True)
    files.scalars(1, ["b"], 0, 50, each=True)
    found = contents_of(tmp_path)
    assert set(found.tags.names) == {"a", "b"}
    os.truncate(files.path, files.path.stat().st_size - 1)
    found.update()
    one_by_one.check(found)
    first.unlink()
    found.update()
    one_by_one.check(found)
    assert found.tags.names == ["b"]
    content = files.path.read_bytes()
    files.path.unlink()
    first.touch()
    files.path.write_bytes(content * 2)
    found.update()
    one_by_one.check(found)


def test_a_file_of_another_writer_that_grows_in_between_is_taken_in(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.begin(ours=False)
    other = files.path
    files.begin(ours=True)
    files.scalars(1, ["b"], 0, 50, each=True)
    found = contents_of(tmp_path)
    ledger, files.path = found.ledger(), other
    files.scalars(0, ["a"], 7, 50, each=True)
    found.update()
    assert found.tags.last[found.tags.place("a")] == 56
    assert found.ledger() == ledger and not found.in_order
