"""Results as tables: on the terminal and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

Document = dict[str, Any]


def number(value: float) -> str:
    """Three significant digits."""
    if value == 0:
        return "0"
    if value >= 99.95:
        return f"{value:,.0f}"
    digits = 2 if value < 10 else 1
    if value < 1:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def times(ratio: float) -> str:
    """How many times, in two significant digits, or whole."""
    return f"{ratio:,.0f}\N{MULTIPLICATION SIGN}" if ratio >= 99.5 else f"{ratio:.2g}\N{MULTIPLICATION SIGN}"


def cell(values: Document) -> str:
    """A median with its spread."""
    if values["max"] == 0:
        return "0"
    return f"{number(values['median'])} ({number(values['min'])} to {number(values['max'])})"


def ratio(values: Document) -> str:
    """How many times the figure of the first, with its spread."""
    return f"{cell(values['ratio'])}" if "ratio" in values else ""


def head(document: Document) -> list[str]:
    """The titles of the columns."""
    first, *others = document["columns"]
    return ["", first, *(title for peer in others for title in (peer, f"÷ {first}"))]


def rows(document: Document) -> Iterator[list[str]]:
    """The rows of the table: each figure, and each peer's value and its ratio to that of the first."""
    for figure in document["figures"]:
        row = [f"{figure['title']}, {figure['unit']}"]
        for peer, values in document["summary"][figure["name"]].items():
            row.append(cell(values))
            if peer != document["columns"][0]:
                row.append(ratio(values))
        yield row


def conditions(document: Document) -> str:
    """Where, when and with what, in one sentence or two."""
    place = document["machine"]
    versions = ", ".join(f"{peer} {version}" for peer, version in document["versions"].items())
    loads = [item["load_before"] for row in document["rounds"] for item in row.values()]
    return (
        f"{document['date']}; {place['cpu']}, {place['cores']} cores, {place['memory_gib']} GiB, "
        f"Linux {place['kernel']}, {place['filesystem']}; Python {place['python']}; {versions}. "
        f"Median (least to greatest) of {len(document['rounds'])} rounds; ratios are taken within a round. "
        f"The load of the machine before a measurement was {min(loads):.1f} to {max(loads):.1f}."
        + "".join(f" Left out: {peer}, {reason}." for peer, reason in document["left_out"].items())
        + (" QUICK: the counts are too small for the figures to mean anything." if document["quick"] else "")
    )


def terminal(document: Document) -> Table:
    """A table for the terminal."""
    table = Table(title=document["title"], caption=conditions(document), box=box.SIMPLE_HEAD, title_justify="left")
    for index, title in enumerate(head(document)):
        table.add_column(title, justify="right" if index else "left")
    for row in rows(document):
        table.add_row(*row)
    return table


# The rows of the table that the README has as well: question, figure, what to call it.
SHORT = (
    ("add_scalar", "caller_us", "`add_scalar` in a loop: the call"),
    ("add_scalar", "trainer_cpu_us", "… CPU of the training process, threads included"),
    ("add_scalar", "daemon_cpu_us", "… CPU of the daemon"),
    ("add_histogram", "caller_ms_1e6", "`add_histogram` of 10⁶ float32: the call"),
    ("add_histogram", "trainer_cpu_ms_1e6", "… CPU of the training process, threads included"),
    ("add_histogram", "daemon_cpu_ms_1e6", "… CPU of the daemon"),
    ("add_histogram", "caller_ms_1e4", "`add_histogram` of 10⁴ float32: the call"),
    ("add_histogram", "trainer_cpu_ms_1e4", "… CPU of the training process, threads included"),
    ("add_histogram", "daemon_cpu_ms_1e4", "… CPU of the daemon"),
    ("other_calls", "caller_image", "`add_image` of 512 by 512 by 3 uint8: the call"),
    ("other_calls", "caller_video", "`add_video` of 16 by 3 by 64 by 64 uint8: the call"),
    ("other_calls", "caller_embedding", "`add_embedding` of 1,000 by 64 float32: the call"),
    ("other_calls", "caller_pr_curve", "`add_pr_curve` of 10,000 predictions: the call"),
    ("other_calls", "caller_text", "`add_text` of 1,000 characters: the call"),
    ("add_scalar", "first_ms", "import, open and first call"),
    ("add_scalar", "trainer_mib", "memory of the training process, after scalars"),
    ("add_scalar", "daemon_mib", "memory of the daemon, after scalars"),
    ("add_scalar", "disk_bytes", "event file, per scalar"),
)


def short(documents: list[Document]) -> str:
    """The medians that matter most, in one table; how many times tbxd's a peer's is, in parentheses."""
    known = {document["question"]: document for document in documents}
    versions = documents[0]["versions"]
    lines = ["| | " + " | ".join(f"{peer} {version}".split(" with ")[0] for peer, version in versions.items()) + " |"]
    lines.append("|---" + "|---:" * len(versions) + "|")
    for question, name, title in SHORT:
        document = known.get(question)
        if document is None:
            continue
        (unit,) = (figure["unit"] for figure in document["figures"] if figure["name"] == name)
        cells = [
            "none"
            if values["max"] == 0
            else f"{number(values['median'])} {unit}"
            + (f" ({times(values['ratio']['median'])})" if "ratio" in values else "")
            for values in document["summary"][name].values()
        ]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def markdown(documents: list[Document]) -> str:
    """A page with the tables of several questions."""
    parts = ["# Benchmarks", "Made by `python -m benchmarks --markdown FILE`; do not edit.", short(documents)]
    for document in documents:
        titles = head(document)
        lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows(document)]
        parts += [f"## {document['title']}", document["notes"], conditions(document), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
