"""Properties of mounts: locks that exclude other hosts, and fresh lists of folders.

The effect of a lock between hosts depends on the file system, on its options, and sometimes on the server alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from tbxd_client.process.mounts import mount_of

# On disks of this host nobody else writes.
LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "zfs", "f2fs", "jfs", "reiserfs", "nilfs2"))
LOCAL |= frozenset(("ubifs", "udf", "vfat", "exfat", "msdos", "ntfs", "ntfs3", "hfsplus", "fuseblk"))
LOCAL |= frozenset(("tmpfs", "ramfs", "overlay"))
HERE = LOCAL | {""}  # or nobody tells
# Their servers, or all hosts together, keep the write locks of `fcntl`, but with these options: (of a mount, of its
# superblock). Lustre keeps them only where it is asked to.
SHARED = {
    "nfs": ("nolock", "local_lock=all", "local_lock=posix"),
    "nfs4": ("local_lock=all", "local_lock=posix"),
    "cifs": ("nobrl", "nolock"),
    "smb3": ("nobrl", "nolock"),
    "ceph": (),
    "gpfs": (),
    "ocfs2": (),
    "gfs2": ("localflocks", "lockproto=lock_nolock"),
}
_AT_EMPTY_PATH, _AT_STATX_FORCE_SYNC, _STATX_MTIME = 0x1000, 0x2000, 0x40  # statx(2)


def is_here(fd: int) -> bool:
    """Return True if an open file is on a disk of this host, or if unknown."""
    return mount_of(fd)[0] in HERE


def doubt(fd: int) -> str:
    """Return why a lock (``fcntl``, a write lock) of this process may not exclude other hosts; "" if it does.

    Args:
        fd: the file, locked.
    """
    kind, options = mount_of(fd)
    if kind in HERE:
        return ""
    if kind in SHARED:
        off = sorted(options.intersection(SHARED[kind]))
        return f"{kind} is mounted with {off[0]}, which keeps locks on this host" if off else ""
    if kind == "lustre":
        return "" if "flock" in options else "lustre is mounted without flock"
    if kind == "virtiofs" or kind.split(".")[0] == "fuse":
        # A lock that the server keeps is no lock of this kernel's.
        return f"{kind} keeps locks on this host" if _is_kept_here(fd) else ""
    return f"nobody knows whether locks on {kind} hold on other hosts"


def _is_kept_here(fd: int) -> bool:
    """Return True if this kernel knows a lock on a file, or if unknown."""
    try:
        inode = os.fstat(fd).st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            # 1: OFDLCK ADVISORY  WRITE -1 fd:01:5678 4611686018427387904 4611686018427387904
            return any(
                len(fields) > 5 and fields[1] == "OFDLCK" and fields[5].rpartition(":")[2] == str(inode)
                for fields in map(str.split, lines)
            )
    except OSError:
        return True


def refresh(folder: int) -> None:
    """Make the next list of a folder fresh from the server: NFS may return one that is a minute old.

    Args:
        folder: a descriptor of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        state = ctypes.create_string_buffer(256)
        ctypes.CDLL(None).statx(folder, b"", _AT_EMPTY_PATH | _AT_STATX_FORCE_SYNC, _STATX_MTIME, state)
