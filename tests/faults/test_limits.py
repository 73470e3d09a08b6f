"""At the limits: descriptors, a full journal, more records than the daemon can take."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import World, scalars, wait_for
from inject import NOBODY, descriptors, injected, say_go, start_daemon, tampered, told, train
from oracle import Count, judge, read_count
from report import account
from tb import LOADERS, board
from tbxd.transport import credit
from tbxd_client.transport.headroom import DESCRIPTORS

MANY_RUNS = """
import sys
sys.path.insert(0, sys.argv[1])
from numbered import log_record
from tbxd_client import SummaryWriter
runs, rounds = int(sys.argv[2]), int(sys.argv[3])
writers = [SummaryWriter(f"logs/{run}") for run in range(runs)]
for n in range(rounds):
    for run, writer in enumerate(writers):
        log_record(writer, run, n, mixed=False)
    if n % 2:
        assert writers[0].flush(100)
print("done")
"""


def limit_descriptors(most: int) -> list[str]:
    """The command that runs another one with so many file descriptors, hard and soft."""
    return ["prlimit", f"--nofile={most}:{most}"]


@pytest.mark.parametrize("runs", [100, pytest.param(300, marks=pytest.mark.matrix)])
def test_more_runs_than_descriptors_are_all_written(place: World, runs: int) -> None:
    most, rounds = 64, 6
    daemon = start_daemon(place, limit_descriptors(most))
    wait_for(place.running, "the daemon")
    result = place.run(MANY_RUNS, Path(__file__).parent, runs, rounds, timeout=300)
    assert result.returncode == 0, result.stderr
    assert daemon.poll() is None and descriptors(daemon.pid) <= most
    wait_for(place.drained, "the journal")
    counts = {run: Count(rounds, True) for run in range(runs)}
    account("descriptors", runs, judge([place.logdir / str(run) for run in range(runs)], counts))


@pytest.mark.matrix
def test_a_daemon_raises_its_limit_for_more_clients_than_the_soft_one_allows(place: World) -> None:
    daemon = start_daemon(place, ["prlimit", "--nofile=48:4096"])
    wait_for(place.running, "the daemon")
    environ = {"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}
    options: dict[str, Any] = {"count": 500, "hz": 100, "flush": 100, "environ": environ}
    trainers = [train(place, number, f"logs/{number % 3}", **options) for number in range(60)]
    for trainer in trainers:
        assert trainer.wait(120) == 0
    assert daemon.poll() is None, "the daemon lives"
    wait_for(place.drained, "the journals")
    counts = {number: read_count(place, number) for number in range(60)}
    assert all(count.ended for count in counts.values())
    account("descriptors", 1, judge([place.logdir / str(run) for run in range(3)], counts))


MANY_CLIENTS = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from numbered import log_record
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
children = []
for number in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        for n in range(int(sys.argv[3])):
            log_record(writer, number, n, mixed=False)
        if sys.argv[4] == "dead":
            os._exit(0)
        flushed = writer.flush(100)
        while not os.path.exists("go"):
            time.sleep(0.02)
        os._exit(0 if flushed else 1)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
"""


@pytest.mark.matrix
def test_more_clients_than_descriptors_take_turns(place: World) -> None:
    """libzmq would end the daemon. Whoever finds no room tries again, and gets in when another has left."""
    clients, count = 120, 30
    daemon = start_daemon(place, limit_descriptors(128))
    os.set_blocking(daemon.stderr.fileno(), False)
    wait_for(place.running, "the daemon")
    environ = {"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}
    trainers = place.start(MANY_CLIENTS, Path(__file__).parent, clients, count, "alive", environ=environ)
    wait_for(lambda: b"connections are refused" in (daemon.stderr.read() or b""), "all the connections there may be")
    (place.root / "go").touch()
    assert trainers.wait(200) == 0
    wait_for(place.drained, "the journals")
    assert daemon.poll() is None, "the daemon lives"
    status = place.status()
    assert status is not None and status["connections_turned_away"] > 0
    counts = {number: Count(count, True) for number in range(clients)}
    account("descriptors", clients, judge([place.logdir / "a"], counts))


@pytest.mark.matrix
def test_connections_that_say_nothing_leave_room_for_the_daemon_to_live(place: World) -> None:
    """Also while it opens what many dead trainers have left."""
    dead, count, most = 60, 30, 128
    environ = {"TBXD_ADDRESS": NOBODY}
    made = place.run(MANY_CLIENTS, Path(__file__).parent, dead, count, "dead", environ=environ)
    assert made.returncode == 0 and len(place.journals()) == dead
    daemon = start_daemon(place, limit_descriptors(most))
    wait_for(place.running, "the daemon")
    held: list[socket.socket] = []

    def drained() -> bool:
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].connect(str(place.runtime / "daemon.sock"))
        if len(held) > most:
            held.pop(0).close()
        return len(held) == most and place.drained()

    wait_for(drained, "the journals", pause=0.02)
    assert daemon.poll() is None, "the daemon lives"
    for one in held:
        one.close()
    wait_for(lambda: (place.status() or {}).get("connections_turned_away"), "its answer")
    counts = {number: Count(count, True) for number in range(dead)}
    account("descriptors", dead, judge([place.logdir / "a"], counts))


@pytest.mark.parametrize("call", ["openat", "flock"])
def test_a_file_that_cannot_be_opened_again_at_this_moment_loses_nothing(place: World, call: str) -> None:
    """A run that had given back its descriptors finds none when its next records come."""
    place.extra["TBXD_OPEN_FILES"] = "1"
    daemon = place.serve()
    environ = {"TBXD_FLUSH_SECONDS": "60"}
    one = train(place, 0, "logs/a", count=300, wait=True, flush=60, environ=environ, pause=100)
    folder = place.logdir / "a"
    wait_for(lambda: read_count(place, 0).returned == 100, "the trainer to log")
    wait_for(lambda: (status_of(place, folder) or {}).get("written") == 100, "the run to be written")
    other = train(place, 1, "logs/b", count=300, hz=300, wait=True, flush=60)
    wait_for(lambda: not open_files(daemon.pid, folder), "the run to be parked")
    log = place.root / "strace"
    # The status is asked for until it shows the first, and a machine under load takes its time to answer.
    error = "EMFILE" if call == "openat" else "EINTR:when=1..2"
    with tampered(daemon.pid, call, f"error={error}", log, folder):
        say_go(one)
        wait_for(lambda: injected(log), f"an {error}")
        wait_for(lambda: read_count(place, 0).ended, "the trainer to end")
        if call == "openat":
            assert wait_for(lambda: status_of(place, folder)["error"], "the error in the status")
    for trainer in (one, other):
        told(trainer)
        say_go(trainer)
        assert told(trainer)["flushed"]
        assert trainer.wait(60) == 0
    wait_for(place.drained, "the journals")
    counts = {number: read_count(place, number) for number in (0, 1)}
    account("descriptors", injected(log), judge([folder, place.logdir / "b"], counts))


def status_of(place: World, folder: Path) -> Any:
    status = place.status()
    return status and status["runs"].get(str(folder))


def open_files(pid: int, folder: Path) -> int:
    """Return the number of a folder's event files that a process has open."""
    return sum(Path(item.path).parent == folder for item in psutil.Process(pid).open_files())


EXHAUSTED = """
import json, os, resource, sys
sys.path.insert(0, sys.argv[1])
spare, early = int(sys.argv[2]), sys.argv[3] == "early"
from numbered import log_record
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
if early:
    log_record(writer, 0, 0, mixed=False)
    writer.flush(30)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
held = []
while True:
    try:
        held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
for _ in range(spare):
    os.close(held.pop())
for n in range(int(early), 20_000):
    log_record(writer, 0, n, mixed=False)
print(json.dumps(writer.stats()), flush=True)
for fd in held:
    os.close(fd)
writer.flush(60)
"""


@pytest.mark.parametrize("early", ["late", pytest.param("early", marks=pytest.mark.matrix)])
@pytest.mark.parametrize(
    "spare", [10, *(pytest.param(n, marks=pytest.mark.matrix) for n in (*range(10), *range(11, 20), 24, 28, 32))]
)
def test_a_trainer_that_has_no_descriptors_left_is_not_ended_by_logging(place: World, spare: int, early: str) -> None:
    """What cannot be kept is counted; when there are some again, it goes on."""
    place.serve()
    result = place.run(EXHAUSTED, Path(__file__).parent, spare, early, timeout=120)
    assert result.returncode == 0, f"exit code {result.returncode}: {result.stderr[-2000:]}"
    stats = json.loads(result.stdout.splitlines()[-1])
    assert stats["accepted"] == 20_000
    place.ensure()
    wait_for(place.drained, "the journals")
    dropped = sum(stats["dropped"].values())
    account("descriptors", 1, judge([place.logdir / "a"], {0: Count(20_000, True)}, dropped=dropped))


@pytest.mark.parametrize(
    "block_ms", [0, *(pytest.param(milliseconds, marks=pytest.mark.matrix) for milliseconds in (50, 500))]
)
def test_a_full_journal_blocks_within_its_bound_and_counts_exactly(place: World, block_ms: int) -> None:
    """No daemon takes anything; what is kept is in order, what is not is counted, and a restart changes nothing."""
    environ = {"TBXD_ADDRESS": NOBODY, "TBXD_JOURNAL_BYTES": str(1 << 20), "TBXD_BLOCK_MS": str(block_ms)}
    trainer = train(place, 0, "logs/a", count=100_000, end="os._exit", environ=environ)
    said = told(trainer)
    assert said["longest"] < block_ms / 1000 + 0.25, said
    dropped = sum(said["stats"]["dropped"].values())
    assert dropped > 50_000 and set(said["stats"]["dropped"]) <= {"journal_full"}, said
    assert said["stats"]["accepted"] == 100_000
    trainer.wait(60)
    place.serve()
    wait_for(place.drained, "the journal")
    verdict = judge([place.logdir / "a"], {0: read_count(place, 0)}, dropped=dropped)
    assert verdict.shown == {"journal_full": dropped}, "TensorBoard shows how many, too"
    account("journal_full", dropped, verdict)


def test_a_full_journal_with_a_living_daemon_counts_in_its_status(place: World) -> None:
    """The daemon is stopped until the journal is full, and then goes on: the equation holds there, too."""
    server = place.serve()
    environ = {"TBXD_JOURNAL_BYTES": str(1 << 20), "TBXD_BLOCK_MS": "1"}
    trainer = train(place, 0, "logs/a", count=150_000, wait=True, flush=60, environ=environ)
    wait_for(lambda: read_count(place, 0).returned > 100, "the trainer to log")
    server.send_signal(signal.SIGSTOP)
    said = told(trainer)
    assert said["stats"]["dropped"]
    server.send_signal(signal.SIGCONT)
    say_go(trainer)
    told(trainer)
    assert trainer.wait(60) == 0
    wait_for(place.drained, "the journal")
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "a")]
    dropped = sum(run["dropped"].values())
    assert run["accepted"] == 150_000 == run["written"] + run["pending"] + dropped, run
    verdict = judge([place.logdir / "a"], {0: read_count(place, 0)}, dropped=dropped)
    assert verdict.shown == {"journal_full": dropped}, "TensorBoard shows how many, too"
    account("journal_full", dropped, verdict)


TRAINER_BYTES = 24 << 20  # what logging may add to a trainer, however much waits


def grown(pid: int, before: int) -> int:
    """By how much the memory of a process has grown that is its own: its maps of journal files are not."""
    return int(psutil.Process(pid).memory_full_info().uss) - before


@pytest.mark.parametrize(
    ("writers", "seconds"), [(4, 1), *(pytest.param(*load, marks=pytest.mark.matrix) for load in ((8, 5), (64, 120)))]
)
def test_more_than_the_daemon_can_take_keeps_both_sides_within_their_memory(
    place: World, writers: int, seconds: int
) -> None:
    """Trainers that log as fast as they can into small journals: what does not fit is dropped and counted."""
    daemon = place.serve()
    base = int(psutil.Process(daemon.pid).memory_full_info().uss)
    environ = {"TBXD_JOURNAL_BYTES": str(1 << 20), "TBXD_BLOCK_MS": "0", "TBXD_FLUSH_SECONDS": "120"}
    count = 40_000 * seconds // writers * 8
    options: dict[str, Any] = {"count": count, "wait": True, "flush": 120, "environ": environ, "mixed": False}
    trainers = [train(place, number, f"logs/{number % 4}", **options) for number in range(writers)]
    peak = most = 0
    first: dict[int, int] = {}

    def ended() -> bool:
        nonlocal peak, most
        peak = max(peak, grown(daemon.pid, base))
        for number, trainer in enumerate(trainers):
            if read_count(place, number).returned:
                first.setdefault(number, int(psutil.Process(trainer.pid).memory_full_info().uss))
                most = max(most, grown(trainer.pid, first[number]))
        return all(read_count(place, number).ended for number in range(writers))

    wait_for(ended, "the trainers to log", 600)
    dropped = 0
    for trainer in trainers:
        dropped += sum(told(trainer)["stats"]["dropped"].values())
        say_go(trainer)
    for trainer in trainers:
        said = told(trainer)
        assert said["stats"]["pending"] == 0
        assert said["flushed"] == (not said["stats"]["dropped"]), "a flush says whether all was kept"
        assert trainer.wait(120) == 0
    assert dropped, "it was more than the daemon could take"
    assert peak < credit.memory_most(writers), f"the daemon grew by {peak >> 20} MiB"
    assert most < TRAINER_BYTES, f"a trainer grew by {most >> 20} MiB"
    wait_for(place.drained, "the journals")
    counts = {number: read_count(place, number) for number in range(writers)}
    print(f"{writers} writers: daemon {peak >> 20} MiB, a trainer {most >> 20} MiB, {dropped:,} dropped")
    account("overload", writers, judge([place.logdir / str(run) for run in range(4)], counts, dropped=dropped))


LARGE_FILES = """
import sys
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for step in range(20_000):
    writer.add_scalar("value", step, step)
    writer.add_scalar("other", step, step)
print(writer.flush(30))
writer.close()
"""


@pytest.mark.parametrize(
    ("most", "hard"),
    [
        (100_000, True),
        (1_100_000, False),
        *(
            pytest.param(*one, marks=pytest.mark.long)
            for one in ((100_000, False), (300_000, False), (300_000, True), (1_100_000, True))
        ),
    ],
)
def test_a_limit_of_a_trainers_files_loses_nothing_in_the_daemon_it_starts(place: World, most: int, hard: bool) -> None:
    """The event file ended at the trainer's limit, and what came after it was lost with the trainer's memory."""
    limit = f"--fsize={most}:{most if hard else ''}"
    trainer = place.start(LARGE_FILES, under=["prlimit", limit], stdout=-1, stderr=-1)
    out, said = trainer.communicate(timeout=60)
    assert (trainer.returncode, out) == (0, b"True\n"), said
    assert not said or (b"Records are kept in memory" in said and said.count(b"\n") == 1), "a journal needs 1 MiB"
    wait_for(place.drained, "the journal")
    expected = {tag: [(n, n) for n in range(20_000)] for tag in ("value", "other")}
    assert scalars(place.logdir / "a") == expected
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda shown=shown: shown.scalars("a", "other") == expected["other"], loader)
    sizes = [path.stat().st_size for path in (place.logdir / "a").iterdir()]
    can_raise = not hard or may_raise_limits()
    assert (len(sizes) == 1) == can_raise and (can_raise or max(sizes) == most)


CAP_SYS_RESOURCE = 24  # linux/capability.h


def may_raise_limits() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    (effective,) = (line.split()[1] for line in status if line.startswith("CapEff"))
    return bool(int(effective, 16) >> CAP_SYS_RESOURCE & 1)


FEW = """
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for step in range(1000):
    writer.add_scalar("value", step, step)
print(writer.flush(5), writer.stats()["accepted"], writer.stats()["dropped"])
writer.close()
"""


@pytest.mark.parametrize(("spare", "sends"), [(-8, False), (24, True)])
def test_a_script_with_few_descriptors_keeps_its_records_and_a_few_more_are_enough(
    place: World, spare: int, sends: bool
) -> None:
    most = DESCRIPTORS + spare  # of which the standard streams, the journal and the daemon's start take some
    script = place.start(FEW, under=limit_descriptors(most), stdout=-1, stderr=-1)
    out, said = script.communicate(timeout=60)
    assert (script.returncode, out) == (0, b"%s 1000 {}\n" % str(sends).encode())
    assert (b"hardly any file descriptors" in said) != sends
    place.ensure()
    wait_for(place.drained, "the journal")
    assert scalars(place.logdir / "a") == {"value": [(step, step) for step in range(1000)]}
