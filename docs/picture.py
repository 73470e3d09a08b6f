"""Take the pictures of the README: TensorBoard, in a browser, on what `tbxd demo` has logged.

    python docs/picture.py runs/demo

It needs selenium and Debian's chromium, which nothing else here does. The pictures are docs/demo-*.png.
"""

from __future__ import annotations

import argparse
import io
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTH, HEIGHT = 1500, 1150
SECONDS = 90.0  # for anything that is waited for
COLORS = 256  # of a saved picture
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

# Half of TensorBoard is made of shadow roots; `found` looks into them as well.
SEARCH = """
const found = (selector, root = document) => {
  const here = [...root.querySelectorAll(selector)];
  for (const element of root.querySelectorAll('*'))
    if (element.shadowRoot) here.push(...found(selector, element.shadowRoot));
  return here;
};
const visible = element => {
  const box = element.getBoundingClientRect();
  return box.width > 0 && box.bottom > 0 && box.top < innerHeight;
};
"""
CLOSE_SETTINGS = "found('button[aria-label=\"Close side pane\"]').find(visible)?.click();"
SPINNERS = "found('mat-spinner, paper-spinner-lite[active]').filter(visible).length"
# What is to be seen, as a tab of TensorBoard, what to do there first, and how many of which element show that it is.
PICTURES = {
    "time-series": ("timeseries", CLOSE_SETTINGS, "return found('line-chart').filter(visible).length >= 2"),
    "histograms": ("histograms", "", "return found('vz-histogram-timeseries').filter(visible).length >= 6"),
    "images": (
        "images",
        "",
        "return found('tf-image-loader').flatMap(card => found('img', card.shadowRoot || card))"
        ".filter(image => visible(image) && image.complete && image.naturalWidth > 0).length >= 3",
    ),
}


def wait(condition: Callable[[], Any], what: str) -> Any:
    """The first true value."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {SECONDS:g} s for {what}")
        time.sleep(0.1)
    return value


def main() -> None:
    """Start TensorBoard and the browser, take the pictures, end both."""
    parser = argparse.ArgumentParser(description="Take the pictures of the README.")
    parser.add_argument("logdir", type=Path, help="what `tbxd demo` has logged")
    logdir = parser.parse_args().logdir
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    board = subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            options = webdriver.ChromeOptions()
            options.binary_location = "/usr/bin/chromium"
            for option in (*OPTIONS, f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={profile}"):
                options.add_argument(option)
            browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
            try:
                wait(lambda: shows_runs(browser, f"http://127.0.0.1:{port}/"), "TensorBoard to have the runs")
                for name in PICTURES:
                    take(browser, f"http://127.0.0.1:{port}/", name)
            finally:
                browser.quit()
    finally:
        board.terminate()
        board.wait()


def shows_runs(browser: Any, address: str) -> bool:
    """Whether TensorBoard listens and has read the runs."""
    try:
        browser.get(address + "data/runs")
    except Exception:  # the browser's own error while nobody listens
        return False
    return "worker0" in browser.page_source


def take(browser: Any, address: str, name: str) -> None:
    """One picture, once the page shows what it is of and has nothing more to load."""
    tab, first, shown = PICTURES[name]
    browser.get(f"{address}?darkMode=false#{tab}")
    browser.refresh()
    wait(lambda: browser.execute_script(SEARCH + shown), f"{name} to be shown")
    browser.execute_script(SEARCH + first)
    before = b""
    while (now := browser.get_screenshot_as_png()) != before or browser.execute_script(f"{SEARCH} return {SPINNERS}"):
        before = now
        time.sleep(1)  # charts are drawn with animations
    path = Path(__file__).parent / f"demo-{name}.png"
    with Image.open(io.BytesIO(now)) as picture:
        picture.convert("RGB").quantize(COLORS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
