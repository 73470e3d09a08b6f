"""Names that users give: tags and colours, checked and normalised."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..protocol.records import TAG_BYTES_MAX

_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and lone surrogates

# CSS 2.1's basic names, a few that plots use, and matplotlib's default cycle (the "Tableau 10" palette).
COLORS = {
    "aqua": "#00ffff",
    "black": "#000000",
    "blue": "#0000ff",
    "fuchsia": "#ff00ff",
    "gray": "#808080",
    "green": "#008000",
    "lime": "#00ff00",
    "maroon": "#800000",
    "navy": "#000080",
    "olive": "#808000",
    "purple": "#800080",
    "red": "#ff0000",
    "silver": "#c0c0c0",
    "teal": "#008080",
    "white": "#ffffff",
    "yellow": "#ffff00",
    "brown": "#a52a2a",
    "cyan": "#00ffff",
    "gold": "#ffd700",
    "grey": "#808080",
    "indigo": "#4b0082",
    "magenta": "#ff00ff",
    "orange": "#ffa500",
    "pink": "#ffc0cb",
    "violet": "#ee82ee",
    "tab:blue": "#1f77b4",
    "tab:orange": "#ff7f0e",
    "tab:green": "#2ca02c",
    "tab:red": "#d62728",
    "tab:purple": "#9467bd",
    "tab:brown": "#8c564b",
    "tab:pink": "#e377c2",
    "tab:gray": "#7f7f7f",
    "tab:grey": "#7f7f7f",
    "tab:olive": "#bcbd22",
    "tab:cyan": "#17becf",
}

_ALLOWED = (
    "'#rgb', '#rrggbb', a name such as 'red' or 'tab:blue', "
    "or three numbers: integers from 0 to 255 or floats from 0 to 1"
)


def given_tag(tag: Any) -> str:
    """Return the tag of a value: None is an empty tag, and bytes are UTF-8, as protocol buffers accept both.

    Raises: as `clean_tag`.
    """
    if tag is None:
        return ""
    return clean_tag(tag.decode(errors="surrogateescape") if isinstance(tag, bytes) else tag)


def clean_tag(tag: Any) -> str:
    """Return a tag as it is written: control characters and lone surrogates are escaped.

    Raises:
        TypeError: the tag is not a string.
        ValueError: the tag has more than `TAG_BYTES_MAX` bytes of UTF-8.
    """
    if type(tag) is str and tag.isprintable() and len(tag) * 4 <= TAG_BYTES_MAX:  # 4 bytes a character at most
        return tag
    if not isinstance(tag, str):
        raise TypeError(f"a tag is a string; {tag!r:.80} is {type(tag).__name__}")
    clean = _UNSHOWABLE.sub(_escape, str(tag))
    size = len(clean.encode())
    if size > TAG_BYTES_MAX:
        raise ValueError(f"tag {clean[:40]!r}… has {size:,} bytes; at most {TAG_BYTES_MAX:,} are allowed")
    return clean


def text_of(value: Any) -> str:
    """Convert any value to text, with lone surrogates escaped.

    Raises:
        TypeError: its ``__str__`` fails.
    """
    try:
        # A plain one is not asked, so that what a signal handler raises meanwhile stays what it is.
        text = value if type(value) is str else str(value)
    except Exception as error:  # of any kind: it is the caller's code
        raise TypeError(f"a {type(value).__name__} that is no text: {type(error).__name__}: {error!s:.80}") from error
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def short_text(value: Any, bytes_max: int) -> str:
    """Convert any value to text of at most ``bytes_max`` bytes of UTF-8, with lone surrogates and NUL escaped.

    Raises:
        TypeError: its ``__str__`` fails.
    """
    text = text_of(value).replace("\0", "\\x00")
    return text if len(text) * 4 <= bytes_max else text.encode()[:bytes_max].decode(errors="ignore")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def parse_color(color: Any) -> str:
    """Convert a colour to ``#rrggbb``.

    Args:
        color: ``'#rgb'``, ``'#rrggbb'``, a key of `COLORS` in any case, or three numbers (red, green, blue): integers
            from 0 to 255, or from 0 to 1 if any of them is a float.

    Raises:
        ValueError: the colour has another form.
    """
    if isinstance(color, str):
        name = color.strip().lower()
        if re.fullmatch("#[0-9a-f]{6}", name):
            return name
        if re.fullmatch("#[0-9a-f]{3}", name):
            return "#" + "".join(digit * 2 for digit in name[1:])
        if name in COLORS:
            return COLORS[name]
    elif isinstance(color, Sequence) and not isinstance(color, bytes | bytearray) and len(color) == 3:
        return "#" + "".join(f"{part:02x}" for part in _parts(color))
    raise _no_color(color)


def _parts(color: Sequence[Any]) -> list[int]:
    """Convert three numbers to integers from 0 to 255."""
    whole = all(hasattr(part, "__index__") and not isinstance(part, bool) for part in color)
    try:
        numbers = [float(part) for part in color]
    except (TypeError, ValueError, OverflowError):
        raise _no_color(color) from None
    if not all(0 <= number <= (255 if whole else 1) for number in numbers):  # false for NaN
        raise _no_color(color)
    return [round(number if whole else number * 255) for number in numbers]


def _no_color(color: Any) -> ValueError:
    return ValueError(f"{color!r:.80} is no colour; allowed are {_ALLOWED}")
