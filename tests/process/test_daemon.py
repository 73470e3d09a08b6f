"""The daemon's life: exactly one; it drains when told to leave, leaves when idle, and refuses what is no message."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import psutil
import pytest
import zmq

from harness import World, scalars, wait_for, world
from tbxd_client.config.paths import SOCKET_PATH_BYTES_MAX, places
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar
from tbxd_client.transport.launcher import AT_ONCE_MAX, RETRY_SECONDS_MIN, is_locked

LOG_ONE = """
    import sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    writer.add_scalar("value", 1.0, int(sys.argv[2]))
    assert writer.flush(60)
"""


def test_a_second_daemon_is_refused_with_a_message_and_the_first_goes_on(place: World) -> None:
    first = place.serve()
    second = place.tbxd("serve")
    assert second.returncode == 4
    assert f"pid {first.pid}" in second.stderr and "tbxd stop" in second.stderr
    assert place.run(LOG_ONE, "logs/a", 0).returncode == 0
    assert first.poll() is None


def test_what_a_killed_daemon_leaves_behind_is_taken_over(place: World) -> None:
    place.serve()
    place.kill_daemon()
    assert (place.runtime / "daemon.sock").exists() and (place.runtime / "daemon.lock").exists()
    place.serve()
    assert place.run(LOG_ONE, "logs/a", 0).returncode == 0
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}


def test_64_processes_that_start_at_once_start_one_daemon(place: World) -> None:
    script = """
        import os, sys
        from tbxd_client import SummaryWriter
        writers = []
        sys.stdin.readline()
        for child in range(64):
            if os.fork() == 0:
                writer = SummaryWriter("logs/a")
                writer.add_scalar(f"value{child}", child, 0)
                os._exit(0 if writer.flush(60) else 1)
        codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(64)]
        assert codes == [0] * 64, codes
    """
    result = place.run(script, input="\n", timeout=120)
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {f"value{child}": [(0, float(child))] for child in range(64)}
    log = (place.runtime / "daemon.log").read_text()
    assert log.count("listens at") == 1
    assert len(list((place.logdir / "a").iterdir())) == 1, "64 writers, one event file"


def test_the_embedded_daemon_outlives_the_trainer_and_its_process_group(place: World) -> None:
    trainer = place.start(
        """
        import time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 1.0, 0)
        print(writer.flush(60), flush=True)
        time.sleep(600)
        """,
        stdout=-1,
        start_new_session=True,
    )
    assert trainer.stdout is not None and trainer.stdout.readline() == b"True\n"
    daemon = psutil.Process(wait_for(place.running, "the daemon"))
    assert os.getpgid(daemon.pid) != os.getpgid(trainer.pid)
    assert trainer.pid not in [parent.pid for parent in daemon.parents()]
    assert daemon.cwd() == "/"
    os.killpg(trainer.pid, signal.SIGKILL)
    trainer.wait()
    wait_for(place.drained, "the dead trainer's journal to be taken")
    assert daemon.is_running()


def test_the_embedded_daemon_leaves_when_idle(tmp_path: Path) -> None:
    with world(tmp_path / "world", TBXD_IDLE_SECONDS="0.3") as place:
        assert place.run(LOG_ONE, "logs/a", 0).returncode == 0
        wait_for(lambda: not place.running(), "the daemon to leave")
        assert not (place.runtime / "daemon.sock").exists()
        assert place.run(LOG_ONE, "logs/a", 1).returncode == 0, "the next writer starts another"
        assert scalars(place.logdir / "a") == {"value": [(0, 1.0), (1, 1.0)]}


@pytest.mark.parametrize("number", ["INT", "TERM", "KILL"])
def test_a_daemon_that_gets_a_signal_while_it_starts_is_started_again_without_a_word(place: World, number: str) -> None:
    """One that ends it; Ctrl-C and a notebook's stop button are not for it from the beginning."""
    python, born = place.root / "python", place.root / "born"
    python.write_text(
        f'#!/bin/sh\n[ -e {born} ] || {{ touch {born}; kill -{number} $$; }}\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    result = place.run(
        """
        import sys
        sys.executable = sys.argv[1]
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 1.0, 0)
        assert writer.flush(60)
        """,
        python,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert born.exists(), "the first one was interrupted"
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}


def test_daemons_that_are_killed_before_they_have_answered_are_started_again_at_once_but_not_for_ever(
    place: World,
) -> None:
    """At its birth, while it starts, when it holds its lock: each is another process than the one before."""
    place.extra["TBXD_FLUSH_SECONDS"] = "60"
    trainer = place.start(LOG_ONE, "logs/a", 0)
    known: set[int] = set()

    def newborn(born_here: bool) -> psutil.Process | None:
        """A daemon that is new: the process that the shell starts, or the one that this forks before it leaves."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in known and "--embedded" in process.cmdline() and "python" in process.name():
                    mine = process.environ().get("TBXD_RUNTIME_DIR") == str(place.runtime)
                    parent = process.parent()
                    if mine and (parent is not None and "--embedded" in parent.cmdline()) == born_here:
                        known.add(process.pid)
                        return process
        return None

    gone = 0.0
    for attempt in range(AT_ONCE_MAX + 1):
        first = wait_for(lambda: newborn(True), f"attempt {attempt}")
        if attempt:
            assert first.create_time() - gone < RETRY_SECONDS_MIN / 2, f"attempt {attempt} at once"
        if attempt % 2 == 0:
            first.suspend()
            second = newborn(False)  # it may have forked just before
            first.kill()
        else:
            second = wait_for(lambda: newborn(False), "the process that stays")
            if attempt == 3:
                wait_for(lambda: is_locked(place.runtime / "daemon.lock"), "its lock")
        if second is not None:
            second.kill()
        gone = time.time()
    last = wait_for(lambda: newborn(True), "the last one")
    assert last.create_time() - gone > RETRY_SECONDS_MIN / 2, "after a pause"
    assert trainer.wait(60) == 0
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}


def test_who_looks_whether_a_daemon_is_there_keeps_none_from_coming(place: World) -> None:
    path = place.runtime / "daemon.lock"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    looking = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(looking, fcntl.LOCK_SH)
    daemon = subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ)
    place.processes.append(daemon)
    process = psutil.Process(daemon.pid)
    wait_for(lambda: str(path) in {file.path for file in process.open_files()}, "it to try the lock")
    os.close(looking)
    wait_for(lambda: place.running() == daemon.pid, "the daemon")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stop"])
def test_told_to_leave_it_writes_what_is_queued(tmp_path: Path, how: str) -> None:
    with world(tmp_path / "world", TBXD_BATCH_MS="60000") as place:
        daemon = place.serve()
        trainer = place.start(
            """
            import sys
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/a")
            for i in range(1000):
                writer.add_scalar("value", i, i)
            print("logged", flush=True)
            sys.stdin.readline()
            """,
            stdin=-1,
            stdout=-1,
        )
        assert trainer.stdout is not None and trainer.stdin is not None
        trainer.stdout.readline()
        wait_for(lambda: place.status()["totals"]["accepted"] == 1000, "the records to arrive")  # type: ignore[index]
        assert not scalars(place.logdir / "a"), "the batch has a minute to fill"
        if how == "stop":
            assert place.tbxd("stop").returncode == 0
        else:
            daemon.send_signal(getattr(signal, how))
        assert daemon.wait(30) == 0
        assert scalars(place.logdir / "a") == {"value": [(i, float(i)) for i in range(1000)]}
        trainer.stdin.close()
        assert trainer.wait(60) == 0
        wait_for(place.drained, "the journal to be empty")
        assert scalars(place.logdir / "a") == {"value": [(i, float(i)) for i in range(1000)]}


def test_the_socket_and_its_folder_are_the_users_alone(place: World) -> None:
    place.serve()
    assert stat.S_IMODE(place.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.spool.stat().st_mode) == 0o700


def test_a_runtime_folder_whose_path_is_too_long_for_a_socket_works(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place:
        place.runtime = place.root / ("x" * 120)
        assert len(os.fsencode(place.runtime / "daemon.sock")) > SOCKET_PATH_BYTES_MAX
        result = place.run(LOG_ONE, "logs/a", 0)
        assert result.returncode == 0, result.stderr
        assert place.status() is not None
        assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}
        assert place.tbxd("stop").returncode == 0


def test_an_address_that_is_too_long_is_said_and_the_records_are_kept(place: World) -> None:
    address = f"ipc:///{'y' * 200}"
    result = place.run(
        LOG_ONE.replace("assert writer.flush(60)", "writer.flush(0.2)"),
        "logs/a",
        0,
        environ={"TBXD_ADDRESS": address, "TBXD_FLUSH_SECONDS": "0.2"},
    )
    assert result.returncode == 0
    assert "at most 107 bytes" in result.stderr
    assert len(place.journals()) == 1
    refused = place.tbxd("serve", "--address", address)
    assert refused.returncode == 2 and "at most 107 bytes" in refused.stderr


def test_tcp_works_on_loopback_and_nowhere_else(place: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = place.tbxd("serve", "--address", f"tcp://0.0.0.0:{port}")
    assert refused.returncode == 1 and "this machine only" in refused.stderr
    address = f"tcp://127.0.0.1:{port}"
    place.extra["TBXD_ADDRESS"] = address
    daemon = place.start(
        "import runpy, sys; sys.argv = ['tbxd', 'serve']; runpy.run_module('tbxd', run_name='__main__')"
    )
    assert place.run(LOG_ONE, "logs/a", 0).returncode == 0
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}
    assert place.status()["address"] == address  # type: ignore[index]
    # Over tcp the kernel does not say who is calling; without the secret nobody gets in.
    (place.runtime / "tcp.token").rename(place.runtime / "elsewhere")
    assert place.tbxd("status").returncode == 3
    result = place.run(LOG_ONE.replace("assert writer.flush(60)", "assert not writer.flush(5)"), "logs/b", 0)
    assert "token" in result.stderr
    assert daemon.poll() is None
    wait_for(place.drained, "the journal that it has left, which needs no secret: it is this user's", seconds=5)


def test_a_folder_of_somebody_else_is_not_trusted(place: World) -> None:
    """Nor is a link. Another stands in for it, in which scripts, commands and a daemon meet; each says so."""
    theirs = place.root / "theirs"
    theirs.mkdir()
    place.runtime.symlink_to(theirs)
    script = (
        LOG_ONE
        + """
    from tbxd_client.config.runtime_folders import find_runtime
    print(find_runtime())
    """
    )
    daemon = subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=subprocess.PIPE)
    place.processes.append(daemon)
    status = wait_for(place.status, "the daemon")
    result = place.run(script, "logs/a", 0)
    assert result.returncode == 0, result.stderr
    instead = Path(result.stdout.strip())
    assert instead.parent in places() and instead.name.startswith("run-") and instead.stat().st_uid == os.getuid()
    assert status["pid"] == daemon.pid and status["address"] == f"ipc://{instead}/daemon.sock"
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}
    daemon.terminate()
    said = f"{place.runtime} is not a folder; remove it, or set TBXD_RUNTIME_DIR and TBXD_SPOOL"
    told = f"{said}. Until then the daemon is in {instead}\n"
    assert result.stderr == f"tbxd: {told}"
    assert daemon.stderr is not None and daemon.stderr.read().decode().endswith(
        f"WARNING tbxd.daemon.lifecycle: {told}"
    )
    assert daemon.wait(30) == 0 and not list(theirs.iterdir())
    shutil.rmtree(instead)


def test_who_is_told_to_stop_or_to_read_again_as_it_starts_does_so(place: World) -> None:
    """Whoever reads in the lock who the daemon is may send it signals, however little of it is there yet."""
    script = """
        import os, signal, sys
        from tbxd.daemon import lifecycle as daemon
        real = daemon._take_lock
        def take(path):
            lock = real(path)
            for name in sys.argv[1:]:
                os.kill(os.getpid(), getattr(signal, name))
            print("locked", flush=True)
            return lock
        daemon._take_lock = take
        from tbxd.cli.main import main
        main(["serve"])
    """
    for signals in (["SIGTERM"], ["SIGINT"], ["SIGHUP", "SIGTERM"], ["SIGTERM", "SIGTERM"]):
        result = place.run(script, *signals)
        assert (result.returncode, result.stdout) == (0, "locked\n"), (signals, result.stderr)
        assert not place.running()
    goes_on = place.start(script, "SIGHUP")
    wait_for(lambda: goes_on.poll() is not None or place.status(), "the daemon that is told to read again")
    assert goes_on.poll() is None


class Peer:
    """A client of the test's own, which may send what it likes."""

    def __init__(self, place: World) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 20_000
        self.socket.connect(f"ipc://{place.runtime}/daemon.sock")

    def send(self, message: wire.Message | list[bytes]) -> None:
        self.socket.send_multipart(message if isinstance(message, list) else wire.pack(message))

    def receive(self) -> wire.Message:
        return wire.unpack(self.socket.recv_multipart())

    def hello(self, session: bytes, start: int = 0) -> wire.Message:
        self.send(wire.Hello(session, start, os.getpid(), "elsewhere", "", "test", ""))
        return self.receive()

    def close(self) -> None:
        self.socket.close()
        self.context.term()


def definitions(place: World) -> bytes:
    run = RunDefinition(0, str(place.logdir / "a"), "host", 1, 0.0)
    return pack_definition(run) + pack_definition(TagDefinition(0, 0, "value"))


def test_garbage_is_answered_and_counted_and_disturbs_nobody(place: World) -> None:
    place.serve()
    peer = Peer(place)
    session = os.urandom(12)
    for frames in (
        [b"garbage"],
        [b""],
        [b"\x81" * 50_000],
        [msgpack.packb([9, "hello"])],
        [msgpack.packb([1, "no such thing"])],
        [msgpack.packb([1, "data", session, 0, 0])],
        [b"a"] * 30,
    ):
        peer.send(frames)
        answer = peer.receive()
        assert isinstance(answer, wire.Refused) and answer.reason
    # Over ZMQ_MAXMSGSIZE ZeroMQ itself closes the connection; the daemon and the others go on.
    other = Peer(place)
    other.send([bytes(wire.FRAME_BYTES_MAX + 1)])
    other.close()
    assert isinstance(peer.hello(session), wire.Welcome)
    peer.close()
    assert place.run(LOG_ONE, "logs/a", 0).returncode == 0
    status = place.status()
    assert status is not None and status["refused_messages"] >= 7


def test_a_broken_session_is_refused_and_the_others_go_on(place: World) -> None:
    place.serve()
    peer = Peer(place)
    session = os.urandom(12)
    assert isinstance(peer.hello(session), wire.Welcome)
    peer.send(wire.Data(session, wire.DEFINITIONS, 0, definitions(place)))
    peer.send(wire.Data(session, wire.RECORDS, 0, pack_scalar(0, 1, 1.0, 5.0) + b"no record at all"))
    answer = peer.receive()
    while not isinstance(answer, wire.Refused):
        answer = peer.receive()
    assert "no record begins" in answer.reason
    assert isinstance(peer.hello(session), wire.Refused)
    assert place.run(LOG_ONE, "logs/b", 0).returncode == 0
    status = place.status()
    assert status is not None
    assert [item["broken"] != "" for item in status["sessions"] if item["session"] == session.hex()] == [True]
    peer.close()


def test_a_record_that_turns_out_to_be_none_when_more_of_it_comes_breaks_its_session_only(place: World) -> None:
    daemon = place.serve()
    peer = Peer(place)
    session = os.urandom(12)
    assert isinstance(peer.hello(session), wire.Welcome)
    peer.send(wire.Data(session, wire.DEFINITIONS, 0, definitions(place)))
    peer.send(wire.Data(session, wire.RECORDS, 0, pack_scalar(0, 1, 1.0, 5.0) + b"no"))
    peer.send(wire.Data(session, wire.RECORDS, 36, b" record at all"))
    answer = peer.receive()
    while not isinstance(answer, wire.Refused):
        answer = peer.receive()
    wait_for(lambda: (place.logdir / "a").exists() and scalars(place.logdir / "a"), "the record before it")
    assert place.run(LOG_ONE, "logs/b", 0).returncode == 0
    assert scalars(place.logdir / "a") == {"value": [(1, 5.0)]}
    assert daemon.poll() is None
    peer.close()


def test_a_session_cannot_be_taken_over_by_another_process(place: World) -> None:
    place.serve()
    peer = Peer(place)
    session = os.urandom(12)
    assert isinstance(peer.hello(session), wire.Welcome)
    script = """
        import sys; sys.path[:0] = sys.argv[3:]
        from pathlib import Path
        from harness import World
        from test_daemon import Peer
        peer = Peer(World(Path(sys.argv[1])))
        print(peer.hello(bytes.fromhex(sys.argv[2])))
    """
    result = place.run(script, place.root, session.hex(), *Path(__file__).parents[:2])
    assert "belongs to another process" in result.stdout, result.stderr
    peer.close()


def test_batches_repeated_swapped_and_with_a_gap_are_written_once(place: World) -> None:
    place.serve()
    peer = Peer(place)
    session = os.urandom(12)
    assert peer.hello(session) == wire.Welcome(session, 0, 0, 8 << 20, leftovers=1, reports=1)
    records = [pack_scalar(0, step, float(step), float(step)) for step in range(100)]
    peer.send(wire.Data(session, wire.DEFINITIONS, 0, definitions(place)))
    peer.send(wire.Data(session, wire.RECORDS, 34 * 50, b"".join(records[50:])))  # a gap
    answer = peer.receive()
    assert isinstance(answer, wire.Welcome) and answer.records == 0
    for begin, end in ((0, 60), (0, 60), (10, 70), (50, 100), (0, 100)):
        peer.send(wire.Data(session, wire.RECORDS, 34 * begin, b"".join(records[begin:end])))
    peer.send(wire.Flush(session, 3400))
    while True:
        answer = peer.receive()
        if isinstance(answer, wire.Ack) and answer.written == 3400:
            break
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(100)]}
    # A replay after the daemon has forgotten all about the session: the event file remembers.
    place.kill_daemon()
    place.serve()
    peer.close()
    peer = Peer(place)
    assert isinstance(peer.hello(session), wire.Welcome)
    peer.send(wire.Data(session, wire.DEFINITIONS, 0, definitions(place)))
    peer.send(wire.Data(session, wire.RECORDS, 0, b"".join(records) + pack_scalar(0, 100, 1.0, 100.0)))
    peer.send(wire.Flush(session, 3434))
    while True:
        answer = peer.receive()
        if isinstance(answer, wire.Ack) and answer.written == 3434:
            break
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(101)]}
    peer.close()


def test_a_journal_that_makes_no_sense_is_put_aside(place: World) -> None:
    result = place.run(
        """
        import os
        from tbxd_client import SummaryWriter
        from tbxd_client.session.session import current
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 1.0, 0)
        current().journal.append(b"no record at all")
        os._exit(0)
        """,
        environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock"},
    )
    assert result.returncode == 0, result.stderr
    (journal,) = place.journals()
    place.serve()
    wait_for(place.drained, "the journal to be put aside")
    assert (place.spool / "quarantine" / journal.name).exists()
    assert place.status()["quarantined_journals"] == 1  # type: ignore[index]
    assert json.loads(place.tbxd("status", "--json").stdout)["running"]
