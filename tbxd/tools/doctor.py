"""``tbxd doctor``: checks what goes wrong in practice, with advice for each problem. It changes nothing."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import mmap
import os
import re
import resource
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tbxd_client
from tbxd_client.config import settings as client_settings
from tbxd_client.config.paths import (
    ADDRESS_VARIABLE,
    KEY_VARIABLE,
    REMOTE,
    RUNTIME_VARIABLE,
    SOCKET_PATH_BYTES_MAX,
    SPOOL_VARIABLE,
    base_dir,
    check_address,
    default_address,
    is_remote,
    lock_path,
    may_be_used,
    places,
    runtimes,
    spools,
    token_path,
)
from tbxd_client.config.runtime_folders import lock_trouble
from tbxd_client.journal.journal_files import CONTROL_NAME, JournalError, journals, read_state
from tbxd_client.journal.segments import SEGMENT_BYTES_MIN
from tbxd_client.logdir.event_names import second_of
from tbxd_client.process.mounts import mount_of
from tbxd_client.protocol import wire
from tbxd_client.transport.keys import BadKey, client_key_path, read_client_key
from tbxd_client.transport.launcher import START_SECONDS_MAX, is_locked

from .. import __version__
from ..config.settings import Settings
from ..config.sources import DEFAULT, Config
from ..drop_reasons import HINTS
from ..ingest.journal_recovery import QUARANTINE, WHAT_TO_DO
from ..process.lock_holders import holders
from ..tfevents.discovery import event_folders
from ..transport import control_client
from . import versions
from .doctor_finding import Finding
from .doctor_settings import environment, settings_file
from .systemd_units import user_unit

ANSWER_SECONDS = 3.0
FREE_BYTES_LEAST = 256 << 20  # on the disk of a log folder, before it is said that it runs full
FREE_SHARE_LEAST = 0.01  # of the files that a disk may hold
DESCRIPTORS_LEAST = 1024  # a client takes one, a run that is open two
FUTURE_SECONDS = 60.0  # clocks of one cluster differ by less
CLOCK_LEAST = 1_704_067_200  # 2024: a clock before that has not been set
LOG_BYTES = 256 << 10  # of the end of daemon.log that are looked at
LOG_LINES = 5
REINSTALL = "install tbxd anew (`pip install .` in the repository)"
UNSET = "correct or remove it: with it no daemon starts, and none is found (the checks below ignore it)"
FILES_MAX = 100_000  # event files looked at in all log folders
# File systems on another machine, whose locks and maps may not be what they are on a disk (statfs(2), mount(8)).
UNKNOWN_SYSTEM = "unknown file system"
NETWORK = re.compile(
    r"nfs|cifs|smb|9p|ceph|gluster|lustre|gpfs|beegfs|afs|fuse\.(sshfs|s3fs|rclone|gcsfuse)|pvfs|ocfs|gfs"
)
_BAD_LINE = re.compile(r"^\S+ \S+ (WARNING|ERROR|CRITICAL) |^Traceback|^\w*(Error|Exception):")


def examine(
    config: Config, folders: list[Path], environ: dict[str, str], problems: Sequence[str] = ()
) -> Iterator[Finding]:
    """Run all checks.

    Args:
        config: the places of daemon and spool, and their sources.
        folders: log folders to check as well; without any, those of the daemon's runs.
        environ: the environment, for its ``TBXD_*``.
        problems: invalid settings of the command; the config is without them.
    """
    for problem in problems:
        yield Finding("settings", "trouble", problem, UNSET)
    settings = config.settings
    status = _status(settings)
    answer = status if isinstance(status, dict) else _elsewhere(settings)
    runs = [Path(run) for run in answer["runs"]] if answer and not folders else []
    for run in runs:
        if why := _closed(run):
            yield Finding("log folder", "trouble", f"{run}: {why}", "give this user access to the folders above it")
    known = sorted({*folders, *(run for run in runs if not _closed(run) and run.is_dir())})
    for what, findings in (
        ("environment", environment(environ)),
        ("settings file", settings_file(config)),
        ("versions", _versions()),
        ("runtime folder", _runtime(settings, environ)),
        ("socket", _socket(settings)),
        ("daemon", _daemon(config, status, answer)),
        ("service", _service(answer)),
        ("locks", _launch_lock(settings)),
        ("spool", _spools(settings, environ)),
        ("journals", _waiting(settings, answer is not None)),
        ("shared memory", _shared_memory(settings)),
        ("file descriptors", _descriptors()),
        ("clock", _clock()),
        *(("log folder", _log_folder(folder, given=folder in folders)) for folder in known),
        ("daemon's log", _log(settings.runtime_dir / "daemon.log")),
    ):
        try:
            yield from findings
        except OSError as error:
            yield Finding(what, "trouble", str(error), "check that it exists, its permissions, and its disk")


# --- what this process has -------------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    found = versions.versions()
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    missing = [name for name in versions.NEEDED if found[name] == versions.MISSING]
    if missing:
        yield Finding("versions", "trouble", text, f"pip install {' '.join(missing)}")
    elif tbxd_client.__version__ != __version__:
        yield Finding("versions", "trouble", f"the client is {tbxd_client.__version__}; {text}", REINSTALL)
    else:
        yield Finding("versions", "ok", text)


def _descriptors() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"at most {hard:,} ({soft:,} to begin with)" if hard != resource.RLIM_INFINITY else "without a limit"
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_LEAST:
        advice = f"raise the limit (`ulimit -Hn {DESCRIPTORS_LEAST}`, limits.conf, LimitNOFILE=)"
        yield Finding("file descriptors", "warning", found + ": a client uses one, an open run two", advice)
    else:
        yield Finding("file descriptors", "ok", found)


def _clock() -> Iterator[Finding]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    if now < CLOCK_LEAST:
        yield Finding("clock", "trouble", f"{shown}: it has not been set", "set it (timedatectl, chronyd)")
    else:
        yield Finding("clock", "ok", shown)


# --- runtime folder, socket, daemon ----------------------------------------------------------------------------------


def _runtime(settings: Settings, environ: dict[str, str]) -> Iterator[Finding]:
    configured = environ.get(RUNTIME_VARIABLE)
    own = [place / "run" for place in places()]
    wanted = Path(configured).absolute() if configured and settings.runtime_dir not in own else base_dir() / "run"
    candidates = runtimes(wanted)
    if settings.runtime_dir in candidates:
        for folder in candidates[: candidates.index(settings.runtime_dir)]:
            yield _passed_over(
                "runtime folder", folder, RUNTIME_VARIABLE, f"{settings.runtime_dir} is used", lock_trouble(folder)
            )
    yield from _private("runtime folder", settings.runtime_dir, RUNTIME_VARIABLE)


def _passed_over(what: str, folder: Path, variable: str, instead: str, problem: str = "") -> Finding:
    """Report why a preferred folder is not used."""
    for finding in () if problem else _private(what, folder, variable):
        if finding.level != "ok":
            return Finding(what, "warning", f"{finding.found}: {instead}", finding.advice)
    advice = f"set {variable} to a folder of your own, on a local disk"
    return Finding(what, "warning", f"{folder}: {problem or 'it cannot be used'}: {instead}", advice)


def _private(what: str, folder: Path, variable: str) -> Iterator[Finding]:
    """Check a folder that has to be this user's alone."""
    elsewhere = f"remove it, or set {variable} to a folder of your own"
    for place in (folder.parent, folder) if folder.parent in places() else (folder,):
        try:
            state = place.lstat()
        except FileNotFoundError:
            above = next(parent for parent in place.parents if parent.exists())
            if may_be_used(place):
                yield Finding(what, "ok", f"{place} does not exist yet; it is made when needed")
            else:
                advice = f"set {variable} to a folder of your own"
                yield Finding(what, "trouble", f"{place} does not exist, and you may not write {above}", advice)
            return
        except OSError as error:
            advice = f"set {variable} to a folder of your own"
            yield Finding(what, "trouble", f"{place}: {error.strerror}", advice)
            return
        mode = stat.S_IMODE(state.st_mode)
        if not stat.S_ISDIR(state.st_mode):
            yield Finding(what, "trouble", f"{place} is not a folder{_link(state)}; it is not used", elsewhere)
        elif state.st_uid != os.getuid():
            found = f"{place} belongs to uid {state.st_uid}, you are {os.getuid()}; it is not used"
            yield Finding(what, "trouble", found, f"set {variable} to a folder of your own")
        elif not os.access(place, os.W_OK | os.X_OK):
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                advice = f"set {variable} to a folder of your own, on a disk that may be written"
                yield Finding(what, "trouble", f"{place} is on a disk that is mounted read-only", advice)
            else:
                found = f"{place} has mode {mode:04o}: you may not write it"
                yield Finding(what, "trouble", found, f"chmod 700 {place}")
        elif mode & 0o077:
            found = f"{place} has mode {mode:04o}: others have access until the next daemon or writer restricts it"
            yield Finding(what, "warning", found, f"chmod 700 {place}")
        else:
            continue
        return
    yield Finding(what, "ok", f"{folder}, {_system_of(folder)}")


def _link(state: os.stat_result) -> str:
    return " but a link" if stat.S_ISLNK(state.st_mode) else ""


def _socket(settings: Settings) -> Iterator[Finding]:
    address = settings.address
    try:
        check_address(address)
    except ValueError as error:
        yield Finding("socket", "trouble", str(error), f"correct {ADDRESS_VARIABLE} or {RUNTIME_VARIABLE}")
        return
    if is_remote(address):
        yield from _key(address)
        return
    if address.startswith("tcp:"):
        yield from _token(settings)
        return
    path = Path(address.removeprefix("ipc://"))
    length = len(os.fsencode(path))
    where = f"{path} ({length} of {SOCKET_PATH_BYTES_MAX} bytes)"
    try:
        state = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        yield Finding("socket", "ok", f"{where} does not exist; the daemon makes it")
        return
    except OSError as error:
        yield Finding(
            "socket", "trouble", f"{path}: {error.strerror}", f"set {RUNTIME_VARIABLE} to a folder of your own"
        )
        return
    if not stat.S_ISSOCK(state.st_mode):
        yield Finding("socket", "trouble", f"{where} is not a socket", f"rm {path}")
    elif state.st_uid != os.getuid():
        found = f"{where} belongs to uid {state.st_uid}, you are {os.getuid()}"
        yield Finding("socket", "trouble", found, f"set {RUNTIME_VARIABLE} to a folder of your own")
    elif not os.access(path, os.R_OK | os.W_OK):
        yield Finding("socket", "trouble", f"{where} may not be written by you", f"chmod 700 {path}")
    else:
        yield Finding("socket", "ok", where)


def _key(address: str) -> Iterator[Finding]:
    try:
        key = read_client_key()
    except BadKey as error:
        yield Finding("socket", "trouble", f"{address} needs a key", str(error))
    else:
        yield Finding("socket", "ok", f"{address}, with the key {key.name!r} in {client_key_path()}")


def _token(settings: Settings) -> Iterator[Finding]:
    path = token_path(settings.runtime_dir)
    try:
        state = path.stat()
        path.read_bytes()
    except OSError as error:
        found = f"{settings.address} needs the token in {path}: {error.strerror}"
        yield Finding("socket", "warning", found, "start the daemon in this runtime folder, or copy its token here")
        return
    if stat.S_IMODE(state.st_mode) & 0o077:
        yield Finding("socket", "trouble", f"{path} can be read by others", f"chmod 600 {path}; tbxd stop")
    else:
        yield Finding("socket", "ok", f"{settings.address}, with the token in {path}")


def _closed(path: Path) -> str:
    """Return why a path cannot be accessed; "" if it can, or if nothing is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _status(settings: Settings) -> dict[str, Any] | Exception:
    """Return the daemon's status, or why there is none."""
    try:
        return control_client.ask(settings, "status", ANSWER_SECONDS)
    except (control_client.NotRunning, ValueError) as error:
        return error


def _elsewhere(settings: Settings) -> dict[str, Any] | None:
    """Return the status of the daemon that holds the lock, if it answers at another address than the configured one."""
    for address in control_client.elsewhere(settings):
        with contextlib.suppress(control_client.NotRunning, ValueError):
            return {
                "address": address,
                **control_client.ask(replace(settings, address=address), "status", ANSWER_SECONDS),
            }
    return None


def _daemon(config: Config, status: dict[str, Any] | Exception, answer: dict[str, Any] | None) -> Iterator[Finding]:
    settings = config.settings
    lock = lock_path(settings.runtime_dir)
    if isinstance(status, Exception):
        why = str(status)
        if answer is not None:
            yield from _at_another_address(config, status, answer)
        elif isinstance(status, control_client.Refuses):
            yield Finding("daemon", "trouble", why, _how_to_be_let_in(settings))
        elif is_locked(lock) and not is_remote(settings.address):
            yield from _silent_daemon(settings, lock, why)
        elif settings.address.startswith("tcp:"):
            yield Finding(
                "daemon", "trouble", why, "start the daemon there: tbxd serve --listen … (on this host: --address …)"
            )
        else:
            yield Finding("daemon", "ok", "none is running; the next writer starts one")
        if answer is not None:
            yield from _health(answer)
        return
    assert answer is not None
    who = f"{answer['version']}, pid {answer['pid']}, {len(answer['sessions'])} sessions, {len(answer['runs'])} runs"
    if answer["version"] != __version__ or answer["protocol"] != wire.VERSION:
        found = f"{who}, protocol {answer['protocol']}; here it is {__version__}, protocol {wire.VERSION}"
        level = "warning" if answer["protocol"] == wire.VERSION else "trouble"
        yield Finding("daemon", level, found, "tbxd stop; the next writer starts one of this version, nothing is lost")
    else:
        yield Finding("daemon", "ok", who)
    if "spool" in answer and Path(answer["spool"]) != settings.spool:
        found = f"the daemon drains {answer['spool']}, not {settings.spool}"
        yield Finding(
            "daemon", "warning", found, f"set the same {SPOOL_VARIABLE} for daemon and scripts, then tbxd stop"
        )
    yield from _health(answer)


def _at_another_address(config: Config, why: Exception, answer: dict[str, Any]) -> Iterator[Finding]:
    """Report that the daemon of the runtime folder listens at another address than scripts are configured for."""
    settings, origin = config.settings, config.origins["address"]
    reason = str(why).partition("; the daemon of ")[0]
    right = answer["address"]
    who = f"the daemon of {settings.runtime_dir} (pid {answer['pid']}, {answer['version']})"
    if origin.kind == DEFAULT:
        advice = f"export {ADDRESS_VARIABLE}={right}, for scripts and commands"
    elif right == default_address(settings.runtime_dir):
        advice = f"remove the address ({origin}), or set it to {right}"
    else:
        advice = f"set the address ({origin}) to {right}"
    if is_remote(settings.address):
        advice += "; if the daemon of that host is meant, start it there: tbxd serve --listen …"
    yield Finding("daemon", "trouble", f"{reason}; {who} runs, and listens at {right}", advice)


def _how_to_be_let_in(settings: Settings) -> str:
    if settings.address.startswith("ipc:"):
        return "use one version and one user for script, command line and daemon"
    token = token_path(settings.runtime_dir)
    return (
        f"on loopback the token in {token} is sent: use that daemon's {RUNTIME_VARIABLE}; or, for a daemon behind a "
        f"tunnel or on another host, set {KEY_VARIABLE} to a key that it admits (`tbxd keys new NAME` there)"
    )


def _service(status: dict[str, Any] | None) -> Iterator[Finding]:
    """Check that an installed service of the user is running; `tbxd service install` starts nothing."""
    unit = user_unit()
    if not unit.is_file():
        return
    start = f"systemctl --user enable --now {unit.name}"
    if status is None:
        yield Finding("service", "warning", f"{unit} is installed and no daemon runs", start)
    elif status.get("service"):
        yield Finding("service", "ok", f"{unit} is installed, and a service runs")
    else:
        found = f"{unit} is installed, but the daemon that runs (pid {status['pid']}) is not a service"
        yield Finding("service", "warning", found, f"{start}; it replaces that daemon, and nothing is lost")


def _silent_daemon(settings: Settings, lock: Path, why: str) -> Iterator[Finding]:
    pid = next((holder.pid for holder in holders(lock)), 0)
    with contextlib.suppress(OSError):
        pid = pid or int(lock.read_text().strip() or 0)
    state = _process_state(pid)
    if state == "T":
        found, advice = f"pid {pid} is stopped", f"kill -CONT {pid}"
    elif state is None:
        found = f"{lock} is held by a process that cannot be seen from here"
        advice = "look for it outside of this container, or under another user"
    elif not _is_daemon(pid):
        found, advice = f"{lock} is held by pid {pid}, which is not a daemon", f"end it: kill {pid}"
    else:
        found = f"pid {pid} runs and does not answer: {why}"
        advice = f"see {settings.runtime_dir / 'daemon.log'}; kill {pid}, kill -9 if need be: nothing is lost"
    yield Finding("daemon", "trouble", found, advice)


def _health(status: dict[str, Any]) -> Iterator[Finding]:
    for run, counts in sorted(status["runs"].items()):
        if counts["error"]:
            found = f"{run}: {counts['error']}; {counts['pending']:,} records wait"
            yield Finding("runs", "trouble", found, "correct that; the daemon continues by itself")
        if counts.get("notice"):
            yield Finding(
                "runs", "warning", f"{run}: {counts['notice']}", 'see docs/SECURITY.md, "Log folders of several"'
            )
        if counts["dropped"]:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts["dropped"].items())
            hints = [HINTS[reason] for reason in counts["dropped"] if reason in HINTS]
            advice = "; ".join(hints) or "docs/GUARANTEES.md has advice for each reason"
            yield Finding("runs", "warning", f"{run}: dropped {reasons}", advice)
    for session in status["sessions"]:
        if not session["journal"] and session["host"] == os.uname().nodename and not session["key"]:
            found = f"pid {session['pid']} keeps its records in memory: no journal could be made where it runs"
            advice = f"run `tbxd doctor` there, and check `ulimit -f`; or set {SPOOL_VARIABLE}"
            yield Finding("sessions", "warning", found, advice)
        if session["broken"]:
            found = f"pid {session['pid']}: {session['broken']}"
            yield Finding("sessions", "trouble", found, "use one version for script and daemon; report it if they have")
    for path, why in sorted(status.get("elsewhere_journals", {}).items()):
        if why:
            yield Finding("journals", "trouble", f"{path} waits: {why}", WHAT_TO_DO)
    if status.get("refused_messages"):
        found = f"{status['refused_messages']:,} messages were refused"
        yield Finding("sessions", "warning", found, "another program, user or version of tbxd sends them")
    for where, broken in sorted(status.get("internal_errors", {}).items()):
        found = f"{broken['count']:,} internal errors in {where}, the last of {broken['whose'] or 'nobody'}"
        yield Finding("daemon", "warning", f"{found}: {broken['error']}", "please report it with the daemon's log")
    if status.get("lost_bytes_at_crash"):
        found = f"{status['lost_bytes_at_crash']:,} bytes were not on disk when the machine went down"
        yield Finding("sessions", "warning", found, "nothing can be done; what was on disk is written")


def _launch_lock(settings: Settings) -> Iterator[Finding]:
    lock = settings.runtime_dir / "launch.lock"
    if is_locked(lock):
        pid = next((holder.pid for holder in holders(lock)), 0)
        yield Finding(
            "locks",
            "warning",
            f"pid {pid or 'unknown'} starts a daemon at this moment (at most {START_SECONDS_MAX:g} s)",
            f"if it stays so, see {settings.runtime_dir / 'daemon.log'}" + (f", kill {pid}" if pid else ""),
        )
    elif trouble := lock_trouble(settings.runtime_dir):
        advice = f"set {RUNTIME_VARIABLE} to a folder on a local disk: until then no daemon runs, and records wait"
        yield Finding("locks", "trouble", trouble.partition("; set ")[0], advice)
    else:
        yield Finding("locks", "ok", "none is held unexpectedly")


def _process_state(pid: int) -> str | None:
    """Return the state letter of proc(5), or None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None


def _is_daemon(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


# --- spool -----------------------------------------------------------------------------------------------------------


def _spools(settings: Settings, environ: dict[str, str]) -> Iterator[Finding]:
    """Check the folder of the next journal, and report why it is not a preferred one."""
    passed: list[tuple[Path, str]] = []
    for spool in spools(settings.spool):
        trouble = any(finding.level == "trouble" for finding in _private("spool", spool, SPOOL_VARIABLE))
        problem = "" if trouble or not spool.exists() else _try_journal(spool)
        if not trouble and not problem:
            for folder, why in passed:
                yield _passed_over("spool", folder, SPOOL_VARIABLE, f"journals are made in {spool}", why)
            yield from _private("spool", spool, SPOOL_VARIABLE)
            yield from _spool(spool, environ)
            return
        passed.append((spool, f"{_system_of(spool)}: {problem}" if problem else ""))
    for folder, why in passed:
        yield _passed_over("spool", folder, SPOOL_VARIABLE, "no journal can be made there", why)
    found = "no journal can be made anywhere: scripts keep records in memory, and a kill loses what is not written"
    yield Finding("spool", "trouble", found, f"set {SPOOL_VARIABLE} to a folder of yours on a local disk")


def _spool(spool: Path, environ: dict[str, str]) -> Iterator[Finding]:
    if not os.access(spool, os.W_OK | os.X_OK):
        return
    kind = _system_of(spool)
    if NETWORK.match(kind):
        found = f"{spool} is on {kind}, a file system of another machine"
        yield Finding("spool's disk", "warning", found, f"set {SPOOL_VARIABLE} to a folder on a local disk")
    else:
        yield Finding("spool's disk", "ok", f"{kind}, with locks and maps")
    most = client_settings.JOURNAL_BYTES
    bytes_most = client_settings.parsed(most, environ.get(most.variable, "")) or most.default
    yield from _space("spool's space", spool, int(bytes_most), "a journal may take", SPOOL_VARIABLE)


def _try_journal(spool: Path) -> str:
    """Try with a file what a journal needs; return what does not work, or ""."""
    try:
        fd, name = tempfile.mkstemp(prefix=".doctor-", dir=spool)
    except OSError as error:
        return f"no file can be made: {error.strerror}"
    try:
        Path(name).unlink()
        step = "it cannot be locked"
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        step = "its space cannot be reserved"
        os.posix_fallocate(fd, 0, SEGMENT_BYTES_MIN)
        step = "it cannot be mapped"
        with mmap.mmap(fd, mmap.PAGESIZE) as view:
            view[0] = 1
        step = "it cannot be synced to disk"
        os.fdatasync(fd)
    except OSError as error:
        return f"{step}: {error.strerror}"
    finally:
        os.close(fd)
    return ""


def _space(what: str, folder: Path, least: int, why: str, variable: str = "") -> Iterator[Finding]:
    try:
        state = os.statvfs(folder)
    except OSError as error:
        yield Finding(what, "trouble", f"{folder}: {error.strerror}", "see that its disk answers")
        return
    free = state.f_bavail * state.f_frsize
    files_left = state.f_favail / state.f_files if state.f_files else 1.0
    found = f"{free:,} bytes are free at {folder}"
    advice = "free some" + (f", or let {variable} name a folder on another disk" if variable else "")
    if state.f_flag & os.ST_RDONLY:
        yield Finding(what, "trouble", f"{folder} is mounted read-only", "mount it for writing, or log elsewhere")
    elif not free:
        yield Finding(what, "trouble", found, advice)
    elif files_left < FREE_SHARE_LEAST:
        yield Finding(what, "warning", f"{found}, but only {state.f_favail:,} files more", advice)
    elif free < least:
        yield Finding(what, "warning", f"{found}; {why} {least:,}", advice)
    else:
        yield Finding(what, "ok", found)


def _for_other_hosts(settings: Settings) -> Iterator[Finding]:
    """Report journals of ended scripts for daemons on other hosts, which only a script or `tbxd drain` sends."""
    for spool in spools(settings.spool):
        for folder in sorted((spool / REMOTE).glob("*")):
            left = [path for path in journals(folder) if not is_locked(path / CONTROL_NAME)]
            if left:
                found = f"{len(left):,} of ended scripts wait for tcp://{folder.name}"
                yield Finding("journals", "warning", found, f"{ADDRESS_VARIABLE}=tcp://{folder.name} tbxd drain")


def _waiting(settings: Settings, running: bool) -> Iterator[Finding]:
    size = orphans = orphaned = total = 0
    unreadable: list[Path] = []
    for path in (path for spool in spools(settings.spool) for path in journals(spool)):
        try:
            state = read_state(path)
        except JournalError:
            if path.exists():
                unreadable.append(path)
            continue
        waiting = state.readable_end - state.released
        total += 1
        size += waiting
        if not is_locked(path / CONTROL_NAME):
            orphans += 1
            orphaned += waiting
    found = f"{size:,} bytes wait in {total:,} journals, {orphaned:,} of them in {orphans:,} of ended scripts"
    if orphans and not running:
        yield Finding("journals", "warning", found, "tbxd drain")
    else:
        yield Finding("journals", "ok", found + (": the daemon writes them" if orphans else ""))
    for path in unreadable:
        advice = "it may be of a newer tbxd; the daemon's log has more"
        yield Finding("journals", "trouble", f"{path} cannot be read", advice)
    yield from _for_other_hosts(settings)
    for quarantine in (spool / QUARANTINE for spool in spools(settings.spool)):
        put_aside = sum(1 for _ in quarantine.glob("*"))
        if put_aside:
            advice = "the daemon's log says why; report them, or remove them when they are not needed"
            yield Finding("journals", "warning", f"{put_aside:,} were put aside in {quarantine}", advice)


def _shared_memory(settings: Settings) -> Iterator[Finding]:
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not used
    if not any(folder.is_relative_to(shared) for folder in (settings.spool, settings.runtime_dir)):
        return
    state = os.statvfs(shared)
    size = state.f_blocks * state.f_frsize
    found = f"{size:,} bytes in all; a logout or a reboot may empty it"
    least = int(client_settings.JOURNAL_BYTES.default)
    if size < least:
        found += f", and a journal may take {least:,}"
    advice = f"leave {SPOOL_VARIABLE} and {RUNTIME_VARIABLE} unset: the default is on a disk"
    yield Finding("shared memory", "warning", f"{shared}: {found}", advice)


# --- log folders -----------------------------------------------------------------------------------------------------


def _log_folder(folder: Path, given: bool) -> Iterator[Finding]:
    what = "log folder"
    if not folder.exists():
        above = next((parent for parent in folder.absolute().parents if parent.exists()), Path("/"))
        missing = f"{folder} is a link to {folder.readlink()}, which" if folder.is_symlink() else f"{folder}"
        if not os.access(above, os.W_OK | os.X_OK):
            found = f"{missing} does not exist, and you may not write {above}"
            yield Finding(what, "trouble", found, "log elsewhere, or make it and let this user write it")
        elif given:
            near = difflib.get_close_matches(folder.name, _names_beside(folder), 3)
            advice = f"is {' or '.join(near)} meant?" if near else "check the spelling and the host."
            yield Finding(what, "trouble", f"{missing} does not exist", f"{advice} The first writer makes it")
        else:
            yield Finding(what, "ok", f"{missing} is not there yet; it can be made")
        return
    if not folder.is_dir():
        yield Finding(what, "trouble", f"{folder} is not a folder", "log elsewhere")
        return
    kind = _system_of(folder)
    if not os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield Finding(what, "trouble", f"{folder} may not be written by you", "log elsewhere, or change its mode")
    elif NETWORK.match(kind):
        found = f"{folder} is on {kind}: daemons of two hosts may not know of each other"
        yield Finding(what, "warning", found, "write a run's folder from one host only")
    else:
        yield Finding(what, "ok", f"{folder}, {kind}")
    yield from _space("its space", folder, FREE_BYTES_LEAST, "fewer than")
    if given:
        yield from _future(folder)


def _names_beside(folder: Path) -> list[str]:
    """Return the names beside a missing folder."""
    try:
        return sorted(entry.name for entry in folder.absolute().parent.iterdir())
    except OSError:
        return []


def _future(folder: Path) -> Iterator[Finding]:
    """Report event files from the future, made by a wrong clock: later files have to sort after them."""
    now, seen, ahead = time.time(), 0, []
    for place, names in event_folders(folder):
        for name in names:
            seen += 1
            latest = float(second_of(name) or 0)
            with contextlib.suppress(OSError):
                latest = max(latest, (place / name).stat().st_mtime)
            if latest > now + FUTURE_SECONDS:
                ahead.append((latest - now, place / name))
        if seen > FILES_MAX:
            break
    if ahead:
        seconds, path = max(ahead)
        found = f"{len(ahead):,} event files are from the future, {path} by {seconds:,.0f} s"
        advice = "set the clock; a copy with another name or time does no harm"
        yield Finding("its files' clock", "warning", found, advice)
    else:
        yield Finding("its files' clock", "ok", f"none of {seen:,} event files is from the future")


def _system_of(path: Path) -> str:
    """Return the type of file system that a path is on, or would be."""
    for there in (path, *Path(os.path.realpath(path)).parents):
        with contextlib.suppress(OSError):
            fd = os.open(there, os.O_PATH | os.O_CLOEXEC)
            try:
                return mount_of(fd)[0] or UNKNOWN_SYSTEM
            finally:
                os.close(fd)
    return UNKNOWN_SYSTEM


def _log(path: Path) -> Iterator[Finding]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        yield Finding("daemon's log", "ok", f"{path} is not there")
        return
    except OSError as error:
        yield Finding("daemon's log", "warning", f"{path}: {error.strerror}", "see that you may read it")
        return
    bad = [line for line in lines if _BAD_LINE.match(line)]
    if bad:
        found = f"the last of {len(bad):,} warnings in {path}:\n    " + "\n    ".join(bad[-LOG_LINES:])
        yield Finding("daemon's log", "warning", found, "correct what they report, then remove the log")
    else:
        yield Finding("daemon's log", "ok", f"no warnings in {path}")
