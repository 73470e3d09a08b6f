"""Embeddings: the files that the PROJECTOR tab reads, and their entry in its configuration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from tbxd_client.protocol.limits import NUMBERS_MAX, POINTS_MAX, SPRITE_SIDE_MAX
from tbxd_client.protocol.records import Record, TagDefinition
from tbxd_client.values.embedding import columns_of

from ..tfevents import schema
from .arrays import AnyArray, arrays_of, check_real, shown
from .image import as_bytes, png
from .rejections import Refused

NAME_BYTES_MAX = 200  # of a folder


@dataclass(slots=True)
class Embedding:
    """The files of one embedding.

    ``folder`` is relative to the run's and has two parts; ``files`` are the contents of its files by their names;
    ``info`` is the ``EmbeddingInfo`` that names them.
    """

    folder: str
    files: dict[str, bytes]
    info: Any


def embedding_of(record: Record, tag: TagDefinition) -> Embedding:
    """Encode one embedding: arrays ``mat`` (points, dimensions), optionally ``metadata`` (bytes of a table) and
    ``images`` (points, channels, side, side).

    Raises:
        Refused: ``bad_record``.
    """
    arrays = arrays_of(record)
    if not {"mat"} <= arrays.keys() <= {"mat", "metadata", "images"}:
        raise Refused("bad_record", f"an embedding of {sorted(arrays)!r:.80}")
    mat = arrays["mat"]
    check_real(mat)
    if mat.ndim != 2 or mat.size > NUMBERS_MAX or len(mat) > POINTS_MAX:
        raise Refused("bad_record", f"an embedding of shape {mat.shape}")
    if not mat.size:
        raise Refused("no_values", "an embedding without points")
    step = f"{record.step:05d}"
    folder = f"{step}/{_folder_name(tag.tag)}"
    info = schema.EmbeddingInfo(tensor_name=f"{shown(tag.tag)}:{step}", tensor_path=f"{folder}/tensors.tsv")
    files = {"tensors.tsv": _table(mat)}
    if "metadata" in arrays:
        if arrays["metadata"].dtype != np.uint8:
            raise Refused("bad_record", f"metadata of dtype {arrays['metadata'].dtype}")
        files["metadata.tsv"] = arrays["metadata"].tobytes()
        info.metadata_path = f"{folder}/metadata.tsv"
    if "images" in arrays:
        images = squared(arrays["images"])
        files["sprite.png"] = png(sprite_of(images))
        info.sprite.image_path = f"{folder}/sprite.png"
        info.sprite.single_image_dim.extend([images.shape[3], images.shape[2]])
    return Embedding(folder, files, info)


def _folder_name(tag: str) -> str:
    """Return a safe and short folder name for a tag."""
    name = quote(shown(tag), safe="").replace(".", "%2E") or "%"
    if len(name) <= NAME_BYTES_MAX:
        return name
    return name[: NAME_BYTES_MAX - 17] + "-" + hashlib.sha256(name.encode()).hexdigest()[:16]


def _table(mat: AnyArray) -> bytes:
    if mat.dtype == np.float16:
        mat = mat.astype(np.float32)
    return "".join("\t".join(map(str, row)) + "\n" for row in mat.tolist()).encode()


def squared(images: AnyArray) -> AnyArray:
    """Centre pictures, shape (points, channels, height, width), in black squares: the tab stretches others."""
    if images.ndim != 4 or images.shape[2] == images.shape[3]:
        return images
    side = max(images.shape[2:])
    borders = [((side - size) // 2, side - size - (side - size) // 2) for size in images.shape[2:]]
    return np.pad(images, [(0, 0), (0, 0), *borders])


def sprite_of(images: AnyArray) -> Any:
    """Put all pictures in one square, row by row, as the tab expects: uint8 of shape (side, side, 3), the rest black.

    Args:
        images: shape (points, 1, 3 or 4, height, width); numbers as in a picture; alpha is left out.

    Raises:
        Refused: ``bad_record``.
    """
    check_real(images)
    if images.ndim != 4 or not images.size or images.shape[1] not in (1, 3, 4):
        raise Refused("bad_record", f"pictures of shape {images.shape}")
    count, channels, height, width = images.shape
    columns = columns_of(count)
    if columns * max(height, width) > SPRITE_SIDE_MAX:
        raise Refused("bad_record", f"pictures of shape {images.shape} are too large together")
    pixels = as_bytes(images[:, :3] if channels > 1 else np.repeat(images, 3, axis=1)).transpose(0, 2, 3, 1)
    sprite = np.zeros((columns * height, columns * width, 3), np.uint8)
    for place, picture in enumerate(pixels):
        row, column = divmod(place, columns)
        sprite[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return sprite
