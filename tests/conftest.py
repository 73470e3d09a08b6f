"""Fixtures: each test has a world of its own, and nothing of it is left running."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from harness import World, world

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """A world with its own runtime folder, spool and log folder."""
    with world(tmp_path / "world") as result:
        yield result
