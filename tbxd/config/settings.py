"""The daemon's settings: one declaration each.

The command line and its help, the environment, the file (`sources`), ``tbxd config`` and docs/SETTINGS.md use them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from tbxd_client.config.paths import (
    ADDRESS_VARIABLE,
    KEYS_VARIABLE,
    RUNTIME_VARIABLE,
    SPOOL_VARIABLE,
    check_address,
    default_address,
    keys_dir,
    runtime_dir,
    spool_dir,
)
from tbxd_client.config.runtime_folders import find_runtime, make_runtime
from tbxd_client.config.settings import ALWAYS, SYNC
from tbxd_client.protocol.records import SYSTEM_SECONDS_MAX

LEVELS = ("debug", "info", "warning", "error")
# What a value may be.
NUMBER, INTEGER, WORD, TEXT = "number", "whole number", "word", "text"
ENDPOINT, TCP, FOLDER, FOLDERS = "endpoint", "tcp endpoint", "folder", "folders"
SHOWN_MAX = 60  # characters of a value that makes no sense
_POSSIBLE = {
    TEXT: "texts",
    ENDPOINT: "ipc:///path/to/socket and tcp://HOST:PORT",
    TCP: "tcp://INTERFACE:PORT",
    FOLDER: "folders (absolute, or from ~)",
    FOLDERS: "folders (absolute, or from ~), separated by ':'",
}


class BadSetting(ValueError):
    """A value is not possible; the message has its source and the possible values."""


class Setting(NamedTuple):
    """One setting.

    Args:
        name: its field in `Settings`, and its key in the file.
        variable: its environment variable.
        default: None if it is derived; then ``otherwise`` describes it.
        help: its purpose.
        least: the least number.
        most: the greatest number; 0 for a setting that is not a number.
        choices: the possible words.
        form: one of the words above, if the other arguments do not determine it.
        otherwise: see ``default``.
        example: an example value; without one the default.
        asking: its purpose for a command that asks a daemon, if different.
        live: it can change while the daemon runs.
        scripts: scripts that log need it, too (for the daemon's place, or their own part), and read no file.
    """

    name: str
    variable: str
    default: Any
    help: str
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()
    form: str = ""
    otherwise: str = ""
    example: str = ""
    asking: str = ""
    live: bool = False
    scripts: bool = False

    @property
    def option(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def kind(self) -> str:
        """The kind of its values."""
        return self.form or (WORD if self.choices else NUMBER if self.most else TEXT)

    @property
    def possible(self) -> str:
        """The possible values, as text."""
        if self.kind in (NUMBER, INTEGER):
            whole = "whole numbers from " if self.kind == INTEGER else ""
            return f"{whole}{_plain(self.least)} to {_plain(self.most)}"
        return ", ".join(self.choices) or _POSSIBLE[self.kind]

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, as the end of a sentence that begins with its name; "" if valid."""
        return "" if self._fits(value) else self.wrong(value)

    def wrong(self, value: Any) -> str:
        """Return the end of such a sentence, for an impossible value."""
        why = _why_no_address(value) if self.kind in (ENDPOINT, TCP) and isinstance(value, str) else ""
        return f"is {_said(value)}; {why or f'{self.possible} are possible'}"

    def _fits(self, value: Any) -> bool:
        if self.kind in (NUMBER, INTEGER):
            fits = isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.most
            return fits and (self.kind == NUMBER or value == int(value))
        if not isinstance(value, str) or "\0" in value:
            return False
        if self.kind in (ENDPOINT, TCP):
            return not _why_no_address(value) and (self.kind == ENDPOINT or value.startswith("tcp://"))
        return value in self.choices if self.choices else bool(value)


PLACES = frozenset(("address", "runtime_dir", "spool"))  # where scripts and daemon meet
SETTINGS = (
    Setting(
        "address",
        ADDRESS_VARIABLE,
        None,
        "Where to listen: ipc:///path or tcp://127.0.0.1:PORT. Default: a socket in the runtime folder.",
        form=ENDPOINT,
        otherwise="a socket in the runtime folder",
        example="tcp://127.0.0.1:7007",
        asking="Where the daemon is: ipc:///path or tcp://HOST:PORT. Default: the socket in the runtime folder.",
        scripts=True,
    ),
    Setting(
        "listen",
        "TBXD_LISTEN",
        None,
        "Also accept scripts on other hosts, with keys: tcp://INTERFACE:PORT; tcp://0.0.0.0:7007 for all interfaces.",
        form=TCP,
        otherwise="nowhere",
        example="tcp://0.0.0.0:7007",
    ),
    Setting(
        "roots",
        "TBXD_ROOTS",
        None,
        "The folders, separated by ':', below which scripts on other hosts may log; with --listen.",
        form=FOLDERS,
        otherwise="none",
        example="/data/runs:/scratch/runs",
    ),
    Setting(
        "keys",
        KEYS_VARIABLE,
        None,
        "The folder of the keys. Default: tbxd/keys in your configuration folder.",
        form=FOLDER,
        otherwise="~/.config/tbxd/keys",
        example="~/.config/tbxd/keys",
    ),
    Setting(
        "runtime_dir",
        RUNTIME_VARIABLE,
        None,
        "The folder of the socket, the lock and the log. If it cannot be used, another one is.",
        form=FOLDER,
        otherwise="/var/tmp/tbxd-<uid>/run",  # noqa: S108 - it is said, not used
        example="/scratch/tbxd/run",
        asking="The folder of the daemon's socket, lock and log.",
        scripts=True,
    ),
    Setting(
        "spool",
        SPOOL_VARIABLE,
        None,
        "The folder of the journals; those of dead scripts are drained. If it cannot be used, another one is.",
        form=FOLDER,
        otherwise="/var/tmp/tbxd-<uid>/spool",  # noqa: S108 - it is said, not used
        example="/scratch/tbxd/spool",
        asking="The folder of the journals.",
        scripts=True,
    ),
    Setting(
        "batch_ms",
        "TBXD_BATCH_MS",
        100.0,
        "How long records of a run are gathered before they are written, in milliseconds.",
        0,
        60_000,
        live=True,
    ),
    Setting(
        "sync_seconds",
        "TBXD_SYNC_SECONDS",
        1.0,
        "How often event files are synced to disk. A crash of the machine loses at most what was written since.",
        0.01,
        3600,
        live=True,
    ),
    Setting("sync", SYNC.variable, SYNC.default, SYNC.help, choices=SYNC.choices, scripts=True),
    Setting(
        "idle_seconds",
        "TBXD_IDLE_SECONDS",
        60.0,
        "How long a daemon that a script started stays when nobody logs.",
        0,
        1e9,
        live=True,
    ),
    Setting(
        "open_files",
        "TBXD_OPEN_FILES",
        256.0,
        "Event files that are open at the same time.",
        1,
        1e6,
        form=INTEGER,
        live=True,
    ),
    Setting("threads", "TBXD_THREADS", 8.0, "Threads that make summaries and write files.", 1, 256, form=INTEGER),
    Setting(
        "ranks_seconds",
        "TBXD_RANKS_SECONDS",
        30.0,
        "How long a point of several ranks waits for a rank that has not logged it yet.",
        0.1,
        3600,
    ),
    Setting(
        "system_seconds",
        "TBXD_SYSTEM_SECONDS",
        0.0,
        "Seconds between samples of the node (processors, memory, disks, network, GPUs) for active runs; 0: none.",
        0,
        SYSTEM_SECONDS_MAX,
        live=True,
    ),
    Setting(
        "key_bytes_second",
        "TBXD_KEY_BYTES_SECOND",
        0.0,
        "Bytes of records that each key (another host) may send in a second; more waits there. 0: no limit.",
        0,
        1e12,
        live=True,
    ),
    Setting(
        "key_bytes_day",
        "TBXD_KEY_BYTES_DAY",
        0.0,
        "Bytes of records that each key may send in a day; more waits there. 0: no limit.",
        0,
        1e15,
        live=True,
    ),
    Setting(
        "key_sessions",
        "TBXD_KEY_SESSIONS",
        20_000.0,
        "Processes that may log with one key at the same time.",
        1,
        1e5,
        form=INTEGER,
        live=True,
    ),
    Setting(
        "key_runs",
        "TBXD_KEY_RUNS",
        20_000.0,
        "Runs that one key may log into until the daemon restarts.",
        1,
        1e5,
        form=INTEGER,
        live=True,
    ),
    Setting(
        "key_tags",
        "TBXD_KEY_TAGS",
        2_000_000.0,
        "Tags that one key may have, in all processes that log with it together.",
        1,
        1e9,
        form=INTEGER,
        live=True,
    ),
    Setting(
        "metrics",
        "TBXD_METRICS",
        None,
        "Where Prometheus may scrape: http://127.0.0.1:PORT or unix:/path/to/socket. Default: nowhere.",
        otherwise="nowhere",
        example="http://127.0.0.1:9464",
    ),
    Setting(
        "log_level",
        "TBXD_LOG_LEVEL",
        None,
        "What the daemon logs. Default: info for a service and for a daemon that a script started, else warning.",
        choices=LEVELS,
        otherwise="info or warning",
        example="info",
        live=True,
    ),
)
# Where the file is; not in it.
CONFIG = Setting(
    "config",
    "TBXD_CONFIG",
    None,
    "The settings file. With '-' before its path it may be missing.",
    otherwise="~/.config/tbxd/config.toml, else /etc/tbxd/config.toml",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one daemon, complete and checked."""

    address: str
    listen: str | None
    roots: str | None
    keys: Path
    runtime_dir: Path
    spool: Path
    batch_ms: float
    sync_seconds: float
    sync: str
    idle_seconds: float
    open_files: int
    threads: int
    ranks_seconds: float
    system_seconds: float
    key_bytes_second: float
    key_bytes_day: float
    key_sessions: int
    key_runs: int
    key_tags: int
    metrics: str | None
    log_level: str | None
    runtime_wanted: Path  # `runtime_dir` as it was given; another may stand in for it

    @classmethod
    def of(cls, values: dict[str, Any]) -> Settings:
        """Make settings from given values; a missing value or None is the default.

        Raises:
            BadSetting: a value is out of range; the message names it.
        """
        given = {name: value for name, value in values.items() if value is not None}
        for setting in SETTINGS:
            value = given.setdefault(setting.name, setting.default)
            if setting.kind in (NUMBER, INTEGER, WORD) and value is not None and (wrong := setting.problem(value)):
                raise BadSetting(f"{setting.option[2:]} {wrong}")
        given["runtime_wanted"] = Path(given["runtime_dir"] or runtime_dir()).absolute()
        given["runtime_dir"] = runtime = find_runtime(given["runtime_wanted"])
        given["spool"] = Path(given["spool"] or spool_dir()).absolute()
        given["keys"] = Path(given["keys"] or keys_dir()).absolute()
        given["address"] = given["address"] or default_address(runtime)
        for setting in SETTINGS:
            if setting.kind == INTEGER:
                given[setting.name] = int(given[setting.name])
        return cls(**{item.name: given[item.name] for item in fields(cls)})

    def values(self) -> dict[str, Any]:
        """Return the values by name, for JSON; the names are those of `SETTINGS`."""
        found = {setting.name: getattr(self, setting.name) for setting in SETTINGS}
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}

    def settled(self) -> Settings:
        """Return the settings with the first usable runtime folder, made and tested; `of` only looks for it.

        Raises:
            OSError: no folder is usable.
        """
        runtime = make_runtime(self.runtime_wanted)
        own = self.address == default_address(self.runtime_dir)
        return replace(self, runtime_dir=runtime, address=default_address(runtime) if own else self.address)

    @property
    def durable(self) -> bool:
        """True if the daemon acknowledges only records that are on disk."""
        return self.sync == ALWAYS


def _said(value: Any) -> str:
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "too much"
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"


def _why_no_address(value: str) -> str:
    """Return what is wrong with an endpoint; "" if valid. Clients require a port, too."""
    try:
        check_address(value, listening=True)
    except ValueError as error:
        return str(error).partition(f"address {value!r}: ")[2]
    return ""


def _plain(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:g}"
