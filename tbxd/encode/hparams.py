"""Hyper-parameters: three tags with metadata for the HPARAMS tab and no value of their own."""

from __future__ import annotations

import json
from typing import Any

from tbxd_client.protocol.kinds import HPARAMS
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import shown
from .metadata import summary_value
from .rejections import Refused

_STRING, _BOOL, _FLOAT64 = 1, 2, 3  # DataType of plugins/hparams/api.proto
_SUCCESS = 1  # Status of the same


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode the begin and the end of a session, and an experiment if domains are given.

    The payload is JSON with ``hparams`` (name to bool, number or text), ``metrics`` (names) and ``domains`` (name to a
    list of values). TensorBoard takes the columns of its table from the first experiment that it finds, and ignores
    those of all other rows; without one it takes the columns of all rows (``backend_context.py``).

    Raises:
        Refused: ``bad_record``.
    """
    try:
        given = json.loads(record.payload if isinstance(record.payload, str) else "")
        values = {name: _value(value) for name, value in given["hparams"].items()}
        experiment = schema.Experiment(
            hparam_infos=[_info(name, given["hparams"][name], given["domains"].get(name)) for name in values],
            metric_infos=[schema.MetricInfo(name=schema.MetricName(tag=shown(name))) for name in given["metrics"]],
        )
        entry = schema.SessionStartInfo.HparamsEntry
        start = schema.SessionStartInfo(hparams=[entry(key=shown(name), value=values[name]) for name in values])
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise Refused("bad_record", f"hyper-parameters that make no sense: {error!r:.80}") from error
    whole = [_tag(tag, "/experiment", experiment=experiment)] if given["domains"] else []
    return [
        *whole,
        _tag(tag, "/session_start_info", session_start_info=start),
        _tag(tag, "/session_end_info", session_end_info=schema.SessionEndInfo(status=_SUCCESS)),
    ]


def _tag(tag: TagDefinition, suffix: str, **data: Any) -> Any:
    content = schema.HParamsPluginData(**data).SerializeToString()
    # The loaders want a value; TensorBoard's own summaries have this one as well.
    nothing = schema.TensorProto(dtype=schema.DT_FLOAT, float_val=[0.0], tensor_shape=schema.TensorShapeProto())
    return summary_value(HPARAMS, tag, suffix, content, tensor=nothing)


def _info(name: str, value: object, domain: Any) -> Any:
    kind = _BOOL if isinstance(value, bool) else _STRING if isinstance(value, str) else _FLOAT64
    info = schema.HParamInfo(name=shown(name), type=kind)
    if domain is not None:
        info.domain_discrete.values.extend(_value(choice) for choice in domain)
    return info


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return schema.Value(bool_value=value)
    return schema.Value(string_value=shown(value)) if isinstance(value, str) else schema.Value(number_value=value)
