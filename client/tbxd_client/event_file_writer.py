"""What programs import from ``tensorboardX.event_file_writer``, and trackers patch there."""

from __future__ import annotations

from .file_writer import EventFileWriter
from .record_writer import RecordWriter

__all__ = ["EventFileWriter", "RecordWriter"]
