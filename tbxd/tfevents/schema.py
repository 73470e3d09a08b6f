"""TensorFlow's event messages, built at run time.

A table declares the messages; protobuf makes classes of it, in a descriptor pool of our own, so that nothing here
conflicts with the same messages of TensorBoard or TensorFlow in the default pool, and no generated code requires one
version of protobuf: any from 3.20 on works.

The names and numbers are those of ``event.proto``, ``summary.proto``, ``histogram.proto``, ``tensor.proto``,
``tensor_shape.proto``, ``graph.proto``, ``node_def.proto``, ``attr_value.proto`` and ``versions.proto`` of TensorFlow
(``tensorflow/core/framework`` and ``tensorflow/core/util``). Two liberties, neither of which shows in the bytes:
enumerations are int32 (their numbers stand below), and messages that tbxd only hands on (a graph's functions, run
metadata, resource handles) are bytes or left out; protobuf keeps fields that it does not know.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = [
    "BLOB_SEQUENCE",
    "DT_DOUBLE",
    "DT_FLOAT",
    "DT_STRING",
    "END_KIND",
    "SCALAR",
    "SESSION_START",
    "TENSOR",
    "AttrValue",
    "Category",
    "Chart",
    "DecodeError",
    "EmbeddingInfo",
    "Event",
    "Experiment",
    "GraphDef",
    "HParamInfo",
    "HParamsPluginData",
    "HistogramProto",
    "Layout",
    "ListValue",
    "LogMessage",
    "MarginChartContent",
    "MeshPluginData",
    "MetricInfo",
    "MetricName",
    "MultilineChartContent",
    "NodeDef",
    "PluginContent",
    "PrCurvePluginData",
    "ProjectorConfig",
    "SessionEndInfo",
    "SessionLog",
    "SessionStartInfo",
    "SourceMetadata",
    "Summary",
    "SummaryMetadata",
    "TaggedRunMetadata",
    "TensorProto",
    "TensorShapeProto",
    "Value",
    "VersionDef",
]

SCALAR, TENSOR, BLOB_SEQUENCE = 1, 2, 3  # DataClass of summary.proto
DT_FLOAT, DT_DOUBLE, DT_STRING = 1, 2, 7  # DataType of types.proto
SESSION_START = 1  # SessionLog.SessionStatus of event.proto
END_KIND = "obsolete_old_style_histogram"  # of a value that ends its tag at a step: no reader takes it for a point

COLOR_FIELD = 1000  # ours; far from the numbers that TensorBoard's plugins use

_PACKAGE = "tbxd.events"  # only seen in messages' names

# message: (field, number, type[, oneof]); "*" before a type is a repeated field. A type that is no scalar of protobuf
# is a message of this table.
_MESSAGES: dict[str, tuple[tuple[str, int, str] | tuple[str, int, str, str], ...]] = {
    "Event": (
        ("wall_time", 1, "double"),
        ("step", 2, "int64"),
        ("file_version", 3, "string", "what"),
        ("graph_def", 4, "bytes", "what"),
        ("summary", 5, "Summary", "what"),
        ("log_message", 6, "LogMessage", "what"),
        ("session_log", 7, "SessionLog", "what"),
        ("tagged_run_metadata", 8, "TaggedRunMetadata", "what"),
        ("meta_graph_def", 9, "bytes", "what"),
        ("source_metadata", 10, "SourceMetadata"),
    ),
    "SourceMetadata": (("writer", 1, "string"),),
    "LogMessage": (("level", 1, "int32"), ("message", 2, "string")),
    "TaggedRunMetadata": (("tag", 1, "string"), ("run_metadata", 2, "bytes")),
    "SessionLog": (
        ("status", 1, "int32"),
        ("checkpoint_path", 2, "string"),
        ("msg", 3, "string"),
    ),
    "Summary": (("value", 1, "*Summary.Value"),),
    "Summary.Value": (
        ("tag", 1, "string"),
        ("node_name", 7, "string"),
        ("metadata", 9, "SummaryMetadata"),
        # The fields of a oneof have to follow each other for protobuf 3.
        ("simple_value", 2, "float", "value"),
        ("obsolete_old_style_histogram", 3, "bytes", "value"),
        ("image", 4, "Summary.Image", "value"),
        ("histo", 5, "HistogramProto", "value"),
        ("audio", 6, "Summary.Audio", "value"),
        ("tensor", 8, "TensorProto", "value"),
    ),
    "Summary.Image": (
        ("height", 1, "int32"),
        ("width", 2, "int32"),
        ("colorspace", 3, "int32"),
        ("encoded_image_string", 4, "bytes"),
    ),
    "Summary.Audio": (
        ("sample_rate", 1, "float"),
        ("num_channels", 2, "int64"),
        ("length_frames", 3, "int64"),
        ("encoded_audio_string", 4, "bytes"),
        ("content_type", 5, "string"),
    ),
    "SummaryMetadata": (
        ("plugin_data", 1, "SummaryMetadata.PluginData"),
        ("display_name", 2, "string"),
        ("summary_description", 3, "string"),
        ("data_class", 4, "int32"),
    ),
    "SummaryMetadata.PluginData": (
        ("plugin_name", 1, "string"),
        ("content", 2, "bytes"),
    ),
    "HistogramProto": (
        ("min", 1, "double"),
        ("max", 2, "double"),
        ("num", 3, "double"),
        ("sum", 4, "double"),
        ("sum_squares", 5, "double"),
        ("bucket_limit", 6, "*double"),
        ("bucket", 7, "*double"),
    ),
    "TensorProto": (
        ("dtype", 1, "int32"),
        ("tensor_shape", 2, "TensorShapeProto"),
        ("version_number", 3, "int32"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "*float"),
        ("double_val", 6, "*double"),
        ("int_val", 7, "*int32"),
        ("string_val", 8, "*bytes"),
        ("scomplex_val", 9, "*float"),
        ("int64_val", 10, "*int64"),
        ("bool_val", 11, "*bool"),
        ("dcomplex_val", 12, "*double"),
        ("half_val", 13, "*int32"),
        ("uint32_val", 16, "*uint32"),
        ("uint64_val", 17, "*uint64"),
        ("float8_val", 18, "bytes"),
    ),
    "TensorShapeProto": (
        ("dim", 2, "*TensorShapeProto.Dim"),
        ("unknown_rank", 3, "bool"),
    ),
    "TensorShapeProto.Dim": (
        ("size", 1, "int64"),
        ("name", 2, "string"),
    ),
    # What is in ``graph_def``.
    "GraphDef": (("node", 1, "*NodeDef"), ("versions", 4, "VersionDef")),
    "VersionDef": (("producer", 1, "int32"), ("min_consumer", 2, "int32"), ("bad_consumers", 3, "*int32")),
    "NodeDef": (
        ("name", 1, "string"),
        ("op", 2, "string"),
        ("input", 3, "*string"),
        ("device", 4, "string"),
        ("attr", 5, "*NodeDef.AttrEntry"),  # a map, which is this in bytes
    ),
    "NodeDef.AttrEntry": (("key", 1, "string"), ("value", 2, "AttrValue")),
    "AttrValue": (
        ("list", 1, "AttrValue.ListValue", "value"),
        ("s", 2, "bytes", "value"),
        ("type", 6, "int32", "value"),
        ("shape", 7, "TensorShapeProto", "value"),
    ),
    "AttrValue.ListValue": (("shape", 7, "*TensorShapeProto"),),
    # What plugins keep beside a tag's values: plugins/<name>/plugin_data.proto and layout.proto of TensorBoard.
    "PrCurvePluginData": (("version", 1, "int32"), ("num_thresholds", 2, "uint32")),
    "MeshPluginData": (
        ("version", 1, "int32"),
        ("name", 2, "string"),
        ("content_type", 3, "int32"),
        ("json_config", 5, "string"),
        ("shape", 6, "*int32"),
        ("components", 7, "uint32"),
    ),
    "Layout": (("version", 1, "int32"), ("category", 2, "*Category")),
    "Category": (("title", 1, "string"), ("chart", 2, "*Chart"), ("closed", 3, "bool")),
    "Chart": (
        ("title", 1, "string"),
        ("multiline", 2, "MultilineChartContent", "content"),
        ("margin", 3, "MarginChartContent", "content"),
    ),
    "MultilineChartContent": (("tag", 1, "*string"),),
    "MarginChartContent": (("series", 1, "*MarginChartContent.Series"),),
    "MarginChartContent.Series": (("value", 1, "string"), ("lower", 2, "string"), ("upper", 3, "string")),
    "HParamsPluginData": (
        ("version", 1, "int32"),
        ("experiment", 2, "Experiment", "data"),
        ("session_start_info", 3, "SessionStartInfo", "data"),
        ("session_end_info", 4, "SessionEndInfo", "data"),
    ),
    "Experiment": (
        ("description", 1, "string"),
        ("user", 2, "string"),
        ("time_created_secs", 3, "double"),
        ("hparam_infos", 4, "*HParamInfo"),
        ("metric_infos", 5, "*MetricInfo"),
        ("name", 6, "string"),
    ),
    "HParamInfo": (
        ("name", 1, "string"),
        ("display_name", 2, "string"),
        ("description", 3, "string"),
        ("type", 4, "int32"),
        ("domain_discrete", 5, "ListValue", "domain"),
    ),
    "MetricInfo": (
        ("name", 1, "MetricName"),
        ("display_name", 3, "string"),
        ("description", 4, "string"),
        ("dataset_type", 5, "int32"),
    ),
    "MetricName": (("group", 1, "string"), ("tag", 2, "string")),
    "SessionStartInfo": (
        ("hparams", 1, "*SessionStartInfo.HparamsEntry"),  # a map, which is this in bytes
        ("model_uri", 2, "string"),
        ("monitor_url", 3, "string"),
        ("group_name", 4, "string"),
        ("start_time_secs", 5, "double"),
    ),
    "SessionStartInfo.HparamsEntry": (("key", 1, "string"), ("value", 2, "Value")),
    "SessionEndInfo": (("status", 1, "int32"), ("end_time_secs", 2, "double")),
    "ProjectorConfig": (
        ("model_checkpoint_path", 1, "string"),
        ("embeddings", 2, "*EmbeddingInfo"),
        ("model_checkpoint_dir", 3, "string"),
    ),
    "EmbeddingInfo": (
        ("tensor_name", 1, "string"),
        ("metadata_path", 2, "string"),
        ("bookmarks_path", 3, "string"),
        ("tensor_shape", 4, "*uint32"),
        ("sprite", 5, "SpriteMetadata"),
        ("tensor_path", 6, "string"),
    ),
    "SpriteMetadata": (("image_path", 1, "string"), ("single_image_dim", 2, "*uint32")),
    # google/protobuf/struct.proto
    "Value": (
        ("number_value", 2, "double", "kind"),
        ("string_value", 3, "string", "kind"),
        ("bool_value", 4, "bool", "kind"),
    ),
    "ListValue": (("values", 1, "*Value"),),
    # Not TensorFlow's: what tbxd adds to the content of a plugin, which TensorBoard passes over.
    "PluginContent": (("color", COLOR_FIELD, "string"),),
}


def _file() -> Any:
    """Return the table as the description of a ``.proto`` file. proto3, so that repeated numbers are packed."""
    file = descriptor_pb2.FileDescriptorProto(name="tbxd/events.proto", package=_PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        made[name] = message
        for field, number, kind, *oneof in fields:
            _add_field(message, field, number, kind, oneof)
    return file


def _add_field(message: Any, name: str, number: int, kind: str, oneof: list[str]) -> None:
    types = descriptor_pb2.FieldDescriptorProto
    repeated = kind.startswith("*")
    kind = kind.removeprefix("*")
    field = message.field.add(
        name=name, number=number, label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
    )
    if kind in _MESSAGES:
        field.type = types.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = types.Type.Value(f"TYPE_{kind.upper()}")
    if oneof:
        if not message.oneof_decl:  # no message here has more than one
            message.oneof_decl.add(name=oneof[0])
        field.oneof_index = 0


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


# GetMessageClass is there since protobuf 4.22; the factory went with 5.
_factory: Any = message_factory
_get_class = getattr(_factory, "GetMessageClass", None) or _factory.MessageFactory(_POOL).GetPrototype


def _message_class(name: str) -> Any:
    descriptor = _POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    message: Any = _get_class(descriptor)
    for nested in descriptor.nested_types:
        if not hasattr(message, nested.name):  # protobuf 3.20 leaves this to generated code
            setattr(message, nested.name, _get_class(nested))
    return message


Event = _message_class("Event")
SourceMetadata = _message_class("SourceMetadata")
SessionLog = _message_class("SessionLog")
LogMessage = _message_class("LogMessage")
TaggedRunMetadata = _message_class("TaggedRunMetadata")
Summary = _message_class("Summary")
SummaryMetadata = _message_class("SummaryMetadata")
HistogramProto = _message_class("HistogramProto")
TensorProto = _message_class("TensorProto")
TensorShapeProto = _message_class("TensorShapeProto")
GraphDef = _message_class("GraphDef")
VersionDef = _message_class("VersionDef")
NodeDef = _message_class("NodeDef")
AttrValue = _message_class("AttrValue")
PrCurvePluginData = _message_class("PrCurvePluginData")
MeshPluginData = _message_class("MeshPluginData")
Layout = _message_class("Layout")
Category = _message_class("Category")
Chart = _message_class("Chart")
MultilineChartContent = _message_class("MultilineChartContent")
MarginChartContent = _message_class("MarginChartContent")
HParamsPluginData = _message_class("HParamsPluginData")
Experiment = _message_class("Experiment")
HParamInfo = _message_class("HParamInfo")
MetricInfo = _message_class("MetricInfo")
MetricName = _message_class("MetricName")
SessionStartInfo = _message_class("SessionStartInfo")
SessionEndInfo = _message_class("SessionEndInfo")
Value = _message_class("Value")
ListValue = _message_class("ListValue")
ProjectorConfig = _message_class("ProjectorConfig")
EmbeddingInfo = _message_class("EmbeddingInfo")
PluginContent = _message_class("PluginContent")
