"""Reads the files of keys, and checks their contents, owners and modes.

Over tcp, CurveZMQ (ZeroMQ RFC 26) encrypts and says who is who: both sides have a pair of Curve25519 keys, each known
to the other beforehand. A client's file holds its pair and the daemon's public key, so one file is all that another
host needs. Keys are text in Z85 (RFC 32): 40 letters for 32 bytes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from ..config.paths import KEY_VARIABLE, config_dir

KEY_FILE_BYTES_MAX = 4096
NAME_BYTES_MAX = 64
CLIENT_HEAD = "tbxd-client-key 1"  # and the version of the format
KEY_LETTERS = 40
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IN_NAMES = frozenset(_LETTERS + "._-")
_IN_KEYS = frozenset(_LETTERS + ".-:+=^!/*?&<>()[]{}@%$#")  # the alphabet of Z85


class BadKey(ValueError):
    """A key file is missing, invalid or open to others; the text says what to do."""


class ClientKey(NamedTuple):
    """The keys with which a client talks to a daemon: ``daemon`` is the daemon's public key; all in Z85."""

    name: str
    daemon: str
    public: str
    secret: str

    def __repr__(self) -> str:  # never the secret, wherever this is printed
        return f"ClientKey({self.name!r}, {self.public!r})"


def check_name(name: str) -> str:
    """Return ``name`` if it is valid for a client; it is a file's name, too.

    Raises:
        BadKey: it may not.
    """
    if not 0 < len(name) <= NAME_BYTES_MAX or name[0] not in _LETTERS or not _IN_NAMES.issuperset(name):
        raise BadKey(
            f"{name[:80]!r} is no name for a key: letters, digits, '.', '_' and '-', beginning with a letter or a "
            f"digit, at most {NAME_BYTES_MAX}"
        )
    return name


def client_key_path() -> Path:
    """Return the file that ``TBXD_KEY`` names; without it ``tbxd/client.key`` in the user's folder of settings."""
    configured = os.environ.get(KEY_VARIABLE)
    return Path(configured).absolute() if configured else config_dir() / "client.key"


def read_client_key(path: Path | None = None) -> ClientKey:
    """Return the key of this client. Links are followed (Kubernetes mounts secrets so); their targets are checked.

    Raises:
        BadKey: there is none, it is none, or others may read it.
    """
    path = client_key_path() if path is None else path
    try:
        text = read_private(path, follow=True)
    except FileNotFoundError:
        raise BadKey(
            f"there is no key in {path}: make one where the daemon runs (`tbxd keys new NAME`) and copy it there, or "
            f"let {KEY_VARIABLE} name it"
        ) from None
    found = parse(path, text, CLIENT_HEAD, ("daemon", "public", "secret"))
    return ClientKey(check_name(found.get("name", "")), found["daemon"], found["public"], found["secret"])


def read_private(path: Path, follow: bool = False) -> str:
    """Return the text of a file that only this user may read.

    Root may have made it, and may let a group of its choice read it: so secrets are mounted into containers.

    Args:
        path: the file.
        follow: whether it may be a link.

    Raises:
        FileNotFoundError: it is not there.
        BadKey: it is not a regular file, somebody else's, open to others, or too long.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        link = "it is a link; put the file itself there" if path.is_symlink() else str(error)
        raise BadKey(f"{path} cannot be read: {link}") from error
    try:
        state = os.fstat(fd)
        mode = stat.S_IMODE(state.st_mode)
        if not stat.S_ISREG(state.st_mode):
            raise BadKey(f"{path} is not a regular file; a key is expected there")
        if state.st_uid not in (os.geteuid(), 0):
            raise BadKey(f"{path} belongs to uid {state.st_uid}, not to you ({os.geteuid()}): copy it as yourself")
        if mode & (0o037 if state.st_uid == 0 and os.geteuid() != 0 else 0o077):
            raise BadKey(f"{path} has mode {mode:04o}, others may get at the key: chmod 600 {path}, better a new key")
        data = os.read(fd, KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadKey(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(data) > KEY_FILE_BYTES_MAX:
        raise BadKey(f"{path} has more than {KEY_FILE_BYTES_MAX} bytes; it is no key")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise BadKey(f"{path} is no key of tbxd") from None


def parse(path: Path, text: str, head: str, keys: tuple[str, ...]) -> dict[str, str]:
    """Return the fields of a key file: a head, then lines of a word, a blank and a value. Others are passed over.

    Raises:
        BadKey: it is of another kind or version, or a key is missing or none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    kind, version = head.rsplit(" ", 1)
    if not lines or not lines[0].startswith(kind + " "):
        raise BadKey(f"{path} does not begin with {kind!r}: it is no such file of tbxd")
    if lines[0] != head:
        raise BadKey(f"{path} is of version {lines[0][len(kind) + 1 :][:20]!r}; this tbxd reads version {version}")
    fields = {word: value for word, _, value in (line.partition(" ") for line in lines[1:])}
    for name in keys:
        value = fields.get(name, "")
        if len(value) != KEY_LETTERS or not _IN_KEYS.issuperset(value):
            raise BadKey(
                f"{path} has no {name!r} that is a key of {KEY_LETTERS} letters; it may have been cut: copy it again"
            )
    return fields
