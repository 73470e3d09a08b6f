"""The client's settings: one declaration each, read from the environment. A bad value is told once and not used."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """A number that a user may set. ``unit`` and ``help`` go into the documentation."""

    variable: str
    default: float
    least: float
    most: float
    unit: str
    help: str


JOURNAL_BYTES = Setting(
    "TBXD_JOURNAL_BYTES",
    256 << 20,
    1 << 20,
    1 << 40,
    "bytes",
    "The most that may wait for the daemon in the journal of one process; what is over it is dropped and counted.",
)
BLOCK_MS = Setting(
    "TBXD_BLOCK_MS",
    50,
    0,
    60_000,
    "milliseconds",
    "The longest that one call waits for room in a full journal.",
)
FLUSH_SECONDS = Setting(
    "TBXD_FLUSH_SECONDS",
    5,
    0,
    3600,
    "seconds",
    "The longest that flush(), close() and the end of the program wait for the daemon.",
)
STRICT = Setting(
    "TBXD_STRICT",
    1,
    0,
    1,
    "(off or on)",
    "Whether wrong arguments raise; off, the call is dropped and counted as bad_argument, and said once.",
)
SETTINGS = (JOURNAL_BYTES, BLOCK_MS, FLUSH_SECONDS, STRICT)
_WORDS = {"on": "1", "true": "1", "yes": "1", "off": "0", "false": "0", "no": "0"}


def read(setting: Setting, environ: Callable[[str], str | None] = os.environ.get) -> float:
    """The value of a setting: from the environment when it is there and makes sense, else the default."""
    text = environ(setting.variable)
    if not text:
        return setting.default
    try:
        value = float(_WORDS.get(text.lower(), text))
    except ValueError:
        value = float("nan")
    if setting.least <= value <= setting.most:
        return value
    warn(
        f"{setting.variable}={text!r}: {setting.least:g} to {setting.most:g} {setting.unit} are possible; "
        f"{setting.default:g} is used"
    )
    return setting.default


_said: set[str] = set()


def warn(message: str, once: str = "") -> None:
    """Say something to the user on stderr; under a key ``once`` only the first time in this process."""
    key = once or message
    if key not in _said:
        _said.add(key)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr closed or None: nobody listens
            print(f"tbxd: {message}", file=sys.stderr, flush=True)
