"""What restarts and steps that come again hide: `tbxd check` says it, and shows it again in copies, for all readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import World, scalars, wait_for
from tb import LOADERS, board
from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import frame
from tbxd.tools.hidden_curves import REPEATED_MAX, Hidden
from test_check import VERSION, check, event, file
from test_successors import EVALUATE, LATE, TRAIN, beside, drained, life, of, shown


def copied(place: World, *arguments: object) -> tuple[dict[str, Any], Path]:
    """What check says of the log folder, and the folder with its copies and what they hide."""
    copies = place.root / "copies"
    code, answer = check(place, place.logdir, "--repair-into", copies, "--show-hidden", *arguments)
    assert code in (0, 1), answer
    return answer, copies


def test_what_each_restart_has_replaced_is_a_run_of_its_own_in_a_copy(place: World) -> None:
    place.serve()
    for number, begin, end in ((1, 0, 100), (2, 50, 120), (3, 30, 40)):
        life(place, TRAIN, number, begin, end)
        drained(place)
    assert shown(place.logdir) == {"run": of(1, 0, 30) + of(3, 30, 40)}
    code, answer = check(place, place.logdir)
    assert code == 0 and answer["hidden"] == 50 + 90 and answer["by"]["restart"]["tag"] == "loss"
    told = place.tbxd("check", str(place.logdir)).stdout
    assert "140 points" in told and "--show-hidden" in told and "resume='never'" in told

    before = {path: path.read_bytes() for path in place.logdir.rglob("*tfevents*")}
    answer, copies = copied(place)
    assert answer["shown_again"] == {"run/replaced-1": 50, "run/replaced-2": 90}
    assert shown(copies) == {
        "run": of(1, 0, 30) + of(3, 30, 40),
        "run/replaced-1": of(1, 50, 100),
        "run/replaced-2": of(1, 30, 50) + of(2, 50, 120),
    }
    assert {path: path.read_bytes() for path in place.logdir.rglob("*tfevents*")} == before
    code, answer = check(place, copies / "run" / "replaced-2")
    assert code == 0 and not answer["found"], "what is shown again is well"
    told = place.tbxd("check", str(place.logdir), "--repair-into", str(place.root / "more"), "--show-hidden").stdout
    assert "shown again in run/replaced-2: 90 points" in told
    assert place.tbxd("check", str(place.logdir), "--show-hidden").returncode == 2


def test_pictures_texts_and_histograms_are_shown_again_too(place: World) -> None:
    place.serve()
    script = """
        import os, signal, sys
        import numpy as np
        from tbxd_client import SummaryWriter
        life, begin = map(int, os.environ["GIVEN"].split())
        writer = SummaryWriter("logs/run")
        for step in range(begin, 6):
            writer.add_text("words", f"{life} {step}", step)
            writer.add_histogram("weights", np.arange(10 * life + step), step)
            writer.add_image("picture", np.full((3, 4, 4 + life), 9, np.uint8), step)
            writer.log({"a": life, "b": step}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    for told in ("1 0", "2 3"):
        place.run(script, environ={"GIVEN": told})
        drained(place)
    answer, copies = copied(place)
    assert answer["shown_again"] == {"run/replaced-1": 3 * 5}
    for loader in LOADERS:
        with board(copies, loader) as shows:
            run = "run/replaced-1"
            shows.until(lambda shows=shows: len(shows.scalars("run/replaced-1", "b")) == 3, loader)
            texts = [(step, text.tolist()) for step, text in shows.tensors(run, "words/text_summary", "text")]
            assert texts == [(step, [f"1 {step}".encode()]) for step in (3, 4, 5)]
            found = [(step, array[:, 2].sum()) for step, array in shows.tensors(run, "weights", "histograms")]
            assert found == [(step, 10 + step) for step in (3, 4, 5)]
            assert [(step, blobs[0]) for step, blobs in shows.blobs(run, "picture")] == [(s, b"5") for s in (3, 4, 5)]
            assert shows.scalars(run, "a") == [(step, 1.0) for step in (3, 4, 5)]


@pytest.mark.parametrize("writer", ["{}", "dict(purge_step=250)"])
def test_what_came_late_is_told_with_the_run_that_has_it(place: World, writer: str) -> None:
    """Everything is as it should be, and yet there is a run that somebody may wonder about."""
    place.serve()
    first = place.start(LATE, stdin=-1, stdout=-1, environ={"TBXD_ATTEMPT": "0", "TBXD_RUN_ID": "job"})
    assert first.stdout is not None and first.stdin is not None
    assert first.stdout.readline() == b"1260\n"
    result = place.run(LATE, environ={"LIFE": "2", "WRITER": writer, "TBXD_ATTEMPT": "1", "TBXD_RUN_ID": "job"})
    assert result.returncode == 0, result.stderr
    first.stdin.write(b"\n")
    first.stdin.close()
    first.wait()
    drained(place)
    found = shown(place.logdir)
    assert found["run"] == of(1, 0, 250) + of(2, 250, 2000)
    assert list(beside(found).values()) == [of(1, 1260, 1500)]
    code, answer = check(place, place.logdir)
    assert code == 0 and answer["found"]["late"] == 1 and answer["points_lost"] == 0 and "beside" not in answer["found"]
    (folder,) = set(found) - {"run"}
    assert answer["by"]["late"]["detail"] == folder.removeprefix("run/")
    told = place.tbxd("check", str(place.logdir)).stdout
    assert folder.removeprefix("run/") in told and "its successor had started" in told


def test_who_logs_beside_a_run_is_told_each_with_its_folder(place: World) -> None:
    place.serve()
    life(place, TRAIN, 1, 1000, 4001, 1000)
    for number in (2, 3):
        life(place, EVALUATE, number, 1500, 1501)
        drained(place)
    found = shown(place.logdir)
    answer = json.loads(place.tbxd("check", "--json", str(place.logdir)).stdout)
    told = [problem["detail"] for problem in answer["problems"] if problem["kind"] == "beside"]
    assert sorted(f"run/{name}" for name in told) == sorted(set(found) - {"run"}) and len(told) == 2
    assert answer["found"] == {"beside": 2}


def test_what_goes_back_without_a_word_is_shown_again_and_what_is_too_much_is_counted(place: World) -> None:
    file(
        place.logdir / "epochs",
        [VERSION, *(event("a", step, 10 * epoch + step) for epoch in range(3) for step in range(5))],
    )
    file(place.logdir / "no step", [VERSION, *(event("b", 0, call) for call in range(REPEATED_MAX + 5))])
    file(place.logdir / "once more", [VERSION, *(event("c", step, call) for step in range(9) for call in range(2))])
    answer, copies = copied(place)
    assert shown(copies / "epochs" / "repeated-1", "a") == {".": [(step, float(step)) for step in range(5)]}
    assert shown(copies / "epochs" / "repeated-2", "a") == {".": [(step, 10.0 + step) for step in range(5)]}
    assert shown(copies / "once more" / "repeated-1", "c") == {".": [(step, 0.0) for step in range(9)]}
    assert sum(answer["shown_again"].values()) + answer["hidden_left_out"] == answer["hidden"] == 10 + 104 + 9
    assert answer["hidden_left_out"] == 4


def test_a_run_of_that_name_is_left_alone_and_damage_is_none_in_the_copy(place: World) -> None:
    path = file(place.logdir, [VERSION, *(event("a", step) for step in (0, 1, 2, 1, 2, 3))])
    path.write_bytes(path.read_bytes() + b"garbage that is longer than a head" + event("a", 2))
    file(place.logdir / "repeated-1", [VERSION, event("a", 7)])
    answer, copies = copied(place)
    assert answer["found"].keys() >= {"length_checksum", "step_back"}
    assert answer["shown_again"] == {"repeated-2": 2, "repeated-3": 2}
    assert scalars(copies / "repeated-1")["a"] == [(7, 0.5)]
    assert [step for step, _ in scalars(copies / "repeated-3")["a"]] == [2, 3]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.booleans()), max_size=40))
def test_every_value_is_shown_in_one_place_and_each_run_goes_forward(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, int, bool]]
) -> None:
    """Whatever steps come in whatever order: nothing is lost, nothing is there twice, no folder goes back."""
    folder = tmp_path_factory.mktemp("drawn")
    records = [VERSION]
    for number, (tag, step, ends) in enumerate(drawn):
        if ends:
            for version in ("brain.Event:1", "", "brain.Event:2"):
                made = schema.Event(wall_time=1e9, **({"file_version": version} if version else {"step": step}))
                if not version:
                    made.summary.value.add(tag=tag, obsolete_old_style_histogram=b"")
                made.source_metadata.writer = "N~" + "A" * 15 + "ABC"[number % 3]
                records.append(frame(made.SerializeToString()))
        records.append(event(tag, step, number))
    hidden = Hidden([file(folder / "run", records)])
    found = list(hidden.write(folder / "run"))
    everywhere: list[tuple[str, int, float]] = []
    for name in found:
        for tag, points in scalars(folder / "run" / name.name).items():
            assert [step for step, _ in points] == sorted({step for step, _ in points})
            everywhere += [(tag, *point) for point in points]
    shows: dict[str, list[tuple[int, float]]] = {}
    for number, (tag, step, _) in enumerate(drawn):
        shows[tag] = [point for point in shows.get(tag, []) if point[0] < step] + [(step, float(number))]
    everywhere += [(tag, *point) for tag, points in shows.items() for point in points]
    assert sorted(everywhere) == sorted((tag, step, float(number)) for number, (tag, step, _) in enumerate(drawn))
    assert sum(one.points for one in found) == len(drawn) - sum(map(len, shows.values())) and not hidden.left_out


def test_a_folder_that_cannot_be_written_is_said(place: World) -> None:
    file(place.logdir, [VERSION, *(event("a", step) for step in (0, 1, 0))])
    (place.root / "there").mkdir()
    (place.root / "there" / "something").touch()
    result = place.tbxd("check", str(place.logdir), "--repair-into", str(place.root / "there"), "--show-hidden")
    assert result.returncode == 2 and "is not empty" in result.stderr
    wait_for(lambda: not (place.root / "there" / "repeated-1").exists(), "nothing to be written")
