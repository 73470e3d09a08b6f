"""Layouts of the CUSTOM SCALARS tab: the scalars in each chart."""

from __future__ import annotations

import json
from typing import Any

from tbxd_client.protocol.kinds import CUSTOM_SCALARS
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import shown
from .metadata import summary_value
from .rejections import Refused


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode a layout: the payload is JSON, {category: {chart: [kind, [tags]]}}.

    Raises:
        Refused: ``bad_record``.
    """
    try:
        charts = json.loads(record.payload if isinstance(record.payload, str) else "")
        layout = schema.Layout(
            category=[
                schema.Category(title=shown(title), chart=[_chart(name, *chart) for name, chart in inside.items()])
                for title, inside in charts.items()
            ]
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused("bad_record", f"a layout that makes no sense: {error!r:.80}") from error
    tensor = schema.TensorProto(
        dtype=schema.DT_STRING, string_val=[layout.SerializeToString()], tensor_shape=schema.TensorShapeProto()
    )
    return [summary_value(CUSTOM_SCALARS, tag, tensor=tensor)]


def _chart(title: str, kind: str, tags: list[str]) -> Any:
    texts = [shown(tag) for tag in tags]
    if kind == "Margin":
        value, lower, upper = texts
        series = schema.MarginChartContent.Series(value=value, lower=lower, upper=upper)
        return schema.Chart(title=shown(title), margin=schema.MarginChartContent(series=[series]))
    return schema.Chart(title=shown(title), multiline=schema.MultilineChartContent(tag=texts))
