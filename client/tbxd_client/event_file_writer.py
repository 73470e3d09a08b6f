"""The names that programs import from ``tensorboardX.event_file_writer``, and that trackers patch there."""

from __future__ import annotations

from .logdir.record_writer import RecordWriter
from .writers.file_writer import EventFileWriter

__all__ = ["EventFileWriter", "RecordWriter"]
