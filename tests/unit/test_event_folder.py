"""A folder of event files: its lock, and the next file in it. A run, its extremes and the node's curves use it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tbxd.system.curves import Curves
from tbxd.tfevents import event_file
from tbxd.tfevents.event_builder import opening
from tbxd.tfevents.event_file import FileLost
from tbxd.tfevents.event_folder import EventFolder
from tbxd_client.logdir.event_names import event_files
from tbxd_client.logdir.folder_lock import FolderHeld

START = opening(1.0)


def test_each_file_comes_behind_all_that_were_made(tmp_path: Path) -> None:
    """Also behind one that somebody has removed meanwhile, whose name never comes again."""
    folder = EventFolder(tmp_path / "run")
    folder.lock()
    first = folder.open_next(START, "host", 1, now=2e9)
    first.close()
    first.path.unlink()
    second = folder.open_next(START, "host", 1, now=1e9)
    assert second.path.name > first.path.name and event_files(folder.directory) == [folder.name]
    assert second.path.read_bytes() == START and folder.dirty
    folder.sync()
    assert not folder.dirty
    folder.close_file()
    folder.unlock()


def test_a_parked_file_is_gone_on_with_by_who_has_it(tmp_path: Path) -> None:
    folder, other = EventFolder(tmp_path), EventFolder(tmp_path)
    folder.lock()
    file = folder.open_next(START, "host", 1)
    folder.park()
    assert not folder.held and folder.name and folder.kept_out is None
    other.lock()
    with pytest.raises(FolderHeld):
        folder.lock()
    assert folder.kept_out == other.place and not folder.held
    other.unlock()
    folder.lock()
    assert not folder.is_overtaken(folder.take())
    file.write(START)
    assert file.path.read_bytes() == 2 * START
    folder.park()
    other.lock()
    other.open_next(START, "host", 2)
    other.close_file()
    other.unlock()
    assert folder.is_overtaken(folder.lock())
    folder.unlock()


def test_a_parked_file_that_is_gone_leaves_no_descriptor(tmp_path: Path) -> None:
    folder = EventFolder(tmp_path)
    folder.lock()
    file = folder.open_next(START, "host", 1)
    folder.park()
    file.path.unlink()
    assert folder.is_overtaken(folder.lock())
    with pytest.raises(FileLost):
        folder.take()
    assert not folder.held and file.number < 0


def test_the_curves_of_a_node_have_a_file_where_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the run's own has: without the host then."""
    opened = event_file._open

    def refuse(path: Path, folder: int | None, flags: int, mode: int = 0) -> int:
        if "node" in path.name and flags & os.O_CREAT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, folder, flags, mode)

    monkeypatch.setattr(event_file, "_open", refuse)
    curves = Curves(tmp_path, "node")
    curves.write({"x": 1.0}, 100.0)
    assert not curves.error and curves.left_out == 0
    (name,) = event_files(curves.directory)
    assert "node" not in name
    curves.close()
