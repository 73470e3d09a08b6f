"""The files of the PROJECTOR tab, inside the run's folder, each replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from .events import schema
from .summaries.embedding import Embedding
from .summaries.errors import Refused

CONFIG = "projector_config.pbtxt"


def write(directory: Path, embedding: Embedding) -> None:
    """Write the files of an embedding and its entry, which replaces one of the same tag and step.

    A configuration that cannot be read is kept under another name.

    Raises:
        OSError: the disk cannot take them.
        Refused: ``bad_record``: their folder is a link that leads out of the run's folder.
    """
    folder = directory / embedding.folder
    if not folder.resolve().is_relative_to(directory.resolve()):
        raise Refused("bad_record", f"{folder} leads out of {directory}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in embedding.files.items():
        _replace(folder / name, content)
    path = directory / CONFIG
    config = _read(path)
    others = [info for info in config.embeddings if info.tensor_name != embedding.info.tensor_name]
    del config.embeddings[:]
    config.embeddings.extend([*others, embedding.info])
    _replace(path, text_format.MessageToString(config, as_utf8=True).encode())


def _read(path: Path) -> Any:
    config = schema.ProjectorConfig()
    try:
        text_format.Parse(path.read_bytes(), config, allow_unknown_field=True)
    except FileNotFoundError:
        pass
    except (text_format.ParseError, UnicodeDecodeError):
        path.replace(path.with_suffix(".unreadable"))
        config.Clear()
    return config


def _replace(path: Path, content: bytes) -> None:
    """Let a file have this content: whoever reads it sees the old one or the new one."""
    staging = path.with_name(f".{path.name}.new")
    staging.unlink(missing_ok=True)
    try:
        with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError:
        staging.unlink(missing_ok=True)
        raise
