"""The list of slips: small changes of the kind that a refactoring makes, each of which some test has to notice.

Each ``*.toml`` beside this module has tables ``[[slip]]``:

- ``file``: the module, by its path in the repository.
- ``old``, ``new``: the text that is replaced, which occurs exactly once in the file, and what takes its place.
- ``seen``: what a user would see of it.
- ``tests``: the tests that have to notice, as ``test_module.py`` or ``test_module.py::test_name``. Test modules have
  unique names, so no folder is given.

``known.toml`` has those that no test noticed when slips were made for the first time. All of them are to be noticed by
now, and they do not count for the share.

``pure.toml`` has tables ``[[module]]`` instead: modules without I/O, for which slips are generated (`slip_operators`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
GENERATED = "pure.toml"
KNOWN = "known"


@dataclass(frozen=True)
class Slip:
    """One change of one file. ``begin`` and ``end``: where it is, in characters; ``group``: the list that has it."""

    group: str
    file: str
    begin: int
    end: int
    new: str
    seen: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.begin] + self.new + text[self.end :]

    def describe(self, text: str) -> str:
        """The change on one line: file, line, old and new text."""
        line = text.count("\n", 0, self.begin) + 1
        old, new = (" ".join(part.split()) for part in (text[self.begin : self.end], self.new))
        return f"{self.file}:{line}: {old} -> {new or '(nothing)'}"


def tables(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of a list."""
    with open(path, "rb") as file:
        return tomllib.load(file)


def lists() -> list[Path]:
    """The lists of slips that are made by hand."""
    return sorted(path for path in FOLDER.glob("*.toml") if path.name != GENERATED)


def by_hand(root: Path = ROOT) -> list[Slip]:
    """The slips that are made by hand.

    Raises:
        ValueError: the old text of one does not occur exactly once in its file.
    """
    slips = []
    texts: dict[str, str] = {}
    for path in lists():
        for entry in tables(path)["slip"]:
            file, old = entry["file"], entry["old"]
            if file not in texts:
                texts[file] = (root / file).read_text()
            count = texts[file].count(old)
            if count != 1:
                raise ValueError(f"{path.name}: {old!r} occurs {count} times in {file}")
            begin = texts[file].index(old)
            slips.append(
                Slip(path.stem, file, begin, begin + len(old), entry["new"], entry["seen"], tuple(entry["tests"]))
            )
    return slips


def paths_of(names: tuple[str, ...], root: Path = ROOT) -> list[str]:
    """The tests by their paths in the repository, as pytest takes them.

    Raises:
        ValueError: a module is not there, or its name is not unique.
    """
    paths = []
    for name in names:
        module, separator, test = name.partition("::")
        found = sorted((root / "tests").rglob(module))
        if len(found) != 1:
            raise ValueError(f"{name}: {len(found)} test modules of that name")
        paths.append(f"{found[0].relative_to(root)}{separator}{test}")
    return paths
