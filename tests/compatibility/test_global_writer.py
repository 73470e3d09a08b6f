"""``GlobalSummaryWriter``: steps that nobody in the program counts, from threads and processes, over every restart."""

from __future__ import annotations

import inspect
from collections import Counter

import numpy as np
import pytest

from harness import World, events, scalars, wait_for
from tb import LOADERS, board
from tbxd.tfevents import schema
from tbxd.tfevents.auto_steps import Steps
from tbxd.tfevents.contents import contents_of
from tbxd.tfevents.tfrecord import frame
from tbxd_client import GlobalSummaryWriter, SummaryWriter

STEPLESS = {  # methods of a writer that have no step, or one that is no count
    *("add_custom_scalars", "add_custom_scalars_marginchart", "add_custom_scalars_multilinechart"),
    *("add_hparams", "add_embedding", "add_graph", "add_onnx_graph", "add_openvino_graph"),
}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("loader", LOADERS)
def test_processes_and_threads_count_one_tag_together_and_no_point_is_lost(
    place: World, method: str, loader: str
) -> None:
    """Where the steps of two processes interleave out of order, TensorBoard's fast loader drops points."""
    (place.root / "script.py").write_text(
        """
import multiprocessing, sys, threading
from tbxd_client import GlobalSummaryWriter

def work(writer, number):
    for _ in range(100):
        writer.add_scalar("together", number)
        writer.add_scalar(f"alone{number}", number)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    writer = GlobalSummaryWriter("logs/a")
    writer.add_scalar("together", 9)
    workers = [context.Process(target=work, args=(writer, number)) for number in range(3)]
    workers += [threading.Thread(target=work, args=(writer, number)) for number in (3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(getattr(worker, "exitcode", 0) == 0 for worker in workers)
    writer.close()
    assert not [child for child in multiprocessing.active_children() if child not in workers]
"""
    )
    result = place.run(
        "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('script.py', run_name='__main__')", method
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the children's journals")
    with board(place.logdir, loader) as shown:
        expected = {"together", *(f"alone{number}" for number in range(5))}
        shown.until(lambda: shown.tags().get("a") == expected, "the tags")
        together = shown.scalars("a", "together")
        assert [step for step, _ in together] == list(range(501))
        assert Counter(value for _, value in together) == {9.0: 1} | dict.fromkeys(map(float, range(5)), 100)
        for number in range(5):
            assert shown.scalars("a", f"alone{number}") == [(step, float(number)) for step in range(100)]


@pytest.mark.parametrize("loader", LOADERS)
def test_ranks_of_a_job_count_one_tag_together(place: World, loader: str) -> None:
    """Their calls have nothing in common but the tag, so each is a point; what has steps is reduced, beside them."""
    ranks = [
        place.start(
            """
            import os
            from tbxd_client import GlobalSummaryWriter, SummaryWriter
            writer, other = GlobalSummaryWriter("logs/a"), SummaryWriter("logs/b")
            for step in range(20):
                writer.add_scalar("together", step)
                writer.add_scalar("alone" + os.environ["TBXD_RANK"], step)
                other.add_scalar("loss", float(os.environ["TBXD_RANK"]), step)
            writer.close()
            other.close()
            """,
            environ={"TBXD_RANK": str(rank), "TBXD_WORLD_SIZE": "2", "TBXD_RUN_ID": "job"},
        )
        for rank in range(2)
    ]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    wait_for(place.drained, "the journals")
    with board(place.logdir, loader) as shown:
        expected = {"a": {"together", "alone0", "alone1"}, "b": {"loss"}}
        shown.until(
            lambda: (
                {run: expected[run] <= tags for run, tags in shown.tags().items() if run in expected}
                == {"a": True, "b": True}
            ),
            "the tags",
        )
        together = shown.scalars("a", "together")
        assert [step for step, _ in together] == list(range(40))
        assert Counter(value for _, value in together) == dict.fromkeys(map(float, range(20)), 2)
        for number in range(2):
            assert shown.scalars("a", f"alone{number}") == [(step, float(step)) for step in range(20)]
        assert shown.scalars("b", "loss") == [(step, 0.5) for step in range(20)]
    assert not place.status()["totals"]["dropped"]


def test_the_count_goes_on_where_the_files_end_whoever_was_killed(place: World) -> None:
    place.serve()
    script = """
        import sys, time
        import numpy as np
        from tbxd_client import GlobalSummaryWriter
        writer = GlobalSummaryWriter("logs/a")
        for value in range(int(sys.argv[1]), int(sys.argv[2])):
            writer.add_scalar("value", value)
            writer.log({"row": value, "other": value})
            writer.add_text("text", str(value))
            writer.add_scalars("chart", {"one": value})
            time.sleep(0.001)
        writer.add_scalar("given", 1.0, global_step=40)
        writer.add_scalar("given", 2.0)
        assert writer.flush(60)
        """
    first = place.start(script, 0, 400)
    wait_for(lambda: scalars(place.logdir / "a").get("value"), "the first values")
    place.kill_daemon()
    place.ensure()
    assert first.wait(60) == 0
    assert place.run(script, 400, 500).returncode == 0
    found = scalars(place.logdir / "a")
    for tag in ("value", "row", "other"):
        assert found[tag] == [(step, float(step)) for step in range(500)]
    # A step that is given goes back behind the first program's: the second, which goes on with it, takes its place.
    # The count goes on where the files end.
    assert found["given"] == [(40, 1.0), (41, 2.0), (40, 1.0), (42, 2.0)]
    assert scalars(place.logdir / "a" / "chart" / "one")["chart"] == [(step, float(step)) for step in range(500)]
    texts = [
        (event.step, value.tensor.string_val[0].decode())
        for event in events(place.logdir / "a")
        for value in event.summary.value
        if value.tag == "text/text_summary"
    ]
    assert texts == [(step, str(step)) for step in range(500)]


def test_purge_step_sets_the_count_back(place: World) -> None:
    script = """
        import sys
        from tbxd_client import GlobalSummaryWriter
        with GlobalSummaryWriter("logs/a", purge_step=int(sys.argv[1])) as writer:
            for value in range(5):
                writer.add_scalar("value", value)
                writer.add_scalars("chart", {"one": value})
        """
    for purge in (0, 3):
        assert place.run(script, purge).returncode == 0
        wait_for(place.drained, "the journal to be drained")
    steps = [*range(5), *range(3, 8)]
    assert [step for step, _ in scalars(place.logdir / "a")["value"]] == steps
    assert [step for step, _ in scalars(place.logdir / "a" / "chart" / "one")["chart"]] == steps


def test_every_method_counts_or_hands_on(place: World) -> None:
    result = place.run(
        """
        import numpy as np
        from tbxd_client import GlobalSummaryWriter, SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary
        import matplotlib.figure
        with GlobalSummaryWriter("logs/a") as writer:
            numbers = np.linspace(0, 1, 12)
            picture = np.zeros((3, 4, 4), np.uint8)
            figure = matplotlib.figure.Figure()
            for _ in range(2):
                writer.add_scalar("scalar", 1.0)
                writer.add_scalars("scalars", {"a": 1.0})
                writer.log({"log": 1.0})
                writer.add_histogram("histogram", numbers)
                writer.add_histogram_raw("raw", 0, 1, 1, 1, 1, [1.0], [1])
                writer.add_image("image", picture)
                writer.add_images("images", picture[None])
                writer.add_image_with_boxes("boxes", picture, np.array([[0, 0, 2, 2]]))
                writer.add_figure("figure", figure)
                writer.add_heatmap("heatmap", np.eye(3))
                writer.add_video("video", np.zeros((1, 2, 3, 4, 4), np.uint8))
                writer.add_audio("audio", numbers)
                writer.add_text("text", "t")
                writer.add_pr_curve("curve", numbers > 0.5, numbers)
                writer.add_pr_curve_raw("raw_curve", *([[1.0, 1.0]] * 6))
                writer.add_mesh("mesh", np.zeros((1, 3, 3)))
                writer.add_tensor("tensor", numbers)
            writer.add_embedding(np.eye(3))
            writer.add_hparams({"lr": 1.0}, {"metric": 2.0})
            writer.add_custom_scalars({"c": {"t": ["Multiline", ["scalar"]]}})
            writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="own", simple_value=1.0)]), 7)
            with writer.use_metadata(global_step=30, walltime=5.0):
                writer.add_scalar("within", 1.0)
            assert writer.logdir == writer.get_logdir() == "logs/a" and isinstance(writer.smw, SummaryWriter)
            assert writer.stats()["accepted"] == 2 * 17 + 5 + 1, writer.stats()
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    status = place.status()
    assert status is not None and not status["totals"]["dropped"]
    steps: dict[str, list[int]] = {}
    for event in events(place.logdir / "a"):
        for value in event.summary.value:
            if not value.tag.startswith(("_hparams_", "custom_scalars")):
                steps.setdefault(value.tag.partition("/")[0], []).append(event.step)
    assert steps.pop("own") == [7] and steps.pop("within") == [30]
    (row,) = (events(path.parent) for path in (place.logdir / "a").glob("1*/*tfevents*"))
    assert [(value.tag, value.simple_value) for event in row for value in event.summary.value][-1] == ("metric", 2.0)
    assert len(steps) >= 16 and {tuple(sorted(set(found))) for found in steps.values()} == {(0, 1)}
    assert [event.wall_time for event in events(place.logdir / "a") if event.step == 30] == [5.0]


def test_its_methods_are_a_writers_without_the_step() -> None:
    both = {**vars(SummaryWriter.__mro__[0]), **vars(SummaryWriter.__mro__[1])}
    for name, method in both.items():
        if not name.startswith("add_") or name in STEPLESS:
            continue
        theirs = [item for item in inspect.signature(method).parameters if item != "global_step"]
        ours = list(inspect.signature(getattr(GlobalSummaryWriter, name)).parameters)
        assert [item for item in ours if item != "global_step"] == [
            item for item in theirs if item not in ("new_style", "double_precision")
        ]


def test_one_writer_of_the_process_is_shared_by_its_modules_and_forked_children(place: World) -> None:
    for name in ("first", "second"):
        (place.root / f"{name}.py").write_text(
            "from tbxd_client import GlobalSummaryWriter\n"
            "writer = GlobalSummaryWriter.getSummaryWriter()\n"
            f"def work(): writer.add_text('log', '{name}')\n"
        )
    result = place.run(
        """
        import os, sys
        sys.path.insert(0, ".")
        import first, second
        assert first.writer is second.writer
        first.work(), second.work()
        assert first.writer.smw.flush(30)
        if os.fork() == 0:
            second.work()
            from tbxd_client import GlobalSummaryWriter
            assert GlobalSummaryWriter.getSummaryWriter() is first.writer
            first.writer.close()
            os._exit(0)
        assert os.wait()[1] == 0
        print(first.writer.logdir)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journals to be drained")
    found = [
        (event.step, value.tensor.string_val[0].decode())
        for event in events(place.root / result.stdout.strip())
        for value in event.summary.value
    ]
    assert found == [(0, "first"), (1, "second"), (2, "second")]


def test_tensorboardx_shows_the_same_for_the_calls_it_has(place: World) -> None:
    script = """
        import numpy as np
        from {package} import GlobalSummaryWriter
        writer = GlobalSummaryWriter("logs/{package}")
        for value in range(5):
            writer.add_scalar("scalar", value, 1_700_000_000.0)
            writer.add_image("image", np.full((3, 2, 2), value, np.uint8), 1_700_000_000.0, "CHW")
            writer.add_text("text", str(value))
        writer.close()
        """
    for package in ("tbxd_client", "tensorboardX"):
        result = place.run(script.format(package=package))
        assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    with board(place.logdir, "fast") as shown:
        shown.until(lambda: shown.runs() == {"tbxd_client", "tensorboardX"}, "both runs")
        for ask in (
            lambda run: shown.timed_scalars(run, "scalar"),
            lambda run: [(step, blobs[:2]) for step, blobs in shown.blobs(run, "image")],
            lambda run: [(step, array.tolist()) for step, array in shown.tensors(run, "text/text_summary", "text")],
        ):
            assert ask("tbxd_client") == ask("tensorboardX") and len(ask("tbxd_client")) == 5


def test_steps_are_read_from_what_is_whole_of_every_file(place: World) -> None:
    def scalar(tag: str, step: int) -> bytes:
        value = schema.Summary.Value(tag=tag, simple_value=1.0)
        return frame(schema.Event(step=step, summary=schema.Summary(value=[value])).SerializeToString())

    restart = frame(schema.Event(step=3, session_log=schema.SessionLog(status=1)).SerializeToString())
    place.logdir.mkdir()
    (place.logdir / "events.out.tfevents.0000000001.a").write_bytes(scalar("a", 9) + scalar("b", 2) + scalar("c", -5))
    (place.logdir / "events.out.tfevents.0000000002.a").write_bytes(restart + scalar("b", 4) + scalar("b", 8)[:-1])
    steps = Steps(contents_of(place.logdir))
    assert [steps.next(["a"]), steps.next(["b"]), steps.next(["c"]), steps.next(["d"])] == [3, 5, 0, 0]
    assert steps.next(["a", "b", "e"]) == 6
    steps.note("a", np.iinfo(np.int64).max)
    assert steps.next(["a"]) == np.iinfo(np.int64).max
