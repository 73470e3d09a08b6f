"""tensorboardX's own public tests of its interface pass with tbxd under its name.

They are in its source package on PyPI, which is downloaded once and kept in the user's cache; nothing of it is copied
into this repository. Those that cannot hold are in docs/COMPATIBILITY.md, each with its reason, and these have to fail.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree
from pathlib import Path

import pytest

from harness import World

VERSION = importlib.metadata.version("tensorboardX")
PAGE = (Path(__file__).parents[2] / "docs" / "COMPATIBILITY.md").read_text()
CANNOT_HOLD = dict(re.findall(r"^\| `(\w+\.py(?:::\w+)?)` \| (.+) \|$", PAGE, re.M))
FILES = frozenset(name for name in CANNOT_HOLD if "::" not in name)  # that cannot be imported
SLEEPS = "flush"  # in the names of tests that sleep for ten seconds each
DOWNLOAD_SECONDS = 120


@pytest.fixture(scope="module")
def source() -> Path:
    """The source package of the installed tensorboardX, unpacked."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbxd-tests"
    found = folder / f"tensorboardx-{VERSION}"
    if not (found / "tests").is_dir():
        tools, pip = folder / "tools", [sys.executable, "-m", "pip"]
        environ = {**os.environ, "PYTHONPATH": str(tools), "SETUPTOOLS_SCM_PRETEND_VERSION": VERSION}
        options = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation", "-d", str(folder)]
        for command in (
            [*pip, "install", "-q", "--target", str(tools), "--upgrade", "setuptools", "setuptools_scm"],
            [*pip, "download", "-q", *options, f"tensorboardX=={VERSION}"],
        ):
            try:
                subprocess.run(command, check=True, env=environ, capture_output=True, timeout=DOWNLOAD_SECONDS)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", b"") or b""
                pytest.skip(f"tensorboardX {VERSION}'s source package cannot be had: {said.decode()[-300:] or error}")
        (archive,) = folder.glob(f"tensorboard*{VERSION}.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    return found


def outcomes(place: World, source: Path, *arguments: str) -> dict[str, bool]:
    """``file::test`` to whether it passed, of tensorboardX's tests with tbxd under its name."""
    # Copied: they write beside themselves.
    shutil.copytree(source / "tests", place.root / "tests", ignore=shutil.ignore_patterns(*FILES))
    (place.root / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "-p", "as_tensorboardx", "-p", "no:cacheprovider", "--junitxml=result.xml", "--rootdir=."]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments, "tests"],
        env={**place.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=place.root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode in (0, 1), result.stdout[-3000:] + result.stderr[-3000:]
    found = {}
    for case in xml.etree.ElementTree.parse(place.root / "result.xml").iter("testcase"):
        name = f"{case.get('classname', '').split('.')[1]}.py::{case.get('name')}"
        found[name] = case.find("failure") is None and case.find("error") is None
    return found


@pytest.mark.long
def test_they_pass_but_for_those_that_the_page_names(place: World, source: Path) -> None:
    found = outcomes(place, source, "-k", f"not {SLEEPS}")
    assert len(found) > 60
    assert {name for name, passed in found.items() if not passed} == {
        name for name in CANNOT_HOLD if name in found and SLEEPS not in name
    }


@pytest.mark.matrix
def test_so_do_those_that_wait_for_a_flush(place: World, source: Path) -> None:
    found = outcomes(place, source, "-k", SLEEPS)
    assert len(found) == 6
    assert {name for name, passed in found.items() if not passed} == {
        name for name in CANNOT_HOLD if name in found and SLEEPS in name
    }


def test_each_that_cannot_hold_says_why() -> None:
    assert len(CANNOT_HOLD) == 9
    assert all(len(why) > 20 for why in CANNOT_HOLD.values())
