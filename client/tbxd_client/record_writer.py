"""The names that programs import from ``tensorboardX.record_writer``."""

from __future__ import annotations

from .logdir.record_writer import RecordWriter

__all__ = ["RecordWriter"]
