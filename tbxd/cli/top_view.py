"""The output of ``tbxd top``, on a terminal and without one, and its keys."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tbxd_client.writers.readback import shortest

from ..config.settings import Settings
from ..drop_reasons import HINTS
from ..runs.record_encoder import DROPPED_TAG
from ..tools.top import ONCE_SECONDS, ORDERS, RATE, Frame, Row, Top, ordered
from .findings_view import plain, shown
from .keyboard import DOWN, END, HOME, PAGE_DOWN, PAGE_UP, UP, Keyboard
from .short_names import shorten

PLAIN_WIDTH = 160  # columns where stdout is no terminal
PLAIN_ROWS = 1000  # runs that are shown there
LEAST_ROWS = 3  # also on a small terminal
HEAD_LINES = 7  # on the screen besides runs, notes, hints and the numbers at the top
PAIRS, PAIRS_A_LINE, PAIR_COLUMNS = 10, 5, 20  # of these numbers
WRAP_SLACK = 12  # columns that a line which is wrapped may leave empty
VALUES_SHOWN = 3  # tags of a run
NOTES_SHOWN = 4
UNKNOWN = "-"  # what nobody knows without a daemon
DISK_LOW_SHARE, LAG_HIGH_SECONDS = 0.05, 5.0  # what is marked
HELP = "q quits   s sorts by {order}   p {pause}"
SCROLL_HELP = "   ↑↓ PgUp PgDn scroll"


def bytes_of(number: float) -> str:
    """Return a number of bytes in three figures."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1000 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.3g} {unit}"


def rate_of(number: float) -> str:
    """Return a rate in records a second, short."""
    for unit in ("", "k", "M"):
        if number < 1000 or unit == "M":
            break
        number /= 1000
    return f"{number:,.0f}{unit}" if number >= 100 or not unit else f"{number:.3g}{unit}"


def time_of(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes, left = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"


def lag_of(seconds: float) -> str:
    """Return a lag as text."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else time_of(seconds)


def folders(directories: list[str]) -> dict[str, str]:
    """Return short names of runs: relative to this folder, or without their common beginning."""
    here = Path.cwd()
    if all(Path(one).is_relative_to(here) for one in directories):
        return {one: shown(str(Path(one).relative_to(here))) for one in directories}
    common = os.path.commonpath(directories) if len(directories) > 1 else str(Path(directories[0]).parent.parent)
    return {one: shown(os.path.relpath(one, common)) if common != "/" else shown(one) for one in directories}


def render(
    frame: Frame, rows: list[Row], order: str = RATE, paused: bool = False, keys: bool = True, above: int = 0
) -> RenderableType:
    """Render a frame.

    Args:
        frame: the state of a daemon.
        rows: the runs to show, in order.
        order: the name of that order.
        paused: the display is paused.
        keys: show the keys.
        above: the number of runs scrolled away above.
    """
    parts: list[RenderableType] = [*_head(frame), Rule(style="dim")]
    if rows:
        parts.append(_runs(rows, order))
        below = len(frame.rows) - len(rows) - above
        hidden = [f"{above:,} run{'' if above == 1 else 's'} above"] if above else []
        hidden += [f"{below:,} more run{'' if below == 1 else 's'}"] if below > 0 else []
        if hidden:
            parts.append(Text(", ".join(hidden), style="dim"))
    elif not frame.trouble:
        parts.append(Text("nothing has been logged yet", style="dim"))
    notes = _notes(frame)
    parts += [Text("")] * bool(notes) + [Text(line, style=style) for line, style in notes]
    if keys:
        following = ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]
        line = HELP.format(order=following, pause="goes on" if paused else "pauses")
        line += SCROLL_HELP if len(rows) < len(frame.rows) else ""
        parts += [Rule(style="dim"), Text(line + ("   PAUSED" if paused else ""), style="yellow" if paused else "dim")]
    return Group(*parts)


def _head(frame: Frame) -> list[RenderableType]:
    lines: list[RenderableType] = []
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(f"tbxd {frame.version}".strip(), style="bold")
    if frame.pid:
        state = "is gone" if frame.trouble else f"up {time_of(frame.up_seconds)}"
        title.append(f"  {frame.kind}, pid {frame.pid}, {state}")
    title.append(f"  {shown(frame.address)}", style="dim")
    lines.append(title)
    if frame.trouble:
        lines.append(Text(f"it waits for a daemon: {frame.trouble}", "bold red", no_wrap=True, overflow="ellipsis"))
        if not frame.pid:
            return lines
        clock = time.strftime("%H:%M:%S", time.localtime(frame.answered))
        ago = time_of(frame.time - frame.answered)
        lines.append(Text(f"the numbers are of {clock}, {ago} ago", "yellow", no_wrap=True, overflow="ellipsis"))
    lag = "bold red" if frame.lag_seconds > LAG_HIGH_SECONDS else "bold"

    def now(text: str) -> str:
        return UNKNOWN if frame.trouble else text

    dropped = sum(frame.totals.get("dropped", {}).values())
    pending = frame.totals.get("pending", 0)
    pairs = [
        _pair("records/s", now(rate_of(frame.records_per_second))),
        _pair("written/s", now(bytes_of(frame.bytes_per_second))),
        _pair("lag", now(lag_of(frame.lag_seconds)), "bold" if frame.trouble else lag),
        _pair("sessions", now(f"{frame.sessions:,}")),
        _pair("runs", f"{len(frame.rows):,}"),
        _pair("cpu", now(f"{frame.cpu_percent:.0f} %")),
        _pair("memory", now(bytes_of(frame.memory_bytes))),
        _pair("pending", f"{pending:,}"),
        _pair("dropped", f"{dropped:,}", "bold red" if dropped else "bold"),
        _pair("written", f"{frame.totals.get('written', 0):,}"),
    ]
    lines.append(_Pairs(pairs))
    if frame.disks:
        text = Text("disk  ", style="dim", no_wrap=True, overflow="ellipsis")
        for disk in frame.disks:
            low = disk.free_bytes < DISK_LOW_SHARE * disk.total_bytes
            text.append(bytes_of(disk.free_bytes), style="bold red" if low else "bold not dim")
            text.append(f" free of {bytes_of(disk.total_bytes)} ({disk.what}, {shown(disk.path)})   ")
        lines.append(text)
    return lines


class _Names:
    """Names of runs, shortened to the width of their column."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._made: dict[int, list[str]] = {}

    def cell(self, place: int, style: str) -> RenderableType:
        """Return the cell of one name."""
        return _Name(self, place, style)

    def fitting(self, place: int, width: int) -> str:
        """Return one name in about ``width`` columns."""
        if width not in self._made:
            wide = max(cell_len(name) - len(name) for name in self._names)  # letters that take two columns
            self._made[width] = shorten(self._names, max(1, width - wide))
        return self._made[width][place]

    def longest(self) -> int:
        """Return the columns of the longest name."""
        return max(cell_len(name) for name in self._names)


class _Name:
    def __init__(self, names: _Names, place: int, style: str) -> None:
        self._names, self._place, self._style = names, place, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self._names.fitting(self._place, options.max_width)
        yield Text(text, style=self._style, no_wrap=True, overflow="ellipsis")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, min(options.max_width, self._names.longest())))


class _Pairs:
    """Pairs in as many columns as fit, so that none is cut on a narrow terminal."""

    def __init__(self, pairs: list[Text]) -> None:
        self._pairs = pairs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = pairs_a_line(options.max_width)
        grid = Table.grid(padding=(0, 3))
        for first in range(0, len(self._pairs), columns):
            grid.add_row(*self._pairs[first : first + columns])
        yield grid


def pairs_a_line(width: int) -> int:
    """Return how many numbers at the top fit in a line."""
    return max(1, min(PAIRS_A_LINE, width // PAIR_COLUMNS))


def _pair(name: str, value: str, style: str = "bold") -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, style), no_wrap=True)


def _runs(rows: list[Row], order: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim", padding=(0, 2, 0, 0))
    ranks = any(row.ranks for row in rows)
    short = folders([row.directory for row in rows])
    names = _Names([short[row.directory] for row in rows])
    table.add_column("run" + (" ▾" if order == "name" else ""), no_wrap=True, overflow="ellipsis", ratio=3, min_width=8)
    for name, by in (("rec/s", "rate"), ("written", ""), ("pending", "pending"), ("dropped", "dropped")):
        table.add_column(name + (" ▾" if order == by else ""), justify="right", no_wrap=True)
    if ranks:
        table.add_column("ranks", no_wrap=True)
    table.add_column("last values", no_wrap=True, overflow="ellipsis", ratio=5, min_width=12)
    for place, row in enumerate(rows):
        dropped = sum(row.dropped.values())
        cells: list[RenderableType] = [
            names.cell(place, "red" if row.error else "bold" if row.rate else ""),
            Text(rate_of(row.rate), style="green" if row.rate else "dim"),
            Text(f"{row.written:,}"),
            Text(f"{row.pending:,}", style="yellow" if row.pending and not row.rate else ""),
            Text(f"{dropped:,}", style="bold red" if dropped else "dim"),
        ]
        if ranks:
            cells.append(_ranks(row.ranks))
        cells.append(_values(row))
        table.add_row(*cells)
    return table


def _ranks(ranks: dict[str, Any] | None) -> Text:
    if not ranks:
        return Text("")
    text = Text(f"{ranks['alive']} of {ranks['world']}")
    if ranks["behind"]:
        text.append(f", {len(ranks['behind'])} behind", style="yellow")
    return text


def _values(row: Row) -> Text:
    if row.error:
        return Text(shown(row.error), style="red")
    text = Text()
    # In an order that does not change from frame to frame, and what everybody looks for first.
    tags = sorted(
        (tag for tag in row.values if not tag.startswith(DROPPED_TAG)), key=lambda tag: ("loss" not in tag.lower(), tag)
    )
    for tag, (step, value) in ((tag, row.values[tag]) for tag in tags[:VALUES_SHOWN]):
        if text:
            text.append("  ")
        text.append(f"{shown(tag)} ", style="cyan")
        text.append(f"{value:.4g}")
        text.append(f" @{step}", style="dim")
    return text


def _notes(frame: Frame) -> list[tuple[str, str]]:
    """Return problems, with advice."""
    lines = [(shown(note), "red") for note in frame.notes]
    for reason, count in sorted(frame.totals.get("dropped", {}).items(), key=lambda item: -item[1]):
        hint = HINTS.get(reason, "docs/GUARANTEES.md says what it means")
        lines.append((f"{count:,} dropped, {shown(reason)}: {hint}", "yellow"))
    if len(lines) > NOTES_SHOWN:
        lines[NOTES_SHOWN - 1 :] = [(f"and {len(lines) - NOTES_SHOWN + 1:,} more: `tbxd status`", "yellow")]
    return lines


def _fitting(frame: Frame, width: int, height: int) -> int:
    """Return the number of runs that fit on the screen."""
    notes = sum(-(-len(line) // max(1, width - WRAP_SLACK)) for line, _ in _notes(frame))
    numbers = -(-PAIRS // pairs_a_line(width - 2))
    return max(LEAST_ROWS, height - HEAD_LINES - numbers - notes - bool(notes) - 2 * bool(frame.trouble))


def _json(frame: Frame, rows: list[Row]) -> str:
    made = asdict(frame)
    runs = [asdict(row) for row in rows]
    for run in runs:
        run["values"] = {
            tag: {"step": step, "value": plain(shortest(struct.pack("<f", value)))}
            for tag, (step, value) in run["values"].items()
        }
    del made["rows"]
    return json.dumps({"running": not frame.trouble, **made, "runs": runs})


def once(settings: Settings, as_json: bool) -> Frame:
    """Print one frame; the caller reports its ``trouble``."""
    top = Top(settings)
    frame = top.look()
    if frame.trouble:
        return frame
    begun = time.monotonic()
    top.fill(frame, ordered(frame.rows, RATE))
    top.settle()
    time.sleep(max(0.0, begun + ONCE_SECONDS - time.monotonic()))  # rates are between two looks
    frame = top.look()
    if frame.trouble:
        return frame
    rows = ordered(frame.rows, RATE)
    top.fill(frame, rows)
    if as_json:
        print(_json(frame, rows), flush=True)
    else:
        console = _console()
        console.print(render(frame, rows[:PLAIN_ROWS], keys=False))
    return frame


def follow(settings: Settings, interval: float, as_json: bool) -> Frame | None:
    """Show frame after frame until the user quits; return a frame with trouble if no daemon runs at first."""
    top = Top(settings)
    frame = top.look()
    if frame.trouble:
        return frame
    console = _console()
    if as_json or not console.is_terminal:
        _stream(top, frame, interval, as_json, console)
    else:
        _Screen(top, frame, interval, console).run()
    return None


def _stream(top: Top, frame: Frame, interval: float, as_json: bool, console: Console) -> None:
    while True:
        rows = ordered(frame.rows, RATE)
        top.fill(frame, rows)
        if as_json:
            print(_json(frame, rows), flush=True)
        else:
            console.print(render(frame, rows[:PLAIN_ROWS], keys=False))
            console.print()
            sys.stdout.flush()
        time.sleep(interval)
        frame = top.look()


class _Screen:
    """The whole terminal."""

    def __init__(self, top: Top, frame: Frame, interval: float, console: Console) -> None:
        self._top, self._frame, self._interval, self._console = top, frame, interval, console
        self._order, self._paused = RATE, False
        self._above = 0  # runs that are scrolled away

    def run(self) -> None:
        with (
            Keyboard() as keyboard,
            Live(console=self._console, screen=True, auto_refresh=False, redirect_stderr=False) as live,
        ):
            due = time.monotonic() + min(self._interval, ONCE_SECONDS)
            while True:
                live.update(self._drawn(), refresh=True)
                key = keyboard.wait(max(0.0, due - time.monotonic()))
                if key in ("q", "Q"):
                    return
                if key in ("s", "S"):
                    self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
                elif key in ("p", "P", " "):
                    self._paused = not self._paused
                else:
                    self._scroll(key)
                if time.monotonic() >= due:
                    due = time.monotonic() + self._interval
                    if not self._paused:
                        self._frame = self._top.look()

    def _scroll(self, key: str) -> None:
        page = max(1, _fitting(self._frame, *self._console.size) - 1)  # one run stays, to go on from
        steps = {UP: -1, "k": -1, DOWN: 1, "j": 1, PAGE_UP: -page, PAGE_DOWN: page, "g": -sys.maxsize, "G": sys.maxsize}
        self._above += {HOME: -sys.maxsize, END: sys.maxsize}.get(key, steps.get(key, 0))

    def _drawn(self) -> RenderableType:
        fitting = _fitting(self._frame, *self._console.size)
        self._above = max(0, min(self._above, len(self._frame.rows) - fitting))
        rows = ordered(self._frame.rows, self._order)[self._above : self._above + fitting]
        if not self._paused:
            self._top.fill(self._frame, rows)
        return Padding(render(self._frame, rows, self._order, self._paused, above=self._above), (0, 1))


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
