"""The form of the pages: an opening with the reader, lines that fit a terminal, links with a target."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
COLUMNS = 120
OPENING_LINES = 4  # who a page is for, and what it answers
WRITTEN = [*sorted(name for name in PAGES if name.startswith("docs/")), "CONTRIBUTING.md"]


def without_code(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.S | re.M)


def slug(heading: str) -> str:
    """The anchor that GitHub and mkdocs make of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_code(path.read_text()), re.M)}


def links(path: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", without_code(path.read_text()))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def wrong_links(path: Path) -> list[str]:
    found = []
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(name: str) -> None:
    assert wrong_links(PAGES[name]) == []


def test_a_link_to_no_file_or_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `tbxd` page\n[1](page.md#a-tbxd-page) [2](#none) [3](none.md)\n```\n[4](none.md)\n```\n")
    assert wrong_links(page) == ["#none", "none.md"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_begins_with_who_it_is_for(name: str) -> None:
    title, empty, *text = PAGES[name].read_text().splitlines()
    opening = text[: text.index("")]
    assert title.startswith("# ") and not empty
    assert opening[0].startswith("For ") and len(opening) <= OPENING_LINES, opening


@pytest.mark.parametrize("name", WRITTEN)
def test_lines_of_a_page_fit_a_terminal(name: str) -> None:
    lines = without_code(PAGES[name].read_text()).splitlines()
    long = [line for line in lines if len(line) > COLUMNS and not line.startswith(("|", "!["))]
    assert not long, f"break these after {COLUMNS} columns"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_list_in_a_list_is_one_for_every_reader_of_markdown(name: str) -> None:
    text = without_code(PAGES[name].read_text())
    shallow = re.findall(r"^ {1,3}(?:[-*]|\d+\.) .*$", text, re.M)
    assert not shallow, "indent these by 4 spaces: mkdocs takes fewer for the outer list"
    joined = re.findall(r"^(?![-*|#> ]|\d+\. )\S.*\n(?:[-*]|\d+\.) .*$", text, re.M)
    assert not joined, "an empty line comes before a list: mkdocs takes it for the paragraph otherwise"


@pytest.mark.long
def test_a_link_to_nothing_ends_the_build_of_the_site(tmp_path: Path) -> None:
    """As `make docs` builds it; `--quiet` would hide the warnings that `--strict` counts."""
    recipe = next(line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if "mkdocs build" in line)
    command = recipe.replace("$(BIN)", str(Path(sys.executable).parent))
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))

    def build() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)

    built = build()
    assert built.returncode == 0 and (tmp_path / "build" / "site" / "index.html").exists(), built.stderr
    page = tmp_path / "docs" / "SCALE.md"
    whole = page.read_text()
    for link in ("NOWHERE.md", "CLI.md#nowhere"):
        page.write_text(f"{whole}\n[a page]({link})\n")
        assert build().returncode != 0, link
