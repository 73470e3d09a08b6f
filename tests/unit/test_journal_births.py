"""A journal is born and dies by a rename under its lock: who finds it by its name finds it whole, and owned."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tbxd_client.journal.journal import Journal
from tbxd_client.journal.journal_files import CONTROL_NAME, DEFINITIONS_NAME, SEGMENT_SUFFIX, JournalReader, journals
from tbxd_client.transport.launcher import is_locked


class Watcher:
    """Looks at the spool before and after whatever makes, moves or removes a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
        self._spool = spool
        self._looks = False
        self.seen = 0
        for name in ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "write", "posix_fallocate", "ftruncate"):
            monkeypatch.setattr(os, name, self._around(getattr(os, name)))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*arguments: Any, **more: Any) -> Any:
            self._look()
            try:
                return call(*arguments, **more)
            finally:
                self._look()

        return around

    def _look(self) -> None:
        if self._looks:
            return
        self._looks = True
        try:
            for path in journals(self._spool):
                self.seen += 1
                names = {entry.name for entry in path.iterdir()}
                assert {CONTROL_NAME, DEFINITIONS_NAME} <= names, "a part of a journal"
                assert any(name.endswith(SEGMENT_SUFFIX) for name in names), "without a segment"
                assert is_locked(path / CONTROL_NAME), "nobody owns it, and anybody would take it"
        finally:
            self._looks = False


def test_a_journal_has_its_name_only_while_it_is_whole_and_owned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        watcher = Watcher(patched, tmp_path)
        journal = Journal(tmp_path, lambda: False)
        assert watcher.seen, "it was there after its rename"
        assert journal.append(b"x") == ""
        journal.release(journal.committed)
        assert journal.close()
    assert not journals(tmp_path)


def test_a_journal_that_a_daemon_has_written_loses_its_name_under_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Journal(tmp_path, lambda: False)
    assert left.append(b"x") == "" and not left.close()
    reader = JournalReader(left.path)
    with monkeypatch.context() as patched:
        watcher = Watcher(patched, tmp_path)
        reader.remove()
        assert watcher.seen, "it was there before its rename"
    assert not journals(tmp_path) and not list(tmp_path.iterdir())
