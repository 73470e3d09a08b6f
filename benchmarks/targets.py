"""What tbxd is to reach, and whether it does: on a quiet machine with two cores, see the issue \"Fast\".

A single call is measured in a loop, which is what the targets were set for, and after a pause, which is what training
does; see `benchmarks.conditions`. The first decides, the second stands beside it and says when it is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Document = dict[str, Any]
TBXD = "tbxd"
TIMES = "\N{MULTIPLICATION SIGN}"
FLAT = 2.0  # a curve is flat when its worst point is at most so many times its best


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of tbxd and what it should be.

    Args:
        title: for the table.
        question, figure: where it is found; of a curve the name without its x.
        most: in the unit of the figure. With ``at_least`` the least.
        case: tbxd, or a case of it; nothing for the worst of all cases.
        times: how many times that of tbxd a peer's figure should be, at the least.
        over: another figure of tbxd, and how many times that this one may be at the most.
        pause: the same figure after a pause.
        pause_over: the other figure of ``over``, after a pause.
        curve: ``worst`` for the greatest of all points of a curve, ``flat`` for the greatest by the least of them.
        beside: another figure of the same case, and what to say of it.
        ratio: it is of how many times the figure is that of the first case, within a round.
    """

    title: str
    question: str
    figure: str
    most: float
    case: str = TBXD
    times: Mapping[str, float] = field(default_factory=dict)
    over: tuple[str, float] | None = None
    pause: str = ""
    pause_over: str = ""
    at_least: bool = False
    curve: str = ""
    beside: tuple[str, str] | None = None
    ratio: bool = False


class Line(NamedTuple):
    """A row of the table: what, what it should be and is, what it is after a pause, whether it is met, and remarks."""

    title: str
    target: str
    measured: str
    paused: str
    met: bool
    remark: str


BOTH_60 = {"tensorboardX": 60.0, "torch": 60.0}
TROUBLES = {
    "healthy": "daemon busy, 35 ms pauses between stretches of calls",
    "killed": "daemon killed meanwhile",
    "absent": "no daemon",
    "stopped": "daemon stopped",
    "disk full": "disk full",
}
SHAPES = ("1 session", "8 sessions", "64 sessions", "100 tags", "64 sessions, 100 tags", "10,000 tags")
GROWTH = {"growth_records": "records", "growth_tags": "tags", "growth_writers": "sessions", "growth_runs": "runs"}
GROWING = {
    "caller_us": "a call",
    "trainer_cpu_us": "CPU of the trainer",
    "daemon_cpu_us": "CPU of the daemon",
    "daemon_mib": "memory of the daemon",
}
TARGETS = (
    Target("`add_scalar`, the call", "add_scalar", "caller_us", 0.8, times={**BOTH_60, "trackio": 10, "csv.writer": 1}),
    Target("`add_scalar`, CPU of the trainer", "add_scalar", "trainer_cpu_us", 1.2, times={"tensorboardX": 60}),
    Target("`add_scalar`, p99.9, daemon busy", "add_scalar", "p999_us", 20),
    *(Target(f"… {title}", "troubled", "p999_us", 20, case) for case, title in TROUBLES.items()),
    Target("`log({100 values}, step)`", "log_values", "caller_us", 12, pause="pause_us"),
    Target(
        "`add_histogram` of 10⁶ float32",
        "add_histogram",
        "loop_ms_1e6",
        0.45,
        times={"tensorboardX": 100, "wandb": 15},
        over=("loop_copy_ms_1e6", 2),
        pause="caller_ms_1e6",
        pause_over="copy_ms_1e6",
    ),
    Target("`add_histogram` of 10⁴ float32", "add_histogram", "loop_ms_1e4", 0.01, pause="caller_ms_1e4"),
    Target("`add_image` of 256 by 256 by 3", "add_image", "loop_us", 60, pause="caller_us"),
    Target(
        "a training loop, slower by",
        "training_loop",
        "slower_percent",
        2,
        beside=("noise_percent", "the loop without logging deviates by {}"),
    ),
    Target(
        "`import tbxd_client`, over bare Python",
        "starting",
        "import_ms",
        40,
        beside=("open_ms", "the first writer takes {} more, for pyzmq"),
    ),
    Target(
        "first record, no daemon running",
        "starting",
        "first_ms",
        5,
        beside=("both_ms", "{} with the first writer, which loads pyzmq"),
    ),
    *(
        Target(f"daemon, one core: {case}", "daemon_scalars", "millions_per_cpu_second", least, case, at_least=True)
        for case, least in zip(SHAPES, (2.5, 2.5, *[0.8] * 4), strict=True)
    ),
    Target(
        "daemon, a histogram of 10⁶, counts exact",
        "add_histogram",
        "loop_daemon_cpu_ms_1e6",
        6,
        pause="daemon_cpu_ms_1e6",
    ),
    Target("daemon, memory: scalars, the most of all shapes", "daemon_scalars", "peak_mib", 150 / 1.048576, ""),
    Target("… histograms of 10⁶ in a loop", "add_histogram", "daemon_mib_1e6", 150 / 1.048576),
    Target("… up to 10⁷ scalars", "growth_records", "daemon_mib", 150 / 1.048576, curve="worst"),
    Target(
        "a scalar on disk, 100 tags a step",
        "log_values",
        "disk_bytes",
        20,
        beside=(
            "least_bytes",
            "{} is the least that the format has for such tags: 9 bytes and the tag's text, so 20 can be had with tags "
            "of up to 11 characters",
        ),
    ),
    Target("readable in the file, the latest of all", "latency", "max_ms", 250),
    Target(
        "all ranks log, not rank 0 only: its call",
        "ranks",
        "caller_us",
        1.1,
        "reduce",
        ratio=True,
    ),
    Target("… CPU of the trainer", "ranks", "trainer_cpu_us", 1.1, "reduce", ratio=True),
    *(
        Target(f"flat with {what}: {title}", question, figure, FLAT, curve="flat")
        for question, what in GROWTH.items()
        for figure, title in GROWING.items()
        # Where there are more processes than cores, the time of a call is that of waiting for a core.
        if (question, figure) != ("growth_writers", "caller_us")
    ),
)


def lines(documents: Mapping[str, Document]) -> Iterator[Line]:
    """What was measured for each target that the documents have a figure of. Medians are compared."""
    for target in TARGETS:
        document = documents.get(target.question)
        if document is None:
            continue
        found = _value(target, document)
        if found is None:
            continue
        value, unit, remark = found
        kind = "at least" if target.at_least else "at most"
        met = value >= target.most if target.at_least else value <= target.most
        paused = _median(document, target.pause, target.case)
        if target.beside and (beside := _median(document, target.beside[0], target.case)) is not None:
            remark = target.beside[1].format(_amount(beside, _unit(document, target.beside[0])))
        yield Line(
            target.title,
            f"{kind} {_amount(target.most, unit)}",
            _amount(value, unit),
            "" if paused is None else _amount(paused, unit) + _over(paused > target.most),
            met,
            remark,
        )
        for peer, least in target.times.items():
            ratio = _ratio(document, target.figure, peer)
            if ratio is not None:
                late = _ratio(document, target.pause, peer)
                yield Line(
                    f"… {peer} beside it",
                    f"at least {least:g}{TIMES}",
                    f"{ratio:.3g}{TIMES}",
                    "" if late is None else f"{late:.3g}{TIMES}" + _over(late < least, "less"),
                    ratio >= least,
                    "",
                )
        if target.over:
            name, most = target.over
            copy = _median(document, name, target.case)
            late_copy = _median(document, target.pause_over, target.case)
            if copy is not None:
                late = None if paused is None or late_copy is None else paused / late_copy
                yield Line(
                    "… over a bare copy",
                    f"at most {most:g}{TIMES}",
                    f"{value / copy:.3g}{TIMES}",
                    "" if late is None else f"{late:.3g}{TIMES}" + _over(late > most),
                    value / copy <= most,
                    f"copies of {_amount(copy, unit)}"
                    + ("" if late_copy is None else f", after a pause {_amount(late_copy, unit)}"),
                )


def _value(target: Target, document: Document) -> tuple[float, str, str] | None:
    """The figure of a target, its unit, and where on a curve it is."""
    if target.ratio:
        times = _ratio(document, target.figure, target.case)
        return None if times is None else (times, TIMES, "")
    if not target.curve:
        value = _median(document, target.figure, target.case)
        return None if value is None else (value, _unit(document, target.figure), "")
    points = curve(document, target.figure, target.case)
    if not points:
        return None
    unit = _unit(document, f"{target.figure}_{points[0][0]:.0f}")
    best, worst = min(points, key=lambda point: point[1]), max(points, key=lambda point: point[1])
    if target.curve == "worst":
        return worst[1], unit, f"at {worst[0]:,.0f} {document['x']}"
    if best[1] <= 0:
        return None
    remark = f"{_amount(best[1], unit)} at {best[0]:,.0f}, {_amount(worst[1], unit)} at {worst[0]:,.0f}"
    return worst[1] / best[1], TIMES, remark


def curve(document: Document, figure: str, case: str = TBXD) -> list[tuple[float, float]]:
    """The points of a curve, x and median."""
    return [
        (item["x"], document["summary"][item["name"]][case]["median"])
        for item in document["figures"]
        if item["name"] == f"{figure}_{item['x']:.0f}" and case in document["summary"].get(item["name"], {})
    ]


def _median(document: Document, figure: str, case: str) -> float | None:
    """The median of a case, or the greatest of all cases."""
    summary = document["summary"].get(figure, {})
    if not case:
        return max((item["median"] for item in summary.values()), default=None)
    return summary[case]["median"] if case in summary else None


def _ratio(document: Document, figure: str, peer: str) -> float | None:
    values = document["summary"].get(figure, {}).get(peer, {})
    return values["ratio"]["median"] if "ratio" in values else None


def _unit(document: Document, name: str) -> str:
    (unit,) = (figure["unit"] for figure in document["figures"] if figure["name"] == name)
    return str(unit)


def _amount(value: float, unit: str) -> str:
    return f"{value:.3g}{unit}" if unit == TIMES else f"{value:.3g} {unit}"


def _over(missed: bool, word: str = "more") -> str:
    return f", {word}" if missed else ""
