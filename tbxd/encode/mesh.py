"""Meshes and point clouds: a tensor each for vertices, faces and colours, which the MESH tab combines."""

from __future__ import annotations

from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import MESH
from tbxd_client.protocol.limits import CONFIG_BYTES_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import arrays_of, check_real, shown
from .metadata import summary_value
from .rejections import Refused
from .tensor import tensor_of

# ContentType of plugins/mesh/plugin_data.proto; its names end the tags.
_PARTS = {"vertices": (1, "VERTEX"), "faces": (2, "FACE"), "colors": (3, "COLOR")}
SIZE_MAX = (1 << 31) - 1  # of an axis in the plugin's own data


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one mesh: arrays ``vertices``, optionally ``faces`` and ``colors``, each of shape (batch, number, 3);
    attribute ``config``, JSON for three.js.

    Raises:
        Refused: ``bad_record``.
    """
    arrays, config = arrays_of(record), record.attrs.get("config")
    if "vertices" not in arrays or not arrays.keys() <= _PARTS.keys():
        raise Refused("bad_record", f"a mesh of {sorted(arrays)!r:.80}")
    if not isinstance(config, str) or len(config) > CONFIG_BYTES_MAX:
        raise Refused("bad_record", f"a mesh with config {config!r:.40}")
    components = sum(1 << _PARTS[name][0] for name in arrays)
    values = []
    for name, array in arrays.items():
        check_real(array)
        if array.ndim != 3 or array.shape[2] != 3:
            raise Refused("bad_record", f"{name} of shape {array.shape}")
        if max(array.shape) > SIZE_MAX:  # of an empty one
            raise Refused("too_large", f"{name} of shape {array.shape}")
        number, suffix = _PARTS[name]
        content = schema.MeshPluginData(
            name=shown(tag.tag),
            content_type=number,
            json_config=shown(config),
            shape=array.shape,
            components=components,
        ).SerializeToString()
        with np.errstate(all="ignore"):  # beyond float32 is infinite
            tensor = tensor_of(array.astype("<f4"))
        values.append(summary_value(MESH, tag, f"_{suffix}", content, tensor=tensor))
    return values
