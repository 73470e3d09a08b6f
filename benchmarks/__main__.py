"""``python -m benchmarks``: measure, print tables, and keep every single value as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from . import CURVES, QUESTIONS, harness, report
from .peers import PEERS, USUAL, MeasurementError
from .question import load

RESULTS = Path(__file__).parent / "results"
PLAIN_COLUMNS = 150  # where the output is no terminal


@click.command(help=__doc__)
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Measurements of each peer; without --all fewer of what takes long.",
)
@click.option("--only", type=click.Choice(QUESTIONS + CURVES), multiple=True, help="Only this question; repeatable.")
@click.option("--all", "everything", is_flag=True, help="The curves as well, and every peer that is installed.")
@click.option("--peer", "titles", type=click.Choice(list(PEERS)), multiple=True, help="Only this peer; repeatable.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="The folder of the JSON files.")
@click.option("--quick", is_flag=True, help="Tiny counts: shows that everything works, measures nothing.")
def main(
    rounds: int, only: tuple[str, ...], everything: bool, titles: tuple[str, ...], results: Path, quick: bool
) -> None:
    """Run the questions and write what was asked for."""
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_COLUMNS)
    results.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def progress(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.0f} s  {text}", err=True)

    documents = []
    for name in only or (QUESTIONS + CURVES if everything else QUESTIONS):
        question = load(name).only(titles or (PEERS if everything else USUAL))
        if not question.peers:
            continue
        try:
            document = harness.ask(
                question, rounds if everything else min(rounds, question.rounds_max), quick, progress
            )
        except MeasurementError as error:
            raise click.ClickException(str(error)) from error
        (results / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        documents.append(document)
        console.print(report.terminal(document))
    console.print(report.terminal_targets(documents))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
