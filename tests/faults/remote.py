"""A file system with a server and several hosts, as NFS has them: a folder that is mounted by FUSE, once for each host.

``python remote.py FOLDER MOUNT... [--locks server|local|none] [--cache SECONDS]`` serves until it is killed. As on NFS

- ``flock`` is each host's own, and the locks of ``fcntl`` are the server's (``server``), are each host's own as well
  (``local``: FUSE without locks, ``-o local_lock=all``), or are refused with ENOLCK (``none``: no lock daemon);
- a host keeps attributes and lists of folders for a while (``cache``), and does not see what others make meanwhile;
- what was written reaches the server when the file is synced or closed, and is thrown away by the host where the
  server refuses it: while a file ``FOLDER.quota`` is there, with EDQUOT. While there is a file ``FOLDER.close``, close
  says so of what the server has, too.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import stat
import struct
from collections.abc import Iterator
from typing import Any

MAX_WRITE = 1 << 17
BUFFER = MAX_WRITE + 4096
HEAD = struct.Struct("<IIQQIIIHH")
OUT = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
ENTRY = struct.Struct("<4QII")
LOCK = struct.Struct("<QQQQIIII")  # fh, owner, start, end, type, pid, flags, padding
SETATTR = struct.Struct("<IIQQQQQQ8I")
POSIX_LOCKS, BIG_WRITES, AUTO_INVAL_DATA = 1 << 1, 1 << 5, 1 << 12
CACHE_DIR, KEEP_CACHE = 1 << 3, 1 << 1


class Handle:
    """An open file of one host: what it has written is with the server when it is flushed."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path = fd, path
        self.unsent: list[tuple[int, bytes]] = []


class Server:
    """What all hosts share."""

    def __init__(self, folder: str, locks: str, cache: float) -> None:
        self.folder, self.how, self.cache = folder, locks, cache
        self.locks: dict[int, dict[tuple[int, int], int]] = {}  # inode to holder (host, handle) and type

    def refuses(self) -> bool:
        return os.path.exists(self.folder + ".quota")


class Host:
    """One mount."""

    def __init__(self, server: Server, number: int, mount: str) -> None:
        self.server, self.number = server, number
        self.paths: dict[int, str] = {1: server.folder}
        self.nodes: dict[str, int] = {server.folder: 1}
        self.handles: dict[int, Handle] = {}
        self.next = 2
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        if ctypes.CDLL(None, use_errno=True).mount(b"remote", mount.encode(), b"fuse.remote", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")

    # --- what is sent ------------------------------------------------------------------------------------------

    def serve(self) -> None:
        data = os.read(self.fd, BUFFER)
        length, code, unique, node, uid, gid, _, _, _ = HEAD.unpack_from(data)
        body = data[HEAD.size : length]
        do = getattr(self, f"do_{code}", None)
        if code in (2, 42):  # forget
            return
        try:
            reply = do(node, body, uid, gid) if do is not None else -errno.ENOSYS
        except OSError as error:
            reply = -(error.errno or errno.EIO)
        number = reply if isinstance(reply, int) else 0
        content = b"" if isinstance(reply, int) else reply
        with contextlib.suppress(FileNotFoundError):  # interrupted
            os.write(self.fd, OUT.pack(OUT.size + len(content), number, unique) + content)

    def path(self, node: int, name: bytes = b"") -> str:
        return os.path.join(self.paths[node], os.fsdecode(name.split(b"\0")[0])) if name else self.paths[node]

    def attributes(self, path: str, fh: Handle | None = None) -> bytes:
        s = os.fstat(fh.fd) if fh is not None else os.lstat(path)
        size = s.st_size
        for handle in self.handles.values():  # this host sees what it has written
            if handle.unsent and handle.path == path:
                size = max(size, *(offset + len(data) for offset, data in handle.unsent))
        times = [divmod(t, 10**9) for t in (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)]
        return ATTRIBUTES.pack(
            *(s.st_ino, size, s.st_blocks, *(t[0] for t in times), *(t[1] for t in times)),
            *(s.st_mode, s.st_nlink, s.st_uid, s.st_gid, 0, 4096, 0),
        )

    def entry(self, path: str) -> bytes:
        attributes = self.attributes(path)
        node = self.nodes.get(path)
        if node is None:
            node = self.nodes[path] = self.next
            self.next += 1
            self.paths[node] = path
        # A file is asked for anew when it is opened, as NFS does; what is known of folders is kept.
        seconds = int(self.server.cache)
        return ENTRY.pack(node, 0, seconds if os.path.isdir(path) else 0, seconds, 0, 0) + attributes

    def opened(self, fd: int, path: str, flags: int = 0) -> bytes:
        self.handles[fd] = Handle(fd, path)
        return struct.pack("<QIi", fd, flags, 0)

    # --- requests, by number -----------------------------------------------------------------------------------

    def do_26(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # INIT
        flags = BIG_WRITES | AUTO_INVAL_DATA | (POSIX_LOCKS if self.server.how != "local" else 0)
        return struct.pack("<4IHHIIHHI7I", 7, 31, 1 << 17, flags, 16, 12, MAX_WRITE, 1, 32, 0, 0, *[0] * 7)

    def do_1(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # LOOKUP
        return self.entry(self.path(node, body))

    def do_3(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # GETATTR
        return struct.pack("<QII", int(self.server.cache), 0, 0) + self.attributes(self.path(node))

    def do_4(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # SETATTR
        fields = SETATTR.unpack_from(body)
        valid, size, mtime, mode, owner, group = fields[0], fields[3], fields[6], fields[11], fields[13], fields[14]
        path = self.path(node)
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 6:
            os.chown(path, owner if valid & 2 else -1, group if valid & 4 else -1)
        if valid & 8:
            os.truncate(path, size)
        if valid & 32 and not valid & 256:
            os.utime(path, (mtime, mtime))
        return self.do_3(node, body, uid, gid)

    def do_9(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # MKDIR
        mode, umask = struct.unpack_from("<II", body)
        path = self.path(node, body[8:])
        os.mkdir(path)
        os.chmod(path, mode & ~umask & 0o7777)
        os.chown(path, uid, gid)
        return self.entry(path)

    def do_10(self, node: int, body: bytes, uid: int, gid: int) -> int:  # UNLINK
        path = self.path(node, body)
        os.unlink(path)
        self.nodes.pop(path, None)
        return 0

    def do_11(self, node: int, body: bytes, uid: int, gid: int) -> int:  # RMDIR
        path = self.path(node, body)
        os.rmdir(path)
        self.nodes.pop(path, None)
        return 0

    def do_12(self, node: int, body: bytes, uid: int, gid: int, skip: int = 8) -> int:  # RENAME
        target = struct.unpack_from("<Q", body)[0]
        old, new, *_ = body[skip:].split(b"\0")
        before, after = self.path(node, old), self.path(target, new)
        os.rename(before, after)
        for known in [path for path in self.nodes if path == before or path.startswith(before + "/")]:
            number = self.nodes.pop(known)
            self.paths[number] = after + known[len(before) :]
            self.nodes[self.paths[number]] = number
        return 0

    def do_45(self, node: int, body: bytes, uid: int, gid: int) -> int:  # RENAME2
        return self.do_12(node, body, uid, gid, 16)

    def do_14(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # OPEN
        flags = struct.unpack_from("<I", body)[0] & ~(os.O_APPEND | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL)
        path = self.path(node)
        return self.opened(os.open(path, flags), path)

    def do_35(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # CREATE
        flags, mode, umask, _ = struct.unpack_from("<4I", body)
        path = self.path(node, body[16:])
        fd = os.open(path, (flags & ~os.O_APPEND) | os.O_CREAT, 0o600)
        os.fchmod(fd, mode & ~umask & 0o7777)
        os.fchown(fd, uid, gid)
        return self.entry(path) + self.opened(fd, path)

    def do_15(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # READ
        fh, offset, size = struct.unpack_from("<QQI", body)
        handle = self.handles[fh]
        data = bytearray(os.pread(fh, size, offset))
        for other in self.handles.values():
            for at, piece in other.unsent if other.path == handle.path else ():
                begin, end = max(at, offset), min(at + len(piece), offset + size)
                if begin < end:
                    data.extend(bytes(max(0, end - offset - len(data))))
                    data[begin - offset : end - offset] = piece[begin - at : end - at]
        return bytes(data)

    def do_16(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # WRITE
        fh, offset, size = struct.unpack_from("<QQI", body)
        self.handles[fh].unsent.append((offset, body[40 : 40 + size]))
        if not self.server.refuses():
            self.send(self.handles[fh])
        return struct.pack("<II", size, 0)

    def send(self, handle: Handle) -> int:
        unsent, handle.unsent = handle.unsent, []
        if unsent and self.server.refuses():
            return -errno.EDQUOT
        for offset, data in unsent:
            os.pwrite(handle.fd, data, offset)
        return 0

    def do_25(self, node: int, body: bytes, uid: int, gid: int) -> int:  # FLUSH
        sent = self.send(self.handles[struct.unpack_from("<Q", body)[0]])
        return -errno.EDQUOT if os.path.exists(self.server.folder + ".close") else sent

    def do_20(self, node: int, body: bytes, uid: int, gid: int) -> int:  # FSYNC
        return self.send(self.handles[struct.unpack_from("<Q", body)[0]])

    def do_18(self, node: int, body: bytes, uid: int, gid: int) -> int:  # RELEASE
        fh = struct.unpack_from("<Q", body)[0]
        for held in self.server.locks.values():
            held.pop((self.number, fh), None)
        self.send(self.handles.pop(fh))
        os.close(fh)
        return 0

    def do_27(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # OPENDIR
        path = self.path(node)
        flags = CACHE_DIR | KEEP_CACHE if self.server.cache else 0
        return self.opened(os.open(path, os.O_RDONLY | os.O_DIRECTORY), path, flags)

    def do_28(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # READDIR
        fh, offset, size = struct.unpack_from("<QQI", body)
        names = [".", "..", *sorted(os.listdir(self.handles[fh].path))]
        result = b""
        for place in range(offset, len(names)):
            name = os.fsencode(names[place])
            record = struct.pack("<QQII", place + 1, place + 1, len(name), 0) + name
            record += bytes(-len(record) % 8)
            if len(result) + len(record) > size:
                break
            result += record
        return result

    def do_29(self, node: int, body: bytes, uid: int, gid: int) -> int:  # RELEASEDIR
        fh = struct.unpack_from("<Q", body)[0]
        self.handles.pop(fh)
        os.close(fh)
        return 0

    def do_30(self, node: int, body: bytes, uid: int, gid: int) -> int:  # FSYNCDIR
        return 0

    def do_17(self, node: int, body: bytes, uid: int, gid: int) -> bytes:  # STATFS
        s = os.statvfs(self.server.folder)
        counts = (s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree)
        return struct.pack("<5Q4I6I", *counts, s.f_bsize, s.f_namemax, s.f_frsize, 0, *[0] * 6)

    # --- locks -------------------------------------------------------------------------------------------------

    def in_the_way(self, fh: int, kind: int) -> Iterator[int]:
        for holder, other in self.server.locks.get(os.fstat(fh).st_ino, {}).items():
            if holder != (self.number, fh) and fcntl.F_WRLCK in (kind, other):
                yield other

    def do_31(self, node: int, body: bytes, uid: int, gid: int) -> Any:  # GETLK
        fh, _, start, end, kind, pid, _, _ = LOCK.unpack_from(body)
        if self.server.how == "none":
            return -errno.ENOLCK
        return struct.pack("<QQII", start, end, next(self.in_the_way(fh, kind), fcntl.F_UNLCK), pid)

    def do_32(self, node: int, body: bytes, uid: int, gid: int) -> int:  # SETLK
        fh, _, _, _, kind, _, _, _ = LOCK.unpack_from(body)
        if self.server.how == "none":
            return -errno.ENOLCK
        held = self.server.locks.setdefault(os.fstat(fh).st_ino, {})
        held_before = held.pop((self.number, fh), None)
        if kind == fcntl.F_UNLCK:
            return 0
        if any(self.in_the_way(fh, kind)):
            if held_before is not None:
                held[self.number, fh] = held_before
            return -errno.EAGAIN
        held[self.number, fh] = kind
        return 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("mounts", nargs="+")
    parser.add_argument("--locks", default="server", choices=["server", "local", "none"])
    parser.add_argument("--cache", type=float, default=0)
    given = parser.parse_args()
    os.umask(0)
    server = Server(given.folder, given.locks, given.cache)
    hosts = {host.fd: host for host in (Host(server, n, mount) for n, mount in enumerate(given.mounts))}
    poll = select.poll()
    for fd in hosts:
        poll.register(fd, select.POLLIN)
    while hosts:
        for fd, _ in poll.poll():
            try:
                hosts[fd].serve()
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    poll.unregister(fd)
                    del hosts[fd]
                elif error.errno not in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    raise


if __name__ == "__main__":
    main()
