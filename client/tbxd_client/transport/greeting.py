"""Makes the greeting with which a client introduces itself to a daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..config.paths import token_path, told_path
from ..distributed import process_identity
from ..process.descriptors import uncut
from ..protocol import wire
from ..values.names import text_of

SCRIPT_LETTERS_MAX = 1000  # of the script's name, which is shown


def hello(session: bytes, acknowledged: int, folder: Path | None, address: str, remote: bool) -> wire.Hello:
    """Return the greeting of a session.

    Args:
        session: which.
        acknowledged: the position up to which it knows its records to be written.
        folder: its journal's; None where it has none.
        address: the daemon's.
        remote: the daemon may be on another host.
    """
    return wire.Hello(
        session,
        acknowledged,
        os.getpid(),
        text_of(os.uname().nodename),
        "" if remote or folder is None else told_path(str(folder)),
        _script(),
        "" if remote else token(address),
        process_identity.boot(),
        process_identity.clock(),
    )


def token(address: str) -> str:
    """Return the secret by which a daemon of this host knows its user; "" if it needs none, or there is none."""
    if address.startswith("ipc:"):
        return ""
    try:
        with uncut:
            return token_path().read_text()
    except OSError:
        return ""


def _script() -> str:
    """Return the name of the script, for people; a program may have put anything there."""
    try:
        return text_of(os.fsdecode(sys.argv[0]))[:SCRIPT_LETTERS_MAX]
    except (AttributeError, IndexError, TypeError, ValueError):
        return ""
