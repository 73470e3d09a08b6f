"""The list of slips is kept: each can be made as the code is now, and its tests are there."""

from __future__ import annotations

import ast
import random

import pytest

from mutants import GENERATED_COUNT, generated
from slip_list import FOLDER, GENERATED, KNOWN, ROOT, by_hand, lists, paths_of, tables

TOTAL_MIN, BY_HAND_MIN = 150, 100


@pytest.mark.parametrize("path", lists(), ids=lambda path: path.stem)
def test_each_slip_changes_one_place_and_leaves_python(path) -> None:
    for entry in tables(path)["slip"]:
        text = (ROOT / entry["file"]).read_text()
        assert text.count(entry["old"]) == 1, (entry["file"], entry["old"])
        assert entry["old"] != entry["new"] and entry["seen"] and entry["tests"]
        ast.parse(text.replace(entry["old"], entry["new"]))


def test_the_tests_that_have_to_notice_are_there() -> None:
    names = {name for slip in by_hand() for name in slip.tests}
    names |= {name for module in tables(FOLDER / GENERATED)["module"] for name in module["tests"]}
    for name in sorted(names):
        path, _, test = paths_of((name,))[0].partition("::")
        if test:
            tree = ast.parse((ROOT / path).read_text())
            functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test.partition("[")[0] in functions, name


def test_there_are_enough_slips_and_none_twice() -> None:
    hand, made = [slip for slip in by_hand() if slip.group != KNOWN], generated()
    places = [(slip.file, slip.begin, slip.end, slip.new) for slip in (*hand, *made)]
    assert len({(slip.file, slip.begin, slip.new) for slip in hand}) == len(hand) >= BY_HAND_MIN
    assert len(hand) + min(GENERATED_COUNT, len(made)) >= TOTAL_MIN
    assert len(places) > len(hand)


def test_generated_slips_leave_python_and_change_it() -> None:
    made = generated()
    texts = {slip.file: (ROOT / slip.file).read_text() for slip in made}
    for slip in random.Random(1).sample(made, min(100, len(made))):
        text = texts[slip.file]
        ast.parse(slip.apply(text))
        assert "".join(slip.new.split()) != "".join(text[slip.begin : slip.end].split()), slip.describe(text)


def test_slips_that_change_nothing_are_named_by_lines_that_are_there() -> None:
    for entry in tables(FOLDER / GENERATED).get("same", []):
        assert entry["old"] in (ROOT / entry["file"]).read_text() and entry["why"], entry
