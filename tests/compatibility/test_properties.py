"""Whatever is drawn for whichever method: TensorBoard gets of tbxd what it gets of tensorboardX and of torch.

Each test draws arguments, gives them to all three writers of `alike.writers`, and compares what TensorBoard's loader
made of them. Where an original fails, ours may write or refuse, but raises nothing but TypeError and ValueError. Where
ours is meant to differ, docs/COMPATIBILITY.md says so. With ``TBXD_EXAMPLES=1000`` more is drawn.
"""

from __future__ import annotations

import io
import math
import os
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_data
from tensorboard.plugins.mesh import plugin_data_pb2 as mesh_data
from tensorboard.plugins.pr_curve import plugin_data_pb2 as curve_data
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from alike import PEERS, Outcome, Value, picture, writers
from drawn import FLOATS, INTEGERS, TAGS, WALL_TIMES, Given, given_arrays, given_steps

Writers = dict[str, Any]
EXAMPLES = int(os.environ.get("TBXD_EXAMPLES", "40"))  # of each test; more find more
pytestmark = [pytest.mark.filterwarnings("ignore::RuntimeWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]
drawing = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writers]:
    """All three writers."""
    with writers(tmp_path_factory.mktemp("three")) as found:
        yield found


def logged(three: Writers, call: Callable[..., object], *given_: Given) -> dict[str, Outcome]:
    """What became of a call with these values; the originals get plain ones where they cannot take them."""
    found = {"tbxd": three["tbxd"].call(lambda writer: call(writer, *[one.value for one in given_]))}
    for peer in PEERS:
        outcome = None
        if all(one.shared for one in given_):
            outcome = three[peer].call(lambda writer: call(writer, *[one.value for one in given_]))
        if outcome is None or outcome.error is not None:
            outcome = three[peer].call(lambda writer: call(writer, *[one.plain for one in given_]))
        found[peer] = outcome
    return found


def pairs(found: dict[str, Outcome], *peers: str) -> Iterator[tuple[str, Value, Value]]:
    """Our values beside those of the originals that have written any; told apart from where and when they are."""
    ours = found["tbxd"]
    for peer in peers or PEERS:
        theirs = found[peer]
        if theirs.error is not None or not theirs.values:
            continue
        assert ours.logged, (peer, ours.error, ours.refused)
        assert [value.when for value in ours.values] == [value.when for value in theirs.values], peer
        for mine, other in zip(ours.values, theirs.values, strict=True):
            assert mine.told == other.told, peer
            yield peer, mine, other


def close(mine: Any, other: Any, rtol: float = 1e-6, atol: float = 0.0) -> None:
    """Numbers that are the same as float32."""
    assert mine.shape == other.shape and mine.dtype == other.dtype
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol)


# --- scalars ---------------------------------------------------------------------------------------------------

ONE = given_arrays(st.sampled_from([(), (1,), (1, 1), (1, 1, 1)]))
PYTHON = st.one_of(st.floats(), st.integers(-(2**64), 2**64), st.booleans()).map(lambda x: Given(x, x, "number"))


@drawing
@given(st.one_of(ONE, PYTHON), TAGS, given_steps(), WALL_TIMES)
def test_scalars(three: Writers, value: Given, tag: str, step: Any, when: Any) -> None:
    found = logged(three, lambda writer, number: writer.add_scalar(tag, number, step, when), value)
    for _, mine, other in pairs(found):
        close(mine.data, other.data, rtol=0)
    assert found["tbxd"].logged


@drawing
@given(st.text(max_size=20), st.text(max_size=20))
def test_names_and_descriptions(three: Writers, name: str, description: str) -> None:
    found = logged(three, lambda writer: writer.add_scalar("named", 1.0, 2, 3.0, name, description))
    assert found["tbxd"].logged
    if name.isprintable() and "\0" not in description:  # else they are escaped
        assert len(list(pairs(found, "tensorboardX"))) == 1


@drawing
@given(
    st.sampled_from(["chart", "a/b", "c.d"]),
    st.dictionaries(st.sampled_from(["x", "y/z", "w.v", "u_"]), ONE, max_size=3),
    given_steps(),
    WALL_TIMES,
)
def test_several_scalars(three: Writers, tag: str, values: dict[str, Given], step: Any, when: Any) -> None:
    found = logged(
        three,
        lambda writer, *some: writer.add_scalars(tag, dict(zip(values, some, strict=True)), step, when),
        *values.values(),
    )
    for _, mine, other in pairs(found, "tensorboardX"):  # torch names the runs otherwise
        close(mine.data, other.data, rtol=0)


# --- histograms ------------------------------------------------------------------------------------------------


@drawing
@given(
    given_arrays(odd=False, low=-1e5, high=1e5),
    st.just("tensorflow") | st.sampled_from(["auto", "sturges", 7, np.int64(3), [-1e6, 0.0, 5.5, 1e6], (0, 1, 2)]),
    st.none() | st.integers(1, 20),
    given_steps(),
    WALL_TIMES,
)
def test_histograms(three: Writers, values: Given, bins: Any, max_bins: Any, step: Any, when: Any) -> None:
    found = logged(three, lambda writer, array: writer.add_histogram("h", array, step, bins, when, max_bins), values)
    if "bad_bins" in found["tbxd"].refused:  # none of the numbers is in any bin
        assert not any(value.data.size for peer in PEERS for value in found[peer].values)
        return
    for _, mine, other in pairs(found):
        close(mine.data, other.data)


@drawing
@given(given_arrays(shape=hnp.array_shapes(min_dims=0, max_dims=2, min_side=0)), st.sampled_from(["tensorflow", 5]))
def test_histograms_of_odd_numbers_are_those_of_the_finite_ones(three: Writers, values: Given, bins: Any) -> None:
    with np.errstate(all="ignore"):
        finite = values.plain[np.isfinite(values.plain)]
    odd, plain = (
        logged(three, lambda writer, array: writer.add_histogram("h", array, 1, bins, 2.0), one)
        for one in (values, Given(finite, finite, "finite"))
    )
    for _, mine, other in pairs({**plain, "tbxd": odd["tbxd"]}):
        close(mine.data, other.data)


COUNTS = st.integers(1, 6).flatmap(
    lambda size: st.tuples(*(given_arrays((size,), carriers=["array", "tensor", "list"]) for _ in range(2)))
)
STATISTIC = st.floats() | st.integers(-100, 100) | st.floats(width=32).map(np.float32) | st.integers(0, 9).map(np.int64)


@drawing
@given(COUNTS, st.tuples(*[STATISTIC] * 5), given_steps(), WALL_TIMES)
def test_raw_histograms(three: Writers, counts: Any, statistics: Any, step: Any, when: Any) -> None:
    found = logged(three, lambda writer, *two: writer.add_histogram_raw("raw", *statistics, *two, step, when), *counts)
    for _, mine, other in pairs(found):
        close(mine.data, other.data)


# --- pictures --------------------------------------------------------------------------------------------------

MEDIA = ("array", "tensor", "grad", "bfloat16")


@st.composite
def pictures(draw: st.DrawFn, batched: bool, **more: Any) -> tuple[Given, str]:
    """A picture, or several, and which axis is which."""
    letters = draw(st.sampled_from(["NCHW"] if batched else ["HW", "CHW", "NCHW"]))
    layout = "".join(draw(st.permutations(letters)))
    sizes = {letter: draw(st.integers(1, 6)) for letter in "HWN"} | {"C": draw(st.sampled_from([1, 3, 3, 4, 2]))}
    array = draw(given_arrays(tuple(sizes[letter] for letter in layout), carriers=MEDIA, **more))
    return array, draw(st.sampled_from([layout, layout.lower()]))


def same_pictures(found: dict[str, Outcome], *peers: str, atol: int = 0) -> None:
    for peer, mine, other in pairs(found, *peers):
        assert mine.content == other.content
        ours, theirs = picture(mine), picture(other)
        assert ours[:2] == theirs[:2] and ours[2].shape == theirs[2].shape, peer
        assert np.abs(ours[2].astype(int) - theirs[2]).max() <= (0 if peer == "tensorboardX" else atol), peer


@drawing
@given(st.booleans(), st.data(), given_steps(), WALL_TIMES)
def test_pictures(three: Writers, batched: bool, data: st.DataObject, step: Any, when: Any) -> None:
    array, layout = data.draw(pictures(batched, dtypes=["|b1", "|u1", *FLOATS], odd=False, low=0, high=1))
    name = "add_images" if batched else "add_image"
    found = logged(three, lambda writer, img: getattr(writer, name)("p", img, step, when, layout), array)
    same_pictures(found, atol=1)


@drawing
@given(st.data())
def test_pictures_of_other_numbers_are_torchs(three: Writers, data: st.DataObject) -> None:
    array, layout = data.draw(pictures(False, dtypes=FLOATS, low=-2, high=3))
    found = logged(three, lambda writer, img: writer.add_image("p", img, 1, 2.0, layout), array)
    same_pictures(found, "torch", atol=1)  # tensorboardX wraps them around


@drawing
@given(st.data())
def test_masks_of_zeros_and_ones_are_black_and_white_whatever_their_type(three: Writers, data: st.DataObject) -> None:
    array, layout = data.draw(pictures(False, dtypes=["|b1", *INTEGERS, *FLOATS], odd=False, low=0, high=1))
    if array.plain.dtype == np.uint8:
        return
    array.plain, array.value = np.rint(array.plain), np.rint(array.plain)
    found = logged(three, lambda writer, img: writer.add_image("p", img, 1, 2.0, layout), array)
    same_pictures(found)


@drawing
@given(st.data())
def test_lists_of_pictures(three: Writers, data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(["CHW", "HWC"]))
    shape = (3, 4, 5) if layout == "CHW" else (4, 5, 3)
    arrays = [
        data.draw(given_arrays(shape, ["|u1", "<f4"], odd=False, low=0, high=1, carriers=["array", "tensor"]))
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    found = logged(three, lambda writer, *some: writer.add_images("p", list(some), 1, 2.0, layout), *arrays)
    same_pictures(found, "tensorboardX")


@drawing
@given(st.data(), st.sampled_from([1, 2, 0.5]))
def test_pictures_with_boxes(three: Writers, data: st.DataObject, rescale: float) -> None:
    array, layout = data.draw(pictures(False, dtypes=["|u1", "<f4"], odd=False, low=0, high=1))
    count = data.draw(st.integers(0, 3))
    boxes = data.draw(given_arrays((count, 4), ["<f4", "<i4", "<f8"], odd=False, low=0, high=8, carriers=MEDIA))
    boxes.plain, boxes.value = (np.sort(boxes.plain.reshape(-1, 2, 2), axis=1).reshape(-1, 4),) * 2
    found = logged(
        three,
        lambda writer, *two: writer.add_image_with_boxes("b", *two, 1, 2.0, dataformats=layout, rescale=rescale),
        *(array, boxes),
    )
    if rescale != 1 or array.plain.shape[layout.upper().find("C")] == 2:
        # The originals tell the size before it grew, and draw grey boxes where there is grey and alpha.
        assert all(picture(value)[:2] == picture(value)[2].shape[1::-1] for value in found["tbxd"].values)
    else:
        same_pictures(found, atol=1)


def test_labels_of_boxes_that_do_not_fit_are_left_out_as_the_originals_do(three: Writers) -> None:
    image, boxes = np.zeros((3, 20, 20), np.uint8), np.array([[1, 2, 10, 12]])

    def drawn(labels: Any) -> dict[str, Outcome]:
        return logged(three, lambda writer: writer.add_image_with_boxes("b", image, boxes, 1, 2.0, labels=labels))

    same_pictures(drawn(["a", "b"]))
    same_pictures(drawn([]))
    one, listed = (picture(drawn(labels)["tbxd"].values[0])[2] for labels in ("one", ["one"]))
    assert (one == listed).all()


def test_figures(three: Writers) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")

    def figures() -> list[Any]:
        made = []
        for number in range(2):
            figure, axes = pyplot.subplots(figsize=(2, 1.5))
            axes.plot([1, number, 3])
            made.append(figure)
        return made

    for figure in (figures()[0], figures()):
        same_pictures(
            logged(
                three,
                lambda writer, given_: writer.add_figure("f", given_, 3, False, 4.0),
                Given(figure, figure, "figure"),
            )
        )
    assert len(pyplot.get_fignums()) == 4
    for name in three:  # closed where it is not said otherwise
        assert three[name].call(lambda writer: writer.add_figure("f", figures())).error is None
    assert len(pyplot.get_fignums()) == 4
    pyplot.close("all")


# --- videos and sounds -----------------------------------------------------------------------------------------


def film(value: Value) -> Any:
    """What a GIF shows in each hundredth of a second; where none of its frames has a length, the first of them."""
    shown, times = [], []
    with Image.open(io.BytesIO(value.data.tolist()[2])) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            shown.append(np.asarray(image.convert("RGB")))
            times.append(image.info.get("duration", 0) // 10)
    return np.repeat(shown, times, axis=0) if any(times) else np.array(shown[:1])


@settings(drawing, max_examples=max(5, EXAMPLES // 4))
@given(st.data(), st.sampled_from([1, 2, 4, 5, 10, 25]), given_steps(), WALL_TIMES)
def test_videos(three: Writers, data: st.DataObject, fps: int, step: Any, when: Any) -> None:
    letters = data.draw(st.just("NTCHW") | st.permutations("NTCHW").map("".join))
    sizes = {letter: data.draw(st.integers(1, 3)) for letter in "NTHW"} | {"C": 3}
    array = data.draw(
        given_arrays(tuple(sizes[one] for one in letters), ["|u1", "<f4"], odd=False, low=0, high=1, carriers=MEDIA)
    )
    found = logged(three, lambda writer, video: writer.add_video("v", video, step, fps, when, letters), array)
    if letters == "NTCHW":
        found["torch"] = logged(three, lambda writer, video: writer.add_video("v", video, step, fps, when), array)[
            "torch"
        ]
    for _, mine, other in pairs(found, *(PEERS if letters == "NTCHW" else PEERS[:1])):
        assert mine.data[:2].tolist() == other.data[:2].tolist() and mine.content == other.content
        ours, theirs = film(mine), film(other)
        if len(theirs) > 1:  # moviepy makes one frame of equal ones, which has no length where it is the only one
            assert ours.shape == theirs.shape
        assert np.abs(ours[: len(theirs)].astype(int) - theirs).max() <= 1  # 255 * (7 / 255) is 6 with tensorboardX


def sound(value: Value) -> tuple[Any, int]:
    """The samples of a WAV, shape (frames, channels), and their rate."""
    with wave.open(io.BytesIO(value.data.reshape(-1)[0])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.reshape(-1, file.getnchannels()), file.getframerate()


@drawing
@given(st.data(), st.sampled_from([8000, 44100, np.int64(16000)]), given_steps(), WALL_TIMES)
def test_sounds(three: Writers, data: st.DataObject, rate: Any, step: Any, when: Any) -> None:
    shape = data.draw(st.sampled_from([(9,), (9, 1), (9, 2), (1, 9), (1, 1, 9), (1,), (1, 2)]))
    array = data.draw(given_arrays(shape, FLOATS, odd=False, low=-1.5, high=1.5, carriers=MEDIA))
    array.shared = array.plain.dtype == getattr(array.value, "dtype", None)  # tensorboardX makes noise of big endian
    found = logged(three, lambda writer, wav: writer.add_audio("a", wav, step, rate, when), array)
    for peer, mine, other in pairs(found):
        if peer == "torch" and (2 in shape or array.plain.dtype == np.float16):
            continue  # it takes one channel only; of float16 a 1 becomes -32,768
        assert mine.content == other.content
        (ours, rate_), (theirs, others) = sound(mine), sound(other)
        assert rate_ == others == rate and ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).max() <= (1 if peer == "tensorboardX" else 2)


# --- texts -----------------------------------------------------------------------------------------------------


@drawing
@given(TAGS, st.text(max_size=50), given_steps(), WALL_TIMES)
def test_texts(three: Writers, tag: str, text: str, step: Any, when: Any) -> None:
    found = logged(three, lambda writer: writer.add_text(tag, text, step, when))
    for _, mine, other in pairs(found):
        assert mine.content == other.content and mine.data.tolist() == other.data.tolist()
    assert found["tbxd"].logged


# --- curves ----------------------------------------------------------------------------------------------------


@drawing
@given(st.data(), st.integers(1, 200), given_steps(), WALL_TIMES)
def test_curves(three: Writers, data: st.DataObject, thresholds: int, step: Any, when: Any) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=8))
    carriers = ("array", "tensor", "grad", "list")
    labels = data.draw(given_arrays(shape, ["|b1", "|u1", "<i8", "<f4"], odd=False, low=0, high=1, carriers=carriers))
    shares = data.draw(given_arrays(shape, FLOATS, odd=False, low=-0.25, high=1.25, carriers=carriers))
    weights = data.draw(
        st.none().map(lambda none: Given(none, none, "none"))
        | st.floats(0, 9).map(lambda one: Given(one, one, "one"))
        | given_arrays(shape, ["<f8", "<i4"], odd=False, low=0, high=5, carriers=["array"])
    )
    found = logged(
        three,
        lambda writer, truth, share, weight: writer.add_pr_curve("c", truth, share, step, thresholds, weight, when),
        *(labels, shares, weights),
    )
    assert found["tbxd"].logged
    if thresholds > 127:  # the originals stop there
        return
    for _, mine, other in pairs(found):
        close(mine.data, other.data, atol=1e-6)
        assert curve_data.PrCurvePluginData.FromString(mine.content) == curve_data.PrCurvePluginData.FromString(
            other.content
        )


@drawing
@given(st.data(), st.integers(1, 9), given_steps(), WALL_TIMES)
def test_raw_curves(three: Writers, data: st.DataObject, thresholds: int, step: Any, when: Any) -> None:
    rows = [data.draw(given_arrays((thresholds,), carriers=["array", "tensor", "list"])) for _ in range(6)]
    found = logged(three, lambda writer, *six: writer.add_pr_curve_raw("r", *six, step, thresholds, None, when), *rows)
    for _, mine, other in pairs(found):
        close(mine.data, other.data)
        assert curve_data.PrCurvePluginData.FromString(mine.content) == curve_data.PrCurvePluginData.FromString(
            other.content
        )


# --- meshes ----------------------------------------------------------------------------------------------------


@drawing
@given(st.data(), st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4) | st.integers(), max_size=2))
def test_meshes(three: Writers, data: st.DataObject, config: Any) -> None:
    batch, count, sides = (data.draw(st.integers(1, 3)) for _ in range(3))
    parts = [data.draw(given_arrays((batch, count, 3), carriers=["array", "tensor", "grad", "list"]))]
    with_colors, with_faces = data.draw(st.booleans()), data.draw(st.booleans())
    none = Given(None, None, "none")
    parts.append(data.draw(given_arrays((batch, count, 3), ["|u1", "<i8", "<f4"])) if with_colors else none)
    parts.append(data.draw(given_arrays((batch, sides, 3), ["<i4", "<i8", "|u1"])) if with_faces else none)
    found = logged(three, lambda writer, *some: writer.add_mesh("m", *some, config, 1, 2.0), *parts)
    for _, mine, other in pairs(found, "torch"):  # tensorboardX's tags are none that the tab finds
        close(mine.data, other.data)
        assert mesh_data.MeshPluginData.FromString(mine.content) == mesh_data.MeshPluginData.FromString(other.content)


# --- tensors ---------------------------------------------------------------------------------------------------


@drawing
@given(given_arrays(carriers=["tensor", "grad"]), given_steps(), WALL_TIMES)
def test_tensors(three: Writers, array: Given, step: Any, when: Any) -> None:
    array.plain = torch.from_numpy(array.plain)
    found = logged(three, lambda writer, tensor: writer.add_tensor("t", tensor, step, when), array)
    for value in found["torch"].values:
        value.data_class = 2  # it leaves it out, and no loader lists the tag
    for _, mine, other in pairs(found, "torch"):
        assert mine.data.dtype == other.data.dtype and mine.data.shape == other.data.shape
        assert np.array_equal(mine.data, other.data, equal_nan=mine.data.dtype.kind == "f")


# --- hyper-parameters ------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.text(max_size=5),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),  # which is not equal to itself
    st.just(max),
    st.none(),
)
NAMES = st.text("abc/_", min_size=1, max_size=4).filter(lambda name: not name.startswith("/"))


@pytest.mark.parametrize("peer", PEERS)
@drawing
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, ONE, max_size=3), given_steps())
def test_hyper_parameters(
    three: Writers, peer: str, values: dict[str, Any], metrics: dict[str, Given], step: Any
) -> None:
    arguments = ("named", step) if peer == "tensorboardX" else (None, "named", step)
    if peer == "torch":  # which makes numbers of bools
        values = {name: value for name, value in values.items() if not isinstance(value, bool)}
    found = logged(
        three,
        lambda writer, *some: writer.add_hparams(values, dict(zip(metrics, some, strict=True)), *arguments),
        *metrics.values(),
    )
    assert found["tbxd"].logged
    if found[peer].error is not None:
        return
    mine, other = ({value.tag: value for value in found[name].values} for name in ("tbxd", peer))
    # Without domains no experiment: TensorBoard would show the columns of the first that it finds, for all rows.
    assert mine.keys() == other.keys() - {"_hparams_/experiment"}
    for tag in mine:
        value = other[tag]
        assert (mine[tag].told, mine[tag].run) == (value.told, value.run)
        if value.plugin == "hparams":  # where the tab looks at no step
            ours, theirs = (hparams_data.HParamsPluginData.FromString(one.content) for one in (mine[tag], value))
            assert ours == theirs
        else:
            assert mine[tag].step == value.step
            close(mine[tag].data, value.data)


# --- layouts ---------------------------------------------------------------------------------------------------

CHARTS = st.tuples(st.just("Multiline"), st.lists(NAMES, max_size=3)) | st.tuples(
    st.just("Margin"), st.lists(NAMES, min_size=2, max_size=4)
)
LAYOUTS = st.dictionaries(NAMES, st.dictionaries(NAMES, CHARTS.map(list), max_size=3), max_size=3)


@drawing
@given(LAYOUTS)
def test_layouts(three: Writers, layout: dict[str, Any]) -> None:
    three["tbxd"].writer._tbxd_layout = {}  # the originals forget their earlier calls, ours add up
    found = logged(three, lambda writer: writer.add_custom_scalars(layout))
    for peer in PEERS:
        if found[peer].error is not None:
            assert isinstance(found["tbxd"].error, ValueError)
            continue
        (mine,), (other,) = found["tbxd"].values, found[peer].values
        assert (mine.run, mine.tag, mine.step, mine.told) == (other.run, other.tag, other.step, other.told)
        assert layout_pb2.Layout.FromString(mine.data.item()) == layout_pb2.Layout.FromString(other.data.item())


# --- embeddings ------------------------------------------------------------------------------------------------

CELLS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=5) | st.integers() | st.floats()


@dataclass(slots=True)
class Table:
    """The files of an embedding, as the PROJECTOR tab finds them."""

    name: str
    numbers: str
    labels: str | None
    sprite: Any
    side: list[int]

    @property
    def texts(self) -> tuple[Any, ...]:
        """All but the picture."""
        return self.name, self.numbers, self.labels, self.side

    @classmethod
    def last_of(cls, folder: Path, name: str) -> Table:
        """What the last entry of that name in a folder's configuration leads to."""
        config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
        info = [info for info in config.embeddings if info.tensor_name == name][-1]
        return cls(
            info.tensor_name,
            (folder / info.tensor_path).read_text(),
            (folder / info.metadata_path).read_text("utf8") if info.metadata_path else None,
            np.asarray(Image.open(folder / info.sprite.image_path)) if info.sprite.image_path else None,
            list(info.sprite.single_image_dim),
        )


@drawing
@given(st.data(), st.integers(1, 5), st.none() | st.integers(0, 10**6))
def test_embeddings(three: Writers, data: st.DataObject, points: int, step: Any) -> None:
    mat = data.draw(given_arrays((points, data.draw(st.integers(1, 4))), carriers=["array", "tensor", "grad", "list"]))
    header = data.draw(st.none() | st.lists(CELLS.map(str), min_size=1, max_size=3))
    row = CELLS if header is None else st.lists(CELLS, min_size=len(header), max_size=len(header))
    labels = data.draw(st.none() | st.lists(row, min_size=points, max_size=points))
    none = Given(None, None, "none")
    side = data.draw(st.integers(1, 3))
    shape = (points, data.draw(st.sampled_from([1, 3])), side, side)
    images = data.draw(st.just(none) | given_arrays(shape, FLOATS, odd=False, low=0, high=1, carriers=["tensor"]))
    if images.plain is not None:
        images.plain = torch.from_numpy(images.plain)  # torch takes nothing else
    found = logged(
        three, lambda writer, *two: writer.add_embedding(two[0], labels, two[1], step, "e", header), mat, images
    )
    assert found["tbxd"].logged
    name = f"e:{step or 0:05d}"
    mine = Table.last_of(three["tbxd"].root, name)
    for peer in PEERS:
        if found[peer].error is not None:
            continue
        other = Table.last_of(three[peer].root, name)
        if labels is not None and header is not None and len(header) == 1:  # TensorBoard takes it for a label
            other.labels = (other.labels or "").partition("\n")[2]
        assert (mine.name, mine.numbers, mine.labels, mine.side) == (
            other.name,
            other.numbers,
            other.labels,
            other.side,
        )
        if other.sprite is not None:
            used = slice(0, -(-points // math.ceil(points**0.5)) * side)  # below is whatever tensorboardX had in memory
            assert mine.sprite.shape == other.sprite.shape
            assert np.abs(mine.sprite[used].astype(int) - other.sprite[used]).max() <= 1
