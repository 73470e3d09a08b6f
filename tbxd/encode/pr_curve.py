"""Precision-recall curves: six numbers for each threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import PR_CURVE, PR_CURVE_RAW
from tbxd_client.protocol.limits import THRESHOLDS_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import AnyArray, array_of, arrays_of, check_real
from .metadata import summary_value
from .rejections import Refused
from .tensor import tensor_of

ROWS = 6  # true positives, false positives, true negatives, false negatives, precision, recall
FLOAT16_MAX = 2048  # the whole numbers up to here are exact
COUNT_MIN = 1e-7  # in place of a count of 0 that something is divided by

Curve = npt.NDArray[np.float64]


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one curve: arrays ``labels``, ``predictions``, optionally ``weights``; attribute ``num_thresholds``.

    Raises:
        Refused: ``bad_record``, ``no_values``.
    """
    arrays, count = arrays_of(record), record.attrs.get("num_thresholds")
    if not {"labels", "predictions"} <= arrays.keys() <= {"labels", "predictions", "weights"}:
        raise Refused("bad_record", f"a curve of {sorted(arrays)!r:.80}")
    if type(count) is not int or not 1 <= count <= THRESHOLDS_MAX:
        raise Refused("bad_record", f"a curve with num_thresholds {count!r:.40}")
    if not arrays["labels"].size:
        raise Refused("no_values", "a curve of no labels")
    return [_value(PR_CURVE, tag, curve_of(arrays["labels"], arrays["predictions"], count, arrays.get("weights")))]


def encode_raw(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode a precomputed curve: shape (6, thresholds).

    Raises:
        Refused: ``bad_record``.
    """
    rows = array_of(record)
    check_real(rows)
    if rows.ndim != 2 or rows.shape[0] != ROWS or not 1 <= rows.shape[1] <= THRESHOLDS_MAX:
        raise Refused("bad_record", f"a curve of shape {rows.shape}")
    return [_value(PR_CURVE_RAW, tag, rows)]


def _value(kind: int, tag: TagDefinition, rows: AnyArray) -> Any:
    content = schema.PrCurvePluginData(num_thresholds=rows.shape[1]).SerializeToString()
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return summary_value(kind, tag, content=content, tensor=tensor_of(rows.astype("<f4")))


def curve_of(labels: AnyArray, predictions: AnyArray, thresholds: int, weights: AnyArray | None = None) -> Curve:
    """Compute the curve at evenly spaced thresholds from 0 to 1, as TensorBoard does (plugins/pr_curve/summary.py).

    Args:
        labels: 1 or true, 0 or false.
        predictions: from 0 to 1, one for each label; others, and NaN, are left out.
        thresholds: their number.
        weights: one for each label, or one number.

    Returns:
        Shape (6, thresholds); the rows are those of `ROWS`.

    Raises:
        Refused: ``bad_record``: the numbers of labels, predictions and weights differ.
    """
    truth = _flat(labels)
    check_real(predictions)
    share = predictions.reshape(-1)
    if share.dtype.kind != "f" or (share.dtype == np.float16 and thresholds > FLOAT16_MAX):
        share = share.astype(np.float64)
    weight = np.ones(1) if weights is None else _flat(weights)
    if len(share) != len(truth) or not len(truth) or len(weight) not in (1, len(truth)):
        raise Refused("bad_record", f"{len(truth)} labels, {len(share)} predictions and {len(weight)} weights")
    with np.errstate(all="ignore"):
        # In the precision of the predictions, as TensorBoard does: the last digit decides at a threshold.
        places = np.floor(share * share.dtype.type(thresholds - 1))
        inside = (places >= 0) & (places < thresholds)  # false for NaN
        weight = np.broadcast_to(weight, truth.shape)[inside]
        places, truth = places[inside].astype(np.int64), truth[inside]
        # Of each place on, the sum of what lies there and above.
        hits, misses = (
            np.bincount(places, part * weight, thresholds)[::-1].cumsum()[::-1] for part in (truth, 1.0 - truth)
        )
        rest, lost = misses[0] - misses, hits[0] - hits
        precision = hits / np.maximum(COUNT_MIN, hits + misses)
        recall = hits / np.maximum(COUNT_MIN, hits + lost)
    return np.stack([hits, misses, rest, lost, precision, recall])


def _flat(array: AnyArray) -> npt.NDArray[np.float64]:
    check_real(array)
    return array.reshape(-1).astype(np.float64)
