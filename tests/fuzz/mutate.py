"""Mutations of an input as a value: a number becomes another one at a limit, a list loses an item, bytes are cut."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack

from targets import plan_of

NUMBERS = [0, 1, -1, 2, 3, 8, 34, 127, 128, 255, 256, 1024, 4096, 65_535, 65_536, 70_000, 1 << 20, (1 << 31) - 1]
NUMBERS += [1 << 31, 1 << 32, 1 << 40, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1]
FLOATS = [0.0, -0.0, 1.0, 0.5, 255.0, 5e-324, 1e-300, 1e300, 3.4028235e38, float("inf"), float("-inf"), float("nan")]
WORDS = ["", "a", "\0", "\n", "é", "/", "..", "x" * 33, "x" * 300, "HW", "CHW", "NCHW", "NTCHW", "HWC", "tensorflow"]
WORDS += ["auto", "fd", "stone", "viridis", "M0,22,22,1", "M0=AAECAwQFBgcICQoL,22,22,1,bad:1", "L.", "N", "tbxd 0"]
WORDS += ["M0=AAECAwQFBgcICQoL,fffffffffffffffff,1,1", "N", "f" * 15, ",ffffffffffffffff", ":fffffffffffffffff"]
WORDS += ["LAAECAwQFBgcICQoL,44,2,,full:1", "{}", '{"nodes":[]}', "[[[[", "Margin", "Multiline", "run", "tag", "row"]
DTYPES = ["|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "bfloat16"]
BYTES = [
    b"",
    b"\0",
    b"\x97",
    b"\x95\x01\xce",
    b"\xce\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
]
PATTERNS = [b"\0", b"\1", b"\xff", b"\0\1\2\3", b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\0\0\x80\x3f"]  # infinity, NaN, 1.0
LENGTH_MAX = 32  # of a list that grows


def mutated(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """An input that differs from ``data`` in a few places; ``others`` are inputs to take something from."""
    plan = plan_of(data)
    donor = plan_of(random.choice(others)) if others else plan
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        plan = _changed(plan, random, donor)
    try:
        return msgpack.packb(plan)
    except (ValueError, OverflowError, UnicodeEncodeError):  # a number or a text that msgpack does not hold
        return data


def _changed(value: Any, random: Random, donor: Any) -> Any:
    """A value with one of its parts changed."""
    if isinstance(value, list | dict) and value and random.random() < 0.85:
        key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        copy[key] = _changed(value[key], random, donor)
        return copy
    if random.random() < 0.1:
        return _part_of(donor, random)
    if random.random() < 0.05:
        return random.choice([None, True, 0, 1.5, "text", b"bytes", [], {}, [b"\0", 100], [1, 2, 3]])
    match value:
        case bool():
            return not value
        case int():
            return random.choice(
                [*NUMBERS, value + 1, value - 1, value ^ 1 << random.randrange(63), random.randrange(64)]
            )
        case float():
            return random.choice([*FLOATS, value + 1, -value, value * random.choice((0.5, 2, 1e10))])
        case str():
            return _text(value, random)
        case bytes():
            return _bytes(value, random)
        case list():
            return _list(value, random, donor)
        case dict():
            return _dict(value, random, donor)
    return random.choice([0, 0.0, "", b"", [], {}])


def _part_of(value: Any, random: Random) -> Any:
    while isinstance(value, list | dict) and value and random.random() < 0.7:
        value = random.choice(list(value.values()) if isinstance(value, dict) else value)
    return value


def _text(value: str, random: Random) -> str:
    place, end = sorted((random.randrange(len(value) + 1), random.randrange(len(value) + 1)))
    return random.choice(
        [
            random.choice(WORDS),
            random.choice(DTYPES),
            value[:place],
            value[place:],
            value[:place] + random.choice(WORDS) + value[place:],
            value[:place] + value[end:],
            value[:end] + value[place:],
            value[:place]
            + chr(random.choice((0, 34, 44, 48, 58, 91, 93, 123, 0x80, 0x20AC, 0x1F600)))
            + value[place + 1 :],
        ]
    )


def _bytes(value: bytes, random: Random) -> bytes:
    place, end = sorted((random.randrange(len(value) + 1), random.randrange(len(value) + 1)))
    choice = random.randrange(6)
    if choice == 0 and value:
        flipped = bytearray(value)
        flipped[min(place, len(value) - 1)] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if choice == 1:
        return value[:place] + value[end:]
    if choice == 2:
        return value[:end] + value[place:]
    if choice == 3:
        return value[:place] + random.choice(BYTES + PATTERNS) + value[place:]
    if choice == 4:
        part = random.choice(BYTES + PATTERNS)
        return value[:place] + part + value[place + len(part) :]
    number = random.choice(NUMBERS) & (1 << 64) - 1
    return value[:place] + number.to_bytes(8, random.choice(("big", "little"))) + value[place + 8 :]


def _list(value: list[Any], random: Random, donor: Any) -> list[Any]:
    copy = value.copy()
    choice = random.randrange(5)
    if choice == 0 and copy:
        del copy[random.randrange(len(copy))]
    elif choice == 1 and copy and len(copy) < LENGTH_MAX:
        copy.insert(random.randrange(len(copy) + 1), random.choice(copy))
    elif choice == 2 and copy:
        first, second = random.randrange(len(copy)), random.randrange(len(copy))
        copy[first], copy[second] = copy[second], copy[first]
    elif choice == 3 and len(copy) < LENGTH_MAX:
        copy.insert(random.randrange(len(copy) + 1), _part_of(donor, random))
    else:
        copy = [random.choice(PATTERNS), random.choice(NUMBERS[:17])]
    return copy


def _dict(value: dict[Any, Any], random: Random, donor: Any) -> dict[Any, Any]:
    copy = value.copy()
    if copy and random.random() < 0.5:
        moved = copy.pop(random.choice(list(copy)))
        if random.random() < 0.3:
            copy[random.choice(WORDS)] = moved
    elif isinstance(donor, dict) and donor and random.random() < 0.7:
        key = random.choice(list(donor))
        copy[key] = donor[key]
    else:
        copy[random.choice([*WORDS, *NUMBERS[:5]])] = _part_of(donor, random)
    return copy
