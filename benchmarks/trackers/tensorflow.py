"""``tf.summary`` of TensorFlow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
import tensorflow as tf

from ..event_files import points


class SummaryWriter:
    """One file of ``tf.summary``."""

    def __init__(self, folder: str) -> None:
        self._writer = tf.summary.create_file_writer(folder)
        self.flush = self._writer.flush
        self.close = self._writer.close

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        with self._writer.as_default():
            tf.summary.scalar(tag, value, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        with self._writer.as_default(step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        with self._writer.as_default():
            tf.summary.histogram(tag, values, step)

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str = "HWC") -> None:
        with self._writer.as_default():
            tf.summary.image(tag, picture[None], step)


def kept(folder: Path) -> Counter[str]:
    """Points by tag."""
    return points(folder)
