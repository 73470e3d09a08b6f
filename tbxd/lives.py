"""The lives of a run: who goes on where an earlier process, or an earlier attempt of the same job, has ended.

A life is a session, or all ranks of one start of a job that are reduced. What it logs at a step that an earlier one has
passed takes the place of what that has logged from there on, tag by tag: see `events.resume`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.records import RunDefinition, TagDefinition

from .events.contents import Contents
from .events.resume import Life, Resume
from .ranks.restarts import Scope
from .ranks.starts import generation_of, is_reduced

log = logging.getLogger(__name__)

Key = str | bytes  # a start of a job, or a session


@dataclass(slots=True)
class Restart:
    """What a restart comes to: the tags that end, what is written for that, and whether none was passed over."""

    tags: Sequence[str]
    events: bytes
    all: bool


class Lives:
    """Knows for each session of a folder which tags it has yet to log again.

    Args:
        contents: what the folder's files hold; it is read on where that has to be known.
        keep: beginnings of tags that are nobody's: a restart passes over them.
    """

    def __init__(self, contents: Contents, keep: tuple[str, ...]) -> None:
        self._contents = contents
        self._keep = keep
        self._resume = Resume(contents)
        self._lives: dict[Key, Life] = {}
        self._begun = False  # one of them
        self._attempts: dict[str, int] = {}  # of each job, the highest
        self._sessions: dict[bytes, Key] = {}
        self._seen: dict[bytes, npt.NDArray[np.bool_]] = {}  # tags, by number, that a session has logged

    def knows(self, session: bytes) -> bool:
        """Whether a session has been told of."""
        return session in self._sessions

    def begin(self, session: bytes, run: RunDefinition, made: set[str], own: str) -> None:
        """A session logs here for the first time, and its life may begin with that.

        Args:
            run: the folder as the session defines it. All that was logged before has to be in its files.
            made: the names of event files that were made for the sessions that are known.
            own: the one that is being written.

        Raises:
            OSError: a file cannot be read at this moment.
        """
        key = _key(session, run)
        if key not in self._lives:
            earlier: dict[str, int] = {}
            if self._begun or not made.issuperset(self._contents.names()):
                self._resume.read(own)
                # An attempt of a job ends before the next one begins, whatever the clocks of their hosts say.
                again = bool(run.job) and self._attempts.get(run.job, run.attempt) < run.attempt
                earlier = self._resume.earlier(None if again else run.created)
            self._lives[key] = Life(earlier)
            self._begun = True
        if run.job:
            self._attempts[run.job] = max(run.attempt, self._attempts.get(run.job, run.attempt))
        self._sessions[session] = key

    def forget(self, session: bytes) -> None:
        """Nothing comes of a session any more."""
        for known in (self._sessions, self._seen, self._lives):
            known.pop(session, None)

    def join(self, session: bytes, run: RunDefinition) -> None:
        """A rank of a life that has begun."""
        if session not in self._sessions:
            self._sessions[session] = _key(session, run)

    def scalars(
        self, session: bytes, tags: list[TagDefinition | None], numbers: npt.NDArray[Any], steps: npt.NDArray[np.int64]
    ) -> bytes:
        """What is to be written before scalars of a session, mostly nothing.

        Args:
            tags: of the session, by their numbers.
            numbers: (N,) of the scalars' tags.
            steps: (N,) of the scalars.
        """
        life = self._lives.get(self._sessions[session])
        if not life:
            self._seen.pop(session, None)
            return b""
        seen = self._seen.get(session)
        if seen is None or len(seen) < len(tags):
            grown = np.zeros(max(64, 2 * len(tags)), np.bool_)
            if seen is not None:
                grown[: len(seen)] = seen
            seen = self._seen[session] = grown
        fresh = np.flatnonzero(~seen[numbers])
        if not len(fresh):
            return b""
        ids, firsts = np.unique(numbers[fresh], return_index=True)
        seen[ids] = True
        first = steps[fresh[firsts]].tolist()
        named = [tag.tag for number in ids.tolist() if (tag := tags[number]) is not None]
        return self._resume.end(life.cuts(zip(named, first, strict=True)))

    def others(self, session: bytes, tags: Iterable[str], step: int) -> bytes:
        """The same of any other values that share a step."""
        life = self._lives.get(self._sessions[session])
        return self._resume.end(life.cuts((tag, step) for tag in tags)) if life else b""

    def points(self, run: RunDefinition, firsts: dict[str, int]) -> bytes:
        """The same of what several ranks have logged: tags to the first steps that are written of them."""
        life = self._lives.get(_key(b"", run))
        return self._resume.end(life.cuts(firsts.items())) if life else b""

    def restart(
        self,
        session: bytes,
        step: int,
        asked: float,
        own: str,
        pending: Iterable[bytes | memoryview],
        scope: Scope | None = None,
    ) -> Restart:
        """A session says itself from where on it goes.

        Args:
            step: what stands at or behind it is to be forgotten.
            asked: when it said so, in seconds since the epoch. Tags that were logged later stay as they are: whoever
                logs them has begun anew already. Of ranks ``scope`` says what they have logged before.
            own: the event file that is being written.
            pending: the records that the newest file does not have yet.
            scope: of a rank, whose restart takes what its job has logged, whenever that was.
        """
        try:
            self._resume.read(own, pending)
        except OSError as error:
            log.warning("%s: what it has behind step %d cannot be read: %s", self._contents.directory, step, error)
        found = self._resume.beyond(step)
        life = self._lives.get(self._sessions[session]) if scope is not None else None

        def falls(tag: str, logged: float) -> bool:
            if scope is not None and tag in scope.tags:
                return scope.forget
            return logged <= asked or (life is not None and life.has_yet_to_log(tag))

        tags = [tag for tag, logged in found.items() if falls(tag, logged) and not tag.startswith(self._keep)]
        for life in self._lives.values():
            life.restart(step)
        return Restart(tags, self._resume.end(dict.fromkeys(tags, step)), all=len(tags) == len(found))


def _key(session: bytes, run: RunDefinition) -> Key:
    return generation_of(run) if is_reduced(run) else session
