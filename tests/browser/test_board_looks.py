"""The tab "tbxd" on what is odd: runs, tags, values and windows as somebody may have them.

In a real TensorBoard, with each of its loaders, in a real browser.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from board_folder import BEGUN, curve, write_run
from browser import Page, answer, chromium, from_data_url, missing, tensorboard
from harness import DEADLINE, absent, wait_for
from tb import SHOWN

pytestmark = pytest.mark.long

MANY = 28  # runs of one chart
CARD = "const card = tag => found('article').find(one => one.dataset.tag === tag);"
LONG_NAME = "sweep/model=large,dataset=imagenet,lr=0.001,warmup=500,seed={},augment=none"
NAN, INF = math.nan, math.inf
RTL, CONTROL = "عربي/\u202eevil", "bell\x07/new\nline"
NARROW_VALUES = [29.26 + 4e-6 * (place % 5) for place in range(50)]


def write_odd(folder: Path) -> None:
    """Runs and tags that somebody may have."""
    for seed in range(MANY):
        values = [math.exp(-step / 30) + seed / 20 for step in range(60)]
        write_run(folder / LONG_NAME.format(seed), {"many": curve(values)}, BEGUN + seed)
    odd = {
        "narrow": curve(NARROW_VALUES),
        "only nan": curve([NAN, INF, -INF] * 4),
        "nan of one": curve([NAN] * 10),
        "gaps": curve([1, NAN, 2, 3, INF]),
        "one": curve([3.14]),
        "tiny": curve([1e-12] * 3),
        "epochs": [(step, BEGUN + 100 * epoch + step, float(epoch)) for epoch in range(3) for step in range(50)],
        "huge": curve([3e38, -3e38, 1e38]),
        "below 0": curve([-1, -2, 0]),
        "nanoseconds": curve(range(5), first=1_700_000_000_000_000_001, stride=10**9),
        "long/" + "tag" * 300 + "/x": curve([1, 2]),
        "long/" + "tag" * 300 + "/y": curve([1, 2]),
        RTL: curve([1, 2]),
        CONTROL: curve([1, 2]),
        **{name: curve([1, 2]) for name in ("10", "9", "1", "__proto__", "constructor")},
    }
    write_run(folder / "a", odd, BEGUN - 1)
    write_run(folder / "b", {"nan of one": curve(range(10)), "narrow": curve(NARROW_VALUES[1:])})
    write_run(folder / RTL, {"narrow": curve([29.26])})
    write_run(folder / "__proto__", {"narrow": curve([29.26])})


@dataclass
class Odd:
    """A TensorBoard on odd runs."""

    page: Page
    driver: Any
    folder: Path
    address: str

    def open(self, dark: bool = False) -> None:
        """The tab, with all tags of the runs in it."""
        self.page.open("tbxd", dark=dark)
        self.page.shows(
            "return found('article').length >= 18 && found('#runs li').length >= 32", "the cards and the runs"
        )

    def rows(self, tag: str) -> Any:
        """The rows of a card once it has been scrolled to: what is seen of each, and its full name."""
        script = CARD + (
            "const one = card(arguments[0]); one?.scrollIntoView({block: 'center'});"
            "const rows = one && found('tbody tr', one); return rows?.length && rows.map(row => "
            "[found('bdi', row)[0].textContent, found('td.run', row)[0].title, found('td.value', row)[0].textContent, "
            "found('td.step', row)[0].textContent])"
        )
        return self.page.shows(script, f"the rows of {tag!r}", tag)

    def said(self, tag: str, what: str) -> str:
        """Return the text of a part of a card."""
        self.rows(tag)
        script = CARD + f"return found('.{what}', card(arguments[0]))[0].textContent"
        return str(self.page.shows(script, f"{what} of {tag!r}", tag))

    def looks(self) -> dict[str, str]:
        """Return the style of each run's line."""
        found = self.page.run(
            "return found('#runs li').map(item => { const {backgroundColor, backgroundImage} = "
            "getComputedStyle(found('.swatch', item)[0]); return [found('input', item)[0].dataset.run, "
            "backgroundColor + backgroundImage] })"
        )
        return dict(found)


@pytest.fixture(scope="module", params=SHOWN)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    if what := missing():
        absent(what)
    root = tmp_path_factory.mktemp("odd")
    folder = root / "logs"
    write_odd(folder)
    option = "--load_fast=" + ("true" if request.param == "fast" else "false")
    with tensorboard(folder, root / "tensorboard.log", option, "--reload_interval=1") as address:
        wait_for(lambda: len(answer(f"{address}data/runs")) >= MANY + 4, "the runs")
        with chromium() as driver:
            yield Odd(Page(driver, address, root), driver, folder, address)


def test_all_tags_have_a_card_in_their_order(odd: Odd) -> None:
    odd.open()
    tags = odd.page.run("return found('article').map(one => one.dataset.tag)")
    assert {"__proto__", "constructor"} < set(tags) and tags.index("1") < tags.index("9") < tags.index("10")
    assert odd.page.errors() == []


def test_a_chart_without_a_finite_value_says_so(odd: Odd) -> None:
    odd.open()
    assert odd.said("only nan", "empty") == "no finite value: 4 NaN, 4 inf, 4 -inf"
    label = odd.page.run(CARD + "return card('only nan').ariaLabel")
    assert label == "only nan: no finite value: 4 NaN, 4 inf, 4 -inf"
    assert odd.said("nan of one", "note") == "a has no finite value (10 NaN)"
    assert [row[2] for row in odd.rows("nan of one")] == ["NaN", "9"]
    assert "gaps here: 2" in odd.said("gaps", "note") and odd.rows("gaps")[0][2] == "inf"


def test_a_line_does_not_go_back_with_its_steps(odd: Odd) -> None:
    """The fast loader has the last epoch alone; what the slow one has are three level lines, and nothing between."""
    odd.open()
    odd.rows("epochs")
    canvas = CARD + "return card('epochs') && found('canvas', card('epochs'))[0].toDataURL()"
    color = CARD + r"return getComputedStyle(found('tbody .swatch', card('epochs'))[0]).color.match(/\d+/g).map(Number)"
    odd.page.shows(f"{canvas} > 'data:image/png;base64,' ", "the chart")
    pixels = from_data_url(odd.page.run(canvas)).astype(int)
    inked = (abs(pixels - odd.page.run(color)).max(axis=-1) < 60).sum(axis=1)
    rows = [int(count) for count in inked if count]
    assert rows and min(rows) > pixels.shape[1] / 2, "each row that is drawn in is all of a level line"


def test_a_log_scale_says_what_it_does_not_show(odd: Odd) -> None:
    odd.open()
    odd.rows("below 0")
    odd.page.run("found('#log')[0].click()")
    odd.page.shows(
        CARD + "return found('.empty', card('below 0'))[0].textContent.startsWith('no value is above 0')", "the reason"
    )
    assert odd.said("huge", "note").endswith("not on a log scale: 1")
    assert odd.page.errors() == []


def test_values_of_a_narrow_range_differ_in_the_table_and_long_steps_are_exact(odd: Odd) -> None:
    odd.open()
    values = [row[2] for row in odd.rows("narrow")]
    assert len(values) == 4 and set(values) == {"29.26", "29.260015"}
    assert odd.rows("nanoseconds")[0][3] == "1700000004000000001"


def test_names_in_a_table_differ_and_are_whole_when_pointed_at_and_for_screen_readers(odd: Odd) -> None:
    odd.open()
    rows = odd.rows("many")
    assert len({row[0] for row in rows}) == len(rows) >= 20
    assert {row[1] for row in rows} <= {LONG_NAME.format(seed) for seed in range(MANY)}
    assert all(("…" in row[0] and row[0] in row[1]) or "seed=" in row[0] for row in rows), rows
    spoken = odd.page.run(
        CARD + "return found('tbody tr', card('many'))"
        ".map(row => [found('.spoken', row)[0].textContent, found('bdi', row)[0].ariaHidden])"
    )
    assert [tuple(one) for one in spoken] == [(row[1], "true") for row in rows]
    whole = odd.page.run(
        CARD + "return found('tbody bdi', card('many')).every(one => getComputedStyle(one).textOverflow === 'clip'"
        " && box(one).right <= box(one.closest('td')).right)"
    )
    assert whole, "nothing is cut beyond that"


def test_marks_of_direction_and_control_characters_are_shown_as_such(odd: Odd) -> None:
    odd.open()
    text = odd.page.run("return found('main')[0].textContent + found('article').map(one => one.ariaLabel).join()")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
    assert "\\u{202e}evil" in text and "bell\\u{7}" in text and "new\\u{a}line" in text
    heads = odd.page.run("return found('article h3').map(one => [one.textContent, one.title])")
    long = [head for head in heads if head[1].startswith("long/")]
    assert len(long) == 2 and all(len(head[0]) < 150 < len(head[1]) for head in long)
    assert odd.page.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_runs_can_be_told_apart(odd: Odd, dark: bool) -> None:
    odd.open(dark)
    looks = odd.looks()
    assert len(looks) >= MANY + 4 and len(set(looks.values())) == len(looks)


def test_a_run_keeps_its_look_when_others_come_and_when_the_page_is_loaded_anew(odd: Odd) -> None:
    odd.open()
    odd.driver.execute_script("localStorage.clear()")  # it may have seen the runs while TensorBoard was reading them
    odd.open()
    before = odd.looks()
    known = len(before)
    for name in ("0 sorts first", "zz sorts last", "sweep/in between"):
        write_run(odd.folder / f"{name} {known}", {"narrow": curve([29.26] * 3)}, time.time())
    odd.page.shows(f"return found('#runs li').length === {known + 3}", "the new runs")
    after = odd.looks()
    assert {run: after[run] for run in before} == before and len(set(after.values())) == len(after)
    odd.open()
    odd.page.shows(f"return found('#runs li').length === {known + 3}", "all runs")
    assert odd.looks() == after
    odd.driver.execute_script("localStorage.clear()")
    odd.open()
    odd.page.shows(f"return found('#runs li').length === {known + 3}", "all runs")
    assert odd.looks() == after, "and in a browser that remembers nothing"


def test_a_run_that_is_pointed_at_stands_out(odd: Odd) -> None:
    odd.open()
    odd.rows("many")
    run = LONG_NAME.format(7)
    odd.page.run(
        "found('#runs li').find(item => found('input', item)[0].dataset.run === arguments[0])"
        ".dispatchEvent(new Event('pointerenter'))",
        run,
    )
    odd.page.shows(
        CARD + "return found('tr.bold td.run', card('many')).map(cell => cell.title).join() === arguments[0]",
        "its row",
        run,
    )
    canvas = CARD + "const {left, top, right, bottom} = box(found('canvas', card('many'))[0]);"
    odd.page.run("found('#runs li').forEach(item => item.dispatchEvent(new Event('pointerleave')))")
    at = odd.page.run(canvas + "return [(left + right) / 2, (top + bottom) / 2]")
    odd.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": at[0], "y": at[1]})
    told = odd.page.shows(CARD + "return found('.told', card('many'))[0].textContent", "what the pointer is at")
    assert re.fullmatch(re.escape(LONG_NAME).replace(r"\{\}", r"\d+") + r": [\d.]+ at step \d+", told), told


@pytest.mark.parametrize(("width", "height"), [(360, 740), (750, 575)], ids=["phone", "zoom"])
def test_nothing_is_wider_than_a_narrow_window(odd: Odd, width: int, height: int) -> None:
    """As on a phone, and at a zoom of 200 % on the tests' window."""
    size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
    odd.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        odd.open()
        odd.rows("many")
        wide = odd.page.run(
            "const root = found('main')[0].ownerDocument.documentElement;"
            "const rights = found('article').map(one => Math.round(one.getBoundingClientRect().right));"
            "return [root.scrollWidth, root.clientWidth, ...rights]"
        )
        assert max(wide) <= wide[1] <= width, wide
        first = odd.page.run("return [found('article')[0].offsetTop, found('details')[0].open]")
        assert first[0] < 900 and first[1] is False, "the charts are not behind a list of all runs"
    finally:
        odd.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_many_points_of_many_runs_are_a_small_answer_that_keeps_ends_and_extremes(tmp_path: Path) -> None:
    runs, points = 200, 1000
    for run in range(runs):
        values = [math.sin(step / 50 + run) for step in range(points)]
        values[500 + run] = 99.0
        values[300] = -99.0
        write_run(tmp_path / "logs" / f"run{run}", {"loss": curve(values)}, BEGUN + run)
    with tensorboard(tmp_path / "logs", tmp_path / "log", "--reload_interval=1") as address:

        def ask(**body: Any) -> tuple[int, Any]:
            data = json.dumps({"tag": "loss", "runs": [f"run{run}" for run in range(runs)], **body}).encode()
            request = urllib.request.Request(f"{address}data/plugin/tbxd/points", data, method="POST")
            with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                text = response.read()
            return len(text), json.loads(text)

        def whole() -> Any:
            size, found = ask()
            curves = found["data"]["curves"]
            return (
                (size, found)
                if len(curves) == runs and all(one["steps"][-1] == points - 1 for one in curves.values())
                else None
            )

        size, found = wait_for(whole, "all points")
        assert size < 2_000_000, size
        for name, one in found["data"]["curves"].items():
            assert len(one["values"]) <= 110 and one["points"] == points
            assert one["steps"][0] == 0 and one["steps"] == sorted(one["steps"])
            peak = dict(zip(one["steps"], one["values"], strict=True))
            assert peak[500 + int(name.removeprefix("run"))] == 99.0 and peak[300] == -99.0
        assert ask(known=found["digest"])[1] == {"same": True}
        few = ask(runs=["run0", "run1"])[1]["data"]["curves"]
        assert [len(one["values"]) for one in few.values()] == [points, points], "of a few runs all are there"


def test_a_tensorboard_that_is_gone_is_not_shown_as_a_daemon_that_runs(tmp_path: Path) -> None:
    if what := missing():
        absent(what)
    write_run(tmp_path / "logs" / "run", {"loss": curve([1, 2])})
    with chromium() as driver:
        with tensorboard(tmp_path / "logs", tmp_path / "log") as address:
            page = Page(driver, address, tmp_path)
            page.open("tbxd")
            page.shows("return found('#state')[0]?.className === 'down' && found('article').length === 1", "the page")
        page.shows("return found('#state')[0].textContent === 'TensorBoard does not answer'", "that it is gone")
        assert page.run("return found('article').length") == 1, "what was shown stays"
