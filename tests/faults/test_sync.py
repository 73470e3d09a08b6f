"""TBXD_SYNC=always: on the disk before a call returns, and before a daemon acknowledges."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

from harness import World, wait_for
from inject import NOBODY, injected, say_go, start_daemon, strace, tampered, told, train
from oracle import Count, judge, read_count
from report import account
from tbxd_client.journal.journal_files import CONTROL_NAME, journals, read_state

ALWAYS = {"TBXD_SYNC": "always"}
CALLS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from numbered import log_record
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
nowhere = os.open("/dev/null", os.O_WRONLY)
for n in range(int(sys.argv[2])):
    log_record(writer, 0, n)
    os.write(nowhere, b"returned %d" % n)
os._exit(0)
"""
FLUSHES = """
import sys
sys.path.insert(0, sys.argv[1])
from numbered import log_record
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for n in range(int(sys.argv[2])):
    log_record(writer, 0, n)
    assert writer.flush(60)
"""
SYNCED = re.compile(r"(?:fdatasync|fsync)\(\d+<([^>]*)>")


def watching(calls: str, log: Path) -> list[str]:
    """The command that runs another one and lists its system calls with the files they are about."""
    command = strace(calls, "delay_exit=0", log)
    return [*command[: command.index("-e")], "-y", "-x", "-s", "500", "-e", f"trace={calls}", "-e", "signal=none"]


ACK = b"\xa3ack\xc4\x0c"


def acknowledged(line: str) -> int:
    """The position that an acknowledgement tells which is sent with this system call; 0 where it is none."""
    data = bytes.fromhex("".join(re.findall(r"\\x([0-9a-f]{2})", line)))
    told = 0
    for rest in data.split(ACK)[1:]:
        unpacker = msgpack.Unpacker()
        unpacker.feed(rest[12:])
        told = max(told, int(unpacker.unpack()))
    return told


@pytest.mark.parametrize("sync", ["always", "periodic"])
def test_each_call_returns_when_its_record_is_on_the_disk_where_that_is_wanted(place: World, sync: str) -> None:
    log, count = place.root / "strace", 340
    script = place.root / "script.py"
    script.write_text(CALLS)
    trainer = place.start(
        "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])",
        *watching("fdatasync,fsync,write", log),
        *(sys.executable, script, Path(__file__).parent, count),
        environ={"TBXD_ADDRESS": NOBODY, "TBXD_SYNC": sync},
    )
    assert trainer.wait(120) == 0
    lines = log.read_text().splitlines()
    (main,) = {line.split()[0] for line in lines if '"returned ' in line}
    rounds: list[list[str]] = [[]]  # what the thread that logs has synced in each of its calls
    for line in lines:
        if line.split()[0] != main:
            continue
        if '"returned ' in line:
            rounds.append([])
        elif found := SYNCED.search(line):
            rounds[-1].append(found[1].rpartition("/")[2])
    rounds.pop()
    assert len(rounds) == count
    if sync == "periodic":
        assert not any(rounds), "nobody who logs waits for the disk"
        return
    for names in rounds:
        assert names[0].endswith(".segment") and names[-1] == CONTROL_NAME, names
    (path,) = journals(place.spool)
    first = rounds[0]
    assert {"definitions", path.name, place.spool.name} <= set(first), "its files are there by their names, too"
    state = read_state(path)
    assert state.synced == state.commit
    place.serve()
    wait_for(place.drained, "the journal")
    account("sync", count, judge([place.logdir / "a"], {0: Count(count, True)}))


@pytest.mark.parametrize("sync", ["always", "periodic"])
def test_what_a_daemon_acknowledges_is_on_the_disk_where_that_is_wanted(place: World, sync: str) -> None:
    place.extra.update({"TBXD_SYNC": sync, "TBXD_SYNC_SECONDS": "3600"})
    log, count = place.root / "strace", 100
    daemon = start_daemon(place, watching("fdatasync,fsync,write,writev,sendto,sendmsg", log))
    wait_for(place.running, "the daemon")
    result = place.run(FLUSHES, Path(__file__).parent, count, timeout=120)
    assert result.returncode == 0, result.stderr
    status = place.status()
    assert status is not None and status["sync"] == sync
    assert place.tbxd("stop").returncode == 0 and daemon.wait(60) == 0
    dirty, acks, last, early, syncing = False, 0, 0, 0, set()
    for line in log.read_text().splitlines():
        thread = line.split()[0]
        if "tfevents" in line and " write(" in line:
            dirty = True
        elif "tfevents" in line and "fdatasync(" in line:
            syncing.add(thread)
        if thread in syncing and line.endswith("= 0") and "fdatasync" in line:
            syncing.remove(thread)
            dirty = False
        position = acknowledged(line)
        if position > last:  # a flush is answered at once, too, with what has been acknowledged already
            acks, last = acks + 1, position
            early += dirty
    assert acks == count
    assert early == 0 if sync == "always" else early > 0, f"{early} of {acks} came before the disk had it"
    if sync == "always":
        account("sync", acks, judge([place.logdir / "a"], {0: Count(count, True)}))


def test_nothing_is_acknowledged_while_the_disk_refuses_and_all_of_it_afterwards(place: World) -> None:
    place.extra.update(ALWAYS)
    daemon = place.serve()
    folder, log = place.logdir / "a", place.root / "strace"
    trainer = train(place, 0, "logs/a", count=300, hz=300, wait=True, flush=60, pause=100)
    wait_for(lambda: (status_of(place, folder) or {}).get("written") == 100, "the first records")
    with tampered(daemon.pid, "fdatasync", "error=EIO", log):
        say_go(trainer)
        wait_for(lambda: read_count(place, 0).ended, "the trainer to log")
        wait_for(lambda: injected(log) > 1, "a sync that fails, and is tried again")
        found = wait_for(lambda: (now := status_of(place, folder)) and now["error"] and now, "the error")
        assert found["error"].startswith("fsync: ") and found["written"] == 100 and found["pending"], found
    told(trainer)
    say_go(trainer)
    assert told(trainer)["flushed"]
    assert trainer.wait(60) == 0
    assert status_of(place, folder)["error"] == ""
    account("sync", injected(log), judge([folder], {0: read_count(place, 0)}))


def status_of(place: World, folder: Path) -> Any:
    status = place.status()
    return status and status["runs"].get(str(folder))


def test_a_disk_that_refuses_to_sync_is_told_once_and_holds_nobody_up(place: World) -> None:
    """The records are in the journal all the same, and are stored again before the next sync, which then is true."""
    log, count = place.root / "strace", 1500
    environ = {**ALWAYS, "TBXD_ADDRESS": NOBODY}
    script = """
        import json, os, sys, time
        sys.path.insert(0, sys.argv[1])
        from numbered import log_record
        from tbxd_client import SummaryWriter
        from tbxd_client.session.session import current
        writer = SummaryWriter("logs/a")
        for n in range(int(sys.argv[2])):
            log_record(writer, 0, n)
            time.sleep(0.002)
        journal = current().journal
        print(json.dumps({"synced": journal._durability.synced == journal.committed, **writer.stats()}), flush=True)
        os._exit(0)
    """
    place.root.joinpath("script.py").write_text("\n".join(line[8:] for line in script.splitlines()))
    command = strace("fdatasync", "error=EIO:when=3..4", log)
    command[command.index("trace=fdatasync")] = "trace=fdatasync,pwrite64"
    result = place.run(
        "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)",
        *command,
        *(sys.executable, "script.py", Path(__file__).parent, count),
        environ=environ,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["accepted"] == count and not said["dropped"] and said["synced"]
    assert result.stderr.count("a crash of the machine would lose the records that wait") == 1, result.stderr
    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    failed = max(number for number, call in enumerate(calls) if "(INJECTED)" in call)
    following = [call.partition("(")[0] for call in calls[failed + 1 :]]
    assert "pwrite64" in following[: following.index("fdatasync")], "what was not taken is stored again"
    place.serve()
    wait_for(place.drained, "the journal")
    account("sync", injected(log), judge([place.logdir / "a"], {0: Count(count, True)}))


def test_a_crash_of_the_machine_costs_nothing_of_what_was_on_the_disk(place: World) -> None:
    """Another boot id: what the daemon then trusts is what the control page says was synced."""
    trainer = train(place, 0, "logs/a", count=1200, end="SIGKILL", environ={**ALWAYS, "TBXD_ADDRESS": NOBODY})
    trainer.wait(120)
    (path,) = journals(place.spool)
    with open(path / CONTROL_NAME, "r+b") as control:
        control.seek(24)
        control.write(bytes(15) + b"\1")
    place.serve()
    wait_for(place.drained, "the journal")
    status = place.status()
    assert status is not None and status["lost_bytes_at_crash"] == 0
    account("sync", 1, judge([place.logdir / "a"], {0: read_count(place, 0)}))


def test_a_word_that_makes_no_sense_is_told_and_not_used(place: World) -> None:
    environ = {"TBXD_SYNC": "sometimes", "TBXD_ADDRESS": NOBODY, "TBXD_FLUSH_SECONDS": "0"}
    result = place.run("import tbxd_client; tbxd_client.SummaryWriter('logs/a').add_scalar('a', 1, 1)", environ=environ)
    assert result.returncode == 0
    assert "TBXD_SYNC='sometimes': periodic and always are possible; periodic is used" in result.stderr
    place.extra.update(TBXD_SYNC="sometimes")
    refused = place.tbxd("serve")
    assert refused.returncode == 2 and "'periodic', 'always'" in refused.stderr
