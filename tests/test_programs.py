"""The gallery: each program of tests/programs with tbxd in its writer's place, against what the original leaves.

`make test` runs each once, with a daemon that is there already or without one; `make programs` runs each with its
original writer, and with tbxd warm, cold, and with the daemon killed in the middle, and prints the table.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gallery
from gallery import CALL_SECONDS_PROMISED, Outcome, Program
from harness import World, world

ATTEMPTS = 3  # of a run in which a call took longer than is promised: it may be the machine
NAMED = os.environ.get("TBXD_PROGRAMS", "")  # only those with this in their names
ALL = [program for program in gallery.programs() if NAMED in program.name]


def parameters() -> list[Any]:
    found = []
    for program in ALL:
        why = program.facts.get("xfail")
        marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
        found.append(pytest.param(program, id=program.name, marks=marks))
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which a daemon runs all the while, as on somebody's machine."""
    with world(tmp_path_factory.mktemp("shared") / "world") as result:
        yield result


@pytest.fixture
def originals(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the original leaves: as it is kept, or run now."""

    def of(program: Program, anew: bool) -> dict[str, Any]:
        if "original" not in program.modes:
            return {"exit": program.exit, "alarms": [], "records": {}}
        found = gallery.kept(program)
        if found is not None and not anew:
            return found
        with world(tmp_path_factory.mktemp("original") / "world") as place:
            outcome = gallery.run(program, "original", place, place.root / "work")
        gallery.account(program, outcome, [])
        assert not outcome.error and outcome.exit == program.exit, (outcome.error, outcome.exit, outcome.stderr)
        assert outcome.records, "the original has written nothing"
        if found is None or anew:
            gallery.keep(program, outcome)
        kept = gallery.kept(program)
        assert kept
        return kept

    return of


def run(program: Program, mode: str, shared: World, tmp_path: Path) -> Outcome:
    if mode == "warm":
        shared.ensure()
        return gallery.run(program, mode, shared, tmp_path / "work")
    with world(tmp_path / "world") as place:
        place.root.chmod(0o777)  # a program may be of another user
        return gallery.run(program, mode, place, tmp_path / "work")


def hold(program: Program, outcome: Outcome, original: dict[str, Any]) -> None:
    wrong = gallery.faults(program, outcome, original)
    gallery.account(program, outcome, wrong)
    assert not wrong, (
        f"{program.path}, {outcome.mode}:\n" + "\n".join(wrong) + f"\n--- stderr\n{outcome.stderr[-3000:]}"
    )


@pytest.mark.parametrize("program", parameters())
def test_a_program_is_not_hurt_and_leaves_what_it_left(
    program: Program, originals: Any, shared: World, tmp_path: Path
) -> None:
    program.require()
    if "frameworks" in program.facts.get("needs", ""):
        pytest.skip("it takes long; `make programs` runs it")
    if os.environ.get("TBXD_PROGRAMS_MODE"):
        hold(program, run(program, os.environ["TBXD_PROGRAMS_MODE"], shared, tmp_path), originals(program, False))
        return
    modes = [mode for mode in program.modes if mode in ("warm", "cold")]
    mode = modes[zlib.crc32(program.name.encode()) % len(modes)]
    hold(program, run(program, mode, shared, tmp_path), originals(program, False))


@pytest.mark.matrix
@pytest.mark.parametrize("program", parameters())
def test_a_program_is_not_hurt_whatever_the_daemon_does(
    program: Program, originals: Any, shared: World, tmp_path: Path
) -> None:
    program.require()
    original = originals(program, True)
    for mode in (mode for mode in program.modes if mode != "original"):
        for attempt in range(ATTEMPTS):
            folder = tmp_path / f"{mode}{attempt}"
            folder.mkdir()
            outcome = run(program, mode, shared, folder)
            hold(program, outcome, original)
            longest = outcome.longest()
            if longest is None or longest.own <= CALL_SECONDS_PROMISED:
                break
            gallery.over.append(f"{program.name}, {mode}: {longest.method} {longest.own * 1e3:.0f} ms")
        else:
            raise AssertionError(f"{ATTEMPTS} times a call took over {CALL_SECONDS_PROMISED * 1e3:g} ms: {longest}")


def test_what_the_gallery_holds_against_a_program_is_found() -> None:
    """The harness itself: each kind of difference between two runs is told."""
    theirs = {"runs": {"loss": [[0, 1.0], [1, 0.5]], "text": [[0, ["hi"]]]}}
    assert not list(gallery.differences(theirs, theirs))
    for ours in (
        {},
        {"runs": {"loss": [[0, 1.0]], "text": [[0, ["hi"]]]}},
        {"runs": {"loss": [[1, 0.5], [0, 1.0]], "text": [[0, ["hi"]]]}},
        {"runs": {"loss": [[0, 1.0], [0, 1.0], [1, 0.5]], "text": [[0, ["hi"]]]}},
        {"runs": theirs["runs"], "runs/more": {"loss": [[0, 1.0]]}},
    ):
        assert len(list(gallery.differences(theirs, ours))) >= 1, ours
