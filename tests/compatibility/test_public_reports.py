"""What users reported of other writers, tried on this one: each call shows what was logged, or says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness import World, events, scalars, wait_for
from tb import LOADERS, board
from tbxd.encode.embedding import squared
from tbxd.encode.histogram import histogram_of
from tbxd_client import SummaryWriter
from tbxd_client.values.arrays import to_number, to_step
from tbxd_client.values.embedding import arrays_of
from tbxd_client.values.log_values import told_apart

HEADER = "import sys, numpy as np\nfrom tbxd_client import SummaryWriter\n"


# --- steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "logged"), [(1.75, 1), (-0.5, 0), ("3", 3), (np.float32(2.9), 2), (4.0, 4)])
def test_a_step_is_cut_to_its_integer_part_as_both_originals_do(given: object, logged: int) -> None:
    assert to_step(given) == logged


@pytest.mark.parametrize("given", [float("nan"), float("inf"), "three", object()])
def test_a_step_that_is_no_number_is_refused(given: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        to_step(given)


@pytest.mark.parametrize("loader", LOADERS)
def test_fractions_of_an_epoch_as_steps_train_to_the_end_and_are_said_once(place: World, loader: str) -> None:
    result = place.run(
        HEADER
        + """
with SummaryWriter("logs/r") as w:
    for epoch in range(3):
        for i in range(4):
            w.add_scalar("loss", float(epoch), epoch + i / 4)
            w.add_scalar("text", "0.5", epoch)
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("not whole") == 1
    with board(place.logdir, loader) as shown:
        points = shown.until(lambda: shown.scalars("r", "loss"), "loss")
        assert sorted(set(points)) == [(0, 0.0), (1, 1.0), (2, 2.0)]
        assert {value for _, value in shown.scalars("r", "text")} == {0.5}


# --- log -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", LOADERS)
def test_log_counts_steps_takes_groups_and_tells_values_apart(place: World, loader: str) -> None:
    result = place.run(
        HEADER
        + """
from PIL import Image
import matplotlib.figure
with SummaryWriter("logs/r") as w:
    for i in range(3):
        w.log({"loss": i / 2, "train": {"acc": i, "head": {"lr": 0.1}}})
    w.log({"loss": 9.0}, 10)
    w.log({"loss": 11.0})
    with w.use_metadata(global_step=50):
        w.log({"loss": 50.0})
    figure = matplotlib.figure.Figure()
    w.log(
        {"picture": np.zeros((4, 5, 3), np.uint8), "grey": np.zeros((4, 5), np.uint8), "pil": Image.new("P", (3, 2)),
         "figure": figure, "weights": np.arange(10.0), "listed": [1, 2, 3], "one": np.array([[7.0]]), "note": "hi"},
        51,
    )
"""
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    with board(place.logdir, loader) as shown:
        points = shown.until(lambda: len(shown.scalars("r", "loss")) == 6 and shown.scalars("r", "loss"), "loss")
        assert points == [(0, 0.0), (1, 0.5), (2, 1.0), (10, 9.0), (11, 11.0), (50, 50.0)]
        assert shown.scalars("r", "train/acc") == [(0, 0.0), (1, 1.0), (2, 2.0)]
        assert [step for step, _ in shown.scalars("r", "train/head/lr")] == [0, 1, 2]
        assert shown.scalars("r", "one") == [(51, 7.0)]
        assert shown.until(lambda: shown.tags("images").get("r"), "pictures") == {"picture", "grey", "pil", "figure"}
        sizes = {tag: shown.blobs("r", tag)[0][1][:2] for tag in ("picture", "grey", "pil")}
        assert sizes == {"picture": [b"5", b"4"], "grey": [b"5", b"4"], "pil": [b"3", b"2"]}
        assert shown.tags("histograms")["r"] == {"weights", "listed"}
        assert shown.tags("text")["r"] == {"note/text_summary"}


def test_log_begins_with_purge_step(place: World) -> None:
    result = place.run(
        HEADER
        + """
with SummaryWriter("logs/r", purge_step=100) as w:
    w.log({"loss": 1.0})
    w.log({"loss": 2.0})
"""
    )
    assert result.returncode == 0, result.stderr
    with board(place.logdir, "slow") as shown:
        assert shown.until(lambda: shown.scalars("r", "loss"), "loss") == [(100, 1.0), (101, 2.0)]


def test_what_log_is_given_wrong_is_refused_before_anything_is_logged() -> None:
    loop: dict[str, object] = {}
    loop["a"] = loop
    for wrong in ({"a": object()}, {("a",): 1}, {"a": ["x"]}, loop):
        with pytest.raises((TypeError, ValueError)):
            told_apart(wrong)


# --- folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["s3://bucket/run", "gs://b/r", "hdfs://host:9000/r", "az://c/r", "file://s3://b/r"])
def test_an_address_is_no_folder_and_the_constructor_says_what_to_do(folder: str) -> None:
    with pytest.raises(ValueError, match=r"is an address .* give a folder"):
        SummaryWriter(folder)


def test_a_file_address_is_the_folder_behind_it_as_for_torch(place: World) -> None:
    result = place.run(
        """
        import os
        from tbxd_client import SummaryWriter
        for folder in ("file://logs/a", f"file://{os.getcwd()}/logs/b"):
            with SummaryWriter(folder) as writer:
                writer.add_scalar("value", 1, 0)
                writer.add_scalars("loss", {"train": "0.5"}, 0)
                assert writer.logdir == folder
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
    for run in ("a", "b"):
        assert scalars(place.logdir / run) == {"value": [(0, 1)]}
        assert scalars(place.logdir / run / "loss" / "train") == {"loss": [(0, 0.5)]}


def test_the_text_of_a_number_is_a_number_in_each_call_that_takes_several(place: World) -> None:
    """torch's `add_scalars` hands each to ``float()``; what is no number is refused before anything is logged."""
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalars("loss", {"train": "0.5", "test": 0.25}, 1)
            writer.add_hparams({"lr": 1}, {"loss": "0.75"}, run_name="row")
            for call in (writer.add_scalars, writer.add_hparams):
                try:
                    call("loss" if call == writer.add_scalars else {"lr": 2}, {"right": 1, "wrong": "much"})
                except TypeError as error:
                    print(error)
        """
    )
    assert result.returncode == 0 and result.stdout.count("'much'") == 2, result
    assert scalars(place.logdir / "a" / "loss" / "train") == {"loss": [(1, 0.5)]}
    assert scalars(place.logdir / "a" / "loss" / "test") == {"loss": [(1, 0.25)]}
    assert scalars(place.logdir / "a" / "row")["loss"] == [(0, 0.75)]
    assert not (place.logdir / "a" / "loss" / "right").exists()


def test_a_part_of_the_path_that_no_file_system_takes_is_refused_in_the_constructor(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a part of 256 bytes"):
        SummaryWriter(tmp_path / ("x" * 256) / "run")
    with pytest.raises(ValueError, match="a part of 300 bytes"):
        SummaryWriter(tmp_path / ("\N{LATIN SMALL LETTER O WITH DIAERESIS}" * 150))


# --- values ----------------------------------------------------------------------------------------------------


def test_the_text_of_a_number_is_a_number_and_another_text_is_refused() -> None:
    assert to_number("0.5", "x") == 0.5 and to_number(" 1e3 ", "x") == 1000
    with pytest.raises(TypeError, match="'abc'"):
        to_number("abc", "x")


@pytest.mark.parametrize("numbers", [[1e28, -1e28], [3e20], [-5e25, -6e25, -6e25]])
def test_numbers_beyond_all_bins_are_shown_where_they_are(numbers: list[float]) -> None:
    result = histogram_of(np.array(numbers))
    assert result.counts.sum() == len(numbers)
    assert min(numbers) >= min(result.limits[0], -1e20) and max(numbers) <= max(result.limits[-1], -1e20)
    assert (np.diff(result.limits) >= 0).all()
    within = [number for number in numbers if result.limits[0] <= number <= result.limits[-1]]
    assert within == numbers


def test_numbers_beyond_the_bins_beside_others_are_counted_as_tensorboardx_does() -> None:
    result = histogram_of(np.array([1.0, 1e28]))
    assert result.counts.sum() == 1 and result.statistics.num == 2 and result.statistics.max == 1e28


def test_label_pictures_that_are_not_square_get_a_border() -> None:
    pictures = np.random.default_rng(0).random((10, 3, 10, 32), np.float32)
    assert arrays_of(np.ones((10, 5)), None, pictures, None)["images"].shape == (10, 3, 10, 32)
    square = squared(pictures)
    assert square.shape == (10, 3, 32, 32)
    assert (square[:, :, 11:21] == pictures).all() and not square[:, :, :11].any() and not square[:, :, 21:].any()
    assert squared(pictures.transpose(0, 1, 3, 2)).shape == (10, 3, 32, 32)


def test_one_column_of_labels_with_a_header_is_one_line_for_each_point() -> None:
    arrays = arrays_of(np.ones((3, 2)), [["a"], ["b"], ["c"]], None, ["name"])
    assert bytes(arrays["metadata"].data) == b"a\nb\nc\n"  # TensorBoard takes no header without a tab
    two = arrays_of(np.ones((2, 2)), [["a", 1], ["b", 2]], None, ["name", "size"])
    assert bytes(two["metadata"].data) == b"name\tsize\na\t1\nb\t2\n"


def test_embeddings_and_curves_of_no_points_are_counted_and_training_goes_on(place: World) -> None:
    place.serve()
    result = place.run(
        HEADER
        + """
w = SummaryWriter("logs/r")
w.add_embedding(np.zeros((0, 3)))
w.add_pr_curve("pr", np.array([]), np.array([]), 1)
w.add_scalar("loss", 1.0, 1)
assert w.flush(20)
print(w.stats()["dropped"])
w.close()
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "{'no_values': 2}"


def test_a_float_picture_with_values_up_to_255_is_said_once(place: World) -> None:
    result = place.run(
        HEADER
        + """
with SummaryWriter("logs/r") as w:
    for step in range(5):
        w.add_image("fine", np.random.rand(3, 8, 8).astype(np.float32), step)
    for step in range(5):
        w.add_image("bright", np.random.rand(3, 8, 8) * 255, step)
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("0 to 1 is expected") == 1


# --- the writer ------------------------------------------------------------------------------------------------


def test_file_writer_is_none_after_close_and_the_writer_goes_on_when_it_is_used(place: World) -> None:
    result = place.run(
        HEADER
        + """
with SummaryWriter("logs/r") as w:
    w.add_scalar("loss", 1.0, 1)
assert w.file_writer is None
w.add_scalar("loss", 2.0, 2)
assert w._get_file_writer() is w.file_writer
w.close()
"""
    )
    assert result.returncode == 0, result.stderr


def test_what_a_writer_that_writes_nothing_has_logged_is_exported(place: World) -> None:
    result = place.run(
        HEADER
        + """
w = SummaryWriter("logs/r", write_to_disk=False)
w.add_scalars("chart", {"a": 1.5, "b": 2}, 3, walltime=7.0)
w.add_scalars("chart", {"a": 2.5}, 4, walltime=8.0)
w.export_scalars_to_json("out.json")
assert w.scalar_dict == {}
w.close()
"""
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((place.root / "out.json").read_text()) == {
        "logs/r/chart/a": [[7.0, 3, 1.5], [8.0, 4, 2.5]],
        "logs/r/chart/b": [[7.0, 3, 2.0]],
    }
    assert not (place.logdir / "r").exists()


@pytest.mark.parametrize("loader", LOADERS)
def test_a_writer_that_has_logged_nothing_leaves_an_event_file_and_starts_no_daemon(place: World, loader: str) -> None:
    result = place.run(
        HEADER
        + """
import os
for name in ("a", "b"):
    with SummaryWriter("logs/" + name) as w:
        file = w.file_writer.event_writer._file_name
    assert os.path.exists(file), file
assert len(os.listdir("logs/a")) == 1
with SummaryWriter("logs/a"):
    pass
assert len(os.listdir("logs/a")) == 1
"""
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert place.running() is None
    (event,) = events(place.logdir / "a")
    assert event.file_version == "brain.Event:2" and event.wall_time > 1.7e9
    assert place.run(HEADER + 'with SummaryWriter("logs/a") as w: w.add_scalar("x", 1.0, 1)').returncode == 0
    with board(place.logdir, loader) as shown:
        assert shown.until(lambda: shown.scalars("a", "x"), "what was logged later") == [(1, 1.0)]


def test_the_event_file_of_a_writer_that_counts_steps_has_the_name_that_was_told(place: World) -> None:
    result = place.run(
        """
        import os
        from tbxd_client import GlobalSummaryWriter
        writer = GlobalSummaryWriter("logs/r")
        name = writer.file_writer.event_writer._ev_writer._file_name
        writer.add_scalar("x", 1.0)
        assert writer.smw.flush(30)
        assert os.listdir("logs/r") == [os.path.basename(name)], (os.listdir("logs/r"), name)
        """
    )
    assert result.returncode == 0, result.stderr


def test_attributes_can_be_set_and_the_folder_is_what_was_passed(place: World) -> None:
    result = place.run(
        """
        from pathlib import Path
        from tbxd_client import SummaryWriter
        writer = SummaryWriter(Path("logs/r"))
        assert writer.log_dir == writer.logdir == Path("logs/r") and isinstance(writer.log_dir, Path)
        assert writer.get_logdir() == "logs/r" and list(writer.all_writers) == ["logs/r"]
        writer.close()
        assert writer.all_writers is None
        writer._get_file_writer()
        assert list(writer.all_writers) == ["logs/r"]
        for name in ("log_dir", "logdir", "all_writers", "default_bins", "scalar_dict", "kwargs"):
            setattr(writer, name, name)
            assert getattr(writer, name) == name
        writer.add_scalar("x", 1.0, 1)
        writer.add_scalars("chart", {"a": 1.0}, 1)
        assert writer.flush(30)
        """
    )
    assert result.returncode == 0, result.stderr


def test_jobs_that_begin_in_the_same_second_have_default_folders_of_their_own(place: World) -> None:
    script = """
        import os, sys, time
        time.strftime = lambda form: "Nov30_12-00-00"  # all begin in this second
        from tbxd_client import SummaryWriter
        first, second = SummaryWriter(comment="-mine"), SummaryWriter(comment="-mine")
        assert first.logdir == second.logdir  # as with both originals, in one process
        assert SummaryWriter(comment="-off", write_to_disk=False).logdir.endswith("-off")
        for step in range(5):
            first.add_scalar("x", float(sys.argv[1]), step)
        first.close()
        """
    for number in range(3):
        result = place.run(script, number)
        assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journals to be drained")
    found = {path.name.partition("-mine")[2]: scalars(path) for path in (place.root / "runs").iterdir()}
    assert found == {
        end: {"x": [(step, float(number)) for step in range(5)]} for number, end in enumerate(("", "_1", "_2"))
    }


# --- what further reports have ---------------------------------------------------------------------------------


def test_a_restart_that_is_written_by_hand_with_its_version_drops_nothing(place: World) -> None:
    """As in tensorflow/tensorboard#1272: the version of the file, then the restart; each step is shown once."""
    result = place.run(
        HEADER
        + """
from tensorboardX.proto.event_pb2 import Event, SessionLog
for first, last, more in ((0, 4, 0), (2, 6, 100)):
    w = SummaryWriter("logs/r")
    w.file_writer.event_writer.add_event(Event(step=first, file_version="brain.Event:2"))
    w.file_writer.event_writer.add_event(Event(session_log=SessionLog(status=SessionLog.START), step=first))
    for step in range(first, last):
        w.add_scalar("x", float(more + step), step)
    w.close()
print(w.stats()["dropped"])
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "{}" and not result.stderr
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            points = [(0, 0.0), (1, 1.0), *((step, 100.0 + step) for step in range(2, 6))]
            shown.until(lambda shown=shown, points=points: shown.scalars("r", "x") == points, "the curve")
            assert shown.tags()["r"] == {"x"}, "and nothing of what was dropped"


@pytest.mark.parametrize("named", ["'.'", "os.path.abspath('logs/r')", "os.getcwd() + '/logs/r/'"])
def test_a_row_that_is_to_be_in_the_run_itself_has_a_run_of_its_own_all_the_same(place: World, named: str) -> None:
    """As people do it with torch (pytorch/pytorch#40574): there its metrics become points of the run's curves."""
    result = place.run(
        HEADER
        + f"""
import os
with SummaryWriter("logs/r") as w:
    for step in range(5):
        w.add_scalar("acc", step / 10, step)
    for lr in (1, 2):
        w.add_hparams({{"lr": lr}}, {{"acc": lr * 10.0}}, run_name={named})
"""
    )
    assert result.returncode == 0, result.stderr
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda shown=shown: len(shown.runs()) == 3, "the runs")
            assert len(shown.scalars("r", "acc")) == 5
            rows = [run for run in shown.runs() if run != "r"]
            assert sorted(value for run in rows for _, value in shown.scalars(run, "acc")) == [10.0, 20.0]
            assert all(run.startswith("r/") and run.count("/") == 1 for run in rows)
