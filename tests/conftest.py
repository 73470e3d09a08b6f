"""Fixtures: each test has a world of its own, and nothing of it is left running. Which tests run in one worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

sys.path.insert(0, os.path.dirname(__file__))
# Some use what others have: their names are unique.
sys.path.extend(os.path.join(sys.path[0], folder) for folder in ("unit", "process", "faults", "compatibility"))

from harness import World, world

# Containers often forbid bytecode files. Then each of the thousands of processes here compiles tbxd anew, which is half
# of its processor time: 0.50 s for a daemon's imports instead of 0.24 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# For `make mutants`: that an example fails is enough; the smallest one is looked for much longer than the first.
hypothesis.settings.register_profile("slips", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = frozenset((Path(__file__).parent / "long_tests.txt").read_text().splitlines())


@pytest.hookimpl(tryfirst=True)  # before `-m` is looked at
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of `LONG`."""
    name = f"{item.path.relative_to(Path(__file__).parent)}::{getattr(item, 'originalname', item.name)}"
    if name in LONG:
        item.add_marker(pytest.mark.long)


@pytest.hookimpl(tryfirst=True)  # before that of pytest-xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a worker of pytest-xdist: tests that share a fixture of their module go to one of them, which makes it once,
    and what takes long begins first, so that nobody waits for it at the end."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        found: Any = item
        shared = [
            name
            for name, made in found._fixtureinfo.name2fixturedefs.items()
            if made[-1].scope == "module" and made[-1].baseid.endswith(".py")
        ]
        if shared and item.get_closest_marker("xdist_group") is None:
            made_of = getattr(found, "callspec", None)
            chosen = [str(made_of.indices[name]) for name in sorted(shared) if made_of and name in made_of.params]
            item.add_marker(pytest.mark.xdist_group("-".join((item.path.stem, *chosen))))
        group = _group(item)
        if group is not None and hasattr(found, "_id"):
            # pytest-xdist 3.8 writes the group behind the name, where pytest 9.2 does not look: no group kept together.
            found._id = type(found._id).parse(f"{item.nodeid}@{group}")
    groups = {_group(item) for item in items if item.get_closest_marker("long")} - {None}
    # A group stays in its order: its tests share what they look at, and the last of them may end it.
    items.sort(key=lambda item: item.get_closest_marker("long") is None and _group(item) not in groups)


def _group(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("xdist_group")
    return None if marker is None else marker.args[0]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    gallery = sys.modules.get("gallery")
    if gallery is not None and os.environ.get("TBXD_PROGRAM_TABLE"):
        terminalreporter.write_sep("-", "programs")
        terminalreporter.write_line(gallery.table())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """A world with its own runtime folder, spool and log folder."""
    with world(tmp_path / "world") as result:
        yield result
