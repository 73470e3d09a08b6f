"""Events as bytes of an event file, for the run, its companions and the curves of the node."""

from __future__ import annotations

import time
from typing import Any

from .. import __version__
from . import schema
from .ledger import OPENING
from .tfrecord import frame

FILE_VERSION = "brain.Event:2"  # the first event of a file; TensorFlow's events_writer.cc


def event_record(step: int, wall_time: float, mark: str = "", **what: Any) -> bytes:
    """Return a framed event.

    Args:
        step: its step.
        wall_time: in seconds since the epoch.
        mark: the mark of the ledger, in ``source_metadata.writer``; "" for none.
        what: at most one content field of `schema.Event`, such as ``summary``.
    """
    made = schema.Event(wall_time=wall_time, step=step, **what)
    if mark:
        made.source_metadata.writer = mark
    return frame(made.SerializeToString())


def note(text: str) -> bytes:
    """Return a framed event with only a note for the ledger."""
    return event_record(0, time.time(), text)


def opening(wall_time: float, mark: str = "") -> bytes:
    """Return the first framed event of a file: its version, and the version of this package."""
    return event_record(0, wall_time, OPENING + __version__ + mark, file_version=FILE_VERSION)
