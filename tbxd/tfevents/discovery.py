"""The folders below a log folder, as TensorBoard finds them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tbxd_client.logdir.event_names import event_files

from .event_file import open_to_read
from .ledger import encode_session

LOOK_BYTES = 1 << 20  # of an event file, in which a session's first mark is looked for


def event_folders(
    root: Path, unreadable: Callable[[OSError], None] = lambda error: None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder at and below ``root`` with the names of its event files, in order; most have none.

    Links to folders are followed, each folder is visited once. ``unreadable`` is called for those that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for name, folders, _ in os.walk(root, onerror=unreadable, followlinks=True):
        folder = Path(name)
        try:
            state = folder.stat()
            names = event_files(folder)
        except OSError as error:
            folders.clear()
            unreadable(error)
            continue
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders.sort()
        yield folder, names


def folder_of(folder: Path, session: bytes) -> str:
    """Return the folder directly below one that has a life's records, by the marks in its files; "" if none has."""
    marks = (f"={encode_session(session)},".encode(), f"!{encode_session(session)}/".encode())
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return ""
    for path in below:
        with contextlib.suppress(OSError):
            for name in event_files(path):
                fd = open_to_read(path / name)  # a pipe of that name would be waited for
                if fd < 0:
                    continue
                with open(fd, "rb") as file:
                    data = file.read(LOOK_BYTES)
                if any(mark in data for mark in marks):
                    return path.name
    return ""
