"""What the event files of a folder hold of reductions already, so that nothing is reduced twice after a restart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from tbxd_client.event_names import event_files
from tbxd_client.records import RunDefinition

from ..events import schema
from ..events.file import read_events
from ..events.ledger import LedgerReader, decode_ranks

POINTS_MAX = 100_000  # that are remembered with their ranks: only of the latest can records come again

Curve = tuple[str, bool]


def is_reduced(run: RunDefinition) -> bool:
    """Whether what several ranks log into a run becomes one point."""
    return run.reduce and run.world > 1


def generation_of(run: RunDefinition) -> str:
    """The name of one start of a job."""
    digest = hashlib.sha256(run.job.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{digest}.{run.attempt:x}.{run.world:x}"


@dataclass(slots=True)
class History:
    """The points of one generation in a folder. A curve is a tag and whether it is one of histograms.

    ``last``: the last step of each curve; ``points``: which ranks are in a point, by curve and step, None for all;
    ``alone``: whose session has written a curve as it is, and its last step; ``numbers``: the last of each tag.
    """

    last: dict[Curve, int] = field(default_factory=dict)
    points: dict[tuple[Curve, int], frozenset[int] | None] = field(default_factory=dict)
    alone: dict[Curve, tuple[bytes, int]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    superseded: bool = False  # another generation has begun since

    def holds(self, curve: Curve, step: int, rank: int) -> bool:
        """Whether what a rank has logged is in a point that is there, which `last` tells."""
        if (curve, step) not in self.points:
            return len(self.points) >= POINTS_MAX
        return not self.excludes(curve, step, rank)

    def excludes(self, curve: Curve, step: int, rank: int) -> bool:
        """Whether there is a point that a rank is not in."""
        ranks = self.points.get((curve, step))
        return ranks is not None and rank not in ranks


def read_history(directory: Path, folder: int | None, generation: str) -> History:
    """Read all event files of a folder, in their order.

    Args:
        directory: the folder.
        folder: a descriptor of it, which is used instead where it is given.
        generation: whose points are asked for; those before its mark are another's.

    Raises:
        OSError: a file cannot be read at this moment.
    """
    history = History()
    current = ""
    superseded = False
    for name in event_files(directory if folder is None else folder):
        ranks: frozenset[int] | None = None
        ledger = LedgerReader()
        reducing = False
        for event in read_events(directory / name, folder):
            writer = event.source_metadata.writer
            ledger.follow(writer, len(event.summary.value))
            if writer.startswith("G"):
                if writer[1:] != current:
                    superseded = superseded or current == generation
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
            while len(history.points) > POINTS_MAX:
                del history.points[next(iter(history.points))]
    return history if current == generation else History(superseded=superseded)
