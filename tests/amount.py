"""How much is drawn: fewer examples where somebody waits for the tests."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("TBXD_EXAMPLES_SHARE", "1"))  # `make quick` and `make test` try this share, others all


def examples(count: int) -> int:
    """The number of examples that a property of many is tried with."""
    return max(10, int(SHARE * count))
