"""Shortens names that are too long for their column, where they are alike. As `static/names.js` does in the tab."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

CUT = "…"
NEAR = 3  # letters that are kept before the one in which a name differs
MORE = 4  # letters that names get which are not told apart yet
LEAST = 3
SEPARATORS = "/\\_,:; "  # behind which what all names begin with may end: no number has one


def shorten(names: list[str], most: int) -> list[str]:
    """Return the names in about ``most`` letters each; different names stay different.

    The common beginning of all is left out, then the middle, or the text around the letter in which a name differs.
    """
    if all(len(name) <= most for name in names):
        return names
    shared = min(_common(name, names[0]) for name in names) if len(names) > 1 else 0
    while shared and names[0][shared - 1] not in SEPARATORS:
        shared -= 1
    rests = [CUT + name[shared:] for name in names] if shared > 1 else names
    where = _where(rests)
    room = [max(LEAST, most)] * len(rests)
    while True:
        made = [_cut(name, *about) for name, *about in zip(rests, room, where, strict=True)]
        times = Counter(made)
        alike = [place for place, one in enumerate(made) if times[one] > 1 and room[place] < len(rests[place])]
        if not alike:
            return made
        for place in alike:
            room[place] += MORE


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning of two names."""
    for place, (mine, its) in enumerate(zip(one, other, strict=False)):
        if mine != its:
            return place
    return min(len(one), len(other))


def _where(names: list[str]) -> list[int]:
    """Return, for each name, the place of the letter that distinguishes it from all others."""
    found = [0] * len(names)
    order = sorted(range(len(names)), key=names.__getitem__)
    for one, other in pairwise(order):
        common = _common(names[one], names[other])
        found[one], found[other] = max(found[one], common), max(found[other], common)
    return found


def _cut(name: str, most: int, where: int) -> str:
    if len(name) <= most:
        return name
    where = min(where, len(name) - 1)
    tail = (most - 1) // 3
    if where < most - 1 - tail or where >= len(name) - tail:
        return name[: most - 1 - tail] + CUT + name[len(name) - tail :]
    begin = max(0, where - NEAR)
    end = begin + most - 2
    return CUT + name[begin:end] + (CUT if end < len(name) else "")
