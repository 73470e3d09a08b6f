"""The journals left in a spool: free ones, those that are held, with the holder, and damaged ones."""

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
    """The journals of a spool, without those of running scripts.

    Args:
        free: by name, the waiting bytes of journals that can be taken, or are being written.
        places: by name, the paths of these.
        held: by path, the waiting bytes of journals that another process holds, and the reason.
        unreadable: by path, the reason.
        elsewhere: by address, the journals and bytes for a daemon on another host.
        living: the number of journals of running scripts.
    """

    free: dict[str, int] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    held: dict[str, tuple[int, str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, tuple[int, int]] = field(default_factory=dict)
    living: int = 0

    @property
    def count(self) -> int:
        """The number of journals that are left."""
        return len(self.free) + len(self.held) + len(self.unreadable)

    @property
    def size(self) -> int:
        """The bytes of records that wait in them."""
        return sum(self.free.values()) + sum(size for size, _ in self.held.values())

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons of journals that cannot be taken, by path or address."""
        found = {path: why for path, (_, why) in self.held.items()}
        found |= self.unreadable
        for address, (count, size) in self.elsewhere.items():
            found[address] = (
                f"{size:,} bytes in {count:,} journal{'' if count == 1 else 's'} are for the daemon of another host: "
                f"{ADDRESS_VARIABLE}={address} tbxd drain"
            )
        return found


def look(folders: Sequence[Path], mine: frozenset[str] | set[str] = frozenset()) -> Leftovers:
    """Return the journals in these folders.

    Args:
        folders: the spools.
        mine: the names of journals that the asked daemon is writing.
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
    """Return the journals and bytes that ended scripts have left for daemons on other hosts, by address."""
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
    """Return why a journal of an ended script is locked; "" if the script is running, and sends by itself.

    Args:
        path: the journal.
        state: the state in its control page.
        found: its holders, as far as visible.
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
    """Return why no daemon takes a journal that is not locked; "" if no reason is found."""
    try:
        JournalReader(path).close()
    except JournalBusy:
        return ""
    except JournalError as error:
        return str(error).removeprefix(f"{path}: ") if path.exists() else ""
    return ""


def put_aside(spools: Sequence[Path]) -> int:
    """Return the number of invalid journals that have been put aside, now and earlier."""
    found = 0
    for spool in spools:
        with contextlib.suppress(OSError):
            found += sum(1 for _ in (spool / QUARANTINE).iterdir())
    return found
