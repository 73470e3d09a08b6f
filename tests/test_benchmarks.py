"""The benchmarks run, measure every peer, and refuse what is not what it says. No time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import QUESTIONS, harness, report
from benchmarks.peers import PEERS, MeasurementError
from benchmarks.question import Logged, load
from tbxd.events import schema
from tbxd.events.record import frame

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(
    not all(map(find_spec, ("torch", "tensorboard", "tensorboardX", "moviepy"))), reason="the peers are not installed"
)
def test_a_quick_run_has_every_peer_and_every_figure(tmp_path: Path) -> None:
    everything, page = tmp_path / "all.json", tmp_path / "page.md"
    subprocess.run(
        (
            *(sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1"),
            *("--results", tmp_path / "results", "--json", everything, "--markdown", page),
        ),
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    documents = json.loads(everything.read_text())
    assert set(documents) == set(QUESTIONS)
    for name, document in documents.items():
        question = load(name)
        assert json.loads((tmp_path / "results" / f"{name}.json").read_text()) == document
        assert document["quick"] is True
        assert set(document["versions"]) == ({"tbxd"} if name in ("troubled", "daemon_scalars") else set(PEERS))
        asked = [peer for peer in question.peers if peer not in document["left_out"]]
        assert set(document["left_out"]) <= {"disk full"}, "only mounting may not be permitted"
        assert document["machine"]["cores"] >= 1 and document["machine"]["python"]
        assert set(document["summary"]) == {figure.name for figure in question.figures}
        (row,) = document["rounds"]
        assert list(row) == asked == document["columns"]
        for peer, measured in row.items():
            assert set(measured["figures"]) == {figure.name for figure in question.figures}
            assert measured["records"] > 0, peer
            for figure in question.figures:
                none = (figure.name.startswith("daemon") and peer != "tbxd") or figure.name == "exceptions"
                if figure.name != "slow_calls":  # a matter of time: none is asserted
                    assert (measured["figures"][figure.name] > 0) != none, (peer, figure.name)
                assert figure.title in page.read_text()
    assert documents["add_scalar"]["rounds"][0]["tbxd"]["records"] == 2 * (load("add_scalar").quick["tbxd"] + 1)


def write_steps(folder: Path, steps: list[int]) -> None:
    folder.mkdir(parents=True)
    data = b""
    for step in steps:
        event = schema.Event(step=step)
        event.summary.value.add(tag="loss", simple_value=1.0)
        data += frame(event.SerializeToString())
    (folder / "events.out.tfevents.0000000001.host").write_bytes(data)


def test_a_measurement_whose_records_are_not_there_is_refused(tmp_path: Path) -> None:
    write_steps(tmp_path / "run", [0, 1, 2])
    assert harness.check_files(tmp_path, [Logged("run", "loss", "simple_value", 3)]) == 3
    for wrong in (
        [Logged("run", "loss", "simple_value", 4)],
        [Logged("run", "loss", "simple_value", 2)],
        [Logged("run", "loss", "histo", 3)],
        [Logged("other", "loss", "simple_value", 3)],
        [],
    ):
        with pytest.raises(MeasurementError):
            harness.check_files(tmp_path, wrong)


def test_a_flush_that_fails_is_no_measurement() -> None:
    class Late:
        def flush(self, timeout: float) -> bool:
            return False

    with pytest.raises(MeasurementError):
        PEERS["tbxd"].close(Late())


def test_ratios_are_taken_within_a_round() -> None:
    result = harness.summary({"tbxd": [1.0, 10.0, 2.0], "torch": [50.0, 100.0, 40.0]}, compared=True)
    assert result["torch"]["ratio"] == {"median": 20.0, "min": 10.0, "max": 50.0}
    assert result["torch"]["median"] == 50.0 and "ratio" not in result["tbxd"]
    assert "ratio" not in harness.summary({"tbxd": [0.0], "torch": [1.0]}, compared=True)["torch"]


def test_what_a_machine_does_not_permit_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "mount"
    mount.write_text("#!/bin/sh\nexit 32\n")
    mount.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    question = load("troubled")
    question = replace(question, peers={name: question.peers[name] for name in ("healthy", "disk full")})
    document = harness.ask(question, 1, True, lambda text: None)
    assert document["columns"] == ["healthy"] and document["left_out"].keys() == {"disk full"}
    assert "Left out: disk full, mounting" in report.markdown([document])
