"""The sources of the daemon's settings: command line, environment, a file, defaults, in this order.

One file is read: the configured one, else the user's own, else the machine's.
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
    """The source of a value: one of the words above, and the file and line, variable or option."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind


class Given(NamedTuple):
    """A value of the command line or the environment."""

    value: Any
    origin: Origin


class Config(NamedTuple):
    """Settings and their sources.

    Args:
        settings: complete and checked.
        origins: the sources by name.
        file: the file that was read, if any.
        hidden: settings of the file that are overridden, by name, with the overriding source.
        problems: the errors of the file, each with its line; only if read leniently.
    """

    settings: Settings
    origins: dict[str, Origin]
    file: Path | None = None
    hidden: Mapping[str, Origin] = MappingProxyType({})
    problems: tuple[str, ...] = ()


class Source(NamedTuple):
    """The arguments of a command; each `load` finds the rest.

    Args:
        given: the values by name.
        path: the configured file, if any; see `find`.
        embedded: for a daemon that a writer has started. Its places are those of the writer, whatever a file says.
    """

    given: Mapping[str, Given] = MappingProxyType({})
    path: str = ""
    embedded: bool = False

    def load(self) -> Config:
        """Return the settings as they are now.

        Raises:
            BadSetting: a value is invalid, a key in the file is unknown, or the file is not trusted.
            OSError: the file cannot be read.
        """
        config = self.load_leniently()
        if config.problems:
            raise BadSetting("\n".join(config.problems))
        return config

    def load_in(self, seconds: float) -> Config:
        """As `load`, within a time limit: the file may be on a network disk that hangs.

        Raises:
            BadSetting, OSError: as for `load`, or the time limit is exceeded.
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
                f"the settings in {where} could not be read in {seconds:g} s, perhaps its disk hangs; "
                f"{CONFIG.variable} names another file, and one beginning with - need not be there",
            )
        if isinstance(done[0], Exception):
            raise done[0]
        return done[0]

    def load_leniently(self) -> Config:
        """Return the settings without invalid ones in the file, for commands that only look for the daemon.

        Raises:
            BadSetting: a value of the command line or of the environment is invalid, or the path is.
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
        """Return this source without invalid values, and what is wrong with each; for the doctor."""
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
    """Return what is wrong with a value of the command line or the environment, with its source."""
    if not (setting.most or setting.kind in (ENDPOINT, TCP)):
        return ""
    wrong = setting.problem(given.value)
    return f"{given.origin} {wrong}" if wrong else ""


def find(named: str = "") -> Path | None:
    """Return the settings file; None if there is none, and none is required.

    Args:
        named: its path, absolute or from ``~`` on, with "-" before it if the file is optional.

    Raises:
        BadSetting: the path is relative, or the file is missing.
        OSError: the path cannot be accessed.
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
    """Return the default places of the file, in the order of search."""
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
