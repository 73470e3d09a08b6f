"""Who is dropped first when a journal fills up: how much of it each kind of record may fill.

Scalars may fill all of it. What is large stops earlier, so that a daemon which is away, or too slow for the pictures,
costs pictures and not the curves. Within a kind the newest is dropped: what is in the journal is promised.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..config.settings import JOURNAL_SHARES, warn
from ..protocol.records import (
    CUSTOM_SCALARS,
    HISTOGRAM,
    HISTOGRAM_RAW,
    HPARAMS,
    KIND_NAMES,
    PR_CURVE,
    PR_CURVE_RAW,
    RESTART,
    ROW,
    SCALAR,
    TEXT,
)

SHARES_VARIABLE = JOURNAL_SHARES.variable
SCALAR_SHARE, MIDDLE_SHARE, LARGE_SHARE = 1.0, 0.9, 0.75
_MIDDLE = (HISTOGRAM, HISTOGRAM_RAW, TEXT, PR_CURVE, PR_CURVE_RAW, HPARAMS, CUSTOM_SCALARS)


def default_shares() -> dict[int, float]:
    """Kind of record to the share of the journal that it may fill, from 0 to 1."""
    shares = dict.fromkeys(KIND_NAMES, LARGE_SHARE)
    shares.update(dict.fromkeys(_MIDDLE, MIDDLE_SHARE))
    shares.update(dict.fromkeys((SCALAR, ROW, RESTART), SCALAR_SHARE))
    return shares


def read_shares(environ: Callable[[str], str | None] = os.environ.get) -> dict[int, float]:
    """The shares with what the user has changed: ``TBXD_JOURNAL_SHARES="image=50,histogram=100"``, in percent.

    An entry that makes no sense is told once and not used. Scalars always have all of the journal: they are
    written without asking.
    """
    shares = default_shares()
    kinds = {name: kind for kind, name in KIND_NAMES.items() if shares[kind] < SCALAR_SHARE}
    for entry in (environ(SHARES_VARIABLE) or "").replace(" ", "").split(","):
        name, _, percent = entry.partition("=")
        if not entry:
            continue
        if name in kinds and percent.isascii() and percent.isdigit() and int(percent) <= 100:
            shares[kinds[name]] = int(percent) / 100
        else:
            warn(f"{SHARES_VARIABLE}: {entry!r} is not used; NAME=0 to 100 is possible, NAME of {', '.join(kinds)}")
    return shares
