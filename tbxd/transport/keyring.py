"""The keys of a daemon: its own pair, and the public keys of the admitted clients.

A folder that only this user may enter::

    daemon.key          the daemon's pair, made when it is first needed
    clients/NAME.pub    one file for each client, which is admitted as long as the file exists

Files are written whole under another name and then linked to their own, which fails if that exists. Every file is
checked before it is read: the user's own, regular, not a link, not open to others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

from tbxd_client.journal.journal_files import sync_folder
from tbxd_client.transport.keys import CLIENT_HEAD, BadKey, ClientKey, check_name, parse, read_private

DAEMON_HEAD = "tbxd-daemon-key 1"
ALLOWED_HEAD = "tbxd-allowed-key 1"
ALLOWED_SUFFIX = ".pub"
CLIENTS_MAX = 10_000
LOOK_SECONDS = 0.5  # between looks whether a client was let in or revoked
NAME_SHOWN = 100  # of a file's name in that of its draft
UNSURE_SECONDS = 2.0  # a folder that has changed so lately may change again without a new time

# What is to be done with a new key; docs/SEVERAL_NODES.md shows it.
ADVICE = """\
{file} lets its holder log to this daemon as {name!r}. It holds a secret: move it, do not leave a copy.

1. To the host that trains (as the user who trains there; HOST is its name):
     ssh HOST 'umask 077; mkdir -p ~/.config/tbxd; cat > ~/.config/tbxd/client.key' < {quoted} && rm {quoted}
   Elsewhere than ~/.config/tbxd/client.key: set TBXD_KEY=/path/to/the/file there (chmod 600).
2. On that host, in the environment of the training:
     export TBXD_ADDRESS=tcp://{host}:7007
3. Here, if it does not run yet (one that listens already has noticed the new key):
     tbxd serve --listen tcp://0.0.0.0:7007 --roots /FOLDER/FOR/RUNS

`tbxd keys revoke {name}` takes it back at any time."""


@dataclass(frozen=True, slots=True)
class DaemonKey:
    """A daemon's pair, in Z85."""

    public: str
    secret: str

    def __repr__(self) -> str:  # never the secret, wherever this is printed
        return f"DaemonKey({self.public!r})"


class KeyFolder:
    """The folder with the keys of a daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clients_path = path / "clients"
        self.daemon_path = path / "daemon.key"

    def check(self) -> None:
        """Check that the folder is private.

        Raises:
            BadKey: the folder is missing, a link or not a folder, another user's, or open to others.
        """
        for folder in (self.path, self.clients_path):
            try:
                state = folder.lstat()
            except OSError as error:
                raise BadKey(
                    f"there are no keys in {folder} ({error.strerror}): `tbxd keys new NAME` makes one for a client"
                ) from error
            if not stat.S_ISDIR(state.st_mode):
                raise BadKey(f"{folder} is not a folder (or a link to one): put the folder itself there")
            if state.st_uid != os.geteuid():
                raise BadKey(f"{folder} belongs to uid {state.st_uid}, not to you ({os.geteuid()})")
            if state.st_mode & 0o077:
                raise BadKey(
                    f"{folder} has mode {stat.S_IMODE(state.st_mode):04o}, others have access: chmod 700 {folder}"
                )

    def daemon_key(self, make: bool = False) -> DaemonKey:
        """Return the daemon's own pair.

        Args:
            make: make it, and the folder, if missing.

        Raises:
            BadKey: the pair is missing or invalid.
            OSError: the pair cannot be made.
        """
        if make:
            for folder in (self.path, self.clients_path):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check()
        if make and not os.path.lexists(self.daemon_path):
            public, secret = (part.decode() for part in zmq.curve_keypair())
            text = f"# The daemon's own key. It stays here.\n{DAEMON_HEAD}\npublic {public}\nsecret {secret}\n"
            with contextlib.suppress(FileExistsError):  # somebody was faster: theirs it is
                _write_new(self.daemon_path, text)
        try:
            text = read_private(self.daemon_path)
        except FileNotFoundError:
            raise BadKey(
                f"there is no {self.daemon_path}: `tbxd keys new NAME` makes it with the key of a client"
            ) from None
        found = parse(self.daemon_path, text, DAEMON_HEAD, ("public", "secret"))
        if zmq.curve_public(found["secret"].encode()).decode() != found["public"]:
            raise BadKey(f"{self.daemon_path}: the public key is not that of the secret one; the file was changed")
        return DaemonKey(found["public"], found["secret"])

    def new(self, name: str, file: Path) -> ClientKey:
        """Make a key for a client: write its file, then admit it.

        Args:
            name: its name in lists and in the log.
            file: the client's own file, with its secret; it must not exist.

        Raises:
            BadKey: the name is invalid, a client or a file of that name exists, or the folder is not private.
            OSError: the file cannot be written.
        """
        check_name(name)
        daemon = self.daemon_key(make=True)
        entry = self._entry(name)
        if os.path.lexists(entry):
            raise BadKey(f"there is a client {name!r} already: choose another name, or `tbxd keys revoke {name}` first")
        public, secret = (part.decode() for part in zmq.curve_keypair())
        key = ClientKey(name, daemon.public, public, secret)
        text = (
            "# Anybody who has this file may log to the daemon it was made for. Keep it to yourself (chmod 600).\n"
            f"{CLIENT_HEAD}\nname {name}\ndaemon {key.daemon}\npublic {public}\nsecret {secret}\n"
        )
        try:
            _write_new(file, text)
        except FileExistsError:
            raise BadKey(f"{file} exists already; remove it, or choose another with --out") from None
        try:
            _write_new(entry, f"{ALLOWED_HEAD}\nname {name}\npublic {public}\n")
        except BaseException as error:
            file.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                raise BadKey(f"there is a client {name!r} already") from None
            raise
        return key

    def revoke(self, name: str) -> None:
        """Stop admitting a client.

        Raises:
            BadKey: there is no client of that name, or the folder is not private.
        """
        self.check()
        try:
            self._entry(check_name(name)).unlink()
        except FileNotFoundError:
            raise BadKey(f"there is no client {name!r}; `tbxd keys list` shows the admitted ones") from None
        sync_folder(self.clients_path)

    def clients(self) -> tuple[dict[str, str], list[str]]:
        """Return the names of admitted clients by public key, and what is wrong with invalid files.

        Raises:
            BadKey: the folder is not private.
        """
        self.check()
        found: dict[str, str] = {}
        wrong = []
        for path in sorted(self.clients_path.glob("*" + ALLOWED_SUFFIX))[:CLIENTS_MAX]:
            try:
                fields = parse(path, read_private(path), ALLOWED_HEAD, ("public",))
                found.setdefault(fields["public"], check_name(path.name.removesuffix(ALLOWED_SUFFIX)))
            except FileNotFoundError:  # revoked just now
                continue
            except BadKey as error:
                wrong.append(str(error))
        return found, wrong

    def made(self, name: str) -> float:
        """Return when a client was admitted, in seconds since the epoch; 0 if it is gone."""
        try:
            return self._entry(name).lstat().st_mtime
        except OSError:
            return 0.0

    def _entry(self, name: str) -> Path:
        return self.clients_path / (name + ALLOWED_SUFFIX)


class AllowList:
    """The currently admitted clients: it reads the folder again while it is used."""

    def __init__(self, folder: KeyFolder) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}
        self._changed = 0
        self._next_look = 0.0
        self.wrong: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def name(self, public: str, now: bool = False) -> str:
        """Return the name of the client with a public key; "" if it is not admitted.

        Args:
            public: in Z85.
            now: read the folder at once, and not only every ``LOOK_SECONDS``.
        """
        clock = time.monotonic()
        if now or clock >= self._next_look:
            self._next_look = clock + LOOK_SECONDS
            self._look()
        return self._names.get(public, "")

    def _look(self) -> None:
        try:
            changed = self._folder.clients_path.lstat().st_mtime_ns
            if changed == self._changed and abs(time.time() - changed / 1e9) > UNSURE_SECONDS:
                return
            self._names, self.wrong = self._folder.clients()
            self._changed = changed
        except (BadKey, OSError) as error:  # nobody, rather than somebody whom nobody has let in
            self._names, self.wrong, self._changed = {}, [str(error)], 0


def _write_new(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all.

    Raises:
        FileExistsError: the file exists.
        OSError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name[:NAME_SHOWN]}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(draft, path)  # unlike rename, it replaces nothing
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
