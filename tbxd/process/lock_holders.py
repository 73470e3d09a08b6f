"""The holders of a lock file, from ``/proc`` (proc(5)), for messages to the user.

``flock`` belongs to an open file, and a process that has inherited it holds the lock, too: /proc/locks shows the
process that took it, which may be gone; the descriptors of each process show the present holders.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
PROGRAM_LETTERS = 80  # of a command line that are shown
_FLOCK = re.compile(r"^lock:\s.*\bFLOCK\b.*:(\d+) \d+ \w+$", re.M)  # and the inode


class Holder(NamedTuple):
    """A process that holds a lock.

    Args:
        pid: its number here.
        inner: its number in the innermost namespace of processes that it is in.
        words: its command line.
    """

    pid: int
    inner: int
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """The command line, for messages."""
        text = "".join(letter if letter.isprintable() else " " for letter in " ".join(self.words))
        text = " ".join(text.split()) or "no command line"
        return text if len(text) <= PROGRAM_LETTERS else f"{text[: PROGRAM_LETTERS - 1]}…"

    @property
    def is_tbxd(self) -> bool:
        """True for a daemon or a `tbxd drain`."""
        return any(word in ("serve", "drain") for word in self.words) and any("tbxd" in word for word in self.words)


def holders(path: Path) -> list[Holder]:
    """Return the visible processes that hold an flock on a file."""
    try:
        wanted = path.parent.name, path.stat().st_ino
    except OSError:
        return []
    return [_holder(process) for process in _processes() if wanted in _locked(process, path.name)]


def all_holders(name: str) -> dict[str, list[Holder]]:
    """Return the processes that hold an flock on a file of this name, by the name of its folder (of a journal).

    The path above that may differ in another mount namespace. It looks at all processes once, for all files.
    """
    found: dict[str, list[Holder]] = {}
    for process in _processes():
        for folder, _ in _locked(process, name):
            found.setdefault(folder, []).append(_holder(process))
    return found


def holds(pid: int, path: Path) -> bool | None:
    """Return True if a process holds an flock on a file; None if unknown, False if there is no such process."""
    process = PROC / str(pid)
    try:
        next((process / "fd").iterdir(), None)
    except FileNotFoundError:
        return False if (PROC / "self").exists() else None
    except OSError:
        return None
    return any(folder == path.parent.name for folder, _ in _locked(process, path.name))


def _locked(process: Path, name: str) -> set[tuple[str, int]]:
    """Return folder names and inodes of the files of this name that a process has open and locked."""
    found = set()
    with contextlib.suppress(OSError, ValueError):
        for number in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                folder, _, last = str(number.readlink()).rpartition("/")  # no stat: it would hang with a disk
                if last == name and (lock := _FLOCK.search((process / "fdinfo" / number.name).read_text())):
                    found.add((folder.rpartition("/")[2], int(lock[1])))
    return found


def _processes() -> list[Path]:
    try:
        return [entry for entry in PROC.iterdir() if entry.name.isdecimal()]
    except OSError:
        return []


def _holder(process: Path) -> Holder:
    pid = inner = int(process.name)
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = (process / "status").read_text()
        inner = int(re.search(r"^NSpid:.*\s(\d+)$", status, re.M)[1])  # type: ignore[index]
    words: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        words = tuple((process / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0"))
    return Holder(pid, inner, words)
