"""Settings: from where each is taken, what is refused and in which words, and what a file costs who has none."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import World
from tbxd.config import generated, sources, toml_file
from tbxd.config.settings import INTEGER, NUMBER, SETTINGS, BadSetting, Setting, Settings
from tbxd_client.config import settings as client_settings


def show(place: World, *arguments: str, **environ: str) -> dict[str, Any]:
    """`tbxd config show --json`."""
    before = dict(place.extra)
    place.extra.update(environ)
    result = place.tbxd("config", "show", "--json", *arguments)
    place.extra.clear()
    place.extra.update(before)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def one(found: dict[str, Any], name: str) -> tuple[Any, str, str]:
    (row,) = [row for row in found["settings"] if row["name"] == name]
    return row["value"], row["from"], row["where"]


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return the problems of a file, without its path."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    return [problem.removeprefix(str(path)) for problem in toml_file.read(path).problems]


# --- where from ----------------------------------------------------------------------------------------------


def test_the_command_line_comes_before_the_environment_before_the_file_before_the_default(place: World) -> None:
    assert one(show(place), "batch_ms") == (100, "default", "")
    place.config.write_text("# mine\n\nbatch_ms = 250\n")
    assert one(show(place), "batch_ms") == (250, "file", f"{place.config}:3")
    found = show(place, TBXD_BATCH_MS="20")
    assert one(found, "batch_ms") == (20, "environment", "TBXD_BATCH_MS")
    assert found["hidden"] == {"batch_ms": "TBXD_BATCH_MS"}
    found = show(place, "--batch-ms", "7", TBXD_BATCH_MS="20")
    assert one(found, "batch_ms") == (7, "command line", "--batch-ms")
    assert one(show(place, TBXD_BATCH_MS=""), "batch_ms")[1] == "file", "an empty variable is none"
    assert one(show(place, "--batch-ms", "100"), "batch_ms")[1] == "command line", "also where it is the default"


def test_a_daemon_has_what_is_in_the_file(place: World) -> None:
    place.config.write_text('batch_ms = 20\nopen_files = 9\nlog_level = "DEBUG"\nsync = "always"\n')
    place.serve()
    status = place.status()
    assert status is not None and status["config"] == str(place.config) and status["sync"] == "always"
    assert {name: status["settings"][name] for name in ("batch_ms", "open_files", "log_level", "threads")} == {
        "batch_ms": 20,
        "open_files": 9,
        "log_level": "debug",
        "threads": 8,
    }
    assert status["settings"].keys() == {setting.name for setting in SETTINGS}


def test_verbose_is_an_option_and_so_comes_before_environment_and_file(place: World) -> None:
    place.config.write_text('log_level = "error"\n')
    place.extra["TBXD_LOG_LEVEL"] = "warning"
    place.serve("--verbose")
    assert settings_of(place)["log_level"] == "info"
    assert place.tbxd("stop").returncode == 0
    place.serve("--verbose", "--log-level", "debug")
    assert settings_of(place)["log_level"] == "debug"


def settings_of(place: World) -> dict[str, Any]:
    status = place.status()
    assert status is not None
    found: dict[str, Any] = status["settings"]
    return found


def test_a_file_that_nobody_has_named_is_the_users_own_else_the_machines(place: World, tmp_path: Path) -> None:
    home = place.root / "home"
    place.extra.update(TBXD_CONFIG="", XDG_CONFIG_HOME="", HOME=str(home))
    own = home / ".config" / "tbxd" / "config.toml"
    result = place.tbxd("config", "path")
    assert result.returncode == 0 and result.stdout == f"{own}\n" and "it is not there" in result.stderr
    assert show(place)["places"] == [str(own), "/etc/tbxd/config.toml"]
    own.parent.mkdir(parents=True)
    own.write_text("threads = 3")
    result = place.tbxd("config", "path")
    assert (result.stdout, result.stderr) == (f"{own}\n", "")
    assert one(show(place), "threads") == (3, "file", f"{own}:1")
    other = tmp_path / "other.toml"
    other.write_text("threads = 4")
    assert one(show(place, TBXD_CONFIG=str(other)), "threads")[0] == 4
    assert one(show(place, "--config", str(other), TBXD_CONFIG=str(own)), "threads")[0] == 4
    assert one(show(place, TBXD_CONFIG="~/.config/tbxd/config.toml"), "threads")[0] == 3
    assert one(show(place, TBXD_CONFIG=f"-{tmp_path}/none.toml"), "threads")[1] == "default"


def test_of_the_machines_file_and_the_users_own_the_users_own_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "MACHINE_FILE", tmp_path / "etc.toml")
    assert sources.find() is None
    (tmp_path / "etc.toml").touch()
    assert sources.find() == tmp_path / "etc.toml"
    (tmp_path / "tbxd").mkdir()
    (tmp_path / "tbxd" / "config.toml").touch()
    assert sources.find() == tmp_path / "tbxd" / "config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc.toml"))  # a file where a folder should be
    assert sources.find() == tmp_path / "etc.toml"


def test_a_named_file_that_is_not_there_is_refused_and_so_is_a_relative_path_in_the_environment(place: World) -> None:
    for command in (("serve",), ("config", "show"), ("config", "check"), ("status",), ("keys", "show")):
        refused = place.tbxd(*command, "--config", str(place.root / "none.toml"))
        assert refused.returncode == 2 and f"{place.root}/none.toml: no such file" in refused.stderr, command
    place.extra["TBXD_CONFIG"] = "config.toml"
    refused = place.tbxd("serve")
    assert refused.returncode == 2 and "TBXD_CONFIG='config.toml': an absolute path is expected" in refused.stderr


def test_a_relative_path_on_the_command_line_is_one_of_the_working_folder(place: World) -> None:
    place.config.write_text("threads = 3\n")
    found = json.loads(place.tbxd("config", "show", "--json", "--config", "config.toml", cwd=place.root).stdout)
    assert one(found, "threads") == (3, "file", f"{place.config}:1")


def test_a_daemon_that_a_writer_starts_reads_the_file_but_is_where_the_writer_looks_for_it(place: World) -> None:
    place.config.write_text(
        f'address = "ipc://{place.root}/elsewhere.sock"\n'
        f'runtime_dir = "{place.root}/else"\nspool = "{place.root}/other"\n'
        'batch_ms = 33\nsync = "always"\n'
    )
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 1.0, 0)
            assert writer.flush(30)
        """
    )
    assert result.returncode == 0, result.stderr
    place.config.unlink()
    status = place.status()
    assert status is not None and status["embedded"] and status["settings"]["batch_ms"] == 33
    assert status["sync"] == "always"
    assert status["spool"] == str(place.spool) and status["address"] == f"ipc://{place.runtime}/daemon.sock"


def test_a_writer_whose_daemon_refuses_the_file_says_so_and_loses_nothing(place: World) -> None:
    place.config.write_text("batch = 3\n")
    script = """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 1.0, 0)
    """
    result = place.run(script, environ={"TBXD_FLUSH_SECONDS": "5"})
    assert result.returncode == 0, "the run is not hurt"
    assert "the daemon did not start (exit code 2)" in result.stderr and "daemon.log" in result.stderr
    assert (
        f"{place.config}:1: batch is no setting; did you mean batch_ms?" in (place.runtime / "daemon.log").read_text()
    )
    assert len(place.journals()) == 1
    place.config.unlink()
    assert place.tbxd("drain").returncode == 0 and place.drained()


# --- what is refused -----------------------------------------------------------------------------------------


def test_each_problem_of_a_file_is_told_with_its_line_and_what_would_do(place: World) -> None:
    place.config.write_text(
        """\
# batch_ms = "in a comment"
batch_ms = "soon"
sync = "now"
roots = [
    "relative",  # ] = "
]
sync-seconds = 2
TBXD_THREADS = 4
journal_bytes = 5
threads = 2.5
open_files = true
colour = '''
x = 1
'''
[daemon]
batch_ms = 3
"""
    )
    expected = [
        "2: batch_ms is 'soon'; 0 to 60000 are possible",
        "3: sync is 'now'; periodic, always are possible",
        "4: roots is ['relative']; folders (absolute, or from ~), separated by ':' are possible",
        "7: sync-seconds is no setting; did you mean sync_seconds?",
        "8: TBXD_THREADS is no setting; did you mean threads?",
        "9: journal_bytes is a setting of scripts, which read no file: set TBXD_JOURNAL_BYTES in their environment",
        "10: threads is 2.5; whole numbers from 1 to 256 are possible",
        "11: open_files is True; whole numbers from 1 to 1000000 are possible",
        "12: colour is no setting; there are " + ", ".join(setting.name for setting in SETTINGS),
        "15: daemon is a table; settings are in none: write batch_ms without it",
    ]
    for command in (("config", "check"), ("config", "check", str(place.config)), ("config", "show"), ("serve",)):
        refused = place.tbxd(*command)
        assert refused.returncode == 2 and not refused.stdout
        assert refused.stderr.splitlines() == [f"tbxd: {place.config}:{line}" for line in expected], command
    assert not place.running()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\nsync = always\n", ":2: no TOML: Invalid value (column 8); a text has quotes around it"),
        ("batch_ms = 1\n\nbatch_ms = 2\n", ":3: no TOML: Cannot overwrite a value (column 13)"),
        ("batch_ms", ":1: no TOML: Expected '=' after a key in a key/value pair (at its end)"),
        ("roots = [\n\n", ":2: no TOML: Invalid value (at its end); a text has quotes around it"),
        ("threads = " + "9" * 5000, ":1: no TOML that could be settings"),
        ("threads = " + "[" * 50_000, ""),
        ("threads = 0x" + "f" * 5000, ":1: threads is too much; whole numbers"),
        ("threads = nan", ":1: threads is nan; whole numbers"),
        ("batch_ms = 1e400", ":1: batch_ms is inf; 0 to"),
        ("batch_ms = 2020-01-01", ":1: batch_ms is datetime.date(2020, 1, 1); 0 to"),
        ("spool = ''", ":1: spool is ''; folders"),
        ("spool = 'a'", ":1: spool is 'a'; folders"),
        ('spool = "/a\\u0000"', ":1: spool is '/a\\x00'; folders"),
        ("address = 'http://x'", ":1: address is 'http://x'; expected ipc:///path/to/socket or tcp://host:port"),
        (f"address = '{'x' * 1000}'", "…; expected ipc:///path"),
        ("[batch_ms]", ":1: batch_ms is {}; 0 to 60000 are possible"),
        ("[[daemon]]\n[[daemon]]", ":1: daemon is no setting; there are"),
        ("daemon.batch_ms = 1", ":1: daemon is a table; settings are in none: write batch_ms without it"),
    ],
)
def test_odd_files_are_refused_in_a_line_or_two(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    try:
        found = "\n".join(toml_file.read(path).problems)
    except BadSetting as error:
        found = str(error)
    found = found.replace("Can not", "Cannot").replace('"="', "'='")  # as older readers of TOML say it
    assert told in found, found
    assert len(found) < 600 and (not told or found.startswith(str(path)))


def test_the_line_of_a_key_is_found_however_it_is_written() -> None:
    text = """
'quoted' = 1
 "double quoted" \t= 2 # third = 3
# fourth = 4
fifth.sixth . "seventh" = 5
eighth = \"\"\"
ninth = 9
\"\"\"
tenth = [ # ]
  "]", [1,
  2], { eleventh = 11 },
]
fifth.twelfth = 12
"\\u00e4" = '''one line'''
[ table . inner ] # [other]
eighth = 8
[[many]]
tenth = 10
[[many]]
[table]
last = "[x]"
"""
    for ending in ("\n", "\r\n"):
        found = toml_file.lines_of(text.replace("\n", ending).replace("\r\n", "\n"))
        assert found == {
            "quoted": 2,
            "double quoted": 3,
            "fifth": 5,
            "eighth": 6,
            "tenth": 9,
            "ä": 14,
            "table": 15,
            "many": 17,
        }


def test_line_endings_and_the_mark_of_an_editor_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf# x\r\nthreads = 4\r\nroots = [\r\n'/a',\r\n'/b']\r\nbatch = 1\r\n")
    found = toml_file.read(path)
    assert found.values == {"threads": 4, "roots": "/a:/b"}
    assert found.problems == [f"{path}:6: batch is no setting; did you mean batch_ms?"]


def test_folders_may_begin_at_home_and_roots_be_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    path = tmp_path / "config.toml"
    path.write_text('spool = "~/spool"\nkeys = "/k:1"\nroots = ["~/runs", "/data"]\n')
    assert toml_file.read(path).values == {
        "spool": "/home/ann/spool",
        "keys": "/k:1",
        "roots": "/home/ann/runs:/data",
    }
    path.write_text('roots = "/a:~/b"')
    assert toml_file.read(path).values == {"roots": "/a:/home/ann/b"}
    assert problems(tmp_path, 'roots = ["/a:/b"]') and problems(tmp_path, "roots = []")
    assert problems(tmp_path, 'roots = ["/a", 1]') and problems(tmp_path, 'roots = "/a:b"')


def test_a_file_that_others_may_change_is_refused(place: World) -> None:
    place.config.write_text("threads = 3\n")
    place.config.chmod(0o666)
    refused = place.tbxd("serve")
    assert refused.returncode == 2 and f"To do: chmod o-w {place.config}" in refused.stderr
    place.config.chmod(0o664)
    assert place.tbxd("config", "check").returncode == 0, "of a group, as many have it for themselves alone"
    if os.getuid() == 0:
        os.chown(place.config, 12345, 0)
        refused = place.tbxd("serve")
        assert (
            refused.returncode == 2 and "belongs to uid 12345" in refused.stderr and "To do: copy it" in refused.stderr
        )


def test_what_is_no_file_or_too_large_or_not_written_in_utf_8_is_refused(place: World) -> None:
    place.config.mkdir()
    assert place.tbxd("config", "check").returncode == 2
    place.config.rmdir()
    os.mkfifo(place.config)
    refused = place.tbxd("config", "check")
    assert refused.returncode == 2 and "no file" in refused.stderr, "nobody waits for a writer"
    place.config.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place.config))
        assert place.tbxd("config", "check").returncode == 2
    place.config.unlink()
    place.config.write_bytes(b"# x\n\xff = 1")
    assert f"{place.config}:2: not written in UTF-8" in place.tbxd("config", "check").stderr
    place.config.write_bytes(b"#" * (toml_file.FILE_BYTES_MAX + 1))
    assert "larger than 65,536 bytes" in place.tbxd("config", "check").stderr
    place.config.write_bytes(b"#" * toml_file.FILE_BYTES_MAX)
    assert place.tbxd("config", "check").returncode == 0


def test_a_link_to_a_file_of_ones_own_is_read(place: World) -> None:
    (place.root / "dotfiles.toml").write_text("threads = 3")
    place.config.symlink_to("dotfiles.toml")
    assert one(show(place), "threads")[0] == 3
    (place.root / "dotfiles.toml").unlink()
    assert one(show(place), "threads")[1] == "default", "a link to nothing is no file"


def test_values_of_command_line_and_environment_are_refused_by_name(place: World) -> None:
    refused = place.tbxd("serve", "--batch-ms", "-1")
    assert refused.returncode == 2 and "--batch-ms is -1; 0 to 60000 are possible" in refused.stderr
    place.extra["TBXD_THREADS"] = "2.5"
    refused = place.tbxd("serve")
    assert refused.returncode == 2 and "TBXD_THREADS is 2.5; whole numbers from 1 to 256 are" in refused.stderr
    with pytest.raises(BadSetting, match=r"threads is 0; whole numbers"):
        Settings.of({"threads": 0})


def test_who_only_asks_is_told_of_a_bad_file_and_gets_an_answer(place: World) -> None:
    daemon = place.serve()
    place.config.write_text("threads = 4\nbatch = 1\n")
    told = f"tbxd: {place.config}:2: batch is no setting; did you mean batch_ms?"
    status = place.tbxd("status")
    assert status.returncode == 0 and status.stderr.splitlines() == [told]
    found = {row["what"]: row for row in json.loads(place.tbxd("doctor", "--json").stdout)}
    assert (
        found["settings file"]["level"] == "trouble" and "no daemon starts with it" in found["settings file"]["found"]
    )
    assert place.tbxd("drain").returncode == 2 and place.tbxd("keys", "list").returncode == 2, "these do something"
    stopped = place.tbxd("stop")
    assert stopped.returncode == 0 and daemon.wait(30) == 0


# --- any text ------------------------------------------------------------------------------------------------

KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
SPELLED = KEYS.flatmap(
    lambda key: st.sampled_from([key, f'"{key}"', f"'{key}'", f" {key}\t", f"{key}.inner", f'"{key}" . "a.b"'])
)
VALUES = st.sampled_from(
    [
        "1",
        '"#"',
        "'[x]'",
        "[\n1, # ]\n2 ]",
        '"""\nx = 1\n"""',
        "'''\n[y]\n'''",
        "{ z = 1 }",
        "[[], [[\n]\n]]",
        '"""]"""',
    ]
)


@given(st.lists(st.tuples(st.sampled_from(["", "# c = 1\n", "\n\n"]), SPELLED, VALUES), max_size=8), st.booleans())
def test_the_line_of_each_key_of_any_file_is_that_on_which_it_stands(
    statements: list[tuple[str, str, str]], in_table: bool
) -> None:
    text, expected = "", {}
    for before, spelled, value in statements:
        text += before
        key = spelled.strip().partition(".")[0].strip(" \"'")
        if key in expected:
            continue
        expected[key] = text.count("\n") + 1
        text += f"{spelled} = {value} # and a comment\n"
    if in_table:
        expected["of a table"] = text.count("\n") + 1
        text += '["of a table".inner]\n' + text
    assert toml_file.lines_of(text) == expected


@given(st.one_of(st.text(max_size=200), st.text("ab_=.[]{}\"'#\n\\ 1", max_size=60)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_settings_or_is_refused_with_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        found = toml_file.read(path)
    except BadSetting as error:
        assert re.match(rf"{path}:\d+: ", str(error))
    else:
        assert all(re.match(rf"{path}:\d+: ", problem) for problem in found.problems)
        assert found.values.keys() <= {setting.name for setting in SETTINGS}


# --- what is shown -------------------------------------------------------------------------------------------


def test_every_setting_of_daemon_and_scripts_is_shown_with_where_it_is_from(place: World) -> None:
    place.extra.update(TBXD_RANKS="ALL", TBXD_JOURNAL_BYTES="5", TBXD_REDUCE="a=sum", TBXD_BLOCK_MS="50")
    place.config.write_text(f'spool = "{place.root}/s"\n')
    result = place.tbxd("config", "show")
    lines = result.stdout.splitlines()
    assert lines[0] == f"file: {place.config}"
    rows = {line.split()[0]: line for line in lines if line and not line.startswith(("file", "scripts", "spool:"))}
    scripts = (*client_settings.SETTINGS, *client_settings.CHOICES, *client_settings.TEXTS)
    assert {setting.name for setting in SETTINGS} | {one.variable for one in scripts} <= rows.keys()
    assert re.fullmatch(r"batch_ms +100 +default", rows["batch_ms"])
    assert re.fullmatch(rf"runtime_dir +{place.runtime} +TBXD_RUNTIME_DIR", rows["runtime_dir"])
    assert re.fullmatch(r"TBXD_RANKS +all +environment", rows["TBXD_RANKS"])
    assert re.fullmatch(r"TBXD_BLOCK_MS +50 +environment", rows["TBXD_BLOCK_MS"])
    assert re.fullmatch(r"TBXD_REDUCE +a=sum +environment", rows["TBXD_REDUCE"])
    assert re.fullmatch(r"TBXD_JOURNAL_BYTES +268435456 +default", rows["TBXD_JOURNAL_BYTES"])
    assert "TBXD_JOURNAL_BYTES='5'" in result.stderr
    assert "spool is in the file, and TBXD_SPOOL counts: it comes before it" in result.stdout
    del place.extra["TBXD_JOURNAL_BYTES"]
    found = show(place)
    assert found["daemon"] is None and found["file"] == str(place.config)
    assert {row["variable"] for row in found["scripts"]} == {one.variable for one in scripts}


def test_a_place_that_only_the_file_says_is_one_that_scripts_do_not_know(place: World) -> None:
    place.config.write_text(f'address = "ipc://{place.root}/mine.sock"\n')
    told = "address: scripts that log read no file; set TBXD_ADDRESS in their environment, too"
    assert told in place.tbxd("config", "show").stdout
    assert f"{place.config}:1: {told}" in place.tbxd("config", "check").stdout
    found = {row["what"]: row for row in json.loads(place.tbxd("doctor", "--json").stdout)}
    assert found["settings file"]["level"] == "warning" and "TBXD_ADDRESS" in found["settings file"]["advice"]


def test_what_the_running_daemon_has_otherwise_is_said(place: World) -> None:
    daemon = place.serve("--threads", "2")
    place.config.write_text("batch_ms = 20\n")
    found = show(place)
    assert found["daemon"] == {"pid": daemon.pid, "config": ""}
    assert {row["name"]: row["running"] for row in found["settings"] if row["differs"]} == {
        "batch_ms": 100,
        "threads": 2,
    }
    text = place.tbxd("config", "show").stdout
    assert f"the daemon that runs (pid {daemon.pid}) reads no file" in text
    assert f"(pid {daemon.pid}) has batch_ms 100; `tbxd reload`" in text
    assert f"(pid {daemon.pid}) has threads 2; a restart changes it" in text
    place.extra["TBXD_BATCH_MS"] = "5"
    text = place.tbxd("config", "show").stdout
    assert f"(pid {daemon.pid}) has batch_ms 100; TBXD_BATCH_MS applies to daemons that are started here" in text


def test_the_example_has_every_setting_and_with_all_of_them_taken_it_is_a_good_file(
    place: World, tmp_path: Path
) -> None:
    result = place.tbxd("config", "example")
    assert result.returncode == 0 and result.stdout == generated.example()
    path = tmp_path / "config.toml"
    path.write_text(result.stdout)
    assert toml_file.read(path).values == {} and not toml_file.read(path).problems
    path.write_text(re.sub(r"^#(\w+ = )", r"\1", result.stdout, flags=re.M))
    found = toml_file.read(path)
    assert not found.problems and list(found.values) == [setting.name for setting in SETTINGS]
    for setting in SETTINGS:
        assert setting.default is None or found.values[setting.name] == setting.default
        assert setting.default is not None or (setting.example and setting.otherwise), setting.name
        assert f"\n#{setting.name} = " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120
    checked = place.tbxd("config", "check", str(path))
    assert f"{path}: all well, {len(SETTINGS)} settings" in checked.stdout


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_bounds_hold_for_a_file_as_they_do_elsewhere(setting: Setting) -> None:
    if setting.kind in (NUMBER, INTEGER):
        for value in (setting.least, setting.most, int(setting.most)):
            assert toml_file.taken(setting, value) == (value, "")
        for value in (setting.least - 0.001, setting.most + 1, "1", None, [], float("nan"), -1, 10**400):
            assert toml_file.taken(setting, value)[1].endswith("are possible"), value
    elif setting.choices:
        assert toml_file.taken(setting, setting.choices[0].upper()) == (setting.choices[0], "")
        assert ", ".join(setting.choices) in toml_file.taken(setting, "other")[1]
    for value in ({}, b"", True, 1.5j):
        assert toml_file.taken(setting, value)[1]


# --- what it costs -------------------------------------------------------------------------------------------


def test_the_reader_of_toml_is_imported_only_where_there_is_a_file_and_never_in_a_script_that_logs(
    place: World,
) -> None:
    script = """
        import sys
        from tbxd.cli.main import main
        try:
            main(["config", "path"])
        except SystemExit:
            pass
        print(sorted({"tomllib", "tomli", "tbxd.config.toml_file"} & set(sys.modules)))
    """
    assert place.run(script).stdout.splitlines()[-1] == "[]"
    script = """
        import sys
        import tbxd.daemon.lifecycle
        from tbxd.config.sources import Source
        Source(path=sys.argv[1]).load()
        print(sorted({"tomllib", "tomli", "tbxd.config.toml_file"} & set(sys.modules)))
    """
    assert place.run(script, f"-{place.config}").stdout == "[]\n"
    place.config.write_text("threads = 3")
    assert "tbxd.config.toml_file" in place.run(script, f"-{place.config}").stdout
    result = place.run(
        """
        import sys
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 1.0, 0)
            assert writer.flush(30)
        print(sorted({"tomllib", "tomli", "tbxd"} & set(sys.modules)))
        """
    )
    assert result.stdout == "[]\n", result.stderr


# --- completion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(place: World, shell: str) -> None:
    result = place.tbxd("completion", shell)
    assert result.returncode == 0 and f"_TBXD_COMPLETE={shell}_complete" in result.stdout
    assert place.tbxd("completion", "tcsh").returncode == 2


def test_bash_completes_commands_subcommands_options_and_words(place: World) -> None:
    """In a bash: what `tbxd completion bash` prints is evaluated, and its function called as for a Tab."""
    (place.root / "bin").mkdir()
    command = place.root / "bin" / "tbxd"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tbxd "$@"\n')
    command.chmod(0o755)
    script = """
        set -eu
        PATH="$1:$PATH"
        eval "$(tbxd completion bash)"
        function=$(complete -p tbxd | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        shift
        while [ $# -gt 0 ]; do
            COMP_WORDS=($1)
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            COMPREPLY=()
            "$function" tbxd "${COMP_WORDS[COMP_CWORD]}" ""
            echo "${COMPREPLY[*]}"
            shift
        done
    """
    lines = ["tbxd co", "tbxd config e", "tbxd serve --sync", "tbxd serve --sync al", "tbxd rel", "tbxd completion z"]
    result = place.shell(script, str(place.root / "bin"), *lines)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "completion config",
        "example",
        "--sync-seconds --sync",
        "always",
        "reload",
        "zsh",
    ]
