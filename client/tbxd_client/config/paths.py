"""The paths that client and daemon share: the socket, the lock and the spool of journals.

The default is the first usable one of `places`. ``/var/tmp/tbxd-<uid>`` is local to the host even if home folders are
on the network, outlives a logout and a reboot, and has the size of a disk. The others replace it if it is missing,
read-only, full, another user's, or without locks: ``/tmp`` outlives a logout, ``/dev/shm`` mostly, though it may have
64 MB, ``/run/user/<uid>`` neither, and a home folder may be on a network disk that other hosts see.
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
    """A folder that tbxd would trust belongs to another user or is open to others."""


def places() -> list[Path]:
    """Return the default folders of this user and host, best first.

    Except for HOME, none depends on a variable that may differ between processes, so all processes get the same.
    """
    user = os.getuid()
    found = [Path(f"/{above}/tbxd-{user}") for above in ("var/tmp", "tmp", "dev/shm")]  # checked by private_dir
    found.append(Path(f"/run/user/{user}/tbxd"))
    cache = os.path.expanduser("~/.cache")  # noqa: PTH111 - no home
    if cache.startswith("/"):
        found.append(Path(cache) / "tbxd" / os.uname().nodename)
    return found


def base_dir() -> Path:
    """Return the best of `places`."""
    return places()[0]


def runtime_dir() -> Path:
    """Return the wanted folder for the daemon's socket, lock and log (``TBXD_RUNTIME_DIR``); see `runtimes`."""
    configured = os.environ.get(RUNTIME_VARIABLE)
    return Path(configured).absolute() if configured else base_dir() / "run"


def spool_dir() -> Path:
    """Return the wanted folder for the journals (``TBXD_SPOOL``); see `spools`."""
    configured = os.environ.get(SPOOL_VARIABLE)
    return Path(configured).absolute() if configured else base_dir() / "spool"


def runtimes(wanted: Path) -> list[Path]:
    """Return the wanted runtime folder and its alternatives, in the order in which they are tried."""
    return _alternatives(wanted, "run")


def spools(wanted: Path) -> list[Path]:
    """Return the wanted spool and its alternatives, in the order in which they are tried.

    A client makes its journal in the first usable one; a daemon looks for journals in all.
    """
    return _alternatives(wanted, "spool")


def _alternatives(wanted: Path, name: str) -> list[Path]:
    own = [place / name for place in places()]
    if wanted in own:
        return [wanted, *(place for place in own if place != wanted)]
    stand_in = f"{name}-{digest(os.fsencode(wanted))}"  # of that folder alone: two that are configured apart stay apart
    return [wanted, *(place / stand_in for place in places())]


def near(folders: list[Path]) -> list[Path]:
    """Return those of `runtimes` or `spools` that are on this host, and the wanted one wherever it is.

    The home folder may be on a network disk that hangs. So it is tried only if these cannot be used, or if nothing
    waits.
    """
    far = places()[NEAR:]
    return [*folders[:1], *(folder for folder in folders[1:] if folder.parent not in far)]


def digest(data: bytes) -> str:
    """Return a digest of 16 hexadecimal digits: FNV-1a of 64 bits.

    No cryptographic digest is needed, and hashlib is slow to import. If it were imported with the first record, a child
    forked meanwhile would find the lock of that import held for ever.
    """
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def may_be_used(folder: Path) -> bool:
    """Return True if a folder is this user's and writable, or could be made. Nothing is changed."""
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
    """Return True if a folder is the system's and holds one of `places` for each user; tbxd never makes it."""
    return str(folder) in ("/var/tmp", "/tmp", "/dev/shm") or folder.parent == Path("/run/user")  # noqa: S108


def config_dir() -> Path:
    """Return the user's configuration folder: ``$XDG_CONFIG_HOME/tbxd`` or ``~/.config/tbxd``."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    base = configured if configured.startswith("/") else os.path.expanduser("~/.config")  # noqa: PTH111 - no home
    return Path(base).absolute() / "tbxd"


def keys_dir() -> Path:
    """Return the folder of a daemon's keys (``TBXD_KEYS``)."""
    configured = os.environ.get(KEYS_VARIABLE)
    return Path(configured).absolute() if configured else config_dir() / "keys"


def native_path(path: str) -> str:
    """Return a path in a form that this process can open: letters outside its locale become their bytes in UTF-8.

    Under ``LC_ALL=C`` the system would accept the name, but Python refuses it.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return os.fsdecode(path.encode("utf-8", "surrogateescape"))
    return path


def told_path(path: str) -> str:
    """Return a path of this process as it is sent to the daemon: as UTF-8, whatever the locale of either.

    Bytes that are not UTF-8 are lone surrogates here (PEP 383), and bytes again in what is sent.
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def is_loopback(address: str) -> bool:
    """Return True if a tcp endpoint cannot be reached from another host."""
    return address.removeprefix("tcp://").rpartition(":")[0] in LOOPBACK


def is_remote(address: str) -> bool:
    """Return True if the daemon requires a key, as one on another host does: by tcp, without the token of this user.

    Over loopback the token is used, unless ``TBXD_KEY`` names a key.
    """
    return address.startswith("tcp://") and (bool(os.environ.get(KEY_VARIABLE)) or not is_loopback(address))


def remote_spool(spool: Path, address: str) -> Path:
    """Return the folder in a spool for journals for a daemon on another host; no daemon of this host adopts them.

    Its name contains the address.
    """
    return spool / REMOTE / address.removeprefix("tcp://").replace("/", "_")


def configured_address() -> str | None:
    """Return the ZeroMQ endpoint in ``TBXD_ADDRESS``; None means the daemon of this user and host."""
    return os.environ.get(ADDRESS_VARIABLE) or None


def default_address(runtime: Path | None = None) -> str:
    """Return the endpoint of this user's own daemon.

    If the path of the runtime folder is too long for a socket, the socket is in one of `places`, under a name made from
    that path, so that both sides find it.
    """
    folder = runtime_dir() if runtime is None else runtime
    path = folder / "daemon.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        import hashlib  # rarely needed, and slow to import

        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        path = next(filter(may_be_used, places()), base_dir()) / f"{name}.sock"
    return f"ipc://{path}"


def check_address(address: str, listening: bool = False) -> str:
    """Return ``address`` if ZeroMQ can use it.

    Args:
        address: a ZeroMQ endpoint.
        listening: the address is for listening: every interface ("*") and any free port (0) are allowed, too.

    Raises:
        ValueError: neither ipc nor tcp, an ipc path that is too long, or no host or port; the message says what is
            expected.
    """
    if wrong := _wrong_address(address, listening):
        raise ValueError(f"address {address!r}: {wrong}")
    return address


def _wrong_address(address: str, listening: bool) -> str:
    """Return what is wrong with an endpoint and what is expected; "" if it is valid."""
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
    """Suggest an endpoint for one without a scheme."""
    if "://" in address:
        return ""
    if address.startswith("/"):
        return f"; for a socket: ipc://{address}"
    plain = address.removeprefix("tcp:").strip("/")
    return f"; for a port: tcp://{plain}" if not _wrong_address(f"tcp://{plain}", False) else ""


def address_in_environment() -> str:
    """Return what is wrong with ``TBXD_ADDRESS``, as a sentence that names it; "" if it is valid or not set."""
    try:
        check_address(configured_address() or default_address())
    except ValueError as error:
        return f"{ADDRESS_VARIABLE}: {error}"
    return ""


def socket_trouble(address: str) -> str | None:
    """Return why it is unsafe to connect to an ipc endpoint; "" if it is safe, None if it may be safe later.

    A user who could put a socket in its place would get this user's records, and could acknowledge them. So its folder
    must belong to this user or root, and be closed to others; in a shared folder (sticky, as ``/tmp``) the socket must
    exist and belong to them. Root connects anywhere.
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
    """Make ``path`` (and its parents) if needed, and return it after checking that it is this user's alone.

    Raises:
        UnsafePath: the path is a link, not a folder, another user's, or writable for others.
        OSError: the folder cannot be made.
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
    """Return the runtime folder of the daemon for trainers with this `view.view`, if the usual daemon sees other
    files."""
    return runtime / f"{VIEW_PREFIX}{view}"


def lock_path(runtime: Path | None = None) -> Path:
    """Return the file that the one daemon of a runtime folder keeps locked while it runs."""
    return (runtime or runtime_dir()) / "daemon.lock"


def token_path(runtime: Path | None = None) -> Path:
    """Return the file of the secret that a connection over tcp requires; readable by this user only."""
    return (runtime or runtime_dir()) / "tcp.token"


def addresses_path(runtime: Path | None = None) -> Path:
    """Return the file of the endpoints where the daemon of a runtime folder listens, one a line, its own first.

    It is valid while `lock_path` is locked.
    """
    return (runtime or runtime_dir()) / "addresses"


def daemon_addresses(runtime: Path | None = None) -> list[str]:
    """Return the endpoints where the daemon of a runtime folder listens; an older daemon does not write them."""
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
    """Return the file where a daemon that runs as a service writes the path of its unit, for `awaited_service`."""
    return (runtime or runtime_dir()) / "service"


def awaited_service(runtime: Path | None = None) -> str:
    """Return the unit file of the service that has reserved a runtime folder for its daemon; "" without one.

    A service reserves the folder when it first runs there, for as long as its unit file exists: a stopped service is
    expected to come back. Removing the unit file releases the folder.
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
