"""The pages and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from tbxd.events.ledger import Entry, Marker
from tbxd_client import journal_files, records, wire
from tbxd_client.records import pack_scalar, pack_text_record

DOCS = Path(__file__).parent.parent / "docs"
PROTOCOL = (DOCS / "PROTOCOL.md").read_text()
EVENT_FILE = (DOCS / "EVENT_FILE.md").read_text()


def example(text: str, name: str) -> str:
    found = re.search(rf"```example {name}\n(.*?)\n```", text, re.S)
    assert found, name
    return found.group(1)


def test_the_examples_of_the_protocol_are_what_the_code_makes() -> None:
    assert bytes.fromhex(example(PROTOCOL, "scalar")) == pack_scalar(7, 1000, 1.5, 0.25)
    assert bytes.fromhex(example(PROTOCOL, "text")) == pack_text_record(records.TEXT, 1, 2, 0.0, {}, "hi")
    assert [bytes.fromhex(example(PROTOCOL, "goodbye"))] == wire.pack(wire.Goodbye(bytes(range(12))))


def test_the_marks_of_the_event_file_page_are_what_the_code_makes() -> None:
    marker, session = Marker(), bytes(range(12))
    marks = [
        marker.mark(session, Entry(34, 1), 34),
        marker.mark(session, Entry(106, 3), 34),
        marker.mark(session, Entry(206, 4, {"bad_record": 1}), 100, refused=True),
    ]
    assert example(EVENT_FILE, "mark").splitlines() == marks


def test_every_limit_of_the_protocol_is_in_its_table_with_its_value() -> None:
    table = dict(re.findall(r"^\| `(\w+_MAX)` \| (\d+) \| (?:records|wire) \|$", PROTOCOL, re.M))
    code = {
        name: str(value)
        for module in (records, wire)
        for name, value in vars(module).items()
        if name.endswith("_MAX") and not name.startswith(("_", "STEP", "TEXT"))
    }
    assert table == code


def test_every_message_and_kind_is_described() -> None:
    assert set(re.findall(r"^\| (?:client|daemon|anyone) \| `(\w+)` \|", PROTOCOL, re.M)) == set(wire.MESSAGES)
    assert {int(kind): name for kind, name in re.findall(r"^\| (\d) \| (\w+) \|", PROTOCOL, re.M)} == records.KIND_NAMES
    assert f"version {wire.VERSION}" in PROTOCOL.splitlines()[0]


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
