"""What tbxd is to reach, and whether it does: on a quiet machine with two cores, see the issue \"Fast\"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
TBXD = "tbxd"
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of tbxd and what it should be.

    Args:
        title: for the table.
        question, figure: where it is found.
        most: in the unit of the figure.
        case: tbxd, or a case of it.
        times: how many times that of tbxd a peer's figure should be, at the least.
        over: another figure of tbxd, and how many times that this one may be at the most.
    """

    title: str
    question: str
    figure: str
    most: float
    case: str = TBXD
    times: Mapping[str, float] = field(default_factory=dict)
    over: tuple[str, float] | None = None


BOTH_60 = {"tensorboardX": 60.0, "torch": 60.0}
TARGETS = (
    Target("`add_scalar`, the call", "add_scalar", "caller_us", 0.8, times={**BOTH_60, "trackio": 10, "csv.writer": 1}),
    Target("`add_scalar`, CPU of the trainer", "add_scalar", "trainer_cpu_us", 1.2, times={"tensorboardX": 60}),
    Target("`add_scalar`, p99.9, daemon busy", "troubled", "p999_us", 20, "healthy"),
    Target("`add_scalar`, p99.9, daemon killed", "troubled", "p999_us", 20, "killed"),
    Target("`log({100 values}, step)`", "log_values", "caller_us", 12),
    Target(
        "`add_histogram` of 10⁶ float32",
        "add_histogram",
        "caller_ms_1e6",
        0.45,
        times={"tensorboardX": 100, "wandb": 15},
        over=("copy_ms_1e6", 2),
    ),
    Target("`add_histogram` of 10⁴ float32", "add_histogram", "caller_ms_1e4", 0.01),
    Target("`add_image` of 256 by 256 by 3", "add_image", "caller_us", 60),
    *(
        Target(f"daemon, CPU of a scalar: {case}", "daemon_scalars", "cpu_us", 0.4 if index < 2 else 1.25, case)
        for index, case in enumerate(("1 session", "8 sessions", "64 sessions", "100 tags", "10,000 tags"))
    ),
    Target("a training loop, slower by", "training_loop", "slower_percent", 2),
    Target("`import tbxd_client`, over bare Python", "starting", "import_ms", 40),
    Target("first record, no daemon running", "starting", "both_ms", 5),
    Target("a scalar on disk, 100 tags a step", "log_values", "disk_bytes", 20),
    Target("readable in the file, p95", "latency", "p95_ms", 250),
)


def lines(documents: Mapping[str, Document]) -> Iterator[tuple[str, str, str, bool]]:
    """What was measured for each target: title, target, measured, and whether it is met. Medians are compared."""
    for target in TARGETS:
        document = documents.get(target.question)
        summary = document["summary"].get(target.figure, {}) if document else {}
        if document is None or target.case not in summary:
            continue
        (unit,) = (figure["unit"] for figure in document["figures"] if figure["name"] == target.figure)
        value = summary[target.case]["median"]
        yield target.title, f"at most {target.most:g} {unit}", f"{value:.3g} {unit}", value <= target.most
        for peer, least in target.times.items():
            if "ratio" in summary.get(peer, {}):
                ratio = summary[peer]["ratio"]["median"]
                yield f"… {peer} beside it", f"at least {least:g}{TIMES}", f"{ratio:.3g}{TIMES}", ratio >= least
        if target.over:
            name, most = target.over
            ratio = value / document["summary"][name][target.case]["median"]
            yield "… over a bare copy", f"at most {most:g}{TIMES}", f"{ratio:.3g}{TIMES}", ratio <= most
