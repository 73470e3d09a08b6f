"""Plots of the curves and of all peers, as SVG that can be read on a light and on a dark page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .curve import power

Document = dict[str, Any]

GREY = "#808080"  # text and lines: as far from white as from black
COLOURS = {
    "tbxd": "#e5484d",
    "tensorboardX": "#3b82f6",
    "torch": "#f08c2e",
    "csv.writer": "#8b8d98",
    "wandb": "#c99a00",
    "trackio": "#a855f7",
    "mlflow": "#0ea5a4",
    "aim": "#d6409f",
    "tf.summary": "#46a758",
}
WIDTH, HEIGHT, DAEMON = 9.0, 3.6, "daemon_cpu_us"
SETTINGS = {
    "svg.hashsalt": "tbxd",  # the same figures make the same file
    "svg.fonttype": "path",
    "font.size": 9,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw(documents: list[Document], folder: Path) -> dict[str, str]:
    """Draw what can be drawn of the documents.

    Returns:
        A question's name to the name of its file.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    with plt.rc_context(SETTINGS):
        for document in documents:
            if document["x"]:
                figure = _curves(plt, document)
            elif document["question"] == "add_scalar":
                figure = _bars(plt, document)
            else:
                continue
            names[document["question"]] = f"{document['question']}.svg"
            path = folder / names[document["question"]]
            figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
    return names


def _curves(plt: Any, document: Document) -> Any:
    """The caller's time, and beside it the CPU of all processes, against what grows."""
    names = {figure["name"] for figure in document["figures"]}
    xs = sorted({figure["x"] for figure in document["figures"]})
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, HEIGHT), sharex=True, sharey=True)
    for peer in document["columns"]:
        for axes, measures in ((left, ("caller_us",)), (right, ("trainer_cpu_us", DAEMON))):
            points = [
                (x, sum(document["summary"][f"{name}_{x:.0f}"][peer]["median"] for name in measures))
                for x in xs
                if peer in document["summary"][f"caller_us_{x:.0f}"]
            ]
            heavy = peer == document["columns"][0]
            style = {"color": COLOURS.get(peer, GREY), "lw": 2.4 if heavy else 1.3, "zorder": 3 if heavy else 2}
            axes.plot(*zip(*points, strict=True), marker="o", ms=4 if heavy else 3, label=peer, **style)
    if f"copy_us_{xs[0]:.0f}" in names:
        copies = [
            (x, values["median"])
            for x in xs
            for peer, values in document["summary"][f"copy_us_{x:.0f}"].items()
            if peer == document["columns"][0]
        ]
        left.plot(*zip(*copies, strict=True), ls=":", color=GREY, label="a bare copy")
    for axes, title in ((left, "caller's time per call, µs"), (right, "CPU of all processes per call, µs")):
        axes.set(xscale="log", yscale="log", xlabel=document["x"], title=title)
        axes.grid(visible=True)
        axes.tick_params(which="minor", bottom=False, left=False)
        axes.yaxis.set_major_formatter(lambda value, _: power(value) if value >= 1 else f"{value:g}")
        axes.yaxis.set_tick_params(labelleft=True)
    left.legend(*left.get_legend_handles_labels(), loc="center left", bbox_to_anchor=(2.25, 0.5))
    return figure


def _bars(plt: Any, document: Document) -> Any:
    """The caller's time and the CPU of trainer and helpers, of each peer."""
    peers = list(reversed(document["columns"]))
    summary = {name: [values[peer]["median"] for peer in peers] for name, values in document["summary"].items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.6 + 0.3 * len(peers)), sharey=True)
    colours = [COLOURS.get(peer, GREY) for peer in peers]
    left.barh(peers, summary["caller_us"], color=colours)
    right.barh(peers, summary["trainer_cpu_us"], color=colours)
    right.barh(peers, summary[DAEMON], left=summary["trainer_cpu_us"], color=colours, alpha=0.45)
    for axes, values in ((left, summary["caller_us"]), (right, summary["total_cpu_us"])):
        axes.set(xscale="log")
        axes.set_xlim(min(values) / 2, max(values) * 4)
        axes.xaxis.set_major_formatter(lambda value, _: power(value) if value >= 1 else f"{value:g}")
        axes.tick_params(which="minor", bottom=False)
        for index, value in enumerate(values):
            axes.annotate(f" {value:.3g}", (value, index), va="center", color=GREY)
    left.set_title("add_scalar: caller's time per call, µs")
    right.set_title("CPU per record, µs (pale: with daemon or helpers)")
    return figure
