"""The commands of the settings: ``tbxd config``, ``tbxd reload``; and ``tbxd completion``."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ..config.settings import PLACES, SETTINGS, BadSetting
from ..config.sources import FILE, Source, find, places
from .options import ALL, EXIT_ERROR, EXIT_NOT_RUNNING, EXIT_USAGE, configuration, fail, settings_options, source

SHELLS = ("bash", "zsh", "fish")
LOOK_SECONDS = 1.0  # for the daemon whose settings are shown beside


@click.group()
def config() -> None:
    """Show and check the settings and their file. docs/SETTINGS.md lists all settings."""


@config.command("show")
@settings_options(ALL)
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
def config_show(as_json: bool, **values: Any) -> None:
    """Show every setting: its value and its source, as `tbxd serve` would use it here and now.

    If a daemon runs, its differing values are shown, too. Exit code 2 if the file or a value is invalid.
    """
    from ..config import generated
    from ..transport import control_client

    found = configuration(values)
    daemon = None
    with suppress(control_client.NotRunning):
        daemon = control_client.ask(found.settings, "status", timeout=LOOK_SECONDS)
    if daemon is not None and "settings" not in daemon:  # of another version, or on another host
        daemon = None
    scripts = generated.of_scripts()
    if not as_json:
        click.echo("\n".join(generated.lines(found, daemon, scripts)))
        return
    answer = {
        "file": str(found.file) if found.file is not None else None,
        "places": [str(path) for path in places()],
        "settings": generated.of_daemon(found, daemon["settings"] if daemon is not None else None),
        "hidden": {name: str(origin) for name, origin in found.hidden.items()},
        "scripts": scripts,
        "daemon": {name: daemon[name] for name in ("pid", "config")} if daemon is not None else None,
    }
    click.echo(json.dumps(answer))


@config.command("check")
@settings_options(frozenset())
@click.argument("file", required=False, type=click.Path(path_type=Path))
def config_check(file: Path | None, **values: Any) -> None:
    """Check a settings file, FILE or the one that would be read, and print what is wrong, line by line.

    Exit codes: 0 no errors, or no file; 2 errors.
    """
    asked = source(values) if file is None else Source(path=str(file.absolute()))
    try:
        found = asked.load()
    except (BadSetting, OSError) as error:
        fail(str(error), EXIT_USAGE)
    if found.file is None:
        click.echo(f"there is no file: neither {' nor '.join(map(str, places()))}")
        return
    given = {name: origin for name, origin in found.origins.items() if origin.kind == FILE}
    click.echo(f"{found.file}: all well, {len(given)} setting{'' if len(given) == 1 else 's'}")
    for setting in SETTINGS:
        if setting.scripts and setting.name in given:
            click.echo(
                f"{given[setting.name]}: {setting.name}: scripts that log read no file; set {setting.variable} in "
                "their environment, too"
            )


@config.command("path")
@settings_options(frozenset())
def config_path(**values: Any) -> None:
    """Print the path of the settings file; if there is none, the path that would be read first.

    Exit code: 0, also without a file, which is reported on stderr.
    """
    try:
        path = find(source(values).path)
    except (BadSetting, OSError) as error:
        fail(str(error), EXIT_USAGE)
    if path is None:
        click.echo("tbxd: it is not there; `tbxd config example` prints one", err=True)
    click.echo(str(path or places()[0]))


@config.command("example")
def config_example() -> None:
    """Print a file with every setting, commented out, with its purpose, possible values and default."""
    from ..config import generated

    click.echo(generated.example(), nl=False)


@click.command()
@settings_options(PLACES, asking=True)
@click.option("--json", "as_json", is_flag=True, help="Print the changed and unchanged settings, as JSON.")
def reload(as_json: bool, **values: Any) -> None:
    """Let the daemon read its settings file again; the same as SIGHUP, with an answer.

    Settings that can change while it runs change; those that need a restart are named. An invalid file changes nothing.
    Exit codes: 0 done, 2 the file is invalid, 3 no daemon is running.
    """
    from ..daemon import reload as module
    from ..transport import control_client

    settings = configuration(values, leniently=True, quietly=True).settings  # the file's errors: the daemon says them
    try:
        answer = control_client.ask(settings, "reload")
    except control_client.NotRunning as error:
        fail(str(error), EXIT_NOT_RUNNING)
    done = answer.get("reload")
    if done is None:
        fail(f"the daemon (pid {answer['pid']}, tbxd {answer['version']}) cannot do that: restart it", EXIT_ERROR)
    if as_json:
        click.echo(json.dumps(done))
    elif not done["problem"]:
        click.echo(f"read again: {done['file'] or 'there is no file'}")
        for line in module.lines(done):
            click.echo(line)
    if done["problem"]:
        fail("\n".join(module.lines(done)), EXIT_USAGE)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete tbxd's commands and options.

    \b
    bash, in ~/.bashrc:                    eval "$(tbxd completion bash)"
    zsh, in ~/.zshrc, behind compinit:     eval "$(tbxd completion zsh)"
    fish, in ~/.config/fish/config.fish:   tbxd completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root()
    click.echo(kind(root.command, {}, "tbxd", "_TBXD_COMPLETE").source())
