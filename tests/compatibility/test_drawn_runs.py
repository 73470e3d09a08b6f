"""Drawn calls of every method through the real daemon, read by both of TensorBoard's loaders beside both originals.

What is compared is what `test_properties.py` compares, for fewer examples and all the way: all calls go into one run of
each writer, under a tag of their own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tensorboardX
import torch.utils.tensorboard
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import tbxd_client
from drawn import FLOATS, INTEGERS, Given, given_arrays
from harness import World, world
from tb import LOADERS, Board, board
from tbxd_client.session import session as client_session

EXAMPLES = 12  # calls of each method
WRITERS = {
    "tbxd": tbxd_client.SummaryWriter,
    "tensorboardX": tensorboardX.SummaryWriter,
    "torch": torch.utils.tensorboard.SummaryWriter,
}
STEPS = st.integers(-5, 10**6)
TIMES = st.floats(1, 4e9)
SHARES = given_arrays((9,), FLOATS, odd=False, low=0, high=1)
TRUTHS = given_arrays((9,), ["|b1", "<i8", "<f4"], odd=False, low=0, high=1)
PICTURES = given_arrays(
    (3, 4, 5), ["|u1", "<f4", "<f8"], odd=False, low=0, high=1, carriers=["array", "tensor", "grad"]
)
POINTS = given_arrays((1, 4, 3), carriers=["array", "tensor"])
THREE = st.tuples(*[given_arrays((3,), ["<f4", "<i4"], carriers=["array", "list"])] * 2)

# Of each method a call, and what is drawn for it.
Call = Callable[..., object]
METHODS: dict[str, tuple[Call, tuple[st.SearchStrategy[Any], ...]]] = {
    "scalar": (lambda w, tag, x, step, when: w.add_scalar(tag, x, step, when), (given_arrays(()), STEPS, TIMES)),
    "histogram": (
        lambda w, tag, x, step, when: w.add_histogram(tag, x, step, walltime=when),
        (given_arrays((20,), [*INTEGERS, *FLOATS], odd=False), STEPS, TIMES),
    ),
    "bins": (
        lambda w, tag, x, step, when: w.add_histogram(tag, x, step, 7, when),
        (given_arrays((2, 10), [*INTEGERS, *FLOATS], odd=False), STEPS, TIMES),
    ),
    "raw": (
        lambda w, tag, limits, counts, step, when: w.add_histogram_raw(
            tag, 0.0, 1.0, 3, 2.0, 2.5, np.sort(limits), counts, step, when
        ),
        (given_arrays((3,), FLOATS, False, carriers=["array"]), given_arrays((3,), ["<i4"], False, 0, 9), STEPS, TIMES),
    ),
    "image": (lambda w, tag, x, step, when: w.add_image(tag, x, step, when), (PICTURES, STEPS, TIMES)),
    "images": (
        lambda w, tag, x, step, when: w.add_images(tag, x, step, when, "NHWC"),
        (given_arrays((2, 4, 5, 3), ["|u1", "<f4"], False, 0, 1, carriers=["array", "tensor"]), STEPS, TIMES),
    ),
    "boxes": (
        lambda w, tag, x, y, step, when: w.add_image_with_boxes(tag, x, y, step, when),
        (PICTURES, st.just(Given(np.array([[0, 1, 3, 2]]), np.array([[0, 1, 3, 2]]), "boxes")), STEPS, TIMES),
    ),
    "video": (
        lambda w, tag, x, step, when: w.add_video(tag, x, step, 4, when),
        (given_arrays((1, 2, 3, 4, 5), ["|u1"], carriers=["array", "tensor"]), STEPS, TIMES),
    ),
    "audio": (
        lambda w, tag, x, step, when: w.add_audio(tag, x, step, 8000, when),
        (given_arrays((50,), ["<f4", "<f8"], False, -1, 1, carriers=["tensor"]), STEPS, TIMES),
    ),
    "text": (lambda w, tag, x, step, when: w.add_text(tag, x, step, when), (st.text(max_size=30), STEPS, TIMES)),
    "curve": (
        lambda w, tag, x, y, step, when: w.add_pr_curve(tag, x, y, step, 20, None, when),
        (TRUTHS, SHARES, STEPS, TIMES),
    ),
    "raw_curve": (
        lambda w, tag, two, step, when: w.add_pr_curve_raw(tag, *two, *two, *two, step, 3, None, when),
        (THREE, STEPS, TIMES),
    ),
    "mesh": (
        lambda w, tag, x, y, step, when: w.add_mesh(tag, x, None, y, {"a": 1}, step, when),
        (POINTS, given_arrays((1, 2, 3), ["<i4"], carriers=["array"]), STEPS, TIMES),
    ),
}


@dataclass(slots=True)
class Logged:
    """The folder, and which calls failed with which writer: (writer, tag)."""

    place: World
    failed: set[tuple[str, str]] = field(default_factory=set)
    tags: list[str] = field(default_factory=list)


def _value(given_: Any, plain: bool) -> Any:
    if isinstance(given_, tuple):
        return tuple(_value(one, plain) for one in given_)
    if not isinstance(given_, Given):
        return given_
    return given_.plain if plain or not given_.shared else given_.value


def _log(logged: Logged, writers: dict[str, Any], kind: str, arguments: list[Any]) -> None:
    tag = f"{kind}/{len(logged.tags)}"
    logged.tags.append(tag)
    for name, writer in writers.items():
        ours = [one.value if isinstance(one, Given) else _value(one, False) for one in arguments]
        attempts = [ours] if name == "tbxd" else [[_value(one, plain) for one in arguments] for plain in (False, True)]
        for attempt in attempts:
            try:
                with np.errstate(all="ignore"):
                    METHODS[kind][0](writer, tag, *attempt)
                break
            except Exception:
                assert name != "tbxd"
        else:
            logged.failed.add((name, tag))


def _draw(take: Callable[[list[Any]], None], kind: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*METHODS[kind][1]))
    def draw(arguments: tuple[Any, ...]) -> None:
        take(list(arguments))

    draw()


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """The folders of all three writers, with the same calls in each."""
    assert client_session.active() is None
    with pytest.MonkeyPatch.context() as patch, world(tmp_path_factory.mktemp("drawn") / "world") as place:
        for name, value in place.environ.items():
            patch.setenv(name, value)
        place.serve()
        found = Logged(place)
        writers = {name: make(str(place.logdir / name)) for name, make in WRITERS.items()}
        for kind in METHODS:
            _draw(lambda arguments, kind=kind: _log(found, writers, kind, arguments), kind)
        assert writers["tbxd"].flush(60) is True
        for writer in writers.values():
            writer.close()
        session = client_session.active()
        assert session is not None
        session.end()
        yield found


def test_all_of_it_is_written(logged: Logged) -> None:
    status = logged.place.status()
    assert status is not None
    (run,) = status["runs"].values()
    assert run["accepted"] == run["written"] == len(logged.tags) >= EXAMPLES * len(METHODS) and not run["dropped"]


def scalars(shown: Board, run: str, tag: str) -> Any:
    return [(step, when, np.float64(value)) for step, when, value in shown.timed_scalars(run, tag)]


def arrays(plugin: str) -> Callable[[Board, str, str], Any]:
    return lambda shown, run, tag: shown.tensors(run, tag, plugin)


def blobs(plugin: str) -> Callable[[Board, str, str], Any]:
    def read(shown: Board, run: str, tag: str) -> Any:
        found = []
        for step, parts in shown.blobs(run, tag, plugin):
            if plugin == "audio":  # behind a head of 44 bytes
                found.append((step, np.frombuffer(parts[0][44:], "<i2").astype(int)))
            else:
                picture = np.asarray(Image.open(io.BytesIO(parts[2])).convert("RGB")).astype(int)
                found.append((step, np.append(picture.reshape(-1), [int(part) for part in parts[:2]])))
        return found

    return read


# How the tab reads a kind, and what is added to its tags; how far numbers may be from an original's.
READ: dict[str, tuple[Callable[[Board, str, str], Any], tuple[str, ...], float]] = {
    "scalar": (scalars, ("",), 0),
    **dict.fromkeys(("histogram", "bins", "raw"), (arrays("histograms"), ("",), 0)),
    **dict.fromkeys(("image", "images", "boxes", "video"), (blobs("images"), ("",), 1)),
    "audio": (blobs("audio"), ("",), 2),
    "text": (arrays("text"), ("/text_summary",), 0),
    **dict.fromkeys(("curve", "raw_curve"), (arrays("pr_curves"), ("",), 0)),
    "mesh": (arrays("mesh"), ("_VERTEX", "_FACE"), 0),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_both_loaders_read_the_same_of_all_three(logged: Logged, loader: str) -> None:
    with board(logged.place.logdir, loader) as shown:
        last = f"{logged.tags[-1]}_VERTEX"
        for name in WRITERS:
            shown.until(lambda name=name: last in shown.tags("mesh").get(name, ()) or name == "tensorboardX", last)
        compared = dict.fromkeys(WRITERS, 0)
        for tag in logged.tags:
            kind = tag.split("/")[0]
            read, endings, tolerance = READ[kind]
            for ending in endings:
                ours = read(shown, "tbxd", tag + ending)
                assert len(ours) == 1, tag
                for peer in ("tensorboardX", "torch"):
                    if (peer, tag) in logged.failed or (kind == "mesh" and peer == "tensorboardX"):
                        continue
                    theirs = read(shown, peer, tag + ending)
                    assert [one[:-1] for one in ours] == [one[:-1] for one in theirs], (tag, peer)
                    for mine, other in zip(ours, theirs, strict=True):
                        _same(mine[-1], other[-1], tolerance, f"{tag}, {peer}")
                    compared[peer] += 1
        for peer in ("tensorboardX", "torch"):
            assert compared[peer] > len(logged.tags) * 0.8


def _same(mine: Any, other: Any, tolerance: float, what: str) -> None:
    assert mine.shape == other.shape, what
    if mine.dtype.kind in "OSU":
        assert mine.tolist() == other.tolist(), what
    else:
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=tolerance + 1e-6, err_msg=what)
