"""The names of event files: those in a folder, and the next one.

``events.out.tfevents.<10-digit seconds>.<host>.<pid>.<n><suffix>`` is the form that TensorBoard's own writer uses and
that tools look for. TensorBoard reads the files of a folder in the order of their names.

If a folder has a name of this second or a later one (from a wrong clock), a count of six digits follows the seconds of
the last name: the new name sorts after that one and before the next second. So names do not run ahead of the existing
ones, however many files are made.
"""

from __future__ import annotations

import itertools
import os
import re
import time

from .folder_lock import is_held

NAME_BYTES_MAX = 255  # NAME_MAX of Linux
AHEAD_SECONDS_MAX = 86_400  # that a trainer's clock may be before the daemon's
SECONDS_MAX = 9_999_999_999  # of 10 digits

PLACES = 6  # of the count
COUNT_MAX = 10**PLACES - 1

_SECONDS = re.compile(r"tfevents\.(\d{10})(\d*)\.", re.ASCII)
_BEFORE = re.compile(r"events\.out\.tfevents\.(\d{10})(\d*)\.", re.ASCII)  # others sort elsewhere anyway
_NAME = re.compile(rf"events\.out\.tfevents\.(\d{{10}})(?:\d{{{PLACES}}})?\.[\w.-]+\.\d+\.\d+")
_numbers = itertools.count()


def file_name(existing: list[str], now: float, host: str, pid: int, suffix: str = "") -> str:
    """Return a name that sorts after every event file in ``existing`` of the usual form, whatever the clock says."""
    safe_host = re.sub(r"[^\w.-]", "_", host) or "localhost"
    safe_suffix = suffix.replace("/", "_")
    place = _place_behind(existing, min(int(now), SECONDS_MAX))
    return f"events.out.tfevents.{place}.{safe_host}.{pid}.{next(_numbers)}{safe_suffix}"


def _place_behind(existing: list[str], now: int) -> str:
    """Return the digits of a name: the second if it is after all others, else the last name's second and a count."""
    last, digits = max((match.groups() for match in map(_BEFORE.match, existing) if match), default=("", ""))
    if not last or int(last) < now:
        return f"{now:010d}"
    count = int(f"{digits:0<{PLACES}.{PLACES}}") + 1
    if count > COUNT_MAX:
        return f"{min(int(last) + 1, SECONDS_MAX):010d}"
    return f"{last}{count:0{PLACES}d}"


def is_acceptable(name: str, suffix: str, existing: list[str], now: float) -> bool:
    """Return True if a new event file may have the name that a trainer has chosen.

    The name must have the usual form, end in ``suffix`` and sort after every event file in ``existing``. It must not be
    from the far future, because every later name would have to follow it there.
    """
    match = _NAME.fullmatch(name[: len(name) - len(suffix)]) if name.endswith(suffix) and "/" not in name else None
    return (
        match is not None
        and len(os.fsencode(name)) <= NAME_BYTES_MAX
        and all(other < name for other in existing)
        and int(match[1]) <= max(now + AHEAD_SECONDS_MAX, _last_second(existing) + 1)
    )


def _last_second(names: list[str]) -> int:
    return min(max((int(match[1]) for match in map(_BEFORE.match, names) if match), default=-1), SECONDS_MAX - 1)


def second_of(name: str) -> int | None:
    """Return the seconds in the name of an event file; None if it has none."""
    match = _SECONDS.search(name)
    return int(match[1]) if match else None


def first_second(names: list[str]) -> int | None:
    """Return the seconds in the first name that has them, of event files in the order of `event_files`."""
    return next((second for second in map(second_of, names) if second is not None), None)


def event_files(directory: str | os.PathLike[str] | int) -> list[str]:
    """Return the names of the event files in a folder (a path or a descriptor), in TensorBoard's order.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if "tfevents" in entry.name)


def choose(directory: str, suffix: str) -> str:
    """Return the name for the next event file of a folder; "" while a daemon writes one."""
    try:
        existing = event_files(directory)
    except OSError:
        existing = []
    if existing and is_held(directory):
        return ""
    return file_name(existing, time.time(), os.uname().nodename, os.getpid(), suffix)
