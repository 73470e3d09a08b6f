"""Several ranks log into one run: one point for each tag and step, exact, once, whatever is killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranks_world import Daemon, Rank
from tbxd.events.file import read_events
from tbxd.ranks import reduction
from tbxd_client.event_names import event_files


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags are decided at once, so that nothing has to wait for a clock."""
    monkeypatch.setattr(reduction, "JOIN_SECONDS", 0.0)


def points(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """What the event files of a folder hold, in their order."""
    result: dict[str, list[tuple[int, float]]] = {}
    for name in event_files(directory):
        for event in read_events(directory / name):
            for value in event.summary.value:
                result.setdefault(value.tag, []).append((event.step, value.simple_value))
    return result


def job(directory: Path, world: int, seconds: float = 30.0) -> tuple[list[Rank], Daemon]:
    ranks = [Rank(directory, rank, world) for rank in range(world)]
    return ranks, Daemon(directory, ranks, seconds)


def test_a_point_is_the_mean_and_the_sides_have_the_spread(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ranks, daemon = job(run, 4)
    values = np.random.default_rng(1).normal(size=(50, 4))
    for step in range(50):
        for rank in ranks:
            rank.scalar("loss", step, float(values[step, rank.rank]))
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    mean, low, high, spread = (points(run / side) for side in (".", "ranks/min", "ranks/max", "ranks"))
    steps = np.arange(50)
    for found, expected in (
        (mean["loss"], values.mean(axis=1)),
        (low["loss"], values.min(axis=1)),
        (high["loss"], values.max(axis=1)),
        (spread["tbxd/ranks/std/loss"], values.std(axis=1)),
        (spread["tbxd/ranks/lowest/loss"], values.argmin(axis=1)),
        (spread["tbxd/ranks/highest/loss"], values.argmax(axis=1)),
    ):
        assert [step for step, _ in found] == steps.tolist()
        np.testing.assert_array_max_ulp(np.array([v for _, v in found], np.float32), expected.astype(np.float32), 1)
    assert all(rank.acked == len(rank.records) for rank in ranks)
