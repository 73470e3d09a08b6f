"""The package as it would be published: built, installed in empty environments of each Python that is there, and used.

The tests of what is pure logic run against the installed wheel, from a folder without the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import scalars, world

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# What these tests take; torch is not there, and no test in `CORE` needs it.
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "psutil")
CORE = ("records", "wire", "calls", "credit", "ledger", "rows", "run", "turns", "pool", "names", "folder_names")

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("package")]

USE = """
from tbxd_client import SummaryWriter
with SummaryWriter("logs/a") as writer:
    for step in range(10):
        writer.add_scalar("loss", step, step)
    assert writer.flush(60)
import tbxd, tbxd_client
print(tbxd.__file__, tbxd_client.__file__)
"""


def interpreter(version: str) -> str | None:
    """A Python of a version, of this machine or of its pyenv."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return sys.executable
    return str(found[-1]) if found else shutil.which(f"python{version}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Built by way of the source distribution, so that this is whole as well."""
    out = tmp_path_factory.mktemp("dist")
    source = out / "source"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, source], capture_output=True, text=True, timeout=600
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    yield path


def test_the_wheel_holds_all_that_belongs_to_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    names = {name.removeprefix("client/") for name in tracked.split("\0") if name.startswith(("tbxd/", "client/"))}
    assert inside == names


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_works_in_an_empty_environment(wheel: Path, version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    place = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", place], check=True)
    own = place / "bin" / "python"
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, wheel], check=True, timeout=600)
    with world(tmp_path / "world", PATH=f"{place / 'bin'}:{os.environ['PATH']}", PYTHONPATH="") as here:
        used = subprocess.run(
            [own, "-c", USE], cwd=here.root, env=here.environ, capture_output=True, text=True, timeout=120
        )
        assert used.returncode == 0, used.stderr
        assert all(path.startswith(str(place)) for path in used.stdout.split()), used.stdout
        assert scalars(here.logdir / "a") == {"loss": [(step, float(step)) for step in range(10)]}
        for command in (["status"], ["check", "logs"], ["doctor"], ["stop"]):
            told = subprocess.run(
                [place / "bin" / "tbxd", *command], cwd=here.root, env=here.environ, capture_output=True, text=True
            )
            assert "Traceback" not in told.stderr and told.returncode in (0, 1), (command, told.stdout, told.stderr)
    # The tests, without the sources beside them.
    subprocess.run([*pip, *TOOLS], check=True, timeout=600)
    tests = tmp_path / "tests"
    shutil.copytree(ROOT / "tests", tests, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ran = subprocess.run(
        [own, "-m", "pytest", "-q", *(tests / "unit" / f"test_{name}.py" for name in CORE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": "", "PYTEST_ADDOPTS": ""},
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
