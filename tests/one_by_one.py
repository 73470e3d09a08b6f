"""What event files hold, read event by event with protobuf, as plainly as it can be said: what `tbxd.events.contents`
finds many times faster has to be the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tbxd.events import schema, trust
from tbxd.events.contents import Contents
from tbxd.events.file import open_to_read
from tbxd.events.ledger import OVER, Ledger, LedgerReader, decode_ranks, merge
from tbxd.events.record import DamagedFile, read_records
from tbxd.events.reduced import POINTS_MAX, History
from tbxd.events.tags import KINDS
from tbxd_client.event_names import event_files
from tbxd_client.records import STEP_MAX, STEP_MIN


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

    def state(self) -> tuple[Any, ...]:
        """All of it."""
        return self.last, self.most, self.counted, self.wall_time, self.kind, self.metadata


def read_tags(directory: Path) -> dict[str, Known]:
    """What is known of each tag."""
    tags: dict[str, Known] = {}
    for name in event_files(directory):
        for event in read_events(directory / name):
            step = event.step
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
                elif kind is not None and kind != schema.END_KIND:
                    known = tags.setdefault(value.tag, Known())
                    known.last, known.wall_time, known.kind = step, event.wall_time, kind
                    known.most, known.counted = max(known.most, step), max(known.counted, step)
                    if value.HasField("metadata"):
                        known.metadata = known.metadata or value.metadata.SerializeToString(deterministic=True)
    return tags


def read_history(directory: Path, generation: str) -> History:
    """The points of one start of a job."""
    history = History()
    current = ""
    for name in believed(directory):
        ranks: frozenset[int] | None = None
        ledger = LedgerReader()
        reducing = False
        for event in read_events(directory / name):
            writer = event.source_metadata.writer
            ledger.follow(writer, len(event.summary.value))
            if writer.startswith("G"):
                if writer[1:] != current:
                    current = writer[1:]
                    history = History()
                reducing = False
            elif writer.startswith("R"):
                reducing, ranks = True, decode_ranks(writer)
            elif writer:
                reducing = False
            if current != generation:
                continue
            for value in event.summary.value:
                if value.HasField(schema.END_KIND):
                    continue
                curve = (value.tag, value.HasField("histo"))
                if not reducing:
                    _, last = history.alone.get(curve, (b"", event.step))
                    history.alone[curve] = (ledger.session, max(event.step, last))
                    continue
                history.last[curve] = event.step
                history.numbers[value.tag] = value.simple_value
                history.points.pop((curve, event.step), None)
                history.points[curve, event.step] = ranks
    history.points = dict(list(history.points.items())[-POINTS_MAX:])
    return history if current == generation else History()


def check(contents: Contents) -> None:
    """What is known of a folder is what its files say."""
    directory = contents.directory
    assert contents.ledger() == read_ledger(directory)
    known = contents.tags
    found = {
        name: (last, most, counted, wall_time, KINDS[kind], known.metadata.get(place, b""))
        for place, (name, last, most, counted, wall_time, kind) in enumerate(
            zip(known.names, *known.columns(), strict=True)
        )
    }
    expected = read_tags(directory)
    for tag in expected.values():
        tag.kind = tag.kind if tag.kind in KINDS else ""
    assert repr(found) == repr({name: tag.state() for name, tag in expected.items()})  # a time may be no number
    for generation in {*contents.reduced.past, contents.reduced.generation, "none"}:
        if generation:
            assert repr(contents.reduced.history(generation)) == repr(read_history(directory, generation))
