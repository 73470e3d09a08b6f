"""The oracle of the fault tests: what a trainer logs is a function of (trainer, number), so nothing can go unseen.

`trainer.py` logs record number 0, 1, 2, … and stores after each call that has returned how many they are, in a file
that outlives its kill. `judge` reads the event files strictly and says of every record whether it is there, twice,
wrong, or nobody's.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import World, each_event
from numbered import COUNTERS, HISTOGRAM_VALUES, kind_of, tag_of, value_of


def _right(trainer: int, number: int, values: Mapping[str, Any]) -> bool:
    """Return True if the values of an event are those of its record."""
    kind = kind_of(number)
    tag, value = tag_of(trainer, kind), value_of(trainer, number)
    if set(values) == {tag_of(trainer, "scalar")}:  # also where nothing but scalars is logged
        return bool(values[tag_of(trainer, "scalar")].simple_value == value)
    if kind == "row":
        return (
            set(values) == {f"{tag}/a", f"{tag}/b"}
            and values[f"{tag}/a"].simple_value == value
            and values[f"{tag}/b"].simple_value == -value
        )
    if kind == "text":
        found = values.get(f"{tag}/text_summary")
        return found is not None and list(found.tensor.string_val) == [b"%d:%d" % (trainer, number)]
    found = values.get(tag)
    return found is not None and (found.histo.num, found.histo.min) == (HISTOGRAM_VALUES, value)


SHOWN = "tbxd/dropped/"


@dataclass
class Count:
    """What a trainer has said of itself: calls that returned, calls begun (one more at the most)."""

    returned: int
    ended: bool  # it came to its end, and was not killed

    @property
    def begun(self) -> int:
        return self.returned if self.ended else self.returned + 1


def read_count(place: World, trainer: int) -> Count:
    """Return the number of a trainer's calls that have returned."""
    try:
        returned, ended = struct.unpack("=QQ", (place.root / COUNTERS / str(trainer)).read_bytes())
    except (OSError, struct.error):
        return Count(0, False)  # killed before it had a counter
    return Count(returned, bool(ended))


@dataclass
class Verdict:
    """What became of the records of a test, each counted once."""

    accepted: int = 0
    written: int = 0
    dropped: int = 0  # and counted by tbxd; filled in by whoever asks it
    lost: int = 0  # accepted, neither written nor dropped
    doubled: int = 0
    corrupted: int = 0
    spurious: int = 0  # of no trainer, or that no call has logged
    disordered: int = 0  # behind a later one of its trainer
    examples: list[str] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)  # the last that each tag of drops said, in the last folder

    def add(self, other: Verdict) -> None:
        for name in ("accepted", "written", "dropped", "lost", "doubled", "corrupted", "spurious", "disordered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples += other.examples

    @property
    def faults(self) -> dict[str, int]:
        names = ("lost", "doubled", "corrupted", "spurious", "disordered")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def assert_clean(self) -> None:
        """Assert that nothing is lost, doubled, wrong or out of order."""
        assert not self.faults, (
            f"{self.faults} of {self.accepted} accepted, {self.written} written: {self.examples[:5]}"
        )


def _by_trainer(event: Any, verdict: Verdict) -> Iterable[tuple[int, dict[str, Any]]]:
    """The values of an event by whose they are (-1: nobody's): threads of one process may share one.

    What the daemon itself shows of drops goes into the verdict.
    """
    found: dict[int, dict[str, Any]] = {}
    for value in event.summary.value:
        if value.tag.startswith(SHOWN):
            verdict.shown[value.tag.removeprefix(SHOWN)] = int(value.simple_value)
            continue
        number = value.tag.split("/")[1] if "/" in value.tag else ""
        values = found.setdefault(int(number) if number.isdecimal() else -1, {})
        if value.tag in values:
            verdict.doubled += 1
            verdict.examples.append(f"{value.tag} twice in one event, step {event.step}")
        values[value.tag] = value
    return found.items()


def judge(
    folders: Iterable[Path],
    counts: Mapping[int, Count],
    read: Callable[[Path], Iterable[Any]] = each_event,
    in_order: bool = True,
    dropped: int = 0,
) -> Verdict:
    """Compare the event files of some folders with what trainers have logged there.

    Args:
        folders: where each record must be exactly once, in one of them.
        counts: of each trainer.
        read: gives the events of a folder; strict unless told otherwise.
        in_order: whether a trainer's records must be in the order of its calls.
        dropped: how many tbxd says that it dropped.
    """
    verdict = Verdict(accepted=sum(count.returned for count in counts.values()), dropped=dropped)
    seen: dict[int, Counter[int]] = {trainer: Counter() for trainer in counts}
    for folder in folders:
        last: dict[int, int] = {}
        if not folder.exists():
            continue
        for event in read(folder):
            for trainer, values in _by_trainer(event, verdict):
                if trainer not in counts:
                    verdict.spurious += 1
                    verdict.examples.append(f"nobody's {next(iter(values))} step {event.step}")
                    continue
                number, counted = event.step, seen[trainer]
                counted[number] += 1
                if not 0 <= number < counts[trainer].begun:
                    verdict.spurious += 1
                    verdict.examples.append(f"trainer {trainer} never logged {number}")
                elif not _right(trainer, number, values):
                    verdict.corrupted += 1
                    verdict.examples.append(f"trainer {trainer}, {number}: {values}"[:200])
                if counted[number] > 1:
                    verdict.doubled += 1
                    verdict.examples.append(
                        f"trainer {trainer}, {number} in {folder.name} for the {counted[number]}. time"
                    )
                elif in_order and last.get(trainer, -1) > number:
                    verdict.disordered += 1
                    verdict.examples.append(f"trainer {trainer}, {number} behind {last[trainer]}")
                last[trainer] = number
    missing = 0
    for trainer, count in counts.items():
        there = sum(1 for number in seen[trainer] if number < count.returned)
        verdict.written += len(seen[trainer])
        verdict.accepted += len(seen[trainer]) - there  # a call that was begun when its trainer was killed
        missing += count.returned - there
        if missing and not dropped:
            first = next((n for n in range(count.returned) if n not in seen[trainer]), None)
            if first is not None:
                verdict.examples.append(f"trainer {trainer}, {first} is missing (of {count.returned})")
    verdict.lost = max(0, missing - dropped)
    verdict.spurious += max(0, dropped - missing)  # counted as dropped and written all the same
    return verdict
