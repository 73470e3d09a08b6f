"""Keys: the commands that make and revoke them, and what is not taken for a key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness import World
from tbxd.transport.allowed_roots import Roots
from tbxd.transport.keyring import AllowList, KeyFolder
from tbxd_client.protocol.records import RemoteProtocolError
from tbxd_client.transport import keys as client_keys
from tbxd_client.transport.keys import BadKey, read_client_key


@pytest.fixture
def folder(place: World) -> Path:
    """The folder of this world's keys, which is not there yet."""
    place.extra["TBXD_KEYS"] = str(place.root / "keys")
    return place.root / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_key_is_one_file_for_the_client_and_one_for_the_daemon_which_nobody_else_may_read(
    place: World, folder: Path
) -> None:
    os.umask(os.umask(0))  # whatever it is
    said = place.tbxd("keys", "new", "gpu17", cwd=place.root)
    assert said.returncode == 0, said.stderr
    file = place.root / "tbxd-gpu17.key"
    for step in (str(file), "ssh HOST", "TBXD_ADDRESS=tcp://", "tbxd serve --listen", "--roots", "keys revoke gpu17"):
        assert step in said.stdout
    assert (mode(file), mode(folder), mode(folder / "clients")) == (0o600, 0o700, 0o700)
    assert {mode(path) for path in folder.rglob("*") if path.is_file()} == {0o600}
    key = read_client_key(file)
    secret = key.secret
    assert key.name == "gpu17" and secret not in said.stdout + repr(key)
    assert sorted(path.name for path in folder.rglob("*")) == ["clients", "daemon.key", "gpu17.pub"]
    assert secret not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    shown = json.loads(place.tbxd("keys", "show", "--json").stdout)
    assert shown == {"folder": str(folder), "public": key.daemon, "clients": 1}
    (listed,) = json.loads(place.tbxd("keys", "list", "--json").stdout)
    assert (listed["name"], listed["public"]) == ("gpu17", key.public)
    assert key.public in place.tbxd("keys", "list").stdout
    assert key.daemon in place.tbxd("keys", "show").stdout


def test_names_that_are_taken_or_no_names_are_refused_and_nothing_is_left(place: World, folder: Path) -> None:
    made = place.tbxd("keys", "new", "a", "--out", str(place.root / "a.key"), "--json")
    assert json.loads(made.stdout)["file"] == str(place.root / "a.key")
    again = place.tbxd("keys", "new", "a", "--out", str(place.root / "b.key"))
    assert again.returncode == 1 and "tbxd keys revoke a" in again.stderr
    assert not (place.root / "b.key").exists()
    over = place.tbxd("keys", "new", "b", "--out", str(place.root / "a.key"))
    assert over.returncode == 1 and "exists already" in over.stderr
    for name in ("../a", "", ".hidden", "a/b", "a" * 65, "a b", "a\nb", "é"):
        wrong = place.tbxd("keys", "new", name, "--out", str(place.root / "c.key"))
        assert wrong.returncode == 1 and "no name for a key" in wrong.stderr, name
    assert [path.name for path in place.root.glob("*.key")] == ["a.key"]
    assert [path.name for path in (folder / "clients").iterdir()] == ["a.pub"]


def test_what_is_revoked_is_gone_and_what_is_not_there_is_said(place: World, folder: Path) -> None:
    for command in (["keys", "list"], ["keys", "show"], ["keys", "revoke", "a"]):
        nothing = place.tbxd(*command)
        assert nothing.returncode == 1 and "tbxd keys new NAME" in nothing.stderr
    place.tbxd("keys", "new", "a", "--out", str(place.root / "a.key"))
    assert place.tbxd("keys", "revoke", "a").returncode == 0
    assert "no client is admitted" in place.tbxd("keys", "list").stdout
    again = place.tbxd("keys", "revoke", "a")
    assert again.returncode == 1 and "no client 'a'" in again.stderr


def test_keys_made_at_the_same_moment_are_for_one_daemon(place: World, folder: Path) -> None:
    several = [
        subprocess.Popen(
            [sys.executable, "-m", "tbxd", "keys", "new", f"c{number}", "--out", str(place.root / f"c{number}.key")],
            env=place.environ,
            stdout=subprocess.DEVNULL,
        )
        for number in range(4)
    ]
    assert [one.wait(60) for one in several] == [0] * 4
    assert len({read_client_key(place.root / f"c{number}.key").daemon for number in range(4)}) == 1
    found, wrong = KeyFolder(folder).clients()
    assert sorted(found.values()) == ["c0", "c1", "c2", "c3"] and not wrong
    assert not list(folder.rglob(".*"))


def test_a_key_that_others_may_read_or_that_is_none_is_not_used(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    file = tmp_path / "a.key"
    key = folder.new("a", file)
    text = file.read_text()

    def refused(why: str) -> None:
        with pytest.raises(BadKey, match=why):
            read_client_key(file)

    for bits in (0o640, 0o604, 0o620, 0o777):
        file.chmod(bits)
        refused("chmod 600")
    file.chmod(0o600)
    for wrong, why in (
        ("", "does not begin with"),
        ("garbage\n" * 10, "does not begin with"),
        (text.replace("key 1", "key 2"), "version '2'"),
        (text.replace(key.secret, key.secret[:-1]), "no 'secret'"),
        (text.replace(key.daemon, "é" * 40), "no key of tbxd"),
        (text.replace("name a", "name ../a"), "no name"),
        (text + "#" * 5000, "more than 4096"),
    ):
        file.write_text(wrong)
        refused(why)
    file.write_text(text + "later something\n")
    assert read_client_key(file) == key, "what a later version adds is passed over"
    file.unlink()
    refused("tbxd keys new NAME")
    file.mkdir()
    refused("not a regular file")
    file.rmdir()
    os.mkfifo(file, 0o600)
    refused("not a regular file")  # and nobody waits for whoever may write into it
    if os.getuid() == 0:
        file.unlink()
        file.write_text(text)
        file.chmod(0o600)
        os.chown(file, 12345, -1)
        refused("belongs to uid 12345")


def test_a_key_may_be_mounted_as_a_link_into_a_container(tmp_path: Path) -> None:
    key = KeyFolder(tmp_path / "keys").new("a", tmp_path / "a.key")
    (tmp_path / "client.key").symlink_to("a.key")
    assert read_client_key(tmp_path / "client.key") == key


def test_the_key_is_looked_for_where_settings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TBXD_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert client_keys.client_key_path() == tmp_path / ".config/tbxd/client.key"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert client_keys.client_key_path() == tmp_path / "x/tbxd/client.key"
    monkeypatch.setenv("TBXD_KEY", "some/file")
    assert client_keys.client_key_path() == Path("some/file").absolute()


@pytest.mark.parametrize("what", ["folder", "clients", "daemon.key"])
def test_a_daemon_does_not_start_with_keys_that_others_may_get_at(place: World, folder: Path, what: str) -> None:
    place.tbxd("keys", "new", "a", "--out", str(place.root / "a.key"))
    place.logdir.mkdir()
    path = folder if what == "folder" else folder / what
    options = ("serve", "--listen", "tcp://127.0.0.1:0", "--roots", str(place.logdir))

    def refused(*why: str) -> None:
        said = place.tbxd(*options)
        assert said.returncode == 1 and str(path) in said.stderr, said.stderr
        assert all(text in said.stderr for text in why), said.stderr

    was = mode(path)
    path.chmod(was | 0o044)
    refused("mode", "chmod")
    path.chmod(was)
    path.rename(place.root / "moved")
    path.symlink_to(place.root / "moved")
    refused("link")
    path.unlink()
    refused("tbxd keys new NAME")
    (place.root / "moved").rename(path)
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
        refused("belongs to uid 12345")


def test_a_list_of_clients_follows_its_folder_and_leaves_out_what_is_none(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    keys = [folder.new(name, tmp_path / f"{name}.key") for name in ("a", "b")]
    allowed = AllowList(folder)
    assert [allowed.name(key.public, now=True) for key in keys] == ["a", "b"]
    third = folder.new("c", tmp_path / "c.key")
    assert allowed.name(third.public, now=True) == "c"
    folder.revoke("a")
    assert allowed.name(keys[0].public, now=True) == ""
    entry = folder.clients_path / "b.pub"
    text = entry.read_text()
    for bad in ("chmod", "link", "garbage"):
        if bad == "chmod":
            entry.chmod(0o666)
        elif bad == "link":
            entry.rename(tmp_path / "b.pub")
            entry.symlink_to(tmp_path / "b.pub")
        else:
            entry.unlink()
            entry.write_text("garbage")
            entry.chmod(0o600)
        assert AllowList(folder).name(keys[1].public, now=True) == "", bad
        assert folder.clients()[1], "it is said what is wrong"
        entry.unlink()
        entry.write_text(text)
        entry.chmod(0o600)
    assert AllowList(folder).name(keys[1].public, now=True) == "b"
    folder.path.chmod(0o755)
    assert AllowList(folder).name(keys[1].public, now=True) == "", "a folder that is open lets nobody in"
    # One that is made again under its name is another.
    folder.path.chmod(0o700)
    again = folder.new("a", tmp_path / "a2.key")
    assert allowed.name(again.public, now=True) == "a" and allowed.name(keys[0].public, now=True) == ""


def test_roots_are_resolved_and_hold(tmp_path: Path) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to(real)
    roots = Roots(f"{tmp_path}/link:{other}/")
    assert roots.place(f"{tmp_path}/link/a/b") == f"{real}/a/b"
    assert roots.place(f"{real}/a") == f"{real}/a"
    assert roots.place(str(other)) == str(other)
    for outside in (str(tmp_path), f"{tmp_path}/realm", f"{other}x", "/etc", "/"):
        with pytest.raises(RemoteProtocolError, match="not below"):
            roots.place(outside)
    for text, why in (("relative", "absolute"), ("/", "everything"), (f"{tmp_path}/none", "not a folder")):
        with pytest.raises(ValueError, match=why):
            Roots(text)
