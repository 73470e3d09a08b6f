"""The command line: the only place that exits and the only one that prints to the user."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tbxd_client.process import descriptors, helper

from .. import __version__
from ..config.settings import PLACES, SETTINGS, BadSetting, Settings
from ..config.sources import COMMAND_LINE, Given, Origin
from ..process import logs
from .config_commands import completion, config, reload
from .options import (
    EXIT_ALREADY_RUNNING,
    EXIT_CANNOT_READ,
    EXIT_ERROR,
    EXIT_FOUND,
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    configuration,
    source,
)
from .options import fail as _fail
from .options import settings_options as _settings_options
from .standard_output import Commands

RUNS_SHOWN = 100  # by `tbxd status`, where there are more and nobody asks for all
CONFIG_SECONDS = 10.0  # for the settings to be read, before a writer that waits for the daemon gives it up


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tbxd")
def main() -> None:
    """TensorBoard logging outside of the training process.

    SummaryWriter from tbxd_client starts a daemon by itself; these commands show its state, or run one explicitly.
    Exit codes: 0 success, 1 error, 2 wrong usage, 3 no daemon is running, 4 one is running already.
    """
    if sys.getfilesystemencoding().lower() != "utf-8" and sys.executable and len(sys.orig_argv) > 1:
        # Paths are told in UTF-8, whatever the locale of a script or of this process is.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have bytes that are no text


for _command in (config, reload, completion):
    main.add_command(_command)


@main.command()
@_settings_options({setting.name for setting in SETTINGS})
@click.option("--embedded", is_flag=True, hidden=True, help="As started by a writer: detach, leave when idle.")
@click.option("--service", default="", hidden=True, help="As started by systemd: the unit file that does it.")
@click.option("--verbose", is_flag=True, help="Log sessions as they come and go; the same as --log-level info.")
def serve(embedded: bool, service: str, verbose: bool, **values: Any) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C; it then writes queued records and exits.

    A second daemon in the same runtime folder is refused with exit code 4. A start or stop does not disturb trainers:
    their records wait in journals.
    """
    descriptors.fill_standard()
    if embedded:
        helper.take_mark()
    flags = {"log_level": Given("info", Origin(COMMAND_LINE, "--verbose"))} if verbose else {}
    given = source(values, embedded, flags)
    try:
        config = given.load_in(CONFIG_SECONDS)
    except (BadSetting, OSError) as error:
        _fail(str(error), EXIT_USAGE)
    if embedded:
        _detach()  # the writer hears of what went wrong before this, and of nothing later
    with contextlib.suppress(RuntimeError, ValueError):  # stderr is closed
        faulthandler.enable()  # where every thread was, when a watchdog ends a daemon that hangs (SIGABRT)
    level = "info" if embedded or service else "warning"
    limiter = logs.begin(config.settings.log_level or level)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start one for each core, for nothing done here
    from ..daemon.lifecycle import AlreadyRunning, Daemon

    try:
        Daemon(config, given.load, limiter, level, embedded, service).run()
    except AlreadyRunning as error:
        if not embedded:
            _fail(str(error), EXIT_ALREADY_RUNNING)
    except (OSError, ValueError) as error:
        _fail(str(error), EXIT_ERROR)


def _detach() -> None:
    """Detach from the parent, so that the trainer has no child to wait for."""
    if os.fork():
        os._exit(0)


@main.command()
@_settings_options(PLACES, asking=True)
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
@click.option("--all", "everything", is_flag=True, help=f"Show every run, also where there are over {RUNS_SHOWN}.")
def status(as_json: bool, everything: bool, **values: Any) -> None:
    """Show the accepted, written, pending and dropped records of each run.

    Without a daemon it shows the waiting journals, with exit code 3.
    """
    from ..transport import control_client
    from . import status_view

    settings = _settings(values, leniently=True)
    try:
        answer = control_client.ask(settings, "status")
    except control_client.NotRunning as error:
        waiting = control_client.waiting_journals(settings)
        if as_json:
            click.echo(json.dumps({"running": False, "journals": waiting}))
        else:
            status_view.not_running(str(error), waiting)
        sys.exit(EXIT_NOT_RUNNING)
    if as_json:
        click.echo(json.dumps({"running": True, **answer}))
    else:
        status_view.status(answer, None if everything else RUNS_SHOWN)


@main.command()
@_settings_options(PLACES, asking=True)
@click.option("--once", is_flag=True, help="Print one frame, after the second that rates need.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.2, 3600), help="Seconds between two looks."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def top(once: bool, interval: float, as_json: bool, **values: Any) -> None:
    """Watch the daemon: sessions, runs, rates, lag, drops, disks, ranks, and the last values of each run.

    Keys: q quits, s sorts by another column, p pauses, arrows, page keys, Home and End scroll. If stdout is not a
    terminal, it prints frame after frame. When the daemon stops, the display says so, and continues with the next one.
    Values are read from the event files.

    Exit codes: 0 (also after q and Ctrl-C), 3 no daemon is running at the beginning.
    """
    from . import top_view

    settings = _settings(values, leniently=True)
    try:
        frame = top_view.once(settings, as_json) if once else top_view.follow(settings, interval, as_json)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # whoever read it has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if frame is not None and frame.trouble:
        if as_json:
            click.echo(json.dumps({"running": False, "trouble": frame.trouble}))
        _fail(frame.trouble, EXIT_NOT_RUNNING)


@main.command()
@_settings_options(PLACES, asking=True)
def stop(**values: Any) -> None:
    """Stop the daemon after it has written queued records. Exit code 3 if none is running.

    A trainer that continues to log without TBXD_ADDRESS starts a new one; systemd restarts a service.
    """
    from tbxd_client.config.paths import awaited_service

    from ..transport import control_client

    settings = _settings(values, leniently=True)
    try:
        control_client.stop(settings)
    except control_client.NotRunning as error:
        _fail(str(error), EXIT_NOT_RUNNING)
    except TimeoutError as error:
        _fail(str(error), EXIT_ERROR)
    click.echo("stopped")
    if total := sum(journal["waiting_bytes"] for journal in control_client.waiting_journals(settings)):
        click.echo(
            f"{total:,} bytes of records wait in journals; the next daemon writes them, or `tbxd drain`, which says "
            "what holds them up"
        )
    if unit := awaited_service(settings.runtime_dir):
        click.echo(f"It is a service ({unit}), which comes back by itself; `systemctl stop` ends it")


@main.command()
@_settings_options(PLACES, asking=True)
@click.option(
    "--wait",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    help="Seconds without progress before it gives up.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result, as JSON.")
@click.option("--embedded", is_flag=True, hidden=True, help="As started by a writer: detach.")
def drain(wait: float, as_json: bool, embedded: bool, **values: Any) -> None:
    """Write the journals of ended trainers, and wait until it is done.

    The running daemon writes them, or one that is started for it and exits again. With the TBXD_ADDRESS of a daemon on
    another host, the journals on this host for that daemon are sent there. Obstacles are reported on stderr as soon as
    they occur.

    Exit code 1 if something remains, with the reason: a full disk, a folder that cannot be written, a journal that
    another process holds (which is named), that cannot be read, that was put aside, or that is for the daemon of
    another host; a quota. Running scripts send their own journals.
    """
    from dataclasses import asdict

    from tbxd_client.config.paths import is_remote

    from ..tools import drain as module
    from ..tools import remote_drain
    from . import status_view

    descriptors.fill_standard()
    if embedded:
        helper.take_mark()
        _detach()
    settings = _settings(values)
    act = remote_drain.forward if is_remote(settings.address) else module.drain
    try:
        with status_view.DrainBar() as bar:
            progress = act(settings, bar.update, wait)
    except module.CannotDrain as error:
        _fail(str(error), EXIT_ERROR)
    if as_json:
        click.echo(json.dumps({**asdict(progress), "complete": progress.complete}))
    else:
        status_view.drained(progress)
    sys.exit(0 if progress.complete else EXIT_ERROR)


@main.group()
def keys() -> None:
    """Admit trainers on other hosts, by keys. docs/SEVERAL_NODES.md explains it step by step."""


@keys.command("new")
@_settings_options({"keys"})
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file to write; it must not exist.  [default: tbxd-NAME.key in this folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print name, file and public keys, as JSON.")
def keys_new(name: str, out: Path | None, as_json: bool, **values: Any) -> None:
    """Make a key for a client, NAME (of a host, say), and admit it. A running daemon notices by itself.

    This writes one file for the client, and prints what to do with it. Exit code 1 if the client exists already, or if
    the file or the folder of the keys cannot be used.
    """
    from ..transport import keyring as module

    file = (out or Path(f"tbxd-{name}.key")).absolute()
    folder = _key_folder(values)
    try:
        key = folder.new(name, file)
    except (ValueError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    if as_json:
        click.echo(json.dumps({"name": name, "file": str(file), "public": key.public, "daemon": key.daemon}))
        return
    click.echo(module.ADVICE.format(name=name, file=file, quoted=shlex.quote(str(file)), host=os.uname().nodename))


@keys.command("list")
@_settings_options({"keys"})
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of {name, public, made}.")
def keys_list(as_json: bool, **values: Any) -> None:
    """List the admitted clients. Exit code 1 if there are no keys, or a file among them admits no client."""
    import time

    folder = _key_folder(values)
    try:
        clients, wrong = folder.clients()
    except (ValueError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    rows = sorted((name, public, folder.made(name)) for public, name in clients.items())
    if as_json:
        click.echo(json.dumps([{"name": name, "public": public, "made": made} for name, public, made in rows]))
    else:
        for name, public, made in rows:
            click.echo(f"{name:<24} {public}  {time.strftime('%Y-%m-%d %H:%M', time.localtime(made))}")
        if not rows:
            click.echo("no client is admitted; `tbxd keys new NAME` makes a key for one")
    for what in wrong:
        click.echo(f"tbxd: {what}", err=True)
    sys.exit(EXIT_ERROR if wrong else 0)


@keys.command("revoke")
@_settings_options({"keys"})
@click.argument("name")
def keys_revoke(name: str, **values: Any) -> None:
    """Stop admitting a client. A running daemon accepts nothing more of it after half a second at most.

    Records that it has sent before are written. Exit code 1 if there is no such client.
    """
    try:
        _key_folder(values).revoke(name)
    except (ValueError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    click.echo(f"{name} is no longer admitted; its records wait on its own host")


@keys.command("show")
@_settings_options({"keys"})
@click.option("--json", "as_json", is_flag=True, help="Print folder, public key and number of clients, as JSON.")
def keys_show(as_json: bool, **values: Any) -> None:
    """Show the folder of the keys and the daemon's public key. Exit code 1 if there is none yet."""
    folder = _key_folder(values)
    try:
        public, clients = folder.daemon_key().public, len(folder.clients()[0])
    except (ValueError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    if as_json:
        click.echo(json.dumps({"folder": str(folder.path), "public": public, "clients": clients}))
    else:
        click.echo(f"folder of the keys   {folder.path}\ndaemon's public key  {public}\nclients admitted     {clients}")


def _key_folder(values: dict[str, Any]) -> Any:
    from ..transport import keyring as module

    return module.KeyFolder(_settings(values).keys)


@main.group()
def service() -> None:
    """Install tbxd as a service of systemd, or remove it. docs/SERVICE.md explains it step by step."""


_for_whom = click.option(
    "--user/--system",
    "user",
    default=True,
    show_default=True,
    help="One daemon for yourself, or, as root, tbxd@USER.service for each user of this machine.",
)
_logs = click.option(
    "--logs", multiple=True, metavar="FOLDER", help="With --system: a folder, beside homes and /tmp, for log folders."
)
_account = click.option("--account", is_flag=True, help="With --system: also an account tbxd, for shared training.")
_root = click.option(
    "--root", default="/", show_default=True, help="With --system: the root of an image that is being built."
)


@service.command("install")
@_for_whom
@_logs
@_account
@_root
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Replace files that were changed by hand; they are kept beside it.")
@click.option("--start", is_flag=True, help="Enable and start it, too.")
def service_install(
    user: bool, logs: tuple[str, ...], account: bool, root: str, dry_run: bool, force: bool, start: bool
) -> None:
    """Write the unit file and an example of its settings.

    Exit code 1 if a file was changed by hand: nothing is written then. The service replaces a daemon that a writer has
    started; no record is lost.
    """
    import getpass  # here, because a daemon that starts imports this module

    from ..tools import systemd_units as module

    try:
        wanted = _service(module, user, logs, account, root)
        if start and wanted.unit == "tbxd@USER.service":
            _fail("name the user of the daemon: leave --start out, then: systemctl enable --now tbxd@NAME", EXIT_ERROR)
        if dry_run:
            for file in wanted.files:
                click.echo(f"### {file.path} ({file.state})\n{file.text}")
            return
        for line in module.install(wanted, force):
            click.echo(line)
    except PermissionError as error:
        _fail(f"{error.filename}: {error.strerror}" + ("" if user else "; --system is for root"), EXIT_ERROR)
    except (module.ServiceError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    commands = [
        *([["systemd-sysusers"], ["systemd-tmpfiles", "--create"]] if account else []),
        wanted.systemctl("daemon-reload"),
        wanted.systemctl("enable", "--now", wanted.unit),
    ]
    linger = [] if wanted.system else [["loginctl", "enable-linger", getpass.getuser()]]
    if not start:
        click.echo("Now start it" + ("; the last line keeps it running when you log out:" if user else ":"))
        for command in (*commands, *linger):
            click.echo("  " + " ".join(command))
        return
    for command in commands:
        if trouble := module.run(command):
            _fail(f"{' '.join(command)}: {trouble}", EXIT_ERROR)
        click.echo("done: " + " ".join(command))
    for command in linger:
        if trouble := module.run(command):
            click.echo(f"tbxd: it stops when you log out: {' '.join(command)}: {trouble}", err=True)


@service.command("remove")
@_for_whom
@_root
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@click.option("--force", is_flag=True, help="Remove also files that were changed by hand.")
def service_remove(user: bool, root: str, dry_run: bool, force: bool) -> None:
    """Stop the service and remove its files; writers start daemons by themselves again.

    Exit code 1 if a file stays because it was changed by hand. Waiting records stay in their journals.
    """
    from tbxd_client.config.paths import runtime_dir

    from ..tools import systemd_units as module

    try:
        wanted = _service(module, user, () if user else ("/",), True, root)
        if dry_run:
            for file in wanted.files:
                click.echo(f"{file.path} ({file.state})")
            return
        if root == "/":
            stopped = "tbxd.service" if user else "tbxd@*.service"
            for command in (["stop", stopped], ["disable", "tbxd.service" if user else "tbxd@.service"]):
                if trouble := module.run(wanted.systemctl(*command)):
                    click.echo(f"tbxd: {' '.join(wanted.systemctl(*command))}: {trouble}", err=True)
        lines, gone = module.remove(wanted, runtime_dir(), force)
        if root == "/":
            module.run(wanted.systemctl("daemon-reload"))
    except (module.ServiceError, OSError) as error:
        _fail(str(error), EXIT_ERROR)
    for line in lines or ["there is nothing to remove"]:
        click.echo(line)
    sys.exit(0 if gone else EXIT_ERROR)


def _service(module: Any, user: bool, logs: tuple[str, ...], account: bool, root: str) -> Any:
    if user and (logs or root != "/"):
        _fail("--logs and --root are for --system", EXIT_ERROR)
    return (
        module.for_user()
        if user
        else module.for_system(Path(root), logs, account, os.environ.get("SUDO_USER") or "USER")
    )


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--repair-into",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Write copies with every whole record there. The folder must be empty or not exist.",
)
@click.option(
    "--show-hidden",
    is_flag=True,
    help="With --repair-into: write points hidden by restarts and repeated steps as runs of their own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the kept points of each tag.")
def check(paths: tuple[Path, ...], repair_into: Path | None, show_hidden: bool, as_json: bool) -> None:
    """Verify event files of any writer, record by record, and report what TensorBoard will not show, and why.

    PATH is an event file, or a folder with event files in it or below. Nothing is changed. The points that the fast
    loader (the default) keeps of each tag are predicted for a TensorBoard that is started now.

    Exit codes: 0 all well (also with notes), 1 problems found, 2 something cannot be read, or a copy cannot be made.
    """
    from dataclasses import asdict

    from ..tools import check as module
    from . import findings_view

    if show_hidden and repair_into is None:
        raise click.UsageError("--show-hidden is for copies: name a folder with --repair-into")
    try:
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            _fail(f"{', '.join(missing)}: no such file or folder", EXIT_CANNOT_READ)
        runs = module.find(list(paths))
    except OSError as error:
        _fail(str(error), EXIT_CANNOT_READ)
    if not runs:
        _fail(f"no event files (names with tfevents) in {', '.join(map(str, paths))}", EXIT_CANNOT_READ)
    problems: list[module.Problem] = []
    try:
        with findings_view.CheckReport(module.size_of(runs)) as bar:
            tell = problems.append if as_json else bar.problem
            total = module.check(runs, tell, bar.progress, repair_into, show_hidden)
    except module.CannotRepair as error:
        _fail(str(error), EXIT_CANNOT_READ)
    if as_json:
        found = [{**asdict(problem), "level": problem.level} for problem in problems]
        click.echo(json.dumps({"problems": found, **asdict(total)}))
    else:
        bar.end(total, repair_into)
    sys.exit(EXIT_CANNOT_READ if total.cannot_read else EXIT_FOUND if total.bad else 0)


@main.command()
@_settings_options(PLACES, asking=True)
@click.argument("folders", metavar="[LOGDIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of {what, level, found, advice}.")
def doctor(folders: tuple[Path, ...], as_json: bool, **values: Any) -> None:
    """Check what goes wrong in practice, and report each finding with advice. Nothing is changed.

    The checks: folders and socket, the daemon and its log, waiting journals, disks, limits, the clock, versions,
    settings, and the given log folders; without any, those of the daemon's runs.

    Exit codes: 0 no trouble (there may be warnings), 1 trouble.
    """
    from dataclasses import asdict

    from ..tools import doctor as module
    from . import findings_view

    found, problems = source(values).sorted_out()
    findings = list(module.examine(found.load_leniently(), list(folders), dict(os.environ), problems))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        findings_view.doctor(findings)
    sys.exit(EXIT_FOUND if any(finding.level == "trouble" for finding in findings) else 0)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option(
    "-n",
    "--last",
    default=1,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Existing values of each tag to print first.",
)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for more, until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object a line: run, tag, step, wall_time, kind, value."
)
def tail(run: Path, tags: tuple[str, ...], last: int, follow: bool, as_json: bool) -> None:
    """Print the values of a run as they come, from its event files alone: no daemon is needed.

    RUN is a run's folder, or one with runs below it, which are shown by name. TAG is a pattern as for file names
    ('loss/*'); without any, all tags are shown. Damaged stretches are reported on stderr and skipped.

    It waits for a run that may still appear (its parent folder exists) and for tags, and prints the existing names on
    stderr. Exit codes: 0 (also after Ctrl-C), 1 without --follow if no tag matches, 2 if there is no such run and none
    can appear.
    """
    import time

    from ..tools import tail as module
    from . import findings_view

    def damaged(path: Path, position: int) -> None:
        click.echo(
            f"tbxd: {findings_view.shown(str(path))} is damaged at byte {position:,}; `tbxd check` says more", err=True
        )

    try:
        why, may_come = module.why_nothing(run)
    except OSError as error:
        _fail(str(error), EXIT_CANNOT_READ)
    if why and not (follow and may_come):
        _fail(findings_view.shown(why), EXIT_CANNOT_READ)
    if why:
        click.echo(f"tbxd: {findings_view.shown(why)}; waiting for it (Ctrl-C ends)", err=True)
    printer = findings_view.TailReport(as_json)
    values = module.Tail(run, tags, damaged)
    try:
        for value in values.last(last):
            printer.value(value)
        missing = values.without_a_tag()
        for line in missing:
            click.echo(
                f"tbxd: {findings_view.shown(line)}{'; waiting for it (Ctrl-C ends)' if follow else ''}", err=True
            )
        if missing and not follow:
            sys.exit(EXIT_FOUND)
        while follow:
            time.sleep(module.LOOK_SECONDS)
            for value in values.new():
                printer.value(value)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # whoever read it has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object of names and versions.")
def version(as_json: bool) -> None:
    """Print the versions of tbxd, its protocol, its dependencies and the readers of its files.

    Exit code: 0, also if something is missing; `tbxd doctor` checks that.
    """
    from ..tools import versions
    from . import findings_view

    found = versions.versions()
    if as_json:
        click.echo(json.dumps(found))
    else:
        findings_view.versions(found)


@main.command()
@click.option("--logdir", default="runs/demo", show_default=True, help="Where to log.")
@click.option("--epochs", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Training processes.")
@click.option("--open", "open_", is_flag=True, help="Start TensorBoard on the result.")
def demo(logdir: str, epochs: int, workers: int, open_: bool) -> None:
    """Train a small torch classifier in several processes, log everything, and print the cost.

    Needs torch, scikit-learn, matplotlib, tensorboard and tensorboardX (`pip install ".[demo]"` in the repository).
    """
    try:
        from ..tools import demo as module
    except ImportError as error:
        _fail(f"the demo needs more packages ({error}): `pip install '.[demo]'` in the repository", EXIT_ERROR)
    sys.exit(module.run(Path(logdir), epochs, workers, open_))


def _settings(values: dict[str, Any], leniently: bool = False) -> Settings:
    return configuration(values, leniently).settings
