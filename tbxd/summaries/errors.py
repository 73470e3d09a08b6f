"""The one exception of this package."""

from __future__ import annotations

ONNX_NOT_INSTALLED = "onnx_not_installed"
LATE_RANK = "late_rank"  # a rank's record that came when its point had gone out
TOO_MANY_TAGS = "too_many_tags"  # so many tags of so many ranks cannot be followed

HINTS = {  # what can be done about a reason, for `tbxd status`
    ONNX_NOT_INSTALLED: "graphs of ONNX need onnx beside the daemon: pip install 'tbxd[onnx]', and log them again",
    LATE_RANK: "a rank was not waited for any longer; TBXD_RANKS_SECONDS of the daemon says how long that is",
}


class Refused(Exception):
    """A record that cannot be written, through no fault of the daemon.

    ``reason`` is the name under which it is counted; the message says what was wrong with it.

    Reasons: ``bad_record`` (attributes or payload that the client would not have sent), ``no_finite_values``,
    ``bad_bins`` (bins that hold no value or cannot be made), ``too_large``, ``unknown_kind``,
    ``file_error`` (the disk did not take a file beside the event file), ``onnx_not_installed`` (see `HINTS`).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
