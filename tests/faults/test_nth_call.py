"""Kills at a chosen system call: between write and acknowledgement, in the middle of a repair, of a clean-up."""

from __future__ import annotations

from typing import Any

import pytest

from harness import World, wait_for
from inject import KILLED, start_daemon, strace, train
from oracle import judge, read_count
from report import account

COUNT = 1500  # a histogram, some texts and rows among them


def trained(place: World, number: int) -> Any:
    """A trainer that has logged with nobody to send to, and whose journal waits."""
    process = train(place, number, "logs/a", count=COUNT, end="os._exit", environ={"TBXD_ADDRESS": "ipc:///nobody"})
    assert process.wait() == 9
    return process


def drained_by_a_daemon(place: World) -> None:
    place.ensure()
    wait_for(place.drained, "all journals to be drained")


def cases(short: list[tuple[str, int]], matrix: list[tuple[str, range]]) -> list[Any]:
    everything = [(call, when) for call, whens in matrix for when in whens]
    return [
        *(pytest.param(call, when, id=f"{call} {when}") for call, when in short),
        *(
            pytest.param(call, when, id=f"{call} {when}", marks=pytest.mark.matrix)
            for call, when in everything
            if (call, when) not in short
        ),
    ]


DAEMON_CALLS = cases(
    [("write", 4)],
    [
        ("write", range(1, 25)),
        ("pwrite64", range(1, 6)),
        ("fdatasync", range(1, 4)),
        ("?rename,?renameat,?renameat2", range(1, 2)),
        ("?ftruncate,?truncate", range(1, 3)),
        ("unlink,unlinkat", range(1, 6)),
        ("?rmdir", range(1, 3)),
        ("?mkdir", range(1, 4)),
        ("flock", range(1, 5)),
    ],
)


@pytest.mark.parametrize(("call", "when"), DAEMON_CALLS)
def test_a_daemon_killed_at_its_nth_call_loses_and_doubles_nothing(place: World, call: str, when: int) -> None:
    """Killed with a living trainer and with journals to adopt; then its successor too, while it repairs."""
    trained(place, 0)
    address = f"ipc://{place.runtime}/daemon.sock"  # a configured one: the trainer starts no daemon of its own
    options = {"TBXD_ADDRESS": address, "TBXD_FLUSH_SECONDS": "30"}
    alive = train(place, 1, "logs/a", count=COUNT, hz=2000, wait=True, environ=options)
    place.extra["TBXD_THREADS"] = "1"  # calls are counted by thread
    kills = []
    for attempt, n in enumerate((when, when, max(1, when // 2))):
        daemon = start_daemon(place, strace(call, f"signal=SIGKILL:when={n}", place.root / f"strace{attempt}"))
        wait_for(lambda daemon=daemon: daemon.poll() is not None or _quiet(place), "a kill, or nothing left to do")
        if daemon.poll() is None:
            place.tbxd("stop")  # the call may come with its end
            daemon.wait(60)
        assert daemon.returncode in (0, *KILLED), daemon.stderr.read()
        kills.append(daemon.returncode != 0)
    drain_and_end(place, alive)
    counts = {number: read_count(place, number) for number in (0, 1)}
    assert all(count.ended for count in counts.values())
    verdict = judge([place.logdir / "a"], counts)
    verdict.assert_clean()
    if kills[0]:
        account("nth_call", 1, verdict)
    if any(kills[1:]):
        account("repair_kill", sum(kills[1:]), None if kills[0] else verdict)


def _quiet(place: World) -> bool:
    """Whether a daemon runs and has nothing to do: the call that was to kill it has not come, and will not come."""
    status = place.status()
    if status is None or status["totals"]["pending"]:
        return False
    journals = place.journals()
    return len(journals) == 1 and read_count(place, 1).ended


def drain_and_end(place: World, alive: Any) -> None:
    place.ensure()
    alive.stdin.write(b"\n")
    alive.stdin.close()
    assert alive.wait(60) == 0, "the exit code of training"
    drained_by_a_daemon(place)


TRAINER_CALLS = cases(
    [],
    [
        ("?mkdir", range(1, 6)),
        ("?fallocate", range(1, 6)),
        ("?ftruncate", range(1, 3)),
        ("?rename,?renameat,?renameat2", range(1, 4)),
        ("unlink,unlinkat", range(1, 8)),
        ("?rmdir", range(1, 3)),
        ("pwritev", range(1, 3)),
        ("pwrite64", range(1, 5)),
        ("write", range(1, 8)),
        ("flock", range(1, 4)),
        ("fdatasync", range(1, 4)),
        ("mmap", range(150, 230, 8)),
    ],
)


@pytest.mark.parametrize(("call", "when"), TRAINER_CALLS)
def test_a_trainer_killed_at_its_nth_call_leaves_a_journal_that_is_written(place: World, call: str, when: int) -> None:
    """Also while it makes its journal and while it deletes it: nothing of it stays behind."""
    place.serve()
    log = place.root / "strace"
    trainer = train(
        place, 0, "logs/a", strace(call, f"signal=SIGKILL:when={when}", log), count=COUNT, hz=3000, flush=30
    )
    trainer.wait(60)
    if trainer.returncode not in KILLED:
        assert trainer.returncode == 0, "a call that does not come"
    wait_for(place.drained, "the journal to be drained, whatever state it is in")
    counts = {0: read_count(place, 0)}
    verdict = judge([place.logdir / "a"], counts)
    if trainer.returncode in KILLED:
        account("trainer_nth_call", 1, verdict)
    verdict.assert_clean()
