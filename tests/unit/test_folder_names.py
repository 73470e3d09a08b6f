"""Log folders on file systems that do not take every name: real ones, exFAT and NTFS, mounted with FUSE."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from hosts import hosts
from ranks_world import Rank
from tbxd.ingest.session import Session
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents import event_file
from tbxd_client.logdir.folder_names import escaped, is_suspect

MEBIBYTES = 32
REFUSED = ("g:1", "x*y", "q?", 'a"b', "a<b", "a|b", "a\\b")
SYSTEMS = {
    "exfat": (["mkfs.exfat"], ["mount.exfat-fuse"], "apt-get install exfat-fuse exfatprogs"),
    "ntfs": (["mkfs.ntfs", "-F", "-q"], ["ntfs-3g", "-o", "windows_names"], "apt-get install ntfs-3g"),
}


@pytest.fixture(params=SYSTEMS)
def disk(request: pytest.FixtureRequest, place: World) -> Iterator[Path]:
    """A folder on a file system that refuses some names."""
    make, mount, advice = SYSTEMS[request.param]
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not all(map(shutil.which, (make[0], mount[0]))):
        pytest.skip(f"{request.param} needs root, /dev/fuse, and {advice}")
    image, folder = place.root / "disk.img", place.root / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(MEBIBYTES << 20)
    subprocess.run([*make, image], check=True, capture_output=True)
    loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
    if loop.returncode:
        pytest.skip(f"no loop device: {loop.stderr}")
    device = loop.stdout.strip()
    try:
        if subprocess.run([*mount, device, folder], capture_output=True).returncode:
            pytest.skip(f"{request.param} cannot be mounted here")
        yield folder
    finally:
        place.end()
        subprocess.run(["umount", "-l", folder], capture_output=True)
        subprocess.run(["losetup", "-d", device], capture_output=True)


def test_names_of_curves_that_the_file_system_refuses_are_escaped_and_nothing_waits(place: World, disk: Path) -> None:
    with pytest.raises(OSError):
        (disk / "g:1").mkdir()
    result = place.run(
        f"""
        import json
        from tbxd_client import SummaryWriter
        names = {REFUSED!r}
        with SummaryWriter({str(disk / "run")!r}) as w:
            for step in range(3):
                w.add_scalars("loss", {{name: step + len(name) for name in (*names, "plain", "caf\\u00e9")}}, step)
                w.add_scalar("x", 1.0, step)
            w.add_scalars("a:b/c", {{"d": 1.0}}, 1)
            w.add_hparams({{"lr": 1}}, {{"score": 2.0}}, name="trial:1")
            assert w.flush(30)
            print(json.dumps([w.stats()["pending"], w.stats()["dropped"], sorted(w.scalar_dict)]))
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[0, {}, "), result.stdout
    for name in (*REFUSED, "plain", "caf\u00e9"):
        folder = disk / "run" / "loss" / (escaped(name) if name in REFUSED else name)
        wait_for(folder.is_dir, f"{folder}")
        assert scalars(folder) == {"loss": [(step, step + float(len(name))) for step in range(3)]}, name
    assert scalars(disk / "run" / "a%3ab" / "c" / "d") == {"a:b/c": [(1, 1.0)]}
    assert scalars(disk / "run" / "trial%3a1")["score"] == [(0, 2.0)]
    assert f'run/loss/{REFUSED[0]}"' in result.stdout, "they are named as they were given"


def test_a_log_folder_and_a_suffix_that_can_never_be_are_refused_in_the_call(place: World, disk: Path) -> None:
    script = """
        import sys
        from tbxd_client import SummaryWriter
        for folder, suffix in ((sys.argv[1] + "/a:b", ""), (sys.argv[1] + "/x?/y", ""), (sys.argv[1] + "/c", ".v:1")):
            try:
                SummaryWriter(folder, filename_suffix=suffix)
            except ValueError as error:
                print(error)
        """
    result = place.run(script, disk)
    assert result.returncode == 0, result.stderr
    assert [line.split(" takes no ")[1].split(" ")[:2] for line in result.stdout.splitlines()] == [
        ["folder", "'a:b'"],
        ["folder", "'x?'"],
        ["file", "whose"],
    ]
    assert not result.stderr, "and nothing is said to wait"


def test_elsewhere_these_names_are_as_they_were_given(place: World) -> None:
    result = place.run(
        f"""
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a:b", filename_suffix=".v:1") as w:
            w.add_scalars("loss", dict.fromkeys({REFUSED!r}, 1.0), 1)
            assert w.flush(30)
        """
    )
    assert result.returncode == 0, result.stderr
    for name in REFUSED:
        assert scalars(place.logdir / "a:b" / "loss" / name) == {"loss": [(1, 1.0)]}


def test_only_names_that_some_file_system_refuses_are_asked_about() -> None:
    assert all(map(is_suspect, (*REFUSED, "dot.", "blank ", "x" * 200)))
    assert not any(map(is_suspect, ("a", "caf\u00e9", "a b", "v1.0", "x=1,y=2", "50%", "(a)", "[b]", "#1", "_")))
    assert escaped('a:b*c?"%.') == "a%3ab%2ac%3f%22%25%2e"


def test_from_another_host_what_can_never_be_written_is_counted_and_holds_up_nothing(place: World, disk: Path) -> None:
    """The script cannot ask the file system; whatever can be written still is, and the journal is given back."""
    with hosts(place) as two:
        two.options = ("--listen", two.address, "--roots", str(disk))
        key = two.key("gpu17")
        two.serve()
        result = place.run(
            f"""
            import json
            from tbxd_client import SummaryWriter
            w = SummaryWriter({str(disk / "run")!r})
            for step in range(100):
                w.add_scalars("loss", {{"g:1": 1.0 * step, "fine": 2.0 * step}}, step)
                w.add_scalar("x", 1.0, step)
            w.add_scalars("text?", {{"a": 1.0}}, 1)
            flushed = w.flush(30)
            print(json.dumps([flushed, w.stats()]))
            """,
            environ=two.environ(key),
        )
        assert result.returncode == 0, result.stderr
        flushed, stats = json.loads(result.stdout)
        assert flushed
        assert stats["dropped"] == {"bad_name": 101}
        assert (stats["accepted"], stats["written"], stats["pending"]) == (301, 200, 0)
        wait_for(lambda: not two.left(), "the journal to be given back")
        status = two.status()
        (bad,) = [run for name, run in status["runs"].items() if name.endswith("g:1")]
        assert bad["dropped"] == {"bad_name": 100}
        assert "takes no folder" in bad["error"]
        assert "bad_name" in place.tbxd("status").stdout
    assert scalars(disk / "run" / "loss" / "fine")["loss"] == [(step, 2.0 * step) for step in range(100)]


def test_from_another_host_a_suffix_that_can_never_be_costs_the_suffix_alone(place: World, disk: Path) -> None:
    with hosts(place) as two:
        two.options = ("--listen", two.address, "--roots", str(disk))
        key = two.key("gpu17")
        two.serve()
        result = place.run(
            f"""
            from tbxd_client import SummaryWriter
            from tbxd_client.logdir import folder_names
            folder_names.check_suffix = lambda folder, suffix: None  # another host's folder of that path takes it
            w = SummaryWriter({str(disk / "run")!r}, filename_suffix=".v:1")
            for step in range(100):
                w.add_scalar("x", step, step)
                w.add_scalars("loss", {{"a": step}}, step)
            assert w.flush(30)
            print(w.stats()["written"], w.stats()["pending"], w.stats()["dropped"])
            """,
            environ=two.environ(key),
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == "200 0 {}\n"
        wait_for(lambda: not two.left(), "the journal to be given back")
        assert scalars(disk / "run")["x"] == [(step, float(step)) for step in range(100)]
        assert scalars(disk / "run" / "loss" / "a")["loss"] == [(step, float(step)) for step in range(100)]


@pytest.mark.parametrize("refused", [":", "trainer", "tfevents"])
def test_an_event_file_has_the_name_that_its_file_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    opened = event_file._open

    def refuse(path: Path, folder: int | None, flags: int, mode: int = 0) -> int:
        if refused in path.name and flags & os.O_CREAT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, folder, flags, mode)

    monkeypatch.setattr(event_file, "_open", refuse)
    done = []
    writer = RunWriter(tmp_path / "run", done.append)
    rank = Rank(tmp_path / "run", 0, 1)
    definition = rank.run._replace(host="trainer", filename_suffix=".v:1")
    session = Session(rank.id, 0)
    rank.scalar("loss", 1, 2.0)
    session.feed_definitions(0, rank.definitions)
    for batch in session.feed_records(0, rank.records) or []:
        batch.run = definition
        writer.offer(batch)
    writer.write()
    assert len(done) == 1
    entry = writer.entry(rank.id)
    if refused == "tfevents":
        assert entry.refused == {"bad_name": 1} and entry.count == 1
        assert "takes no file" in writer.error
    else:
        assert not entry.refused and not writer.error
        assert scalars(tmp_path / "run") == {"loss": [(1, 2.0)]}
        (path,) = (tmp_path / "run").iterdir()
        assert refused not in path.name and ":" not in path.name
    writer.close()


def test_no_two_curves_share_a_folder_whatever_they_are_called(place: World) -> None:
    """Of the originals' folders some would lead out of the run, or be those of other curves."""
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/run") as w:
            for step in range(3):
                w.add_scalars("c", {"": step, ".": 10 + step, "..": 20 + step, "a": 30 + step, "x/../y": step}, step)
            for keys in ({"_": 1}, {1: 1, "1": 2}, {"b": 1, "\\0": 2, "\\\\x00": 3}):
                try:
                    w.add_scalars("c", keys, 5)
                except ValueError as error:
                    print(error)
            w.add_scalars("d", {"_": 1}, 5)
            assert w.flush(30)
            print(w.stats()["accepted"], w.stats()["dropped"])
        """
    )
    assert result.returncode == 0, result.stderr
    *errors, counts = result.stdout.splitlines()
    assert [word in line for word, line in zip(("one folder", "same name", "same name"), errors, strict=True)] == [
        True
    ] * 3
    assert counts == "16 {}"
    found = {str(path.parent.relative_to(place.logdir / "run")) for path in place.logdir.rglob("*tfevents*")}
    assert found == {".", "c/_", "c/_.", "c/_..", "c/a", "c/x/_../y", "d/_"}
    for name, first in (("_", 0.0), ("_.", 10.0), ("_..", 20.0), ("a", 30.0)):
        assert scalars(place.logdir / "run" / "c" / name) == {"c": [(step, first + step) for step in range(3)]}
