"""Every method with every odd argument: a program for `test_odd_values.py`, which reads what it has left.

``python odd_calls.py FOLDER`` makes each call of `calls` and prints as JSON which raised and with what words, which did
what none may do, and what became of the records.
"""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
import itertools
import json
import math
import resource
import sys
import time
import unittest.mock
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tbxd_client import SummaryWriter

NAN, INF = math.nan, math.inf
FILES = ("add_onnx_graph", "add_openvino_graph")  # which read a file; where there is none, that is an OSError
SECONDS = 20.0  # that a call may take, on a machine under load
MEMORY_MIB = 700  # what all calls together may take beyond what the program had; the largest arrays have gigabytes


class _Evil:
    """Raises whatever it is asked for."""

    def _raise(self, *arguments: Any) -> Any:
        raise ZeroDivisionError("evil")

    __array__ = __float__ = __int__ = __index__ = __str__ = __len__ = __iter__ = __getitem__ = item = _raise


class _Only:
    """Has nothing but the one way to its numbers."""

    def __init__(self, how: str) -> None:
        self._array = np.arange(3.0)
        if how == "dlpack":
            self.__class__ = type("Dlpack", (_Only,), {"__dlpack__": lambda s, **k: s._array.__dlpack__(**k)})
            self.__dlpack_device__ = self._array.__dlpack_device__
        elif how == "interface":
            self.__array_interface__ = self._array.__array_interface__
        else:
            self.__class__ = type("Array", (_Only,), {"__array__": lambda s, *a, **k: s._array})


def _endless() -> list[Any]:
    found: list[Any] = [1.0]
    found.append(found)
    return found


def _holding_itself() -> Any:
    found = np.empty(2, object)
    found[:] = [1.0, found]
    return found


# Makers: some of these can be used once only.
PYTHON: dict[str, Callable[[], Any]] = {
    "nan": lambda: NAN,
    "inf": lambda: INF,
    "-inf": lambda: -INF,
    "-0.0": lambda: -0.0,
    "tiny": lambda: 5e-324,
    "1e300": lambda: 1e300,
    "True": lambda: True,
    "None": lambda: None,
    "": lambda: "",
    "text": lambda: "text",
    "number as text": lambda: "1.5",
    "bytes": lambda: b"bytes",
    "complex": lambda: 1j,
    "object": object,
    "class": lambda: int,
    "function": lambda: max,
    "module": lambda: math,
    "...": lambda: ...,
    "2**64": lambda: 2**64,
    "10**400": lambda: 10**400,
    "10**5000": lambda: 10**5000,
    "-10**400": lambda: -(10**400),
    "Decimal": lambda: decimal.Decimal("1.5"),
    "Decimal nan": lambda: decimal.Decimal("nan"),
    "Decimal snan": lambda: decimal.Decimal("snan"),
    "Decimal 1e400": lambda: decimal.Decimal("1e400"),
    "Fraction": lambda: fractions.Fraction(1, 3),
    "date": lambda: datetime.datetime(2020, 1, 1),
    "surrogate": lambda: "\ud800",
    "NUL": lambda: "a\0b",
    "escape": lambda: "\x1b[31m",
    "4 KiB": lambda: "x" * 4096,
    "euros": lambda: "\u20ac" * 400,
    "..": lambda: "../../..",
    "absolute": lambda: "/etc/passwd",
    "slash": lambda: "/",
    "dot": lambda: ".",
    "newline": lambda: "a\nb\tc",
    "mock": unittest.mock.MagicMock,
    "evil": _Evil,
}
LISTS: dict[str, Callable[[], Any]] = {
    "[]": lambda: [],
    "()": lambda: (),
    "[[]]": lambda: [[]],
    "ragged": lambda: [[1.0, 2.0], [3.0]],
    "[1]": lambda: [1],
    "[[1]]": lambda: [[1]],
    "[nan]": lambda: [NAN, INF],
    "[None]": lambda: [None],
    "[text]": lambda: ["a", "b"],
    "[complex]": lambda: [1j],
    "[object]": lambda: [object()],
    "[evil]": lambda: [_Evil()],
    "[mixed]": lambda: [1, "a", None],
    "[large]": lambda: [10**400],
    "[tensors]": lambda: [torch.ones(2)] * 2,
    "[unlike]": lambda: [torch.ones(2), torch.ones(3)],
    "endless": _endless,
    "{}": lambda: {},
    "{a: 1}": lambda: {"a": 1},
    "{1: 2}": lambda: {1: 2},
    "{a: {}}": lambda: {"a": {}},
    "{a: {b: c}}": lambda: {"a": {"b": "c"}},
    "{a: {b: [c]}}": lambda: {"a": {"b": ["Multiline", "c"]}},
    "{a: nan}": lambda: {"a": NAN},
    "{''}": lambda: {"": 1.0},
    "{surrogate}": lambda: {"\ud800": "\ud800"},
    "{..}": lambda: {"../../x": 1.0, "/etc/y": 2.0},
    "set": lambda: {1, 2},
    "range": lambda: range(3),
    "generator": lambda: (one for one in (1, 2)),
    "iterator": lambda: iter([1.0]),
    "array.array": lambda: array.array("f", [1.0, 2.0]),
    "memoryview": lambda: memoryview(b"abc"),
    "bytearray": lambda: bytearray(3),
    "dlpack": lambda: _Only("dlpack"),
    "array only": lambda: _Only("array"),
    "interface": lambda: _Only("interface"),
}
NUMPY: dict[str, Callable[[], Any]] = {
    "np 0-d": lambda: np.array(1.5),
    "np nan": lambda: np.float32(NAN),
    "np (0,)": lambda: np.zeros(0),
    "np (0, 3)": lambda: np.zeros((0, 3)),
    "np (3, 0, 2)": lambda: np.zeros((3, 0, 2), np.uint8),
    "np all nan": lambda: np.full((3, 4, 4), NAN),
    "np inf f2": lambda: np.full((1, 3, 3), INF, "<f2"),
    "np bool": lambda: np.array([True, False]),
    "np i1": lambda: np.arange(-3, 3, dtype="i1"),
    "np u8": lambda: np.array([2**64 - 1], "u8"),
    "np f2": lambda: np.arange(3, dtype="f2"),
    "np longdouble": lambda: np.array([1e300, NAN]).astype(np.longdouble) * 1e300,
    "np complex": lambda: np.ones((3, 4, 4), complex),
    "np object": lambda: np.array([object()]),
    "np objects that are numbers": lambda: np.array([1.0, 2.0], object),
    "np holds itself": _holding_itself,
    "np text": lambda: np.array(["a"]),
    "np bytes": lambda: np.array([b"a"]),
    "np dates": lambda: np.array(["2020"], "M8[Y]"),
    "np void": lambda: np.zeros(2, "V9"),
    "np fields": lambda: np.zeros(2, [("a", "f4")]),
    "np big endian": lambda: np.arange(3, dtype=">i4"),
    "np picture": lambda: np.zeros((3, 4, 5), np.uint8),
    "np 65535 x 65535": lambda: np.broadcast_to(np.uint8(0), (65535, 65535)),
    "np 3 x 65535 x 65535": lambda: np.broadcast_to(np.float32(0), (3, 65535, 65535)),
    "np 2**31 x 2**31": lambda: np.broadcast_to(np.uint8(0), (2**31, 2**31)),
    "np huge big endian": lambda: np.broadcast_to(np.zeros((), ">f8"), (2**20, 2**20)),
    "np 9 axes": lambda: np.zeros((1,) * 9),
    "np 32 axes": lambda: np.zeros((1,) * 32),
    "np masked": lambda: np.ma.masked_invalid([1.0, NAN, 3.0]),
    "np masked ints": lambda: np.ma.array([1, 2], mask=[0, 1]),
    "np.ma.masked": lambda: np.ma.masked,
    "np.matrix": lambda: np.matrix([[1.0, 2.0]]),
    "np read-only": lambda: np.broadcast_to(np.float32(1), (3, 3)),
    "np backwards": lambda: np.arange(9.0)[::-2],
}
TENSORS: dict[str, Callable[[], Any]] = {
    "t 0-d nan": lambda: torch.tensor(NAN),
    "t (0,)": lambda: torch.zeros(0),
    "t grad": lambda: torch.ones(3).requires_grad_(),
    "t bfloat16": lambda: torch.ones(3, 4, 4, dtype=torch.bfloat16),
    "t complex": lambda: torch.ones(3, dtype=torch.complex64),
    "t float8": lambda: torch.ones(3, 4).to(torch.float8_e4m3fn),
    "t e8m0": lambda: torch.ones(3).to(torch.float8_e8m0fnu),
    "t half complex": lambda: torch.ones(3).to(torch.complex32),
    "t meta": lambda: torch.empty(3, device="meta"),
    "t huge meta": lambda: torch.empty(2**40, device="meta"),
    "t sparse": lambda: torch.eye(3).to_sparse(),
    "t csr": lambda: torch.eye(3).to_sparse_csr(),
    "t huge sparse": lambda: torch.sparse_coo_tensor(size=(2**30, 2**20)),
    "t quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.qint8),
    "t 65535 x 65535": lambda: torch.zeros(1, dtype=torch.uint8).expand(65535, 65535),
    "t huge bfloat16": lambda: torch.zeros(1, dtype=torch.bfloat16).expand(2**16, 2**16),
    "t conj": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "t uint16": lambda: torch.ones(3, dtype=torch.uint16),
    "t nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "t inference": lambda: torch.inference_mode()(torch.ones)(3),
    "t 9 axes": lambda: torch.zeros((1,) * 9),
}


def _jax() -> dict[str, Callable[[], Any]]:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return {}

    def tracer() -> Any:
        leaked: list[Any] = []
        jax.make_jaxpr(lambda x: leaked.append(x) or x)(1.0)
        return leaked[0]

    return {
        "jax": lambda: jnp.ones((3, 4, 4)),
        "jax 0-d": lambda: jnp.array(NAN),
        "jax (0,)": lambda: jnp.zeros(0),
        "jax bfloat16": lambda: jnp.ones(3, jnp.bfloat16),
        "jax float8": lambda: jnp.ones(3, jnp.float8_e4m3fn),
        "jax int4": lambda: jnp.ones(3, jnp.int4),
        "jax bool": lambda: jnp.array([True]),
        "jax key": lambda: jax.random.key(0),
        "jax complex": lambda: jnp.ones(3, complex),
        "jax tracer": tracer,
    }


VALUES = PYTHON | LISTS | NUMPY | TENSORS | _jax()
STEPS: dict[str, Callable[[], Any]] = {
    "-5": lambda: -5,
    "2**63 - 1": lambda: 2**63 - 1,
    "-2**63": lambda: -(2**63),
    "2**63": lambda: 2**63,
    "1.5": lambda: 1.5,
    "7.0": lambda: 7.0,
    "1e19": lambda: 1e19,
    "np.int64": lambda: np.int64(3),
    "tensor": lambda: torch.tensor(3),
}
TIMES: dict[str, Callable[[], Any]] = {
    "0": lambda: 0,
    "-1e9": lambda: -1e9,
    "1e300": lambda: 1e300,
    "-1e300": lambda: -1e300,
    "5e-324": lambda: 5e-324,
    "tensor": lambda: torch.tensor(1.5),
}

PICTURE, SOUND, MAT = np.zeros((3, 4, 4), np.uint8), np.zeros(9, "f4"), np.eye(3)
BOXES, POINTS = np.array([[0, 0, 2, 2]]), np.zeros((1, 4, 3), "f4")
LABELS, SHARES, ROWS = [1, 0, 1], [0.1, 0.2, 0.9], [[1, 2, 3]] * 6
RAW = {"min": 0.0, "max": 1.0, "num": 3, "sum": 2.0, "sum_squares": 2.5}

# Each method with good arguments but for its tag, step and time; `more` is what has neither.
Method = Callable[..., object]
METHODS: dict[str, Method] = {
    "add_scalar": lambda w, tag, step=1, when=2.0, **k: w.add_scalar(tag, 1.0, step, when, **k),
    "add_scalars": lambda w, tag, step=1, when=2.0, **k: w.add_scalars(tag, {"a": 1.0}, step, when, **k),
    "log": lambda w, tag, step=1, when=2.0: w.log({_hashed(tag): 1.0, "b": 2.0}, step, when),
    "add_histogram": lambda w, tag, step=1, when=2.0, **k: w.add_histogram(tag, MAT, step, 5, when, **k),
    "add_histogram_raw": lambda w, tag, step=1, when=2.0, **k: w.add_histogram_raw(
        tag, *RAW.values(), [1.0, 2.0], [1, 2], step, when, **k
    ),
    "add_histograms": lambda w, tag, step=1, when=2.0, **k: w.add_histograms({_hashed(tag): MAT}, step, 5, when, **k),
    "add_image": lambda w, tag, step=1, when=2.0, **k: w.add_image(tag, PICTURE, step, when, **k),
    "add_images": lambda w, tag, step=1, when=2.0, **k: w.add_images(tag, PICTURE[None], step, when, **k),
    "add_image_with_boxes": lambda w, tag, step=1, when=2.0, **k: w.add_image_with_boxes(
        tag, PICTURE, BOXES, step, when, **k
    ),
    "add_figure": lambda w, tag, step=1, when=2.0, **k: w.add_figure(tag, _figure(), step, False, when, **k),
    "add_heatmap": lambda w, tag, step=1, when=2.0, **k: w.add_heatmap(tag, MAT, step, when, **k),
    "add_video": lambda w, tag, step=1, when=2.0, **k: w.add_video(tag, PICTURE[None, None], step, 4, when, **k),
    "add_audio": lambda w, tag, step=1, when=2.0, **k: w.add_audio(tag, SOUND, step, 8000, when, **k),
    "add_text": lambda w, tag, step=1, when=2.0, **k: w.add_text(tag, "text", step, when, **k),
    "add_pr_curve": lambda w, tag, step=1, when=2.0, **k: w.add_pr_curve(tag, LABELS, SHARES, step, 9, None, when, **k),
    "add_pr_curve_raw": lambda w, tag, step=1, when=2.0, **k: w.add_pr_curve_raw(tag, *ROWS, step, 3, None, when, **k),
    "add_mesh": lambda w, tag, step=1, when=2.0, **k: w.add_mesh(tag, POINTS, None, None, None, step, when, **k),
    "add_tensor": lambda w, tag, step=1, when=2.0, **k: w.add_tensor(tag, MAT, step, when, **k),
}
UNTIMED: dict[str, Method] = {
    "add_embedding": lambda w, tag, step=1: w.add_embedding(MAT, None, None, step, tag),
    "add_hparams": lambda w, tag, step=1: w.add_hparams({"a": 1}, {_hashed(tag): 1.0}, "run", step),
    "add_custom_scalars": lambda w, tag: w.add_custom_scalars({_hashed(tag): {"chart": ["Multiline", ["a"]]}}),
}
# Each place where a value goes.
PLACES: dict[str, Callable[[Any, str, Any], object]] = {
    "add_scalar": lambda w, tag, x: w.add_scalar(tag, x, 1),
    "add_scalar(display_name)": lambda w, tag, x: w.add_scalar(tag, 1.0, 1, None, x),
    "add_scalar(summary_description)": lambda w, tag, x: w.add_scalar(tag, 1.0, 1, None, "", x),
    "add_scalars": lambda w, tag, x: w.add_scalars(tag, x, 1),
    "add_scalars({a: value})": lambda w, tag, x: w.add_scalars("s", {"a": x, "b": 1.0}, 1),
    "log": lambda w, tag, x: w.log(x, 1),
    "log({a: value})": lambda w, tag, x: w.log({"a": 1.0, "b": x}, 1),
    "add_histogram": lambda w, tag, x: w.add_histogram(tag, x, 1),
    "add_histogram(auto)": lambda w, tag, x: w.add_histogram(tag, x, 1, "auto"),
    "add_histogram(bins)": lambda w, tag, x: w.add_histogram(tag, MAT, 1, x),
    "add_histogram(max_bins)": lambda w, tag, x: w.add_histogram(tag, MAT, 1, "tensorflow", None, x),
    "add_histograms": lambda w, tag, x: w.add_histograms(x, 1),
    "add_histograms({a: array})": lambda w, tag, x: w.add_histograms({_hashed(tag): x}, 1),
    "add_histogram_raw(buckets)": lambda w, tag, x: w.add_histogram_raw(tag, **RAW, bucket_limits=x, bucket_counts=x),
    "add_histogram_raw(statistics)": lambda w, tag, x: w.add_histogram_raw(tag, x, x, x, x, x, [1.0], [2.0]),
    "add_image": lambda w, tag, x: w.add_image(tag, x, 1),
    "add_image(HW)": lambda w, tag, x: w.add_image(tag, x, 1, dataformats="HW"),
    "add_image(dataformats)": lambda w, tag, x: w.add_image(tag, PICTURE, 1, dataformats=x),
    "add_images": lambda w, tag, x: w.add_images(tag, x, 1),
    "add_image_with_boxes(picture)": lambda w, tag, x: w.add_image_with_boxes(tag, x, BOXES, 1),
    "add_image_with_boxes(boxes)": lambda w, tag, x: w.add_image_with_boxes(tag, PICTURE, x, 1),
    "add_image_with_boxes(labels)": lambda w, tag, x: w.add_image_with_boxes(tag, PICTURE, BOXES, 1, labels=x),
    "add_image_with_boxes(rescale)": lambda w, tag, x: w.add_image_with_boxes(tag, PICTURE, BOXES, 1, rescale=x),
    "add_figure": lambda w, tag, x: w.add_figure(tag, x, 1),
    "add_heatmap": lambda w, tag, x: w.add_heatmap(tag, x, 1),
    "add_heatmap(colormap)": lambda w, tag, x: w.add_heatmap(tag, MAT, 1, colormap=x),
    "add_heatmap(vmin, vmax)": lambda w, tag, x: w.add_heatmap(tag, MAT, 1, vmin=x, vmax=x),
    "add_heatmap(labels)": lambda w, tag, x: w.add_heatmap(tag, MAT, 1, row_labels=x, column_labels=x),
    "add_video": lambda w, tag, x: w.add_video(tag, x, 1),
    "add_video(fps)": lambda w, tag, x: w.add_video(tag, PICTURE[None, None], 1, x),
    "add_video(dataformats)": lambda w, tag, x: w.add_video(tag, PICTURE[None], 1, dataformats=x),
    "add_audio": lambda w, tag, x: w.add_audio(tag, x, 1),
    "add_audio(sample_rate)": lambda w, tag, x: w.add_audio(tag, SOUND, 1, x),
    "add_text": lambda w, tag, x: w.add_text(tag, x, 1),
    "add_pr_curve": lambda w, tag, x: w.add_pr_curve(tag, x, x, 1),
    "add_pr_curve(predictions)": lambda w, tag, x: w.add_pr_curve(tag, LABELS, x, 1),
    "add_pr_curve(thresholds)": lambda w, tag, x: w.add_pr_curve(tag, LABELS, SHARES, 1, x),
    "add_pr_curve(weights)": lambda w, tag, x: w.add_pr_curve(tag, LABELS, SHARES, 1, 9, x),
    "add_pr_curve_raw": lambda w, tag, x: w.add_pr_curve_raw(tag, x, x, x, x, x, x, 1),
    "add_mesh(vertices)": lambda w, tag, x: w.add_mesh(tag, x),
    "add_mesh(colors)": lambda w, tag, x: w.add_mesh(tag, POINTS, x),
    "add_mesh(faces)": lambda w, tag, x: w.add_mesh(tag, POINTS, None, x),
    "add_mesh(config)": lambda w, tag, x: w.add_mesh(tag, POINTS, None, None, x),
    "add_tensor": lambda w, tag, x: w.add_tensor(tag, x, 1),
    "add_embedding": lambda w, tag, x: w.add_embedding(x, tag="e"),
    "add_embedding(metadata)": lambda w, tag, x: w.add_embedding(MAT, x, tag="e"),
    "add_embedding(label_img)": lambda w, tag, x: w.add_embedding(MAT, None, x, tag="e"),
    "add_embedding(header)": lambda w, tag, x: w.add_embedding(MAT, [["a"]] * 3, None, 1, "e", x),
    "add_hparams(values)": lambda w, tag, x: w.add_hparams(x, {}, "run"),
    "add_hparams({a: value})": lambda w, tag, x: w.add_hparams({"a": x}, {}, "run"),
    "add_hparams(metrics)": lambda w, tag, x: w.add_hparams({"a": 1}, x, "run"),
    "add_hparams({metric: value})": lambda w, tag, x: w.add_hparams({"a": 1}, {"metric": x}, "run"),
    "add_hparams(third)": lambda w, tag, x: w.add_hparams({"a": 1}, {}, x),
    "add_hparams(run_name)": lambda w, tag, x: w.add_hparams({"a": 1}, {}, run_name=x),
    "add_hparams(domains)": lambda w, tag, x: w.add_hparams({"a": 1}, {}, hparam_domain_discrete=x, run_name="run"),
    "add_custom_scalars": lambda w, tag, x: w.add_custom_scalars(x),
    "add_custom_scalars({a: value})": lambda w, tag, x: w.add_custom_scalars({"a": x}),
    "add_custom_scalars(chart)": lambda w, tag, x: w.add_custom_scalars({"a": {"b": x}}),
    "add_custom_scalars_multilinechart": lambda w, tag, x: w.add_custom_scalars_multilinechart(x),
    "add_custom_scalars_marginchart": lambda w, tag, x: w.add_custom_scalars_marginchart(x),
    "add_custom_scalars_marginchart(title)": lambda w, tag, x: w.add_custom_scalars_marginchart(["a"] * 3, x, x),
    "add_graph": lambda w, tag, x: w.add_graph(x),
    "add_onnx_graph": lambda w, tag, x: w.add_onnx_graph(x),
    "add_openvino_graph": lambda w, tag, x: w.add_openvino_graph(x),
    "file_writer.add_event": lambda w, tag, x: w.file_writer.add_event(x),
    "file_writer.add_summary": lambda w, tag, x: w.file_writer.add_summary(x),
    "file_writer.add_graph": lambda w, tag, x: w.file_writer.add_graph(x),
}

_drawn: list[Any] = []


def _hashed(tag: Any) -> Any:
    """A tag that a dictionary takes."""
    try:
        hash(tag)
    except TypeError:
        return "none that a dictionary takes"
    return tag


def _figure() -> Any:
    if not _drawn:
        from matplotlib.figure import Figure

        _drawn.append(Figure(figsize=(0.3, 0.3)))
    return _drawn[0]


def calls() -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Yield the calls with their descriptions; each takes a writer."""
    number = itertools.count()
    for (place, call), (name, make) in itertools.product(PLACES.items(), VALUES.items()):
        yield f"{place}: {name}", lambda w, call=call, make=make: call(w, f"{next(number)}", make())
    few = {name: VALUES[name] for name in (*PYTHON, "[]", "[1]", "np (0,)", "np.ma.masked", "t meta", "t 0-d nan")}
    for (method, call), (name, make) in itertools.product((METHODS | UNTIMED).items(), few.items()):
        yield f"{method}(tag={name})", lambda w, call=call, make=make: call(w, make())
    for (method, call), (name, make) in itertools.product((METHODS | UNTIMED).items(), (few | STEPS).items()):
        if method != "add_custom_scalars":
            yield f"{method}(step={name})", lambda w, call=call, make=make: call(w, f"{next(number)}", step=make())
    for (method, call), (name, make) in itertools.product(METHODS.items(), (few | TIMES).items()):
        yield f"{method}(walltime={name})", lambda w, call=call, make=make: call(w, f"{next(number)}", when=make())
    for (method, call), (name, make) in itertools.product(METHODS.items(), few.items()):
        if method != "log":
            yield f"{method}(color={name})", lambda w, call=call, make=make: call(w, f"{next(number)}", color=make())
    for name in dict.fromkeys(place.split("(")[0] for place in PLACES):
        if "." not in name:
            yield f"{name}()", lambda w, name=name: getattr(w, name)()
            yield f"{name}(unknown=1)", lambda w, name=name: getattr(w, name)("t", unknown=1)


def main(folder: str) -> None:
    """Make the calls and say what happened."""
    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of which no user wants to hear
    writer = SummaryWriter(folder)
    raised: dict[str, str] = {}
    wrong: dict[str, str] = {}
    made = 0
    writer.add_scalar("first", 1.0, 1)
    writer.add_figure("first figure", _figure(), 1, False)  # imports matplotlib
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, call in calls():
        accepted = _accepted(writer)
        made += 1
        started = time.monotonic()
        try:
            call(writer)
        except (TypeError, ValueError) as error:
            raised[what] = f"{type(error).__name__}: {error}"
            if _accepted(writer) != accepted:
                wrong[what] = f"raised {error!r} after it had logged something"
        except OSError as error:
            if not what.startswith(FILES):
                wrong[what] = f"{type(error).__name__}: {error}"
        except BaseException as error:
            wrong[what] = f"{type(error).__name__}: {error}"
        if time.monotonic() - started > SECONDS:
            wrong[what] = f"took {time.monotonic() - started:.1f} s"
        if made % 3000 == 0 and not _settled(writer, 60):
            wrong[what] = "flush"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MEMORY_MIB:
        wrong["memory"] = f"{grown:.0f} MiB"
    writer.add_scalar("last", 1.0, 1)
    if not _settled(writer, 120):
        wrong["flush"] = "False"
    print(json.dumps({"made": made, "raised": raised, "wrong": wrong, "stats": writer.stats(), "grown": grown}))


def _settled(writer: Any, seconds: float) -> bool:
    """Whether all is written or counted; `flush` alone is also False where something could not be kept."""
    return writer.flush(seconds) or not writer.stats()["pending"]


def _accepted(writer: Any) -> int:
    return int(writer.stats()["accepted"])


if __name__ == "__main__":
    main(sys.argv[1])
