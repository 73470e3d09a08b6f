"""Take the picture of `tbxd top`: a frame of a real daemon while scripts log to it.

    python docs/top_picture.py

It writes docs/top.svg. With --png FILE it also looks at that in a browser (selenium, Debian's chromium and
chromium-driver) and takes a picture for whoever wants to see how it came out.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness import World, wait_for, world
from tbxd.cli.top_view import render
from tbxd.config.settings import Settings
from tbxd.tools.top import RATE, Top, ordered

PICTURE = Path(__file__).parent / "top.svg"
COLUMNS = 118
WATCHED_SECONDS = 3.0
THEME = TerminalTheme(
    (24, 26, 31),
    (208, 212, 220),
    [
        (40, 44, 52),
        (238, 99, 99),
        (126, 199, 120),
        (232, 190, 95),
        (97, 160, 240),
        (200, 130, 220),
        (86, 190, 200),
        (208, 212, 220),
    ],
)
# One script for each kind of run that is to be seen: one that is quick, one of ranks, one with a histogram of nothing.
PLAIN = """
    import sys, time
    import numpy as np
    from tbxd_client import SummaryWriter
    name, pause = sys.argv[1], float(sys.argv[2])
    writer = SummaryWriter(f"runs/{name}")
    if name == "diverged":
        writer.add_histogram("weights", np.array([np.nan]), 0)
    for step in range(1_000_000):
        writer.add_scalar("train/loss", 2.3 / (1 + step / 400), step)
        writer.add_scalar("train/accuracy", 1 - 0.9 / (1 + step / 300), step)
        writer.add_scalar("lr", 3e-4, step)
        time.sleep(pause)
"""


def main() -> None:
    """Start a daemon and what logs to it, take the picture, end all."""
    parser = argparse.ArgumentParser(description="Take the picture of `tbxd top`.")
    parser.add_argument("--png", type=Path, help="also take a picture of the picture, in a browser")
    png = parser.parse_args().png
    with tempfile.TemporaryDirectory(prefix="tbxd-") as folder, world(Path(folder) / "w") as place:
        take(place)
    if png is not None:
        photograph(png)
    print(PICTURE)


def take(place: World) -> None:
    """One frame, when all runs have been going for a while."""
    place.serve()
    for name, pause in (("resnet50", 0.001), ("baseline", 0.005), ("diverged", 0.02)):
        place.start(PLAIN, name, pause)
    job = {"TBXD_WORLD_SIZE": "4", "TBXD_RUN_ID": "picture"}
    for rank in range(4):
        place.start(PLAIN, "gpt-small", 0.004, environ={**job, "TBXD_RANK": str(rank)})
    top = Top(Settings.of({"runtime_dir": place.runtime, "spool": place.spool}))
    wait_for(lambda: len(top.look().rows) == 4, "all runs")
    until = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < until:
        frame = top.look()
        rows = ordered(frame.rows, RATE)
        top.fill(frame, rows)
        time.sleep(0.5)
    for disk in frame.disks:
        disk.path = "/var/tmp/tbxd-1000/spool"  # noqa: S108 - it is shown, not used; a test has others
    frame.address = "ipc:///var/tmp/tbxd-1000/run/daemon.sock"
    console = Console(record=True, width=COLUMNS, force_terminal=True, highlight=False, file=io.StringIO())
    console.print(render(frame, rows))
    picture = console.export_svg(title="tbxd top", theme=THEME)
    # Whoever looks at it is not to fetch letters from somewhere; any of a fixed width will do.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S))


def photograph(path: Path) -> None:
    """How a browser shows it."""
    from browser import chromium

    with chromium() as driver:
        driver.get(PICTURE.absolute().as_uri())
        driver.save_screenshot(str(path))


if __name__ == "__main__":
    main()
