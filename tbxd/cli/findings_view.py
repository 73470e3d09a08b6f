"""The terminal output of `check`, `doctor`, `tail` and `version`."""

from __future__ import annotations

import json
import math
import struct
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tbxd_client.writers.readback import shortest

from ..tools.check import KINDS, NOTHING, Problem, Total
from ..tools.doctor_finding import Finding
from ..tools.tail import Value

STYLES = {"trouble": "red", "warning": "yellow", "note": "dim", "ok": "green"}
WIDTH = max(map(len, STYLES))


def shown(text: str) -> str:
    """Return a foreign text on one line, without control sequences."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _file(name: str) -> str:
    path = Path(name)
    return shown(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _level(level: str) -> str:
    return f"[{STYLES[level]}]{level:<{WIDTH}}[/]"


def _many(count: int, what: str) -> str:
    ending = "es" if what.endswith("ch") else "s"
    return f"{count:,} {what}{'' if count == 1 else ending}"


def plain(value: object) -> object:
    """Return a value for JSON: NaN and infinities as text, as TensorBoard does."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class CheckReport:
    """Prints problems as they are found, above a progress bar if that is on a terminal."""

    def __init__(self, size: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        bar_on = self._console if self._console.is_terminal else Console(stderr=True)
        self._bar = Bar(
            "reading",
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=bar_on,
            transient=True,
            disable=not bar_on.is_terminal,
        )
        self._task = self._bar.add_task("", total=size)

    def __enter__(self) -> CheckReport:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, size: int) -> None:
        """Advance the bar by the bytes read."""
        self._bar.advance(self._task, size)

    def problem(self, problem: Problem) -> None:
        """Print a problem."""
        kind = KINDS[problem.kind]
        place = [_file(problem.file)]
        if problem.position is not None:
            place.append(f"byte {problem.position:,}")
        if problem.step is not None:
            place.append(f"step {problem.step:,}")
        if problem.tag is not None:
            place.append(f"tag {problem.tag!r}")
        more = [shown(problem.detail)] if problem.detail else []
        if problem.count > 1:
            more.append(f"{problem.count:,} times")
        if problem.points:
            more.append(f"{_many(problem.points, 'point')} not shown")
        self._console.print(
            f"{_level(problem.level)} {escape(', '.join(place))}: {escape(kind.means)}"
            + (f" ({escape('; '.join(more))})" if more else "")
            + ("" if kind.advice == NOTHING else f". To do: {escape(kind.advice)}")
        )

    def end(self, total: Total, repair_into: Path | None) -> None:
        """Print the sums."""
        console = self._console
        console.print(
            f"{_many(total.files, 'file')} of {_many(total.runs, 'run')}, {total.bytes:,} bytes, "
            f"{_many(total.records, 'whole record')}, {_many(total.values, 'value')}"
        )
        if repair_into is not None:
            console.print(
                f"repaired into {escape(str(repair_into))}: {_many(total.repaired_records, 'record')} in "
                f"{_many(total.repaired_files, 'file')}; left out {_many(total.skipped, 'damaged stretch')} of "
                f"{total.skipped_bytes:,} bytes; {_many(total.wall_times_replaced, 'wall time')} replaced"
            )
        for name, points in total.shown_again.items():
            console.print(f"shown again in {escape(shown(name))}: {_many(points, 'point')}")
        if total.hidden_left_out:
            console.print(f"left out: {_many(total.hidden_left_out, 'point')} of steps repeated too often")
        if total.hidden and repair_into is None:
            console.print(
                f"to see {_many(total.hidden, 'point')} that TensorBoard does not show: "
                "tbxd check PATH --repair-into FOLDER --show-hidden"
            )
        levels: Counter[str] = Counter()
        for kind, count in total.found.items():
            levels[KINDS[kind].level] += count
        if not total.bad:
            console.print("[green]all well[/]" + (f", {_many(levels['note'], 'note')}" if levels["note"] else ""))
            return
        found = [_many(levels[level], level) for level in ("trouble", "warning", "note") if levels[level]]
        console.print(
            ", ".join(found)
            + (f"; the fast loader does not show {_many(total.points_lost, 'point')}" if total.points_lost else "")
        )


def _lines(text: str) -> str:
    return "\n".join(map(shown, text.split("\n")))


def doctor(findings: Iterable[Finding]) -> None:
    """Print the doctor's findings and advice."""
    console = Console(highlight=False, soft_wrap=True)
    levels: Counter[str] = Counter()
    for finding in findings:
        levels[finding.level] += 1
        console.print(f"{_level(finding.level)} [bold]{escape(finding.what)}[/]: {escape(_lines(finding.found))}")
        if finding.advice:
            console.print(f"{'':{WIDTH}}   to do: {escape(_lines(finding.advice))}")
    if not levels["trouble"] and not levels["warning"]:
        console.print("[green]all well[/]")
    else:
        console.print(", ".join(_many(levels[level], level) for level in ("trouble", "warning") if levels[level]))


class TailReport:
    """Prints values line by line."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._console = Console(highlight=False, soft_wrap=True)

    def value(self, value: Value) -> None:
        """Print a value."""
        if self._json:
            made = {name: plain(getattr(value, name)) for name in ("run", "tag", "step", "wall_time", "kind")}
            number = value.value
            made["value"] = plain(shortest(struct.pack("<f", number)) if isinstance(number, float) else number)
            print(json.dumps(made), flush=True)
            return
        clock = time.strftime("%H:%M:%S", time.localtime(value.wall_time)) if _is_time(value.wall_time) else "--:--:--"
        what = f"{value.value:.6g}" if isinstance(value.value, float) else f"<{value.kind}> {value.value}".rstrip()
        run = f"[cyan]{escape(shown(value.run))}[/]  " if value.run else ""
        tag = escape(shown(value.tag))
        self._console.print(f"[dim]{clock}[/]  {run}{tag}  [dim]step[/] {value.step}  {escape(shown(what))}")


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and 0 <= seconds < 1 << 33


def versions(found: dict[str, str]) -> None:
    """Print names and versions."""
    width = max(map(len, found))
    for name, version in found.items():
        print(f"{name:<{width}}  {version}")
