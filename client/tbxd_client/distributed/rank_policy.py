"""How the ranks of a job log: one run for all of them, one for each, or rank 0's alone. See docs/RANKS.md."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ..config import settings
from ..config.settings import ALL, REDUCE, ZERO, warn
from .rank_detection import Identity, identity

REDUCE_VARIABLE = settings.REDUCE_TAGS.variable
# Reductions of a tag's values of several ranks to one point, or a curve for each rank.
MEAN, SUM, MIN, MAX, LAST = "mean", "sum", "min", "max", "last"
PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}
EACH = "all"
WORDS = (MEAN, SUM, MIN, MAX, LAST, *PERCENTILES, EACH)


class Member:
    """A process as a member of its job, and how it logs as one.

    Args:
        policy: one of the words of ``TBXD_RANKS``.
        words: pattern of tags to one of `WORDS`; the first match applies.
        who: the identity. None is detected at the first use, as in a process that this was passed to.
    """

    __slots__ = ("_who", "policy", "words")

    def __init__(self, policy: str, words: tuple[tuple[str, str], ...] = (), who: Identity | None = None) -> None:
        self.policy = policy
        self.words = words
        self._who = who

    def __reduce__(self) -> tuple[type[Member], tuple[str, tuple[tuple[str, str], ...]]]:
        return Member, (self.policy, self.words)

    @property
    def who(self) -> Identity:
        """The identity of the process."""
        if self._who is None:
            self._who = identity()
        return self._who

    @property
    def reduces(self) -> bool:
        """True if the values of all ranks at one tag and step become one point."""
        return self.policy == REDUCE and self.who.world > 1

    @property
    def writes(self) -> bool:
        """True if this process logs."""
        return self.policy != ZERO or self.who.rank == 0

    def folder(self, logdir: str) -> str:
        """Return the folder of this process for a job that logs to ``logdir``."""
        who = self.who
        if self.policy != ALL or who.world == 1:
            return logdir
        name = f"rank{who.rank:0{len(str(who.world - 1))}}"
        return os.path.join(logdir, name)  # noqa: PTH118 - shown to the user as it is

    def word(self, tag: str) -> str:
        """Return the reduction of a tag's values over ranks; "" is the default of its kind."""
        if not self.words or not tag or not self.reduces:
            return ""
        return next((word for pattern, word in self.words if pattern == tag or fnmatchcase(tag, pattern)), "")


def member(ranks: str | None = None, reduce: Mapping[str, str] | None = None) -> Member:
    """Return this process as a member of its job, by a writer's arguments and the settings.

    Args:
        ranks: as ``TBXD_RANKS``, which it overrides.
        reduce: pattern of tags to one of `WORDS`; those of ``TBXD_REDUCE`` come after them.

    Raises:
        TypeError: reduce is not a mapping, or a pattern is not a string.
        ValueError: a word is not possible.
    """
    if ranks is None:
        ranks = settings.read_choice(settings.RANKS)
    elif ranks not in settings.RANKS.choices:
        raise ValueError(f"ranks={ranks!r:.80}: {', '.join(map(repr, settings.RANKS.choices))} are possible")
    given = _checked(reduce) if reduce is not None else ()
    text = os.environ.get(REDUCE_VARIABLE)
    return Member(ranks, given + read_words(text) if text else given, identity())


def _checked(reduce: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(reduce, Mapping):
        raise TypeError(f"reduce is {type(reduce).__name__}; a dictionary of tags, or patterns of tags, is expected")
    for pattern, word in reduce.items():
        if not isinstance(pattern, str):
            raise TypeError(f"reduce: a pattern of tags is a string; {pattern!r:.80} is {type(pattern).__name__}")
        if word not in WORDS:
            raise ValueError(f"reduce={{{pattern!r:.80}: {word!r:.80}}}: {', '.join(map(repr, WORDS))} are possible")
    return tuple(reduce.items())


def read_words(text: str) -> tuple[tuple[str, str], ...]:
    """Return the patterns and words of ``TBXD_REDUCE="tokens=sum,time/*=p99"``; invalid entries are reported."""
    words, bad = split_words(text)
    for entry in bad:
        warn(f"{REDUCE_VARIABLE}: {entry!r} is not used; TAG=WORD is possible, WORD of {', '.join(WORDS)}")
    return words


def split_words(text: str) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the patterns and words of ``TBXD_REDUCE``, and its invalid entries."""
    words, bad = [], []
    for entry in filter(None, map(str.strip, text.split(","))):
        pattern, _, word = map(str.strip, entry.rpartition("="))
        if pattern and word in WORDS:
            words.append((pattern, word))
        else:
            bad.append(entry)
    return tuple(words), bad
