"""Hosts that share nothing but a connection to the daemon: one dies and its journal comes late, by `tbxd drain` there;
another one goes on with its work, whose clocks are others."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from harness import World, scalars, wait_for
from hosts import Hosts, hosts
from test_check import check
from test_hidden import copied
from test_successors import LATE, beside, of, shown

# Each host has a start of its system of its own, and what its monotonic clock says has nothing to do with another's.
BOOTED = """
import os
from tbxd_client.distributed import process_identity as origin
_clock = origin._clock
origin._boot = os.environ["BOOT"] * 16
origin._clock = lambda: _clock() + float(os.environ["UP"])
"""
HOST_A = {"BOOT": "a", "UP": "90000"}
HOST_B = {"BOOT": "b", "UP": "-500", "LIFE": "2"}


@pytest.fixture
def two(place: World) -> Iterator[Hosts]:
    with hosts(place) as found:
        yield found


def booted(script: str) -> str:
    return BOOTED + textwrap.dedent(script)


@pytest.mark.parametrize("writer", ["{}", pytest.param("dict(purge_step=250)", marks=pytest.mark.long)])
@pytest.mark.parametrize("job", [{}, pytest.param({"TBXD_RUN_ID": "job"}, marks=pytest.mark.long)])
def test_a_dead_hosts_journal_that_comes_late_over_the_network_is_written_beside(
    two: Hosts, writer: str, job: dict[str, str]
) -> None:
    """A logs 0 to 1499, of which the daemon has 1260, and dies; B goes on at 250, its clock a second behind; then
    `tbxd drain` on A."""
    place, key = two.place, two.key("a")
    other = two.another("other")
    other_key = other.key("b")
    two.serve()
    attempt = {**job, "TBXD_ATTEMPT": "0"} if job else {}
    dead = place.start(booted(LATE), environ=two.environ(key, **HOST_A, **attempt), stdin=-1, stdout=-1)
    assert dead.stdout is not None and dead.stdin is not None
    assert dead.stdout.readline() == b"1260\n"
    place.kill_daemon()
    dead.stdin.write(b"\n")
    dead.stdin.close()
    assert dead.wait() == -9
    assert len(two.left()) == 1

    two.serve()
    attempt = {**job, "TBXD_ATTEMPT": "1"} if job else {}
    result = place.run(booted(LATE), environ=other.environ(other_key, **HOST_B, WRITER=writer, SHIFT="-1", **attempt))
    assert result.returncode == 0, result.stderr
    wait_for(lambda: not other.left(), "what the successor has logged")
    whole = of(1, 0, 250) + of(2, 250, 2000)
    assert shown(place.logdir) == {"run": whole}

    drained = two.tbxd(key, "drain")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    assert not two.left()
    found = shown(place.logdir)
    assert found["run"] == whole and list(beside(found).values()) == [of(1, 1260, 1500)]
    assert len(scalars(place.logdir / "run")["loss"]) == 1260 + 1750

    code, answer = check(place, place.logdir)
    assert code == 0 and answer["found"]["late"] == 1
    assert answer["by"]["late"]["detail"] == next(run for run in found if run != "run").removeprefix("run/")
    assert answer["hidden"] == 1260 - 250
    _, copies = copied(place)
    assert shown(copies) == {**found, "run/replaced-1": of(1, 250, 1260)}


@pytest.mark.parametrize("writer", ["{}", pytest.param("dict(purge_step=250)", marks=pytest.mark.long)])
@pytest.mark.parametrize("shift", [pytest.param("-1", marks=pytest.mark.long), "60"])
def test_a_host_whose_clock_is_another_goes_on_where_the_first_has_ended(two: Hosts, writer: str, shift: str) -> None:
    """3,250 points there were, 1,250 steps twice, and a purge_step that was ignored."""
    place, key = two.place, two.key("a")
    other = two.another("other")
    other_key = other.key("b")
    two.serve()
    dead = place.start(booted(LATE), environ=two.environ(key, **HOST_A), stdin=-1, stdout=-1)
    assert dead.stdout is not None and dead.stdout.readline() == b"1260\n"
    dead.kill()
    dead.wait()
    result = place.run(booted(LATE), environ=other.environ(other_key, **HOST_B, WRITER=writer, SHIFT=shift))
    assert result.returncode == 0, result.stderr
    wait_for(lambda: not other.left(), "what the successor has logged")
    assert shown(place.logdir) == {"run": of(1, 0, 250) + of(2, 250, 2000)}
    assert two.tbxd(key, "drain").returncode == 0
    code, answer = check(place, place.logdir)
    assert code == 0 and answer["found"] == {"restart": 1} and answer["points_lost"] == 0
