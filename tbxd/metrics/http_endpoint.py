"""The endpoint for Prometheus: HTTP on loopback or at a unix socket, one path, and nothing that can block the daemon.

It has a thread of its own, and one for each scraper: a few at a time, each for a few seconds. The daemon's main thread
makes the numbers, as for `tbxd status`, and only as often as it costs little: frequent scrapes get the same numbers
again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import socketserver
import stat
import threading
import time
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tbxd_client.config.paths import SOCKET_PATH_BYTES_MAX

log = logging.getLogger(__name__)

PATH = "/metrics"
UNIX = "unix:"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SCRAPERS_MAX = 4  # at a time; whoever comes beyond that is hung up on
SCRAPE_SECONDS = 10.0  # from the connection to the last byte
ANSWER_SECONDS = 5.0  # for the main thread, which may be busy
AGE_SECONDS = 0.5  # numbers so old are given again
AGE_TIMES = 50  # and so are those which are so many times as old as it took to make them: 2 % of the main thread
ACCEPT_PAUSE_SECONDS = 0.5  # when there is no descriptor to accept with
BACKLOG = 16

Status = dict[str, Any]
Exposition = Callable[[Status, str], tuple[bytes, str]]


class EndpointError(ValueError):
    """The endpoint is not possible; the message has the reason and what is expected."""


def parse(where: str) -> tuple[str, int] | Path:
    """Return host and port, or the path of a socket.

    Raises:
        EndpointError: the text is neither, or the endpoint could be reached from other hosts.
    """
    if where.startswith(UNIX):
        path = Path(where.removeprefix(UNIX).replace("//", "/", 1))
        if not path.is_absolute():
            raise EndpointError(f"metrics {where!r}: the path of a socket begins with /: unix:/path/to/socket")
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            raise EndpointError(f"metrics {where!r}: a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes")
        return path
    try:
        url = urllib.parse.urlsplit(where)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise EndpointError(f"metrics {where!r}: {error}; http://127.0.0.1:PORT or unix:/path is expected") from error
    if url.scheme != "http" or port is None or url.path not in ("", "/", PATH) or url.query or url.username:
        raise EndpointError(f"metrics {where!r}: http://127.0.0.1:PORT or unix:/path/to/socket is expected")
    if host not in LOOPBACK:
        raise EndpointError(
            f"metrics {where!r}: only this machine may scrape (http://127.0.0.1:{port}), because the endpoint asks "
            "for no password. For a Prometheus on another host, let its agent or a proxy on this host scrape"
        )
    return ("127.0.0.1" if host == "localhost" else host), port


class Numbers:
    """Passes the main thread's numbers to the threads of scrapers.

    Args:
        wake: wakes the main thread.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._changed = threading.Condition()
        self._wanted = False
        self._status: Status | None = None
        self._fresh_until = 0.0
        self._closed = False

    def close(self) -> None:
        """End: the main thread answers no more, and must not be woken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def get(self) -> Status | None:
        """Return the numbers, on a scraper's thread; None if the main thread does not answer in time."""
        deadline = time.monotonic() + ANSWER_SECONDS
        with self._changed:
            if time.monotonic() >= self._fresh_until:
                self._status = None
            while self._status is None and not self._closed:
                self._wanted = True
                self._wake()
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    return None
            return self._status

    def answer(self, make: Callable[[], Status]) -> None:
        """Make the numbers if wanted, on the main thread, with each turn of its loop."""
        if not self._wanted:
            return
        begun = time.monotonic()
        status = make()
        now = time.monotonic()
        with self._changed:
            self._wanted = False
            self._status = status
            self._fresh_until = now + max(AGE_SECONDS, AGE_TIMES * (now - begun))
            self._changed.notify_all()


class Endpoint:
    """The endpoint of a daemon.

    Args:
        where: ``http://127.0.0.1:PORT`` or ``unix:/path``.
        wake: wakes the main thread, which then calls `answer`.

    Raises:
        EndpointError: the endpoint is not possible, or prometheus-client is not installed.
        OSError: the endpoint cannot be bound.
    """

    def __init__(self, where: str, wake: Callable[[], None]) -> None:
        place = parse(where)
        try:
            from .catalogue import exposition
        except ImportError as error:
            raise EndpointError(
                f"metrics {where!r}: prometheus-client is needed beside the daemon ({error}): "
                "pip install prometheus-client"
            ) from error
        self._numbers = Numbers(wake)
        self._path = place if isinstance(place, Path) else None
        self._server = _Server(place, self._numbers.get, exposition)
        self.address = where
        if not isinstance(place, Path):
            host, port = self._server.server_address[:2]
            shown = f"[{host!s}]" if ":" in str(host) else str(host)
            self.address = f"http://{shown}:{port}{PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="tbxd-metrics", daemon=True)
        self._thread.start()

    def answer(self, make: Callable[[], Status]) -> None:
        """Give numbers to waiting scrapers; called on the main thread, with each turn of its loop."""
        self._numbers.answer(make)

    def close(self) -> None:
        """Accept no more scrapers; requests in progress are not waited for."""
        self._numbers.close()
        self._server.closing = True
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, so that it does not take its half second
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = BACKLOG
    closing = False

    def __init__(
        self, place: tuple[str, int] | Path, numbers: Callable[[], Status | None], exposition: Exposition
    ) -> None:
        self.numbers = numbers
        self.exposition = exposition
        self.local = isinstance(place, Path)
        self._path = place if isinstance(place, Path) else None
        self._scrapers: dict[socket.socket, float] = {}  # and until when they may be at it
        self._lock = threading.Lock()
        if self.local:
            self.address_family = socket.AF_UNIX
        elif isinstance(place, tuple) and ":" in place[0]:
            self.address_family = socket.AF_INET6
        # For a unix socket `server_bind` takes the path.
        super().__init__(place if isinstance(place, tuple) else ("", 0), _Scraper)

    def server_bind(self) -> None:
        if self._path is None:
            super().server_bind()
            return
        _make_room(self._path)
        old = os.umask(0o177)
        try:
            self.socket.bind(os.fspath(self._path))
        finally:
            os.umask(old)
        self.server_address = (os.fspath(self._path), 0)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:  # no descriptor: the connection waits, and we would be called again at once
            if not self.closing:
                time.sleep(ACCEPT_PAUSE_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._scrapers) >= SCRAPERS_MAX:
                return False
            self._scrapers[request] = time.monotonic() + SCRAPE_SECONDS
            return True

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # as many threads as the system allows
            log.warning("no thread for a scrape: %s", error)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._scrapers.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        now = time.monotonic()
        with self._lock:
            slow = [request for request, until in self._scrapers.items() if now > until]
        for request in slow:  # its thread, which waits for it, then ends
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scrape came to nothing", exc_info=True)


class _Scraper(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = SCRAPE_SECONDS
    server_version, sys_version = "tbxd", ""

    def do_GET(self) -> None:
        if not self.server.local and not _is_this_machine(self.headers.get("Host", "")):
            self._say(HTTPStatus.FORBIDDEN, "asked for under a name that is not this machine's")
        elif urllib.parse.urlsplit(self.path).path != PATH:
            self._say(HTTPStatus.NOT_FOUND, f"there is nothing here but {PATH}")
        elif (status := self.server.numbers()) is None:
            self._say(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the daemon is busy, and gave no numbers in {ANSWER_SECONDS:g} s"
            )
        else:
            data, content_type = self.server.exposition(status, self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, data, content_type)

    def _say(self, code: HTTPStatus, text: str) -> None:
        self._answer(code, f"{text}\n".encode(), "text/plain; charset=utf-8")

    def _answer(self, code: HTTPStatus, data: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "a scraper"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _is_this_machine(host: str) -> bool:
    """Return True if the request names this machine: a foreign page in a local browser may send another name (DNS
    rebinding)."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname in LOOPBACK
    except ValueError:
        return False


def _make_room(path: Path) -> None:
    """Remove a stale socket, in a folder that only this user can write to.

    Raises:
        EndpointError: another user could replace the socket, or the path is not a stale socket.
    """
    where = f"metrics '{UNIX}{path}'"
    try:
        folder = path.parent.lstat()
    except OSError as error:
        raise EndpointError(f"{where}: {path.parent}: {error.strerror}; make that folder, for yourself") from error
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.getuid() or folder.st_mode & 0o022:
        raise EndpointError(
            f"{where}: {path.parent} has to be a folder of yours that nobody else may write to "
            f"(chmod 700 {path.parent}), or take the runtime folder of the daemon"
        )
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise EndpointError(f"{where}: the path is taken by something other than a socket; remove it")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:  # whoever listened there is gone
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise EndpointError(f"{where}: another process listens there already; use another path for each daemon")
