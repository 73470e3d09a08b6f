"""Generate the tables of docs/SETTINGS.md from the declarations of the settings.

    python docs/settings.py

tests/unit/test_docs.py checks that they are up to date.
"""

from __future__ import annotations

from pathlib import Path

from tbxd.config.generated import in_toml
from tbxd.config.settings import SETTINGS, Setting
from tbxd_client.config import settings as client_settings

PAGE = Path(__file__).with_name("SETTINGS.md")
DAEMON = ("in the file", "variable", "default", "values", "while it runs", "meaning")
SCRIPTS = ("variable", "default", "values", "meaning")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown; its first two lines say which it is."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines, ""])


def of_daemon(setting: Setting) -> tuple[str, ...]:
    """The row of a setting of the daemon."""
    default = f"`{in_toml(setting)}`" if setting.default is not None else path(setting.otherwise)
    told = setting.help + (" Scripts, too." if setting.scripts else "")
    live = "yes" if setting.live else "no"
    return f"`{setting.name}`", f"`{setting.variable}`", default, setting.possible, live, told


def of_scripts() -> list[tuple[str, ...]]:
    """The rows of all settings of scripts."""
    rows = [
        (one.variable, f"{one.default:.15g}", f"{one.least:.15g} to {one.most:.15g} {one.unit}", one.help)
        for one in client_settings.SETTINGS
    ]
    rows += [(one.variable, one.default, ", ".join(one.choices), one.help) for one in client_settings.CHOICES]
    rows += [(one.variable, path(one.otherwise), one.form, one.help) for one in client_settings.TEXTS]
    return [(f"`{variable}`", *others) for variable, *others in rows]


def path(text: str) -> str:
    """What is to be read letter by letter is marked so."""
    return f"`{text}`" if text.startswith(("/", "~")) or "=" in text else text


def page(text: str) -> str:
    """The page with its tables made anew; the rest is as it was."""
    for made in (table(DAEMON, [of_daemon(setting) for setting in SETTINGS]), table(SCRIPTS, of_scripts())):
        head = "\n".join(made.split("\n")[:2])
        before, found, after = text.partition(head)
        assert found, head
        text = before + made + after[after.index("\n\n") + 1 if "\n\n" in after else len(after) :]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
