"""The settings file: TOML, a key for each setting, no tables.

    batch_ms = 250
    log_level = "info"

This module is only imported if there is a file, because its reader is slow to import and a trainer waits for a daemon
that starts. All errors are reported at once, each with its line.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tbxd_client.config import settings as client_settings

from .settings import FOLDER, FOLDERS, INTEGER, NUMBER, SETTINGS, BadSetting, Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_BYTES_MAX = 64 << 10
KEY_SHOWN_MAX = 60  # characters of a key that is none
_ENDS = ("]", "}", '"""', "'''")  # what a statement of several lines ends with
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
_PLAIN = re.compile(r"[\w-]{1,60}\Z")
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_SCRIPTS = (*client_settings.SETTINGS, *client_settings.CHOICES, *client_settings.TEXTS)
_OF_SCRIPTS = {one.variable.removeprefix("TBXD_").lower(): one.variable for one in _SCRIPTS}


@dataclass(slots=True)
class File:
    """The contents of a file: the valid values by name, the lines of all keys, and the errors."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read(path: Path) -> File:
    """Read a file.

    Raises:
        BadSetting: the file is not trusted, or is not TOML: nothing of it is used.
        OSError: the file cannot be read.
    """
    text = _text(path)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = _AT.search(message)
        line = int(at[1]) if at and at[1] else text.count("\n") + (not text.endswith("\n"))
        place = f" (column {at[2]})" if at and at[1] else " (at its end)"
        advice = "; a text has quotes around it" if message.startswith("Invalid value") else ""
        raise BadSetting(
            f"{path}:{line}: no TOML: {message[: at.start()] if at else message}{place}{advice}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise BadSetting(f"{path}:1: no TOML that could be settings: {error}") from error
    file = File(path, lines=lines_of(text))
    for key, value in found.items():
        setting = _BY_NAME.get(key)
        usable, wrong = taken(setting, value) if setting is not None else (None, _unknown(key, value))
        if wrong:
            file.problems.append(f"{path}:{file.lines.get(key, 1)}: {_shown(key)} {wrong}")
        else:
            file.values[key] = usable
    return file


def _text(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise BadSetting(f"{path}: no file; name one with --config or TBXD_CONFIG")
        if state.st_uid not in (0, os.geteuid()):
            raise BadSetting(
                f"{path} belongs to uid {state.st_uid}, neither to you ({os.geteuid()}) nor to root, and its "
                "owner could redirect your records. To do: copy it, and put the copy in its place"
            )
        if state.st_mode & stat.S_IWOTH:
            raise BadSetting(
                f"{path} has mode {stat.S_IMODE(state.st_mode):04o}, everybody may change it. To do: chmod o-w {path}"
            )
        data = b""
        while len(data) <= FILE_BYTES_MAX and (piece := os.read(fd, FILE_BYTES_MAX + 1 - len(data))):
            data += piece
    finally:
        os.close(fd)
    if len(data) > FILE_BYTES_MAX:
        raise BadSetting(f"{path}: larger than {FILE_BYTES_MAX:,} bytes, which no settings are")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadSetting(f"{path}:{data.count(10, 0, error.start) + 1}: not written in UTF-8") from error


def lines_of(text: str) -> dict[str, int]:
    """Return the first line of each top-level key of a TOML document.

    The TOML reader does not report lines, but it knows where a statement ends: lines are joined until they are one. So
    each spelling of a key is understood as the reader understands it.
    """
    lines: dict[str, int] = {}
    for number, statement, header in _statements(text):
        for key in tomllib.loads(header + statement):
            lines.setdefault(key, number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, text, and the header of its table, for each statement."""
    header, begun, number = "", "", 0
    for line_number, line in enumerate(text.split("\n"), 1):
        if begun and not any(end in line for end in _ENDS):
            begun += line + "\n"
            continue
        number = number if begun else line_number
        begun += line + "\n"
        try:
            found = tomllib.loads(begun)
        except (ValueError, RecursionError):
            continue
        header, statement = (begun, "") if begun.lstrip().startswith("[") else (header, begun)
        if found:
            yield number, statement, header
        begun = ""


def taken(setting: Setting, value: Any) -> tuple[Any, str]:
    """Convert a TOML value to the setting's, and return what is wrong with it ("" if valid)."""
    if setting.kind == FOLDERS and isinstance(value, list) and all(isinstance(one, str) for one in value):
        parts = value
    elif setting.kind == FOLDERS and isinstance(value, str):
        parts = [part for part in value.split(os.pathsep) if part]
    elif setting.kind == FOLDER and isinstance(value, str):
        parts = [value]
    else:
        value = value.lower() if setting.choices and isinstance(value, str) else value
        wrong = setting.problem(value)
        return (float(value) if setting.kind in (NUMBER, INTEGER) and not wrong else value), wrong
    folders = [os.path.expanduser(part) for part in parts]  # noqa: PTH111 - leaves what has no home as it is
    separated = setting.kind == FOLDERS
    if not folders or not all(
        part.startswith("/") and not ("\0" in part or (separated and ":" in part)) for part in folders
    ):
        return None, setting.wrong(value)
    return os.pathsep.join(folders), ""


def _unknown(key: str, value: Any) -> str:
    """Return why a key is not a setting, with a suggestion."""
    if isinstance(value, dict):
        inside = ", ".join(name for name in value if name in _BY_NAME)
        return "is a table; settings are in none" + (f": write {inside} without it" if inside else "")
    plain = key.lower().replace("-", "_").removeprefix("tbxd_")
    if plain not in _BY_NAME and plain in _OF_SCRIPTS:
        return f"is a setting of scripts, which read no file: set {_OF_SCRIPTS[plain]} in their environment"
    near = difflib.get_close_matches(plain, _BY_NAME, 1)
    return "is no setting; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(_BY_NAME)}")


def _shown(key: str) -> str:
    return key if _PLAIN.match(key) else repr(key if len(key) <= KEY_SHOWN_MAX else f"{key[: KEY_SHOWN_MAX - 1]}…")
