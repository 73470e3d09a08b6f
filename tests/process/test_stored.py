"""Records are read in the journal of a trainer that lives, where that can be; nobody is harmed where it cannot."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import World, events, scalars, wait_for
from tbxd.ingest.live_journal import StoredSegment, Unreadable, readable_journal
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.journal_files import (
    CONTROL_NAME,
    SEGMENT_BASE_OFFSET,
    SEGMENT_HEAD_BYTES,
    segment_name,
    session_name,
)
from tbxd_client.protocol import kinds, wire
from tbxd_client.protocol.records import pack_record_head, pack_scalar
from test_daemon import LOG_ONE, Peer, definitions

LOG = """
    import json, os, sys, numpy as np
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/real")
    values = np.random.default_rng(0).normal(size=int(sys.argv[1])).astype("f4")
    for step in range(20):
        writer.add_scalar("value", step, step)
        writer.add_histogram("values", values, step)
    print(writer.flush(60), flush=True)
    sys.stdin.readline()
    for step in range(20, 40):
        writer.add_scalar("value", step, step)
        writer.add_histogram("values", values, step)
    print(writer.flush(60), flush=True)
    sys.stdin.readline()
"""


def histograms(directory: Path) -> list[tuple[int, float, float]]:
    """(step, numbers, counted) of every histogram."""
    return [
        (event.step, value.histo.num, sum(value.histo.bucket))
        for event in events(directory)
        for value in event.summary.value
        if value.HasField("histo")
    ]


def session_status(place: World, wanted: str = "") -> dict[str, Any]:
    status = place.status()
    assert status is not None
    (found,) = [one for one in status["sessions"] if one["session"] == wanted or not wanted]
    return dict(found)


def assert_all_there(place: World, size: int) -> None:
    steps = list(range(40))
    assert scalars(place.logdir / "real") == {"value": [(step, float(step)) for step in steps]}
    assert histograms(place.logdir / "real") == [(step, float(size), float(size)) for step in steps]


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_trainer_and_a_daemon_that_see_the_same_files_send_no_records(place: World, size: int) -> None:
    place.serve()
    trainer = place.start(LOG, size, stdin=-1, stdout=-1)
    assert trainer.stdout is not None and trainer.stdin is not None
    assert trainer.stdout.readline() == b"True\n"
    assert session_status(place)["reads_journal"] is True
    place.kill_daemon()
    place.serve()  # the next one reads there too
    trainer.stdin.write(b"\n")
    trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    assert session_status(place)["reads_journal"] is True
    trainer.communicate(b"\n")
    assert_all_there(place, size)


def test_a_daemon_in_another_container_gets_the_records_through_the_socket(place: World) -> None:
    """It has the socket in common with its trainers, and something else where their journals are."""
    place.spool.mkdir()
    command = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {place.spool} && exec {sys.executable} -m tbxd serve"]
    if os.getuid() or subprocess.run([*command[:4], f"mount -t tmpfs none {place.spool}"]).returncode:
        pytest.skip("needs to be root, with mount namespaces")
    place.processes.append(subprocess.Popen(command, env=place.environ))
    wait_for(place.running, "the daemon")
    trainer = place.start(LOG, 100_000, stdin=-1, stdout=-1)
    assert trainer.stdout is not None and trainer.stdin is not None
    assert trainer.stdout.readline() == b"True\n"
    assert session_status(place)["reads_journal"] is False
    trainer.stdin.write(b"\n")
    trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    trainer.communicate(b"\n")
    assert_all_there(place, 100_000)


def test_a_trainer_goes_on_through_the_socket_when_its_files_cannot_be_read_any_more(place: World) -> None:
    place.serve()
    trainer = place.start(LOG, 10_000, stdin=-1, stdout=-1)
    assert trainer.stdout is not None and trainer.stdin is not None
    assert trainer.stdout.readline() == b"True\n"
    (journal,) = place.journals()
    for segment in journal.glob("*.segment"):  # the trainer has it open; others do not find it
        segment.rename(segment.with_suffix(".elsewhere"))
    trainer.stdin.write(b"\n")
    trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    status = session_status(place)
    assert status["reads_journal"] is False and "No such file" in status["unreadable"]
    trainer.communicate(b"\n")
    assert_all_there(place, 10_000)


# --- peers that do not keep their word -------------------------------------------------------------------------


class Owner(Peer):
    """A peer with a journal in the spool, who may say of it what it likes."""

    def __init__(self, place: World) -> None:
        super().__init__(place)
        self.place = place
        place.spool.mkdir(exist_ok=True)
        self.journal = Journal(place.spool, lambda: None)
        self.session = self.journal.session
        self.steps = 0

    def greet(self, folder: str | None = None) -> wire.Welcome:
        where = str(self.journal.path) if folder is None else folder
        self.send(wire.Hello(self.session, 0, os.getpid(), os.uname().nodename, where, "test", ""))
        answer = self.until(wire.Welcome)
        assert isinstance(answer, wire.Welcome)
        self.send(wire.Data(self.session, wire.DEFINITIONS, 0, definitions(self.place)))
        return answer

    def until(self, kind: type[wire.Message]) -> wire.Message:
        while not isinstance(answer := self.receive(), kind):
            pass
        return answer

    def log(self, count: int = 100) -> bytes:
        """Store scalars; returns their bytes."""
        stored = b"".join(pack_scalar(0, self.steps + number, 1.0, 2.0) for number in range(count))
        self.steps += count
        self.journal.append(stored)
        return stored

    def stored(self, position: int, length: int, segment: int = 1) -> None:
        self.send(wire.Stored(self.session, position, length, segment))

    def acknowledged(self, position: int) -> None:
        """Wait until everything before a position is written."""
        self.send(wire.Flush(self.session, position))
        while True:
            answer = self.receive()
            if isinstance(answer, wire.Ack) and answer.written == position:
                return

    def written(self) -> list[int]:
        return [step for step, _ in scalars(self.place.logdir / "a").get("value", [])]

    def end(self) -> None:
        self.close()
        self.journal.close()


@pytest.fixture
def owner(place: World) -> Iterator[Owner]:
    place.serve()
    made = Owner(place)
    yield made
    made.end()


def test_what_is_said_twice_overlaps_or_has_a_gap_is_read_once(owner: Owner) -> None:
    assert owner.greet().journal == 1
    owner.log(100)
    owner.stored(34 * 50, 34 * 50)  # a gap
    answer = owner.until(wire.Welcome)
    assert isinstance(answer, wire.Welcome) and (answer.records, answer.journal) == (0, 1)
    for begin, end in ((0, 34 * 60 + 5), (0, 34 * 60), (34 * 10, 34 * 70 - 1), (34 * 50, 3400), (0, 3400), (7, 0)):
        owner.stored(begin, end - begin if end else 0)
    owner.acknowledged(3400)
    assert owner.written() == list(range(100))


def test_messages_and_references_may_take_turns(owner: Owner) -> None:
    assert owner.greet().journal == 1
    payload = np.ones(200_000, "<f4").tobytes()
    attrs = {"dtype": "<f4", "shape": [200_000]}
    stream = b""
    for step in range(3):
        stream += (scalar := pack_scalar(0, step, 1.0, 2.0))
        owner.journal.append(scalar)
        head = pack_record_head(kinds.HISTOGRAM, 0, step, 1.0, attrs, len(payload))
        owner.journal.append(head, payload)
        stream += head + payload
    end, position = len(stream), 0
    for turn in range(10**6):
        if position >= end:
            break
        segment, there = owner.journal.locate(position)
        length = min(there, (100_000, 77, 700_000)[turn % 3])
        if turn % 2:
            length = min(length, wire.DATA_BYTES_MAX)
            owner.send(wire.Data(owner.session, wire.RECORDS, position, stream[position : position + length]))
        else:
            owner.stored(position, length, segment.number)
        position += length
    owner.acknowledged(end)
    assert owner.written() == [0, 1, 2]
    assert histograms(owner.place.logdir / "a") == [(step, 200_000.0, 200_000.0) for step in range(3)]


def other_session(owner: Owner) -> str:
    other = Journal(owner.place.spool, lambda: None)
    owner.journal_of_other = other  # type: ignore[attr-defined]
    return str(other.path)


def copied_for_another(owner: Owner) -> str:
    folder = owner.place.root / "elsewhere" / session_name(owner.session)
    shutil.copytree(other_session(owner), folder)
    return str(folder)


def changed_control(change: Callable[[Path], None]) -> Callable[[Owner], str]:
    def make(owner: Owner) -> str:
        folder = owner.place.root / "elsewhere" / session_name(owner.session)
        shutil.copytree(owner.journal.path, folder)
        change(folder / CONTROL_NAME)
        return str(folder)

    return make


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def of_another_boot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[24:40] = os.urandom(16)
    path.write_bytes(data)


def owned_by_another(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("=I", os.getuid() + 1)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "folder",
    [
        lambda owner: "",
        lambda owner: "/",
        lambda owner: "/etc",
        lambda owner: owner.journal.path.name,
        lambda owner: f"/nowhere/{owner.journal.path.name}",
        lambda owner: f"/dev/null/{owner.journal.path.name}",
        lambda owner: f"/a\0b/{owner.journal.path.name}",
        lambda owner: "/" + "a" * 5000 + "/" + owner.journal.path.name,
        lambda owner: str(owner.journal.path / ".."),
        other_session,
        copied_for_another,
        changed_control(as_fifo),
        changed_control(as_link),
        changed_control(lambda path: path.write_bytes(b"")),
        changed_control(of_another_boot),
        changed_control(owned_by_another),
    ],
)
def test_a_journal_that_is_not_the_sessions_own_is_not_read(owner: Owner, folder: Callable[[Owner], str]) -> None:
    assert owner.greet(folder(owner)).journal == 0
    stream = owner.log(10)
    owner.stored(0, len(stream))  # all the same
    answer = owner.until(wire.Welcome)
    assert isinstance(answer, wire.Welcome) and (answer.records, answer.journal) == (0, 0)
    owner.send(wire.Data(owner.session, wire.RECORDS, 0, stream))
    owner.acknowledged(len(stream))
    assert owner.written() == list(range(10))


def test_no_path_of_a_journal_takes_the_daemon_with_it(place: World) -> None:
    daemon = place.serve()
    peer = Peer(place)
    for folder in ("/a\0b/c", "/" + "a" * 5000, "a\0b", "/" + "\U0010ffff" * 200, "/dev/null/x", "/proc/1/root/x/y"):
        peer.send(wire.Hello(os.urandom(12), 0, os.getpid(), os.uname().nodename, folder, "test", ""))
        assert isinstance(peer.receive(), wire.Welcome)
    orphan = Journal(place.spool, lambda: None)
    orphan.append(pack_scalar(0, 1, 1.0, 2.0))
    orphan.close()
    wait_for(lambda: not orphan.path.exists(), "a look at all journals")
    assert daemon.poll() is None
    peer.close()


def segment(owner: Owner) -> Path:
    return owner.journal.path / segment_name(1)


def cut(owner: Owner) -> None:
    os.truncate(segment(owner), SEGMENT_HEAD_BYTES + 100)


def cut_to_nothing(owner: Owner) -> None:
    os.truncate(segment(owner), 10)


def gone(owner: Owner) -> None:
    segment(owner).unlink()


def a_fifo(owner: Owner) -> None:
    as_fifo(segment(owner))


def a_link(owner: Owner) -> None:
    as_link(segment(owner))


def a_folder(owner: Owner) -> None:
    segment(owner).unlink()
    segment(owner).mkdir()


def of_another_session(owner: Owner) -> None:
    other = Path(other_session(owner)) / segment_name(1)
    segment(owner).unlink()
    shutil.copy(other, segment(owner))


def begun_later(owner: Owner) -> None:
    with open(segment(owner), "r+b") as file:
        file.seek(SEGMENT_BASE_OFFSET)
        file.write(struct.pack("=Q", 1 << 40))


SPOILED = [cut, cut_to_nothing, gone, a_fifo, a_link, a_folder, of_another_session, begun_later]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_segment_that_is_not_as_it_should_be_is_left_for_the_socket(
    owner: Owner, spoil: Callable[[Owner], None]
) -> None:
    assert owner.greet().journal == 1
    stream = owner.log(10)
    spoil(owner)
    owner.stored(0, len(stream))
    answer = owner.until(wire.Welcome)
    assert isinstance(answer, wire.Welcome) and answer.journal == 0
    assert answer.records in (0, 34 * 2, 100)
    owner.send(wire.Data(owner.session, wire.RECORDS, 0, stream))
    owner.acknowledged(len(stream))
    assert owner.written() == list(range(10))
    assert owner.greet().journal == 0, "it is not tried again"


@pytest.mark.parametrize("number", [0, 2, 10**6, (1 << 63) - 1])
def test_a_segment_that_does_not_exist_is_not_read(owner: Owner, number: int) -> None:
    assert owner.greet().journal == 1
    owner.log(10)
    owner.stored(0, 340, number)
    answer = owner.until(wire.Welcome)
    assert isinstance(answer, wire.Welcome) and answer.journal == 0


@pytest.mark.parametrize("length", [(8 << 20) + 1, 1 << 40, (1 << 63) - 1])
def test_more_than_the_limit_is_not_read_and_breaks_the_session(owner: Owner, length: int) -> None:
    assert owner.greet().limit == 8 << 20
    owner.log(10)
    owner.stored(0, length)
    answer = owner.until(wire.Refused)
    assert isinstance(answer, wire.Refused) and "the limit was 8,388,608" in answer.reason
    assert owner.place.run(LOG_ONE, "logs/b", 0).returncode == 0, "the others go on"
    assert session_status(owner.place, owner.session.hex())["broken"]


def test_a_file_that_holds_no_records_breaks_its_session_only(owner: Owner) -> None:
    assert owner.greet().journal == 1
    owner.log(10)
    with open(segment(owner), "r+b") as file:
        file.seek(SEGMENT_HEAD_BYTES + 34)
        file.write(b"no record at all")
    owner.stored(0, 340)
    answer = owner.until(wire.Refused)
    assert isinstance(answer, wire.Refused) and "no record begins" in answer.reason
    assert owner.place.run(LOG_ONE, "logs/b", 0).returncode == 0


def test_a_segment_that_is_used_again_meanwhile_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: None)
    journal.append(bytes(100))
    assert readable_journal(str(journal.path), journal.session) == journal.path
    room = memoryview(bytearray(100))
    with StoredSegment(journal.path, journal.session, 1) as opened:
        opened.read_into(room, 0)
        begin = journal.locate(0)[0]
        begin.rebase(1000)
        with pytest.raises(Unreadable, match="used again"):
            opened.read_into(room, 0)
        begin.rebase(0)
        with pytest.raises(Unreadable, match="ends at"):
            opened.read_into(room, (1 << 20) - 50)
        with pytest.raises(Unreadable):
            opened.read_into(room, (1 << 63) - 1)
    journal.close()
