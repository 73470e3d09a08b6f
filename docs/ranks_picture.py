"""Take the picture of RANKS.md: TensorBoard, in a browser, on what eight ranks have logged.

    torchrun --nproc-per-node 8 docs/examples/ranks.py runs/ranks/digits
    python docs/ranks_picture.py runs/ranks

It needs what docs/picture.py does. The picture is docs/ranks.png.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from picture import CLOSE_SETTINGS, save, settled  # and the path to the tests, where the browser is

from browser import Page, answer, chromium, missing, tensorboard
from harness import wait_for

SIDES = {"digits", "digits/ranks/max", "digits/ranks/min"}
TAGS = "&tagFilter=%5Etrain%2F&smoothing=0"
CARDS = "found('scalar-card').filter(visible)"
MARGIN = 12  # pixels below the cards


def main() -> None:
    """Start TensorBoard and the browser, take the picture, end both."""
    parser = argparse.ArgumentParser(description="Take the picture of RANKS.md.")
    parser.add_argument("logdir", type=Path, help="the folder of the folder `digits`, in which eight ranks have logged")
    logdir = parser.parse_args().logdir
    if absent := missing():
        raise SystemExit(absent)
    log = Path(tempfile.mkdtemp(prefix="picture-")) / "tensorboard.log"
    with tensorboard(logdir, log) as address, chromium() as driver:
        wait_for(lambda: set(answer(f"{address}data/runs")) >= SIDES, "TensorBoard to have the runs")
        page = Page(driver, address, log.parent)
        page.open("timeseries", TAGS)
        page.shows(f"return {CARDS}.length >= 2 && found('line-chart').filter(visible).length >= 2", "the charts")
        page.run(CLOSE_SETTINGS)
        png = settled(page)
        save(png, "ranks.png", round(page.run(f"return Math.max(...{CARDS}.map(card => box(card).bottom))")) + MARGIN)
    shutil.rmtree(log.parent)


if __name__ == "__main__":
    main()
