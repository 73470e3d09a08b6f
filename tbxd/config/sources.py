"""Where the daemon's settings come from: command line, environment, a file, defaults, in this order.

One file is read: the one that is named, else the user's own, else the machine's.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from tbxd_client.config.paths import config_dir

from .settings import CONFIG, ENDPOINT, PLACES, SETTINGS, TCP, BadSetting, Setting, Settings

if TYPE_CHECKING:
    from .toml_file import File

FILE_NAME = "config.toml"
MACHINE_FILE = Path("/etc/tbxd") / FILE_NAME
OPTIONAL = "-"  # before a path: the file need not be there, as in systemd's EnvironmentFile=
DEFAULT, FILE, ENVIRONMENT, COMMAND_LINE = "default", "file", "environment", "command line"


class Origin(NamedTuple):
    """Where a value is from: one of the words above, and which file and line, variable or option."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind


class Given(NamedTuple):
    """A value of the command line or the environment."""

    value: Any
    origin: Origin


class Config(NamedTuple):
    """Settings, and where each is from.

    Args:
        settings: complete and checked.
        origins: by name.
        file: the one that was read, if there is one.
        hidden: what is in the file and does not count, by name: where the value is from that does.
        problems: of the file, each with its line; only where it is read leniently.
    """

    settings: Settings
    origins: dict[str, Origin]
    file: Path | None = None
    hidden: Mapping[str, Origin] = MappingProxyType({})
    problems: tuple[str, ...] = ()


class Source(NamedTuple):
    """What a command was given; the rest is looked for with each `load`.

    Args:
        given: by name.
        path: the file, where one is named; see `find`.
        embedded: for a daemon that a writer has started. It is where that writer looks for it, whatever a file says.
    """

    given: Mapping[str, Given] = MappingProxyType({})
    path: str = ""
    embedded: bool = False

    def load(self) -> Config:
        """The settings as they are now.

        Raises:
            BadSetting: a value makes no sense, a key in the file is none, or the file may not be trusted.
            OSError: it cannot be read.
        """
        config = self.load_leniently()
        if config.problems:
            raise BadSetting("\n".join(config.problems))
        return config

    def load_in(self, seconds: float) -> Config:
        """The same, in so many seconds: the file may be on a disk of the network that hangs.

        Raises:
            BadSetting, OSError: as for `load`, or it took longer.
        """
        done: list[Config | Exception] = []

        def read() -> None:
            try:
                done.append(self.load())
            except Exception as error:
                done.append(error)

        thread = threading.Thread(target=read, name="settings", daemon=True)
        thread.start()
        thread.join(seconds)
        if not done:
            where = self.path or " or ".join(map(str, places()))
            raise TimeoutError(
                f"the settings in {where} could not be read in {seconds:g} s, its disk hangs perhaps; "
                f"{CONFIG.variable} names another file, and one beginning with - need not be there",
            )
        if isinstance(done[0], Exception):
            raise done[0]
        return done[0]

    def load_leniently(self) -> Config:
        """The settings without what makes no sense in the file, for who only wants to know where a daemon is.

        Raises:
            BadSetting: a value of the command line or of the environment makes no sense, or the path does not.
        """
        path = find(self.path)
        file, problems = _read(path) if path is not None else (None, [])
        values: dict[str, Any] = {}
        origins = {setting.name: Origin(DEFAULT) for setting in SETTINGS}
        hidden = {}
        for setting in SETTINGS:
            name = setting.name
            if file is not None and name in file.values and not (self.embedded and name in PLACES):
                values[name], origins[name] = file.values[name], Origin(FILE, f"{file.path}:{file.lines.get(name, 1)}")
            given = self.given.get(name)
            if given is None:
                continue
            if wrong := _wrong(setting, given):
                raise BadSetting(wrong)
            if name in values:
                hidden[name] = given.origin
            values[name], origins[name] = given
        return Config(Settings.of(values), origins, path if file is not None else None, hidden, tuple(problems))

    def sorted_out(self) -> tuple[Source, list[str]]:
        """This without the values that make no sense, and what is wrong with each, for who looks for what is wrong."""
        wrong = {
            setting.name: _wrong(setting, self.given[setting.name])
            for setting in SETTINGS
            if setting.name in self.given
        }
        problems = [text for text in wrong.values() if text]
        path = self.path
        try:
            find(path)
        except (BadSetting, OSError) as error:
            problems.append(str(error))
            path = OPTIONAL + "/"  # none: also not the user's own, for another was named
        kept = {name: given for name, given in self.given.items() if not wrong.get(name)}
        return Source(kept, path, self.embedded), problems


def _wrong(setting: Setting, given: Given) -> str:
    """What is wrong with a value of the command line or the environment, and where it is from."""
    if not (setting.most or setting.kind in (ENDPOINT, TCP)):
        return ""
    wrong = setting.problem(given.value)
    return f"{given.origin} {wrong}" if wrong else ""


def find(named: str = "") -> Path | None:
    """The file that is read; None where there is none, and need not be.

    Args:
        named: its path, absolute or from ``~`` on, with "-" before it where it need not be there.

    Raises:
        BadSetting: the path is relative, or there is nothing.
        OSError: it cannot be looked at.
    """
    if not named:
        return next((path for path in places() if _is_there(path)), None)
    path = Path(os.path.expanduser(named.removeprefix(OPTIONAL)))  # noqa: PTH111 - leaves what has no home as it is
    if not path.is_absolute():
        raise BadSetting(f"{CONFIG.variable}={named!r}: an absolute path is expected")
    if _is_there(path, named=True):
        return path
    if named.startswith(OPTIONAL):
        return None
    raise BadSetting(f"{path}: no such file; `tbxd config example` prints one")


def places() -> list[Path]:
    """Where a file is looked for that nobody has named, in this order."""
    return [config_dir() / FILE_NAME, MACHINE_FILE]


def _is_there(path: Path, named: bool = False) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        if error.errno == errno.EACCES and not named:  # the home is another user's: sudo, a service
            return False
        raise
    return True


def _read(path: Path) -> tuple[File | None, list[str]]:
    from .toml_file import File, read  # only where there is a file: the reader of TOML takes its time

    try:
        file = read(path)
    except BadSetting as error:
        return File(path), [str(error)]
    except OSError as error:
        return File(path), [f"{path}: {error.strerror}"]
    return file, file.problems
