"""The journal: what an append has returned for can be read by whoever comes after, and space is used again."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tbxd_client.journal import segments
from tbxd_client.journal.journal import CLOSED, MAPPED_RECORD_BYTES_MAX, Journal, JournalClosed
from tbxd_client.journal.journal_files import (
    DEFINITIONS_NAME,
    JournalBusy,
    JournalError,
    JournalReader,
    journals,
    read_state,
    segment_name,
)
from tbxd_client.journal.segments import SEGMENT_BYTES_MIN
from tbxd_client.process import descriptors
from tbxd_client.protocol.kinds import HISTOGRAM
from tbxd_client.protocol.records import ALIGNMENT, filled, pack_record_head


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path, lambda: None)
    yield made
    made.close()


def everything(source: Journal | JournalReader, begin: int, length: int = 1 << 20) -> bytes:
    found = bytearray()
    while stretch := source.read(begin + len(found), length):
        found += stretch
    return bytes(found)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 34, 1000, MAPPED_RECORD_BYTES_MAX, MAPPED_RECORD_BYTES_MAX + 1, 700_000, 2 << 20]),
            st.integers(0, 100),
        ),
        max_size=30,
    ),
    st.integers(1000, 1 << 20),
)
def test_what_is_appended_is_read_whatever_is_released_meanwhile(
    tmp_path: Path, appends: list[tuple[int, int]], length: int
) -> None:
    journal = Journal(tmp_path, lambda: None)
    expected = b""
    released = 0
    for number, (size, percent) in enumerate(appends):
        data = bytes([number % 251]) * size
        assert journal.append(data[: size // 2], memoryview(data)[size // 2 :]) == ""
        expected += data
        assert everything(journal, released, length) == expected[released:]
        released = max(released, len(expected) * percent // 100)
        journal.release(released)
    assert journal.committed == len(expected)
    assert everything(journal, released, length) == expected[released:]
    path = journal.path
    finished = journal.close()
    assert finished == (released == len(expected)) == (not path.exists())
    if not finished:
        reader = JournalReader(path)
        assert reader.state.session == journal.session
        assert everything(reader, reader.state.released, length) == expected[released:]
        reader.remove()


def test_the_reader_waits_for_the_owner_to_be_gone(journal: Journal) -> None:
    journal.append(b"x" * 34)
    with pytest.raises(JournalBusy):
        JournalReader(journal.path)
    assert read_state(journal.path).commit == 34


def test_what_a_killed_process_appended_is_there(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from tbxd_client.journal.journal import Journal
journal = Journal(Path(sys.argv[1]), lambda: None)
journal.define(b"definition")
for i in range(1000):
    journal.append(i.to_bytes(4, "big"))
journal.append(b"z" * 100_000)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    (path,) = journals(tmp_path)
    reader = JournalReader(path)
    expected = b"".join(i.to_bytes(4, "big") for i in range(1000)) + b"z" * 100_000
    assert everything(reader, 0) == expected
    assert reader.definitions(0, 100) == b"definition"
    reader.remove()
    assert journals(tmp_path) == []


def test_a_large_payload_is_put_where_it_is_copied_to_fastest(journal: Journal) -> None:
    head = pack_record_head(HISTOGRAM, 0, 0, 0.0, {}, 100_000)
    for excess in range(200):
        payload = os.urandom(100_000)
        journal.append(bytes(34))
        journal.append(head, payload, aligned=lambda offset, excess=excess: filled(head, excess - offset))
        journal.release(journal.position)
        (place,) = (place for path in journal.path.glob("*.segment") if (place := path.read_bytes().find(payload)) >= 0)
        assert place % ALIGNMENT == excess % ALIGNMENT


def test_space_is_used_again(tmp_path: Path) -> None:
    """A hundred times the bound goes through, as long as somebody releases; the folder stays small."""
    journal = Journal(tmp_path, lambda: None, bytes_max=4 << 20)
    for _ in range(400):
        assert journal.append(bytes(1 << 20)) == ""
        journal.release(journal.committed)
    assert sum(file.stat().st_size for file in journal.path.iterdir()) < 6 << 20
    journal.close()


def test_a_full_journal_waits_for_its_bound_once_and_then_drops_and_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: None, bytes_max=SEGMENT_BYTES_MIN, block_seconds=0.2)
    record = bytes(1000)
    kept = 0
    while (reason := journal.append(record)) == "":
        kept += 1
    assert reason == "journal_full"
    assert kept == SEGMENT_BYTES_MIN // 1000
    started = time.monotonic()
    assert [journal.append(record) for _ in range(100)] == ["journal_full"] * 100
    assert time.monotonic() - started < 0.2, "nobody waits again before something is released"
    assert journal.dropped() == {"journal_full": 101}
    journal.release(journal.committed)
    assert journal.append(record) == ""
    assert journal.append(bytes(SEGMENT_BYTES_MIN + 1)) == "too_large"
    journal.close()
    assert journal.dropped() == {"journal_full": 101, "too_large": 1}


def test_a_call_that_waits_goes_on_when_space_is_released(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: None, bytes_max=SEGMENT_BYTES_MIN, block_seconds=30)
    journal.append(bytes(SEGMENT_BYTES_MIN))
    result: list[str] = []
    waiter = threading.Thread(target=lambda: result.append(journal.append(b"more")))
    waiter.start()
    while not journal.release(journal.committed) or waiter.is_alive():
        waiter.join(0.01)
    assert result == [""]
    journal.close()


def test_threads_append_whole_records(journal: Journal) -> None:
    def work(number: int) -> None:
        for _ in range(200):
            journal.append(bytes([number]) * 100)
            journal.append(bytes([number]) * (MAPPED_RECORD_BYTES_MAX + 100 - MAPPED_RECORD_BYTES_MAX % 100))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = everything(journal, 0)
    assert len(data) == journal.committed
    records = np.frombuffer(data, np.uint8).reshape(-1, 100)
    assert (records == records[:, :1]).all()


def test_a_signal_handler_that_logs_in_the_middle_of_a_call_tears_nothing(tmp_path: Path) -> None:
    """The handler runs between any two bytecodes of the append it interrupts, on the same thread."""
    script = """
import os, signal, sys
from pathlib import Path
from tbxd_client.journal.journal import Journal
journal = Journal(Path(sys.argv[1]), lambda: None, bytes_max=1 << 30)
handled = 0
def handler(number, frame):
    global handled
    handled += 1
    assert journal.append(b"s" * 50) == ""
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
appended = 0
while handled < 300:
    assert journal.append(b"a" * 50) == ""
    assert journal.append(b"b" * 100_000) == ""
    appended += 1
    journal.release(journal.committed - 500_000) if journal.committed > 1 << 20 else None
signal.setitimer(signal.ITIMER_REAL, 0)
expected = appended * 100_050 + handled * 50
assert journal.commit() == journal.position == expected, (journal.committed, journal.position, expected)
data = b""
while stretch := journal.read(journal.released + len(data), 1 << 20):
    data += stretch
assert set(len(run) % 50 for run in data.replace(b"s", b"").split(b"a") if run) <= {0}
print("ok")
"""
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.stdout == "ok\n", result.stderr


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: None)
    journal.close()
    journal.close()
    with pytest.raises(JournalClosed):
        journal.append(b"x")
    with pytest.raises(JournalClosed):
        journal.define(b"x")


def test_arming_rings_with_the_next_record_and_only_then(tmp_path: Path) -> None:
    rung: list[int] = []
    journal = Journal(tmp_path, lambda: rung.append(1))
    journal.append(b"x")
    assert not journal.arm(0), "there is a record behind position 0"
    assert journal.arm(1)
    before = len(rung)
    journal.append(b"y")
    journal.append(b"z")
    assert len(rung) == before + 1
    journal.close()


def test_a_full_disk_is_an_error_in_the_call_and_never_a_bus_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, lambda: None)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert journal.append(bytes(900_000)) == ""
    assert journal.append(bytes(900_000)) == "journal_error"
    assert journal.append(b"small") == ""
    with pytest.raises(OSError, match="No space"):
        Journal(tmp_path, lambda: None)
    assert len(list(tmp_path.iterdir())) == 1, "nothing half made stays behind"
    journal.close()


class Held(bytearray):
    """What is to be logged, by something that tells whether it is still held."""


def test_what_could_not_be_kept_is_let_go_of_with_its_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is left alone for a second; what is dropped meanwhile, large perhaps, is not held."""
    journal = Journal(tmp_path, lambda: False)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    gc.disable()  # as programs that train do
    try:
        held = []
        for _ in range(20):
            value = Held(2 << 20)
            held.append(weakref.ref(value))
            assert journal.append(b"head", memoryview(value)) == "journal_error"
            del value
        assert [reference() is None for reference in held] == [True] * 20
    finally:
        gc.enable()
    assert journal.dropped() == {"journal_error": 20}
    assert journal.append(b"small") == ""
    journal.close()


def test_a_journal_whose_folder_is_gone_takes_no_more_and_is_read_to_its_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    assert journal.append(b"a" * 1000) == "" and not journal.look()
    before = journal.path
    shutil.rmtree(before)
    with pytest.raises(JournalClosed):
        journal.append(bytes(2 << 20))  # which no segment fits
    assert journal.sealed and journal.look() and journal.limit == CLOSED
    with pytest.raises(JournalClosed):
        journal.append(b"b")
    with pytest.raises(JournalClosed):
        journal.define(b"b")
    assert journal.read(0, 2000) == b"a" * 1000
    assert journal.release(1000)
    assert journal.close() and not before.exists()


def test_a_look_at_a_journal_finds_whatever_has_become_of_its_files(tmp_path: Path) -> None:
    def emptied(path: Path) -> None:
        for entry in path.iterdir():
            entry.unlink()

    def renamed(path: Path) -> None:
        path.rename(path.with_name("elsewhere"))

    def replaced(path: Path) -> None:
        renamed(path)
        shutil.copytree(path.with_name("elsewhere"), path)

    def segment_removed(path: Path) -> None:
        (path / segment_name(1)).unlink()

    def segment_cut(path: Path) -> None:
        os.truncate(path / segment_name(1), 4096)

    def definitions_cut(path: Path) -> None:
        os.truncate(path / DEFINITIONS_NAME, 0)

    for happens in (emptied, renamed, replaced, segment_removed, segment_cut, definitions_cut):
        spool = tmp_path / happens.__name__
        spool.mkdir()
        journal = Journal(spool, lambda: False)
        journal.define(b"x")
        journal.append(b"y")
        assert not journal.look()
        happens(journal.path)
        assert journal.look(), happens.__name__
        journal.close()


def test_a_segment_cannot_be_cut_by_its_name_except_by_root(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: False)
    mode = (journal.path / segment_name(1)).stat().st_mode
    assert mode & 0o222 == 0
    if os.getuid():
        with pytest.raises(PermissionError):
            os.truncate(journal.path / segment_name(1), 0)
    # Where the program has closed our descriptors the file is opened again all the same.
    segment = journal._segments.live[-1]
    os.close(segment.file.number)
    assert os.pwrite(segment.file.valid(), b"x", 100) == 1
    assert (journal.path / segment_name(1)).stat().st_mode == mode
    journal.close()


def test_after_a_crash_of_the_machine_only_what_was_synced_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, lambda: None)
    journal.append(b"a" * 100)
    journal.sync()
    journal.append(b"b" * 100)
    path = journal.path
    journal.close()
    assert read_state(path).readable_end == 200
    monkeypatch.setattr("tbxd_client.journal.journal_files.boot_id", lambda: bytes(15) + b"\1")
    assert read_state(path).readable_end == 100
    reader = JournalReader(path)
    assert everything(reader, 0) == b"a" * 100
    reader.remove()


def test_after_a_crash_what_had_been_released_and_given_up_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control page may have reached the disk before its last changes, and the files after them."""
    journal = Journal(tmp_path, lambda: None)
    for letter in (b"a", b"b", b"c"):
        assert journal.append(letter * 900_000) == ""
    journal.sync()
    path, older = journal.path, (journal.path / "control").read_bytes()
    journal.release(900_000)  # the first file is free
    journal.close()
    (path / "control").write_bytes(older)
    reader = JournalReader(path)
    with pytest.raises(JournalError, match="no segment holds position 0"):
        everything(reader, 0)
    reader.close()
    monkeypatch.setattr("tbxd_client.journal.journal_files.boot_id", lambda: bytes(15) + b"\1")
    reader = JournalReader(path)
    assert reader.state.released == 900_000 and reader.state.readable_end == reader.state.commit == 2_700_000
    assert everything(reader, 900_000) == b"b" * 900_000 + b"c" * 900_000
    reader.remove()


def test_in_a_durable_journal_whatever_has_been_appended_has_been_synced(tmp_path: Path) -> None:
    """Also by threads at once, through files that are used again, and what is large."""
    journal = Journal(tmp_path, lambda: None, bytes_max=8 << 20, durable=True)
    assert journal.limit < 0, "no call takes the short way"
    late = []

    def work(size: int) -> None:
        for _ in range(150):
            assert journal.append(bytes(size)) == ""
            end = journal.position
            if read_state(journal.path).synced < end - 3 * 50_000:  # records of others have got their place since
                late.append(end)

    threads = [threading.Thread(target=work, args=(size,)) for size in (34, 3000, 50_000)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.001)  # and not without a pause, in which they could not append
        journal.release(journal.committed)
        assert journal.limit < 0
    assert not late
    state = read_state(journal.path)
    assert state.synced == state.commit == 150 * (34 + 3000 + 50_000)
    assert journal.arm(journal.position) and journal.append(b"x") == "" and journal.limit < 0
    assert read_state(journal.path).synced == journal.position
    journal.release(journal.position)
    journal.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(["control", "definitions", "000001.segment"]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    st.none() | st.integers(0, 4096),
)
def test_a_damaged_journal_is_read_or_refused_but_never_takes_the_reader_down(
    tmp_path: Path, name: str, changes: list[tuple[int, int]], cut: int | None
) -> None:
    journal = Journal(tmp_path, lambda: None)
    journal.define(b"d" * 100)
    for _ in range(100):
        journal.append(b"x" * 34)
    path = journal.path
    journal.close()
    file = path / name
    data = bytearray(file.read_bytes()[:10_000])
    for position, value in changes:
        if position < len(data):
            data[position] = value
    file.write_bytes(data[:cut] if cut is not None else data)
    try:
        reader = JournalReader(path)
    except JournalError:
        pass
    else:
        try:
            position = reader.state.released
            while len(stretch := reader.read(position, 1 << 20)):
                position += len(stretch)
        except JournalError:
            pass
        reader.close()
    for entry in path.iterdir():
        entry.unlink()
    path.rmdir()


def test_what_is_planted_in_a_journal_is_not_followed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: None)
    journal.append(b"x")
    path = journal.path
    journal.close()
    (path / "definitions").unlink()
    (path / "definitions").symlink_to("/etc/passwd")
    with pytest.raises(JournalError):
        JournalReader(path)
    (path / "definitions").unlink()
    os.mkfifo(path / "definitions")
    with pytest.raises(JournalError):
        JournalReader(path)


DESCRIPTORS = """
import json, os, resource, sys, threading
from pathlib import Path
from tbxd_client.journal.journal import Journal
def mapped():
    return sum(".segment" in line for line in open("/proc/self/maps"))
before = len(os.listdir("/proc/self/fd"))
journal = Journal(Path(sys.argv[1]), lambda: None, bytes_max=8 << 30)
large = bytes(1 << 20)
most = maps = 0
failed = []
def sync():
    while not stop.is_set():
        try:
            journal.sync()
        except OSError as error:
            failed.append(str(error))
stop = threading.Event()
thread = threading.Thread(target=sync)
thread.start()
for number in range(int(sys.argv[2])):
    assert journal.append(number.to_bytes(4, "big"), large[4:]) == ""
    most = max(most, len(os.listdir("/proc/self/fd")) - before)
    maps = max(maps, mapped())
stop.set()
thread.join()
position = 0
for number in range(int(sys.argv[2])):  # whether its file rests or not
    found = b""
    while len(found) < 1 << 20:
        found += journal.read(position + len(found), (1 << 20) - len(found))
    assert int.from_bytes(found[:4], "big") == number and not any(found[4:]), number
    position += 1 << 20
    if number % 7 == 0:
        journal.release(position)
    most = max(most, len(os.listdir("/proc/self/fd")) - before)
journal.release(position)
print(json.dumps([most, maps, failed, len(journal._segments.live), len(list(journal.path.iterdir()))]))
assert journal.close()
print(json.dumps(len(os.listdir("/proc/self/fd")) - before))
"""


@pytest.mark.long
def test_a_journal_of_many_segments_takes_few_descriptors_and_maps(tmp_path: Path) -> None:
    """A backlog of 600 MiB is 40 files: two descriptors for each were 80, and a thousand with 8 GiB."""
    found = {}
    for megabytes in (100, 600):
        place = tmp_path / f"{megabytes}"
        place.mkdir()
        result = subprocess.run(
            [sys.executable, "-c", DESCRIPTORS, str(place), str(megabytes)], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        counts, left = map(json.loads, result.stdout.splitlines())
        most, maps, failed, live, files = counts
        assert not failed and left == 0
        assert live == 1 and files <= 2 + 1 + 4, "what is released is used again or deleted"
        found[megabytes] = most, maps
    assert found[600][0] <= 45 and found[600][1] <= 14, found


def test_a_backlog_whose_files_rest_outlives_its_trainer_and_a_disk_that_refused(tmp_path: Path) -> None:
    """All of it is synced, stored again after an fdatasync that failed, and read by who comes after."""
    journal = Journal(tmp_path, lambda: None, bytes_max=1 << 30)
    for number in range(300):
        journal.append(number.to_bytes(4, "big"), bytes((1 << 20) - 4))
    assert sum(segment.rests for segment in journal._segments.live) > 3
    journal._durability.failed = True
    journal.sync()
    assert read_state(journal.path).synced == journal.committed == 300 << 20
    path = journal.path
    assert not journal.close()
    reader = JournalReader(path)
    for number in range(300):
        assert reader.read(number << 20, 4) == number.to_bytes(4, "big")
    reader.remove()


@pytest.mark.parametrize("place", ["a map is made", "a segment is entered", "one begins to rest", "it has rested"])
def test_what_a_handler_raises_where_a_segment_ends_tears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A notebook is interrupted and goes on: what it logs then is where it is read, and no file is left behind."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES_MIN", 100_000)
    journal = Journal(tmp_path, lambda: False, bytes_max=1_600_000, block_seconds=0)
    owner, name, behind = {
        "a map is made": (descriptors, "map_file", True),
        "a segment is entered": (Journal, "_enter", False),
        "one begins to rest": (descriptors.Map, "close", False),
        "it has rested": (descriptors.Map, "close", True),
    }[place]
    original = getattr(owner, name)
    raised = 0

    def interrupted(*arguments: object, **named: object) -> object:
        nonlocal raised
        result = original(*arguments, **named) if behind or raised else None
        if not raised:
            raised = 1
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, interrupted)
    logged, interrupts = b"", 0
    for number in range(130):
        for record in (bytes([number]) * 9000, bytes([number]) * 34):  # the small one still has room
            try:
                assert not journal.append(record)
                logged += record
            except KeyboardInterrupt:
                interrupts += 1
    assert interrupts == 1
    assert everything(journal, 0) == logged
    assert len(list(journal.path.glob("*.segment"))) == len(journal._segments.live) > 10
    assert journal.release(journal.committed), "at once"
    assert len(list(journal.path.glob("*.segment"))) == len(journal._segments.live) + len(journal._segments.free)
    assert journal.close()
