"""Options of the command line made from the declared settings, exit codes, and the exit with an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import click

from tbxd_client.config.paths import check_address

from ..config.settings import CONFIG, SETTINGS, BadSetting, Setting
from ..config.sources import COMMAND_LINE, ENVIRONMENT, Config, Given, Origin, Source

EXIT_ERROR = EXIT_FOUND = 1
EXIT_CANNOT_READ = EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_ALREADY_RUNNING = 4
ALL = frozenset(setting.name for setting in SETTINGS)


def _type_of(setting: Setting) -> Any:
    if setting.choices:
        return click.Choice(setting.choices, case_sensitive=False)
    return float if setting.most else str


def settings_options(names: Set[str], asking: bool = False) -> Callable[[Any], Any]:
    """Return a decorator with options for some of the declared settings, and for their file; `source` reads them.

    Args:
        names: the names of the settings.
        asking: the command asks a daemon, and does not run one.
    """

    def decorate(command: Any) -> Any:
        for setting in (CONFIG, *reversed(SETTINGS)):
            if setting.name in names or setting is CONFIG:
                option = click.option(
                    setting.option,
                    envvar=setting.variable,
                    type=_type_of(setting),
                    default=setting.default,
                    show_default=setting.default is not None,
                    show_envvar=True,
                    help=setting.asking if asking and setting.asking else setting.help,
                )
                command = option(command)
        return command

    return decorate


def source(values: dict[str, Any], embedded: bool = False, flags: Mapping[str, Given] = MappingProxyType({})) -> Source:
    """Return the sources of the settings of the running command.

    Args:
        values: the values of its `settings_options`.
        embedded: it is a daemon that a writer has started.
        flags: values of settings from the command's other options, by name; `settings_options` override them.
    """
    context = click.get_current_context()
    given = {}
    for setting in SETTINGS:
        how = context.get_parameter_source(setting.name) if values.get(setting.name) is not None else None
        if how == click.core.ParameterSource.COMMANDLINE:
            given[setting.name] = Given(values[setting.name], Origin(COMMAND_LINE, setting.option))
        elif how == click.core.ParameterSource.ENVIRONMENT:
            given[setting.name] = Given(values[setting.name], Origin(ENVIRONMENT, setting.variable))
    given |= {
        name: flag for name, flag in flags.items() if name not in given or given[name].origin.kind != COMMAND_LINE
    }
    path = values[CONFIG.name] or ""
    if path and context.get_parameter_source(CONFIG.name) == click.core.ParameterSource.COMMANDLINE:
        dash, plain = ("-", path[1:]) if path.startswith("-") else ("", path)
        path = dash + str(Path(plain).expanduser().absolute())
    return Source(given, path, embedded)


def configuration(values: dict[str, Any], leniently: bool = False, quietly: bool = False) -> Config:
    """Return the settings of the running command; exit if they are invalid.

    Args:
        values: the values of its `settings_options`.
        leniently: report invalid settings in the file, and do not use them.
        quietly: do not report them.
    """
    try:
        config = source(values).load_leniently() if leniently else source(values).load()
    except (BadSetting, OSError) as error:
        fail(str(error), EXIT_USAGE)
    for problem in () if quietly else config.problems:
        click.echo(f"tbxd: {problem}", err=True)
    if "address" in values:  # of those that ask; whoever listens may leave more open
        try:
            check_address(config.settings.address)
        except ValueError as error:
            fail(f"{config.origins['address']}: {error}", EXIT_USAGE)
    return config


def fail(message: str, code: int) -> NoReturn:
    """Print an error to stderr and exit."""
    for line in message.splitlines():
        click.echo(f"tbxd: {line}", err=True)
    sys.exit(code)
