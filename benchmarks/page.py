"""``make bench-page``: docs/BENCHMARKS.md, its plots and the README's table, from the results of a run.

The results themselves are kept beside the page (``benchmarks.json``), so that a page can be made again from them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from . import CURVES, QUESTIONS, plots, report
from .__main__ import RESULTS

ROOT = Path(__file__).parent.parent
ROUNDS = r"(?:one round|medians of [a-z0-9]+(?: (?:to|or) [a-z0-9]+)? interleaved rounds)"
PAGE, FIGURES, PLOTS = "BENCHMARKS.md", "benchmarks.json", "benchmarks"


@click.command(help=__doc__)
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path), help="The folder of the JSON files.")
@click.option("--docs", default=ROOT / "docs", type=click.Path(path_type=Path), help="Where the page is written.")
@click.option("--readme", default=ROOT / "README.md", type=click.Path(path_type=Path), help="Whose table is replaced.")
def main(results: Path, docs: Path, readme: Path) -> None:
    """Write the page."""
    paths = [results / f"{name}.json" for name in QUESTIONS + CURVES]
    documents = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not documents:
        raise click.ClickException(f"{results} has no results; `make bench` or `make bench-all` makes them")
    quick = [document["question"] for document in documents if document["quick"]]
    if quick and docs == ROOT / "docs":
        raise click.ClickException(f"these results are of a quick run and mean nothing: {', '.join(quick)}")
    pictures = {name: f"{PLOTS}/{file}" for name, file in plots.draw(documents, docs / PLOTS).items()}
    (docs / FIGURES).write_text(
        "[\n" + ",\n".join(json.dumps(document, ensure_ascii=False) for document in documents) + "\n]\n"
    )
    (docs / PAGE).write_text(report.markdown(documents, pictures))
    readme.write_text(replaced(readme.read_text(), report.short(documents, report.HEADLINE), report.rounds(documents)))


def replaced(readme: str, table: str, rounds: str) -> str:
    """The README with another short table, and what it says of its rounds before it."""
    text, count = re.subn(r"^\| \| tbxd .*?(?=\n\n)", lambda _: table, readme, flags=re.S | re.M)
    if count != 1:
        raise click.ClickException(f"the README has {count} tables of figures, not one")
    text, count = re.subn(ROUNDS, rounds, text)
    if count != 1:
        raise click.ClickException(f"the README says {count} times of how many rounds its figures are, not once")
    return text


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.page")
