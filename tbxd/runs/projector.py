"""The files of the PROJECTOR tab, inside the run's folder, each replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any

from tbxd_client.journal.journal_files import sync_folder

from ..encode.embedding import Embedding
from ..encode.rejections import Refused
from ..tfevents import schema
from ..tfevents.event_file import NOT_OURS
from ..tfevents.folder import open_below
from ..tfevents.modes import FILE_MODE, mode_in

CONFIG, UNREADABLE = "projector_config.pbtxt", "projector_config.unreadable"


def write(run: int, embedding: Embedding, umask: int | None = None) -> None:
    """Write the files of an embedding and its entry, which replaces one of the same tag and step.

    A configuration that cannot be read is kept under another name.

    Args:
        run: a descriptor of the run's folder, in which everything is made, whatever its path leads to.
        embedding: what to write.
        umask: of the trainer whose run it is, see `modes.mode_in`.

    Raises:
        OSError: the disk cannot take them.
        Refused: ``bad_record``: their folder is a link.
    """
    from google.protobuf import text_format  # with the first embedding: few runs have any

    held = [run]
    try:
        for name in embedding.folder.split("/"):
            held.append(open_below(held[-1], name, umask))
        for name, content in embedding.files.items():
            _replace(held[-1], name, content, umask)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("bad_record", f"{error.filename} in {embedding.folder} is a link") from error
        raise
    finally:
        for fd in held[1:]:
            os.close(fd)
    config = _read(run)
    others = [info for info in config.embeddings if info.tensor_name != embedding.info.tensor_name]
    del config.embeddings[:]
    config.embeddings.extend([*others, embedding.info])
    _replace(run, CONFIG, text_format.MessageToString(config, as_utf8=True).encode(), umask)


def _read(run: int) -> Any:
    from google.protobuf import text_format

    config = schema.ProjectorConfig()
    try:
        fd = os.open(CONFIG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=run)
    except FileNotFoundError:
        return config
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        content = None
    else:
        with open(fd, "rb") as file:
            content = file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None
    try:
        if content is not None:
            text_format.Parse(content, config, allow_unknown_field=True)
            return config
    except (text_format.ParseError, UnicodeDecodeError):
        config.Clear()
    os.replace(CONFIG, UNREADABLE, src_dir_fd=run, dst_dir_fd=run)
    return config


def _replace(folder: int, name: str, content: bytes, umask: int | None) -> None:
    """Let a file have this content: whoever reads it sees the old one or the new one."""
    staging = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(staging, dir_fd=folder)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(staging, flags, mode_in(folder, FILE_MODE, umask), dir_fd=folder), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, name, src_dir_fd=folder, dst_dir_fd=folder)
        sync_folder(folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(staging, dir_fd=folder)
        raise
