"""The findings of ``tbxd doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The subject of a check, its level ("ok", "warning", "trouble"), the finding, and the advice ("" for none)."""

    what: str
    level: str
    found: str
    advice: str = ""
