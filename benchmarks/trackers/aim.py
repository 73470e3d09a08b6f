"""aim, with its repository in the run's folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ |= {"AIM_UI_TELEMETRY_ENABLED": "0"}
import aim


class SummaryWriter:
    """One run of aim."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._run = aim.Run(repo=folder)
        self._track = self._run.track
        self.close = self._run.close

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._track(value, tag, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._track(values, step=step)

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        self._track(aim.Distribution(values), tag, step)

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str = "HWC") -> None:
        self._track(aim.Image(picture), tag, step)

    def flush(self) -> None:
        pass  # there is none for what it tracks


def kept(folder: Path) -> Counter[str]:
    """Points by tag."""
    repository = aim.Repo(str(folder))
    found: Counter[str] = Counter()
    for run in repository.list_all_runs():

        def tree(name: str, *path: str, run: str = run) -> Any:
            # What a reader usually gets is an index that is not there for a run that was killed.
            whole = repository.request_tree(name, run, read_only=True, skip_read_optimization=True)
            for part in (name, *path, "chunks", run):
                whole = whole.subtree(part)
            return whole

        series = {1: tree("seqs"), 2: tree("seqs", "v2")}
        for context, tags in tree("meta").get("traces", {}).items():
            for tag, about in tags.items():
                found[tag] += sum(1 for _ in series[about["version"]].subtree((context, tag)).array("val").items())
    return found
