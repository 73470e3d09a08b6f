"""Texts made from the declarations of the settings: an example file, and the output of `tbxd config show`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from typing import Any

from tbxd_client.config import settings as client_settings

from .settings import CONFIG, FOLDERS, SETTINGS, Setting
from .sources import DEFAULT, ENVIRONMENT, FILE, Config, places

WIDTH = 110
HEAD = """\
# Settings of tbxd's daemon, as `tbxd config example` prints them. Take the # away from what you change; what is
# left out has its default. The command line and the environment come before this file. `tbxd config check` checks it,
# `tbxd config show` says which values hold and where they are from, `tbxd reload` has a daemon that runs take it over.
"""


def in_toml(setting: Setting) -> str:
    """Return a value of a setting in TOML: the default, or the example."""
    value = setting.default if setting.default is not None else setting.example
    if setting.kind == FOLDERS:
        return "[" + ", ".join(f'"{one}"' for one in value.split(os.pathsep)) + "]"
    return f"{value:.15g}" if isinstance(value, int | float) else f'"{value}"'


def example() -> str:
    """Return a file with every setting, commented out."""
    parts = [HEAD]
    for setting in SETTINGS:
        told = [setting.help, f"Possible: {setting.possible}."]
        if setting.default is None and "Default:" not in setting.help:
            told.append(f"Without it: {setting.otherwise}.")
        if not setting.live:
            told.append("Holds from the next start on.")
        if setting.scripts:
            told.append(f"Scripts that log read no file: set {setting.variable} in their environment, too.")
        lines = textwrap.wrap(" ".join(told), WIDTH, initial_indent="# ", subsequent_indent="# ")
        parts.append("\n".join([*lines, f"#{setting.name} = {in_toml(setting)}"]) + "\n")
    return "\n".join(parts)


def of_daemon(config: Config, running: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return every setting of the daemon, with its value and source.

    Args:
        config: the settings of a daemon started now.
        running: name to value of the running daemon, if any.
    """
    values = config.settings.values()
    return [
        {
            "name": setting.name,
            "value": values[setting.name],
            "from": config.origins[setting.name].kind,
            "where": config.origins[setting.name].where,
            "running": running.get(setting.name) if running is not None else None,
            "differs": running is not None and running.get(setting.name) != values[setting.name],
            "live": setting.live,
            "variable": setting.variable,
            "help": setting.help,
        }
        for setting in SETTINGS
    ]


def of_scripts(environ: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """Return every setting of a script started with this environment.

    An invalid value is reported on stderr, as in the script.
    """
    found: list[tuple[str, Any, bool, str]] = []
    for number in client_settings.SETTINGS:
        text = environ.get(number.variable, "")
        valid = bool(text) and client_settings.parsed(number, text) is not None
        found.append((number.variable, client_settings.read(number, environ.get), valid, number.help))
    for choice in client_settings.CHOICES:
        valid = environ.get(choice.variable, "").lower() in choice.choices
        found.append((choice.variable, client_settings.read_choice(choice, environ.get), valid, choice.help))
    for one in client_settings.TEXTS:
        text = environ.get(one.variable, "")
        found.append((one.variable, text or one.otherwise, bool(text), one.help))
    return [
        {"variable": variable, "value": value, "from": ENVIRONMENT if given else DEFAULT, "help": told}
        for variable, value, given, told in found
    ]


def lines(config: Config, daemon: Mapping[str, Any] | None, scripts: list[dict[str, Any]]) -> list[str]:
    """Return the output of `tbxd config show`.

    Args:
        config: the settings of a daemon started now.
        daemon: the status of the running daemon, if any.
        scripts: from `of_scripts`.
    """
    running = daemon["settings"] if daemon is not None else None
    rows = of_daemon(config, running)
    told = [f"file: {config.file or 'none (' + ', '.join(map(str, places())) + ')'}", ""]
    told += _table([(row["name"], shown(row["value"], row["name"]), row["where"] or row["from"]) for row in rows])
    told += ["", "scripts that log, with the environment of this shell:"]
    told += _table([(row["variable"], shown(row["value"]), row["from"]) for row in scripts])
    said = [f"{name} is in the file, and {origin} counts: it comes before it" for name, origin in config.hidden.items()]
    said += [
        f"{setting.name}: scripts that log read no file; set {setting.variable} in their environment, too"
        for setting in SETTINGS
        if setting.scripts and config.origins[setting.name].kind == FILE
    ]
    if daemon is not None:
        if daemon["config"] != str(config.file or ""):
            said.append(f"the daemon that runs (pid {daemon['pid']}) reads {daemon['config'] or 'no file'}")
        runs = f"the daemon that runs (pid {daemon['pid']})"
        said += [
            f"{runs} has {row['name']} {shown(row['running'], row['name'])}; {_advice(row)}"
            for row in rows
            if row["differs"]
        ]
    return told + (["", *said] if said else [])


def _advice(row: dict[str, Any]) -> str:
    if row["from"] not in (DEFAULT, FILE):
        return f"{row['where']} applies to daemons that are started here"
    return "`tbxd reload` has it read the file again" if row["live"] else "a restart changes it"


def shown(value: Any, name: str = "") -> str:
    """Return a value as text; for an unset one, its default in words."""
    if value is None:
        return next(setting.otherwise for setting in (*SETTINGS, CONFIG) if setting.name == name)
    return f"{value:.15g}" if isinstance(value, int | float) else str(value)


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{name:<{names}}  {value:<{values}}  {where}" for name, value, where in rows]
