"""tbxd as a service of systemd: installs and removes its files.

The files come with the package (`tbxd/systemd/`). Each installed file begins with a line with a checksum of the rest,
so that files changed by hand are recognised, and neither replaced nor removed silently.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tbxd_client.config.paths import service_path

from .. import __version__

# Words of a unit file that need no quotes: systemd.service(5), "Command lines"; "%" and "$" are its own.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+:@,=~-]*\Z")
HEADER = re.compile(r"# tbxd \S+ has written this file: ([0-9a-f]{16})\. [^\n]*\n")
HOMES = ("/home", "/root", "/run/user")
OLD_SUFFIX = ".before-tbxd"
SYSTEMCTL_SECONDS = 90.0
NEW, SAME, OLDER, CHANGED, FOREIGN = "new", "same", "older", "changed", "foreign"


class ServiceError(Exception):
    """The service cannot be installed or removed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A file of a service.

    Args:
        path: the path of the file.
        text: its contents.
        yours: the user edits it: an existing file is left as it is.
    """

    path: Path
    text: str
    yours: bool = False

    @property
    def state(self) -> str:
        """The state of the file: missing (NEW), this (SAME), an older one of ours, changed by hand, or foreign."""
        try:
            found = self.path.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return NEW
        if found == self.text:
            return SAME
        header = HEADER.match(found)
        if header is None:
            return FOREIGN
        return OLDER if header.group(1) == _checksum(found[header.end() :]) else CHANGED

    @property
    def may_be_replaced(self) -> bool:
        """True if replacing the file loses nothing."""
        return self.state in (NEW, SAME, OLDER)


@dataclass(frozen=True, slots=True)
class Service:
    """One way of running the daemon as a service.

    Args:
        system: for a machine (`tbxd@USER.service`) or for one user (`tbxd.service`).
        files: all of its files.
        unit: the name for systemctl.
    """

    system: bool
    files: tuple[Installed, ...]
    unit: str

    def systemctl(self, *arguments: str) -> list[str]:
        """Return a command line for the manager that runs this service."""
        return ["systemctl", *([] if self.system else ["--user"]), *arguments]


def _config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def user_unit() -> Path:
    """Return the path of the current user's unit."""
    return _config() / "systemd" / "user" / "tbxd.service"


def for_user(python: str = sys.executable) -> Service:
    """Return the service of the current user, below ``$XDG_CONFIG_HOME``.

    Raises:
        ServiceError: the interpreter's path does not fit into a unit file.
    """
    config, unit = _config(), user_unit()
    filled = _fill("tbxd.service", PYTHON=_word(python), UNIT=_word(str(unit)))
    env = Installed(config / "tbxd" / "tbxd.env", _signed(_read("tbxd.env")), yours=True)
    return Service(False, (Installed(unit, _signed(filled)), env), "tbxd.service")


def for_system(
    root: Path, logs: tuple[str, ...], account: bool, user: str = "USER", python: str = sys.executable
) -> Service:
    """Return the service of a machine that many users share.

    Args:
        root: "/", or the root folder of an image that is being built.
        logs: log folders besides homes and /tmp.
        account: with an account ``tbxd``, for training that belongs to no person.
        user: the user whose daemon is started.
        python: the interpreter that runs the daemon.

    Raises:
        ServiceError: a path does not fit into a unit file, or the interpreter is in a home.
    """
    if python.startswith(tuple(home + "/" for home in HOMES)):
        raise ServiceError(
            f"{python} is in a home, which other users may not read; install tbxd where all may, for instance "
            "`python3 -m venv /opt/tbxd && /opt/tbxd/bin/pip install .` in the repository, and run /opt/tbxd/bin/tbxd"
        )
    etc = Path("/etc")
    unit = etc / "systemd/system/tbxd@.service"
    filled = _fill("tbxd@.service", PYTHON=_word(python), UNIT=_word(str(unit)))
    texts = {
        unit: filled,
        etc / "tmpfiles.d/tbxd.conf": _read("tbxd.tmpfiles.conf"),
        etc / "tbxd/tbxd.env": _read("tbxd.env"),
    }
    if logs:  # apart, so that the next install, without them, does not take them back
        folders = "".join(f"ReadWritePaths=-{_word(folder)}\n" for folder in logs)
        texts[etc / "systemd/system/tbxd@.service.d/logs.conf"] = f"[Service]\n{folders}"
    if account:
        texts[etc / "sysusers.d/tbxd.conf"] = _read("tbxd.sysusers.conf")
        texts[etc / "tmpfiles.d/tbxd-account.conf"] = _read("tbxd.account.tmpfiles.conf")
    return Service(
        True,
        tuple(
            Installed(root / path.relative_to("/"), _signed(text), yours=path.suffix == ".env")
            for path, text in texts.items()
        ),
        f"tbxd@{'tbxd' if account else user}.service",
    )


def install(service: Service, force: bool = False) -> list[str]:
    """Write missing and older files; return a line for each file.

    Raises:
        ServiceError: a file was changed by hand, or is not ours, without ``force``; nothing is written then.
        OSError: a file cannot be written.
    """
    obstacles = [file for file in service.files if not file.yours and not file.may_be_replaced]
    if obstacles and not force:
        raise ServiceError(
            "nothing was written: "
            + "; ".join(f"{file.path} {_why(file)}" for file in obstacles)
            + f". With --force it is replaced, and kept as *{OLD_SUFFIX}; changes are better kept in a drop-in "
            "(systemctl edit)"
        )
    lines = []
    for file in service.files:
        state = file.state
        if state == SAME:
            lines.append(f"{file.path} exists already")
            continue
        if file.yours and state != NEW:
            lines.append(f"{file.path} is yours and stays as it is")
            continue
        if state in (CHANGED, FOREIGN):
            old = file.path.with_name(file.path.name + OLD_SUFFIX)
            shutil.copy2(file.path, old)
            lines.append(f"{file.path} {_why(file)}: kept as {old}")
        _write(file)
        lines.append(f"{file.path} {'written' if state == NEW else 'replaced'}")
    return lines


def remove(service: Service, runtime: Path, force: bool = False) -> tuple[list[str], bool]:
    """Remove unchanged files of ours; return a line for each file, and True if all but the user's own are gone.

    Args:
        service: the service to remove.
        runtime: the runtime folder that the service has reserved.
        force: remove also files changed by hand.
    """
    lines, gone = [], True
    for file in service.files:
        state = file.state
        if state == NEW:
            continue
        if state in (SAME, OLDER) or (force and not file.yours):
            file.path.unlink()
            lines.append(f"{file.path} removed")
        else:
            lines.append(f"{file.path} {_why(file)}: it stays" + ("" if file.yours else " (--force removes it)"))
            gone = gone and file.yours
    if not service.system and gone:
        service_path(runtime).unlink(missing_ok=True)
    return lines, gone


def run(command: list[str]) -> str:
    """Run systemctl; return "" or the error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")


def _why(file: Installed) -> str:
    return "was changed by hand" if file.state == CHANGED else "is not from tbxd"


def _write(file: Installed) -> None:
    """Write a file in one step, so that systemd never reads half a unit."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    part = file.path.with_name(f".{file.path.name}.{os.getpid()}")
    try:
        part.write_text(file.text)
        part.chmod(0o644)
        part.replace(file.path)
    finally:
        part.unlink(missing_ok=True)


def _read(name: str) -> str:
    return (files("tbxd") / "systemd" / name).read_text()


def _fill(name: str, **words: str) -> str:
    text = _read(name)
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def _word(path: str) -> str:
    if not PLAIN_PATH.match(path):
        raise ServiceError(f"{path!r} in a unit file would need quotes; use a path of letters, digits and _./+:@,=~-")
    return path


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _signed(text: str) -> str:
    return f"# tbxd {__version__} has written this file: {_checksum(text)}. Changes are noticed, and kept.\n{text}"
