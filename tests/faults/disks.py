"""File systems of their own on loop devices: btrfs and XFS, to be filled, shut down and broken."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import absent

MIB = 1 << 20
SMALLEST = {"btrfs": 128 * MIB, "xfs": 320 * MIB}  # that their tools make


def needs(kind: str) -> None:
    """Skip where a file system of this kind cannot be made."""
    if os.getuid():
        pytest.skip("only root can mount")
    for tool in (f"mkfs.{kind}", *(("xfs_io",) if kind == "xfs" else ())):
        if shutil.which(tool) is None:
            absent(f"{tool} is not installed (apt-get install btrfs-progs xfsprogs; `make fault-tools` does it)")


@contextmanager
def loop_disk(kind: str, folder: Path, image: Path) -> Iterator[Path]:
    """A file system on a loop device, mounted at a folder that is made for it.

    Args:
        kind: "btrfs" or "xfs".
        folder: where it is mounted.
        image: the file that is its disk.
    """
    needs(kind)
    folder.mkdir(parents=True)
    image.touch()
    os.truncate(image, SMALLEST[kind])
    more = ["-m", "single"] if kind == "btrfs" else []
    subprocess.run([f"mkfs.{kind}", "-q", *more, str(image)], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a loop device with {kind} cannot be mounted here: {mounted.stderr.strip()}")
    folder.chmod(0o700)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, name: str = "filler") -> None:
    """Take all the room that a file system has."""
    size = MIB
    with (folder / name).open("ab", buffering=0) as file:
        while size >= 4096:
            try:
                os.write(file.fileno(), bytes(size))
            except OSError:
                size //= 2
        with contextlib.suppress(OSError):  # what was written behind its back has no room
            os.fsync(file.fileno())


def write_back(folder: Path) -> None:
    """Have the system write what it has of a file system: its pages are clean then, and stored into anew."""
    subprocess.run(["sync", "-f", str(folder)], check=False)


def shut_down(folder: Path) -> None:
    """End an XFS as an I/O error does: it takes and gives nothing any more."""
    subprocess.run(["xfs_io", "-x", "-c", "shutdown", str(folder)], check=True)
