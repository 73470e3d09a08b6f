"""Finds the Python that runs the daemon.

``sys.executable`` is not always one. In a program that was made of a script (PyInstaller, Nuitka, cx_Freeze) it is that
program, and in one that has Python inside (uwsgi) its host: run to have a daemon it would train once more, and that
once more start another. So nothing is run to find out; what is not known to be a Python is left alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..config.settings import PYTHON

_NAME = re.compile(r"(python|pypy|graalpy)[0-9.]*[a-z]{0,2}(-[a-z0-9_.]+)?")  # python3.13t, python3-intel64
# What marks a program that was made of a script, in `sys` (Nuitka: in the main module).
_FROZEN = ("frozen", "oxidized", "_MEIPASS")


def find_python() -> tuple[str, str]:
    """Return the Python to run the daemon with and ""; if there is none, "" and the reason.

    ``TBXD_PYTHON``; ``sys.executable`` if it is one; in a program that has Python inside, the one that stands in the
    ``bin`` of its prefix. A Python that happens to be in ``PATH`` has other packages and is not asked.
    """
    configured = os.environ.get(PYTHON.variable)
    if configured:
        if _can_be_run(Path(configured)):
            return configured, ""
        return "", f"{PYTHON.variable}={configured!r} does not name a program that can be run"
    if is_frozen():
        return "", f"{sys.executable or 'this program'} is a program of its own and no Python"
    for path in _candidates():
        if is_python(path):
            return path, ""
    return "", f"sys.executable is {sys.executable!r}, no Python, and there is none in {sys.exec_prefix}/bin"


def is_frozen() -> bool:
    """Return True if this program was made of a script and carries its Python inside."""
    main = sys.modules.get("__main__")
    return any(getattr(sys, name, None) for name in _FROZEN) or "__compiled__" in vars(main or sys)


def is_python(path: str) -> bool:
    """Return True if a path is a Python's, by its name and by that of the file it leads to. It is not run."""
    found = Path(path)
    return all(_NAME.fullmatch(one.name) for one in (found, found.resolve())) and _can_be_run(found)


def _candidates() -> Iterator[str]:
    yield sys.executable or ""
    major, minor = sys.version_info[:2]
    for name in (f"python{major}.{minor}", f"python{major}", "python"):
        yield str(Path(sys.exec_prefix, "bin", name))


def _can_be_run(path: Path) -> bool:
    return path.is_absolute() and path.is_file() and os.access(path, os.X_OK)


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with changes, for a Python that `find_python` has found.

    A program that was made of a script has the libraries that it brings in ``LD_LIBRARY_PATH``, which are not for
    another one (https://pyinstaller.org/en/stable/runtime-information.html).
    """
    for _ in range(8):
        try:
            found = dict(os.environ)
            break
        except (KeyError, RuntimeError):  # another thread changes it
            continue
    else:
        found = {}
    if is_frozen():
        found.pop("LD_LIBRARY_PATH", None)
        if original := found.pop("LD_LIBRARY_PATH_ORIG", None):
            found["LD_LIBRARY_PATH"] = original
    return {**found, **changes}
