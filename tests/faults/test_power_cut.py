"""A power cut at any moment: what a journal has promised to be on the disk is read again, and nothing else is.

Nothing here loses power. What a journal stores and syncs is noted call by call, and for each moment the disks that
there may be then are built: what was synced is there, and of what was stored since, any part. That can be done where
the system stores everything (``TBXD_SYNC=always``); stores through a map are seen by nobody. Names of files are taken
to be there: that they are synced before a call returns is held by `tests/faults/test_sync.py`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tbxd_client.journal import journal_files
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.journal_files import CONTROL_NAME, JournalReader

Op = tuple[str, int, int, bytes]  # what, the file's number, offset, bytes


class Recorder:
    """Notes what is stored and synced. ``ops`` has ("returned", n) where the n-th call had returned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ops: list[Op] = []
        pwrite, pwritev, write, fdatasync, fsync, allocate = (
            os.pwrite,
            os.pwritev,
            os.write,
            os.fdatasync,
            os.fsync,
            os.posix_fallocate,
        )

        def note(what: str, fd: Any, offset: int = 0, data: bytes = b"") -> None:
            self.ops.append((what, os.fstat(fd if isinstance(fd, int) else fd.fileno()).st_ino, offset, data))

        def on_pwrite(fd: int, data: Any, offset: int) -> int:
            note("write", fd, offset, bytes(data))
            return pwrite(fd, data, offset)

        def on_pwritev(fd: int, parts: Any, offset: int) -> int:
            note("write", fd, offset, b"".join(parts))
            return pwritev(fd, parts, offset)

        def on_write(fd: int, data: Any) -> int:
            note("write", fd, os.fstat(fd).st_size, bytes(data))
            return write(fd, data)

        def on_allocate(fd: int, offset: int, length: int) -> None:
            note("write", fd, offset + length - 1, b"\0")
            allocate(fd, offset, length)

        def on_sync(fd: int, sync: Any = fdatasync) -> None:
            sync(fd)
            note("sync", fd)

        monkeypatch.setattr(os, "pwrite", on_pwrite)
        monkeypatch.setattr(os, "pwritev", on_pwritev)
        monkeypatch.setattr(os, "write", on_write)
        monkeypatch.setattr(os, "posix_fallocate", on_allocate)
        monkeypatch.setattr(os, "fdatasync", on_sync)
        monkeypatch.setattr(os, "fsync", lambda fd: on_sync(fd, fsync))

    def returned(self, number: int) -> None:
        """A call has returned."""
        self.ops.append(("returned", number, 0, b""))


def disks(ops: list[Op], rng: random.Random, several: int) -> Iterator[dict[int, bytes]]:
    """Disks that there may be after these: by the number of each file, what is in it."""
    last_sync = {ino: place for place, (what, ino, _, _) in enumerate(ops) if what == "sync"}
    for nth in range(several):
        share = (0.0, 1.0)[nth] if nth < 2 else rng.random()
        found: dict[int, bytearray] = {}
        for place, (what, ino, offset, data) in enumerate(ops):
            if what == "write" and (place < last_sync.get(ino, -1) or rng.random() < share):
                content = found.setdefault(ino, bytearray())
                content.extend(bytes(max(0, offset + len(data) - len(content))))
                content[offset : offset + len(data)] = data
        yield {ino: bytes(content) for ino, content in found.items()}


def crash_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, several: int) -> int:
    """Log, and look at the disks of every moment; returns how many."""
    rng = random.Random(int(os.environ.get("TBXD_SEED", "1")))
    spool = tmp_path / "spool"
    spool.mkdir()
    looked = 0
    with monkeypatch.context() as patched:
        recorder = Recorder(patched)
        journal = Journal(spool, lambda: False, durable=True)
        stream, ends, defined = b"", [0], [b""]
        for number in range(records):
            if number % 7 == 0:
                journal.define(b"<%d>" % number)
            record = b"%d," % number * rng.choice((1, 3, 50, 30_000 if number % 11 == 5 else 5))
            assert journal.append(record) == ""
            stream += record
            ends.append(len(stream))
            defined.append(defined[-1] + (b"<%d>" % number if number % 7 == 0 else b""))
            recorder.returned(number + 1)
        names = {path.stat().st_ino: path.name for path in journal.path.iterdir()}
        session = journal.path.name
        journal.close()
    monkeypatch.setattr(journal_files, "boot_id", lambda: b"another boot id!")
    for moment in range(len(recorder.ops)):
        ops = recorder.ops[:moment]
        returned = max((number for what, number, _, _ in ops if what == "returned"), default=0)
        if not returned:
            continue
        for disk in disks(ops, rng, several):
            folder = tmp_path / f"crash{looked}" / session
            folder.mkdir(parents=True)
            for ino, name in names.items():
                (folder / name).write_bytes(disk.get(ino, b""))
            assert len((folder / CONTROL_NAME).read_bytes()) == 4096
            reader = JournalReader(folder)
            end = reader.state.readable_end
            assert end >= ends[returned], f"moment {moment}: a call had returned"
            read = b""
            while len(read) < end:
                read += reader.read(len(read), 1 << 20)
            assert read == stream[:end] and end in ends, f"moment {moment}"
            assert reader.definitions(0, 1 << 20).startswith(defined[returned])
            reader.remove()
            folder.parent.rmdir()
            looked += 1
    return looked


@pytest.mark.long
def test_a_power_cut_at_any_store_costs_a_journal_nothing_of_what_had_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crash_everywhere(tmp_path, monkeypatch, records=25, several=3) > 100


@pytest.mark.matrix
def test_a_power_cut_at_any_store_of_a_long_journal_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crash_everywhere(tmp_path, monkeypatch, records=100, several=4) > 1000
