"""A row of ``csv.writer`` for each scalar: the floor, what anybody would write by hand."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..peers import NotPossible


class SummaryWriter:
    """Rows of wall time, tag, step and value."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = open(Path(folder) / "scalars.csv", "a", newline="")  # noqa: SIM115 - closed by close()
        self._row = csv.writer(self._file).writerow
        self.flush = self._file.flush
        self.close = self._file.close

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._row((time.time(), tag, step, value))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self._row((time.time(), tag, step, value))

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        raise NotPossible("a row has no histograms")

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str = "HWC") -> None:
        raise NotPossible("a row has no pictures")


def kept(folder: Path) -> Counter[str]:
    """Points by tag."""
    with open(folder / "scalars.csv", newline="") as file:
        return Counter(row[1] for row in csv.reader(file) if len(row) == 4 and row[3])
