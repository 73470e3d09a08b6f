"""Results as tables: on the terminal and as a page of Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Container, Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table

from . import targets
from .curve import power

Document = dict[str, Any]
NONE, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


def number(value: float) -> str:
    """Three significant digits."""
    if value == 0:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    digits = 2 if abs(value) < 10 else 1
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def times(ratio: float) -> str:
    """How many times, in two significant digits, or whole."""
    return f"{ratio:,.0f}\N{MULTIPLICATION SIGN}" if ratio >= 99.5 else f"{ratio:.2g}\N{MULTIPLICATION SIGN}"


def cell(values: Document | None, newline: str) -> str:
    """A median, its spread, and how many times the figure of the first it is."""
    if values is None:
        return NONE
    if values["min"] == values["max"] == 0:
        return "0"
    text = number(values["median"])
    if values["min"] != values["max"]:
        text += f" ({number(values['min'])} to {number(values['max'])})"
    return text + (f"{newline}{times(values['ratio']['median'])}" if "ratio" in values else "")


def head(document: Document) -> list[str]:
    """The titles of the columns."""
    return ["", *document["columns"]]


def rows(document: Document, newline: str) -> Iterator[list[str]]:
    """The rows of the table: each figure with the value of each peer."""
    for figure in document["figures"]:
        values = document["summary"][figure["name"]]
        if values:
            yield [
                f"{figure['title']}, {figure['unit']}",
                *(cell(values.get(peer), newline) for peer in document["columns"]),
            ]


def conditions(document: Document) -> str:
    """Where, when and with what, in one sentence or two."""
    place = document["machine"]
    versions = ", ".join(f"{peer} {version}" for peer, version in document["versions"].items())
    loads = [item["load_before"] for row in document["rounds"] for item in row.values()]
    return (
        f"{document['date']}; {place['cpu']}, {place['cores']} cores, {place['memory_gib']} GiB, "
        f"Linux {place['kernel']}, {place['filesystem']}; Python {place['python']}; {versions}. "
        + _rounds_of(document)
        + f"Figures with {TIMES} are multiples of the figure of {document['columns'][0]} in the same round. "
        + f"Before a measurement the machine had a load of {min(loads):.1f} to {max(loads):.1f}."
        + "".join(f" Left out: {peer}, {reason}." for peer, reason in document["left_out"].items())
        + (" QUICK: the counts are too small for the figures to mean anything." if document["quick"] else "")
    )


def _rounds_of(document: Document) -> str:
    count = len(document["rounds"])
    return "One round. " if count == 1 else f"Median (minimum to maximum) of {count} rounds. "


def rounds(documents: list[Document]) -> str:
    """Of how many rounds the figures of the short table are, in words: ``medians of two to five rounds``."""
    asked = {question for question, _, _ in SHORT}
    counts = {len(document["rounds"]) for document in documents if document["question"] in asked}
    least, most = (COUNTS.get(count, str(count)) for count in (min(counts), max(counts)))
    if counts == {1}:
        return "one round"
    return f"medians of {least}{'' if least == most else f' to {most}'} interleaved rounds"


def terminal(document: Document) -> Table:
    """A table for the terminal."""
    table = Table(title=document["title"], caption=conditions(document), box=box.SIMPLE_HEAD, title_justify="left")
    for index, title in enumerate(head(document)):
        table.add_column(title, justify="right" if index else "left")
    for row in rows(document, "\n"):
        table.add_row(*row)
    return table


def terminal_targets(documents: list[Document]) -> Table:
    """The targets, for the terminal."""
    heads = ("target", "", "measured", "after a pause", "met", "")
    table = Table(*heads, title="targets", box=box.SIMPLE_HEAD, title_justify="left")
    for line in targets.lines(_by_name(documents)):
        title, met = line.title.replace("`", ""), "yes" if line.met else "NO"
        table.add_row(title, line.target, line.measured, line.paused, met, line.remark)
    return table


# The rows of the first table: question, figure, what to call it.
SHORT_PEERS = ("tbxd", "tensorboardX", "torch")
SHORT = (
    ("add_scalar", "caller_us", "`add_scalar` in a loop: the call"),
    ("add_scalar", "trainer_cpu_us", "… CPU of the training process, threads included"),
    ("add_scalar", "daemon_cpu_us", "… CPU of the daemon"),
    ("log_values", "caller_us", "100 values of a step (`log`) in a loop: the call"),
    ("log_values", "pause_us", "100 values of a step after a pause: the call"),
    ("add_histogram", "loop_ms_1e6", "`add_histogram` of 10⁶ float32 in a loop: the call"),
    ("add_histogram", "caller_ms_1e6", "`add_histogram` of 10⁶ float32 after a pause: the call"),
    ("add_histogram", "trainer_cpu_ms_1e6", "… CPU of the training process, threads included"),
    ("add_histogram", "daemon_cpu_ms_1e6", "… CPU of the daemon"),
    ("add_histogram", "loop_ms_1e4", "`add_histogram` of 10⁴ float32 in a loop: the call"),
    ("add_histogram", "caller_ms_1e4", "`add_histogram` of 10⁴ float32 after a pause: the call"),
    ("add_histogram", "trainer_cpu_ms_1e4", "… CPU of the training process, threads included"),
    ("add_histogram", "daemon_cpu_ms_1e4", "… CPU of the daemon"),
    (
        "whole_model",
        "step_ms",
        "the 148 histograms of a GPT-2 (124 million float32), as fast as they go: a step's calls",
    ),
    ("whole_model", "longest_ms", "… the longest call"),
    ("whole_model", "total_cpu_ms", "… CPU of all processes, a step"),
    ("add_image", "loop_us", "`add_image` of 256 by 256 by 3 uint8 in a loop: the call"),
    ("add_image", "caller_us", "`add_image` of 256 by 256 by 3 uint8 after a pause: the call"),
    ("other_calls", "caller_video", "`add_video` of 16 by 3 by 64 by 64 uint8, after a pause: the call"),
    ("other_calls", "caller_embedding", "`add_embedding` of 1,000 by 64 float32, after a pause: the call"),
    ("other_calls", "caller_pr_curve", "`add_pr_curve` of 10,000 predictions, after a pause: the call"),
    ("other_calls", "caller_text", "`add_text` of 1,000 characters, after a pause: the call"),
    ("training_loop", "slower_percent", "a training loop with 50 scalars a step and histograms: slower by"),
    ("killed", "kept_many", "kept of 10,000 scalars after `kill -9`"),
    ("starting", "import_ms", "import, over bare Python"),
    ("add_scalar", "first_ms", "import, open and first call"),
    ("add_scalar", "trainer_mib", "memory of the training process, after scalars"),
    ("add_scalar", "daemon_mib", "memory of the daemon, after scalars"),
    ("add_scalar", "disk_bytes", "event file, per scalar"),
    ("break_even", "total_cpu_ms", "5 scalars a second for 20 s: CPU of all, while it runs"),
    ("break_even", "start_cpu_ms", "… once, at the start, the daemon's with it"),
)
# Those of them that the README has.
HEADLINE = (
    ("add_scalar", "caller_us"),
    ("add_scalar", "trainer_cpu_us"),
    ("add_histogram", "caller_ms_1e6"),
    ("training_loop", "slower_percent"),
    ("killed", "kept_many"),
)
# The columns of the table of all peers.
BESIDE = (
    ("add_scalar", "caller_us", "`add_scalar`"),
    ("add_scalar", "p999_us", "… p99.9"),
    ("add_scalar", "trainer_cpu_us", "… CPU of the trainer"),
    ("add_scalar", "daemon_cpu_us", "… CPU of daemon or helpers"),
    ("log_values", "caller_us", "100 scalars of a step"),
    ("add_histogram", "loop_ms_1e6", "histogram of 10⁶ in a loop"),
    ("add_histogram", "caller_ms_1e6", "… after a pause"),
    ("add_histogram", "loop_ms_1e4", "histogram of 10⁴ in a loop"),
    ("add_histogram", "caller_ms_1e4", "… after a pause"),
    ("add_image", "loop_us", "image 256 by 256 by 3 in a loop"),
    ("add_image", "caller_us", "… after a pause"),
    ("training_loop", "slower_percent", "training loop slower by"),
    ("add_scalar", "disk_bytes", "bytes a scalar"),
    ("add_scalar", "trainer_mib", "memory of the trainer"),
    ("add_scalar", "daemon_mib", "… of daemon or helpers"),
    ("killed", "kept_many", "kept of 10,000 after SIGKILL"),
    ("killed", "kept_few", "… of 100"),
    ("starting", "import_ms", "import"),
    ("break_even", "total_cpu_ms", "CPU of 5 scalars a second, 20 s"),
)

COLUMNS = 118  # of a line of text
INTRODUCTION = (
    "For users who ask what logging costs, and for developers who make it faster. This page compares tbxd with other "
    "writers and trackers: calls, CPU, memory, disk, what a kill loses, and how costs grow."
)
TARGET_NOTES = (
    "Single calls are compared in a loop, for which the targets were set. The next column has the same call after a "
    "pause of 50 ms, as in training, when its code and data have left the processor's caches; “more” and “less” mean "
    f"that it misses the target there. Flat: the worst point of a curve is at most {targets.FLAT:g} times the best."
)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def _by_name(documents: list[Document]) -> dict[str, Document]:
    return {document["question"]: document for document in documents}


def _short_cell(document: Document | None, name: str, peer: str) -> str:
    values = document["summary"].get(name, {}).get(peer) if document else None
    if document is None or values is None:
        return NONE
    (unit,) = (figure["unit"] for figure in document["figures"] if figure["name"] == name)
    if values["min"] == values["max"] == 0 and "daemon" in name:
        return "none"
    ratio = f" ({times(values['ratio']['median'])})" if "ratio" in values else ""
    return f"{number(values['median'])} {unit}{ratio}"


def _table(head: list[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _versions(documents: list[Document]) -> dict[str, str]:
    return {name: version for document in reversed(documents) for name, version in document["versions"].items()}


def short(documents: list[Document], chosen: Container[tuple[str, str]] | None = None) -> str:
    """The medians that matter most, in one table; how many times tbxd's a peer's is, in parentheses.

    Args:
        chosen: the rows, by question and figure, where not all are wanted.
    """
    known, versions = _by_name(documents), _versions(documents)
    peers = [peer for peer in SHORT_PEERS if peer in versions]
    return _table(
        ["", *(f"{peer} {versions[peer]}".split(" with ")[0] for peer in peers)],
        [
            [title, *(_short_cell(known[question], name, peer) for peer in peers)]
            for question, name, title in SHORT
            if question in known
            and name in known[question]["summary"]  # the results may be older than the figure
            and (chosen is None or (question, name) in chosen)
        ],
    ).replace("|  |", "| |", 1)  # by which this table is told from the others


def beside(documents: list[Document]) -> str:
    """All peers, one a row."""
    known, versions = _by_name(documents), _versions(documents)
    columns = [item for item in BESIDE if item[0] in known and item[1] in known[item[0]]["summary"]]
    return _table(
        ["peer", *(title for _, _, title in columns)],
        [
            [f"{peer} {version}".split(" with ")[0]]
            + [_short_cell(known[question], name, peer).partition(" (")[0] for question, name, _ in columns]
            for peer, version in versions.items()
        ],
    )


def curves(document: Document) -> Iterator[tuple[str, str]]:
    """Title and table of each curve of a question: what is counted in rows, peers in columns, medians."""
    for title in dict.fromkeys(figure["curve"] for figure in document["figures"]):
        figures = [figure for figure in document["figures"] if figure["curve"] == title]
        yield (
            f"{title}, {figures[0]['unit']}",
            _flatness(document, figures)
            + _table(
                [document["x"], *document["columns"]],
                [
                    [power(figure["x"])]
                    + [
                        number(values[peer]["median"]) if peer in values else NONE
                        for values in [document["summary"][figure["name"]]]
                        for peer in document["columns"]
                    ]
                    for figure in figures
                    if document["summary"][figure["name"]]
                ],
            ),
        )


def _flatness(document: Document, figures: list[Document]) -> str:
    """How even the curves of a question are whose cost should not grow: those of tbxd and of each peer."""
    if document["question"] not in targets.GROWTH:
        return ""
    name = figures[0]["name"].rpartition("_")[0]
    parts = []
    for peer in document["columns"]:
        points = [value for _, value in targets.curve(document, name, peer)]
        if len(points) > 1 and min(points) > 0:
            parts.append(f"{peer} {times(max(points) / min(points))}")
    return f"The worst point divided by the best: {', '.join(parts)}.\n\n" if parts else ""


def markdown(documents: list[Document], pictures: Mapping[str, str]) -> str:
    """A page with the tables of several questions.

    Args:
        documents: as the harness has made them.
        pictures: a question's name to the file of its plot, beside the page.
    """
    parts = [
        "# Benchmarks",
        _wrapped(INTRODUCTION),
        "`make bench-page` makes this page from the results of `make bench-all`, in `benchmarks.json`; do not edit it.",
        short(documents),
    ]
    aims = list(targets.lines(_by_name(documents)))
    if aims:
        rows_of = [
            [line.title, line.target, line.measured, line.paused, "yes" if line.met else "**no**", line.remark]
            for line in aims
        ]
        parts += [
            "## Targets",
            _wrapped(f"{sum(line.met for line in aims)} of {len(aims)} are met. {TARGET_NOTES}"),
            _table(["", "target", "measured", "after a pause", "met", ""], rows_of),
        ]
    if len(_versions(documents)) > len(SHORT_PEERS):
        parts += ["## Beside all peers", beside(documents)]
    for document in documents:
        parts += [f"## {document['title']}", _wrapped(document["notes"]), _wrapped(conditions(document))]
        if document["question"] in pictures:
            parts.append(f"![{document['title']}]({pictures[document['question']]})")
        if document["x"]:
            for title, table in curves(document):
                parts += [f"### {document['title'].partition(' with ')[2] or document['title']}: {title}", table]
        else:
            parts.append(_table(head(document), rows(document, "<br>")))
    return "\n\n".join(parts) + "\n"
