"""What ``tbxd doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is ("ok", "warning", "trouble"), what was found, and what to do ("" for nothing)."""

    what: str
    level: str
    found: str
    advice: str = ""
