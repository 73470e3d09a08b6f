"""Tags and colours as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbxd_client.protocol.records import TAG_BYTES_MAX
from tbxd_client.values.names import COLORS, clean_tag, given_tag, parse_color


@pytest.mark.parametrize("tag", ["loss", "train/loss", "größe Ω 日本", "/a//b", "", "a\u00a0b", np.str_("x")])
def test_an_ordinary_tag_is_kept_as_given(tag: str) -> None:
    assert clean_tag(tag) == tag
    assert type(clean_tag(tag)) is str


@pytest.mark.parametrize(
    ("tag", "clean"), [("a\nb\x00", "a\\x0ab\\x00"), ("\x7f\x9b", "\\x7f\\x9b"), ("x\ud800", "x\\ud800")]
)
def test_what_cannot_be_shown_is_escaped(tag: str, clean: str) -> None:
    assert clean_tag(tag) == clean


@given(st.text(st.characters(), max_size=200))
def test_every_clean_tag_is_utf8_and_stays_as_it_is(tag: str) -> None:
    clean = clean_tag(tag)
    clean.encode()
    assert clean_tag(clean) == clean


def test_a_tag_has_at_most_so_many_bytes() -> None:
    assert clean_tag("x" * TAG_BYTES_MAX) == "x" * TAG_BYTES_MAX
    assert clean_tag("ä" * (TAG_BYTES_MAX // 2))
    for tag in ("x" * (TAG_BYTES_MAX + 1), "ä" * (TAG_BYTES_MAX // 2 + 1)):
        with pytest.raises(ValueError, match=r"1,02[56] bytes; at most 1,024"):
            clean_tag(tag)


@pytest.mark.parametrize(
    ("given", "tag"),
    [(None, ""), (b"train/loss", "train/loss"), ("ü".encode(), "ü"), (b"\xff", clean_tag("\udcff")), ("loss", "loss")],
)
def test_the_tag_of_a_value_is_taken_as_protocol_buffers_take_it(given: Any, tag: str) -> None:
    assert given_tag(given) == tag
    with pytest.raises(TypeError, match="a tag is a string"):
        given_tag(5)


@pytest.mark.parametrize("tag", [None, 5, b"loss", ["loss"]])
def test_a_tag_that_is_no_string_raises(tag: Any) -> None:
    with pytest.raises(TypeError, match="a tag is a string"):
        clean_tag(tag)


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("#f0A", "#ff00aa"),
        ("#12AbEf", "#12abef"),
        ("Red", "#ff0000"),
        ("tab:blue", "#1f77b4"),
        ((255, 0, 1), "#ff0001"),
        ([1.0, 0.5, 0], "#ff8000"),
        ((1, 1, 1), "#010101"),
        ((np.float32(1), 0.0, 0.0), "#ff0000"),
        ((np.uint8(200), 0, 0), "#c80000"),
    ],
)
def test_a_colour_becomes_rrggbb(color: Any, expected: str) -> None:
    assert parse_color(color) == expected


@pytest.mark.parametrize(
    "color",
    ["", "#12", "#12345g", "reddish", (1, 2), (256, 0, 0), (-1, 0, 0), (1.1, 0, 0), (float("nan"), 0.0, 0.0), 5, None,
     ("a", "b", "c"), (True, None, 1), b"red"],
)  # fmt: skip
def test_what_is_no_colour_raises_and_says_what_is(color: Any) -> None:
    with pytest.raises(ValueError, match="'#rrggbb'"):
        parse_color(color)


def test_the_named_colours_are_matplotlibs() -> None:
    colors = pytest.importorskip("matplotlib.colors")
    assert {name: colors.to_hex(name) for name in COLORS} == COLORS
