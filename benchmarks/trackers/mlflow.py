"""mlflow, with its store of plain files (which it has to be told to allow: its default is a database, and slower)."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..peers import NotPossible

os.environ |= {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient


class SummaryWriter:
    """One run of mlflow."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=Path(folder).absolute().as_uri())
        self._run = self._client.create_run(self._client.create_experiment("benchmark")).info.run_id

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._client.log_metric(self._run, tag, value, step=step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(tag, value, now, step) for tag, value in values.items()])

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        raise NotPossible("mlflow has no histograms")

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str = "HWC") -> None:
        self._client.log_image(self._run, picture, key=tag, step=step)

    def flush(self) -> None:
        pass  # a call returns when its file is written

    def close(self) -> None:
        self._client.set_terminated(self._run)


def kept(folder: Path) -> Counter[str]:
    """Points by tag."""
    found: Counter[str] = Counter()
    for metrics in folder.glob("*/*/metrics"):
        for path in metrics.rglob("*"):
            if path.is_file():
                found[str(path.relative_to(metrics))] += path.read_bytes().count(b"\n")
    for path in folder.glob("*/*/artifacts/images/*.png"):
        found[path.name.partition("+")[0]] += 1
    return found
