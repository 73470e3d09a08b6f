"""The client's settings: one declaration each, read from the environment. An invalid value is reported once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from ..process.descriptors import uncut


class Setting(NamedTuple):
    """A number that a user may set. ``unit`` and ``help`` go into the documentation."""

    variable: str
    default: float
    least: float
    most: float
    unit: str
    help: str


class Choice(NamedTuple):
    """A word out of a few that a user may set; the first is the default."""

    variable: str
    choices: tuple[str, ...]
    help: str

    @property
    def default(self) -> str:
        return self.choices[0]


JOURNAL_BYTES = Setting(
    "TBXD_JOURNAL_BYTES",
    256 << 20,
    1 << 20,
    1 << 40,
    "bytes",
    "The size of the journal of one process, where records wait for the daemon. More is dropped and counted.",
)
BLOCK_MS = Setting(
    "TBXD_BLOCK_MS",
    50,
    0,
    60_000,
    "milliseconds",
    "The longest time that one call waits for room in a full journal.",
)
FLUSH_SECONDS = Setting(
    "TBXD_FLUSH_SECONDS",
    5,
    0,
    3600,
    "seconds",
    "The longest time that close() and the end of the program wait for the daemon.",
)
FLUSH_MS = Setting(
    "TBXD_FLUSH_MS",
    40,
    0,
    3_600_000,
    "milliseconds",
    "The longest time that flush() without an argument waits for the daemon.",
)
STRICT = Setting(
    "TBXD_STRICT",
    1,
    0,
    1,
    "(off or on)",
    "Whether invalid arguments raise. If off, the call is dropped, counted as bad_argument and reported once.",
)
SETTINGS = (JOURNAL_BYTES, BLOCK_MS, FLUSH_MS, FLUSH_SECONDS, STRICT)

PERIODIC, ALWAYS = "periodic", "always"
SYNC = Choice(
    "TBXD_SYNC",
    (PERIODIC, ALWAYS),
    "When records are synced to disk. periodic: at intervals. always: before the call returns (script) and before the "
    "record is acknowledged (daemon), so that a crash of the machine loses none.",
)
REDUCE, ALL, ZERO = "reduce", "all", "zero"
RANKS = Choice(
    "TBXD_RANKS",
    (REDUCE, ALL, ZERO),
    "What the ranks of a job log. reduce: one run for all, with the spread over the ranks. all: a run for each rank. "
    "zero: rank 0 logs, the others do not.",
)
AUTO, ALWAYS_RESUME, NEVER_RESUME = "auto", "always", "never"
RESUME = Choice(
    "TBXD_RESUME",
    (AUTO, ALWAYS_RESUME, NEVER_RESUME),
    "Whether a process replaces what an earlier one logged from the same step on. auto: only if it is known to be a "
    "restart of it. What replaces nothing is shown in a run of its own.",
)
CHOICES = (SYNC, RANKS, RESUME)


class Text:
    """A setting with a text of its own form; ``otherwise`` describes the default."""

    __slots__ = ("form", "help", "otherwise", "variable")  # no NamedTuple: making one takes an eighth of a millisecond

    def __init__(self, variable: str, otherwise: str, form: str, help: str) -> None:
        self.variable = variable
        self.otherwise = otherwise
        self.form = form
        self.help = help


JOURNAL_SHARES = Text(
    "TBXD_JOURNAL_SHARES",
    "image=75,histogram=90,…",
    "KIND=0 to 100, separated by commas",
    "How full the journal may be, in percent, to accept a kind of record. Images, videos, audio and tensors: 75. "
    "Histograms, texts and curves: 90. Scalars: always.",
)
REDUCE_TAGS = Text(
    "TBXD_REDUCE",
    "the mean of all tags",
    "TAG=WORD, separated by commas",
    "How the values of several ranks are reduced, by tag: tokens=sum,time/*=p99.",
)
KEY = Text(
    "TBXD_KEY",
    "~/.config/tbxd/client.key",
    "a file",
    "The key with which a script logs to a daemon on another host.",
)
PYTHON = Text(
    "TBXD_PYTHON",
    "the script's own",
    "the path of a Python that has tbxd",
    "The interpreter that runs the daemon of this script; for programs that are not a Python themselves.",
)
RANK = Text("TBXD_RANK", "what the launcher says", "from 0 on", "The rank of this process in its job.")
WORLD_SIZE = Text("TBXD_WORLD_SIZE", "what the launcher says", "from 1 on", "The number of processes of the job.")
RUN_ID = Text("TBXD_RUN_ID", "what the launcher says", "text", "The name of the job, the same in all of its processes.")
ATTEMPT = Text(
    "TBXD_ATTEMPT", "what the launcher says", "from 0 on", "How often the job was restarted; overrides the launcher."
)
TEXTS = (JOURNAL_SHARES, REDUCE_TAGS, KEY, PYTHON, RANK, WORLD_SIZE, RUN_ID, ATTEMPT)
_WORDS = {"on": "1", "true": "1", "yes": "1", "off": "0", "false": "0", "no": "0"}


def parsed(setting: Setting, text: str) -> float | None:
    """Return the number in a text; None if it is invalid."""
    try:
        value = float(_WORDS.get(text.lower(), text))
    except ValueError:
        return None
    return value if setting.least <= value <= setting.most else None


def read(setting: Setting, environ: Callable[[str], str | None] = os.environ.get) -> float:
    """Return the value of a setting: from the environment if it is there and valid, else the default."""
    text = environ(setting.variable)
    if not text:
        return setting.default
    value = parsed(setting, text)
    if value is not None:
        return value
    warn(
        f"{setting.variable}={text!r}: {setting.least:g} to {setting.most:g} {setting.unit} are possible; "
        f"{setting.default:g} is used"
    )
    return setting.default


def read_choice(choice: Choice, environ: Callable[[str], str | None] = os.environ.get) -> str:
    """Return the word that is set, in lower case; the default if none is set or it is not possible."""
    text = environ(choice.variable) or choice.default
    if text.lower() in choice.choices:
        return text.lower()
    warn(f"{choice.variable}={text!r}: {' and '.join(choice.choices)} are possible; {choice.default} is used")
    return choice.default


_said: set[str] = set()


def was_said(*keys: str) -> bool:
    """Return True if `warn` has written a message under one of these keys."""
    return not _said.isdisjoint(keys)


def warn(message: str, once: str = "") -> None:
    """Write a message to stderr; under a key ``once`` only the first time in this process."""
    key = once or message
    if key not in _said:
        _said.add(key)
        # A child forked in the middle of it would find the lock of stderr held.
        with uncut, contextlib.suppress(Exception):  # closed, or whatever a program has put there: nobody listens
            if sys.stderr is not None:
                sys.stderr.write(f"tbxd: {message}\n")  # at once: print would write the end of the line by itself,
                sys.stderr.flush()  # and where stderr is unbuffered, lines of several processes would mix
