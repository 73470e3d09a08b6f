"""The one exception of this package."""

from __future__ import annotations


class Refused(Exception):
    """The record cannot be written, through no fault of the daemon.

    ``reason`` is the name under which it is counted; the message says what is wrong with it.

    Reasons: ``bad_record`` (attributes or payload that the client would not have sent), ``no_finite_values``,
    ``no_values`` (there is nothing to show), ``bad_bins`` (bins that hold no value or cannot be made), ``too_large``,
    ``unknown_kind``,
    ``file_error`` (the disk did not take a file beside the event file), ``onnx_not_installed``: see
    `drop_reasons.HINTS`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
