"""Questions of the command line to a running daemon."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import zmq

from tbxd_client.config.paths import (
    ADDRESS_VARIABLE,
    check_address,
    daemon_addresses,
    default_address,
    is_remote,
    lock_path,
    remote_spool,
    socket_trouble,
    spools,
    token_path,
)
from tbxd_client.config.runtime_folders import lock_trouble
from tbxd_client.journal.journal_files import JournalError, journals, read_state
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RemoteProtocolError
from tbxd_client.transport.connection import Link
from tbxd_client.transport.launcher import is_locked

from ..config.settings import Settings

ANSWER_SECONDS = 5.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.05
CONNECT_SECONDS = 2.5  # for a connection over tcp; whoever has one is waited for until the answer


class NotRunning(Exception):
    """No daemon answers."""


class Refuses(NotRunning):
    """The server refuses, or is not a daemon of this version."""


def ask(settings: Settings, what: str, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Ask the daemon a question.

    Raises:
        NotRunning: no daemon answers in time, or it refuses.
    """
    try:
        return _ask(settings, what, timeout)
    except NotRunning as error:
        listens = elsewhere(settings)
        if not listens or is_remote(settings.address):
            raise
        found = f"{error}; the daemon of {settings.runtime_dir} listens at {listens[0]} ({ADDRESS_VARIABLE})"
        raise type(error)(found) from error


def _ask(settings: Settings, what: str, timeout: float) -> dict[str, Any]:
    if settings.address.startswith("tcp:"):
        remote = is_remote(settings.address)
        token = "" if remote else _token(settings)
        found = _value(settings.address, _ask_over_tcp(settings.address, wire.Ask(what, token), timeout))
        return {**found, "address": settings.address} if remote else found
    if settings.address == default_address(settings.runtime_dir) and not is_locked(lock_path(settings.runtime_dir)):
        why = lock_trouble(settings.runtime_dir)
        raise NotRunning(f"no daemon is running at {settings.address}{f', and none can: {why}' if why else ''}")
    if trouble := socket_trouble(settings.address):
        raise NotRunning(f"no daemon of yours is at {settings.address}: {trouble}")
    if not Path(settings.address.removeprefix("ipc://")).exists():
        raise NotRunning(f"no daemon is running at {settings.address}: there is no socket")
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.immediate = 1
        socket.sndtimeo = socket.rcvtimeo = int(timeout * 1000)
        socket.connect(check_address(settings.address))
        try:
            socket.send_multipart(wire.pack(wire.Ask(what, "")))
            version, answer = wire.unpack_with_version(socket.recv_multipart(), wire.ANSWER_BYTES_MAX)
            if _is_older(version, answer):
                socket.send_multipart(wire.pack(wire.Ask(what, ""), version))
                _, answer = wire.unpack_with_version(socket.recv_multipart(), wire.ANSWER_BYTES_MAX)
        except zmq.Again:
            raise NotRunning(f"no daemon answers at {settings.address} within {timeout:g} s") from None
        except RemoteProtocolError as error:
            raise Refuses(f"the server at {settings.address} is not a tbxd daemon of this version: {error}") from error
    return _value(settings.address, answer)


def _is_older(version: int, answer: wire.Message) -> bool:
    """Return True if a daemon refuses because it is older; it has to be asked in its own version."""
    return isinstance(answer, wire.Refused) and version < wire.VERSION


def _value(address: str, answer: wire.Message) -> dict[str, Any]:
    if isinstance(answer, wire.Answer):
        return answer.value
    raise Refuses(f"the daemon at {address} refuses: {getattr(answer, 'reason', answer)}")


def _token(settings: Settings) -> str:
    with contextlib.suppress(OSError):
        return token_path(settings.runtime_dir).read_text()
    return ""


def _ask_over_tcp(address: str, question: wire.Ask, timeout: float) -> wire.Message:
    """Ask a daemon with the token, or with a key: then it answers about the runs of that key only.

    If it refuses the key, or the host cannot be connected to, the wait ends early.
    """
    link = Link(address, aloud=False, bytes_max=wire.ANSWER_BYTES_MAX)
    try:
        begun = time.monotonic()
        asked, version = False, wire.VERSION
        while (now := time.monotonic()) < begun + timeout:
            link.look(now)
            if link.trouble:
                raise Refuses(link.trouble)
            if not asked and now - begun > CONNECT_SECONDS:
                break
            asked = asked or link.send(wire.pack(question, version))
            link.poll(LOOK_SECONDS)
            if (frames := link.receive()) is None:
                continue
            spoken, answer = wire.unpack_with_version(frames, wire.ANSWER_BYTES_MAX)
            if spoken == version or not _is_older(spoken, answer):
                return answer
            asked, version = False, spoken
        raise NotRunning(f"no daemon answers at {address} within {now - begun:.1f} s: {link.how}")
    except RemoteProtocolError as error:
        raise Refuses(f"the server at {address} is not a tbxd daemon of this version: {error}") from error
    finally:
        link.close()


def elsewhere(settings: Settings) -> list[str]:
    """Return the endpoints of a daemon in the runtime folder that does not listen at the configured address."""
    if not is_locked(lock_path(settings.runtime_dir)):
        return []
    listens = daemon_addresses(settings.runtime_dir) or [default_address(settings.runtime_dir)]
    return [] if settings.address in listens else listens


def stop(settings: Settings) -> None:
    """Stop the daemon and wait until it has ended.

    Raises:
        NotRunning: no daemon is running.
        TimeoutError: the daemon has not ended after ``STOP_SECONDS``.
    """
    lock = lock_path(settings.runtime_dir)
    before = is_locked(lock)
    try:
        answer = ask(settings, "stop")
    except NotRunning:
        if before and not is_locked(lock):
            return  # it has left so soon, or the machine is so busy, that its answer went with it
        raise
    deadline = time.monotonic() + STOP_SECONDS
    while is_locked(lock):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the daemon (pid {answer['pid']}) has not ended after {STOP_SECONDS:g} s")
        time.sleep(0.02)


def libzmq_version() -> str:
    """Return the version of libzmq."""
    return zmq.zmq_version()


def waiting_journals(settings: Settings) -> list[dict[str, Any]]:
    """Return the journals in the spool for a daemon, and the bytes that wait in them."""
    found = []
    remote = is_remote(settings.address)
    folders = (remote_spool(spool, settings.address) if remote else spool for spool in spools(settings.spool))
    for path in (path for folder in folders for path in journals(folder)):
        try:
            state = read_state(path)
        except JournalError:
            continue
        found.append(
            {
                "journal": str(path),
                "pid": state.pid,
                "waiting_bytes": state.readable_end - state.released,
                "records": state.records,
                "dropped": state.dropped,
            }
        )
    return found
