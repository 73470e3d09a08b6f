"""The identity of a process that logs: its program, its parent, and its start.

The daemon needs it if a process logs earlier steps of a tag than another process has logged: it decides whether this is
a restart of that process or something else (docs/EVENT_FILE.md, "Resume").
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from functools import partial
from typing import Any

from ..config.paths import digest
from ..journal import journal_files
from ..protocol.records import ORIGIN_BYTES_MAX
from .job_identity import process_of

DIGEST_CHARS = 16
PROGRAM_CHARS = 8  # of the digest of a program and its arguments: of the program, whatever its arguments
SCRIPT_CHARS_MAX = 60
# Arguments that say that a program goes on with earlier work, so that with and without them it is the same one.
_RESUMES = re.compile(r"resum|restart|continu|requeue|start[-_.]?(epoch|step|iter)", re.IGNORECASE)
_WORDS = re.compile(r"resume|restart|continue|requeue", re.IGNORECASE)
# Arguments that say that a program does something else than train: it goes on with nobody's training then.
_MODES = re.compile(
    r"(do[-_.]?|only[-_.]?)?(eval(uate|uation)?|test(ing)?|valid(ate|ation)?|predict(ion)?|infer(ence)?|export)"
    r"([-_.]?only)?",
    re.IGNORECASE,
)
_clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)  # kept where freezegun does not look for it

_boot = ""
_forked_from = 0  # the process that has forked this one, where it had imported this


def boot() -> str:
    """Return an id of this boot of the system; "" if unknown."""
    global _boot
    if not _boot:
        told = journal_files.boot_id()
        _boot = "" if told == journal_files.NO_BOOT else told.hex()[:DIGEST_CHARS]
    return _boot


def clock() -> int:
    """Return the milliseconds since boot, which never decrease."""
    return int(_clock() * 1000)


def fields() -> dict[str, Any]:
    """Return the identity of this process, as fields of a `records.RunDefinition`."""
    script, kin, parent = "python", "", ""
    with contextlib.suppress(Exception):  # at the end of the program, or a ``sys.argv`` that has anything in it
        parent = _parent()
        script, kin = program(list(map(str, sys.argv)), list(sys.orig_argv), _main_file(), bool(parent))
    return {"script": script, "kin": kin, "parent": parent, "boot": boot(), "began": clock()}


def program(arguments: list[str], original: list[str], main: str, child: bool) -> tuple[str, str]:
    """Return the name of a program, and a digest that all its processes with the same work share.

    Its first `PROGRAM_CHARS` do not depend on the arguments, except those for other work than training.

    Args:
        arguments: ``sys.argv``.
        original: ``sys.orig_argv``.
        main: the file of the main module; "" for none.
        child: the process is a child of Python's that does a part of its parent's work.

    Returns:
        "" for the digest if nothing identifies the program: a prompt, a notebook, a script from stdin.
    """
    first = arguments[0] if arguments else ""
    code = ""
    if first == "-c" and "-c" in original[:-1]:
        name, code = "python", original[original.index("-c") + 1]
    elif main or first not in ("", "-", "-c", "-m"):
        name = os.path.basename(main or first)  # noqa: PTH119
        if name == "__main__.py":
            name = os.path.basename(os.path.dirname(main or first))  # noqa: PTH119, PTH120
    else:
        name = ""
    short = re.sub(r"[^\w.-]", "_", name.removesuffix(".py"))[:SCRIPT_CHARS_MAX] or "python"
    short = short.encode("utf-8", "replace")[:ORIGIN_BYTES_MAX].decode("utf-8", "ignore")
    if not name or "ipykernel" in first:
        return short, ""
    work = "\0".join(("child" if child else "main", name, code, *_modes(arguments[1:])))
    return short, _digest(work)[:PROGRAM_CHARS] + _digest("\0".join(_essential(arguments[1:])))[PROGRAM_CHARS:]


def _modes(arguments: list[str]) -> list[str]:
    """Return the arguments that mean other work than training: ``--eval``, ``mode=test``, ``predict``."""
    parts = [part.strip("-").lower() for argument in arguments for part in argument.split("=")]
    return sorted({part for part in parts if _MODES.fullmatch(part)})


def _essential(arguments: list[str]) -> list[str]:
    """Return the arguments without those that mean that the program continues earlier work."""
    kept, passed = [], False
    for argument in arguments:
        name, given, _ = argument.partition("=")
        option = argument.startswith("-")
        if passed and not option:
            passed = False
            continue
        passed = False
        if (option or given) and _RESUMES.search(name):
            passed = option and not given
        elif not _WORDS.fullmatch(argument):
            kept.append(argument)
    return kept


def _main_file() -> str:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return file if isinstance(file, str) else ""


def _parent() -> str:
    """Return the id of the parent, if Python has made this process for a part of its parent's work; "" otherwise."""
    if _forked_from:
        return _named(_forked_from)
    module: Any = sys.modules.get("multiprocessing.process")
    try:
        parent = module.parent_process() if module is not None else None
        return "" if parent is None else _named(int(parent.pid))
    except (AttributeError, TypeError, ValueError):
        return ""


def _named(pid: int) -> str:
    process = process_of(pid)
    return _digest(f"{boot()}-{pid}-{process.started if process is not None else 0}")


def _digest(text: str) -> str:
    return digest(text.encode("utf-8", "surrogateescape"))


def _after_fork_in_child() -> None:
    global _forked_from
    _forked_from = os.getppid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
