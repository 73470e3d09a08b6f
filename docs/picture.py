"""Take the pictures of the README: TensorBoard, in a browser, on what `tbxd demo` has logged.

    python docs/picture.py runs/demo

It needs what the tests of TensorBoard's tabs need: selenium, and Debian's chromium and chromium-driver. The pictures
are docs/demo-*.png.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "browser"))

from browser import HEIGHT, Page, answer, chromium, missing, tensorboard
from harness import wait_for

COLORS = 256  # of a saved picture
HEIGHTS = {"histograms": 470}  # of what is kept: one row, so that the README is one screen before its first heading
SPINNERS = "return found('mat-spinner, paper-spinner-lite[active]').filter(visible).length"
CLOSE_SETTINGS = "found('button[aria-label=\"Close side pane\"]').find(visible)?.click();"
# What is to be seen, as a tab of TensorBoard, what to do there first, and how many of which element show that it is.
PICTURES = {
    "time-series": ("timeseries", CLOSE_SETTINGS, "return found('line-chart').filter(visible).length >= 2"),
    "histograms": ("histograms", "", "return found('vz-histogram-timeseries').filter(visible).length >= 6"),
    "images": (
        "images",
        "",
        "return found('tf-image-loader').flatMap(card => found('img', card))"
        ".filter(image => visible(image) && image.complete && image.naturalWidth > 0).length >= 3",
    ),
}


def main() -> None:
    """Start TensorBoard and the browser, take the pictures, end both."""
    parser = argparse.ArgumentParser(description="Take the pictures of the README.")
    parser.add_argument("logdir", type=Path, help="what `tbxd demo` has logged")
    logdir = parser.parse_args().logdir
    if absent := missing():
        raise SystemExit(absent)
    log = Path(tempfile.mkdtemp(prefix="picture-")) / "tensorboard.log"
    with tensorboard(logdir, log) as address, chromium() as driver:
        wait_for(lambda: "worker0" in answer(f"{address}data/runs"), "TensorBoard to have the runs")
        page = Page(driver, address, log.parent)
        for name in PICTURES:
            take(page, name)
    shutil.rmtree(log.parent)


def take(page: Page, name: str) -> None:
    """One picture, once the page shows what it is of and has nothing more to load."""
    tab, first, shown = PICTURES[name]
    page.open(tab)
    page.shows(shown, name)
    page.run(first)
    save(settled(page), f"demo-{name}.png", HEIGHTS.get(name, HEIGHT))


def settled(page: Page) -> bytes:
    """The window, as PNG, once nothing in it changes any more."""
    before = b""
    while (now := page.png()) != before or page.run(SPINNERS):
        before = now
        time.sleep(1)  # charts are drawn with animations
    return now


def save(png: bytes, name: str, height: int = HEIGHT) -> None:
    """Keep a picture in this folder, down to a height in pixels."""
    path = Path(__file__).parent / name
    with Image.open(io.BytesIO(png)) as picture:
        shown = picture.convert("RGB").crop((0, 0, picture.width, min(height, picture.height)))
        shown.quantize(COLORS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
