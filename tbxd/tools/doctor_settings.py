"""``tbxd doctor`` on the settings: the environment and the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from tbxd_client.config import settings as client_settings
from tbxd_client.distributed import rank_policy
from tbxd_client.journal import fill_limits
from tbxd_client.protocol.kinds import KINDS, SCALAR_SHARE

from ..config.settings import CONFIG, SETTINGS
from ..config.sources import FILE, Config, places
from .doctor_finding import Finding


def environment(environ: dict[str, str]) -> Iterator[Finding]:
    """Check the names and values of tbxd's environment variables."""
    numbers = {setting.variable: (setting.least, setting.most) for setting in client_settings.SETTINGS}
    numbers |= {setting.variable: (setting.least, setting.most) for setting in SETTINGS if setting.most}
    choices = {choice.variable: choice.choices for choice in client_settings.CHOICES}
    choices |= {setting.variable: setting.choices for setting in SETTINGS if setting.choices}
    texts = {setting.variable for setting in SETTINGS if not setting.most}
    others = {text.variable for text in client_settings.TEXTS} | {CONFIG.variable}
    known = numbers.keys() | choices.keys() | texts | others
    given = {name: value for name, value in environ.items() if name.startswith("TBXD_")}
    bad = False
    for name, value in sorted(given.items()):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"unset it; there are {', '.join(sorted(known))}"
            yield Finding("environment", "warning", f"{name} is not a setting of tbxd", advice)
        elif name in numbers and value:
            least, most = numbers[name]
            number = _number(value)
            if number is None or not least <= number <= most:
                ours = {setting.variable for setting in SETTINGS}
                what = "no daemon starts with it" if name in ours else "the default is used"
                found = f"{name}={value!r} is invalid: {what}"
                yield Finding("environment", "trouble", found, f"{least:g} to {most:g} are possible")
            else:
                continue
        elif name in choices and value and value.lower() not in choices[name]:
            found = f"{name}={value!r} is invalid: it is not used, or no daemon starts with it"
            yield Finding("environment", "trouble", found, f"{' and '.join(choices[name])} are possible")
        elif name == fill_limits.SHARES_VARIABLE:
            problems = _bad_shares(value)
            if not problems:
                continue
            yield Finding("environment", "warning", problems, "NAME=0 to 100, separated by commas")
        elif name == rank_policy.REDUCE_VARIABLE:
            unused = rank_policy.split_words(value)[1]
            if not unused:
                continue
            found, advice = (
                f"{name}: {', '.join(unused)} is not used",
                f"TAG={'|'.join(rank_policy.WORDS)}, separated by commas",
            )
            yield Finding("environment", "warning", found, advice)
        else:
            continue
        bad = True
    if not bad:
        yield Finding(
            "environment", "ok", ", ".join(f"{k}={v}" for k, v in sorted(given.items())) or "no TBXD_* is set"
        )


def _number(text: str) -> float | None:
    try:
        return float(client_settings._WORDS.get(text.lower(), text))
    except ValueError:
        return None


def _bad_shares(value: str) -> str:
    names = {kind.name for kind in KINDS.values() if kind.share < SCALAR_SHARE}
    bad = [
        entry
        for entry in value.replace(" ", "").split(",")
        if entry and not (entry.partition("=")[0] in names and re.fullmatch(r"\d{1,2}|100", entry.partition("=")[2]))
    ]
    return f"{fill_limits.SHARES_VARIABLE}: {', '.join(bad)} is not used" if bad else ""


def settings_file(config: Config) -> Iterator[Finding]:
    """Check that a daemon would start with the settings file."""
    what = "settings file"
    if config.file is None:
        yield Finding(what, "ok", f"there is none ({', '.join(map(str, places()))})")
        return
    for problem in config.problems:
        yield Finding(what, "trouble", f"{problem}: no daemon starts with it", "`tbxd config check` checks it")
    if config.problems:
        return
    given = [setting for setting in SETTINGS if config.origins[setting.name].kind == FILE]
    for setting in given:
        if setting.scripts:
            found = f"{config.origins[setting.name]}: {setting.name}: scripts that log read no file"
            yield Finding(what, "warning", found, f"set {setting.variable} in their environment, too")
    if not any(setting.scripts for setting in given):
        yield Finding(what, "ok", f"{config.file}: {', '.join(setting.name for setting in given) or 'empty'}")
