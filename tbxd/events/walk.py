"""The folders below a log folder, as TensorBoard finds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tbxd_client.event_names import event_files


def event_folders(
    root: Path, unreadable: Callable[[OSError], None] = lambda error: None
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at and below ``root`` with the names of its event files, in order; most have none.

    Links to folders are followed, each folder is visited once. ``unreadable`` is told of those that cannot be read.
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
