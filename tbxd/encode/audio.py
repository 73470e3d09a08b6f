"""Sounds: WAV with 16 bits."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import AUDIO
from tbxd_client.protocol.limits import SAMPLE_RATE_MAX, SOUND_CHANNELS_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import AnyArray, array_of, check_real
from .metadata import summary_value
from .rejections import Refused

FULL_SCALE = 32_768  # what readers divide int16 by, so that a sound read as floating point and logged is the same


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one sound: attributes ``dtype``, ``shape`` and ``sample_rate``.

    Raises:
        Refused: ``bad_record``.
    """
    rate = record.attrs.get("sample_rate")
    if type(rate) is not int or not 1 <= rate <= SAMPLE_RATE_MAX:
        raise Refused("bad_record", f"a sound with sample_rate {rate!r:.40}")
    frames = frames_of(array_of(record))
    audio = schema.Summary.Audio(
        sample_rate=rate,
        num_channels=frames.shape[1],
        length_frames=len(frames),
        encoded_audio_string=wav(frames, rate),
        content_type="audio/wav",
    )
    return [summary_value(AUDIO, tag, audio=audio)]


def frames_of(array: AnyArray) -> npt.NDArray[np.int16]:
    """Return a sound as int16 of shape (frames, channels).

    Args:
        array: shape (frames,), (frames, 1 or 2) or (1 or 2, frames), perhaps among axes of length 1; int16 is taken as
            it is, floating point from -1 to 1 is multiplied by 32,768, rounded and clipped, NaN is silence. int8, uint8
            and int32 are samples of their own width, as in WAV files, bool is silence and full scale, other integers
            are samples of 16 bits, clipped.

    Raises:
        Refused: ``bad_record``.
    """
    check_real(array)
    frames = array.squeeze() if array.ndim > 2 else array
    frames = frames.reshape(-1, 1) if frames.ndim < 2 else frames
    if frames.ndim != 2 or not frames.size or min(frames.shape) > SOUND_CHANNELS_MAX:
        raise Refused("bad_record", f"a sound of shape {array.shape}")
    if frames.shape[1] > SOUND_CHANNELS_MAX:
        frames = frames.T
    if frames.dtype.kind != "f":
        return _samples(frames)
    with np.errstate(over="ignore", invalid="ignore"):
        loud = np.nan_to_num(frames.astype(np.float64) * FULL_SCALE)
    rounded: npt.NDArray[np.int16] = np.rint(loud).clip(-FULL_SCALE, FULL_SCALE - 1).astype("<i2")
    return rounded


def _samples(frames: AnyArray) -> npt.NDArray[np.int16]:
    """Convert integers to samples of 16 bits."""
    kind = frames.dtype.str[1:]
    if kind == "i4":
        frames = np.right_shift(frames, 16)
    elif kind not in ("i1", "u1", "i2", "b1"):
        frames = frames.clip(-FULL_SCALE if frames.dtype.kind == "i" else 0, FULL_SCALE - 1)
    samples: npt.NDArray[np.int16] = frames.astype("<i2")
    if kind == "b1":
        samples *= FULL_SCALE - 1
    elif kind in ("i1", "u1"):
        samples -= 128 if kind == "u1" else 0
        samples <<= 8
    return samples


def wav(frames: npt.NDArray[np.int16], rate: int) -> bytes:
    """Return a WAV file of int16 of shape (frames, channels)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(frames.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(frames).tobytes())
    return out.getvalue()
