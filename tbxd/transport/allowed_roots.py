"""Roots: the folders below which clients on other hosts may have runs.

A daemon writes as its user, and a client names the folder. The user of a client on this host could write the folder
anyway; the folder of a client on another host has to be below a root. Roots are resolved once, when the daemon starts;
below them no link is followed (`events.folder`).
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from tbxd_client.protocol.records import RemoteProtocolError


class Roots:
    """The roots of a daemon.

    Args:
        text: absolute folders with ``:`` between them, as in ``PATH``.

    Raises:
        ValueError: a root is not absolute, is "/", or does not exist.
    """

    def __init__(self, text: str) -> None:
        self.folders: list[tuple[str, str]] = []  # as given, and with all links followed
        for entry in text.split(os.pathsep):
            if not entry:
                continue
            if not entry.startswith("/"):
                raise ValueError(f"root {entry!r}: an absolute folder is expected")
            given, real = "/" + posixpath.normpath(entry).lstrip("/"), os.path.realpath(entry)
            if real == "/":
                raise ValueError("root '/' would let clients on other hosts write everything that you may write")
            if not Path(real).is_dir():
                raise ValueError(f"root {entry!r} is not a folder; make it first")
            self.folders.append((given, real))

    def place(self, directory: str) -> str:
        """Return the real path of a client's folder.

        Args:
            directory: absolute and normal, without ``..``.

        Raises:
            RemoteProtocolError: the folder is below no root.
        """
        for given, real in self.folders:
            for root in (given, real):
                if directory == root or directory.startswith(root + "/"):
                    return real + directory[len(root) :]
        raise RemoteProtocolError(
            f"the log folder {directory[:200]!r} is not below {' or '.join(given for given, _ in self.folders)}, where "
            "this daemon lets other hosts log; log there, or start it with another --roots"
        )
