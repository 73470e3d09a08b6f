"""Log lines: as journald wants them where it listens, at the level asked for, and not the same one for ever."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness import World, wait_for
from tbxd.process import logs


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[logs.Limiter, io.StringIO, list[float]]]:
    """Log into a text, by a clock of the test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    text, clock = io.StringIO(), [1000.0]
    monkeypatch.setattr(sys, "stderr", text)
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    try:
        yield logs.begin("info"), text, clock
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_one_text_is_told_once_in_a_while_and_then_how_often_it_was_not(
    told: tuple[logs.Limiter, io.StringIO, list[float]],
) -> None:
    limiter, text, clock = told
    log = logging.getLogger("tbxd.some")
    for second in range(100):
        clock[0] = 1000.0 + second
        log.warning("%s: %s", "runs/a", "No space left on device")
        limiter.tell(clock[0])
    limiter.tell()
    lines = text.getvalue().splitlines()
    assert [line for line in lines if line.endswith("tbxd.some: runs/a: No space left on device")]
    more = [int(found) for found in re.findall(r"(\d+) more like this in \d+ s: runs/a: No space", text.getvalue())]
    assert len(lines) - len(more) + sum(more) == 100, "each is told or counted"
    assert len(lines) - len(more) == len(more) == 4, lines


def test_texts_of_one_kind_are_told_so_many_times_and_do_not_hold_up_others(
    told: tuple[logs.Limiter, io.StringIO, list[float]],
) -> None:
    limiter, text, clock = told
    log = logging.getLogger("tbxd.some")
    for number in range(10 * logs.KEYS_MAX):
        log.warning("session %d refused", number)
    log.warning("session %d is broken", 1)
    assert len(limiter._windows) <= logs.KEYS_MAX + 2
    clock[0] += logs.REPEAT_SECONDS
    limiter.tell(clock[0])
    lines = text.getvalue().splitlines()
    assert sum("refused" in line and "more like" not in line for line in lines) == logs.BURST
    assert sum("is broken" in line for line in lines) == 1
    assert sum(map(int, re.findall(r"(\d+) more like", text.getvalue()))) == 10 * logs.KEYS_MAX - logs.BURST
    assert not limiter._windows, "nothing is kept"


def test_another_exception_of_the_same_place_is_told(told: tuple[logs.Limiter, io.StringIO, list[float]]) -> None:
    _, text, _ = told
    for error in (ValueError("one"), ValueError("one"), ValueError("two")):
        try:
            raise error
        except ValueError:
            logging.getLogger("tbxd.some").exception("runs/a")
    assert text.getvalue().count("ValueError: one") == text.getvalue().count("ValueError: two") == 1


def test_journald_gets_priorities_and_no_times_for_every_line_of_a_traceback(place: World) -> None:
    script = """
        import logging
        from tbxd.process import logs
        logs.begin("debug")
        log = logging.getLogger("tbxd.some")
        log.debug("five")
        log.info("four")
        log.warning("two\\nlines")
        log.critical("one")
        try:
            raise ValueError("three")
        except ValueError:
            log.exception("runs/a")
    """
    reading, writing = os.pipe()
    state = os.fstat(writing)
    name = f"{state.st_dev}:{state.st_ino}"
    with os.fdopen(reading) as stream:
        process = place.start(script, environ={"JOURNAL_STREAM": name}, stderr=writing)
        os.close(writing)
        lines = stream.read().splitlines()
    assert process.wait() == 0
    assert lines[:5] == [
        "<7>tbxd.some: five",
        "<6>tbxd.some: four",
        "<4>tbxd.some: two",
        "<4>lines",
        "<2>tbxd.some: one",
    ]
    assert lines[5] == "<3>tbxd.some: runs/a" and lines[-1] == "<3>ValueError: three"
    assert all(line.startswith("<3>") for line in lines[5:])
    elsewhere = place.run(script, environ={"JOURNAL_STREAM": name}).stderr
    assert re.match(r"\d{4}-\d\d-\d\d .* DEBUG tbxd.some: five\n", elsewhere), "a name that is not of this stream"


@pytest.mark.parametrize(
    ("arguments", "environ", "shown"),
    [
        ((), {}, False),
        (("--verbose",), {}, True),
        ((), {"TBXD_LOG_LEVEL": "debug"}, True),
        (("--log-level", "info"), {"TBXD_LOG_LEVEL": "error"}, True),
        (("--verbose", "--log-level", "error"), {}, False),
        (("--service", "/nowhere/tbxd.service"), {}, True),
    ],
)
def test_the_level_is_a_setting(place: World, arguments: tuple[str, ...], environ: dict[str, str], shown: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "serve", *arguments],
        env={**place.environ, **environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    place.processes.append(process)
    wait_for(place.running, "the daemon")
    assert place.tbxd("stop").returncode == 0
    assert ("listens at" in process.communicate()[1]) == shown


def test_a_level_that_there_is_not_is_refused(place: World) -> None:
    refused = place.tbxd("serve", "--log-level", "loud")
    assert refused.returncode == 2 and "'debug', 'info', 'warning', 'error'" in refused.stderr
