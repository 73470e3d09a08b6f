"""What the event files of a folder hold of reductions already, so that nothing is reduced twice after a restart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from tbxd_client.event_names import event_files
from tbxd_client.records import RunDefinition

from ..events.file import read_events
from ..events.ledger import decode_ranks

PARTIAL_MAX = 100_000  # points of which it is remembered that not all ranks are in them; only the latest can come again

Curve = tuple[str, bool]


def generation_of(run: RunDefinition) -> str:
    """The name of one start of a job."""
    digest = hashlib.sha256(run.job.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{digest}.{run.attempt:x}.{run.world:x}"


@dataclass(slots=True)
class History:
    """The points of one generation in a folder. A curve is a tag and whether it is one of histograms.

    ``last``: the last step of each curve; ``partial``: which ranks are in a point, by curve and step, where not all
    are; ``numbers``: the last number of each tag.
    """

    last: dict[Curve, int] = field(default_factory=dict)
    partial: dict[tuple[Curve, int], frozenset[int]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    superseded: bool = False  # another generation has begun since

    def holds(self, curve: Curve, step: int, rank: int) -> bool:
        """Whether what a rank has logged is in a point that is there, which `last` tells."""
        ranks = self.partial.get((curve, step))
        return ranks is None or rank in ranks


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
        reducing = False
        for event in read_events(directory / name, folder):
            writer = event.source_metadata.writer
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
            if not reducing or current != generation:
                continue
            for value in event.summary.value:
                curve = (value.tag, value.HasField("histo"))
                history.last[curve] = event.step
                history.numbers[value.tag] = value.simple_value
                if ranks is not None:
                    history.partial.pop((curve, event.step), None)
                    history.partial[curve, event.step] = ranks
            while len(history.partial) > PARTIAL_MAX:
                del history.partial[next(iter(history.partial))]
    return history if current == generation else History(superseded=superseded)
