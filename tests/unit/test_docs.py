"""The pages and the code say the same."""

from __future__ import annotations

import ast
import os
import re
import runpy
from pathlib import Path

from benchmarks import report
from harness import World, scalars, wait_for
from tbxd import drop_reasons
from tbxd.cli import main
from tbxd.config import settings as daemon_settings
from tbxd.config.sources import MACHINE_FILE
from tbxd.ingest.client_counts import CLIENT_REASONS
from tbxd.runs.lost_files import FILE_LOST
from tbxd.runs.unwritable import BAD_NAME
from tbxd.tfevents import rank_notes
from tbxd.tfevents.ledger import Entry, Marker, decode_ranks, decode_stretch, encode_ranks, notes
from tbxd.tools import check
from tbxd.transport import credit
from tbxd_client.config import settings as client_settings
from tbxd_client.config.paths import base_dir
from tbxd_client.distributed import job_identity, rank_policy
from tbxd_client.distributed import rank_detection as ranks
from tbxd_client.journal import journal_files
from tbxd_client.journal.fill_limits import SHARES_VARIABLE
from tbxd_client.protocol import kinds, limits, records, wire
from tbxd_client.protocol.records import pack_scalar, pack_text_record
from tbxd_client.writers import strict_mode

DOCS = Path(__file__).parents[2] / "docs"
README = (DOCS.parent / "README.md").read_text()
PROTOCOL = (DOCS / "PROTOCOL.md").read_text()
EVENT_FILE = (DOCS / "EVENT_FILE.md").read_text()
RANKS = (DOCS / "RANKS.md").read_text()
GUARANTEES = (DOCS / "GUARANTEES.md").read_text()
SECURITY = (DOCS / "SECURITY.md").read_text()
CLI = (DOCS / "CLI.md").read_text()
TESTS = Path(__file__).parents[1]


def example(text: str, name: str) -> str:
    found = re.search(rf"```example-{name}\n(.*?)\n```", text, re.S)
    assert found, name
    return found.group(1)


def test_the_examples_of_the_protocol_are_what_the_code_makes() -> None:
    assert bytes.fromhex(example(PROTOCOL, "scalar")) == pack_scalar(7, 1000, 1.5, 0.25)
    assert bytes.fromhex(example(PROTOCOL, "text")) == pack_text_record(kinds.TEXT, 1, 2, 0.0, {}, "hi")
    assert [bytes.fromhex(example(PROTOCOL, "goodbye"))] == wire.pack(wire.Goodbye(bytes(range(12))))


def test_the_marks_of_the_event_file_page_are_what_the_code_makes() -> None:
    marker, session = Marker(), bytes(range(12))
    marks = [
        marker.mark(session, Entry(34, 1), 34),
        marker.mark(session, Entry(106, 3), 34),
        marker.mark(session, Entry(206, 4, {"bad_record": 1}), 100, refused=True),
        marker.mark_values(session, Entry(308, 7, {"bad_record": 1}), 34, 3),
    ]
    assert example(EVENT_FILE, "mark").splitlines() == marks
    other = bytes((4, *range(1, 12)))
    ranks = Marker()
    far = [(Entry(34 * n, n), Entry(34 * n, n, {"late_rank": 1} if n == 3 else {})) for n in (1, 2, 3)]
    settled = [text for entries in far for text in ranks.settle(dict(zip((session, other), entries, strict=True)))]
    looked = [rank_notes.Looked(other, 136, 2, 102, 1), rank_notes.Looked(other, 136)]
    said = [rank_notes.encode_member(1, other), *rank_notes.encode_looked(looked)]
    said += [rank_notes.Restarted(1, 1, other, 136).encode(), encode_ranks([0, 1, 3], stretch=2)]
    assert example(EVENT_FILE, "ranks").splitlines() == said + settled
    assert rank_notes.decode_member(said[0]) == (1, other) and rank_notes.decode_looked(said[1]) == looked
    assert rank_notes.decode_restarted(said[2]) == rank_notes.Restarted(1, 1, other, 136)
    assert (decode_ranks(said[3]), decode_stretch(said[3])) == ({0, 1, 3}, 2)
    assert (decode_ranks("R.a"), decode_stretch("R.a"), decode_stretch("Ra")) == (None, 10, 0)
    assert example(EVENT_FILE, "note") == notes({session: {"journal_full": 31}})[0]


def test_every_limit_of_the_protocol_is_in_its_table_with_its_value() -> None:
    table = dict(re.findall(r"^\| `(\w+_MAX)` \| (\d+) \| (?:records|wire|limits) \|$", PROTOCOL, re.M))
    code = {
        name: str(value)
        for module in (records, wire, limits)
        for name, value in vars(module).items()
        if name.endswith("_MAX") and not name.startswith(("_", "STEP", "TEXT"))
    }
    assert table == code


def test_every_message_and_kind_is_described() -> None:
    assert set(re.findall(r"^\| (?:client|daemon|anyone) \| `(\w+)` \|", PROTOCOL, re.M)) == set(wire.MESSAGES)
    table = PROTOCOL.split("| kind | name |")[1].split("\n\n")[0]
    assert {int(kind): name for kind, name in re.findall(r"^\| (\d+) \| (\w+) \|", table, re.M)} == kinds.KIND_NAMES
    assert f"version {wire.VERSION}" in PROTOCOL.splitlines()[0]


def test_the_variables_that_tell_a_rank_are_on_their_page_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", RANKS, re.M)
    told = [(rank, tuple(re.findall(r"`(\w+)`", worlds))) for rank, worlds in rows]
    assert told == [(rank, (ranks.WORLD, *worlds)) for rank, worlds in ranks.LAUNCHERS.items()]
    for what, variables in (
        ("rank on its node", ranks.LOCAL_RANKS),
        ("ranks on its node", ranks.LOCAL_WORLDS),
        ("node", ranks.NODES),
        ("attempt, from 0 on", (ranks.ATTEMPT, ranks.ELASTIC_RESTARTS, ranks.SLURM_RESTARTS)),
    ):
        assert f"| {what} | {', '.join(f'`{name}`' for name in variables)} |" in RANKS, what
    assert f"more than {records.RANKS_MAX:,} ranks" in RANKS and f"{job_identity.RUN_ID}` is set" in RANKS
    for head, known in (("policy", client_settings.RANKS.choices), ("word", rank_policy.WORDS)):
        table = re.search(rf"^\| {head} \|.*\n\|---\|---\|\n((?:\|.*\n)+)", RANKS, re.M)
        assert table
        first = " ".join(row.split("|")[1] for row in table[1].splitlines())
        assert tuple(re.findall(r"`(\w+)`", first)) == known


def test_the_control_page_is_as_described() -> None:
    for offset, name in (
        (journal_files.WORD_COMMIT * 8, "committed"),
        (journal_files.WORD_RELEASED * 8, "released"),
        (journal_files.WORD_SYNCED * 8, "synced"),
        (journal_files.WORD_RECORDS * 8, "records logged"),
    ):
        assert f"| {offset} | {name}" in PROTOCOL
    assert ", ".join(f"`{reason}`" for reason in journal_files.DROP_REASONS) in PROTOCOL
    assert journal_files.SEGMENT_HEAD.size <= journal_files.SEGMENT_HEAD_BYTES == 64
    assert journal_files.CONTROL_HEAD.size <= 128


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    (table,) = re.findall(r"^\| \| tbxd .*?\n\n", (DOCS / "BENCHMARKS.md").read_text(), re.S | re.M)
    (first,) = re.findall(r"^\| \| tbxd .*?\n\n", README, re.S | re.M)
    assert len(table.splitlines()) > 10 and len(first.splitlines()) - 3 == len(report.HEADLINE)
    assert set(first.splitlines()) <= set(table.splitlines())


def test_every_setting_is_on_its_page() -> None:
    text = (DOCS / "SETTINGS.md").read_text()
    declared = (*client_settings.SETTINGS, *client_settings.CHOICES, *client_settings.TEXTS, *daemon_settings.SETTINGS)
    for variable in {setting.variable for setting in declared} | {daemon_settings.CONFIG.variable}:
        assert re.search(rf"`{variable}\b", text), variable
    assert str(base_dir()).replace(str(os.getuid()), "<uid>") in text


def test_the_page_of_settings_is_what_follows_from_their_declarations() -> None:
    text = (DOCS / "SETTINGS.md").read_text()
    assert runpy.run_path(str(DOCS / "settings.py"))["page"](text) == text, "python docs/settings.py"
    assert (
        str(MACHINE_FILE) in text and daemon_settings.CONFIG.variable in text and daemon_settings.CONFIG.option in text
    )
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    assert set(re.findall(r"^(\w+) = ", example, re.M)) <= {setting.name for setting in daemon_settings.SETTINGS}


def reasons_of(path: Path) -> set[str]:
    """Every text that a module gives as a reason for a drop: as an argument, or to a variable of that name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = node.args[:1] if name in ("Refused", "drop", "count_drop", "refuse") else []
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=True))
                given += [value for name, value in pairs if getattr(name, "id", "") == "reason"]
        found |= {value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)}
    return found - {""}


def test_every_reason_for_a_drop_is_in_the_guarantees_and_no_other() -> None:
    table = GUARANTEES.split("| reason | counted by |")[1].split("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (trainer|daemon|both) \|", table, re.M))
    client = {*CLIENT_REASONS, strict_mode.REASON}
    daemon = {FILE_LOST, BAD_NAME, drop_reasons.ONNX_NOT_INSTALLED, drop_reasons.LATE_RANK, drop_reasons.TOO_MANY_TAGS}
    for path in (DOCS.parent / "client").rglob("*.py"):
        client |= reasons_of(path)
    for path in (DOCS.parent / "tbxd").rglob("*.py"):
        daemon |= reasons_of(path)
    assert {reason for reason, who in told.items() if who != "daemon"} == client == set(CLIENT_REASONS)
    assert {reason for reason, who in told.items() if who != "trainer"} == daemon
    for reason in drop_reasons.HINTS:
        assert reason in told


def test_what_the_guarantees_name_is_there() -> None:
    tests = {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)
    }
    for page, least in ((GUARANTEES, 30), (SECURITY, 20)):
        named = set(re.findall(r"`(test_\w+)`", page))
        assert len(named) > least and named <= tests, named - tests
    tables = re.findall(r"^\| who or what \|.*\n\|---.*\n((?:\|.*\n)+)", SECURITY, re.M)
    rows = [line for table in tables for line in table.splitlines()]
    assert len(rows) > 15 and all("`test_" in row for row in rows), "each of them has a test"
    quotas = dict(re.findall(r"^\| `(key_\w+)` \| ([^|]+) \|", SECURITY, re.M))
    limits = {one.name: one.default for one in daemon_settings.SETTINGS if one.name.startswith("key_")}
    assert quotas == {name: f"{most:,.0f}" if most else "no limit" for name, most in limits.items()}
    declared = (*client_settings.SETTINGS, *client_settings.CHOICES, *daemon_settings.SETTINGS)
    variables = {setting.variable for setting in declared}
    assert set(re.findall(r"TBXD_[A-Z_]+", GUARANTEES)) <= variables | {SHARES_VARIABLE}
    limits = (TESTS / "faults" / "test_limits.py").read_text()
    trainer = re.search(r"^TRAINER_BYTES = (\d+) << 20", limits, re.M)
    assert trainer
    memory = " ".join(GUARANTEES.split("## Memory and disk\n")[1].split("\n## ")[0].split())
    for told in (
        f"{trainer[1]} MiB of memory of its own",
        f"**Daemon**: {credit.BASE_BYTES >> 20} MiB, plus {credit.COPIES} times the records on the way",
        f"{credit.QUEUE_BYTES_MAX >> 20} MiB on the way",
        f"at most {credit.WINDOW_BYTES_MAX >> 20} MiB and at least {credit.WINDOW_BYTES_MIN >> 10} KiB",
        f"This makes {credit.memory_most(8) >> 20} MiB with 8 sessions",
        f"and {round(credit.memory_most(250) / (1 << 20))} MiB with 250 sessions",
        f"share another {credit.HURRY_BYTES_MAX >> 20} MiB",
        f"another {credit.GRANTS_BYTES_MAX >> 20} MiB for records",
        f"at most {credit.KEPT_BYTES_MAX >> 20} MiB for records that wait only for other ranks",
    ):
        assert told in memory, told
    for page in ("README.md", "docs/ARCHITECTURE.md"):
        assert "GUARANTEES.md)" in (DOCS.parent / page).read_text(), page


def test_every_command_and_option_is_on_the_page_of_the_command_line() -> None:
    sections = dict(re.findall(r"^## tbxd (\w+)\n(.*?)(?=^## |\Z)", CLI, re.S | re.M))
    assert sections.keys() == main.main.commands.keys()
    head = CLI.split("\n## ")[0]
    for name, command in main.main.commands.items():
        assert f"`tbxd {name}" in README, name
        inside = getattr(command, "commands", {})
        assert all(f"`tbxd {name} {one}" in sections[name] for one in inside), name
        told = sections[name] + head + (sections["serve"] if name == "config" else "")  # has the options of that
        for option in [param for one in (command, *inside.values()) for param in one.params]:
            longest = max(option.opts, key=len)
            if longest.startswith("--") and not getattr(option, "hidden", False):
                assert f"`{longest}" in told or f" {longest}" in sections[name], (name, longest)
    assert "CLI.md)" in README and "](SETTINGS.md)" in head


def test_every_kind_of_problem_and_exit_code_is_on_the_page_of_the_command_line() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (trouble|warning|note) \| (.+?) \| (.+?) \|$", CLI, re.M)
    assert rows == [(name, kind.level, kind.means, kind.advice) for name, kind in check.KINDS.items()]
    shown = re.findall(r"^(?:trouble|warning) runs/.*$", CLI, re.M)
    assert shown
    for line in shown:
        assert any(kind.means in line and line.endswith(kind.advice) for kind in check.KINDS.values()), line
    codes = {value for name, value in vars(main).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d) \|", CLI, re.M)} == codes | {0}
    for name in ("check", "doctor", "tail", "version", "reload"):
        assert "Exit code" in (main.main.commands[name].help or "")


def test_the_readme_leads_nowhere_that_is_not_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((DOCS.parent / link).exists() for link in links)


def test_the_first_example_of_the_readme_runs(place: World) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.S)
    assert example
    result = place.run(
        f"""
import types
import numpy as np
loader, loss = range(10), 0.5
model = types.SimpleNamespace(layer1=types.SimpleNamespace(weight=np.ones((3, 4), np.float32)))
{example.group(1)}
"""
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.root / "runs" / "exp1") == {"train/loss": [(step, 0.5) for step in range(10)]}


def test_each_long_test_is_there() -> None:
    for name in filter(None, (TESTS / "long_tests.txt").read_text().splitlines()):
        if not name.startswith("#"):
            path, _, function = name.partition("::")
            assert f"def {function}(" in (TESTS / path).read_text(), name
