"""The daemon's settings: one declaration each, from which the command line, the environment and its help follow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tbxd_client.paths import (
    ADDRESS_VARIABLE,
    KEYS_VARIABLE,
    RUNTIME_VARIABLE,
    SPOOL_VARIABLE,
    default_address,
    keys_dir,
    runtime_dir,
    spool_dir,
)
from tbxd_client.records import SYSTEM_SECONDS_MAX
from tbxd_client.settings import ALWAYS, SYNC

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its field in `Settings`, the variable, its bounds or its words, and what it does."""

    name: str
    variable: str
    default: Any
    help: str
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()


SETTINGS = (
    Setting(
        "address",
        ADDRESS_VARIABLE,
        None,
        "Where to listen: ipc:///path or tcp://127.0.0.1:PORT. Default: a socket in the runtime folder.",
    ),
    Setting(
        "listen",
        "TBXD_LISTEN",
        None,
        "Also let trainers on other hosts in, with keys: tcp://INTERFACE:PORT, tcp://0.0.0.0:7007 for all interfaces.",
    ),
    Setting(
        "roots",
        "TBXD_ROOTS",
        None,
        "The folders, with ':' between them, below which trainers on other hosts may log; with --listen.",
    ),
    Setting("keys", KEYS_VARIABLE, None, "The folder of the keys. Default: tbxd/keys in your folder of settings."),
    Setting("runtime_dir", RUNTIME_VARIABLE, None, "The folder of the socket, the lock and the log."),
    Setting("spool", SPOOL_VARIABLE, None, "The folder of the journals; those of dead trainers are drained."),
    Setting(
        "batch_ms",
        "TBXD_BATCH_MS",
        100.0,
        "How long records of a run are gathered before they are written, in milliseconds.",
        0,
        60_000,
    ),
    Setting(
        "sync_seconds",
        "TBXD_SYNC_SECONDS",
        1.0,
        "How often event files are brought onto the disk: at most so much is lost when the machine crashes.",
        0.01,
        3600,
    ),
    Setting("sync", SYNC.variable, SYNC.default, SYNC.help, choices=SYNC.choices),
    Setting(
        "idle_seconds",
        "TBXD_IDLE_SECONDS",
        60.0,
        "How long an embedded daemon stays when nobody logs.",
        0,
        1e9,
    ),
    Setting("open_files", "TBXD_OPEN_FILES", 256.0, "Event files kept open at a time.", 1, 1e6),
    Setting("threads", "TBXD_THREADS", 8.0, "Threads that make summaries and write files.", 1, 256),
    Setting(
        "ranks_seconds",
        "TBXD_RANKS_SECONDS",
        30.0,
        "How long a point of several ranks waits for one that has not logged it yet.",
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
    ),
    Setting(
        "metrics",
        "TBXD_METRICS",
        None,
        "Where Prometheus may scrape: http://127.0.0.1:PORT or unix:/path/to/socket. Default: nowhere.",
    ),
    Setting(
        "log_level",
        "TBXD_LOG_LEVEL",
        None,
        "What is logged. Default: info for a service and for what a writer has started, else warning.",
        choices=LEVELS,
    ),
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
    metrics: str | None
    log_level: str | None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Settings:
        """Settings from given values; what is missing or None has its default.

        Raises:
            ValueError: a value is out of its bounds; the message names it.
        """
        given = {name: value for name, value in values.items() if value is not None}
        for setting in SETTINGS:
            value = given.setdefault(setting.name, setting.default)
            if setting.choices and value is not None and value not in setting.choices:
                raise ValueError(
                    f"{setting.name.replace('_', '-')} is {value!r}; {', '.join(setting.choices)} are possible"
                )
            if setting.most and not setting.least <= value <= setting.most:
                raise ValueError(
                    f"{setting.name.replace('_', '-')} is {value:g}; {setting.least:g} to {setting.most:g} are possible"
                )
        runtime = Path(given["runtime_dir"] or runtime_dir()).absolute()
        given["runtime_dir"] = runtime
        given["spool"] = Path(given["spool"] or spool_dir()).absolute()
        given["keys"] = Path(given["keys"] or keys_dir()).absolute()
        given["address"] = given["address"] or default_address(runtime)
        given["open_files"], given["threads"] = int(given["open_files"]), int(given["threads"])
        return cls(**{item.name: given[item.name] for item in fields(cls)})

    @property
    def durable(self) -> bool:
        """Whether nothing is acknowledged that is not on the disk."""
        return self.sync == ALWAYS
