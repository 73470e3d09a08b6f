"""What event files hold, read event by event with protobuf, as plainly as it can be said: what `tbxd.tfevents.contents`
finds many times faster has to be the same."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tbxd.tfevents import schema, trust
from tbxd.tfevents.contents import Contents
from tbxd.tfevents.event_file import open_to_read
from tbxd.tfevents.ledger import OVER, Ledger, LedgerReader, decode_ranks, decode_session, decode_stretch, merge
from tbxd.tfevents.lineage import life_of
from tbxd.tfevents.rank_notes import decode_looked, decode_member, decode_restarted
from tbxd.tfevents.rank_points import JOBS_MAX, POINTS_MAX, History
from tbxd.tfevents.schema import END_KIND
from tbxd.tfevents.tag_steps import KINDS
from tbxd.tfevents.tfrecord import DamagedFile, read_records
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.records import STEP_MAX, STEP_MIN


def read_events(path: Path) -> Iterator[Any]:
    """The events of a file, up to its end or to what is damaged."""
    fd = open_to_read(path)
    if fd < 0:
        return
    try:
        for _, data in read_records(lambda size: os.read(fd, size)):
            event = schema.Event()
            event.ParseFromString(data)
            yield event
    except (DamagedFile, schema.DecodeError):
        pass
    finally:
        os.close(fd)


def believed(directory: Path) -> list[str]:
    """The files that count where they say what is written."""
    return [name for name in event_files(directory) if trust.own().holds((directory / name).lstat())]


def read_ledger(directory: Path) -> Ledger:
    """From the newest file back to one that has all earlier ones' ledger."""
    ledger: Ledger = {}
    for name in reversed(believed(directory)):
        reader = LedgerReader()
        for event in read_events(directory / name):
            reader.follow(event.source_metadata.writer, len(event.summary.value))
            if not reader.ours:
                break
        if not reader.complete:
            reader.ledger.pop(OVER, None)
        merge(ledger, reader.ledger)
        if reader.complete:
            break
    return ledger


class Known:
    """Of a tag: the last step, the largest, the one that is counted from, when it was logged, its kind and metadata."""

    def __init__(self) -> None:
        self.last, self.most, self.counted, self.wall_time = 0, -STEP_MAX - 1, -1, 0.0
        self.kind, self.metadata = "", b""
        self.owner = self.era = b""  # who was the last to log it, and to begin it anew

    def state(self) -> tuple[Any, ...]:
        """Return the whole state."""
        return self.last, self.most, self.counted, self.wall_time, self.kind, self.metadata, self.owner, self.era


def read_tags(directory: Path) -> dict[str, Known]:
    """Return the steps of each tag."""
    tags: dict[str, Known] = {}
    ours, generation = believed(directory), ""
    lives: dict[bytes, bytes] = {}  # of ranks
    for name in event_files(directory):
        ledger, reducing = LedgerReader(), False
        for event in read_events(directory / name):
            step, writer = event.step, event.source_metadata.writer
            ledger.follow(writer, len(event.summary.value))
            if name in ours and writer:
                reducing = writer.startswith("R")
                generation = writer[1:] if writer.startswith("G") else generation
                if ledger.ours and (rank := re.fullmatch(r"N!([\w-]{16})/=([\w-]{16})", writer)):
                    lives[decode_session(rank[1])] = decode_session(rank[2])
            owner = lives.get(ledger.session, ledger.session)
            if not owner and reducing and generation:
                owner = life_of(generation)
            owner = owner if name in ours else b""
            ends = re.fullmatch(r"N~([\w-]{16})", writer) if name in ours and ledger.ours else None
            if event.session_log.status == schema.SESSION_START:
                for known in tags.values():
                    known.counted = min(known.counted, max(step - 1, STEP_MIN))
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                if kind == schema.END_KIND and value.tag in tags:
                    known = tags[value.tag]
                    before = max(step - 1, STEP_MIN)
                    known.last, known.most = min(known.last, before), min(known.most, before)
                    known.counted = min(known.counted, max(step - 1, STEP_MIN))
                    known.era = decode_session(ends[1]) if ends else known.era
                elif kind is not None and kind != schema.END_KIND:
                    known = tags.setdefault(value.tag, Known())
                    known.last, known.wall_time, known.kind = step, event.wall_time, kind
                    known.most, known.counted = max(known.most, step), max(known.counted, step)
                    known.owner = owner
                    if value.HasField("metadata"):
                        known.metadata = known.metadata or value.metadata.SerializeToString(deterministic=True)
    return tags


def read_history(directory: Path, generation: str) -> History:
    """The points of one start of a job, and what is noted of the sessions of its ranks."""
    job = generation.partition(".")[0]
    history = History()
    starts: dict[str, str] = {}  # of each job, the last
    ranks_of: dict[bytes, int] = {}
    looking: dict[bytes, int] = {}
    points: list[tuple[Any, int, int, frozenset[int] | None]] = []
    current = ""
    for name in believed(directory):
        ledger = LedgerReader()
        mark = ""
        for event in read_events(directory / name):
            writer = event.source_metadata.writer
            ledger.follow(writer, len(event.summary.value))
            if writer:
                mark = writer if writer.startswith("R") else ""
            if writer.startswith("G"):
                current = writer[1:]
                its = current.partition(".")[0]
                if its == job and starts.get(its) != current:
                    history, ranks_of, looking, points = History(), {}, {}, []
                starts.pop(its, None)
                starts[its] = current
                while len(starts) > JOBS_MAX:
                    gone = next(iter(starts))
                    del starts[gone]
                    if gone == job:
                        history, ranks_of, looking, points = History(), {}, {}, []
            if not current or current != generation:
                continue
            note_rank(history, ranks_of, looking, len(points), writer, ledger)
            for value in event.summary.value:
                if value.HasField(END_KIND):
                    continue
                curve = (value.tag, value.HasField("histo"))
                if not mark:
                    history.alone[curve] = (ledger.session, event.step)
                    continue
                stretch, ranks = decode_stretch(mark), decode_ranks(mark)
                history.last[curve] = max(history.last.get(curve, (0, STEP_MIN)), (stretch, event.step))
                history.numbers[value.tag] = value.simple_value
                points.append((curve, stretch, event.step, ranks))
    first = max(0, len(points) - POINTS_MAX)
    for number, (curve, stretch, step, ranks) in list(enumerate(points))[first:]:
        history.points[curve, stretch, step] = ranks
        history.order.setdefault(curve, []).append((number, stretch, step, ranks))
    return history if starts.get(job) == generation else History()


def note_rank(
    history: History,
    ranks_of: dict[bytes, int],
    looking: dict[bytes, int],
    count: int,
    writer: str,
    ledger: LedgerReader,
) -> None:
    """What an event says of sessions of ranks, behind so many points."""
    settled: list[bytes] = []
    if writer.startswith("I"):
        member = decode_member(writer)
        if member is not None:
            ranks_of[member[1]] = member[0]
    elif writer.startswith("P"):
        restart = decode_restarted(writer)
        if restart is not None:
            history.restarts.append(restart)
    elif writer.startswith("S"):
        settled = ledger.settled
    elif writer.startswith("U"):
        for item in decode_looked(writer):
            if item.tag < 0:
                looking[item.session] = item.position
                continue
            begins = history.begins.setdefault(item.session, {}).setdefault(item.tag, [])
            if not begins or item.begin > begins[-1][0]:
                begins.append((item.begin, item.stretch))
    for session in settled:
        history.settled[session] = count
        if session in looking:
            history.looked[session] = max(looking.pop(session), history.looked.get(session, 0))
        if session in ranks_of:
            history.settled_ranks[ranks_of[session]] = count


def check(contents: Contents) -> None:
    """Assert that the contents of a folder are those of its files."""
    directory = contents.directory
    assert contents.ledger() == read_ledger(directory)
    known = contents.tags
    keys = [life.key for life in contents.lineage.lives]
    found = {
        name: (last, most, counted, wall_time, KINDS[int(kind)], known.metadata.get(place, b""), keys[owner], keys[era])
        for place, (name, last, most, counted, wall_time, kind, owner, era) in enumerate(
            zip(known.names, *known.columns(), strict=True)
        )
    }
    expected = read_tags(directory)
    for tag in expected.values():
        tag.kind = tag.kind if tag.kind in KINDS else ""
    assert repr(found) == repr({name: tag.state() for name, tag in expected.items()})  # a time may be no number
    for generation in {*contents.reduced.past, *contents.reduced.generations, "none"}:
        if generation:
            assert repr(contents.reduced.history(generation)) == repr(read_history(directory, generation))
