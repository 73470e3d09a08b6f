"""A journal's system calls and its use of files: the calls are recorded, and some of them fail."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tbxd_client.journal import durability, journal_files, segments
from tbxd_client.journal.journal import CLOSED, Journal, JournalClosed
from tbxd_client.journal.journal_files import (
    CONTROL_NAME,
    DEFINITIONS_BYTES_MAX,
    DEFINITIONS_NAME,
    JournalReader,
    read_state,
    segment_name,
    sync_folder,
)
from tbxd_client.journal.segments import FREE_SEGMENTS_MAX, RETRY_SECONDS, SEGMENT_BYTES_MIN
from tbxd_client.journal.storing import Ready

MIB = 1 << 20


class Disk:
    """Notes by their names which files are synced, and fails where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.stored: list[str] = []
        self.fails: Callable[[str], bool] = lambda name: False
        fdatasync, fsync, pwrite = os.fdatasync, os.fsync, os.pwrite

        def name_of(file: Any) -> str:
            number = file if isinstance(file, int) else file.fileno()
            return os.path.basename(os.readlink(f"/proc/self/fd/{number}"))

        def synced(really: Callable[[Any], None]) -> Callable[[Any], None]:
            def sync(file: Any) -> None:
                name = name_of(file)
                if self.fails(name):
                    raise OSError(errno.ENOSPC, f"no room for {name}")
                self.synced.append(name)
                really(file)

            return sync

        def stored(file: int, data: Any, offset: int) -> int:
            self.stored.append(name_of(file))
            return pwrite(file, data, offset)

        monkeypatch.setattr(os, "fdatasync", synced(fdatasync))
        monkeypatch.setattr(os, "fsync", synced(fsync))
        monkeypatch.setattr(os, "pwrite", stored)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The journal's clock."""
    now = [1000.0]
    for module in (durability, segments):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def everything(source: Any, begin: int) -> bytes:
    found = b""
    while stretch := source.read(begin + len(found), 1 << 20):
        found += stretch
    return found


# --- onto the disk ------------------------------------------------------------------------------------------------


def test_a_sync_brings_all_files_with_something_new_onto_the_disk_their_names_first_and_the_word_of_it_last(
    tmp_path: Path, disk: Disk
) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.define(b"definition")
    assert journal.append(b"a" * 900_000) == "" and journal.append(b"b" * 900_000) == ""
    disk.synced.clear()
    journal.sync()
    folders = [journal.path.name, tmp_path.name]
    assert disk.synced == [segment_name(1), segment_name(2), DEFINITIONS_NAME, *folders, CONTROL_NAME]
    assert read_state(journal.path).synced == journal.committed
    disk.synced.clear()
    journal.sync()
    assert disk.synced == [], "nothing is new"
    assert journal.append(b"c" * 100) == ""
    journal.sync()
    assert disk.synced == [segment_name(2), DEFINITIONS_NAME, CONTROL_NAME], "the first file and the names are there"
    journal.close()


def test_what_a_sync_that_failed_has_left_behind_is_stored_again_before_the_next(
    tmp_path: Path, disk: Disk, clock: list[float]
) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.define(b"definition")
    assert journal.append(b"a" * 1000) == ""
    disk.fails = lambda name: name == segment_name(1)
    with pytest.raises(OSError, match="no room"):
        journal.sync()
    assert read_state(journal.path).synced == 0
    disk.fails = lambda name: False
    disk.stored.clear()
    journal.sync()
    assert disk.synced == [] and disk.stored == [], "a disk that has refused is left alone for a second"
    clock[0] += RETRY_SECONDS
    journal.sync()
    assert disk.stored == [DEFINITIONS_NAME, segment_name(1), CONTROL_NAME]
    assert read_state(journal.path).synced == journal.committed
    assert everything(journal, 0) == b"a" * 1000 and journal.read_definitions(0, 100) == b"definition"
    disk.stored.clear()
    assert journal.append(b"b") == ""
    journal.sync()
    assert disk.stored == [CONTROL_NAME], "once"
    journal.close()


@pytest.mark.parametrize(("number", "raises"), [(errno.EIO, True), (errno.EINVAL, False), (errno.ENOTSUP, False)])
def test_a_disk_that_fails_with_a_folder_is_heard_and_one_that_syncs_none_is_not_asked_for_it(
    number: int, raises: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if raises:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def test_in_a_durable_journal_what_is_released_is_on_the_disk_before_its_file_is_used_again(
    tmp_path: Path, disk: Disk
) -> None:
    """Else a crash might leave the head of what a file held above some of what it holds now."""
    for durable in (True, False):
        journal = Journal(tmp_path, lambda: False, durable=durable)
        assert journal.append(b"a" * 900_000) == "" and journal.append(b"b" * 900_000) == ""
        journal.release(journal.committed)
        disk.synced.clear()
        disk.stored.clear()
        assert journal.append(b"c" * 900_000) == ""
        assert journal._segments.live[-1].base == 1_800_000 and len(list(journal.path.glob("*.segment"))) == 2
        assert (disk.synced[:1] == [CONTROL_NAME]) is durable
        journal.close()


def test_after_a_crash_nothing_is_trusted_that_was_not_synced_also_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.append(b"a" * 100)
    path = journal.path
    journal.close()
    monkeypatch.setattr("tbxd_client.journal.journal_files.boot_id", lambda: bytes(15) + b"\1")
    reader = JournalReader(path)
    assert reader.state.readable_end == 0 and reader.read(0, 100) == b""
    reader.close()


# --- files --------------------------------------------------------------------------------------------------------


def test_files_grow_and_are_used_again_and_few_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False, bytes_max=64 * MIB)
    stream = b""
    for number in range(30):
        record = bytes([number]) * 900_000
        assert journal.append(record) == ""
        stream += record
    assert everything(journal, 0) == stream
    reads = [journal.locate(position)[0] for position in range(0, len(stream), 900_000)]
    assert all(
        segment.base <= position for segment, position in zip(reads, range(0, len(stream), 900_000), strict=True)
    )
    most = len(journal._segments.live)
    journal.release(journal.committed)
    assert len(journal._segments.live) == 1 and len(journal._segments.free) <= FREE_SEGMENTS_MAX < most
    there = {path.name for path in journal.path.glob("*.segment")}
    assert there == {segment.path.name for segment in (*journal._segments.live, *journal._segments.free)}
    for _ in range(200):
        assert journal.append(bytes(700_000)) == ""
        journal.release(journal.committed)
    assert {path.name for path in journal.path.glob("*.segment")} <= there, "no further one was made"
    journal.close()


def test_a_file_whose_last_record_is_acknowledged_is_free_and_one_before_that_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    first = 900_000
    assert journal.append(bytes(first)) == "" and journal.append(bytes(first)) == ""
    journal.release(first - 1)
    assert len(journal._segments.live) == 2
    journal.release(first)
    assert len(journal._segments.live) == 1 and len(journal._segments.free) == 1
    assert journal._segments.free[0].base == journal_files.FREE and journal._segments.free[0].end == journal_files.FREE
    state = read_state(journal.path)
    assert state.released == first
    journal.close()


def test_a_record_never_goes_into_a_file_that_is_too_small_for_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False, bytes_max=64 * MIB)
    for size in (900_000, 1_000_000, 5_000_000, 900_000, 9_000_000, 2_000_000, 12_000_000, 100):
        record = os.urandom(16) * (size // 16)
        begin = journal.position
        assert journal.append(record) == ""
        assert everything(journal, begin) == record
        for segment in journal._segments.live:
            assert segment.file_bytes == segment.path.stat().st_size
        journal.release(journal.committed)
    journal.close()


def test_a_file_for_which_the_disk_has_no_room_leaves_nothing_and_is_not_asked_for_again_for_a_second(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, lambda: False)
    assert journal.append(bytes(900_000)) == ""
    allocate, asked = os.posix_fallocate, [0]

    def full(fd: int, offset: int, length: int) -> None:
        asked[0] += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(20):
        assert journal.append(bytes(900_000)) == "journal_error"
    assert 1 <= asked[0] <= 2 and len(list(journal.path.glob("*.segment"))) == 1
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert journal.append(bytes(900_000)) == "journal_error"
    clock[0] += RETRY_SECONDS
    assert journal.append(bytes(900_000)) == "" and journal.append(bytes(900_000)) == ""
    journal.close()


# --- room ---------------------------------------------------------------------------------------------------------


def test_in_a_full_journal_one_call_waits_until_something_is_released(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False, bytes_max=SEGMENT_BYTES_MIN, block_seconds=0.3)
    while journal.append(bytes(100_000)) == "":
        pass
    for _ in range(2):
        began = time.monotonic()
        assert journal.append(bytes(100_000)) == "journal_full"
        assert time.monotonic() - began < 0.2, "one has waited in vain already"
        journal.release(journal.released + 100_000)
        began = time.monotonic()
        assert journal.append(bytes(200_000)) == "journal_full"
        assert time.monotonic() - began >= 0.25, "there may be more room in a moment"
    journal.close()


def test_a_record_of_which_the_commit_fails_leaves_no_hole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    assert journal.append(b"a" * 100) == ""
    words = journal._words

    class Refuses:
        def __setitem__(self, word: int, value: int) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        def __getitem__(self, word: Any) -> Any:
            return words[word]

    journal._words = Refuses()  # type: ignore[assignment]
    with pytest.raises(OSError, match="quota"):  # as it cannot even be counted
        journal.append(b"b" * 100)
    journal._words = words
    assert journal.position == journal.committed == 100
    assert journal.append(b"c" * 100) == ""
    assert everything(journal, 0) == b"a" * 100 + b"c" * 100
    journal.close()


def test_who_asks_to_be_woken_in_the_midst_of_a_record_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    position = journal.position
    journal._writing = True
    assert not journal.arm(position)
    journal._writing = False
    assert journal.arm(position) and journal.limit == CLOSED
    journal.close()


def test_what_was_stored_and_not_committed_is_committed_by_who_flushes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.buffer[journal.position - journal.base : journal.position - journal.base + 34] = b"x" * 34
    journal.position += 34  # as in the hot path, which a handler interrupts here
    assert journal.committed == 0
    assert journal.commit() == 34 and journal.committed == 34
    journal.close()


def test_the_journal_says_how_many_records_were_logged_and_how_far_they_are_released(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    for _ in range(3):
        assert journal.append(b"a" * 100) == ""
    journal.note_records(7)
    journal.count_drop("too_large")
    journal.release(200)
    path = journal.path
    journal.close()
    state = read_state(path)
    assert (state.records, state.released, state.commit, state.dropped) == (7, 200, 300, {"too_large": 1})


def test_a_journal_in_which_nothing_was_logged_makes_sense(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    assert read_state(journal.path).commit == 0
    journal.close()


# --- out of reach, and elsewhere ----------------------------------------------------------------------------------


def test_the_definitions_of_a_journal_that_is_out_of_reach_are_still_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.define(b"a" * 1000)
    journal.define(b"b" * 1000)
    journal._seal(OSError(errno.EIO, "gone"))
    journal.files.definitions_file.close()
    journal.files.definitions_file.path = tmp_path / "nowhere"
    assert journal.read_definitions(500, 1000) == b"a" * 500 + b"b" * 500
    with pytest.raises(JournalClosed):
        journal.define(b"c")
    journal.close()


def test_a_disk_that_is_gone_takes_no_store_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is not made ready, so a store into it would end this process: nothing is stored."""
    journal = Journal(tmp_path, lambda: False)
    assert journal.append(b"a" * 34) == ""

    def gone(*arguments: Any) -> None:
        raise OSError(errno.EIO, "its disk takes nothing more")

    monkeypatch.setattr(Ready, "make", gone)
    journal._stale, journal.limit = True, CLOSED
    with pytest.raises(JournalClosed):
        journal.append(b"b" * 34)
    assert journal.sealed and journal.limit == CLOSED and journal.committed == 34
    journal.close()


def test_a_session_has_so_many_bytes_of_definitions_and_no_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.definitions_end = DEFINITIONS_BYTES_MAX - 5
    with pytest.raises(OSError, match="runs and tags in one session"):
        journal.define(b"123456")
    journal.close()


def test_a_definition_that_the_disk_takes_in_part_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.define(b"first")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(OSError, match="No space"):
        journal.define(b"second")
    monkeypatch.setattr(os, "write", write)
    journal.define(b"third")
    assert journal.read_definitions(0, 100) == b"firstthird"
    assert (journal.path / DEFINITIONS_NAME).read_bytes() == b"firstthird"
    journal.close()


def test_a_record_that_was_put_off_is_in_a_journal_that_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal._writing = True
    assert journal.append(b"handler's") == "" and journal.committed == 0
    journal._writing = False
    path = journal.path
    journal.close()
    assert read_state(path).commit == len(b"handler's")


def test_a_child_cannot_log_into_the_journal_of_its_parent(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    journal.abandon()
    for call in (lambda: journal.append(b"child"), lambda: journal.define(b"child")):
        with pytest.raises(JournalClosed):
            call()
    assert journal.limit == CLOSED and not journal.close()
    assert read_state(journal.path).commit == 0 and (journal.path / CONTROL_NAME).exists()


def test_how_far_an_adopted_journal_is_written_is_noted_in_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    for _ in range(3):
        journal.append(b"a" * 100)
    path = journal.path
    journal.close()
    for position in (100, 200, 150):
        reader = JournalReader(path)
        reader.release(position)
        reader.close()
    assert read_state(path).released == 200


def test_a_file_that_was_given_up_is_not_read_as_what_it_held(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    for letter in (b"a", b"b", b"c"):
        assert journal.append(letter * 900_000) == ""
    journal.release(900_000)
    path = journal.path
    journal.close()
    assert len(list(path.glob("*.segment"))) == 2
    reader = JournalReader(path)
    assert [base for base, _, _ in reader._segments] == [900_000]
    assert everything(reader, 900_000) == b"b" * 900_000 + b"c" * 900_000
    reader.remove()
