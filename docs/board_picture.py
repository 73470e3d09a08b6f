"""Take the pictures of BOARD.md: the tab "tbxd", light and dark, while something is logged.

    python docs/board_picture.py

It needs what docs/picture.py does. The pictures are docs/board-light.png and docs/board-dark.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from picture import save  # and the path to the tests, where the browser is

from browser import Page, answer, chromium, missing, tensorboard
from harness import wait_for, world

RANKS, STEPS = 8, 400
HEIGHT = 900  # of the pictures, in pixels
# One of some ranks that go on until they are told to end; the first run has a colour of its own.
RANK = f"""
import math, random, select, sys
from tbxd_client import SummaryWriter
rank, rate = int(sys.argv[2]), float(sys.argv[3])
writer = SummaryWriter(sys.argv[1])
color = {{"color": "#d81b60"}} if sys.argv[1].endswith("baseline") else {{}}
noise = random.Random(rank)
step = 0
while step < {STEPS} or not select.select([sys.stdin], [], [], 0.02)[0]:
    late = math.exp(-step * rate)
    loss = 0.25 + 2 * late + noise.uniform(0, 0.25) * (1 + rank / 4) * (late + 0.2)
    writer.add_scalar("train/loss", loss, step, **color)
    writer.add_scalar("train/accuracy", 0.95 - 0.85 * late + noise.uniform(-0.03, 0.03), step, **color)
    writer.add_scalar("train/step_seconds", 0.21 + 0.01 * rank + noise.uniform(0, 0.02), step, **color)
    if rank == 0:
        writer.add_scalar("train/lr", 1e-3 * 0.5 * (1 + math.cos(step / {STEPS} * 3)), step, **color)
        if step % 20 == 0:
            writer.add_scalar("eval/loss", 0.4 + 2 * late, step, **color)
            writer.add_scalar("eval/accuracy", 0.92 - 0.85 * late, step, **color)
    step += 1
writer.close()
"""
READY = "return found('#state')[0]?.className === 'up' && found('article').length >= 6 && " + (
    "found('article').slice(0, 6).every(card => found('tbody tr', card).length) && found('#runs .more').length"
)


def main() -> None:
    """Log, start TensorBoard and the browser, take the pictures, end all."""
    if absent := missing():
        raise SystemExit(absent)
    with tempfile.TemporaryDirectory(prefix="picture-") as folder, world(Path(folder) / "world") as place:
        jobs = [("baseline", 0, 1, 0.009), *(("llm-8gpu", rank, RANKS, 0.014) for rank in range(RANKS))]
        processes = []
        for run, rank, ranks, rate in jobs:
            place.extra.update({"TBXD_RANK": str(rank), "TBXD_WORLD_SIZE": str(ranks)})
            processes.append(place.start(RANK, place.logdir / run, rank, rate, stdin=-1))
        for name in ("TBXD_RANK", "TBXD_WORLD_SIZE"):
            del place.extra[name]
        with tensorboard(place.logdir, Path(folder) / "log", "--reload_interval=1", env=place.environ) as address:
            wait_for(lambda: "llm-8gpu/ranks/min" in answer(f"{address}data/runs"), "TensorBoard to have the runs")
            with chromium() as driver:
                page = Page(driver, address, Path(folder))
                for name, dark in (("light", False), ("dark", True)):
                    page.open("tbxd", dark=dark)
                    page.shows(READY, "the tab")
                    page.shows("return words(found('dl#numbers')[0])[1] !== '0'", "a rate")
                    save(page.png(), f"board-{name}.png", HEIGHT)
        for process in processes:
            process.communicate()


if __name__ == "__main__":
    main()
