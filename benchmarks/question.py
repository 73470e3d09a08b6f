"""What a question is: its figures, its counts, and the function that measures one peer in a process of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .peers import PEERS, Peer


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a question gives for every peer. ``compared``: whether its ratio to tbxd's means something."""

    name: str
    title: str
    unit: str
    compared: bool = True


@dataclass(frozen=True, slots=True)
class Logged:
    """What has been logged to one folder under one tag: steps 0 to ``count`` - 1.

    ``kind`` is the field of ``Summary.Value``, or ``embedding``; of a histogram ``elements`` is the number of values in
    it.
    """

    folder: str
    tag: str
    kind: str
    count: int
    elements: int = 0


@dataclass(slots=True)
class Outcome:
    """What one process has measured, and what therefore has to be in its event files.

    ``not_possible``: why this machine does not permit the measurement; there is nothing else then.
    """

    figures: dict[str, float] = field(default_factory=dict)
    logged: list[Logged] = field(default_factory=list)
    not_possible: str = ""


Measure = Callable[[Peer, Mapping[str, int], Path], Outcome]


@dataclass(frozen=True, slots=True)
class Question:
    """A question to all peers.

    Args:
        name: that of its module.
        title: what is measured, in one line.
        notes: how; for the reader of the tables.
        figures: what `measure` gives, in the order of the table.
        full, quick: counts for `measure`; ``quick`` only shows that everything works.
        measure: called in a fresh process with a peer, the counts and a folder to log below.
        peers: those that are asked, by their names, the one first that the others are compared with. They may be cases
            of one writer.
    """

    name: str
    title: str
    notes: str
    figures: tuple[Figure, ...]
    full: Mapping[str, int]
    quick: Mapping[str, int]
    measure: Measure
    peers: Mapping[str, Peer] = field(default_factory=lambda: PEERS)

    @property
    def base(self) -> str:
        """The name of the one that the others are compared with."""
        return next(iter(self.peers))

    @property
    def versions(self) -> dict[str, str]:
        """What is measured: modules' names to versions."""
        return {peer.title: peer.versions() for peer in self.peers.values()}


def load(name: str) -> Question:
    """The question of the module ``name``."""
    question = importlib.import_module(f"{__package__}.{name}").QUESTION
    assert isinstance(question, Question) and question.name == name, name
    return question
