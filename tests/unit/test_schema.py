"""The event messages that are built at run time are TensorFlow's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import event_pb2, graph_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_data
from tensorboard.plugins.mesh import plugin_data_pb2 as mesh_data
from tensorboard.plugins.pr_curve import plugin_data_pb2 as curve_data
from tensorboard.plugins.projector import projector_config_pb2

from tbxd.tfevents import schema

_NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "double": st.floats(allow_nan=False),
    "float": st.floats(width=32, allow_nan=False),
    "int32": st.integers(0, 7),  # some are enumerations
    "int64": st.integers(-(1 << 63), (1 << 63) - 1),
    "uint32": st.integers(0, (1 << 32) - 1),
    "uint64": st.integers(0, (1 << 64) - 1),
    "bool": st.booleans(),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}


@st.composite
def messages(draw: st.DrawFn, name: str) -> Any:
    """A message of the table with some of its fields."""
    message: Any = schema
    for part in name.split("."):
        message = getattr(message, part)
    message = message()
    for field, _, declared, *_ in schema._MESSAGES[name]:
        if not draw(st.integers(0, 2)):
            continue
        kind = declared.removeprefix("*")
        values = _NUMBERS[kind] if kind in _NUMBERS else messages(kind)
        if kind != declared:
            getattr(message, field).extend(draw(st.lists(values, max_size=2)))
        elif kind in _NUMBERS:
            setattr(message, field, draw(values))
        else:
            getattr(message, field).CopyFrom(draw(values))
    return message


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first messages build all strategies
@given(messages("Event"))
def test_an_event_has_the_same_bytes_in_tensorboards_schema(event: Any) -> None:
    theirs = event_pb2.Event.FromString(event.SerializeToString(deterministic=True))
    data = theirs.SerializeToString(deterministic=True)
    assert schema.Event.FromString(data) == event
    assert data == event.SerializeToString(deterministic=True)


def repeated(field: Any) -> bool:
    # protobuf 6 warns of the label, protobuf 3 has nothing else
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def test_every_number_and_name_is_tensorboards() -> None:
    def compare(ours: Any, theirs: Any) -> None:
        for field in ours.fields:
            other = theirs.fields_by_name[field.name]
            assert (field.number, repeated(field)) == (other.number, repeated(other)), field.full_name
            oneofs = [one.containing_oneof and one.containing_oneof.name for one in (field, other)]
            assert oneofs[0] == oneofs[1], field.full_name
            if field.message_type is not None and ours.name != field.message_type.name:
                compare(field.message_type, other.message_type)

    for ours, theirs in (
        (schema.Event, event_pb2.Event),
        (schema.GraphDef, graph_pb2.GraphDef),
        (schema.PrCurvePluginData, curve_data.PrCurvePluginData),
        (schema.MeshPluginData, mesh_data.MeshPluginData),
        (schema.Layout, layout_pb2.Layout),
        (schema.ProjectorConfig, projector_config_pb2.ProjectorConfig),
        (schema.HParamsPluginData, hparams_data.HParamsPluginData),
    ):
        compare(ours.DESCRIPTOR, theirs.DESCRIPTOR)


def test_fields_that_we_do_not_know_are_kept() -> None:
    theirs = event_pb2.Event(wall_time=1.0)
    theirs.summary.value.add(tag="t").tensor.resource_handle_val.add(device="cpu")
    data = theirs.SerializeToString()
    assert schema.Event.FromString(data).SerializeToString() == data


def test_damaged_bytes_raise_decode_error() -> None:
    with pytest.raises(schema.DecodeError):
        schema.Event.FromString(b"\x2a\xff")


def test_it_lives_beside_other_schemas_of_the_same_messages() -> None:
    script = """
import tensorboardX.proto.event_pb2
import tbxd.tfevents.schema
import tensorboard.compat.proto.event_pb2
from google.protobuf import descriptor_pool
try:
    descriptor_pool.Default().FindMessageTypeByName("tbxd.events.Event")
except KeyError:
    print("private")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "private\n"
