"""Odd arguments of every method never stop training, the daemon or whoever reads the run.

`odd_calls.py` makes some 12,000 calls: every place where a value goes, with a hundred odd ones; odd tags, steps, times
and colours for each method. Each raises TypeError or ValueError and logs nothing, or is written or counted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import World, events, scalars, world
from tb import LOADERS, board

HERE = str(Path(__file__).parents[1])
RUN = f"import sys; sys.path.insert(0, {HERE!r}); import odd_calls; odd_calls.main(sys.argv[1])"
REASONS = {"too_large", "no_finite_values", "bad_bins", "no_values", "bad_record"}  # why a record may be refused


class Run:
    """What the program has said, and where it was."""

    def __init__(self, place: World, folder: str, stdout: str, stderr: str) -> None:
        self.place, self.folder, self.stderr = place, place.logdir / folder, stderr
        self.said: dict[str, Any] = json.loads(stdout)


def _run(place: World, folder: str, **environ: str) -> Run:
    result = place.run(RUN, f"logs/{folder}", environ=environ, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return Run(place, folder, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The calls with wrong arguments raising, as they do by default."""
    with world(tmp_path_factory.mktemp("odd") / "world") as place:
        place.serve()
        yield _run(place, "strict")


@pytest.fixture(scope="module")
def lenient(strict: Run) -> Run:
    """The same with ``TBXD_STRICT`` off, and the same daemon."""
    return _run(strict.place, "lenient", TBXD_STRICT="0")


def test_every_call_raises_type_error_or_value_error_or_is_accepted_and_none_does_both(strict: Run) -> None:
    said = strict.said
    assert said["wrong"] == {}
    assert said["made"] > 10_000 and 1000 < len(said["raised"]) < said["made"]


def test_what_is_raised_says_what_is_wrong(strict: Run) -> None:
    for what, message in strict.said["raised"].items():
        kind, _, words = message.partition(": ")
        assert kind in ("TypeError", "ValueError", "UnicodeEncodeError") and len(words.split()) > 3, (what, message)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", message), (what, message)


def test_no_warning_of_numpy_is_heard_and_ours_are_few(strict: Run) -> None:
    assert "RuntimeWarning" not in strict.stderr
    assert strict.stderr.count("tbxd: ") < 10


@pytest.mark.parametrize("name", ["strict", "lenient"])
def test_accepted_is_written_and_dropped_and_the_daemon_lives(
    strict: Run, name: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(name)
    status = run.place.status()
    assert status is not None and status["refused_messages"] == 0
    found = status["runs"][str(run.folder)]
    assert found["pending"] == 0 and found["error"] == ""
    assert found["accepted"] == found["written"] + sum(found["dropped"].values())
    assert set(found["dropped"]) - {"bad_argument"} <= REASONS, "nothing that the daemon did not foresee"
    assert status["totals"]["pending"] == 0
    stats = run.said["stats"]
    assert stats["accepted"] == stats["written"] + sum(stats["dropped"].values())
    assert set(found["dropped"]) == set(stats["dropped"])


def test_everything_is_below_the_log_folder_and_the_files_are_whole(strict: Run) -> None:
    place = strict.place
    files = list(place.root.rglob("*tfevents*"))
    assert len(files) > 20 and all(place.logdir in path.parents for path in files)
    assert not [path for path in place.root.rglob("*") if re.search("[\x00-\x1f\x7f]", path.name)]
    for folder in {path.parent for path in files}:
        for event in events(folder):
            assert np.isfinite(event.wall_time)
            for value in event.summary.value:
                assert not re.search("[\x00-\x1f\x7f]", value.tag)
    assert scalars(strict.folder)["last"] == [(1, 1.0)]


@pytest.mark.parametrize("loader", LOADERS)
def test_both_loaders_read_to_the_end(strict: Run, lenient: Run, loader: str) -> None:
    with board(strict.place.logdir, loader) as shown:
        for run in ("strict", "lenient"):
            shown.until(lambda run=run: shown.scalars(run, "last"), "the last scalar")
            assert shown.scalars(run, "first") == [(1, 1.0)]
            for plugin in ("images", "histograms", "text", "pr_curves", "mesh"):
                assert len(shown.tags(plugin)[run]) > 5, plugin


def test_with_strictness_off_nothing_raises_and_what_would_have_is_counted(strict: Run, lenient: Run) -> None:
    assert lenient.said["raised"] == {} and lenient.said["wrong"] == {}
    stats, before = lenient.said["stats"], strict.said["stats"]
    assert stats["dropped"].pop("bad_argument") == len(strict.said["raised"])
    assert stats["dropped"] == before["dropped"]
    assert (stats["written"], stats["accepted"]) == (before["written"], before["accepted"] + len(strict.said["raised"]))


def test_with_strictness_off_each_method_says_once_for_each_kind_of_error_what_was_wrong(lenient: Run) -> None:
    said = re.findall(
        r"^tbxd: (\w+): .*such calls are dropped and counted \(TBXD_STRICT is off\)$", lenient.stderr, re.M
    )
    assert 20 < len(said) <= 2 * len(set(said))
    assert lenient.stderr.count("TBXD_STRICT") == len(said)
