"""Protobuf's wire format, the part that the client reads and writes without protobuf (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # types of a field on the wire
VARINT_BYTES_MAX = 10


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def varint(number: int) -> bytes:
    """Encode a number that is not negative, seven bits a byte, the lowest first."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def field(number: int, data: bytes) -> bytes:
    """Encode a message with this bytes field as its only one."""
    return encoded(number, BYTES, data)


def encoded(number: int, kind: int, value: int | bytes | memoryview) -> bytes:
    """Encode a field; the inverse of `fields`."""
    key = varint(number << 3 | kind)
    if isinstance(value, int):
        return key + varint(value)
    return b"".join((key, varint(len(value)) if kind == BYTES else b"", value))


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield the fields of a message: number, type, and value (an integer, or the bytes of every other type).

    Raises:
        WireError: the bytes are not a message.
    """
    view = memoryview(data)
    offset = 0
    while offset < len(view):
        key, offset = _varint(view, offset)
        kind = key & 7
        if kind == VARINT:
            value, offset = _varint(view, offset)
            yield key >> 3, kind, value
            continue
        if kind == BYTES:
            length, offset = _varint(view, offset)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"a field of type {kind}")
        if length > len(view) - offset:
            raise WireError("a field that goes on behind the end of its message")
        yield key >> 3, kind, view[offset : offset + length]
        offset += length


def _varint(view: memoryview, offset: int) -> tuple[int, int]:
    number = 0
    for place, byte in enumerate(view[offset : offset + VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, offset + place + 1
    raise WireError("a number without an end")
