"""The metadata of a tag for TensorBoard: plugin, display name, description, and our colour.

TensorBoard's default loader only accepts metadata with a plugin and a data class; it then selects the plugin by its
name, so both are always written together. TensorBoard has no place for a colour of a tag. It goes into the content of
the plugin, as a field that the plugins ignore (`schema.COLOR_FIELD`).
"""

from __future__ import annotations

from typing import Any

from tbxd_client.protocol.kinds import kind_of
from tbxd_client.protocol.records import TagDefinition

from ..tfevents import schema
from .arrays import shown


def metadata_for(kind: int, tag: TagDefinition, content: bytes = b"") -> Any | None:
    """Return the ``SummaryMetadata`` of a tag's values, or None if there is none.

    A value written as a tensor always has it: without it a tensor belongs to no plugin. ``content`` is the plugin's own
    content; our colour is appended, which for protobuf is one more field.
    """
    known = kind_of(kind)
    if not known.plugin or not (known.needs_metadata or tag.color or tag.display_name or tag.description):
        return None
    content += schema.PluginContent(color=shown(tag.color)).SerializeToString()
    return schema.SummaryMetadata(
        plugin_data=schema.SummaryMetadata.PluginData(plugin_name=known.plugin, content=content),
        display_name=shown(tag.display_name),
        summary_description=shown(tag.description),
        data_class=known.data_class,
    )


def color_of(content: bytes) -> str:
    """Return the colour in a plugin's content, as ``#rrggbb``; empty if there is none."""
    try:
        return str(schema.PluginContent.FromString(content).color)
    except schema.DecodeError:  # another plugin's, and no protobuf
        return ""


def summary_value(kind: int, tag: TagDefinition, suffix: str = "", content: bytes = b"", **value: Any) -> Any:
    """Return a ``Summary.Value`` with the tag's name, its metadata, and the one field of ``value``."""
    return schema.Summary.Value(tag=shown(tag.tag) + suffix, metadata=metadata_for(kind, tag, content), **value)
