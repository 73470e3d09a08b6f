"""The share of a journal that each kind of record may fill: the kinds with small shares are dropped first.

`Kind.share` has the share of each kind. Within a kind the newest is dropped: what is in the journal is promised.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..config.settings import JOURNAL_SHARES, warn
from ..protocol.kinds import KINDS, SCALAR_SHARE

SHARES_VARIABLE = JOURNAL_SHARES.variable


def default_shares() -> dict[int, float]:
    """Return the share of the journal that each kind of record may fill, from 0 to 1."""
    return {number: kind.share for number, kind in KINDS.items()}


def read_shares(environ: Callable[[str], str | None] = os.environ.get) -> dict[int, float]:
    """Return the shares with the user's changes: ``TBXD_JOURNAL_SHARES="image=50,histogram=100"``, in percent.

    An entry that makes no sense is told once and not used. Scalars always have all of the journal: they are
    written without asking.
    """
    shares = default_shares()
    kinds = {kind.name: number for number, kind in KINDS.items() if kind.share < SCALAR_SHARE}
    for entry in (environ(SHARES_VARIABLE) or "").replace(" ", "").split(","):
        name, _, percent = entry.partition("=")
        if not entry:
            continue
        if name in kinds and percent.isascii() and percent.isdigit() and int(percent) <= 100:
            shares[kinds[name]] = int(percent) / 100
        else:
            warn(f"{SHARES_VARIABLE}: {entry!r} is not used; NAME=0 to 100 is possible, NAME of {', '.join(kinds)}")
    return shares
