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
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTH, HEIGHT = 1600, 1000
SECONDS = 90.0  # for anything that is waited for
COLORS = 128  # of a saved picture
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

# Every script below searches the shadow roots as well: half of TensorBoard is made of them.
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
OPEN_GROUPS = """
const headers = found('metrics-card-group-toolbar .group-toolbar, tf-category-paginated-view .heading');
"""


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logdir", type=Path)
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
                take_all(browser, f"http://127.0.0.1:{port}/")
            finally:
                browser.quit()
    finally:
        board.terminate()
        board.wait()


def take_all(browser: Any, address: str) -> None:
    """All pictures, one after the other."""
    wait(lambda: answers(address), "TensorBoard")
    browser.get(address + "?darkMode=false#timeseries")
    time.sleep(8)
    Path("/tmp/pk/a.html").write_text(browser.execute_script("return document.body.innerHTML"))
    browser.save_screenshot("/tmp/pk/ts.png")
    browser.get(address + "?darkMode=false#histograms")
    browser.refresh()
    time.sleep(8)
    Path("/tmp/pk/b.html").write_text(
        browser.execute_script(SEARCH + "return [...new Set(found('*').map(e=>e.tagName+'.'+e.className))].join('\\n')")
    )
    browser.save_screenshot("/tmp/pk/h.png")
    browser.get(address + "?darkMode=false#images")
    browser.refresh()
    time.sleep(8)
    Path("/tmp/pk/c.html").write_text(
        browser.execute_script(SEARCH + "return [...new Set(found('*').map(e=>e.tagName+'.'+e.className))].join('\\n')")
    )
    browser.save_screenshot("/tmp/pk/i.png")


def answers(address: str) -> bool:
    """Whether TensorBoard has loaded the runs."""
    try:
        with urlopen(address + "data/runs", timeout=5) as answer:
            return b"worker0" in answer.read()
    except (URLError, OSError):
        return False


if __name__ == "__main__":
    main()
