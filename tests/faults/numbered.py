"""The records of a trainer of the fault tests: every record a function of (trainer, number)."""

from __future__ import annotations

import zlib
from typing import Any

ROW_EVERY, HISTOGRAM_EVERY, TEXT_EVERY = 50, 1000, 333
HISTOGRAM_VALUES = 5000  # 40 kB: a record that goes through pwrite
COUNTERS = "counts"  # the folder with a file for each trainer: how many of its calls have returned


def value_of(trainer: int, number: int) -> float:
    """Return the value of record ``number`` of a trainer: 24 bits, so that a float32 has all of them."""
    return float(zlib.crc32(b"%d:%d" % (trainer, number)) & 0xFFFFFF)


def kind_of(number: int, mixed: bool = True) -> str:
    """Return the kind of a numbered record."""
    if mixed:
        for kind, every in (("histogram", HISTOGRAM_EVERY), ("text", TEXT_EVERY), ("row", ROW_EVERY)):
            if number % every == every - 1:
                return kind
    return "scalar"


def tag_of(trainer: int, kind: str) -> str:
    """The tag of a kind's records."""
    return f"{kind}/{trainer}"


def log_record(writer: Any, trainer: int, number: int, mixed: bool = True) -> None:
    """Log record ``number``."""
    kind = kind_of(number, mixed)
    tag, value = tag_of(trainer, kind), value_of(trainer, number)
    if kind == "scalar":
        writer.add_scalar(tag, value, number)
    elif kind == "row":
        writer.log({f"{tag}/a": value, f"{tag}/b": -value}, number)
    elif kind == "text":
        writer.add_text(tag, f"{trainer}:{number}", number)
    else:
        import numpy as np

        writer.add_histogram(tag, np.arange(HISTOGRAM_VALUES, dtype=np.float64) + value, number)
