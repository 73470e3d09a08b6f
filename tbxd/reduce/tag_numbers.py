"""The numbers of tags: each session has its own, and the reduction those of all ranks."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from tbxd_client.protocol.kinds import HISTOGRAM, SCALAR, kind_of
from tbxd_client.protocol.records import STEP_MIN, TagDefinition

from ..batch import Batch
from .aggregate import Integers
from .emission import Emission
from .history import Recall
from .pending import Member
from .shown_rank import Speakers
from .tag_membership import ALL, Tags


class TagNumbers:
    """Numbers tags of sessions as they are first logged, and notes which ranks log them.

    Args:
        tags: those of the run.
        recall: what its event files hold.
        emission: is told which of the tags had begun before,
        speakers: and who has spoken for them.
    """

    def __init__(self, tags: Tags, recall: Recall, emission: Emission, speakers: Speakers) -> None:
        self._tags, self._recall, self._emission, self._speakers = tags, recall, emission, speakers

    def of_scalars(self, member: Member, batch: Batch, ids: Integers, ends: Integers, now: float) -> Integers:
        """Return our numbers of a session's tags, and note that this rank logs them.

        Args:
            member: the session.
            batch: defines the tags.
            ids: the session's own numbers.
            ends: of the records that these are of.
            now: seconds, by a clock that does not jump.

        Raises:
            TooManyTags: there is no room for another.
        """
        highest = int(ids.max()) if len(ids) else -1
        if highest >= len(member.numbers):
            grown = np.full(2 * highest, -1, np.int64)
            grown[: len(member.numbers)] = member.numbers
            member.numbers = grown
        numbers = member.numbers.take(ids)
        missing = numbers < 0
        if missing.any():
            for index in sorted(set(ids[missing].tolist())):  # np.unique imports numpy.ma: 20 ms of a first flush
                end = int(ends[int(np.argmax(ids == index))])
                member.numbers[index] = self._number(member, SCALAR, batch.tag(index), index, end, now)
            numbers = member.numbers.take(ids)
        return numbers

    def of_record(self, member: Member, batch: Batch, kind: int, tag: int, end: int, now: float) -> int:
        """Return our number of the tag of another kind of record, and note that this rank logs it.

        Args:
            member: the session.
            batch: defines the tag.
            kind: of the record.
            tag: the session's own number.
            end: of the record.
            now: seconds, by a clock that does not jump.

        Raises:
            TooManyTags: there is no room for another.
        """
        number = member.others.get((kind, tag))
        if number is None:
            number = self._number(member, kind, batch.tag(tag), tag, end, now)
            member.others[kind, tag] = number
        return number

    def _number(self, member: Member, kind: int, tag: TagDefinition, index: int, end: int, now: float) -> int:
        """Return our number of a session's tag ``index``; its first record ends at ``end``."""
        rank = member.rank
        if tag.reduce == ALL:
            width = len(str(self._tags.frontier.world - 1))
            tag = TagDefinition(
                tag.id,
                tag.run,
                f"{tag.tag}/rank{rank:0{width}}",
                tag.color,
                f"{tag.display_name} (rank {rank})" if tag.display_name else "",
                tag.description,
                tag.numbered,
                tag.reduce,
            )
        number = self._tags.find(kind, tag.tag)
        if number is None:
            curve = (tag.tag + next(iter(kind_of(kind).suffixes), ""), kind == HISTOGRAM)
            number = self._tags.add(kind, tag, curve[0], now)
            self._emission.recall(number, self._recall.tag(number, curve, member.session, tag.reduce))
            owner, alone = self._recall.author(curve, member.session)
            if owner != member.session or alone > STEP_MIN:
                self._speakers.recall(number, owner, alone)
        member.tags += [None] * (index + 1 - len(member.tags))
        member.tags[index] = tag
        member.ids.setdefault(number, index)
        self._recall.place(member, number, index, end)
        self._tags.join(number, rank, now)
        return number


def renamed(member: Member, batch: Batch) -> Batch:
    """Return a batch with the names of this rank's tags."""
    if all(tag is None or tag.reduce != ALL for tag in member.tags):
        return batch
    # A restart names a tag that need not have been logged.
    tags = [mine or theirs for mine, theirs in zip_longest(member.tags, batch.tags)]
    return Batch(batch.session, batch.run, tags, batch.rows, batch.token, numbered=batch.numbered)
