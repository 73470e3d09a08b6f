"""The client's settings: one declaration each, read from the environment. A bad value is told once and not used."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from .descriptors import uncut


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
    "The longest that close() and the end of the program wait for the daemon.",
)
FLUSH_MS = Setting(
    "TBXD_FLUSH_MS",
    40,
    0,
    3_600_000,
    "milliseconds",
    "The longest that flush() waits for the daemon where it is given no time of its own.",
)
STRICT = Setting(
    "TBXD_STRICT",
    1,
    0,
    1,
    "(off or on)",
    "Whether wrong arguments raise; off, the call is dropped and counted as bad_argument, and said once.",
)
SETTINGS = (JOURNAL_BYTES, BLOCK_MS, FLUSH_MS, FLUSH_SECONDS, STRICT)

PERIODIC, ALWAYS = "periodic", "always"
SYNC = Choice(
    "TBXD_SYNC",
    (PERIODIC, ALWAYS),
    "When records are brought onto the disk: now and then, or each before its call returns (script) and before it is "
    "acknowledged (daemon), so that a crash of the machine loses none.",
)
REDUCE, ALL, ZERO = "reduce", "all", "zero"
RANKS = Choice(
    "TBXD_RANKS",
    (REDUCE, ALL, ZERO),
    "What becomes of the ranks of a job: one run for all, with the spread over the ranks; a run for each; or rank 0's "
    "alone, and the others log nothing.",
)
AUTO, ALWAYS_RESUME, NEVER_RESUME = "auto", "always", "never"
RESUME = Choice(
    "TBXD_RESUME",
    (AUTO, ALWAYS_RESUME, NEVER_RESUME),
    "Whether what is logged behind an earlier process takes the place of what that has logged from there on: where it "
    "is known to be a restart of it, always, or never. What does not is shown in a run of its own.",
)
CHOICES = (SYNC, RANKS, RESUME)


class Text:
    """What a user may set in words of its own form; ``otherwise`` says what holds without it."""

    __slots__ = ("form", "help", "otherwise", "variable")  # no NamedTuple: making one takes an eighth of a millisecond

    def __init__(self, variable: str, otherwise: str, form: str, help: str) -> None:
        self.variable = variable
        self.otherwise = otherwise
        self.form = form
        self.help = help


JOURNAL_SHARES = Text(
    "TBXD_JOURNAL_SHARES",
    "image=75,histogram=90,…",
    "KIND=0 to 100, with commas between",
    "How full the journal may be, in percent, for a kind of record to be taken: pictures, videos, sounds and tensors "
    "75, histograms, texts and curves 90; scalars always.",
)
REDUCE_TAGS = Text(
    "TBXD_REDUCE",
    "the mean of all tags",
    "TAG=WORD, with commas between",
    "What becomes of the values of several ranks, by tag: tokens=sum,time/*=p99.",
)
KEY = Text(
    "TBXD_KEY",
    "~/.config/tbxd/client.key",
    "a file",
    "The key of a script, for a daemon on another host.",
)
PYTHON = Text(
    "TBXD_PYTHON",
    "the script's own",
    "the path of a Python that has tbxd",
    "What runs the daemon that a script starts; for programs that are no Python themselves.",
)
RANK = Text("TBXD_RANK", "what the launcher says", "from 0 on", "Which process of its job this is.")
WORLD_SIZE = Text("TBXD_WORLD_SIZE", "what the launcher says", "from 1 on", "How many processes the job has.")
RUN_ID = Text("TBXD_RUN_ID", "what the launcher says", "text", "Which job it is, the same for all of its processes.")
ATTEMPT = Text(
    "TBXD_ATTEMPT", "what the launcher says", "from 0 on", "How often the job was started again, for who knows better."
)
TEXTS = (JOURNAL_SHARES, REDUCE_TAGS, KEY, PYTHON, RANK, WORLD_SIZE, RUN_ID, ATTEMPT)
_WORDS = {"on": "1", "true": "1", "yes": "1", "off": "0", "false": "0", "no": "0"}


def parsed(setting: Setting, text: str) -> float | None:
    """The number that a text says; None where it makes no sense."""
    try:
        value = float(_WORDS.get(text.lower(), text))
    except ValueError:
        return None
    return value if setting.least <= value <= setting.most else None


def read(setting: Setting, environ: Callable[[str], str | None] = os.environ.get) -> float:
    """The value of a setting: from the environment when it is there and makes sense, else the default."""
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
    """The word that is set, in whatever case; the default where there is none, or none of those that are possible."""
    text = environ(choice.variable) or choice.default
    if text.lower() in choice.choices:
        return text.lower()
    warn(f"{choice.variable}={text!r}: {' and '.join(choice.choices)} are possible; {choice.default} is used")
    return choice.default


_said: set[str] = set()


def was_said(*keys: str) -> bool:
    """Whether `warn` has said something under one of these keys."""
    return not _said.isdisjoint(keys)


def warn(message: str, once: str = "") -> None:
    """Say something to the user on stderr; under a key ``once`` only the first time in this process."""
    key = once or message
    if key not in _said:
        _said.add(key)
        # A child forked in the middle of it would find the lock of stderr held.
        with uncut, contextlib.suppress(Exception):  # closed, or whatever a program has put there: nobody listens
            if sys.stderr is not None:
                sys.stderr.write(f"tbxd: {message}\n")  # at once: print would write the end of the line by itself,
                sys.stderr.flush()  # and where stderr is unbuffered, lines of several processes would mix
