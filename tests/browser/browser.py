"""TensorBoard as it is seen: the `tensorboard` process, and chromium without a screen that looks at it.

For the tests of its tabs and for docs/picture.py. Debian's packages chromium and chromium-driver are needed.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from urllib3.exceptions import ReadTimeoutError

from harness import DEADLINE, wait_for

PROGRAMS = ("chromium", "chromedriver")
PAUSE = 0.1  # seconds between two looks at a page, which has the processor meanwhile
WIDTH, HEIGHT = 1500, 1150  # of the window, in pixels
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # it opens nothing but our own TensorBoard, and for root there is no sandbox
    "--use-angle=swiftshader",  # WebGL without a graphics card, for curves, meshes and the projector
    "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog",  # which takes a slow machine for one that hangs
    "--disable-dev-shm-usage",  # which has 64 MB in a container
    "--autoplay-policy=no-user-gesture-required",
    "--force-color-profile=srgb",  # a pixel has the colour that was drawn
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--window-size={WIDTH},{HEIGHT}",
)

# Half of TensorBoard is in shadow roots, and the projector in a frame of a frame: `found` looks into all of them.
# `box` is where an element is in the window; `words` are the pieces of text that can be seen in it.
SEARCH = """
const found = (selector, root = document) => {
  const here = [...root.querySelectorAll(selector)];
  for (const element of [root, ...root.querySelectorAll('*')]) {
    const inner = element.shadowRoot || (element.localName === 'iframe' && element.contentDocument);
    if (inner) here.push(...found(selector, inner));
  }
  return here;
};
const box = element => {
  const {left, top, right, bottom} = element.getBoundingClientRect();
  const frame = element.ownerDocument.defaultView.frameElement;
  const outer = frame ? box(frame) : {left: 0, top: 0};
  return {left: left + outer.left, top: top + outer.top, right: right + outer.left, bottom: bottom + outer.top};
};
const visible = element => {
  const {left, top, right, bottom} = box(element);
  return right > left && bottom > top && bottom > 0 && top < innerHeight;
};
const words = root => [root, ...found('*', root)].filter(visible).flatMap(element => [...element.childNodes])
  .filter(node => node.nodeType === Node.TEXT_NODE).map(node => node.data.trim()).filter(text => text);
"""


def missing() -> str:
    """Return what has to be installed for browser tests; "" if nothing is missing."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no {' and no '.join(absent)} here: apt-get install chromium chromium-driver" if absent else ""


class Page:
    """A browser that looks at one TensorBoard."""

    def __init__(self, driver: Any, address: str, failures: Path) -> None:
        self._driver = driver
        self._address = address
        self._failures = failures

    def open(self, tab: str, query: str = "", dark: bool = False, **state: str) -> None:
        """Load TensorBoard anew, with a tab of it.

        Args:
            tab: its name in the address.
            query: settings before the '#', where the newer tabs keep theirs.
            dark: in dark mode.
            state: settings behind it, where the older ones do.
        """
        self._ask(self._driver.get, "about:blank")  # a change behind the '#' alone would load nothing
        settings = "".join(f"&{key}={urllib.parse.quote(value, safe='')}" for key, value in state.items())
        self._ask(self._driver.get, f"{self._address}?darkMode={str(dark).lower()}{query}#{tab}{settings}")

    def run(self, script: str, *arguments: Any) -> Any:
        """What JavaScript returns; it has the functions of `SEARCH` and the ``arguments``."""
        return self._ask(self._driver.execute_script, SEARCH + script, *arguments)

    def _ask(self, command: Callable[..., Any], *arguments: Any) -> Any:
        """What the browser answers; asked once more where it does not, as seen on a machine with far too much to do."""
        try:
            return command(*arguments)
        except (TimeoutException, ReadTimeoutError):
            return command(*arguments)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value; where it does not come, the window is saved to be looked at."""
        try:
            return wait_for(condition, what, DEADLINE, PAUSE)
        except AssertionError as error:
            path = self._failures / "failure.png"
            path.write_bytes(self.png())
            raise AssertionError(f"{error}; the window is in {path}") from None

    def shows(self, script: str, what: str, *arguments: Any) -> Any:
        """The first true value that JavaScript returns."""
        return self.until(lambda: self.run(script, *arguments), what)

    def pixels(self, script: str, *arguments: Any) -> Any:
        """What is drawn where an element is that JavaScript returns: uint8 of shape (height, width, 3).

        Without such an element there are no pixels: (0, 0, 3).
        """
        place = self.run(
            f"const element = (() => {{ {script} }})();"
            "element?.scrollIntoView({block: 'center'}); return element && box(element);",
            *arguments,
        )
        if place is None:
            return np.zeros((0, 0, 3), np.uint8)
        left, top, right, bottom = (max(0, round(place[side])) for side in ("left", "top", "right", "bottom"))
        return array_of(self.png())[top:bottom, left:right]

    def png(self) -> bytes:
        """Return a PNG of the window."""
        return bytes(self._ask(self._driver.get_screenshot_as_png))

    def type(self, text: str) -> None:
        """Type into what has the focus, in whatever frame it is."""
        self._driver.execute_cdp_cmd("Input.insertText", {"text": text})

    def click(self, script: str) -> None:
        """Click in the middle of an element that JavaScript returns."""
        place = self.run(f"return box((() => {{ {script} }})())")
        across, down = (round((place[one] + place[other]) / 2) for one, other in (("left", "right"), ("top", "bottom")))
        pointer = ActionChains(self._driver)
        pointer.w3c_actions.pointer_action.move_to_location(across, down).click()
        pointer.perform()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is; names as in selenium's ``Keys``."""
        ActionChains(self._driver).send_keys(*(getattr(Keys, key, key) for key in keys)).perform()

    def errors(self) -> list[str]:
        """Return the browser's errors since the last call, without warnings."""
        return [entry["message"] for entry in self._driver.get_log("browser") if entry["level"] == "SEVERE"]


def array_of(png: bytes) -> Any:
    """The pixels of a PNG: uint8 of shape (height, width, 3)."""
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def from_data_url(url: str) -> Any:
    """The pixels of a canvas, as its ``toDataURL()`` gives them."""
    return array_of(base64.b64decode(url.partition(",")[2]))


@contextmanager
def tensorboard(logdir: Path, log: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """TensorBoard on a log folder as anybody starts it, on a free port of this machine only; its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    with open(log, "wb") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output, env=env)

    def address() -> str | None:
        assert process.poll() is None, f"TensorBoard has left: {log.read_text()}"
        found = re.search(r"http://127\.0\.0\.1:\d+/(?= )", log.read_text())
        return found.group() if found else None

    try:
        yield wait_for(address, "TensorBoard to listen", DEADLINE)
    finally:
        process.terminate()
        process.wait()


def answer(address: str) -> Any:
    """Return TensorBoard's JSON answer."""
    with urllib.request.urlopen(address, timeout=DEADLINE) as response:
        return json.load(response)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a screen, with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which(PROGRAMS[0]) or PROGRAMS[0]
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        # Named here, as selenium would look on the network for one that it does not find.
        driver = webdriver.Chrome(options=options, service=Service(shutil.which(PROGRAMS[1]) or PROGRAMS[1]))
        driver.set_script_timeout(DEADLINE)
        driver.set_page_load_timeout(DEADLINE)
        try:
            yield driver
        finally:
            driver.quit()
