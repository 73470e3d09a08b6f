"""Where client and daemon meet: the socket, the lock and the spool of journals.

By default in the first of `places` that can be used. ``/var/tmp/tbxd-<uid>`` is local to the host even where home
folders are on the network, outlives a logout and a reboot, and has the size of a disk. The others stand in where it is
missing, read-only, full, somebody else's, or without locks: ``/tmp`` outlives a logout, ``/dev/shm`` mostly, though it
may have 64 MB, ``/run/user/<uid>`` neither, and a home folder may be on a network disk, and so seen by other hosts.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from ..process.descriptors import open_file
from . import settings

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
NEAR = 4  # so many of `places` are on this host; what follows may be on the network
VIEW_PREFIX = "view-"  # of a folder in the runtime folder, for a daemon of another mount namespace or root
REMOTE = "remote"  # of the spool: journals for daemons on other hosts

if sys.platform != "linux":  # what only Linux has: flock on folders, posix_fallocate, /proc, ipc credentials
    raise ImportError(
        f"tbxd runs on Linux; this is {sys.platform}. Log with tensorboardX here, or send the records "
        "to a Linux machine."
    )


class UnsafePath(OSError):
    """A folder that tbxd would trust belongs to somebody else or is open to others."""


def places() -> list[Path]:
    """The folders of this user and host in which everything is that is not configured elsewhere, best first.

    None of them depends on a variable that one process has and another has not (but for HOME), so all look at the same.
    """
    user = os.getuid()
    found = [Path(f"/{above}/tbxd-{user}") for above in ("var/tmp", "tmp", "dev/shm")]  # checked by private_dir
    found.append(Path(f"/run/user/{user}/tbxd"))
    cache = os.path.expanduser("~/.cache")  # noqa: PTH111 - no home
    if cache.startswith("/"):
        found.append(Path(cache) / "tbxd" / os.uname().nodename)
    return found


def base_dir() -> Path:
    """The best of `places`."""
    return places()[0]


def runtime_dir() -> Path:
    """The folder of the daemon's socket, lock and log that is wanted (``TBXD_RUNTIME_DIR``); see `runtimes`."""
    configured = os.environ.get(RUNTIME_VARIABLE)
    return Path(configured).absolute() if configured else base_dir() / "run"


def spool_dir() -> Path:
    """The folder of the journals that is wanted (``TBXD_SPOOL``); see `spools`."""
    configured = os.environ.get(SPOOL_VARIABLE)
    return Path(configured).absolute() if configured else base_dir() / "spool"


def runtimes(wanted: Path) -> list[Path]:
    """The folders where a daemon may be that is wanted in one, in the order in which they are tried."""
    return _alternatives(wanted, "run")


def spools(wanted: Path) -> list[Path]:
    """The folders where journals may be that are wanted in one, in the order in which they are tried.

    Whoever makes a journal takes the first that can be used at that moment; who looks for journals looks in all.
    """
    return _alternatives(wanted, "spool")


def _alternatives(wanted: Path, name: str) -> list[Path]:
    own = [place / name for place in places()]
    if wanted in own:
        return [wanted, *(place for place in own if place != wanted)]
    stand_in = f"{name}-{digest(os.fsencode(wanted))}"  # of that folder alone: two that are configured apart stay apart
    return [wanted, *(place / stand_in for place in places())]


def near(folders: list[Path]) -> list[Path]:
    """Of `runtimes` or `spools`, those on this host, and the one that is wanted wherever it is.

    The home folder may be on a network disk that hangs. So it is looked at only where these will not do, or where
    nobody waits.
    """
    far = places()[NEAR:]
    return [*folders[:1], *(folder for folder in folders[1:] if folder.parent not in far)]


def digest(data: bytes) -> str:
    """16 hexadecimal digits that stand for something; FNV-1a of 64 bits.

    hashlib is slow to import and has nothing to hide here. Imported with the first record, a child that is forked
    meanwhile would find the lock of that import held, for ever.
    """
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def may_be_used(folder: Path) -> bool:
    """Whether a folder is this user's and may be written, or could be made; it is looked at and left as it is."""
    for place in (folder, *folder.parents):
        try:
            state = place.lstat()
        except FileNotFoundError:
            if _is_shared(place):
                return False
            continue
        except OSError:
            return False
        mine = state.st_uid == os.getuid() or not (place == folder or place in places())
        return mine and stat.S_ISDIR(state.st_mode) and os.access(place, os.W_OK | os.X_OK)
    return False


def _is_shared(folder: Path) -> bool:
    """Whether it is of the system, and holds one of `places` for each user; who makes it is not for us to be."""
    return str(folder) in ("/var/tmp", "/tmp", "/dev/shm") or folder.parent == Path("/run/user")  # noqa: S108


def config_dir() -> Path:
    """The user's folder for settings that outlive a reboot: ``$XDG_CONFIG_HOME/tbxd`` or ``~/.config/tbxd``."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    base = configured if configured.startswith("/") else os.path.expanduser("~/.config")  # noqa: PTH111 - no home
    return Path(base).absolute() / "tbxd"


def keys_dir() -> Path:
    """The folder of a daemon's keys (``TBXD_KEYS``)."""
    configured = os.environ.get(KEYS_VARIABLE)
    return Path(configured).absolute() if configured else config_dir() / "keys"


def native_path(path: str) -> str:
    """A path as this process has to say it: one that its locale has no letters for by its bytes in UTF-8.

    Under ``LC_ALL=C`` the system would take the name, and Python refuses it.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return os.fsdecode(path.encode("utf-8", "surrogateescape"))
    return path


def told_path(path: str) -> str:
    """A path of this process as the daemon is told it, which takes paths for UTF-8 whatever the locale of either is.

    Bytes that are no UTF-8 are there as lone surrogates (PEP 383), and bytes again in what is sent.
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")


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

    A runtime folder whose path is too long for a socket has its socket in one of `places`, under a name made from
    that path, so that both sides find the same one.
    """
    folder = runtime_dir() if runtime is None else runtime
    path = folder / "daemon.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        import hashlib  # rarely needed, and slow to import

        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        path = next(filter(may_be_used, places()), base_dir()) / f"{name}.sock"
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
    ours = path.parent in places()
    for folder in (path.parent, path) if ours else (path,):
        # What all share is not made by us: a /var/tmp that is missing would be one user's then.
        folder.mkdir(mode=0o700, parents=not _is_shared(folder.parent), exist_ok=True)
        state = folder.lstat()
        closed = not state.st_mode & 0o777  # by the umask of whoever has made it, to himself too
        if not stat.S_ISDIR(state.st_mode):
            raise UnsafePath(f"{folder} is not a folder; remove it, or set {RUNTIME_VARIABLE} and {SPOOL_VARIABLE}")
        if state.st_uid != os.getuid():
            raise UnsafePath(
                f"{folder} belongs to uid {state.st_uid}, not to you ({os.getuid()}); "
                f"set {RUNTIME_VARIABLE} and {SPOOL_VARIABLE} to folders of your own"
            )
        if closed or state.st_mode & 0o077:
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
        file = open_file(addresses_path(runtime), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        found = os.fsdecode(os.read(file.number, ADDRESSES_BYTES_MAX)).splitlines()
    except OSError:
        return []
    finally:
        file.close()
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
