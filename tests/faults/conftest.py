"""Fault tests: `make test` and `make test-all` run a selection, `make faults` all of them and prints the table."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if report.lines and os.environ.get("TBXD_FAULT_TABLE"):
        terminalreporter.write_sep("-", f"faults (TBXD_SEED={os.environ.get('TBXD_SEED', '1')})")
        terminalreporter.write_line(report.table())


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of all random choices of the fault tests."""
    return int(os.environ.get("TBXD_SEED", "1"))
