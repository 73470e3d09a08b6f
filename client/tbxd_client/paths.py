"""Where client and daemon meet: the socket, the lock and the spool of journals.

Both default to ``/var/tmp/tbxd-<uid>``. It is local to the host even where home folders are on the network, it
outlives a logout (``$XDG_RUNTIME_DIR`` and, under systemd, a user's files in ``/dev/shm`` do not) and a reboot,
and it has the size of a disk where ``/dev/shm`` has 64 MB in a container.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from . import settings
from .descriptors import open_file

ADDRESS_VARIABLE = "TBXD_ADDRESS"
RUNTIME_VARIABLE = "TBXD_RUNTIME_DIR"
SPOOL_VARIABLE = "TBXD_SPOOL"
KEY_VARIABLE = settings.KEY.variable
KEYS_VARIABLE = "TBXD_KEYS"

# sockaddr_un.sun_path has 108 bytes with the closing NUL (unix(7)); libzmq refuses more.
SOCKET_PATH_BYTES_MAX = 107
SERVICE_BYTES_MAX = ADDRESSES_BYTES_MAX = 4096
PORT_MAX = 65_535
HOST_BYTES_MAX = 253  # RFC 1035, 2.3.4, without the length of the root
# A name or number of a host: letters of any alphabet, digits, ".", "-", "_", or what IPv6 has in brackets, with a zone.
_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
VIEW_PREFIX = "view-"  # of a folder in the runtime folder, for a daemon of another mount namespace or root
REMOTE = "remote"  # of the spool: journals for daemons on other hosts

if sys.platform != "linux":  # what only Linux has: flock on folders, posix_fallocate, /proc, ipc credentials
    raise ImportError(
        f"tbxd runs on Linux; this is {sys.platform}. Log with tensorboardX here, or send the records "
        "to a Linux machine."
    )


class UnsafePath(OSError):
    """A folder that tbxd would trust belongs to somebody else or is open to others."""


def base_dir() -> Path:
    """The folder that holds everything of this user and host that is not configured elsewhere."""
    return Path(f"/var/tmp/tbxd-{os.getuid()}")  # noqa: S108 - checked by private_dir before it is used


def runtime_dir() -> Path:
    """The folder of the daemon's socket, lock and log (``TBXD_RUNTIME_DIR``)."""
    configured = os.environ.get(RUNTIME_VARIABLE)
    return Path(configured).absolute() if configured else base_dir() / "run"


def spool_dir() -> Path:
    """The folder of the journals (``TBXD_SPOOL``)."""
    configured = os.environ.get(SPOOL_VARIABLE)
    return Path(configured).absolute() if configured else base_dir() / "spool"


def config_dir() -> Path:
    """The user's folder for settings that outlive a reboot: ``$XDG_CONFIG_HOME/tbxd`` or ``~/.config/tbxd``."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    base = configured if configured.startswith("/") else os.path.expanduser("~/.config")  # noqa: PTH111 - no home
    return Path(base).absolute() / "tbxd"


def keys_dir() -> Path:
    """The folder of a daemon's keys (``TBXD_KEYS``)."""
    configured = os.environ.get(KEYS_VARIABLE)
    return Path(configured).absolute() if configured else config_dir() / "keys"


def is_loopback(address: str) -> bool:
    """Whether a tcp endpoint cannot be reached from another host."""
    return address.removeprefix("tcp://").rpartition(":")[0] in LOOPBACK


def is_remote(address: str) -> bool:
    """Whether a daemon is spoken to with keys, as one on another host: by tcp, and not with the token of this user.

    Over loopback the token is used, unless ``TBXD_KEY`` names a key.
    """
    return address.startswith("tcp://") and (bool(os.environ.get(KEY_VARIABLE)) or not is_loopback(address))


def remote_spool(spool: Path, address: str) -> Path:
    """The folder in a spool for journals that a daemon on another host is to have: no daemon of this host takes them.

    It tells the address by its name.
    """
    return spool / REMOTE / address.removeprefix("tcp://").replace("/", "_")


def configured_address() -> str | None:
    """The ZeroMQ endpoint in ``TBXD_ADDRESS``; None asks for the daemon of this user and host."""
    return os.environ.get(ADDRESS_VARIABLE) or None


def default_address(runtime: Path | None = None) -> str:
    """The endpoint of this user's own daemon.

    A runtime folder whose path is too long for a socket has its socket in the base folder, under a name made from
    that path, so that both sides find the same one.
    """
    folder = runtime_dir() if runtime is None else runtime
    path = folder / "daemon.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        import hashlib  # rarely needed, and slow to import

        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        path = base_dir() / f"{digest}.sock"
    return f"ipc://{path}"


def check_address(address: str, listening: bool = False) -> str:
    """``address`` when ZeroMQ can use it.

    Args:
        address: a ZeroMQ endpoint.
        listening: whether somebody is to listen there: then every interface ("*") and any free port (0) will do, too.

    Raises:
        ValueError: neither ipc nor tcp, an ipc path that is too long, or no host or port; the message says what would
            do.
    """
    if wrong := _wrong_address(address, listening):
        raise ValueError(f"address {address!r}: {wrong}")
    return address


def _wrong_address(address: str, listening: bool) -> str:
    """What is wrong with an endpoint, and what would do; "" when nothing is."""
    scheme, separator, rest = address.partition("://")
    if address != address.strip() or "\0" in address:
        return "there is a blank at its beginning or end, or a zero byte in it"
    if not separator or scheme not in ("ipc", "tcp") or not rest:
        return f"expected ipc:///path/to/socket or tcp://host:port{_meant(address)}"
    return _wrong_socket(rest) if scheme == "ipc" else _wrong_port(rest, listening)


def _wrong_socket(path: str) -> str:
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        return (
            f"a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes, this one {length}; choose a shorter one, or "
            f"set {RUNTIME_VARIABLE} and leave {ADDRESS_VARIABLE} unset"
        )
    return "the path of a socket is expected, and this is that of a folder" if path.endswith("/") else ""


def _wrong_port(rest: str, listening: bool) -> str:
    host, colon, port = rest.rpartition(":")
    bracketed = rest.startswith("[")
    if (bracketed and "]" not in rest) or (not bracketed and ":" in host):
        return "an IPv6 address stands in brackets: tcp://[::1]:PORT"
    if not colon or (bracketed and not host.endswith("]")):
        return f"the port is missing: tcp://{rest}:PORT"
    anywhere = listening and host == "*"
    if not anywhere and not (len(host) <= HOST_BYTES_MAX and _HOST.fullmatch(host)):
        return f"its host is {host[:40]!r}; a name or the number of a host is expected: tcp://HOST:{port}"
    least = 0 if listening else 1
    if (listening and port == "*") or (port.isascii() and port.isdecimal() and least <= int(port[:6]) <= PORT_MAX):
        return ""
    return f"its port is {port[:20]!r}; {least} to {PORT_MAX} are possible"


def _meant(address: str) -> str:
    """What may have been meant by an endpoint without a scheme."""
    if "://" in address:
        return ""
    if address.startswith("/"):
        return f"; for a socket: ipc://{address}"
    plain = address.removeprefix("tcp:").strip("/")
    return f"; for a port: tcp://{plain}" if not _wrong_address(f"tcp://{plain}", False) else ""


def address_in_environment() -> str:
    """What is wrong with ``TBXD_ADDRESS``, as a sentence that names it; "" when nothing is, or it is not set."""
    try:
        check_address(configured_address() or default_address())
    except ValueError as error:
        return f"{ADDRESS_VARIABLE}: {error}"
    return ""


def socket_trouble(address: str) -> str | None:
    """Why an ipc endpoint is not to be connected to; "" when it may be, None when it may be later.

    Whoever may put a socket in its place would get this user's records, and could acknowledge them. So its folder has
    to be this user's or root's, and closed to others; in one that all share (sticky, as ``/tmp``) the socket has to be
    there and theirs. Root connects where he is told to.
    """
    path = Path(address.removeprefix("ipc://"))
    me = os.getuid()
    try:
        folder = path.parent.stat()
        if me == 0:
            return ""
        if folder.st_uid not in (me, 0):
            return f"{path.parent} belongs to uid {folder.st_uid}, not to you ({me})"
        shared = stat.S_IMODE(folder.st_mode) & (stat.S_IWOTH | stat.S_ISVTX)
        if shared == stat.S_IWOTH:
            return f"everybody may write to {path.parent}, and put another socket there: chmod 700 {path.parent}"
        owner = path.lstat().st_uid if shared & stat.S_IWOTH else me
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return str(error)
    return "" if owner in (me, 0) else f"{path} belongs to uid {owner}, not to you ({me})"


def private_dir(path: Path) -> Path:
    """Make ``path`` (and its parents) if need be, and return it once it is certain to be this user's alone.

    Raises:
        UnsafePath: it is a link, no folder, another user's, or others may write to it.
        OSError: it cannot be made.
    """
    for folder in (path.parent, path) if path.parent == base_dir() else (path,):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode):
            raise UnsafePath(f"{folder} is not a folder; remove it, or set {RUNTIME_VARIABLE} and {SPOOL_VARIABLE}")
        if state.st_uid != os.getuid():
            raise UnsafePath(
                f"{folder} belongs to uid {state.st_uid}, not to you ({os.getuid()}); "
                f"set {RUNTIME_VARIABLE} and {SPOOL_VARIABLE} to folders of your own"
            )
        if state.st_mode & 0o077:
            folder.chmod(0o700)
    return path


def view_runtime(runtime: Path, view: str) -> Path:
    """The runtime folder of the daemon that sees the files which a trainer with this `view.view` sees, where the usual
    daemon sees others."""
    return runtime / f"{VIEW_PREFIX}{view}"


def lock_path(runtime: Path | None = None) -> Path:
    """The file that the one daemon of a runtime folder holds locked while it lives."""
    return (runtime or runtime_dir()) / "daemon.lock"


def token_path(runtime: Path | None = None) -> Path:
    """The secret that a connection over tcp has to show; readable by this user only."""
    return (runtime or runtime_dir()) / "tcp.token"


def addresses_path(runtime: Path | None = None) -> Path:
    """The file in which the daemon of a runtime folder leaves where it listens, an endpoint a line, the own one first.

    It counts while `lock_path` is locked.
    """
    return (runtime or runtime_dir()) / "addresses"


def daemon_addresses(runtime: Path | None = None) -> list[str]:
    """Where the daemon that holds the lock of a runtime folder listens, as far as it says; an older one does not."""
    try:
        fd = os.open(addresses_path(runtime), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        found = os.fsdecode(os.read(fd, ADDRESSES_BYTES_MAX)).splitlines()
    except OSError:
        return []
    finally:
        os.close(fd)
    return [address for address in found if not _wrong_address(address, listening=False)]


def service_path(runtime: Path | None = None) -> Path:
    """The file in which a daemon that runs as a service leaves the path of its unit file, for `awaited_service`."""
    return (runtime or runtime_dir()) / "service"


def awaited_service(runtime: Path | None = None) -> str:
    """The unit file of the service whose daemon is the only one that may run in a runtime folder; "" without one.

    A service counts once it has run there, and as long as its unit file exists: it may be stopped for the moment, but
    it is meant to come back. Whoever removes the unit file gives the folder free, also without telling us.
    """
    try:
        file = open_file(service_path(runtime), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        unit = os.fsdecode(os.read(file.number, SERVICE_BYTES_MAX)).strip()
        return unit if unit.startswith("/") and Path(unit).exists() else ""
    except (OSError, ValueError):
        return ""
    finally:
        file.close()
