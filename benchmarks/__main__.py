"""``python -m benchmarks``: measure, print tables, and keep every single value as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from . import QUESTIONS, harness, report
from .peers import MeasurementError
from .question import load

RESULTS = Path(__file__).parent / "results"
PLAIN_COLUMNS = 150  # where the output is no terminal


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Measurements of each peer.")
@click.option("--only", type=click.Choice(QUESTIONS), multiple=True, help="Only this question; may be repeated.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="All results in one file.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="The tables as a page of Markdown.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="The folder of the JSON files.")
@click.option("--quick", is_flag=True, help="Tiny counts: shows that everything works, measures nothing.")
def main(
    rounds: int, only: tuple[str, ...], json_file: Path | None, markdown: Path | None, results: Path, quick: bool
) -> None:
    """Run the questions and write what was asked for."""
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_COLUMNS)
    results.mkdir(parents=True, exist_ok=True)
    documents = []
    for name in only or QUESTIONS:
        try:
            document = harness.ask(load(name), rounds, quick, lambda text: click.echo(text, err=True))
        except MeasurementError as error:
            raise click.ClickException(str(error)) from error
        (results / f"{name}.json").write_text(_json(document))
        documents.append(document)
        console.print(report.terminal(document))
    if json_file is not None:
        json_file.write_text(_json({document["question"]: document for document in documents}))
    if markdown is not None:
        markdown.write_text(report.markdown(documents))


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
