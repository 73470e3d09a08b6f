"""What is made for a run has the modes that its trainer would have given it, whoever has started the daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import World, world
from tbxd.tfevents import modes
from tbxd_client.process.view import umask

LOG = """
    import os, sys
    os.umask(int(sys.argv[1], 8))
    import numpy as np
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[2])
    writer.add_scalar("loss", 1.0, 0)
    writer.add_scalars("both", {"a": 1.0, "b": 2.0}, 0)
    writer.add_embedding(np.eye(3, dtype=np.float32), tag="points", global_step=0)
    assert writer.flush(30)
    writer.close()
    """


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "world", TBXD_SYSTEM_SECONDS="1") as result:
        yield result


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def check(folder: Path, mask: int) -> None:
    found = [folder, *folder.rglob("*")]
    names = {path.name for path in found}
    assert {"both", "a", "b", "projector_config.pbtxt", "points"} <= names, names
    for path in found:
        if path.is_dir():
            expected = 0o777 & ~mask
        elif "tfevents" in path.name:
            expected = 0o664 & ~mask
        else:
            expected = 0o666 & ~mask
        assert mode(path) & 0o777 == expected, (path, oct(mode(path)), oct(expected))


def set_default_acl(folder: Path) -> None:
    """u::rwx, u:12345:rwx, g::rwx, m::rwx, o::r-x for what is made in a folder."""
    # ACL_EA_VERSION, then tag, permissions and id of each entry (include/uapi/linux/posix_acl_xattr.h)
    entries = [(0x01, 7, -1), (0x02, 7, 12345), (0x04, 7, -1), (0x10, 7, -1), (0x20, 5, -1)]
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (number & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, rights, number in entries
    )
    try:
        os.setxattr(folder, "system.posix_acl_default", value)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")


def test_this_process_knows_its_umask() -> None:
    before = os.umask(0o027)
    try:
        assert umask() == 0o027
    finally:
        os.umask(before)


def test_files_and_folders_have_the_umask_of_the_trainer_and_not_of_the_daemon(place: World) -> None:
    before = os.umask(0o077)
    try:
        daemon = place.serve()
    finally:
        os.umask(before)
    for mask in (0o002, 0o022, 0o077, 0o000, 0o027):
        result = place.run(LOG, oct(mask), f"logs/{mask:03o}")
        assert result.returncode == 0, result.stderr
        check(place.logdir / f"{mask:03o}", mask)
    # A client of before says none: what the daemon was started with, as it was.
    assert daemon.poll() is None
    for path in (place.runtime, place.spool, *place.runtime.iterdir()):
        assert not mode(path) & 0o077, (path, oct(mode(path)))


def test_what_the_daemon_makes_again_has_the_umask_of_the_trainer(place: World) -> None:
    before = os.umask(0o077)
    try:
        place.serve()
    finally:
        os.umask(before)
    script = """
        import os, shutil
        os.umask(0o002)
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/deep/run")
        writer.add_scalar("loss", 1.0, 0)
        assert writer.flush(30)
        shutil.rmtree("logs/deep")
        writer.add_scalar("loss", 2.0, 1)
        assert writer.flush(30)
        """
    result = place.run(script)
    assert result.returncode == 0, result.stderr
    for path in (place.logdir / "deep", place.logdir / "deep" / "run"):
        assert mode(path) & 0o777 == 0o775
    (file,) = (place.logdir / "deep" / "run").iterdir()
    assert mode(file) == 0o664


def test_a_setgid_folder_gives_its_group_and_the_default_acl_its_rights(place: World) -> None:
    before = os.umask(0o077)
    try:
        place.serve()
    finally:
        os.umask(before)
    place.logdir.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(place.logdir, 0, 12345)
    place.logdir.chmod(0o2775)
    assert place.run(LOG, "002", "logs/run").returncode == 0
    check(place.logdir / "run", 0o002)
    for path in (place.logdir / "run").rglob("*"):
        assert path.stat().st_gid == place.logdir.stat().st_gid
        assert not path.is_dir() or mode(path) & stat.S_ISGID
    set_default_acl(place.logdir)
    assert place.run(LOG, "077", "logs/acl").returncode == 0
    for path in (place.logdir / "acl").rglob("*"):  # as the trainer would have it: the umask does not count there
        assert mode(path) & 0o777 == (0o775 if path.is_dir() else 0o664)


def test_a_default_acl_leaves_the_mode_to_the_kernel(tmp_path: Path) -> None:
    assert modes.mode_in(tmp_path, 0o666, 0o027) == 0o640
    set_default_acl(tmp_path)
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert modes.mode_in(fd, 0o666, 0o027) == modes.mode_in(tmp_path, 0o666, 0o027) == 0o666
    finally:
        os.close(fd)
