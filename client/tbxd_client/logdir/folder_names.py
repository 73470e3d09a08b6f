"""Finds and escapes names that the file system of a log folder refuses, as exFAT and NTFS refuse ``g:1`` and ``x*y``.

The test is to make the folder, and only for names that some file system refuses: for a name of letters, a call that
logs never touches the disk.
"""

from __future__ import annotations

import errno
import os
import re

# What FAT, exFAT, NTFS and SMB do not take: these letters, and a dot or a blank at the end.
_SUSPECT = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]\Z')
_ESCAPED = re.compile(r'[<>:"\\|?*%\x00-\x1f]|[. ]\Z')
SURE_BYTES = 143  # of a name, that every file system takes: eCryptfs takes no more
_NEVER = frozenset((errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG))


def is_suspect(name: str) -> bool:
    """Return True if some file systems refuse this name."""
    return _SUSPECT.search(name) is not None or len(os.fsencode(name)) > SURE_BYTES


def is_refused(error: OSError, folder: str) -> bool:
    """Return True if an error means that the file system refuses the name itself, for ever.

    Args:
        error: from making the file or folder.
        folder: the folder above. The exFAT of FUSE reports ENOENT; if the folder exists, the name is refused.
    """
    return error.errno in _NEVER or (error.errno == errno.ENOENT and os.path.isdir(folder))  # noqa: PTH112


def escaped(name: str) -> str:
    """Return the name with ``%`` and two hexadecimal digits for each character that some file system refuses."""
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02x}", name)


def accepted(folder: str, parts: list[str]) -> list[str]:
    """Return the parts of a path below a folder as its file system accepts them; this makes the folders above.

    Raises:
        ValueError: the file system refuses a part even if escaped.
    """
    found: list[str] = []
    for part in parts:
        above = os.path.join(folder, *found)  # noqa: PTH118 - bytes that are no path are kept
        found.append(_accepted(above, part) if is_suspect(part) else part)
    return found


def _accepted(above: str, part: str) -> str:
    for name in dict.fromkeys((part, escaped(part))):
        try:
            os.makedirs(above, exist_ok=True)  # noqa: PTH103
            os.mkdir(os.path.join(above, name))  # noqa: PTH102, PTH118
        except FileExistsError:
            pass
        except OSError as error:
            if is_refused(error, above):
                continue
            # The disk is full, or not there at the moment: who writes the run waits for it.
        return name
    raise ValueError(f"the file system of {above!r} takes no folder {part[:80]!r}; use another name")


def check(folder: str, error: OSError) -> None:
    """Raise if a folder can never be made.

    Args:
        error: from making the folder, or one above it.

    Raises:
        ValueError: the file system refuses its name.
    """
    above, name = os.path.split(os.fsdecode(error.filename or folder))
    if is_refused(error, above):
        raise ValueError(
            f"the log folder {folder!r}: the file system of {above!r} takes no folder {name[:80]!r} "
            f"({error.strerror}); use another name"
        ) from error


def check_suffix(folder: str, suffix: str) -> None:
    """Raise if no file name may end with this suffix.

    Raises:
        ValueError: the folder's file system refuses it.
    """
    if not is_suspect(suffix):
        return
    probe = os.path.join(folder, f".{os.getpid()}{suffix}")  # noqa: PTH118
    try:
        os.mkdir(probe)  # noqa: PTH102
        os.rmdir(probe)  # noqa: PTH106
    except OSError as error:
        if is_refused(error, folder):
            raise ValueError(
                f"the file system of {folder!r} takes no file whose name ends with {suffix!r}; use another "
                "filename_suffix"
            ) from error
