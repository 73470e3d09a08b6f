"""The ledger: wherever a file is cut, its marks say exactly which records are before the cut."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.tfevents import schema
from tbxd.tfevents.contents import contents_of
from tbxd.tfevents.crc import masked_crc
from tbxd.tfevents.event_file import EventFile, FileLost
from tbxd.tfevents.ledger import (
    OVER,
    TEXT_CHARS,
    Entry,
    Ledger,
    LedgerReader,
    Marker,
    carry_over,
    forgotten,
    merge,
    notes,
)
from tbxd.tfevents.scalar_encoder import ScalarEncoder, varint
from tbxd.tfevents.tfrecord import READ_BYTES, TAIL, DamagedFile, frame, read_records
from tbxd_client.logdir.event_names import event_files, file_name

TWO = struct.pack("<f", 2.0)
SESSIONS = [bytes([number]) * 12 for number in range(1, 4)]

settlings = st.lists(
    st.tuples(
        st.integers(0, 2),  # session
        st.sampled_from([34, 34, 34, 100, 5000]),  # bytes of the record
        st.sampled_from([0, 0, 0, 66]),  # bytes of another run's record before it
        st.sampled_from(["", "", "", "", "bad_record", "no_finite_values"]),
        st.sampled_from([0, 0, 0, 1, 300]),  # records that its trainer has dropped meanwhile
        st.sampled_from([0, 0, 1, 1, 2, 5, 100]),  # values that are each a record; 0: an event of one record
    ),
    max_size=80,
)


@given(settlings)
def test_the_marks_before_any_event_say_what_is_settled(events: list[tuple[int, int, int, str, int, int]]) -> None:
    marker, reader = Marker(), LedgerReader()
    reader.follow("tbxd 0")
    for text in carry_over({}):
        reader.follow(text)
    truth: Ledger = {}
    for number, size, gap, refusal, drops, values in events:
        session = SESSIONS[number]
        entry = truth.setdefault(session, Entry())
        if drops:
            entry.dropped = {"journal_full": entry.dropped.get("journal_full", 0) + drops}
            for text in notes({session: entry.dropped}):
                reader.follow(text)
            assert reader.ledger == truth
        if values:
            entry.end += gap + values * size
            entry.count += values
            reader.follow(marker.mark_values(session, entry, size, values), values)
            assert reader.ledger == truth
            continue
        entry.end += gap + size
        entry.count += 1
        if refusal:
            entry.refused = {**entry.refused, refusal: entry.refused.get(refusal, 0) + 1}
        reader.follow(marker.mark(session, entry, size, refused=bool(refusal)), 7)
        assert reader.ledger == truth
    assert reader.complete


@given(settlings)
def test_a_ledger_is_carried_over_whole(events: list[tuple[int, int, int, str, int, int]]) -> None:
    ledger: Ledger = {}
    for number, size, _, refusal, drops, _ in events:
        entry = ledger.setdefault(SESSIONS[number], Entry())
        entry.end += size
        entry.count += 1
        if refusal:
            entry.refused = {**entry.refused, refusal: 1}
        if drops:
            entry.dropped = {"journal_full": drops, "too_large": 1}
    reader = LedgerReader()
    reader.follow("tbxd 0")
    for text in carry_over(ledger):
        assert not reader.complete
        assert len(text) <= TEXT_CHARS, "or TensorBoard's slow loader logs an error"
        reader.follow(text)
    assert reader.complete
    assert reader.ledger == ledger


def test_a_record_that_follows_what_is_no_session_s_has_a_mark_of_its_own() -> None:
    """Points of ranks, notes of other sessions: a reader counts nothing behind them that is not marked."""
    session, marker = bytes(range(12)), Marker()
    assert marker.mark(session, Entry(34, 1), 34) and not marker.mark(session, Entry(68, 2), 34)
    marker.interrupt()
    assert marker.mark(session, Entry(102, 3), 34)
    assert marker.mark_values(session, Entry(170, 5), 34, 2) and not marker.mark_values(session, Entry(204, 6), 34, 1)
    marker.settle({bytes(12): Entry(34, 1)})
    assert marker.mark_values(session, Entry(238, 7), 34, 1)


def test_what_follows_a_note_or_a_point_of_ranks_without_a_mark_is_nobodys_record() -> None:
    marker, reader, session = Marker(), LedgerReader(), SESSIONS[0]
    reader.follow("tbxd 1")
    reader.follow(marker.mark(session, Entry(34, 1), 34))
    for text in (*marker.settle({SESSIONS[1]: Entry(99, 3)}), "R0-1", "Gjob.0.2", "I0,AAAAAAAAAAAAAAAA"):
        reader.follow(text)
        reader.follow("")
        assert reader.ledger[session] == Entry(34, 1), text
    assert reader.ledger[SESSIONS[1]] == Entry(99, 3)
    reader.follow(marker.mark(session, Entry(68, 2), 34))
    reader.follow("")
    assert reader.ledger[session] == Entry(102, 3)


def test_scalars_that_follow_each_other_share_one_mark_of_few_bytes() -> None:
    marker = Marker()
    entry = Entry()
    marks = []
    for _ in range(1000):
        entry.end += 34
        entry.count += 1
        marks.append(marker.mark(SESSIONS[0], entry, 34))
    assert [mark for mark in marks[1:] if mark] == []
    entry.end += 100
    entry.count += 1
    assert len(marker.mark(SESSIONS[0], entry, 34)) < 20


def test_what_a_version_before_had_written_is_read_as_it_was_meant() -> None:
    """One record for each event, however many values it has."""
    reader = LedgerReader()
    for text, values in (("tbxd 0.1.0", 0), ("M0=AAECAwQFBgcICQoL,22,22,1", 1), ("", 1), ("", 2), ("M0,ca,64,4", 2)):
        reader.follow(text, values)
    assert reader.ledger == {bytes(range(12)): Entry(0xCA, 4)}
    reader.follow("", 5)
    assert reader.ledger == {bytes(range(12)): Entry(0xCA + 0x64, 5)}


def test_a_hundred_scalars_in_an_event_need_no_mark_of_their_own() -> None:
    marker, reader = Marker(), LedgerReader()
    reader.follow("tbxd 0")
    entry = Entry()
    marks = []
    for _ in range(10):
        entry.end += 100 * 34
        entry.count += 100
        marks.append(marker.mark_values(SESSIONS[0], entry, 34, 100))
        reader.follow(marks[-1], 100)
    assert [bool(mark) for mark in marks] == [True] + [False] * 9
    assert reader.ledger == {SESSIONS[0]: entry}


@given(st.text(max_size=100))
def test_a_mark_of_any_text_is_passed_over(text: str) -> None:
    reader = LedgerReader()
    reader.follow(text)
    reader.follow("tbxd 0")
    reader.follow(text)


def test_merging_keeps_what_is_further_on() -> None:
    ledger = {SESSIONS[0]: Entry(10, 1)}
    merge(ledger, {SESSIONS[0]: Entry(5, 1), SESSIONS[1]: Entry(7, 2)})
    assert ledger == {SESSIONS[0]: Entry(10, 1), SESSIONS[1]: Entry(7, 2)}


# --- records -----------------------------------------------------------------------------------------------------


def test_a_file_cut_at_any_byte_gives_the_whole_records_before_the_cut() -> None:
    records = [b"", b"a", b"bb" * 50, b"c" * 300]
    data = b"".join(map(frame, records))
    ends = [sum(len(frame(record)) for record in records[: count + 1]) for count in range(len(records))]
    for cut in range(len(data) + 1):
        file = io.BytesIO(data[:cut])
        found = list(read_records(file.read))
        assert [record for _, record in found] == records[: len(found)]
        assert len(found) == sum(end <= cut for end in ends)
        assert [end for end, _ in found] == ends[: len(found)]


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_flipped_byte_never_gives_a_wrong_record(position: int, flip: int) -> None:
    records = [b"first record", b"second record", b"third" * 30]
    data = bytearray(b"".join(map(frame, records)))
    data[position % len(data)] ^= flip
    found = []
    try:
        for _, record in read_records(io.BytesIO(data).read):
            found.append(record)
    except DamagedFile:
        pass
    assert found == records[: len(found)]
    assert len(found) < 3


@given(st.integers(1, 50))
def test_reading_in_small_pieces_makes_no_difference(size: int) -> None:
    records = [bytes([number]) * number for number in range(60)]
    file = io.BytesIO(b"".join(map(frame, records)))
    assert [record for _, record in read_records(lambda _: file.read(size))] == records


# --- files -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_ledger_of_a_folder_is_right_wherever_its_newest_file_is_cut(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    truth: dict[bytes, Entry] = {}
    ends: list[tuple[int, dict[bytes, tuple[int, int]]]] = []
    position = 0
    for _ in range(data.draw(st.integers(1, 3), label="files")):
        names = event_files(folder)
        path = folder / file_name(names, 0, "host", 1)
        marker = Marker()
        pieces = []
        first = schema.Event(wall_time=1.0, file_version="brain.Event:2")
        first.source_metadata.writer = "tbxd 0"
        pieces.append(frame(first.SerializeToString()))
        for text in carry_over(contents_of(folder).ledger()):
            event = schema.Event(wall_time=1.0)
            event.source_metadata.writer = text
            pieces.append(frame(event.SerializeToString()))
        size = sum(map(len, pieces))
        ends = [(size, {session: (entry.end, entry.count) for session, entry in truth.items()})]
        encoder = ScalarEncoder()
        for number in data.draw(st.lists(st.integers(0, 2), max_size=20), label="events"):
            position += 34
            entry = truth.setdefault(SESSIONS[number], Entry())
            entry.end, entry.count = position, entry.count + 1
            mark = marker.mark(SESSIONS[number], entry, 34)
            pieces.append(encoder.event(["tag"], position, 1.0, TWO, mark))
            size += len(pieces[-1])
            ends.append((size, {session: (entry.end, entry.count) for session, entry in truth.items()}))
        path.write_bytes(b"".join(pieces))
    cut = data.draw(st.integers(ends[0][0], ends[-1][0]), label="cut")
    path.write_bytes(path.read_bytes()[:cut])
    expected = [state for end, state in ends if end <= cut][-1]
    found = contents_of(folder).ledger()
    assert {session: (entry.end, entry.count) for session, entry in found.items()} == expected


def test_a_newest_file_that_was_cut_before_its_ledger_sends_the_reader_to_the_one_before(tmp_path: Path) -> None:
    first = schema.Event(wall_time=1.0, file_version="brain.Event:2")
    first.source_metadata.writer = "tbxd 0"
    opening = frame(first.SerializeToString())
    marked = ScalarEncoder().event(["x"], 1, 1.0, TWO, Marker().mark(SESSIONS[0], Entry(34, 1), 34))
    (tmp_path / "events.out.tfevents.1000000000.h.1.0").write_bytes(opening + marked)
    for later in (b"", opening[:5], opening, b"not ours"):
        (tmp_path / "events.out.tfevents.1000000001.h.1.0").write_bytes(later)
        assert contents_of(tmp_path).ledger() == {SESSIONS[0]: Entry(34, 1)}


@given(st.integers(0, 9_999_999_998), st.lists(st.integers(0, 9_999_999_997), max_size=5))
def test_a_new_name_sorts_behind_every_other_whatever_the_clock_says(now: int, earlier: list[int]) -> None:
    names = [f"events.out.tfevents.{second:010d}.zzz.99999.9" for second in earlier]
    assert all(name < file_name(names, now, "a-host", 1) for name in names)


def test_a_host_name_cannot_lead_out_of_the_folder() -> None:
    assert "/" not in file_name([], 0, "../../x", 1)


def test_a_file_that_somebody_changed_is_not_written_to_any_more(tmp_path: Path) -> None:
    for number, meddle in enumerate(
        (
            lambda path: path.unlink(),
            lambda path: path.write_bytes(b""),
            lambda path: path.rename(path.with_suffix(".moved")),
            lambda path: (path.unlink(), path.symlink_to("/dev/null")),
        )
    ):
        file = EventFile(tmp_path / f"tfevents.{number}")
        file.write(b"data")
        meddle(file.path)
        with pytest.raises(FileLost):
            file.write(b"more")
        file.close()


def test_a_parked_file_is_gone_on_with(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "tfevents")
    file.write(b"one")
    file.park()
    file.write(b"two")
    file.close()
    assert file.path.read_bytes() == b"onetwo"
    with pytest.raises(FileExistsError):
        EventFile(file.path)


# --- scalars -----------------------------------------------------------------------------------------------------


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.floats(width=32),
    st.sampled_from(["", "M0,22,22,1"]),
)
def test_a_scalar_event_by_hand_is_the_one_that_protobuf_reads(
    tag: str, step: int, wall_time: float, value: float, mark: str
) -> None:
    encoder = ScalarEncoder()
    for _ in range(2):  # the second comes from what the first has left in the caches
        ((_, data),) = read_records(
            io.BytesIO(encoder.event([tag], step, wall_time, struct.pack("<f", value), mark)).read
        )
        event = schema.Event()
        event.ParseFromString(data)
        assert (event.step, event.wall_time, event.source_metadata.writer) == (step, wall_time, mark)
        (shown,) = event.summary.value
        assert shown.tag == tag
        assert shown.simple_value == value or value != value


def test_varints_are_protobufs() -> None:
    assert [varint(number) for number in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]
    assert varint(-1) == b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    "text",
    [
        "M0=AAECAwQFBgcICQoL,{0},22,1",
        "M0=AAECAwQFBgcICQoL,22,{0},1",
        "M0=AAECAwQFBgcICQoL,22,22,{0}",
        "V0=AAECAwQFBgcICQoL,{0},22,1",
        "V0=AAECAwQFBgcICQoL,22,{0},1",
        "V0=AAECAwQFBgcICQoL,22,22,{0}",
        "M0=AAECAwQFBgcICQoL,22,22,1,bad_record:{0}",
        "LAAECAwQFBgcICQoL,{0},1",
        "LAAECAwQFBgcICQoL,22,{0}",
        "LAAECAwQFBgcICQoL,22,1,bad_record:{0}",
        "NAAECAwQFBgcICQoL,journal_full:{0}",
    ],
)
def test_numbers_that_64_bits_do_not_hold_are_none(text: str) -> None:
    for digits in ("f" * 16, "f" * 1000):
        reader = LedgerReader()
        for line in ("tbxd 0", text.format(digits), "", "", ""):
            reader.follow(line)
        for entry in reader.ledger.values():
            assert entry.end <= 0x22 * 4 and entry.count <= 4
            assert not entry.refused and not entry.dropped


def test_a_length_that_goes_far_beyond_the_file_takes_no_memory() -> None:
    length = (1 << 30).to_bytes(8, "little")
    file = io.BytesIO(frame(b"first") + length + TAIL.pack(masked_crc(length)) + bytes(100))
    asked = []

    def read(size: int) -> bytes:
        asked.append(size)
        return file.read(size)

    assert [data for _, data in read_records(read)] == [b"first"]
    assert max(asked) <= READ_BYTES


def test_a_mark_at_the_end_of_all_positions_is_carried_over_with_what_follows_it() -> None:
    reader, again = LedgerReader(), LedgerReader()
    for text in ("tbxd 0", f"M0=AAECAwQFBgcICQoL,{'f' * 15},{'f' * 8},{'f' * 15}", *[""] * 100):
        reader.follow(text)
    for text in ("tbxd 0", *carry_over(reader.ledger)):
        again.follow(text)
    assert again.ledger == reader.ledger and reader.ledger[bytes(range(12))].end < 1 << 63


def test_sessions_that_are_over_are_one_entry_with_what_all_have_come_to() -> None:
    ledger = {
        SESSIONS[0]: Entry(34, 5, {"bad_record": 1}, {"journal_full": 2}),
        SESSIONS[1]: Entry(68, 7, {"bad_record": 2, "bad_bins": 1}),
        SESSIONS[2]: Entry(3, 3),
    }
    over = {SESSIONS[0], SESSIONS[1]}
    once = forgotten(ledger, over)
    total = Entry(12, 12, {"bad_record": 3, "bad_bins": 1}, {"journal_full": 2})
    assert once == {SESSIONS[2]: Entry(3, 3), OVER: total}
    assert forgotten(once, over) == once
    assert forgotten({**once, SESSIONS[1]: Entry(68, 7)}, over)[OVER].count == 19
    assert forgotten({SESSIONS[2]: Entry(3, 3)}, over) == {SESSIONS[2]: Entry(3, 3)}
    reader = LedgerReader()
    for text in ["tbxd 0", *carry_over(once)]:
        reader.follow(text)
    assert reader.ledger == once and reader.complete
