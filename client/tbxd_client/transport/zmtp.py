"""ZMTP 3.0, the protocol between ZeroMQ's sockets (RFC 23): the part that a DEALER without security needs.

libzmq speaks it with two threads of its own in the trainer, waits with six descriptors more than the connection, and
ends the process where one of them is closed, or where it gets no thread, descriptor or memory. Over a socket of this
host none of that is needed.
"""

from __future__ import annotations

import struct
from collections import deque

MECHANISM = b"NULL"
# Signature, version, mechanism, who is the server (nobody), filler.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + MECHANISM.ljust(20, b"\0") + bytes(32)
MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame
FRAMES_MAX = 16  # of a message
COMMAND_BYTES_MAX = 1 << 10
_LENGTH = struct.Struct(">Q")
_VALUE = struct.Struct(">I")
SHORT_MAX = 255  # bytes of a frame whose length takes one


class NoZeroMQ(Exception):
    """The other side does not speak as a ROUTER of ZeroMQ."""


def head(size: int, flags: int = 0) -> bytes:
    """Return the head of a frame of ``size`` bytes."""
    if size <= SHORT_MAX:
        return bytes((flags, size))
    return bytes((flags | LONG,)) + _LENGTH.pack(size)


def opening() -> bytes:
    """Return the opening, sent without waiting for an answer: the greeting, and that this is a DEALER."""
    ready = b"\x05READY" + b"".join(
        bytes((len(name),)) + name + _VALUE.pack(len(value)) + value
        for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", b""))
    )
    return GREETING + head(len(ready), COMMAND) + ready


def encoded(frames: list[bytes]) -> list[bytes | memoryview]:
    """Return a message as buffers that follow each other."""
    buffers: list[bytes | memoryview] = []
    for number, frame in enumerate(frames, 1):
        buffers += head(len(frame), MORE if number < len(frames) else 0), frame
    return buffers


class Decoder:
    """Decodes a stream of bytes, in stretches of any length.

    Args:
        bytes_max: of a message; more is refused.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._greeted = False
        self._frames: list[bytes] = []  # of a message that has begun
        self._size = 0  # of these
        self.ready = False  # the other end has said that it takes messages
        self.messages: deque[list[bytes]] = deque()

    def feed(self, stretch: bytes) -> None:
        """Decode the next stretch; complete messages are then in `messages`.

        Raises:
            NoZeroMQ: it cannot be.
        """
        buffer = self._buffer
        buffer += stretch
        at = 0
        if not self._greeted:
            if not GREETING.startswith(bytes(buffer[:1])) or (len(buffer) >= 10 and buffer[9] & 1 == 0):
                raise NoZeroMQ("it does not begin as ZeroMQ does")
            if len(buffer) < len(GREETING):
                return
            if buffer[10] < 3 or bytes(buffer[12:32]).rstrip(b"\0") != MECHANISM:
                raise NoZeroMQ("it is an old ZeroMQ, or wants a key")
            self._greeted, at = True, len(GREETING)
        while (end := self._frame(at)) > at:
            at = end
        del buffer[:at]

    def _frame(self, at: int) -> int:
        """Decode the frame that begins at ``at``; return where it ends, or ``at`` if it is incomplete."""
        buffer, there = self._buffer, len(self._buffer) - at
        if there < 2:
            return at
        flags, length, begin = buffer[at], buffer[at + 1], at + 2
        if flags & LONG:
            if there < 9:
                return at
            (length,), begin = _LENGTH.unpack_from(buffer, at + 1), at + 9
        if flags > MORE | LONG | COMMAND or (flags & COMMAND and flags & MORE):
            raise NoZeroMQ(f"a frame with the flags {flags}")
        if length > (COMMAND_BYTES_MAX if flags & COMMAND else self._bytes_max - self._size):
            raise NoZeroMQ(f"a frame of {length} bytes")
        end = begin + length
        if end > len(buffer):
            return at
        body = bytes(memoryview(buffer)[begin:end])
        if flags & COMMAND:
            self._command(body)
        elif not self.ready:
            raise NoZeroMQ("a message before it was ready")
        else:
            self._message(body, bool(flags & MORE))
        return end

    def _command(self, body: bytes) -> None:
        if body.startswith(b"\x05READY"):
            self.ready = True
        elif not self.ready:
            raise NoZeroMQ(f"it refuses: {body[:40]!r}")

    def _message(self, body: bytes, more: bool) -> None:
        self._frames.append(body)
        self._size += len(body)
        if len(self._frames) > FRAMES_MAX:
            raise NoZeroMQ(f"a message of more than {FRAMES_MAX} frames")
        if not more:
            self.messages.append(self._frames)
            self._frames, self._size = [], 0
