"""Fixtures: each test has a world of its own, and nothing of it is left running."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from harness import World, world

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
