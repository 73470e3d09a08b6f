"""Ranks of a job in front of the real owner of a run, without processes: their streams as bytes, cut anywhere, and a
daemon that can be killed between any two writes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from tbxd.batch import Batch
from tbxd.ingest.session import Session
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents.checkpoint import Checkpoints
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.kinds import HISTOGRAM, TEXT
from tbxd_client.protocol.records import (
    RowDefinition,
    RunDefinition,
    TagDefinition,
    pack_definition,
    pack_record_head,
    pack_scalar,
    pack_text_record,
)
from tbxd_client.session.run_handle import Row


class Rank:
    """One process of a job, as far as its journal goes."""

    def __init__(
        self,
        directory: Path,
        rank: int,
        world: int,
        job: str = "job",
        attempt: int = 0,
        created: float = 1.0,
        **more: Any,
    ):
        self.id = os.urandom(12)
        self.rank = rank
        self.definitions = b""
        self.records = b""
        self.ends: list[int] = []
        self.tags: dict[tuple[str, str], int] = {}
        self.rows: dict[tuple[str, ...], Row] = {}
        self.acked = 0
        self.sent = 0
        origin = (str(directory), "host", 1000 + rank, created, "", "")
        self.run = RunDefinition(0, *origin, rank, world, job, attempt, world > 1)._replace(**more)
        self.define(self.run)

    def define(self, definition: Any) -> None:
        self.definitions += pack_definition(definition)

    def tag(self, name: str, reduce: str = "", color: str = "") -> int:
        number = self.tags.get((name, reduce))
        if number is None:
            number = self.tags[name, reduce] = len(self.tags)
            self.define(TagDefinition(number, 0, name, color, reduce=reduce))
        return number

    def add(self, record: bytes) -> None:
        self.records += record
        self.ends.append(len(self.records))

    def scalar(self, tag: str, step: int, value: float, wall_time: float = 1.0, **how: str) -> None:
        self.add(pack_scalar(self.tag(tag, **how), step, wall_time, value))

    def row(self, values: dict[str, float], step: int) -> None:
        names = tuple(values)
        if names not in self.rows:
            tags = tuple(self.tag(name) for name in names)
            self.rows[names] = Row(len(self.rows), len(names))
            self.define(RowDefinition(len(self.rows) - 1, 0, tags))
        self.add(self.rows[names].record(step, 1.0, list(values.values())))

    def histogram(self, tag: str, step: int, array: Any, **attrs: Any) -> None:
        data = array.tobytes()
        attrs = {"dtype": array.dtype.str, "shape": list(array.shape), **attrs}
        self.add(pack_record_head(HISTOGRAM, self.tag(tag), step, 1.0, attrs, len(data)) + data)

    def text(self, tag: str, step: int, text: str, reduce: str = "") -> None:
        self.add(pack_text_record(TEXT, self.tag(tag, reduce), step, 1.0, {}, text))

    @property
    def accepted(self) -> int:
        return len(self.ends)


class Daemon:
    """The daemon's part of one run, and its end."""

    def __init__(
        self, directory: Path, ranks: list[Rank], seconds: float = 30.0, checkpoints: Checkpoints | None = None
    ):
        self.directory = directory
        self.checkpoints = checkpoints
        self.seconds = seconds
        self.ranks = ranks
        self.alive: set[bytes] = set()  # sessions whose processes are known to be there still
        self.folders = [directory / "ranks" / "min", directory / "ranks" / "max", directory / "ranks", directory]
        self.read: dict[bytes, tuple[float, float]] = {}  # of sessions that have more than has come
        self.begin()

    def begin(self) -> None:
        self.finished: list[Batch] = []
        self.writer = RunWriter(
            self.directory,
            self.finished.append,
            ranks_seconds=self.seconds,
            checkpoints=self.checkpoints,
            read=lambda session: self.read.get(session, (time.monotonic(), time.monotonic())),
            alive=lambda session, began: session in self.alive,
        )
        self.sessions: dict[bytes, Session] = {}
        for rank in self.ranks:
            rank.sent = rank.acked
            self.sessions[rank.id] = Session(rank.id, rank.acked)

    def kill(self) -> None:
        """All that is not on the disk is gone; the next daemon begins with what the trainers still have."""
        self.writer.close()  # of its descriptors; what it had not written stays unwritten
        self.begin()

    def kill_in_write(self, random: np.random.Generator) -> None:
        """The same in the middle of a write: of the bytes that it adds to the files, in their order, some are there."""
        paths = self.folders
        before = _sizes(paths)
        self.writer.write()
        self.writer.close()
        after = _sizes(paths)
        left = int(random.integers(sum(after.values()) - sum(before.values()) + 1))
        for path, size in after.items():
            kept = min(left, size - before.get(path, 0))
            left -= kept
            if kept or path in before:
                os.truncate(path, before.get(path, 0) + kept)
            else:
                path.unlink()
        self.begin()

    def feed(self, rank: Rank, upto: int | None = None) -> None:
        session = self.sessions[rank.id]
        session.feed_definitions(session.definitions_expected, rank.definitions[session.definitions_expected :])
        end = len(rank.records) if upto is None else upto
        batches = session.feed_records(rank.sent, rank.records[rank.sent : end])
        assert batches is not None
        rank.sent = max(rank.sent, end)
        for batch in batches:
            self.writer.offer(batch)

    def write(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.writer.write()
            assert not self.writer.error, self.writer.error
        for batch in self.finished:
            self.sessions[batch.session].done(batch)
        self.finished.clear()
        for rank in self.ranks:
            rank.acked = max(rank.acked, self.sessions[rank.id].written)

    def leave(self, rank: Rank) -> None:
        self.writer.ranks.leave(rank.id, rank.run)


def _sizes(folders: list[Path]) -> dict[Path, int]:
    """Of the event files in folders, in the order in which a write adds to them."""
    paths = [folder / name for folder in folders if folder.is_dir() for name in event_files(folder)]
    return {path: path.stat().st_size for path in paths}
