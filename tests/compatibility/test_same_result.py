"""One script, three writers: what TensorBoard reads is the same, whichever of them has logged it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.mesh import plugin_data_pb2 as mesh_data
from tensorboard.plugins.pr_curve import plugin_data_pb2 as curve_data
from tensorboard.util import tensor_util

from harness import World, wait_for
from tb import LOADERS, board

IMPORTS = {
    "tbxd": "from tbxd_client import SummaryWriter",
    "tensorboardX": "from tensorboardX import SummaryWriter",
    "torch": "from torch.utils.tensorboard import SummaryWriter",
}
SCRIPT = """
import sys
import numpy as np, torch
{0}
flavour = "{1}"
rng = np.random.default_rng(7)
writer = SummaryWriter("logs/" + flavour)
for step in (3, 5):
    when = 1_700_000_000.5 + step
    labels, shares = rng.integers(0, 2, 200), rng.random(200)
    writer.add_pr_curve("curve", torch.from_numpy(labels), torch.from_numpy(shares), step, walltime=when)
    writer.add_pr_curve("weighted", labels, shares, step, 50, rng.random(200), when)
    rows = rng.random((6, 20))
    writer.add_pr_curve_raw("raw_curve", *rows, step, 20, None, when)
    limits, counts = [0.5, 1.5, 2.5], [0, 7, 9]
    writer.add_histogram_raw("raw", 0.5, 2.5, 16, 30.0, 70.5, limits, counts, step, when)
    vertices, faces = rng.random((1, 6, 3)), rng.integers(0, 6, (1, 4, 3))
    colors = rng.integers(0, 256, (1, 6, 3))
    config = dict(lights=[dict(cls="AmbientLight", color="#ffffff")])
    vertices, colors, faces = map(torch.as_tensor, (vertices, colors, faces))
    writer.add_mesh("mesh", vertices, colors, faces, config, step, when)
    writer.add_mesh("cloud", vertices, None, None, None, step, when)
    picture = rng.integers(0, 256, (3, 40, 60), dtype=np.uint8)
    boxes = np.array([[5, 5, 30, 20], [10, 12, 50, 35]])
    writer.add_image_with_boxes("boxes", picture, boxes, step, when)
    sound = rng.uniform(-1, 1, 500).astype("f4")
    writer.add_audio("sound", sound, step, 8000, when)
    if flavour != "torch":
        writer.add_audio("stereo", np.stack([sound, sound[::-1]], 1), step, 8000, when)
    if flavour != "tensorboardX":
        writer.add_tensor("tensor", torch.arange(6.0).reshape(2, 3), step, when)
charts = {{"both": ["Multiline", ["loss/a", "loss/b"]], "band": ["Margin", ["m", "l", "u"]]}}
writer.add_custom_scalars({{"losses": charts}})
writer.close()
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log folder of all three."""
    from harness import world

    with world(tmp_path_factory.mktemp("same") / "world") as place:
        for flavour, line in IMPORTS.items():
            result = subprocess.run(
                [sys.executable, "-c", SCRIPT.format(line, flavour)],
                env=place.environ,
                cwd=place.root,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert result.returncode == 0, flavour + result.stderr
        wait_for(place.drained, "the journal to be drained")
        status = place.status()
        assert status is not None
        (run,) = status["runs"].values()
        assert run["dropped"] == {}
        return place.logdir


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("tensors", "images", "audio", "histograms"), 0))
    found.Reload()
    return found


@pytest.fixture(scope="module")
def readers(logged: Path) -> dict[str, EventAccumulator]:
    return {flavour: read(logged / flavour) for flavour in IMPORTS}


def tensors(reader: EventAccumulator, tag: str) -> list[tuple[int, float, Any]]:
    return [
        (event.step, event.wall_time, tensor_util.make_ndarray(event.tensor_proto)) for event in reader.Tensors(tag)
    ]


def plugin(reader: EventAccumulator, tag: str) -> Any:
    return reader.SummaryMetadata(tag).plugin_data


PEERS = ("tensorboardX", "torch")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("tag", ["curve", "weighted", "raw_curve"])
def test_curves_are_the_same(readers: dict[str, EventAccumulator], peer: str, tag: str) -> None:
    ours, theirs = readers["tbxd"], readers[peer]
    for mine, other in zip(tensors(ours, tag), tensors(theirs, tag), strict=True):
        assert mine[:2] == other[:2]
        np.testing.assert_allclose(mine[2], other[2], rtol=1e-6)
    assert plugin(ours, tag).plugin_name == plugin(theirs, tag).plugin_name
    data = [curve_data.PrCurvePluginData.FromString(plugin(reader, tag).content) for reader in (ours, theirs)]
    assert data[0] == data[1]


@pytest.mark.parametrize("peer", PEERS)
def test_raw_histograms_are_the_same(readers: dict[str, EventAccumulator], peer: str) -> None:
    assert readers["tbxd"].Histograms("raw") == readers[peer].Histograms("raw")


@pytest.mark.parametrize("tag", ["mesh", "cloud"])
def test_meshes_are_torchs(readers: dict[str, EventAccumulator], tag: str) -> None:
    for suffix in ("VERTEX", "FACE", "COLOR") if tag == "mesh" else ("VERTEX",):
        ours, theirs = (readers[flavour] for flavour in ("tbxd", "torch"))
        for mine, other in zip(tensors(ours, f"{tag}_{suffix}"), tensors(theirs, f"{tag}_{suffix}"), strict=True):
            assert mine[:2] == other[:2]
            np.testing.assert_allclose(mine[2], other[2], rtol=1e-6)
        data = [
            mesh_data.MeshPluginData.FromString(plugin(reader, f"{tag}_{suffix}").content) for reader in (ours, theirs)
        ]
        assert data[0] == data[1]


@pytest.mark.parametrize("peer", PEERS)
def test_layouts_are_the_same(readers: dict[str, EventAccumulator], peer: str) -> None:
    layouts = [
        layout_pb2.Layout.FromString(tensors(readers[flavour], "custom_scalars__config__")[-1][2].item())
        for flavour in ("tbxd", peer)
    ]
    assert layouts[0] == layouts[1]
    assert plugin(readers["tbxd"], "custom_scalars__config__").plugin_name == "custom_scalars"


def test_tensors_are_torchs(readers: dict[str, EventAccumulator]) -> None:
    ours, theirs = (tensors(readers[flavour], "tensor") for flavour in ("tbxd", "torch"))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine[:2] == other[:2] and (mine[2] == other[2]).all() and mine[2].dtype == other[2].dtype
    assert plugin(readers["tbxd"], "tensor").plugin_name == plugin(readers["torch"], "tensor").plugin_name


@pytest.mark.parametrize("peer", PEERS)
def test_boxes_are_drawn_in_the_same_places(readers: dict[str, EventAccumulator], peer: str) -> None:
    for mine, other in zip(readers["tbxd"].Images("boxes"), readers[peer].Images("boxes"), strict=True):
        assert (mine.step, mine.wall_time, mine.width, mine.height) == (
            other.step,
            other.wall_time,
            other.width,
            other.height,
        )
        pixels = [
            np.asarray(Image.open(io.BytesIO(each.encoded_image_string)).convert("RGB")) for each in (mine, other)
        ]
        assert (pixels[0] == pixels[1]).all()


@pytest.mark.parametrize(("peer", "tag"), [("tensorboardX", "sound"), ("tensorboardX", "stereo"), ("torch", "sound")])
def test_sounds_are_within_one_step(readers: dict[str, EventAccumulator], peer: str, tag: str) -> None:
    for mine, other in zip(readers["tbxd"].Audio(tag), readers[peer].Audio(tag), strict=True):
        assert (mine.step, mine.wall_time, mine.sample_rate) == (other.step, other.wall_time, other.sample_rate)
        heard = [soundfile.read(io.BytesIO(each.encoded_audio_string), dtype="int16")[0] for each in (mine, other)]
        assert heard[0].shape == heard[1].shape
        assert np.abs(heard[0].astype(int) - heard[1]).max() <= (2 if peer == "torch" else 1)  # torch cuts off


@pytest.mark.parametrize("loader", LOADERS)
def test_both_loaders_list_every_kind_for_its_tab(logged: Path, loader: str) -> None:
    with board(logged, loader) as shown:
        for tab, expected in (
            ("pr_curves", {"curve", "weighted", "raw_curve"}),
            ("mesh", {"mesh_VERTEX", "mesh_FACE", "mesh_COLOR", "cloud_VERTEX"}),
            ("custom_scalars", {"custom_scalars__config__"}),
            ("histograms", {"raw"}),
            ("images", {"boxes"}),
        ):
            shown.until(
                lambda tab=tab, expected=expected: shown.tags(tab).get("tbxd") == expected, f"the tags of {tab}"
            )


def test_several_layouts_add_up(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_custom_scalars_multilinechart(["a", "b"], title="one")
            writer.add_custom_scalars_marginchart(["m", "l", "u"], title="two")
            writer.add_custom_scalars_multilinechart(["c"], "other", "three")
            writer.add_custom_scalars_multilinechart(["d"], title="one")
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    layout = layout_pb2.Layout.FromString(tensors(read(place.logdir / "a"), "custom_scalars__config__")[-1][2].item())
    found = {
        category.title: {
            chart.title: list(chart.multiline.tag) or chart.margin.series[0].value for chart in category.chart
        }
        for category in layout.category
    }
    assert found == {"default": {"one": ["d"], "two": "m"}, "other": {"three": ["c"]}}


def test_a_video_is_shown_and_may_have_torchs_or_any_layout(place: World) -> None:
    result = place.run(
        """
        import numpy as np
        from tbxd_client import SummaryWriter
        frames = np.zeros((1, 4, 3, 8, 10), np.uint8)
        for time in range(4):
            frames[:, time, :, time] = 255
        with SummaryWriter("logs/a") as writer:
            writer.add_video("ntchw", frames, 1, 2)
            writer.add_video("thwc", frames[0].transpose(0, 2, 3, 1), 1, fps=2, dataformats="THWC")
            writer.add_video("floats", frames / 255.0, 1, 2)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    reader = read(place.logdir / "a")
    for tag in ("ntchw", "thwc", "floats"):
        (image,) = reader.Images(tag)
        assert (image.width, image.height) == (10, 8)
        with Image.open(io.BytesIO(image.encoded_image_string)) as video:
            assert (video.format, video.n_frames, video.info["duration"]) == ("GIF", 4, 500)
            for time in range(4):
                video.seek(time)
                rows = np.asarray(video.convert("RGB"))[:, 0, 0]
                assert rows.tolist() == [255 if row == time else 0 for row in range(8)]


def test_metadata_for_several_calls(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            with writer.use_metadata(global_step=7, walltime=1_700_000_000.5):
                writer.add_scalar("within", 1.0)
                writer.add_scalar("own", 1.0, 3, 1_600_000_000.5, True, True)  # torch's new_style, double_precision
                writer.log({"row": 1.0})
                writer.add_histogram("histogram", [1.0])
                writer.add_text("text", "x")
                writer.add_scalars("several", {"a": 1.0})
                try:
                    with writer.use_metadata(global_step=9):
                        writer.add_scalar("inner", 1.0)
                        raise KeyError
                except KeyError:
                    pass
                writer.add_scalar("again", 1.0)
            writer.add_scalar("after", 1.0)
            try:
                writer.use_metadata().__enter__()
            except ValueError as error:
                assert "needs global_step or walltime" in str(error)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    reader = read(place.logdir / "a")
    when = {tag: (reader.Scalars(tag)[0].step, reader.Scalars(tag)[0].wall_time) for tag in reader.Tags()["scalars"]}
    within = (7, 1_700_000_000.5)
    assert when.pop("after")[0] == 0
    assert when == {
        "within": within,
        "own": (3, 1_600_000_000.5),
        "row": within,
        "inner": (9, within[1]),
        "again": within,
    }
    for event in (reader.Histograms("histogram")[0], reader.Tensors("text/text_summary")[0]):
        assert (event.step, event.wall_time) == within
    (several,) = read(place.logdir / "a" / "several" / "a").Scalars("several")
    assert (several.step, several.wall_time) == within
