"""The gallery: each program of scripts/ with tbxd in its writer's place, against what the original leaves.

`make test-all` runs each once (`make test` all but a few), with a daemon that is there already or without one.
`make programs` runs each with its original writer, and with tbxd warm, cold, and with the daemon killed in the middle,
and prints the table.
"""

from __future__ import annotations

import os
import queue
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gallery
from gallery import CALL_SECONDS_PROMISED, Call, Outcome, Program
from harness import World, world

AT_A_TIME = min(2, os.cpu_count() or 1)  # programs that run beside each other
ATTEMPTS = 3  # of a run in which a call took longer than is promised: it may be the machine
NAMED = os.environ.get("TBXD_PROGRAMS", "")  # only those with this in their names
MODE = os.environ.get("TBXD_PROGRAMS_MODE", "")  # instead of warm or cold, as the name has it
LONG = {  # seconds of processor time each, most of it for other packages in several processes
    *("dataloader_each_epoch", "dataloader_forkserver", "dataloader_spawn", "few_processes", "mp_spawn", "signals_log"),
    *("torchrun_all_ranks", "torchrun_elastic"),
}
TWICE = "test_a_program_is_not_hurt_whatever_the_daemon_does"


class Hurt(AssertionError):
    """A program is not as it is with its original writer."""


def parameters() -> list[Any]:
    found = []
    for program in gallery.programs():
        why = program.facts.get("xfail")
        marks: list[Any] = [pytest.mark.xfail(reason=why, strict=True, raises=Hurt)] if why else []
        if program.name in LONG:
            marks.append(pytest.mark.long)
        if NAMED in program.name:
            found.append(pytest.param(program, id=program.name, marks=marks))
    return found


@dataclass
class Result:
    """The runs of a program, and what the original leaves."""

    original: dict[str, Any]
    outcomes: list[Outcome] = field(default_factory=list)
    slow: list[tuple[str, Call]] = field(default_factory=list)  # modes and calls that took too long each time


class Runner:
    """Runs programs, some beside each other."""

    def __init__(self, folder: Path, warm: list[World]) -> None:
        self._folder = folder
        self._warm: queue.SimpleQueue[World] = queue.SimpleQueue()  # those with a daemon all the while; one each
        for place in warm:
            self._warm.put(place)

    def once(self, program: Program) -> Result:
        """Run a program with tbxd."""
        modes = [mode for mode in program.modes if mode in ("warm", "cold")]
        mode = MODE or modes[zlib.crc32(program.name.encode()) % len(modes)]
        return Result(self._original(program, False), [self._run(program, mode)])

    def all(self, program: Program) -> Result:
        """Run a program in each of its modes, again where a call takes longer than is promised."""
        result = Result(self._original(program, True))
        for mode in program.modes:
            if mode == "original":
                continue
            for attempt in range(ATTEMPTS):
                outcome = self._run(program, mode, attempt)
                longest = outcome.longest()
                if longest is None or not longest.long or "crowded" in program.facts:
                    break
                if attempt == ATTEMPTS - 1:
                    result.slow.append((mode, longest))
            result.outcomes.append(outcome)
        return result

    def _original(self, program: Program, anew: bool) -> dict[str, Any]:
        """Return the original's outcome: the kept one, or of a run now."""
        if "original" not in program.modes:
            return {"exit": program.exit, "alarms": [], "records": {}}
        found = gallery.kept(program)
        if found is None or anew:
            outcome = self._run(program, "original")
            gallery.account(program, outcome, [])
            assert not outcome.error and outcome.exit == program.exit, (outcome.error, outcome.exit, outcome.stderr)
            assert outcome.records, "the original has written nothing"
            found = gallery.keep(program, outcome)
        return found

    def _run(self, program: Program, mode: str, attempt: int = 0) -> Outcome:
        folder = self._folder / f"{program.name}-{mode}-{attempt}"
        if mode == "warm":
            place = self._warm.get()
            try:
                place.ensure()
                return gallery.run(program, mode, place, folder)
            finally:
                self._warm.put(place)
        with world(self._folder / f"{program.name}-{mode}-{attempt}-world") as place:
            place.root.chmod(0o777)  # a program may be of another user
            return gallery.run(program, mode, place, folder)


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Program, bool], Result]]:
    """The result of a program, of one run or of all: those that are asked for later run meanwhile."""
    folder = tmp_path_factory.mktemp("programs")
    with ExitStack() as stack:
        warm = [stack.enter_context(world(folder / f"warm{number}")) for number in range(AT_A_TIME)]
        runner = Runner(folder, warm)
        pool = ThreadPoolExecutor(AT_A_TIME)
        stack.callback(pool.shutdown, cancel_futures=True)
        futures: dict[tuple[str, bool], Future[Result]] = {}
        for item in request.session.items:
            program = getattr(getattr(item, "callspec", None), "params", {}).get("program")
            if isinstance(program, Program):
                every = getattr(item, "originalname", "") == TWICE
                if not program.missing() and (every or not program.heavy):
                    futures[program.name, every] = pool.submit(runner.all if every else runner.once, program)
        yield lambda program, every: futures[program.name, every].result()


def hold(program: Program, result: Result) -> None:
    for outcome in result.outcomes:
        wrong = gallery.faults(program, outcome, result.original)
        gallery.account(program, outcome, wrong)
        told = "\n".join(wrong)
        if wrong:
            raise Hurt(f"{program.path}, {outcome.mode}:\n{told}\n--- stderr\n{outcome.stderr[-3000:]}")


@pytest.mark.parametrize("program", parameters())
def test_a_program_is_not_hurt_and_leaves_what_it_left(program: Program, results: Any) -> None:
    program.require()
    if program.heavy:
        pytest.skip("it takes long; `make programs` runs it")
    hold(program, results(program, False))


@pytest.mark.matrix
@pytest.mark.parametrize("program", parameters())
def test_a_program_is_not_hurt_whatever_the_daemon_does(program: Program, results: Any) -> None:
    program.require()
    result = results(program, True)
    hold(program, result)
    gallery.over += [f"{program.name}, {mode}: {call.method} {call.own * 1e3:.0f} ms" for mode, call in result.slow]
    if result.slow:
        raise Hurt(f"each of {ATTEMPTS} times a call took over {CALL_SECONDS_PROMISED * 1e3:g} ms: {result.slow}")


def test_what_the_gallery_holds_against_a_program_is_found() -> None:
    """The harness itself: each kind of difference between two runs is told."""
    theirs: gallery.Records = {"runs": {"loss": [[0, 1.0], [1, 0.5]], "text": [[0, ["hi"]]]}}
    assert not list(gallery.differences(theirs, theirs))
    others: list[gallery.Records] = [
        {},
        {"runs": {"loss": [[0, 1.0]], "text": [[0, ["hi"]]]}},
        {"runs": {"loss": [[1, 0.5], [0, 1.0]], "text": [[0, ["hi"]]]}},
        {"runs": {"loss": [[0, 1.0], [0, 1.0], [1, 0.5]], "text": [[0, ["hi"]]]}},
        {"runs": theirs["runs"], "runs/more": {"loss": [[0, 1.0]]}},
    ]
    for ours in others:
        assert list(gallery.differences(theirs, ours)), ours


def test_what_a_program_says_of_itself_is_known(tmp_path: Path) -> None:
    found = gallery.programs()
    assert len(found) >= 50 and len({program.name for program in found}) == len(found)
    for text, told in (('"""One."""\n# neds: torch\n', "neds"), ('"""One."""\n# meant: else: why\n', "else")):
        (tmp_path / "one.py").write_text(text)
        with pytest.raises(ValueError, match=told):
            gallery.read(tmp_path / "one.py")
    (tmp_path / "one.py").write_text('"""One."""\n# needs: torch\n# exit: 7\n\nimport os\n# run: away\n')
    program = gallery.read(tmp_path / "one.py")
    assert (program.title, program.exit, program.command) == ("One.", 7, "python $PROGRAM")
