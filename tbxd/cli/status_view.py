"""The terminal output of the daemon's answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tbxd_client.protocol import wire

from .. import __version__
from ..drop_reasons import HINTS
from ..ingest.journal_recovery import WHAT_TO_DO
from ..tools.drain import Progress

GPUS_SHOWN = 8  # one by one
HELD_UP_SECONDS = 1.0  # for which something holds a drain up before it is said
BESIDE_SHOWN = 3
REASONS_TOLD = 100  # of these, on the way
FILE_WIDTH = 10_000  # columns; what is not a terminal has lines as long as their content


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def _folder(directory: str) -> str:
    path = Path(directory)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _ranks(ranks: dict[str, Any]) -> str:
    """Return the state of a run's ranks, in a line."""
    parts = [f"{ranks['joined']} of {ranks['world']} ranks have logged, {ranks['alive']} still do"]
    if ranks["behind"]:
        parts.append(f"not waited for: {', '.join(map(str, ranks['behind']))}")
    if ranks["waiting"]:
        parts.append(f"{ranks['waiting']:,} values wait for others")
    if ranks["missing"] or ranks["late"]:
        parts.append(f"[yellow]{ranks['missing']:,} values missing, {ranks['late']:,} late[/yellow]")
    return "; ".join(parts)


def _nothing(answer: dict[str, Any]) -> str:
    return "no run is logged to" if answer.get("runs_forgotten") else "nothing has been logged yet"


def _not_shown(answer: dict[str, Any], shown: int) -> list[str]:
    """Return lines about runs that are not shown: too many, or over."""
    left = len(answer["runs"]) - shown
    more = [f"{left:,} more run{'' if left == 1 else 's'} not shown (`tbxd status --all`)"] if left else []
    over = answer.get("runs_forgotten", 0)
    if not over:
        return more
    total, dropped = answer["totals"], sum(answer["totals"]["dropped"].values())
    more.append(
        f"{over:,} run{' that is' if over == 1 else 's that are'} over not shown; all since the start: "
        f"{total['accepted']:,} accepted, {total['written']:,} written, {dropped:,} dropped"
    )
    return more


def _about(run: dict[str, Any]) -> list[str]:
    """Return further lines about a run."""
    notice = [f"[yellow]{escape(run['notice'])}[/yellow]"] if run.get("notice") else []
    beside = run.get("beside", [])
    if beside:
        shown = ", ".join(beside[:BESIDE_SHOWN]) + (", …" if len(beside) > BESIDE_SHOWN else "")
        notice.append(
            f"points that go back, of processes that are no restart, are in runs below it: {escape(shown)} "
            "(resume='always', TBXD_RESUME=always: they replace what was there)"
        )
    return notice + ([_ranks(run["ranks"])] if run.get("ranks") else [])


def status(answer: dict[str, Any], most: int | None = None) -> None:
    """Print the output of `tbxd status`.

    Args:
        answer: the daemon's answer.
        most: the most runs to show, those with problems first; None: all.
    """
    console = _console()
    kind = "embedded daemon" if answer["embedded"] else "service" if answer["service"] else "daemon"
    minutes = (time.time() - answer["started"]) / 60
    sessions = answer["sessions"]
    console.print(
        f"tbxd {answer['version']}, {kind}, pid {answer['pid']}, up {minutes:,.1f} min, "
        f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}, {escape(answer['address'])}",
        soft_wrap=True,
    )
    if (other := _other_version(answer)) is not None:
        console.print(f"[yellow]{escape(other)}[/yellow]", soft_wrap=True)
    table = Table("run", "accepted", "written", "pending", "dropped", "state", box=None, pad_edge=False)
    for column in table.columns[1:5]:
        column.justify = "right"
    table.columns[0].overflow = "fold"
    runs = _first(answer["runs"], most)
    for directory, run in runs:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in run["dropped"].items()) or "0"
        table.add_row(
            escape(_folder(directory)),
            f"{run['accepted']:,}",
            f"{run['written']:,}",
            f"{run['pending']:,}",
            escape(dropped),
            f"[red]{escape(run['error'])}[/red]" if run["error"] else "ok",
        )
    for other in answer.get("listen", []):
        denied = f", refused with other keys: {other['denied']:,}" if other["denied"] else ""
        console.print(
            f"for other hosts: {escape(other['address'])}, keys admitted: {other['clients']:,}{denied}", soft_wrap=True
        )
    console.print(table if answer["runs"] else _nothing(answer))
    for directory, run in runs:
        for line in _about(run):
            console.print(f"{escape(_folder(directory))}: {line}", soft_wrap=True)
    if "system" in answer:
        console.print(f"system metrics: {escape(_system(answer['system']))}", soft_wrap=True)
    for reason in sorted({reason for run in answer["runs"].values() for reason in run["dropped"]} & HINTS.keys()):
        console.print(f"[yellow]{reason}: {escape(HINTS[reason])}[/yellow]", soft_wrap=True)
    for line in _broken(answer):
        console.print(f"[red]{escape(line)}[/red]", soft_wrap=True)
    for line in _not_shown(answer, len(runs)) + _keys(answer) + _elsewhere(answer):
        console.print(f"[yellow]{escape(line)}[/yellow]", soft_wrap=True)
    for key, text in (
        ("refused_messages", "messages refused"),
        ("quarantined_journals", "journals put aside"),
        ("lost_bytes_at_crash", "bytes lost when the machine went down"),
    ):
        if answer.get(key):
            console.print(f"[yellow]{answer[key]:,} {text}[/yellow]")


def _first(runs: dict[str, Any], most: int | None) -> list[tuple[str, dict[str, Any]]]:
    """Return the runs to show, in the order of their names."""

    def calm(item: tuple[str, dict[str, Any]]) -> tuple[bool, bool, str]:
        directory, run = item
        return not (run["error"] or run.get("notice") or run["dropped"]), not run["pending"], directory

    return sorted(sorted(runs.items(), key=calm)[:most])


def _other_version(answer: dict[str, Any]) -> str | None:
    """Return a line if daemon and command line have different versions."""
    own, daemon = (__version__, wire.VERSION), (answer["version"], answer["protocol"])
    if own == daemon:
        return None
    return (
        f"two versions: the daemon is tbxd {daemon[0]} (protocol {daemon[1]}), this command is tbxd {own[0]} (protocol "
        f"{own[1]}). After `tbxd stop` the next script starts one of its own version, and nothing is lost"
    )


def _broken(answer: dict[str, Any]) -> list[str]:
    """Return lines about broken sessions, and internal errors of the daemon by place."""
    lines = [
        f"session of pid {session['pid']} is broken: {session['broken']}"
        for session in answer["sessions"]
        if session["broken"]
    ]
    for where, broken in sorted(answer.get("internal_errors", {}).items()):
        many = "" if broken["count"] == 1 else "s"
        whose = f" of {broken['whose']}" if broken["whose"] else ""
        lines.append(
            f"{broken['count']:,} internal error{many} in {where}, the last{whose}: {broken['error']}; please report "
            "it with the daemon's log"
        )
    return lines


def _elsewhere(answer: dict[str, Any]) -> list[str]:
    """Return lines about other daemons of this user, in other mount namespaces or under other roots."""
    left = answer.get("elsewhere_journals", {})
    lines = [f"{path} waits: {why}. {WHAT_TO_DO}" for path, why in sorted(left.items()) if why]
    for runtime in answer.get("views", []):
        lines.append(f"another daemon, of a container or namespace: `tbxd status` with TBXD_RUNTIME_DIR={runtime}")
    return lines


def _keys(answer: dict[str, Any]) -> list[str]:
    """Return lines about keys that have used up a quota."""
    lines = []
    for name, share in sorted(answer.get("keys", {}).items()):
        refused = ", ".join(f"{count:,} for {setting}" for setting, count in sorted(share["refused"].items()))
        if refused:
            lines.append(f"key {name}: sessions refused: {refused}; their records wait where they were logged")
        if share["waits_seconds"]:
            lines.append(f"key {name}: quota used up; continues in {share['waits_seconds']:,.1f} s")
    return lines


def _system(system: dict[str, Any]) -> str:
    """Return the state of the node's sampling, and the last sample."""
    if not system["on"]:
        return "off"
    runs = len(system["runs"])
    text = (
        f"every {system['seconds']:g} s into {runs} run{'' if runs == 1 else 's'}" if runs else "on, no run is active"
    )
    if runs and system["sampled"] is not None:
        text += f"; {max(0, time.time() - system['sampled']):.0f} s ago: {_sample(system['last'])}"
    errors = [f"{_folder(folder)}: {error}" for folder, error in sorted(system["errors"].items())]
    if system["runs_over_the_limit"]:
        errors.append(f"{system['runs_over_the_limit']:,} more runs are active, and left out")
    if system["left_out"]:
        errors.append(f"{system['left_out']:,} samples were not written")
    return "; ".join((text, *filter(None, [system["trouble"]]), *errors))


def _sample(values: dict[str, float]) -> str:
    parts = [
        f"{name} {values[key]:.0f} %"
        for name, key in (("cpu", "cpu_percent"), ("memory", "memory_percent"))
        if key in values
    ]
    gpus = [value for name, value in values.items() if name.startswith("gpu") and name.endswith("/use_percent")]
    if len(gpus) > GPUS_SHOWN:
        parts.append(f"{len(gpus)} GPUs {min(gpus):.0f} to {max(gpus):.0f} %")
    elif gpus:
        parts.append(f"GPU{'' if len(gpus) == 1 else 's'} {', '.join(f'{value:.0f}' for value in gpus)} %")
    return ", ".join(parts) or "nothing"


class DrainBar:
    """A progress bar on stderr while journals are drained; none if that is not a terminal."""

    def __init__(self) -> None:
        console = self._console = Console(stderr=True, highlight=False)
        self._seen: dict[tuple[str, str], float] = {}  # what holds it up, and since when
        self._told: set[tuple[str, str]] = set()
        self._bar = Bar(
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("")

    def __enter__(self) -> DrainBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show the progress, and report obstacles that have lasted for a second."""
        now = time.monotonic()
        for reason in progress.reasons.items():
            since = self._seen.setdefault(reason, now)
            if now - since >= HELD_UP_SECONDS and reason not in self._told and len(self._told) < REASONS_TOLD:
                self._told.add(reason)
                where, why = reason
                self._console.print(f"tbxd: {escape(_folder(where))}: {escape(why)}", soft_wrap=True)
        self._bar.update(
            self._task,
            description=f"{progress.journals} journal{'' if progress.journals == 1 else 's'}",
            completed=progress.written,
            total=progress.written + progress.bytes,
        )


def drained(progress: Progress) -> None:
    """Print the result of a drain."""
    console = _console()
    console.print(f"{progress.written:,} bytes of records were written")
    if progress.quarantined:
        console.print(f"[red]{progress.quarantined:,} invalid journals were put aside[/red]")
    if progress.put_aside > progress.quarantined:
        earlier = progress.put_aside - progress.quarantined
        console.print(f"[yellow]{earlier:,} journals were put aside earlier (`tbxd doctor`)[/yellow]")
    if progress.journals:
        some = "" if progress.journals == 1 else "s"
        console.print(f"[red]{progress.bytes:,} bytes in {progress.journals:,} journal{some} still wait[/red]")
    for where, reason in sorted(progress.reasons.items() if not progress.complete else ()):
        console.print(f"  {escape(_folder(where))}: {escape(reason)}", soft_wrap=True)
    if progress.living:
        some = ", which lives and sends by itself" if progress.living == 1 else "s, which live and send by themselves"
        console.print(f"{progress.living:,} journal{'' if progress.living == 1 else 's'} left to the script{some}")


def not_running(why: str, journals: list[dict[str, Any]]) -> None:
    """Print the output without a daemon."""
    console = _console()
    console.print(escape(why), soft_wrap=True)
    waiting = [journal for journal in journals if journal["waiting_bytes"]]
    if waiting:
        total = sum(journal["waiting_bytes"] for journal in waiting)
        console.print(
            f"{total:,} bytes of records wait in {len(waiting)} journal{'' if len(waiting) == 1 else 's'}; "
            "the next daemon writes them (a script that logs starts it, or `tbxd serve`)"
        )
