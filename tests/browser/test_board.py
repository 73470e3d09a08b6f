"""The tab "tbxd" in a real TensorBoard, with each of its loaders, in a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Page, answer, chromium, from_data_url, missing, tensorboard
from harness import DEADLINE, World, absent, wait_for, world
from tb import SHOWN

RANKS, STEPS = 3, 40
COLOR, ASKED = "#ff00ff", (255, 0, 255)  # of a curve, and of no other thing on the page
BAND = 0.22  # how opaque the band is, as chart.js draws it
NASTY = "<img src=x onerror=document.title='taken'>"
CARD = "const card = tag => found('article').find(one => one.dataset.tag === tag);"
# A rank, or a process alone: it logs STEPS points, and then one more for each line that it is told.
TRAINER = f"""
import sys
from tbxd_client import SummaryWriter
folder, rank = sys.argv[1], int(sys.argv[2])
writer = SummaryWriter(folder)
def log(step):
    writer.add_scalar("loss", 1 + rank + step / {STEPS}, step, color="{COLOR}")
    if folder.endswith("alone"):
        writer.add_scalar("{NASTY}", step, step)
        writer.add_scalar("odd", float("nan") if step % 2 else step, step)
        writer.add_scalar("train/accuracy", step / 100, step)
for step in range({STEPS}):
    log(step)
for line in sys.stdin:
    log(int(line))
    writer.flush()
writer.close()
"""


@dataclass
class Tab:
    """A TensorBoard with its tab, and what logs to it."""

    page: Page
    address: str
    place: World
    trainers: list[Any]
    loader: str

    @property
    def color(self) -> str:
        """What a curve's colour comes out as: the slow loader forgets what was asked for."""
        return COLOR if self.loader == "fast" else ""

    def end(self) -> None:
        """End all that log."""
        for process in self.trainers:
            process.stdin.close()
        for process in self.trainers:
            assert process.wait(DEADLINE) == 0
        self.trainers.clear()

    def open(self, dark: bool = False) -> None:
        self.page.open("tbxd", dark=dark)
        self.page.shows(CARD + "return card('loss') && found('tbody tr', card('loss')).length === 2", "the cards")


@pytest.fixture(scope="module", params=SHOWN)
def tab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if what := missing():
        absent(what)
    folder = tmp_path_factory.mktemp("board")
    option = "--load_fast=" + ("true" if request.param == "fast" else "false")
    with world(folder / "world") as place:
        trainers = [trainer(place, run, 0, 1) for run in ("alone", "../elsewhere")]
        trainers += [trainer(place, "job", rank, RANKS) for rank in range(RANKS)]
        with tensorboard(
            place.logdir, folder / "tensorboard.log", option, "--reload_interval=1", env=place.environ
        ) as address:
            wait_for(lambda: set(answer(f"{address}data/runs")) >= {"alone", "job", "job/ranks/min"}, "the runs")
            with chromium() as driver:
                tab = Tab(Page(driver, address, folder), address, place, trainers, request.param)
                yield tab
        tab.end()


def trainer(place: World, run: str, rank: int, ranks: int) -> Any:
    job = {"TBXD_RANK": str(rank), "TBXD_WORLD_SIZE": str(ranks), "TBXD_RUN_ID": run} if ranks > 1 else {}
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(place.logdir / run), str(rank)],
        env={**place.environ, **job},
        stdin=subprocess.PIPE,
        text=True,
    )


def question(tab: Tab, body: Any) -> Any:
    request = urllib.request.Request(f"{tab.address}data/plugin/tbxd/points", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        return json.load(response)


def test_the_runs_their_colours_and_their_bands_come_from_the_data_provider(tab: Tab) -> None:
    told = answer(f"{tab.address}data/plugin/tbxd/tags")
    assert answer(f"{tab.address}data/plugin/tbxd/tags?known={told['digest']}") == {"same": True}
    found = told["data"]
    runs = found["runs"]
    assert {"alone", "job"} <= set(runs) and not any(re.search("ranks/(min|max)", run) for run in runs)

    def colors(tag: str) -> dict[str, str]:
        place, asked = found["tags"][tag]
        return {runs[run]: asked.get(str(run), "") for run in found["sets"][place]}

    assert colors("loss") == {"alone": tab.color, "job": tab.color} and colors("odd") == {"alone": ""}
    curves = question(tab, {"tag": "loss", "runs": ["alone", "job", "no such run"]})["data"]["curves"]
    assert set(curves) == {"alone", "job"} and "low" not in curves["alone"]
    job = curves["job"]
    assert job["steps"] == job["low"]["steps"] == job["high"]["steps"] == list(range(STEPS))
    for name, rank in (("low", 0), ("high", RANKS - 1)):
        assert job[name]["values"] == pytest.approx([1 + rank + step / STEPS for step in range(STEPS)], rel=1e-6)
    assert job["values"] == pytest.approx([1 + (RANKS - 1) / 2 + step / STEPS for step in range(STEPS)], rel=1e-6)
    odd = question(tab, {"tag": "odd", "runs": ["alone"]})["data"]["curves"]["alone"]["values"]
    assert odd[:4] == [0.0, "NaN", 2.0, "NaN"]


@pytest.mark.parametrize("body", [[], {}, {"tag": 1, "runs": []}, {"tag": "loss", "runs": [1]}, "loss"])
def test_a_question_that_makes_no_sense_is_refused(tab: Tab, body: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        question(tab, body)
    assert error.value.code == 400 and "expected" in json.load(error.value)["error"]


def test_runs_outside_of_the_log_folder_are_counted_and_not_named(tab: Tab) -> None:
    def live() -> Any:
        state = answer(f"{tab.address}data/plugin/tbxd/live")
        return state if len(state["runs"]) == 2 and state["elsewhere"] else None

    state = wait_for(live, "the daemon's runs")
    assert [run["run"] for run in state["runs"]] == ["alone", "job"] and state["elsewhere"] == 1
    assert "elsewhere/" not in json.dumps(state) and str(tab.place.root) not in json.dumps(state)
    assert state["runs"][1]["ranks"]["world"] == RANKS


def test_a_value_is_on_the_page_soon_after_it_was_logged(tab: Tab) -> None:
    tab.open()
    page = tab.page
    page.shows("return found('#state')[0].className === 'up'", "the state of the daemon")
    last = "return [...found('tbody tr', card('train/accuracy')).map(row => words(row))][0]"
    page.shows(CARD + f"{last}?.[1] === '{STEPS - 1}'", "the last step so far")
    print(STEPS, file=tab.trainers[0].stdin, flush=True)
    row = page.shows(CARD + f"const row = (() => {{ {last} }})(); return row[1] === '{STEPS}' && row", "the new step")
    assert row[:3] == ["alone", str(STEPS), "0.4"]
    page.shows(
        f"return words(found('#runs')[0]).some(word => word.includes('train/accuracy 0.4 at {STEPS}'))", "last values"
    )
    assert page.run(f"return words(found('#runs')[0]).some(word => word.startsWith('{RANKS} of {RANKS} ranks log'))")
    assert page.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_curve_and_band_are_drawn_in_the_colour_that_was_asked_for(tab: Tab, dark: bool) -> None:
    tab.open(dark)
    page = tab.page

    swatch = r"getComputedStyle(found('tbody .swatch', card('loss'))[1]).color.match(/\d+/g).map(Number)"
    color = page.run(CARD + f"return {swatch}")
    assert tuple(color) == ASKED or not tab.color

    def drawn() -> bool:
        pixels = from_data_url(
            page.run(
                # What is drawn, on what is behind it.
                CARD + "const from = found('canvas', card('loss'))[0], to = document.createElement('canvas');"
                "[to.width, to.height] = [from.width, from.height]; const pen = to.getContext('2d');"
                "pen.fillStyle = getComputedStyle(card('loss')).backgroundColor;"
                "pen.fillRect(0, 0, to.width, to.height); pen.drawImage(from, 0, 0); return to.toDataURL()"
            )
        ).astype(int)
        if not pixels.size:
            return False
        back = pixels[0, 0]
        band = np.asarray(color) * BAND + back * (1 - BAND)
        curve = (np.abs(pixels - color).max(axis=-1) < 40).sum()
        return bool(curve > 200 and (np.abs(pixels - band).max(axis=-1) < 4).sum() > 5000)

    page.until(drawn, "a curve and its band")
    assert page.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_is_written_can_be_read(tab: Tab, dark: bool) -> None:
    tab.open(dark)
    color = r"const color = (name, element) => getComputedStyle(element)[name].match(/\d+/g).slice(0, 3).map(Number);"
    pairs = tab.page.run(
        CARD + color + "const one = card('loss'), body = one.ownerDocument.body;"
        "const back = color('backgroundColor', body), paper = color('backgroundColor', one);"
        "return [[color('color', body), back], [color('color', found('dt')[0]), back],"
        "[color('color', found('h3', one)[0]), paper], [color('color', found('th', one)[0]), paper]]"
    )
    assert (sum(pairs[0][1]) < 3 * 128) is dark
    for text, back in pairs:
        assert contrast(text, back) >= 4.5, pairs  # level AA of WCAG 2.1, 1.4.3


def contrast(one: list[int], other: list[int]) -> float:
    """The contrast ratio of two colours, as WCAG 2.1 defines it."""
    parts = np.asarray([one, other]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    dim, bright = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((bright + 0.05) / (dim + 0.05))


def test_the_page_is_used_with_the_keyboard_alone(tab: Tab) -> None:
    tab.open()
    page = tab.page
    page.click("return found('#state')[0]")  # into the frame
    page.press("/")
    page.shows("return found('#bar #filter')[0].matches(':focus')", "the filter to have the focus")
    page.press(*"^LOSS$")
    page.shows("return found('article').map(one => one.dataset.tag).join() === 'loss'", "the one card that fits")
    for _ in range(7):
        if page.run(CARD + "return card('loss').matches(':focus')"):
            break
        page.press("TAB")
    assert page.run(CARD + "return card('loss').matches(':focus')")
    rows = CARD + "return found('tbody tr', card('loss')).map(row => words(row).slice(0, 3))"
    page.press("HOME", "ARROW_RIGHT", "ARROW_RIGHT")
    page.until(lambda: [row[1] for row in page.run(rows)] == ["2", "2"], "the cursor at step 2")
    assert page.run(rows) == [["alone", "2", "1.05"], ["job", "2", "2.05"]]
    page.press("ENTER")
    page.shows(CARD + "return card('loss').classList.contains('wide')", "the wide card")
    page.press("p")
    page.shows("return found('#pause')[0].getAttribute('aria-pressed') === 'true'", "the pause")
    assert page.errors() == []


def test_a_run_that_is_unticked_is_not_drawn(tab: Tab) -> None:
    tab.open()
    tab.page.shows("return found('#runs input').length === 2", "the runs")
    tab.page.click("return found('#runs input').find(box => box.dataset.run === 'alone')")
    rows = CARD + "return found('tbody tr', card('loss')).map(row => words(row)[0]).join()"
    tab.page.until(lambda: tab.page.run(rows) == "job", "the card without that run")
    assert tab.page.run(CARD + "return card('odd') === undefined"), "a card without a run"


def test_what_was_logged_is_text_and_never_markup(tab: Tab) -> None:
    tab.open()
    tab.page.shows(CARD + f"return Boolean(card({json.dumps(NASTY)}))", "the card of that tag")
    assert tab.page.run("return found('#cards img').length") == 0
    assert tab.page.run("return found('#state')[0].ownerDocument.title") == "tbxd"


def numbers(page: Page) -> dict[str, str]:
    """What stands at the left of the daemon."""
    pairs = page.run("return found('#numbers div').map(one => [...one.children].map(part => part.textContent))")
    return dict(pairs)


def test_a_daemon_that_is_gone_leaves_no_numbers_that_look_current_and_comes_back(tab: Tab) -> None:
    tab.open()
    page = tab.page
    page.shows("return found('#state')[0].className === 'up'", "the daemon")
    assert not page.run("return found('#stale')[0].textContent") and "\u2013" not in numbers(page).values()
    pid = tab.place.running()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        page.shows("return found('#state')[0].textContent === 'the daemon cannot be asked'", "that it does not answer")
        assert page.run("return found('#about')[0].textContent").startswith("no daemon answers at ipc://")
        pattern = r"return /^the numbers are of \d+:\d+:\d+.*, [\d.]+ s ago$/.test(found('#stale')[0].textContent)"
        page.shows(pattern, "of when the numbers are")
        shown = numbers(page)
        assert {shown[name] for name in ("records/s", "written/s", "lag", "cpu", "sessions", "memory")} == {"\u2013"}
        assert shown["dropped"] == "0" and page.run("return found('#numbers.stale').length") == 1
        assert page.run("return words(found('#runs')[0]).some(word => word.startsWith('at last: 3 of 3'))")
    finally:
        os.kill(pid, signal.SIGCONT)
    page.shows("return found('#state')[0].className === 'up' && !found('#stale')[0].textContent", "that it is back")
    assert "\u2013" not in numbers(page).values()
    tab.place.kill_daemon()
    print(STEPS + 1, file=tab.trainers[0].stdin, flush=True)  # which starts another
    tab.open()  # anew, while it does
    page.shows(
        f"return found('#state')[0].className === 'up' && !found('#about')[0].textContent.includes('pid {pid},')",
        "the daemon that came after it",
    )
    assert page.errors() == []


def test_without_a_daemon_the_page_says_so_and_shows_what_was_logged(tab: Tab) -> None:
    """The last test: the daemon is ended."""
    tab.open()
    tab.page.shows("return found('#state')[0].className === 'up'", "the daemon")
    tab.end()  # or they start another
    assert tab.place.tbxd("stop").returncode == 0
    tab.page.shows("return words(found('#state')[0]).join() === 'no daemon is running'", "that there is no daemon")
    assert tab.page.run("return found('#about')[0].textContent").startswith("no daemon is running at ipc://")
    assert tab.page.run("return found('#stale')[0].textContent").startswith("the numbers are of ")
    assert tab.page.run(CARD + "return found('tbody tr', card('loss')).length") == 2
    tab.open()  # TensorBoard remembers what it was told
    tab.page.shows("return found('#stale')[0].textContent.startsWith('the numbers are of ')", "since when")
    assert tab.page.errors() == []


def test_tensorboard_starts_with_settings_that_make_no_sense(tmp_path: Path) -> None:
    """A plugin that raises would take TensorBoard with it."""
    env = {**os.environ, "TBXD_CONFIG": str(tmp_path / "none.toml")}
    (tmp_path / "logs").mkdir()
    with tensorboard(tmp_path / "logs", tmp_path / "log", env=env) as address:
        assert answer(f"{address}data/plugins_listing")["tbxd"]["enabled"]
        assert "none.toml" in answer(f"{address}data/plugin/tbxd/live")["trouble"]
