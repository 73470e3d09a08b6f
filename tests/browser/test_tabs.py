"""Every tab of TensorBoard, in a browser, shows what was logged: not that a page loads, but what is drawn on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Page, answer, chromium, from_data_url, missing, tensorboard
from harness import absent, wait_for, world
from tbxd.encode.heatmap import colors

pytestmark = pytest.mark.long

# Name in the address, name on the page.
TABS = {
    "timeseries": "Time Series",
    "scalars": "Scalars",
    "custom_scalars": "Custom Scalars",
    "images": "Images",
    "audio": "Audio",
    "graphs": "Graphs",
    "distributions": "Distributions",
    "histograms": "Histograms",
    "text": "Text",
    "pr_curves": "PR Curves",
    "hparams": "HParams",
    "mesh": "Mesh",
    "projector": "Projector",
}
NODES, EDGES = {"input", "Net", "output"}, {"input--Net", "Net--output"}  # of the graph, before it is opened
SHAPES = {"1\u00d73", "1\u00d72"}  # of what goes along the edges, with the sign for times
STEPS = np.arange(20)
LOSS, ACCURACY = 2 * 0.8**STEPS, 1 - 0.8**STEPS
WAVE = np.sin(STEPS / 3)
SLATE = (66, 80, 102)  # the first run's colour in the TIME SERIES tab

SCRIPT = """
import matplotlib
matplotlib.use("agg")
import numpy as np
import torch
from matplotlib import pyplot
from tbxd_client import SummaryWriter

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)

random = np.random.default_rng(0)
with SummaryWriter("logs/run") as writer:
    for step in range(20):
        writer.add_scalar("train/loss", 2 * 0.8**step, step, display_name="Loss", summary_description="**falls**")
        writer.add_scalar("train/accuracy", 1 - 0.8**step, step)
        for name, shift in (("low", -1), ("middle", 0), ("high", 1)):
            writer.add_scalar(f"band/{name}", np.sin(step / 3) + shift, step)
    writer.add_custom_scalars({
        "charts": {
            "lines": ["Multiline", ["train/loss", "train/accuracy"]],
            "margin": ["Margin", ["band/middle", "band/low", "band/high"]],
        }
    })

    ramp = np.zeros((3, 32, 48), np.uint8)
    ramp[0], ramp[1] = np.arange(48) * 5, np.arange(32)[:, None] * 7
    writer.add_image("pictures/ramp", ramp, 3)
    grays = np.array([50, 100, 150, 200], np.uint8)
    writer.add_images("pictures/grid", np.broadcast_to(grays[:, None, None, None], (4, 3, 20, 20)), 3)
    plain = np.full((3, 60, 90), 200, np.uint8)
    writer.add_image_with_boxes("pictures/boxes", plain, [[10, 10, 50, 40]], 3, labels=["cat"])
    matrix = np.arange(12.0).reshape(3, 4)
    writer.add_heatmap("pictures/heat", matrix, 3, row_labels=["a", "b", "c"], column_labels=list("wxyz"))
    figure = pyplot.figure(figsize=(4, 3))
    pyplot.fill_between([0, 1], [1, 1], color="#00ff00")
    writer.add_figure("pictures/figure", figure, 3)
    frames = np.zeros((1, 3, 3, 32, 48), np.uint8)
    for time in range(3):
        frames[0, time, time, :, time * 16 : time * 16 + 16] = 255
    writer.add_video("pictures/video", frames, 3, fps=4)
    writer.add_audio("sounds/sine", np.sin(np.arange(16_000) / 8_000 * 440 * 2 * np.pi) / 2, 3, sample_rate=8_000)

    for step in range(10):
        writer.add_histogram("weights/layer", random.normal(step / 3, 1, 5_000), step)
    writer.add_text("notes", "A **bold** claim\\n\\n| key | value |\\n|---|---|\\n| rate | fast |", 3)
    for step in (3, 4):
        writer.add_pr_curve("curves/pr", [0, 0, 1, 0, 1, 1], np.array([5, 15, 35, 55, 75, 95]) / 100, step, 11)

    corners = [[[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]]
    colors = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]]
    writer.add_mesh("meshes/square", corners, colors, [[[0, 1, 2], [0, 2, 3]]], global_step=3)
    cloud = random.uniform(-1, 1, (1, 2_000, 3))
    writer.add_mesh("meshes/cloud", cloud, np.broadcast_to([255, 0, 255], cloud.shape), global_step=3)

    magenta, cyan = np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])
    labels = [f"item {number}" for number in range(60)]
    pictures = np.stack([np.broadcast_to((magenta, cyan)[n % 2][:, None, None], (3, 16, 16)) for n in range(60)])
    writer.add_embedding(random.normal(size=(60, 5)), labels, pictures, 3, "points")

    writer.add_graph(Net(), torch.zeros(1, 3))
for trial, (rate, optimizer, nesterov, score) in enumerate([(0.1, "sgd", False, 0.5), (0.01, "adam", True, 0.75)]):
    with SummaryWriter(f"logs/trial{trial}") as writer:
        writer.add_hparams({"rate": rate, "optimizer": optimizer, "nesterov": nesterov}, {"score": score})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser on a TensorBoard in which all tabs have something to show."""
    needed()
    folder = tmp_path_factory.mktemp("tabs")
    with world(folder / "world") as place:
        result = place.run(SCRIPT)
        assert result.returncode == 0, result.stderr
        wait_for(place.drained, "the journal to be drained")
        status = place.status()
        assert status is not None and status["totals"]["dropped"] == {}, status
        with tensorboard(place.logdir, folder / "tensorboard.log") as address, chromium() as driver:
            assert "Using experimental fast data loading logic" in (folder / "tensorboard.log").read_text()
            wait_for(lambda: TABS.keys() <= active(address), "all tabs to be active")
            yield Page(driver, address, folder)


def needed() -> None:
    """Skip, or fail, where there is no browser."""
    if what := missing():
        absent(what)


def active(address: str) -> set[str]:
    listing = answer(f"{address}data/plugins_listing")
    return {name for name, tab in listing.items() if tab["enabled"]}


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The browser, which has nothing to complain about in a test."""
    browser.errors()
    yield browser
    assert browser.errors() == []


# The paths of a class in an element, as lists of corners; they come when the chart is drawn.
PATHS = """
const paths = (kind, root) => found(`path.${kind}`, root).map(path =>
  (path.getAttribute('d') || '').split(/[MLZ]/).filter(corner => corner).map(corner => corner.split(',').map(Number)));
"""


def paths(page: Page, card: str, title: str, kind: str, count: int) -> list[Any]:
    """The paths of the chart on the card with a title, once there are so many: (x, y) of their corners, in pixels."""
    script = """
    const card = found(arguments[0]).filter(visible).find(card => words(card).includes(arguments[1]));
    const drawn = card ? paths(arguments[2], card) : [];
    return drawn.length === arguments[3] && drawn.every(path => path.length > 1) && drawn;
    """
    drawn = page.shows(PATHS + script, f"{count} {kind} in {title}", card, title, kind, count)
    return [np.array(path) for path in drawn]


def follows(drawn: Any, logged: Any) -> bool:
    """Whether what is drawn, in pixels, is what was logged but for scale; downwards is the other way round."""
    return len(drawn) == len(logged) and float(np.corrcoef(drawn, logged)[0, 1]) > 0.999


def near(pixels: Any, color: tuple[int, ...], distance: int = 24) -> Any:
    """Which pixels have about a colour."""
    return np.abs(pixels.astype(int) - color).max(axis=-1) <= distance


def test_tensorboard_offers_every_tab(page: Page) -> None:
    page.open("scalars")
    tabs = page.shows("return found('.mat-mdc-tab').filter(visible).map(tab => tab.innerText)", "the tabs")
    assert [tab for tab in tabs if tab != "TBXD"] == [name.upper() for name in TABS.values()]
    assert "TBXD" in tabs, "tbxd's own, which test_board.py looks at"


def test_time_series_draws_the_curve_the_picture_and_the_histograms(page: Page) -> None:
    tags = "%5E(band%2Fmiddle%7Cpictures%2Framp%7Cweights%2Flayer)%24"
    page.open("timeseries", f"&smoothing=0&tagFilter={tags}")
    page.shows("return found('line-chart canvas').some(visible)", "the curve")

    def curve() -> bool:
        rows, columns = np.nonzero(near(page.pixels("return found('line-chart canvas').find(visible)"), SLATE))
        across = np.unique(columns)
        if len(across) < 200:
            return False
        heights = -np.array([rows[columns == column].mean() for column in across])
        steps = np.interp(across, across[[0, -1]], STEPS[[0, -1]])
        return follows(heights, np.interp(steps, STEPS, WAVE))

    page.until(curve, "the curve in the colour of its run")
    page.shows("return found('scalar-card').flatMap(words).includes('0.0501')", "the last value")
    picture = "found('image-card img').find(visible)"
    page.shows(f"const image = {picture}; return image?.complete && image.naturalWidth === 48", "the picture")
    page.until(lambda: is_ramp(page.pixels(f"return {picture}")), "its colours")
    script = PATHS.replace("path.${kind}", "histogram-card .histogram path")
    outlines = page.shows(
        f"{script} const drawn = paths(); return drawn.length === 10 && drawn[9].length > 9 && drawn", "the histograms"
    )
    assert moves_right(outlines)


def is_ramp(pixels: Any) -> bool:
    """Whether red grows to the right and green downwards, as in the picture that was logged."""
    if not pixels.size:
        return False
    height, width, _ = pixels.shape
    at = {(y, x): pixels[int(height * y), int(width * x)].tolist() for y in (0.01, 0.99) for x in (0.01, 0.99)}
    return at == {
        (0.01, 0.01): [0, 0, 0],
        (0.01, 0.99): [235, 0, 0],
        (0.99, 0.01): [0, 217, 0],
        (0.99, 0.99): [235, 217, 0],
    }


def moves_right(outlines: Any) -> bool:
    """Whether the middles of the histograms are where their numbers were: a third further with each step."""
    middles = []
    for outline in outlines:
        x, y = np.array(outline).T
        middles.append(np.average(x, weights=y.max() - y))
    return follows(middles, np.arange(10) / 3)


def test_scalars_draws_the_curve_with_its_name_and_description(page: Page) -> None:
    page.open("scalars", _smoothingWeight="0", tagFilter="train/loss")
    (line,) = paths(page, "tf-scalar-card", "Loss", "line", 1)
    assert follows(-line[:, 1], LOSS) and follows(line[:, 0], STEPS)
    page.run(
        "const heading = found('tf-card-heading').filter(visible).find(heading => words(heading).includes('Loss'));"
        "found('paper-icon-button', heading).find(button => button.icon === 'info').click()"
    )
    page.shows("return found('strong').filter(visible).some(bold => bold.innerText === 'falls')", "its text")


def test_custom_scalars_draws_lines_and_a_band(page: Page) -> None:
    page.open("custom_scalars", _smoothingWeight="0")
    first, second = paths(page, "tf-custom-scalar-multi-line-chart-card", "lines", "line", 2)
    loss, accuracy = (first, second) if first[-1, 1] > second[-1, 1] else (second, first)
    # What is above the chart, as outliers are, is not drawn.
    assert len(loss) > 15 and follows(-loss[:, 1], LOSS[-len(loss) :])
    assert follows(-accuracy[:, 1], ACCURACY)

    margin = "tf-custom-scalar-margin-chart-card"
    (area,) = paths(page, margin, "margin", "area", 1)
    upper, lower = area[:20, 1], area[:19:-1, 1]
    lines = paths(page, margin, "margin", "line", 2)  # one is the upper edge of the area
    (middle,) = (line[:, 1] for line in lines if abs(line[:, 1] - upper).max() > 1)
    slope, start = np.polyfit(middle, WAVE, 1)
    for drawn, logged in ((middle, WAVE), (upper, WAVE + 1), (lower, WAVE - 1)):
        np.testing.assert_allclose(slope * drawn + start, logged, atol=1e-3)


def test_images_shows_every_picture_in_its_colours(page: Page) -> None:
    page.open("images")
    picture = "found('img', found('tf-image-loader').find(card => card.tag === arguments[0]))[0]"
    shown = {}
    for name in ("ramp", "grid", "boxes", "heat", "figure"):
        tag = f"pictures/{name}"
        page.shows(f"const image = {picture}; return image?.complete && image.naturalWidth", tag, tag)
        decoded = from_data_url(page.run(DECODED.format(picture), tag))
        page.until(lambda tag=tag, decoded=decoded: is_drawn(page, picture, tag, decoded), f"{tag} on its card")
        shown[name] = decoded
    assert shown["ramp"].shape == (32, 48, 3) and is_ramp(shown["ramp"])
    assert [shown["grid"][10, place].tolist() for place in (10, 30, 50, 70)] == [[n] * 3 for n in (50, 100, 150, 200)]
    assert shown["boxes"].shape == (60, 90, 3)
    assert shown["boxes"][20, 10].tolist() == [255, 0, 0] and shown["boxes"][20, 30].tolist() == [200, 200, 200]
    assert near(shown["boxes"][25:40, 10:50], (255, 255, 255), 60).sum() > 5, "the letters of its label"
    viridis = [colors("viridis")[round(number / 11 * 255)] for number in range(12)]
    assert all(near(shown["heat"], tuple(color), 1).sum() > 1000 for color in viridis)
    assert near(shown["heat"], (32, 32, 32), 60).sum() > 100, "the letters and numbers beside it"
    assert near(shown["figure"], (0, 255, 0), 0).sum() > 10_000


DECODED = """
const image = {}, canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
canvas.getContext('2d').drawImage(image, 0, 0);
return canvas.toDataURL();
"""


def is_drawn(page: Page, picture: str, tag: str, decoded: Any) -> bool:
    """Whether the card shows the picture as it was decoded, but for its size."""
    drawn = page.pixels(f"return {picture}", tag)
    height, width, _ = drawn.shape
    rows = (np.arange(height) * len(decoded) / height).astype(int)
    columns = (np.arange(width) * decoded.shape[1] / width).astype(int)
    return bool(np.abs(drawn.astype(int) - decoded[rows][:, columns]).mean() < 12)


def test_images_plays_a_video(page: Page) -> None:
    page.open("images")
    picture = "found('img', found('tf-image-loader').find(card => card.tag === 'pictures/video'))[0]"
    page.shows(f"const image = {picture}; return image?.complete && image.naturalWidth === 48", "the video")
    seen = set()

    def all_frames() -> bool:
        pixels = page.pixels(f"return {picture}")
        height, width, _ = pixels.shape
        seen.add(tuple(tuple(pixels[height // 2, width * third // 6].tolist()) for third in (1, 3, 5)))
        return frames <= seen

    black = (0, 0, 0)
    frames = {((255, 0, 0), black, black), (black, (0, 255, 0), black), (black, black, (0, 0, 255))}
    page.until(all_frames, "three frames of the video")
    assert seen == frames


def test_audio_plays_the_sound(page: Page) -> None:
    page.open("audio")
    page.shows(
        "const sound = found('audio').find(visible); return sound?.readyState >= 2 && sound.duration === 2", "2 s"
    )
    decode = """
    return fetch(found('audio')[0].src).then(answer => answer.arrayBuffer())
      .then(bytes => new OfflineAudioContext(1, 1, 8000).decodeAudioData(bytes))
      .then(sound => [...sound.getChannelData(0)]);
    """
    sine = np.sin(np.arange(16_000) / 8_000 * 440 * 2 * np.pi) / 2
    np.testing.assert_allclose(page.run(decode), sine, atol=1e-4)
    assert page.run("const sound = found('audio')[0]; sound.muted = true; return sound.play().then(() => true)")
    page.shows("return found('audio')[0].currentTime > 0.1", "the sound to go on")


def test_graphs_draws_the_nodes(page: Page) -> None:
    page.open("graphs")
    nodes = "found('g.node', found('tf-graph-scene')[0]).filter(visible)"
    page.shows(f"return {nodes}.length === {len(NODES)}", "the nodes")
    assert set(page.run("return words(found('tf-graph-scene')[0])")) - {"Main Graph"} == NODES | SHAPES
    edges = "found('path.edgeline').filter(edge => edge.getTotalLength() > 5).map(edge => edge.parentElement)"
    assert set(page.run(f"return {edges}.map(edge => edge.dataset.edge)")) == EDGES


def test_distributions_draws_the_bands(page: Page) -> None:
    page.open("distributions")
    percentiles = paths(page, "tf-distribution-loader", "weights/layer", "line", 8)
    for line in percentiles[1:-1]:  # the least and the greatest value are of chance
        assert follows(-line[:, 1], np.arange(10) / 3)
    assert len(paths(page, "tf-distribution-loader", "weights/layer", "area", 8)) == 8


def test_histograms_draws_each_step(page: Page) -> None:
    page.open("histograms")
    outlines = paths(page, "tf-histogram-loader", "weights/layer", "outline", 10)
    assert moves_right(outlines)


def test_text_renders_the_markdown(page: Page) -> None:
    page.open("text")
    bold = "found('strong', found('tf-text-loader')[0]).find(visible)"
    page.shows(f"return {bold}?.innerText === 'bold'", "the bold word")
    cells = page.run("return found('td, th', found('tf-text-loader')[0]).map(cell => cell.innerText)")
    assert cells[1:] == ["key", "value", "rate", "fast"] and cells[0].startswith("A bold claim")
    ink = page.pixels(f"return {bold}").min(axis=-1) < 100
    assert 0.05 < ink.mean() < 0.5, "letters, neither nothing nor boxes"


def test_pr_curves_draws_the_curve(page: Page) -> None:
    page.open("pr_curves")
    (line,) = paths(page, "tf-pr-curve-card", "curves/pr", "line", 1)
    # Predictions in the middle of ten equal bins: at thresholds of 0.9, 0.8, ..., 0.
    recall = np.array([1, 1, 2, 2, 2, 2, 3, 3, 3, 3]) / 3
    precision = [1, 1, 1, 1, 2 / 3, 2 / 3, 3 / 4, 3 / 4, 3 / 5, 3 / 6]
    assert follows(line[:, 0], recall) and follows(-line[:, 1], precision)
    assert "step 4" in page.run("return found('tf-pr-curve-card').flatMap(words)"), "the last of the steps"


def test_hparams_has_a_row_for_each_trial(page: Page) -> None:
    page.open("hparams")
    script = """
    const cells = found('vaadin-grid-cell-content').filter(visible)
      .map(cell => [box(cell), cell.innerText.split(/\\s+/).join(' ').trim()]);
    const placed = cells.map(([{left, top, bottom}, text]) => [Math.round(top + bottom), left, text]);
    return placed.some(cell => cell[2].startsWith('trial1/')) && placed.filter(cell => cell[2]);
    """
    rows: dict[float, list[str]] = {}
    for height, _, text in sorted(page.shows(script, "the table")):
        rows.setdefault(height, []).append(text.partition("/")[0])  # each row is a run of its own below the trial's
    assert list(rows.values()) == [
        ["Trial ID", "Show Metrics", "nesterov", "optimizer", "rate", "score"],
        ["trial0", "false", "sgd", "0.10000", "0.50000"],
        ["trial1", "true", "adam", "0.010000", "0.75000"],
    ]


def test_mesh_draws_faces_and_points_in_their_colours(page: Page) -> None:
    page.open("mesh")

    def drawn(tag: str, least: int) -> Any:
        """The picture of a mesh and which of its pixels have colours, once there are so many of these."""
        page.shows(f"return found('tf-mesh-loader').some(card => card.tag === '{tag}')", tag)
        canvas = f"found('canvas', found('tf-mesh-loader').find(card => card.tag === '{tag}'))[0]"

        def attempt() -> tuple[Any, Any] | None:
            pixels = page.pixels(f"return {canvas}")
            colored = np.ptp(pixels, axis=-1) > 50
            return (pixels, colored) if colored.sum() >= least else None

        return page.until(attempt, f"{tag} to be drawn")

    cloud, colored = drawn("meshes/cloud", 1_000)
    assert (cloud[colored].argmin(axis=-1) == 1).all(), "all are magenta"
    square, colored = drawn("meshes/square", 50_000)
    rows, columns = np.nonzero(colored)
    (top, bottom), (left, right) = np.quantile(rows, [0.01, 0.99]), np.quantile(columns, [0.01, 0.99])
    corners = [square[int(y), int(x)] > 128 for y in (bottom, top) for x in (left, right)]
    red, green, yellow, blue = [True, False, False], [False, True, False], [True, True, False], [False, False, True]
    assert [corner.tolist() for corner in corners] == [red, green, yellow, blue]


def test_projector_shows_points_with_their_pictures_and_labels(page: Page) -> None:
    page.open("projector")
    page.shows("return found('vz-projector-input#search-box').some(visible)", "the projector")

    def sprites() -> bool:
        pixels = page.pixels("return found('#scatter canvas')[0]")
        return all(near(pixels, color).sum() > 2000 for color in ((255, 0, 255), (0, 255, 255)))

    page.until(sprites, "the pictures")
    assert {"60", "5", "1 tensor found"} <= set(page.run("return words(found('vz-projector')[0])"))
    page.run("found('input', found('vz-projector-input#search-box')[0])[0].focus()")
    page.type("item 59")
    found = page.shows("return words(found('vz-projector-inspector-panel')[0]).includes('1 matches.')", "the label")
    assert found


def test_without_a_browser_they_are_skipped_but_fail_where_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable, outcome in (("", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", variable)
        with pytest.raises(outcome, match="no chromium and no chromedriver here: apt-get install chromium"):
            needed()
