"""trackio, on this machine only."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
import trackio

PROJECT = "benchmark"


class SummaryWriter:
    """One run of trackio. All are in one database, in the folder ``TRACKIO_DIR``."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._run = trackio.init(project=PROJECT, name=Path(folder).name, embed=False)
        self._log = self._run.log
        self.close = self._run.finish

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._log({tag: value}, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._log(values, step)

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        self._log({tag: trackio.Histogram(values)}, step)

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str = "HWC") -> None:
        self._log({tag: trackio.Image(picture)}, step)

    def flush(self) -> None:
        pass  # there is none


def kept(folder: Path) -> Counter[str]:
    """Points by tag."""
    database = Path(os.environ["TRACKIO_DIR"]) / f"{PROJECT}.db"
    if not database.exists():
        return Counter()
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select metrics from metrics where run_name = ?", (folder.name,))
        return Counter(tag for (text,) in rows for tag in json.loads(text))
