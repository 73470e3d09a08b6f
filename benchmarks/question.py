"""What a question is: its figures, its counts, and the function that measures one peer in a process of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .peers import PEERS, Peer


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a question gives for every peer.

    Args:
        name: of its own within the question.
        title, unit: for the tables.
        compared: whether its ratio to tbxd's means something.
        signed: whether it may be below zero.
        curve: the title of the curve of which it is a point. A peer may give fewer points than others.
        x: where on it.
        partial: whether some peers do not give it.
    """

    name: str
    title: str
    unit: str
    compared: bool = True
    signed: bool = False
    curve: str = ""
    x: float = 0
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Logged:
    """What has been logged to one folder under one tag: ``count`` steps, 0, ``stride``, 2 ``stride``, …

    ``kind`` is the field of ``Summary.Value``, or ``embedding``; of a histogram ``elements`` is the number of values in
    it.
    """

    folder: str
    tag: str
    kind: str
    count: int
    elements: int = 0
    stride: int = 1


@dataclass(slots=True)
class Outcome:
    """What one process has measured, and what therefore has to be in its files.

    ``counted``: the measurement itself has counted what is there, and not everything has to be. ``not_possible``: why
    this machine does not permit the measurement; there is nothing else then.
    """

    figures: dict[str, float] = field(default_factory=dict)
    logged: list[Logged] = field(default_factory=list)
    counted: bool = False
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
        rounds_max: the most rounds of `make bench`, which is to be done within ten minutes.
        x: what a curve is drawn against; nothing where there are none.
    """

    name: str
    title: str
    notes: str
    figures: tuple[Figure, ...]
    full: Mapping[str, int]
    quick: Mapping[str, int]
    measure: Measure
    peers: Mapping[str, Peer] = field(default_factory=lambda: PEERS)
    rounds_max: int = 1000
    x: str = ""

    @property
    def base(self) -> str:
        """The name of the one that the others are compared with."""
        return next(iter(self.peers))

    def only(self, titles: Collection[str]) -> Question:
        """The same question to these peers only."""
        return replace(self, peers={name: peer for name, peer in self.peers.items() if peer.title in titles})


def load(name: str) -> Question:
    """The question of the module ``name``."""
    question = importlib.import_module(f"{__package__}.{name}").QUESTION
    assert isinstance(question, Question) and question.name == name, name
    return question
