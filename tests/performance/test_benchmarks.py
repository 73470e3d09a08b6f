"""The benchmarks run, measure every peer, and refuse what is not what it says. No time is asserted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import CURVES, QUESTIONS, curve, environment, event_files, harness, meter, page, report, targets
from benchmarks.peers import PEERS, USUAL, MeasurementError, Peer
from benchmarks.question import Logged, load
from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import frame

ROOT = Path(__file__).parents[2]


def asked(tmp_path: Path, *options: str) -> dict[str, harness.Document]:
    """The documents of a quick run, by question."""
    subprocess.run(
        (*(sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1"), *("--results", tmp_path), *options),
        cwd=ROOT,
        check=True,
        timeout=600,
    )
    return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}


@pytest.mark.long
@pytest.mark.skipif(
    not all(map(find_spec, ("torch", "tensorboard", "tensorboardX", "moviepy"))), reason="the peers are not installed"
)
def test_a_quick_run_has_every_peer_and_every_figure(tmp_path: Path) -> None:
    documents = asked(tmp_path, "--only", "add_scalar", "--only", "add_histogram", "--only", "other_calls")
    for name, document in documents.items():
        question = load(name).only(USUAL)
        assert document["quick"] is True and document["machine"]["cores"] >= 1 and document["machine"]["python"]
        assert set(document["left_out"]) == ({"csv.writer"} if name == "add_histogram" else set())
        (row,) = document["rounds"]
        assert list(row) == document["columns"] == [peer for peer in question.peers if peer not in document["left_out"]]
        assert set(document["versions"]) == set(row)
        for peer, measured in row.items():
            assert set(measured["figures"]) == {figure.name for figure in question.figures} == set(document["summary"])
            assert measured["records"] > 0, peer
            for figure in question.figures:
                none = "daemon" in figure.name and peer != "tbxd"
                assert (measured["figures"][figure.name] > 0) != none, (peer, figure.name)
    assert documents["add_scalar"]["rounds"][0]["tbxd"]["records"] == 2 * (load("add_scalar").quick["tbxd"] + 1)


@pytest.mark.long
@pytest.mark.skipif(not all(map(find_spec, ("matplotlib", "moviepy"))), reason="what it needs is not installed")
def test_every_question_is_answered_and_on_the_page(tmp_path: Path) -> None:
    documents = asked(tmp_path / "results", "--all", "--peer", "tbxd", "--peer", "csv.writer")
    assert set(documents) == set(QUESTIONS + CURVES)
    readme, docs = tmp_path / "README.md", tmp_path / "docs"
    docs.mkdir()
    readme.write_text("medians of two interleaved rounds\n\n| | tbxd 0 |\n|---|---:|\n| old | 1 |\n\nafter\n")
    page_made(tmp_path / "results", docs, readme)
    text = (docs / "BENCHMARKS.md").read_text()
    assert {
        document["question"]: document for document in json.loads((docs / "benchmarks.json").read_text())
    } == documents
    for name, document in documents.items():
        question = load(name)
        assert document["title"] in text and document["columns"][0] == question.base
        assert set(document["left_out"]) <= {"csv.writer", "disk full"}
        for figure in question.figures:
            if document["summary"][figure.name]:
                assert (figure.curve or figure.title) in text
        if name in CURVES:
            assert (docs / "benchmarks" / f"{name}.svg").stat().st_size > 1000
            assert f"(benchmarks/{name}.svg)" in text
    (table,) = re.findall(r"^\| \| tbxd .*?\n\n", text, re.S | re.M)
    first = report.short(list(documents.values()), report.HEADLINE)
    assert set(first.splitlines()) <= set(table.splitlines()) and len(first.splitlines()) > 3
    assert readme.read_text() == f"one round\n\n{first}\n\nafter\n"


def page_made(results: Path, docs: Path, readme: Path) -> None:
    subprocess.run(
        (*(sys.executable, "-m", "benchmarks.page"), *("--results", results, "--docs", docs, "--readme", readme)),
        cwd=ROOT,
        check=True,
        timeout=120,
    )


@pytest.mark.skipif(
    not (ROOT / "docs" / "benchmarks.json").exists(), reason="the page was made before its figures were kept beside it"
)
def test_the_page_is_what_its_figures_make_of_it() -> None:
    documents = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    text = (ROOT / "docs" / "BENCHMARKS.md").read_text()
    pictures = dict(re.findall(r"\((benchmarks/(\w+)\.svg)\)", text))
    assert text == report.markdown(documents, {name: path for path, name in pictures.items()})


@pytest.mark.parametrize("peer", [peer for peer in PEERS.values() if peer.environment], ids=lambda peer: peer.name)
def test_every_tracker_has_its_versions_written_down(peer: Peer) -> None:
    pinned = (ROOT / "benchmarks" / "environments" / f"{peer.environment}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(\+\w+)?", line) for line in pinned)
    names = {line.partition("==")[0].replace("_", "-").lower() for line in pinned}
    assert names >= {*peer.packages, *environment.BESIDE}


@pytest.mark.parametrize("peer", [peer for peer in PEERS.values() if peer.environment], ids=lambda peer: peer.name)
def test_what_a_tracker_logs_is_found_again(peer: Peer, tmp_path: Path) -> None:
    if not peer.installed:
        pytest.skip("`make bench-peers` installs it")
    document = harness.ask(load("log_values").only([peer.name]), 1, True, print)
    assert document["columns"] == [peer.name], document["left_out"]


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
    assert "Left out: disk full, mounting" in report.markdown([document], {})


def test_points_are_counted_up_to_a_torn_event(tmp_path: Path) -> None:
    write_steps(tmp_path / "run", [0, 1, 2])
    (path,) = (tmp_path / "run").iterdir()
    whole = path.read_bytes()
    assert event_files.points(tmp_path) == {"loss": 3}
    ends = [end + event_files.AFTER for _, end in event_files.events(whole)]
    assert len(ends) == 3 and ends[-1] == len(whole)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert event_files.points(tmp_path)["loss"] == sum(end <= size for end in ends)
    path.write_bytes(whole + bytes(100))  # what is allocated and not written yet
    assert event_files.points(tmp_path) == {"loss": 3}


def test_a_curve_ends_where_the_next_point_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(curve.time, "monotonic", lambda: now)

    def point(x: int) -> tuple[dict[str, float], list[Logged]]:
        nonlocal now
        now += x * curve.SECONDS_MAX / 150
        return {"us": x}, []

    assert curve.climb((1, 10, 100, 1000), point, unlimited=False).figures == {"us_1": 1, "us_10": 10, "us_100": 100}
    assert len(curve.climb((1, 10, 100, 1000), point, unlimited=True).figures) == 4


def test_the_time_of_helper_processes_is_counted_while_they_live_and_afterwards() -> None:
    helper = meter.HelperMeter(PEERS["tensorboardX"])
    before = helper.cpu()
    inner = "import time\nwhile time.process_time() < 0.2: pass"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); print(); input()"
    child = subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert child.pid in meter.descendants(os.getpid())
    living = helper.cpu() - before
    child.communicate(b"\n")
    assert 0.19 <= living <= helper.cpu() - before
    assert child.pid not in meter.descendants(os.getpid())


def test_a_target_is_met_or_not() -> None:
    summary = harness.summary({"tbxd": [0.5], "tensorboardX": [25.0], "torch": [50.0]}, compared=True)
    document = {"figures": [{"name": "caller_us", "unit": "µs"}], "summary": {"caller_us": summary}}
    lines = [(line.measured, line.met) for line in targets.lines({"add_scalar": document})]
    assert lines == [("0.5 µs", True), ("50" + targets.TIMES, False), ("100" + targets.TIMES, True)]


def test_a_case_may_be_no_more_than_so_many_times_another() -> None:
    summary = harness.summary({"zero": [0.5, 1.0, 2.0], "reduce": [0.5, 1.5, 2.1]}, True, "zero")
    document = {"figures": [{"name": "caller_us", "unit": "µs"}], "summary": {"caller_us": summary}}
    (line,) = targets.lines({"ranks": document})
    assert (line.target, line.measured, line.met) == (f"at most 1.1{targets.TIMES}", f"1.05{targets.TIMES}", True)


def test_ranks_are_measured_in_every_policy(tmp_path: Path) -> None:
    document = asked(tmp_path, "--only", "ranks")["ranks"]
    question = load("ranks")
    (row,) = document["rounds"]
    assert list(row) == ["zero", "one process", "reduce", "all"] == list(question.peers)
    steps = 1 + (question.quick["blocks"] + 1) * question.quick["steps"]
    assert [row[case]["records"] for case in row] == [20 * steps, 20 * steps, 20 * steps, 4 * 20 * steps]
    for case, measured in row.items():
        assert all(value > 0 for value in measured["figures"].values())
        assert ("other_us" in measured["figures"]) == (case != "one process")
    assert report.NONE in next(line for line in report.rows(document, " ") if line[0].startswith("another rank"))


def test_a_target_that_is_missed_after_a_pause_says_so() -> None:
    values = {"loop_ms_1e6": 0.4, "loop_copy_ms_1e6": 0.25, "caller_ms_1e6": 0.9, "copy_ms_1e6": 0.3}
    document = {
        "figures": [{"name": name, "unit": "ms"} for name in values],
        "summary": {name: harness.summary({"tbxd": [value]}, compared=True) for name, value in values.items()},
    }
    lines = [(line.measured, line.paused, line.met) for line in targets.lines({"add_histogram": document})]
    times = targets.TIMES
    assert lines == [("0.4 ms", "0.9 ms, more", True), ("1.6" + times, "3" + times + ", more", True)]


def test_a_curve_is_flat_or_not() -> None:
    points = {10: 2.0, 100: 1.0, 1000: 2.5}
    document = {
        "x": "records",
        "figures": [{"name": f"caller_us_{x}", "unit": "µs", "x": x} for x in points],
        "summary": {f"caller_us_{x}": harness.summary({"tbxd": [value]}, True) for x, value in points.items()},
    }
    (line,) = targets.lines({"growth_records": document})
    assert (line.measured, line.met, line.remark) == ("2.5" + targets.TIMES, False, "1 µs at 100, 2.5 µs at 1,000")


def test_every_target_is_of_a_figure_that_is_measured() -> None:
    for target in targets.TARGETS:
        question = load(target.question)
        names = {figure.name.rpartition("_")[0] if target.curve else figure.name for figure in question.figures}
        others = {target.pause, target.pause_over, (target.over or [""])[0], (target.beside or [""])[0]} - {""}
        assert {target.figure, *others} <= names, target.title
        assert target.case in {"", *question.peers} and set(target.times) <= set(PEERS), target.title


def test_the_number_of_rounds_in_the_readme_is_that_of_the_results() -> None:
    def of(*counts: int) -> list[harness.Document]:
        return [{"question": "add_scalar", "rounds": [{}] * count} for count in counts]

    assert report.rounds(of(2, 5)) == "medians of two to five interleaved rounds"
    assert report.rounds(of(3)) == "medians of three interleaved rounds" and report.rounds(of(1, 1)) == "one round"
    table = "| | tbxd 0 |\n|---|"
    for text in ("medians of two or three interleaved rounds", *(report.rounds(of(n)) for n in (1, 3, 12))):
        before, after = (f"same machine, {words};\n\n{table}\n\nafter" for words in (text, "one round"))
        assert page.replaced(before, table, "one round") == after
