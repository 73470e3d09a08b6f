"""The parts of the tab's page that are pure functions, in a real browser: labels of axes, colours, names, numbers."""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from board_folder import BEGUN
from browser import chromium, missing
from harness import absent
from tbxd import tensorboard_plugin
from tbxd.cli.short_names import shorten

STATIC = Path(tensorboard_plugin.__file__).parent / "static"
# Each example is dozens of cases, for one question to the browser; making it smaller would ask for minutes.
SLOW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
DISTANCE_LEAST, CONTRAST_LEAST, COLORS_LEAST = 15.0, 3.0, 20


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Parts:
    """The modules of the page, by themselves."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def call(self, module: str, expression: str, *arguments: Any) -> Any:
        """What an expression gives, with the module as ``m`` and the arguments as ``a``."""
        script = f"const a = [...arguments]; return import('/{module}.js').then(m => ({expression}))"
        return self._driver.execute_script(script, *arguments)

    def zone(self, name: str) -> None:
        """Be somewhere."""
        self._driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": name})


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    if what := missing():
        absent(what)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(STATIC)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium() as driver:
            driver.get(f"http://127.0.0.1:{server.server_port}/board.css")
            yield Parts(driver)
    finally:
        server.shutdown()
        server.server_close()


# --- labels of axes ---------------------------------------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SINGLES = st.floats(allow_nan=False, allow_infinity=False, width=32)
NARROW = st.builds(lambda base, part: (base, base + abs(base) * part), SINGLES, st.floats(1e-12, 1e-3))
RANGES = st.one_of(
    st.tuples(FLOATS, FLOATS),
    st.tuples(SINGLES, SINGLES),
    NARROW,
    st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    st.sampled_from(
        [(1e-9, 1e9), (29.26, 29.260001), (0.0, 5e-324), (-1.7e308, 1.7e308), (0, 3_000_000), (1e9, 1e9 + 1)]
    ),
).map(lambda ends: tuple(sorted(ends)))
ABOUT = st.integers(2, 9)
ENOUGH = 5  # ticks that there may be, and then there are two
THOUSANDS = {"k": 3, "M": 6}
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def number(text: str) -> Decimal:
    """Return the number of a label."""
    if text[-1] in THOUSANDS:
        return Decimal(text[:-1]).scaleb(THOUSANDS[text[-1]])
    return Decimal(text)


def holds(ticks: list[dict[str, Any]], said: list[Decimal], low: float, high: float, about: int) -> None:
    """Labels tell apart what they label: distinct, in order, within half a tick, and between the ends."""
    texts, values = [tick["text"] for tick in ticks], [Decimal(repr(float(tick["value"]))) for tick in ticks]
    assert len(set(texts)) == len(texts) <= about, texts
    assert said == sorted(said) and values == sorted(set(values)), texts
    step = min((after - before for before, after in pairwise(values)), default=Decimal(abs(high)))
    for value, one in zip(values, said, strict=True):
        assert abs(value - one) <= step / 2 and low <= float(value) <= high, (texts, value, low, high)
    if about >= ENOUGH and high - low > max(abs(low), abs(high)) * 1e-12 and high - low > 1e-300:
        assert len(ticks) >= 2, (low, high, about)


@SLOW
@given(st.lists(st.tuples(RANGES, ABOUT), min_size=30, max_size=60))
def test_labels_of_a_linear_axis_tell_apart_what_they_label(parts: Parts, ranges: Any) -> None:
    asked = [[low, high, about] for (low, high), about in ranges]
    found = parts.call("axis", "a[0].map(one => m.linear(...one))", asked)
    for (low, high, about), ticks in zip(asked, found, strict=True):
        holds(ticks, [number(tick["text"]) for tick in ticks], low, high, about)


@SLOW
@given(st.lists(st.tuples(st.tuples(st.floats(-320, 308), st.floats(1e-9, 600)), ABOUT), min_size=30, max_size=60))
def test_labels_of_a_logarithmic_axis_tell_apart_what_they_label(parts: Parts, ranges: Any) -> None:
    asked = [[low, min(308.2, low + wide), about] for (low, wide), about in ranges if low + 1e-9 < 308.2]
    found = parts.call("axis", "a[0].map(one => m.logarithmic(...one))", asked)
    for (bottom, top, about), ticks in zip(asked, found, strict=True):
        low, high = 10**bottom, 10**top
        slack = 1 - 1e-9
        holds(ticks, [number(tick["text"]) for tick in ticks], low * slack, high / slack, about)


@SLOW
@given(st.lists(st.tuples(st.tuples(st.floats(0, 1e8), st.floats(1e-3, 1e8)), ABOUT), min_size=30, max_size=60))
def test_labels_of_a_stretch_of_time_tell_apart_what_they_label(parts: Parts, ranges: Any) -> None:
    asked = [[low, low + wide, about] for (low, wide), about in ranges]
    found = parts.call("axis", "a[0].map(one => m.relative(...one))", asked)
    for (low, high, about), ticks in zip(asked, found, strict=True):
        texts = [tick["text"].split(" ") for tick in ticks]
        said = [number(text) * UNITS[unit] for text, unit in texts]
        assert len({unit for _, unit in texts}) <= 1
        holds(ticks, said, low * (1 - 1e-15) - 1e-300, high * (1 + 1e-15), about)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
@SLOW
@given(data=st.data())
def test_labels_of_times_of_day_tell_apart_what_they_label(parts: Parts, zone: str, data: Any) -> None:
    parts.zone(zone)
    clocks_back = datetime(2026, 10, 25, 0, 30, tzinfo=ZoneInfo("UTC")).timestamp()  # in Berlin an hour comes twice
    begin = st.one_of(st.floats(0, 4e9), st.just(clocks_back), st.just(BEGUN))
    ranges = data.draw(st.lists(st.tuples(begin, st.floats(1e-4, 1e9), ABOUT), min_size=30, max_size=60))
    asked = [
        [low, low + wide, about] for low, wide, about in [*ranges, (clocks_back, 7000, 6), (clocks_back, 86400 * 4, 6)]
    ]
    found = parts.call("axis", "a[0].map(one => m.clock(...one))", asked)
    for (low, high, about), ticks in zip(asked, found, strict=True):
        texts, values = [tick["text"] for tick in ticks], [tick["value"] for tick in ticks]
        assert len(set(texts)) == len(texts) <= about and values == sorted(set(values)), texts
        assert len(values) >= 2 or about < ENOUGH, (low, high, about)
        steps = [after - before for before, after in pairwise(values)]
        for value, text in zip(values, texts, strict=True):
            assert low - 1e-6 <= value <= high + 1e-6
            alone = 60 if ":" in text else 86400
            assert off(text, value, zone) <= min(steps, default=alone) / 2, (text, value)


def off(text: str, value: float, zone: str) -> float:
    """Seconds between what a label says and where it is. What it leaves out is as it is there."""
    tz = ZoneInfo("UTC" if text.endswith(" UTC") else zone)
    there = datetime.fromtimestamp(value, tz)
    found = re.fullmatch(r"(?:(\d{4})-)?(?:(\d\d)-(\d\d))? ?(?:(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?)?(?: UTC)?", text)
    assert found is not None, text
    year, month, day, hour, minute, second = found.groups()
    near = there + timedelta(hours=12) if hour is None else there  # a date is a day's, which may have 23 hours
    said = datetime(
        int(year or near.year), int(month or near.month), int(day or near.day), int(hour or 0), int(minute or 0)
    )
    said += timedelta(seconds=float(second or 0))
    return abs((there.replace(tzinfo=None) - said).total_seconds())


def test_ticks_side_by_side_have_room(parts: Parts) -> None:
    """And where two have none, one is there."""
    asked = [[0, 500, 250], [10**15, 10**15 + 10, 250], [0, 10**18, 60], [3, 3, 250], [0, 1, 250], [0.1, 0.1, 100]]
    width = "text => text.length * 6"
    found = parts.call(
        "axis", f"a[0].map(([low, high, room]) => m.fitting(m.steps, low, high, room, 12, {width}))", asked
    )
    assert [tick["text"] for tick in found[0]] == ["0", "100", "200", "300", "400", "500"]
    assert [tick["text"] for tick in found[3]] == ["3"] and [tick["text"] for tick in found[5]] == ["0.1"]
    assert [tick["text"] for tick in found[4]] == ["0", "1"], "there is no half step"
    for (low, high, room), ticks in zip(asked, found, strict=True):
        assert ticks
        for before, after in pairwise(ticks):
            apart = (after["value"] - before["value"]) / (high - low) * room
            assert apart >= (len(before["text"]) + len(after["text"])) * 3 + 12


@SLOW
@given(st.lists(SINGLES, min_size=1, max_size=80))
def test_a_value_with_all_its_digits_is_that_value(parts: Parts, values: list[float]) -> None:
    for value, text in zip(values, parts.call("numbers", "a[0].map(m.exact)", values), strict=True):
        assert np.float32(text) == np.float32(value) and len(text) <= 16


def test_values_of_a_narrow_range_are_told_apart(parts: Parts) -> None:
    values = [float(np.float32(29.26) + np.float32(4e-6) * place) for place in range(5)]
    assert (
        len(set(parts.call("numbers", "a[0].map(value => m.text(value, a[1]))", values, 2e-5))) == len(set(values)) == 5
    )
    assert parts.call("numbers", "m.text(a[0], 3)", 0.91919134) == "0.91919"


# --- colours ----------------------------------------------------------------------------------------------------------


def linear(color: str) -> Any:
    """The red, green and blue of #rrggbb, as light."""
    channels = np.asarray([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2.1 defines it."""
    dim, bright = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (bright + 0.05) / (dim + 0.05)


def lab(color: str) -> Any:
    """CIE L*a*b* under D65."""
    matrix = np.asarray(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = matrix @ linear(color) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: Any, other: Any) -> float:
    """How different two colours look: Sharma, Wu, Dalal, "The CIEDE2000 Color-Difference Formula", 2005."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * math.sqrt(mean**7 / (mean**7 + 25**7))
    c1, c2 = math.hypot(a1 * stretch, b1), math.hypot(a2 * stretch, b2)
    h1, h2 = (math.degrees(math.atan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    middle = (h1 + h2) / 2 + (180 if abs(h1 - h2) > 180 and h1 + h2 < 360 else -180 if abs(h1 - h2) > 180 else 0)
    middle = middle if c1 * c2 else h1 + h2
    t = 1 - sum(
        part * math.cos(math.radians(times * middle + ahead))
        for part, times, ahead in ((0.17, 1, -30), (-0.24, 2, 0), (-0.32, 3, 6), (0.2, 4, -63))
    )
    sl = 1 + 0.015 * (light - 50) ** 2 / math.sqrt(20 + (light - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    rotation = (
        -2
        * math.sqrt(chroma**7 / (chroma**7 + 25**7))
        * math.sin(math.radians(60 * math.exp(-(((middle - 275) / 25) ** 2))))
    )
    parts = ((l2 - l1) / sl, (c2 - c1) / sc, hue / sh)
    return math.sqrt(sum(part**2 for part in parts) + rotation * parts[1] * parts[2])


@pytest.mark.parametrize(
    ("one", "other", "distance"),  # of the table in that paper
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_of_colours_is_measured_right(one: Any, other: Any, distance: float) -> None:
    assert ciede2000(one, other) == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize("name", ["LIGHT", "DARK"])
def test_colours_of_runs_differ_from_each_other_and_from_what_is_behind_them(parts: Parts, name: str) -> None:
    colors = parts.call("palette", f"m.{name}")
    assert len(set(colors)) == len(colors) >= COLORS_LEAST
    theme = re.findall(r"--(?:back|card): (#[0-9a-f]+)", (STATIC / "board.css").read_text())
    behind = ["#" + "".join(2 * digit for digit in one[1:]) if len(one) == 4 else one for one in theme]
    assert len(behind) == 4
    for back in behind[:2] if name == "LIGHT" else behind[2:]:
        assert min(contrast(color, back) for color in colors) >= CONTRAST_LEAST
    distances = {
        (one, other): ciede2000(lab(one), lab(other)) for place, one in enumerate(colors) for other in colors[:place]
    }
    assert min(distances.values()) >= DISTANCE_LEAST, min(distances.items(), key=lambda item: item[1])


def test_lines_of_one_colour_differ_by_their_dashes(parts: Parts) -> None:
    dashes = parts.call("palette", "m.DASHES")
    assert dashes[0] == [] and len({tuple(dash) for dash in dashes}) == len(dashes) >= 4
    assert all(len(dash) % 2 == 0 for dash in dashes)


NAMES = st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=60)
ASSIGN = "[...m.assign(a[0], new Map(a[1].map(([name, slot]) => [m.hash(name), slot])), m.alike(a[2]))]"


@SLOW
@given(NAMES, st.data())
def test_a_colour_stays_with_its_name_whoever_comes_or_goes(parts: Parts, names: list[str], data: Any) -> None:
    before = dict(parts.call("palette", ASSIGN, names, [], []))
    assert len(set(before.values())) == len(names), "no two look the same"
    more = data.draw(NAMES)
    left = [name for name in names if data.draw(st.booleans())]
    later = [*left, *(name for name in more if name not in left)]
    after = dict(parts.call("palette", ASSIGN, later, list(before.items()), []))
    assert {name: after[name] for name in left} == {name: before[name] for name in left}
    assert len(set(after.values())) == len(later)
    assert dict(parts.call("palette", ASSIGN, later, list(after.items()), [])) == after, "a reload changes nothing"
    fresh = dict(parts.call("palette", ASSIGN, [*names, *(name for name in more if name not in names)], [], []))
    assert {name: fresh[name] for name in names} == before, "and who begins later takes nothing away"


def test_the_asked_colour_is_not_given_to_another(parts: Parts) -> None:
    colors = parts.call("palette", "m.LIGHT")
    names = [f"run{number}" for number in range(len(colors) - 1)]
    slots = dict(parts.call("palette", ASSIGN, names, [], [colors[3]]))
    assert 3 not in slots.values() and len(set(slots.values())) == len(names)


def test_more_runs_than_looks_are_still_drawn(parts: Parts) -> None:
    slots = dict(parts.call("palette", ASSIGN, [f"run{number}" for number in range(300)], [], []))
    most = parts.call("palette", "m.SLOTS")
    assert len(slots) == 300 and len(set(slots.values())) == most >= 200


# --- names ------------------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(["sweep", "/", "lr=0.001", ",", "seed=", "1", "2", "😀", "م", "\u202e", "\n", "e\u0301", "\\u{a}"]),
    max_size=30,
)
LONG = st.lists(st.one_of(PIECES.map("".join), st.text(max_size=40)).filter(bool), unique=True, min_size=1, max_size=20)


@SLOW
@given(LONG, st.integers(3, 40))
def test_names_that_are_cut_differ_where_whole_ones_do(parts: Parts, names: list[str], most: int) -> None:
    names = [name.encode(errors="replace").decode() for name in names]
    names = list(dict.fromkeys(names))
    cut = parts.call("names", "m.shorten(a[0], a[1])", names, most)
    assert len(set(cut)) == len(names), cut
    for name, short in zip(names, cut, strict=True):
        assert all(one.isprintable() or one in "\u200c\u200d" or one.isspace() for one in short if ord(one) < 0x3000), (
            short
        )
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028\u2029]", short)
        assert "…" in short or "…" in name or len(short) >= len(name)


def test_names_are_cut_where_they_are_alike(parts: Parts) -> None:
    sweep = [f"experiments/2026/lr=0.001,bs=32,seed={seed}" for seed in (1, 2, 11)]
    assert parts.call("names", "m.shorten(a[0], 12)", sweep) == ["…seed=1", "…seed=2", "…seed=11"]
    middle = [f"{'a' * 30}{letter}{'b' * 30}" for letter in "xyz"]
    for letter, short in zip("xyz", parts.call("names", "m.shorten(a[0], 12)", middle), strict=True):
        assert letter in short and len(short) == 12
    (alone,) = parts.call("names", "m.shorten(a[0], 12)", ["begin" + "-" * 50 + "end"])
    assert alone.startswith("begin") and alone.endswith("end") and len(alone) == 12
    assert parts.call("names", "m.shorten(['short', 'name'], 12)") == ["short", "name"]


@SLOW
@given(st.lists(st.text("ab/_=1", min_size=1, max_size=40), unique=True, min_size=1, max_size=20), st.integers(3, 40))
def test_the_command_line_cuts_names_as_the_page_does(parts: Parts, names: list[str], most: int) -> None:
    assert shorten(names, most) == parts.call("names", "m.shorten(a[0], a[1])", names, most)
