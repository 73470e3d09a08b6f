"""What the questions about growth have in common: points of a curve, as far as a peer gets in reasonable time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from .question import Figure, Logged, Outcome

SECONDS_MAX = 30.0  # a point that is expected to take longer is not measured, but for tbxd
DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Measures = Sequence[tuple[str, str, str]]  # name, title and unit of each thing that is measured at each point


def power(value: float) -> str:
    """1,000 as 10³, and what is no power of ten above 10 as it is."""
    digits = f"{value:.0f}"
    if digits.strip("0") == "1" and len(digits) > 2:
        return "10" + str(len(digits) - 1).translate(DIGITS)
    return digits


def figures(measures: Measures, xs: Iterable[int], of: str) -> tuple[Figure, ...]:
    """A figure for each measure at each x; ``of`` is what x counts."""
    return tuple(
        Figure(f"{name}_{x}", f"{title}, {power(x)} {of}", unit, curve=title, x=x)
        for name, title, unit in measures
        for x in xs
    )


def climb(
    xs: Iterable[int],
    point: Callable[[int], tuple[dict[str, float], list[Logged]]],
    unlimited: bool,
    work: Callable[[int], float] = float,
    seconds_max: float = SECONDS_MAX,
) -> Outcome:
    """Measure at one x after the other, from the least on.

    Args:
        xs: where.
        point: measures at one x; gives the values by name, and what it has logged.
        unlimited: whether to go on however long it takes.
        work: how much is to do at an x, to foresee how long the next one takes.
        seconds_max: a point that is expected to take longer is not measured.
    """
    outcome = Outcome()
    seconds, done = 0.0, 1.0
    for x in xs:
        if not unlimited and seconds / done * work(x) > seconds_max:
            break
        start = time.monotonic()
        values, logged = point(x)
        seconds, done = time.monotonic() - start, work(x)
        outcome.figures |= {f"{name}_{x}": value for name, value in values.items()}
        outcome.logged += logged
    return outcome
