"""What is left in a spool: journals that a daemon can take, those that are held and by whom, those that are damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tbxd_client.config.paths import ADDRESS_VARIABLE, REMOTE
from tbxd_client.journal.journal_files import (
    CONTROL_NAME,
    JournalBusy,
    JournalError,
    JournalReader,
    JournalState,
    boot_id,
    journals,
    read_state,
)
from tbxd_client.transport.launcher import is_locked

from ..ingest.journal_recovery import QUARANTINE
from ..process.lock_holders import Holder, all_holders, holds


@dataclass(slots=True)
class Leftovers:
    """The journals of a spool, but those whose scripts live.

    Args:
        free: by name, the bytes that wait in those that can be taken, or are just being written.
        places: by name, where these are.
        held: by path, the bytes that wait in those that somebody holds, and who that is.
        unreadable: by path, why.
        elsewhere: by address, the journals and bytes for a daemon on another host.
        living: how many are left to their scripts, which live.
    """

    free: dict[str, int] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    held: dict[str, tuple[int, str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, tuple[int, int]] = field(default_factory=dict)
    living: int = 0

    @property
    def count(self) -> int:
        """How many journals are left."""
        return len(self.free) + len(self.held) + len(self.unreadable)

    @property
    def size(self) -> int:
        """How many bytes of records wait in them."""
        return sum(self.free.values()) + sum(size for size, _ in self.held.values())

    @property
    def reasons(self) -> dict[str, str]:
        """What keeps those that cannot be taken, by path or address."""
        found = {path: why for path, (_, why) in self.held.items()}
        found |= self.unreadable
        for address, (count, size) in self.elsewhere.items():
            found[address] = (
                f"{size:,} bytes in {count:,} journal{'' if count == 1 else 's'} are for the daemon of another host: "
                f"{ADDRESS_VARIABLE}={address} tbxd drain"
            )
        return found


def look(folders: Sequence[Path], mine: frozenset[str] | set[str] = frozenset()) -> Leftovers:
    """Look at the journals in some folders.

    Args:
        folders: the spools where they may be.
        mine: the names of those that the daemon which is asked is writing.
    """
    left = Leftovers()
    found: dict[str, list[Holder]] | None = None
    for path in (path for folder in folders for path in journals(folder)):
        try:
            state = read_state(path)
        except JournalError as error:
            if path.exists():  # else it has just been written
                left.unreadable[str(path)] = str(error).removeprefix(f"{path}: ")
            continue
        waiting = state.readable_end - state.released
        if path.name in mine or not is_locked(path / CONTROL_NAME):
            left.free[path.name] = waiting
            left.places[path.name] = path
        elif state.boot == boot_id() and holds(state.pid, path / CONTROL_NAME):
            left.living += 1
        else:
            found = all_holders(CONTROL_NAME) if found is None else found
            if not (why := why_held(path, state, found.get(path.name, []))):
                left.living += 1
            elif waiting:
                left.held[str(path)] = waiting, why
    return left


def for_other_hosts(spools: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """What scripts that are gone have left for daemons on other hosts: journals and bytes, by address."""
    folders: dict[str, list[Path]] = {}
    for spool in spools:
        with contextlib.suppress(OSError):
            for folder in (spool / REMOTE).iterdir():
                folders.setdefault(folder.name, []).append(folder)
    found = {}
    for name in sorted(folders):
        left = look(folders[name])
        if left.count and left.size:
            found[f"tcp://{name}"] = left.count, left.size
    return found


def why_held(path: Path, state: JournalState, found: list[Holder]) -> str:
    """Why a journal is locked whose script is gone; "" where the script lives, and sends by itself.

    Args:
        path: the journal.
        state: what its control page says.
        found: who holds it, as far as can be seen.
    """
    if any(state.pid in (holder.pid, holder.inner) for holder in found):
        return ""
    if not found and state.boot == boot_id() and holds(state.pid, path / CONTROL_NAME) is None:
        return ""
    for holder in found:
        if holder.is_tbxd:
            return f"it is being written by pid {holder.pid} ({holder.program})"
    if not found:
        return "it is locked by a process that cannot be seen from here (of another container, or another user)"
    who = ", ".join(f"pid {holder.pid} ({holder.program})" for holder in found)
    return (
        f"its script (pid {state.pid}) is gone, and {who} inherited its lock: the records that wait are written "
        f"when it ends (kill {' '.join(str(holder.pid) for holder in found)})"
    )


def why_not_taken(path: Path) -> str:
    """Why nobody takes a journal that is not locked; "" where there is no reason to be seen."""
    try:
        JournalReader(path).close()
    except JournalBusy:
        return ""
    except JournalError as error:
        return str(error).removeprefix(f"{path}: ") if path.exists() else ""
    return ""


def put_aside(spools: Sequence[Path]) -> int:
    """How many journals that made no sense have been put aside, now and earlier."""
    found = 0
    for spool in spools:
        with contextlib.suppress(OSError):
            found += sum(1 for _ in (spool / QUARANTINE).iterdir())
    return found
