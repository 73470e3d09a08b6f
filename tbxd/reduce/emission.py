"""Emission: whole points become events of the run and of its companions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.distributed.rank_policy import MEAN
from tbxd_client.protocol.kinds import SCALAR
from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch, Single
from ..encode import metadata_for
from ..encode.scalar_batcher import finite_times, float32
from ..tfevents import schema
from ..tfevents.event_builder import event_record, note
from ..tfevents.ledger import Marker, encode_ranks
from ..tfevents.scalar_columns import Piece
from .aggregate import Floats, Groups, Integers
from .companion_runs import Sides, curves_of
from .encoder import PointEncoder
from .tag_membership import Tags
from .waiting import Key, Parts

GoOn = Callable[[RunDefinition, dict[str, int], list[Piece]], None]
MakeHistogram = Callable[[list[tuple[Batch, Single]]], Any]


class Emission:
    """Writes the points of one start of a job.

    Args:
        run: as its first rank defines it.
        generation: its name.
        tags: those of the run.
        sides: the runs beside it.
        marker: gives the marker of the file that is being written.
        go_on: writes what has to stand before points of tags that earlier starts have logged.
        histogram: makes a summary's values of the histograms of several ranks.
    """

    def __init__(
        self,
        run: RunDefinition,
        generation: str,
        tags: Tags,
        sides: Sides,
        marker: Callable[[], Marker],
        go_on: GoOn,
        histogram: MakeHistogram,
    ) -> None:
        self.missing = 0  # values that points went out without
        self.last_step = 0
        self._run, self._generation = run, generation
        self._tags, self._frontier, self._sides = tags, tags.frontier, sides
        self._marker, self._go_on, self._histogram = marker, go_on, histogram
        self._encoder = PointEncoder()
        self._announced: Marker | None = None  # that of the file
        self._described: set[int] = set()  # tags whose metadata that file has, or that have none
        self._begun = np.zeros(0, np.bool_)  # tags of which this start of the job has something out

    def recall(self, tag: int, begun: bool) -> None:
        """Set if the run had points of a new tag before the daemon began."""
        if tag >= len(self._begun):
            self._begun = np.concatenate([self._begun, np.zeros(max(16, tag), np.bool_)])
        self._begun[tag] = begun

    def announce(self, pieces: list[Piece]) -> None:
        """Append the name of the start of a job to the file, if it changes."""
        marker = self._marker()
        if marker is not self._announced:
            self._announced = marker
            self._described.clear()
        if marker.generation != self._generation:
            marker.generation = self._generation
            marker.interrupt()
            pieces.append(note("G" + self._generation))

    def begun_tags(self) -> list[str]:
        """Return the tags with written points of this start of the job."""
        return [name for name, begun in zip(self._tags.names, self._begun.tolist(), strict=False) if begun]

    def points(self, groups: Groups, pieces: list[Piece]) -> None:
        """Append points of scalars."""
        self.last_step = max(self.last_step, int(groups.steps.max()))
        self.missing += int(np.maximum(self._frontier.ranks[groups.tags] - groups.counts, 0).sum())
        marks = self._marks(groups)
        order = np.lexsort((groups.tags, np.unique(marks, return_inverse=True)[1], groups.steps, groups.stretches))
        self._marker().interrupt()
        numbers = groups.mean.copy()
        words = [self._tags.words[tag] for tag in groups.tags.tolist()]
        for place, word in enumerate(words):
            if word != MEAN:
                numbers[place] = groups.reduced(place, word)
        names = [self._tags.names[tag] for tag in groups.tags.tolist()]
        self._begin_tags(groups.tags, groups.steps, pieces)
        told = self._describe(groups, numbers, marks, pieces)
        pieces += self._encoder.events(curves_of(order[~np.isin(order, told)], names, groups, numbers, marks))
        self._sides.add(order[groups.counts[order] > 1], names, groups, marks)

    def histogram(self, key: Key, parts: Parts, pieces: list[Piece]) -> None:
        """Append a point of histograms.

        Raises:
            Refused: it cannot be made.
        """
        tag, stretch, step = key
        ranks = sorted(parts)
        self.missing += max(0, int(self._frontier.ranks[tag]) - len(ranks))
        self._marker().interrupt()
        summary = self._histogram([parts[rank][:2] for rank in ranks])
        wall_time = max(
            float(finite_times(np.array([item.record.wall_time]))[0])
            for _, item, _ in parts.values()
            if item.record is not None
        )
        self._begin_tags(np.array([tag]), np.array([step]), pieces)
        mark = encode_ranks(None if len(ranks) == self._frontier.world else ranks, stretch)
        pieces.append(event_record(step, wall_time, mark, summary=summary))

    def _describe(self, groups: Groups, numbers: Floats, marks: list[str], pieces: list[Piece]) -> list[int]:
        """Append the first points of tags with a colour, a name or a text, with their metadata; return their places."""
        told = []
        for tag in set(groups.tags.tolist()) - self._described:
            self._described.add(tag)
            metadata = metadata_for(SCALAR, self._tags.definitions[tag])
            if metadata is not None:
                place = int(np.argmax(groups.tags == tag))  # its first place
                number = float(float32(numbers[place : place + 1])[0])
                value = schema.Summary.Value(tag=self._tags.names[tag], simple_value=number, metadata=metadata)
                what = schema.Summary(value=[value])
                wall_time = float(finite_times(groups.wall_times[place : place + 1])[0])
                pieces.append(event_record(int(groups.steps[place]), wall_time, marks[place], summary=what))
                told.append(place)
        return told

    def _begin_tags(self, tags: Integers, steps: Integers, pieces: list[Piece]) -> None:
        """End the tags in which an earlier start of the job has gone further, before their first points."""
        fresh: npt.NDArray[np.bool_] = ~self._begun[tags]
        if not fresh.any():
            return
        firsts: dict[str, int] = {}
        for tag, step in zip(tags[fresh].tolist(), steps[fresh].tolist(), strict=True):
            name = self._tags.names[tag]
            firsts[name] = min(step, firsts.get(name, step))
        self._begun[tags] = True
        self._go_on(self._run, firsts, pieces)

    def _marks(self, groups: Groups) -> list[str]:
        """Return the marks of groups: their ranks and their stretch."""
        whole, world = encode_ranks(None), self._frontier.world
        marks = [whole] * len(groups)
        for place in np.flatnonzero((groups.counts < world) | (groups.stretches > 0)).tolist():
            ranks = groups.ranks_of(place) if groups.counts[place] < world else None
            marks[place] = encode_ranks(ranks, int(groups.stretches[place]))
        return marks
