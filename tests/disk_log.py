"""What programs have stored and synced, as strace tells it, and the disks that there may be after a power cut.

Nothing here loses power: a real process runs under strace, which notes each call that changes a file, a name or what
the disk has for certain. For each moment the disks that there may be then are built. POSIX promises this much and no
more, so nothing else is taken for certain: bytes that were written before an fsync of their file began, once that has
come back; and names that were made, moved or removed before an fsync of their folder began. Of the rest any part may be
there: a file may be longer than what of it has come, with zeros for the rest, and a name may be there before its file's
bytes. A log of the device itself (dm-log-writes) would show what one file system makes of one run; this shows whatever
any may make of it.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgpack

CALLS = "openat,mkdirat,mkdir,write,pwrite64,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,rmdir"
SENT = "sendto,sendmsg"
STRING_BYTES = 16 << 20
ACK = b"\xa3ack\xc4\x0c"
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)$", re.S)
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FD = re.compile(r"(AT_FDCWD|\d+)<([^>]*)>")


def command(log: Path) -> list[str]:
    """Return the command that runs another one and records its calls in ``log``."""
    calls = f"trace={CALLS},{SENT}"
    return ["strace", "-f", "-y", "-x", "-s", str(STRING_BYTES), "-e", calls, "-e", "signal=none", "-o", str(log)]


@dataclass(slots=True)
class Write:
    """Bytes of a file that are written between two moments."""

    node: int
    offset: int
    data: bytes
    begun: int
    done: int


@dataclass(slots=True)
class Names:
    """Names that change together: folder and name to the file, or None where it is gone."""

    changes: dict[tuple[int, str], int | None]
    begun: int
    done: int

    @property
    def folders(self) -> set[int]:
        """The folders that they are in."""
        return {folder for folder, _ in self.changes}


@dataclass(slots=True)
class Sync:
    """A file or folder that is brought onto the disk between two moments."""

    node: int
    begun: int
    done: int


@dataclass(slots=True)
class DiskLog:
    """All that has happened below a folder. Files and folders are numbered; 0 is that folder itself."""

    root: Path
    writes: list[Write] = field(default_factory=list)
    names: list[Names] = field(default_factory=list)
    syncs: list[Sync] = field(default_factory=list)
    acks: list[tuple[int, bytes, int]] = field(default_factory=list)  # moment, session, position
    moments: list[int] = field(default_factory=list)  # at which something was done
    folders: set[int] = field(default_factory=lambda: {0})
    _live: dict[tuple[int, str], int] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _count: int = 0
    _now: int = 0

    # --- reading ---------------------------------------------------------------------------------------------

    def read(self, log: Path) -> None:
        """Take what strace has noted; of several processes one after the other."""
        begun: dict[str, tuple[int, str]] = {}
        with log.open(errors="surrogateescape") as lines:
            for line in lines:
                self._now += 1
                match = _LINE.match(line.rstrip("\n"))
                assert match is not None, line[:200]
                thread, resumed, text = match.groups()
                first = self._now
                if resumed:
                    first, head = begun.pop(thread, (first, ""))
                    text = head + text
                elif text.endswith("<unfinished ...>"):
                    begun[thread] = first, text.removesuffix("<unfinished ...>").rstrip()
                    continue
                self._take(text, first)
        for first, text in begun.values():
            self._take(text + ") = ?", first)

    def _take(self, text: str, begun: int) -> None:
        call, _, rest = text.partition("(")
        result = re.search(r"\) += (-?\d+|\?)", rest)
        if result is None or result[1].startswith("-"):
            return
        torn = result[1] == "?"  # a kill came before it was over: it may have been done, or not
        if torn and call in ("fdatasync", "fsync", *SENT.split(",")):
            return
        if call in SENT.split(","):
            self._acknowledged(rest)
            return
        place = _FD.match(rest)
        texts = [ast.literal_eval(f'b"{found}"') for found in _TEXT.findall(rest)]
        before = len(self.writes) + len(self.names) + len(self.syncs)
        if call in ("write", "pwrite64"):
            node = self._node(place[2]) if place is not None else None
            if node is not None:
                offset = self._sizes.get(node, 0)
                if call == "pwrite64":
                    offset = int(rest[: result.start()].rpartition(", ")[2])
                data = texts[0] if torn else texts[0][: int(result[1])]
                if torn and place is not None:  # the file tells; it has not grown since, as nobody goes on in it
                    data = data[: max(0, Path(place[2]).stat().st_size - offset)]
                if not data:
                    return
                self.writes.append(Write(node, offset, data, begun, self._now))
                self._sizes[node] = max(self._sizes.get(node, 0), offset + len(data))
        elif call in ("fdatasync", "fsync"):
            node = self._node(place[2]) if place is not None else None
            if node is not None:
                self.syncs.append(Sync(node, begun, self._now))
        elif call in ("mkdir", "mkdirat") or (call == "openat" and "O_CREAT" in rest):
            self._make(self._path(rest, texts, 0), begun, call != "openat")
        elif call in ("rename", "renameat", "renameat2"):
            self._move(self._path(rest, texts, 0), self._path(rest, texts, 1), begun)
        elif call in ("unlink", "unlinkat", "rmdir"):
            self._move(self._path(rest, texts, 0), None, begun)
        if len(self.writes) + len(self.names) + len(self.syncs) > before:
            self.moments.append(self._now)

    def _acknowledged(self, rest: str) -> None:
        data = b"".join(ast.literal_eval(f'b"{found}"') for found in _TEXT.findall(rest))
        for part in data.split(ACK)[1:]:
            unpacker = msgpack.Unpacker()
            unpacker.feed(part[12:])
            self.acks.append((self._now, part[:12], int(unpacker.unpack())))

    @staticmethod
    def _path(rest: str, texts: list[bytes], which: int) -> PurePosixPath:
        above = [found[2] for found in _FD.finditer(rest) if found[0] in rest.partition(") = ")[0]]
        base = above[min(which, len(above) - 1)] if above else "/"
        return PurePosixPath(base) / texts[which].decode(errors="surrogateescape")

    def _parent(self, path: PurePosixPath) -> int | None:
        return self._node(str(path.parent))

    def _node(self, path: str) -> int | None:
        """The file or folder under a path; None for what is not below the root."""
        try:
            parts = PurePosixPath(path.removesuffix(" (deleted)")).relative_to(self.root).parts
        except ValueError:
            return None
        node: int | None = 0
        for part in parts:
            node = self._live.get((node, part)) if node is not None else None
        return node

    def _change(self, changes: dict[tuple[int, str], int | None], begun: int) -> None:
        self.names.append(Names(changes, begun, self._now))
        for key, node in changes.items():
            if node is None:
                self._live.pop(key, None)
            else:
                self._live[key] = node

    def _make(self, path: PurePosixPath, begun: int, folder: bool) -> None:
        parent = self._parent(path)
        if parent is None or (parent, path.name) in self._live:
            return
        self._count += 1
        if folder:
            self.folders.add(self._count)
        self._change({(parent, path.name): self._count}, begun)

    def _move(self, old: PurePosixPath, new: PurePosixPath | None, begun: int) -> None:
        parent = self._parent(old)
        node = self._live.get((parent, old.name)) if parent is not None else None
        if parent is None or node is None:
            return
        changes: dict[tuple[int, str], int | None] = {(parent, old.name): None}
        if new is not None and (above := self._parent(new)) is not None:
            changes[above, new.name] = node
        self._change(changes, begun)

    # --- disks -----------------------------------------------------------------------------------------------

    def acknowledged(self, moment: int, session: bytes) -> int:
        """Up to where a session was acknowledged by then."""
        return max((end for when, whose, end in self.acks if when <= moment and whose == session), default=0)

    def disks(self, moment: int, rng: random.Random, several: int) -> Iterator[Disk]:
        """Disks that there may be after a power cut at a moment: only what is certain, all of it, and parts."""
        for nth in range(several):
            yield self._disk(moment, rng, (0.0, 1.0)[nth] if nth < 2 else rng.random())

    def _disk(self, moment: int, rng: random.Random, share: float) -> Disk:
        synced: dict[int, list[Sync]] = {}
        for sync in self.syncs:
            if sync.done <= moment:
                synced.setdefault(sync.node, []).append(sync)

        def certain(done: int, nodes: set[int]) -> bool:
            return any(sync.begun >= done for node in nodes for sync in synced.get(node, ()))

        disk = Disk({}, {}, self.folders)
        for names in self.names:
            if names.begun <= moment and (certain(names.done, names.folders) or rng.random() < share):
                disk.names.update(names.changes)
        for write in self.writes:
            if write.begun > moment:
                continue
            content = disk.files.setdefault(write.node, bytearray())
            data = write.data
            if not certain(write.done, {write.node}):
                if rng.random() >= share:
                    if rng.random() >= share / 2:
                        continue
                    data = bytes(len(data))  # the file has grown, and its bytes have not come
                elif share < 1.0 and rng.random() < 0.3:
                    data = data[: rng.randrange(len(data) + 1)]
            content.extend(bytes(max(0, write.offset + len(data) - len(content))))
            if any(data):
                content[write.offset : write.offset + len(data)] = data
        return disk


@dataclass(slots=True)
class Disk:
    """A possible disk after a power cut."""

    names: dict[tuple[int, str], int | None]
    files: dict[int, bytearray]
    _folders: set[int]

    def build(self, root: Path) -> None:
        """Make it below a folder, in which nothing is."""
        self._build(root, 0)

    def _build(self, folder: Path, number: int) -> None:
        for (above, name), node in self.names.items():
            if above != number or node is None:
                continue
            path = folder / name
            if node in self._folders:
                path.mkdir()
                self._build(path, node)
            else:
                path.write_bytes(self.files.get(node, b""))
                path.chmod(0o600)
