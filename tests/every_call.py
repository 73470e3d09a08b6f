"""A call of every method of a writer, for programs that tests run, and what these have left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import events

CALLS = """
import io, sys
import numpy as np
from tbxd_client import FileWriter, GlobalSummaryWriter, SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

XML = '<net><layers><layer id="0" name="x" type="Parameter"/></layers><edges/></net>'

def every_call(w):
    ones, boxes = np.ones((3, 4, 5), np.uint8), np.array([[0, 1, 3, 2]])
    w.add_scalar("scalar", 1.5, 1, 10.0)
    w.add_scalar("named", 2.5, 1, 11.0, "a name", "a text")
    w.add_scalars("many", {"a": 1.0, "b": 2.0}, 2, 12.0)
    w.add_histogram("histogram", np.arange(9.0), 3, walltime=13.0)
    w.add_histograms({"weights": np.arange(4.0), "none": None}, 3, walltime=13.5, prefix="model/")
    w.add_histogram_raw("raw", 0.0, 1.0, 3, 2.0, 2.5, [0.0, 1.0], [1, 2], 4, 14.0)
    w.add_image("image", ones, 5, 15.0)
    w.add_images("images", np.stack([ones, ones]), 6, 16.0)
    w.add_image_with_boxes("boxes", ones, boxes, 7, 17.0)
    w.add_video("video", ones[None, None], 8, 4, 18.0)
    w.add_audio("audio", np.linspace(-1, 1, 50), 9, 8000, 19.0)
    w.add_text("text", "text", 10, 20.0)
    w.add_pr_curve("curve", np.array([0, 1, 1]), np.array([0.1, 0.7, 0.9]), 11, 5, None, 21.0)
    w.add_pr_curve_raw("raw_curve", [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], 12, 2, None, 22.0)
    w.add_mesh("mesh", np.ones((1, 3, 3)), None, np.array([[[0, 1, 2]]]), None, 13, 23.0)
    w.add_tensor("tensor", np.arange(6.0), 14, 24.0)
    w.add_heatmap("heat", np.arange(6.0).reshape(2, 3), 15, 25.0)
    w.add_custom_scalars({"c": {"t": ["Multiline", ["scalar"]]}})
    w.add_custom_scalars_multilinechart(["scalar"], "c", "u")
    w.add_custom_scalars_marginchart(["a", "b", "c"], "c", "v")
    w.add_embedding(np.ones((2, 3)), ["x", "y"], None, 16, "points")
    w.add_hparams({"lr": 0.1}, {"score": 3.0}, name="row", global_step=17)
    w.add_openvino_graph(io.StringIO(XML))
    w.log({"row": 4.0, "group": {"inner": 5.0}, "words": "hi", "array": np.arange(5.0)}, 18, 26.0)
    import matplotlib.figure
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    w.add_figure("figure", figure, 19, True, 27.0)
    with w.use_metadata(global_step=20, walltime=28.0):
        w.add_scalar("default", 6.0)
    w._get_file_writer().add_summary(Summary(value=[Summary.Value(tag="own", simple_value=7.0)]), 21, 29.0)
"""


def content(folder: Path) -> dict[str, list[Any]]:
    """Return the contents of a run and those below it: tags, steps, times and values."""
    found: dict[str, list[Any]] = {}
    for path in sorted({path.parent for path in folder.rglob("*tfevents*")}):
        found[str(path.relative_to(folder))] = [
            (event.step, value.tag, value.WhichOneof("value"), value.SerializeToString())
            for event in events(path)
            for value in event.summary.value
            if not value.tag.startswith("_hparams_")  # has the time of the call in it
        ]
    return {run: sorted(values) for run, values in found.items()}
