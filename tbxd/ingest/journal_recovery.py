"""Adoption: what dead trainers have left in their journals is fed to the hub as if they had sent it.

A journal's lock tells whether its trainer lives. One that is free is taken, read with ``pread`` from where the daemon
has got to, and deleted when everything in it is in the event files. One that makes no sense is put aside, for a
person to look at.

The system tells when the file that carries the lock is closed (`inotify`), which is when its owner ends. What it does
not tell (it takes no more watches, the file system is another host's) is found by a look at all of them now and then.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tbxd_client.config.paths import near
from tbxd_client.journal.journal_files import (
    CONTROL_NAME,
    NO_BOOT,
    JournalBusy,
    JournalError,
    JournalReader,
    boot_id,
    is_session_name,
    journals,
    remove_journal,
    session_name,
    unfinished,
)
from tbxd_client.protocol.records import SESSION_BYTES, RemoteProtocolError
from tbxd_client.protocol.wire import DATA_BYTES_MAX
from tbxd_client.transport.launcher import is_locked

from ..process.fd_budget import LEFT_BY_ADOPTION, scarce
from ..process.inotify import CLOSE_WRITE, IGNORED, MOVED_TO, ONLYDIR, Q_OVERFLOW, Inotify
from ..process.walls import text_of
from .client import Client, Wanting
from .hub import Hub
from .quotas import OverQuota
from .recovery_order import began, comes_before, last_stored
from .session import Session

log = logging.getLogger(__name__)

SCAN_SECONDS = 2.0  # between looks at all journals,
# Where there are more than so many whose owners live, and the system tells when these end, each of them is looked at
# in one of so many of these: a look takes a daemon's main thread 40 us.
ROUND_LEAST, ROUNDS = 50, 5
BLIND_SECONDS, BLIND_SHARE = 0.2, 50  # and so where the system tells nothing; a look may take one part in so many
CLOSED_SECONDS = (0.001, 0.01, 0.1)  # after a lock's file was closed, which is told before the lock is free
UNFINISHED_SECONDS = 5.0  # a journal is made or removed in milliseconds; one that is at it for so long was killed
QUARANTINE = "quarantine"
QUARANTINED_MAX = 1000
TRIES_MAX = 3  # for a journal with which something went wrong here, before it is put aside
TRY_SECONDS = 10.0  # between two of them
# For one that its disk does not give at the moment: as many, with pauses that double up to the longest, five minutes in
# all. It may be back then: a server that is started anew, a cable.
DISK_TRIES_MAX, DISK_SECONDS_MIN, DISK_SECONDS_MAX = 12, 0.5, 60.0
# What a disk says that may be over soon, of a file that is there.
PASSING = frozenset(
    (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ENOBUFS, errno.EHOSTDOWN)
)
OLDER_SECONDS = 60.0  # that a process waits for what an earlier one has left to be read,
CLOSING_SECONDS = 0.2  # and for the journals to be looked at that were closed just before it came
ELSEWHERE_SECONDS = 60.0  # before a journal is looked at again whose runs were not seen here
WHAT_TO_DO = (
    "A script that logs in that container or namespace has it written, and so does `tbxd drain` there; where it is "
    "gone, nobody can write it"
)


class Elsewhere(Exception):
    """A journal whose runs this daemon does not see."""


class Adopter:
    """Finds journals without an owner in the spools and drains them through the hub.

    Args:
        of_view: take only those of trainers that see these files (`view.view`); "" for all whose folders are seen here.
    """

    def __init__(self, hub: Hub, spools: Sequence[Path], of_view: str = "") -> None:
        self.quarantined = 0
        self.lost_bytes = 0  # records that were not on disk yet when the machine went down
        self._hub = hub
        hub.gated = True
        self._closing: set[Path] = set()  # journals whose lock's file was closed, and which are to be looked at again
        self._waited: dict[bytes, float] = {}  # sessions that wait for others, and since when
        # Sessions that are drained: those that do not wait, and of how many runs the folders have been compared.
        self._begun: set[bytes] = set()
        self._compared: dict[bytes, int] = {}
        self._spools = near(list(spools))
        # Others may be on a network disk that hangs: they are listed on a thread, one look at a time.
        self._far = [spool for spool in spools if spool not in self._spools]
        self._far_looks = hub.scheduler.strand(partial(hub.walls.broke, "the look at a home folder"))
        self._far_looking = False
        self._far_found: tuple[list[Path], list[Path]] = ([], [])  # journals and unfinished ones; replaced as a whole
        self._drains: dict[Path, tuple[JournalReader, Client]] = {}
        self._bad: set[Path] = set()
        self._later: dict[Path, tuple[int, float]] = {}  # those that broke: how often, and when they are tried again
        self._unreleased: set[Path] = set()  # where it cannot be noted how much is written, which was told
        self.elsewhere: dict[Path, tuple[str, float]] = {}  # why they are left to another daemon, and until when
        self._of_view = of_view
        self._unfinished: dict[Path, float] = {}  # and when it was first seen
        self._last_scan = -SCAN_SECONDS
        self._inotify = Inotify()
        self._spool_watches: dict[int, Path] = {}
        self._watches: dict[int, Path] = {}  # to the journals whose locks they tell of
        self._watched: dict[Path, int] = {}
        self._owned: set[Path] = set()  # those that had an owner when they were looked at last
        self._round = 0
        self._blind = True  # not all journals are watched
        self._took = 0.0  # the last look at all of them
        self._closed: list[tuple[float, Path, int]] = []  # when to look at which once more, and how often that was done

    @property
    def fd(self) -> int:
        """Readable when `step` has something to do; -1 for none."""
        return self._inotify.fd

    @property
    def busy(self) -> bool:
        """Whether a journal is being drained."""
        return bool(self._drains)

    @property
    def draining(self) -> int:
        """How many journals are being drained."""
        return len(self._drains)

    def step(self, now: float) -> float:
        """Look for journals when it is time, and read on in those that are open; returns when to come again."""
        walls = self._hub.walls
        with walls.around("the news of journals"):
            self._hear(now)
        asked = [wanting for wanting in self._hub.wanting.values() if not wanting.looked]
        for wanting in asked:
            wanting.looked = True
        if now >= self._next_scan or (self._blind and (asked or self._has_news(now))):
            self._last_scan = now
            with walls.around("the look for journals"):
                self._scan(now)
            self._took = time.monotonic() - now
            with walls.around("the look for unfinished journals"):
                self._clean_up(now)
            with walls.around("the look for sessions that are gone"):
                self._hub.reap(now)
        for path, (reader, client) in list(self._drains.items()):
            if client.session.id not in self._compared:
                self._compared[client.session.id] = len(client.session.runs)
                with walls.around("the definitions of a journal", str(path)):
                    self._step(path, now, reader, client, first=True)
        for path, (reader, client) in sorted(self._drains.items(), key=_beginning):
            try:
                self._step(path, now, reader, client)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                walls.broke("the adoption of a journal", error, str(path))
                self._try_later(path, now + TRY_SECONDS, TRIES_MAX, f"internal error: {text_of(error)}")
        with walls.around("the admission of sessions"):
            self._admit(now)
        with walls.around("the answers about journals"):
            self._answer()
        return min(self._next_scan, min((due for due, _, _ in self._closed), default=self._next_scan))

    def _has_news(self, now: float) -> bool:
        """Whether somebody has come since the last look at all journals."""
        return any(self._waited.get(session, now) >= self._last_scan for session in self._hub.newcomers)

    def _admit(self, now: float) -> None:
        """Let those log that have just come, when all has come that others have left in journals for the same runs."""
        for session, client in list(self._hub.newcomers.items()):
            if not any(run is not None for run in client.session.runs):
                continue
            since = self._waited.setdefault(session, now)
            closing = bool(self._closing - {Path(client.journal)}) and now - since < CLOSING_SECONDS
            if not closing and not self._waits(client, began(client), now):
                self._hub.admit(client)
        self._waited = {
            session: since
            for session, since in self._waited.items()
            if session in self._hub.newcomers or session in self._compared
        }

    def _waits(self, client: Client, mine: float, now: float) -> bool:
        """Whether what an earlier process has left for the same runs has not all been read."""
        since = self._waited.setdefault(client.session.id, now)
        return now - since < OLDER_SECONDS and any(
            comes_before(other, client, began(other, reader.state), mine)
            for reader, other in self._drains.values()
            if other is not client and (not other.complete or other.held) and not other.broken
        )

    def _step(self, path: Path, now: float, reader: JournalReader, client: Client, first: bool = False) -> None:
        """Read on in a journal; at ``first`` what it is of, before any is read on in."""
        try:
            if first:
                self._define(reader, client)
                self._hub.presence.note_end(client, last_stored(client, reader))
            elif self._pump(path, reader, client):
                self._finish(path, reader, client)
        except Elsewhere as error:
            self._leave(path, reader, client, str(error))
        except OverQuota as error:  # it comes again until there is room
            self._let_wait(path, reader, client, str(error))
        except OSError as error:
            self._try_later(path, now + self._pause(path), DISK_TRIES_MAX, f"it cannot be read: {error}")
        except (JournalError, RemoteProtocolError) as error:
            self._put_aside(path, reader, client, str(error))

    def _pause(self, path: Path) -> float:
        """Seconds until a disk is asked again."""
        return float(min(DISK_SECONDS_MIN * 2 ** self._later.get(path, (0, 0.0))[0], DISK_SECONDS_MAX))

    def _try_later(self, path: Path, when: float, most: int, why: str) -> None:
        """Let go of a journal with which something went wrong here; it is adopted anew, or put aside at last.

        Args:
            when: it is tried again.
            most: so often.
            why: for people.
        """
        drain = self._drains.pop(path, None)
        if drain is None:
            return
        reader, client = drain
        self._let_go(client)
        tries, _ = self._later.get(path, (0, 0.0))
        self._later[path] = (tries + 1, when)
        if tries + 1 < most:
            if not tries:
                log.warning("%s is tried again: %s", path, why)
            client.broken, client.again = why, time.monotonic()  # forgotten when nothing of it is under way
            with self._hub.walls.around("the end of an adoption", str(path)):
                reader.close()
        else:
            with self._hub.walls.around("the end of an adoption", str(path)):
                self._put_aside(path, reader, client, why)

    def _let_wait(self, path: Path, reader: JournalReader, client: Client, why: str) -> None:
        """Let go of a journal for which there is no room now; it is adopted anew."""
        log.warning("%s waits: %s", path, why)
        now = time.monotonic()
        del self._drains[path]
        self._later[path] = (self._later.get(path, (0, 0.0))[0], now + TRY_SECONDS)
        client.broken, client.again = why, now  # forgotten when nothing of it is under way
        reader.close()

    @property
    def _next_scan(self) -> float:
        pause = SCAN_SECONDS
        if self._blind and self._hub.clients:
            pause = min(SCAN_SECONDS, BLIND_SECONDS + BLIND_SHARE * self._took)
        return self._last_scan + pause

    def _hear(self, now: float) -> None:
        """Look at the journals of which the system has told something."""
        looks = []
        for happened in self._inotify.read():
            path = self._watches.get(happened.watch)
            if happened.mask & Q_OVERFLOW:  # what it has told of whom is lost
                self._last_scan = now - SCAN_SECONDS
                self._owned.clear()
            elif (spool := self._spool_watches.get(happened.watch)) is not None:
                if happened.mask & IGNORED:
                    del self._spool_watches[happened.watch]
                elif is_session_name(happened.name):
                    looks.append((spool / happened.name, 0))
            elif path is not None and happened.mask & IGNORED:
                del self._watches[happened.watch]
                self._watched.pop(path, None)
            elif path is not None:
                looks.append((path, 0))
                self._closing.add(path)
        waiting = []
        for due, path, tries in self._closed:
            if due <= now:
                looks.append((path, tries))
            else:
                waiting.append((due, path, tries))
        self._closed = waiting
        for path, tries in dict(looks).items():
            self._look_again(path, tries, now)

    def _look_again(self, path: Path, tries: int, now: float) -> None:
        """Look at a journal, and at one that has an owner once more a little later, up to three times."""
        self._watch(path)
        if not self._look(path, now) and tries < len(CLOSED_SECONDS) and path in self._watched:
            self._closed.append((now + CLOSED_SECONDS[tries], path, tries + 1))
        else:
            self._closing.discard(path)

    def _watch(self, path: Path) -> bool:
        """Have the system tell when the owner of a journal ends. False when it cannot."""
        if path not in self._watched:
            watch = self._inotify.watch(path / CONTROL_NAME, CLOSE_WRITE)
            if watch < 0:
                return False
            self._watched[path] = watch
            self._watches[watch] = path
        return True

    def _scan(self, now: float) -> None:
        self._ask_far()
        blind = self._watch_spools()  # before the look, so that nothing comes in between
        self.elsewhere = {path: left for path, left in self.elsewhere.items() if os.path.exists(path)}  # noqa: PTH110 - also where its disk has failed
        there = self._journals()
        names = {path.name for path in there}
        elsewhere = {
            client.journal for client in self._hub.clients.values() if client.journal[-2 * SESSION_BYTES :] not in names
        }
        there += [path for path in map(Path, elsewhere) if _is_journal(path)]
        quiet = self._owned if len(self._owned) > ROUND_LEAST else set()
        self._owned = {path for path in there if path in self._owned}  # and not those that are gone
        self._round = (self._round + 1) % ROUNDS
        for path in there:
            told = path in self._watched
            blind |= not self._watch(path)
            if told and path in quiet and path.parent in self._spools and hash(path.name) % ROUNDS != self._round:
                continue  # the system tells when its owner ends
            if not self._look(path, now) and path not in self._owned and scarce(LEFT_BY_ADOPTION):
                break  # the others with a later scan
        self._blind = blind

    def _look(self, path: Path, now: float) -> bool:
        """Take a journal if it has no owner. False when it has one, or nobody knows."""
        self._owned.discard(path)
        if path in self._drains or path in self._bad or self.elsewhere.get(path, ("", 0.0))[1] > now:
            return True
        if self._later.get(path, (0, 0.0))[1] > now:
            return False
        if is_locked(path / CONTROL_NAME):
            self._owned.add(path)
            return False
        if scarce(LEFT_BY_ADOPTION):
            return False
        with self._hub.walls.around("the adoption of a journal", str(path)):
            return self._take(path, now)
        return False

    def _let_go(self, client: Client) -> None:
        """A journal is not drained any more."""
        self._begun.discard(client.session.id)
        self._compared.pop(client.session.id, None)

    def _define(self, reader: JournalReader, client: Client) -> None:
        """Take the definitions of a journal that are not known yet."""
        session = client.session
        while stretch := reader.definitions(session.definitions_expected, DATA_BYTES_MAX):
            session.feed_definitions(session.definitions_expected, stretch)

    def _take(self, path: Path, now: float) -> bool:
        """Adopt a journal, if nobody has it. False where it may be had later."""
        try:
            reader = JournalReader(path)
        except JournalBusy:
            return False
        except JournalError as error:
            if self._may_be_had(path, error, now):
                return False
            if os.path.exists(path):  # noqa: PTH110 - else its trainer has just finished with it
                log.warning("cannot adopt: %s", error)
                self._bad.add(path)
            return True
        if session_name(reader.state.session) != path.name:
            log.warning("cannot adopt %s: it says that it is session %s", path, reader.state.session.hex())
            self._bad.add(path)
            reader.close()
            return True
        known = self._hub.clients.get(reader.state.session)
        if known is not None and known.again and not self._hub.forgiven(known, now):
            reader.close()  # its session broke here, and begins anew when nothing of it is under way
            return False
        try:
            self._drains[path] = (reader, self._adopt(path, reader))
        except BaseException:
            reader.close()
            raise
        return True

    def _may_be_had(self, path: Path, error: JournalError, now: float) -> bool:
        """Whether a journal that could not be opened is to be looked at again."""
        cause = getattr(error.__cause__, "errno", None)
        if cause in (errno.EMFILE, errno.ENFILE):
            return True  # with the next scan
        tries, _ = self._later.get(path, (0, 0.0))
        if cause not in PASSING or tries + 1 >= DISK_TRIES_MAX:
            return False
        if not tries:
            log.warning("it is tried again: %s", error)
        self._later[path] = (tries + 1, now + self._pause(path))
        return True

    def _answer(self) -> None:
        """Answer the clients that wait for what ended processes have left, where nothing of it is missing any more."""
        for wanting in list(self._hub.wanting.values()):
            if wanting.ready and not any(self._missing(wanting, *drain) for drain in self._drains.values()):
                self._hub.satisfy(wanting)

    def _missing(self, wanting: Wanting, reader: JournalReader, client: Client) -> bool:
        """Whether a journal that is being drained holds something for the runs of a client, and it is not written."""
        if client.session.held >= reader.state.readable_end or client is wanting.client:
            return False
        folders = [run.directory for run in wanting.client.session.runs if run is not None]
        below = tuple(folder + "/" for folder in folders)
        if any(
            run is not None and (run.directory in folders or run.directory.startswith(below))
            for run in client.session.runs
        ):
            self._hub.flush(client)
            return True
        return False

    def _watch_spools(self) -> bool:
        """Have the system tell of new journals. True where it cannot of a spool that is there."""
        blind = self._inotify.fd < 0
        watched = set(self._spool_watches.values())
        for spool in self._spools:
            if spool in watched or not _is_folder(spool):
                continue
            watch = self._inotify.watch(spool, MOVED_TO | ONLYDIR)
            if watch >= 0:
                self._spool_watches[watch] = spool
            else:
                blind = True
        return blind

    def _journals(self) -> list[Path]:
        return [*(path for spool in self._spools for path in journals(spool)), *self._far_found[0]]

    def _ask_far(self) -> None:
        if self._far and not self._far_looking:
            self._far_looking = True
            self._far_looks.submit(self._look_far)

    def _look_far(self) -> None:  # on a thread of the pool
        try:
            found = [path for spool in self._far for path in journals(spool)]
            self._far_found = found, [path for spool in self._far for path in unfinished(spool)]
        finally:
            self._far_looking = False

    def _clean_up(self, now: float) -> None:
        """Delete what a kill has left of a journal that was being made, and so held nothing yet, or being removed."""
        found = [*(path for spool in self._spools for path in unfinished(spool)), *self._far_found[1]]
        self._unfinished = {path: self._unfinished.get(path, now) for path in found}
        for path, seen in self._unfinished.items():
            if now - seen > UNFINISHED_SECONDS and not is_locked(path / CONTROL_NAME):
                remove_journal(path)

    def _adopt(self, path: Path, reader: JournalReader) -> Client:
        state = reader.state
        client = self._hub.clients.get(state.session)
        if client is None:
            session = Session(state.session, state.released)
            client = Client(session, None, state.pid, "", str(path), "", time.monotonic())
            self._hub.adopt(client)
        else:
            self._hub.presence.note_end(client)
        if state.session in self._hub.ended:  # a copy: ledgers need not know any more how far it was
            client.broken = "its session is over: all of it is in the event files"
        client.peer = None
        client.local = state.boot in (boot_id(), NO_BOOT)
        lost = state.commit - state.readable_end
        if lost:
            self.lost_bytes += lost
            log.warning("%s: the last %d bytes were not on disk when the machine went down", path, lost)
        if state.dropped:
            log.warning("%s: its trainer had to drop records: %s", path, state.dropped)
        log.info("adopting %s of pid %d: %d bytes", path, state.pid, state.readable_end - client.session.expected)
        return client

    def _pump(self, path: Path, reader: JournalReader, client: Client) -> bool:
        """Read on as far as the session's limit goes. True when all of it is written."""
        session = client.session
        if client.broken:
            raise RemoteProtocolError(client.broken)
        known = self._compared.get(session.id, 0)
        self._define(reader, client)
        self._compared[session.id] = len(session.runs)
        if self._of_view and {run.view for run in session.runs if run is not None} != {self._of_view}:
            raise Elsewhere("")
        self._hub.see_folders(client, known)
        if client.elsewhere:
            raise Elsewhere(client.elsewhere)
        if client.undecided:
            return False
        self._release(path, reader, session.written)  # if this daemon is killed, the next one begins here
        end = reader.state.readable_end
        if session.id not in self._begun:
            if session.expected < end and self._waits(client, began(client, reader.state), time.monotonic()):
                return False
            self._begun.add(session.id)
        while session.expected < min(end, self._hub.acks.limit(client)):
            stretch = reader.read(session.expected, min(DATA_BYTES_MAX, end - session.expected))
            self._hub.feed(client, session.expected, stretch)
        if session.expected >= end and not client.complete:
            self._hub.complete(client)
            self._hub.flush(client)
        if session.expected < end or session.written < end or session.outstanding:
            return False
        return self._hub.drops.tell_rest(client, reader.state.dropped)

    def _finish(self, path: Path, reader: JournalReader, client: Client) -> None:
        log.info("%s: all %d bytes are written", path, client.session.written)
        del self._drains[path]
        self._let_go(client)
        self._unreleased.discard(path)
        self._later.pop(path, None)
        self._hub.forget(client)
        reader.remove()
        if os.path.exists(path):  # noqa: PTH110
            log.warning("%s: all of it is written, and it cannot be deleted", path)
            self._bad.add(path)
        self._hub.presence.leave(client)

    def _release(self, path: Path, reader: JournalReader, position: int) -> None:
        """Note in a journal how much of it is written. Where its disk does not take that, the ledger knows it, too."""
        try:
            reader.release(position)
        except OSError as error:
            if path not in self._unreleased:
                self._unreleased.add(path)
                log.warning("%s: it cannot be noted how much of it is written: %s", path, error.strerror or error)

    def _leave(self, path: Path, reader: JournalReader, client: Client, why: str) -> None:
        """Leave a journal to a daemon that sees the folders of its runs. It stays where it is."""
        self._drains.pop(path, None)
        self._let_go(client)
        self._later.pop(path, None)
        self._hub.forget(client)
        self._release(path, reader, client.session.written)
        reader.close()
        if why and path not in self.elsewhere:
            log.warning("%s stays where it is: %s. %s", path, why, WHAT_TO_DO)
        self.elsewhere[path] = (why, time.monotonic() + ELSEWHERE_SECONDS)

    def _put_aside(self, path: Path, reader: JournalReader, client: Client, why: str) -> None:
        log.warning("%s is put aside: %s", path, why)
        self._drains.pop(path, None)
        self._let_go(client)
        self._later.pop(path, None)
        self._hub.forget(client)
        self._release(path, reader, client.session.written)
        reader.close()
        self.quarantined += 1
        self._bad.add(path)
        try:
            folder = path.parent / QUARANTINE
            folder.mkdir(mode=0o700, exist_ok=True)
            if sum(1 for _ in folder.iterdir()) < QUARANTINED_MAX:
                path.rename(folder / path.name)
        except OSError as error:
            log.warning("%s stays where it is: %s", path, error)

    def close(self) -> None:
        """Let go of what is not drained; the next daemon goes on."""
        for path, (reader, client) in self._drains.items():
            with self._hub.walls.around("the end of an adoption", str(path)):
                self._release(path, reader, client.session.written)
                reader.close()
        self._drains.clear()
        self._inotify.close()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its disk has failed
        return False


def _beginning(drain: tuple[Path, tuple[JournalReader, Client]]) -> float:
    reader, client = drain[1]
    return began(client, reader.state)


def _is_journal(path: Path) -> bool:
    try:
        return path.is_absolute() and is_session_name(path.name) and path.is_dir() and not path.is_symlink()
    except (OSError, ValueError):  # too long, not for us to look at; a NUL in it
        return False
