"""Options of the command line that follow from the declared settings, exit codes, and how a command fails."""

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
    """Options for some of the declared settings, and for the file that has them; `source` reads them.

    Args:
        names: of the settings.
        asking: the command asks a daemon, and is none.
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
    """Where the settings of the command that runs come from.

    Args:
        values: of its `settings_options`.
        embedded: it is a daemon that a writer has started.
        flags: by the names of settings, what options of its own say of them, after those of the settings.
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
    """The settings of the command that runs; exits where they make no sense.

    Args:
        values: of its `settings_options`.
        leniently: what makes no sense in the file is said, and not used.
        quietly: it is not said.
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
    """Say on stderr why a command fails, and leave."""
    for line in message.splitlines():
        click.echo(f"tbxd: {line}", err=True)
    sys.exit(code)
