"""The connection to a daemon of this host, made without libzmq: what it says, and what a program may do to it."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from harness import World, scalars, wait_for
from tbxd_client.process import descriptors
from tbxd_client.process.doorbell import Doorbell
from tbxd_client.process.native import monotonic
from tbxd_client.transport import zmtp
from tbxd_client.transport.local_connection import LocalLink

BYTES_MAX = 1 << 20


@pytest.fixture
def router(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    """Yield a listening socket like the daemon's."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as result:
        result.linger = 0
        result.bind(f"ipc://{tmp_path}/a.sock")
        yield result


def connected(link: LocalLink) -> LocalLink:
    deadline = monotonic() + 30
    while not link._partner:
        assert monotonic() < deadline, link.how
        link.look(monotonic())
        link.poll(0.05, partner=True)
    return link


def heard_out(link: LocalLink) -> None:
    """Wait until it is closed. `poll` goes on to its end: the sender's doorbell may still be rung."""
    deadline = monotonic() + 30
    while link.is_open:
        assert monotonic() < deadline, link.how
        link.poll(0.05)


def test_messages_of_every_size_go_both_ways_and_in_their_order(tmp_path: Path, router: zmq.Socket[bytes]) -> None:
    """Also those that the socket takes in parts only, and of which much is under way."""
    link = connected(LocalLink(f"ipc://{tmp_path}/a.sock"))
    sent = [[os.urandom(size), b"x" * (1000 * size)] for size in (0, 1, 254, 255, 256, 700, 1000)] + [[b"one"]]
    for message in sent:
        assert link.send(message)
    got: list[list[bytes]] = []
    while len(got) < len(sent):
        link.poll(0)  # hands over what the socket has not taken at first
        if router.poll(10):
            got.append(router.recv_multipart())
    assert [message[1:] for message in got] == sent
    for _, *frames in got:
        router.send_multipart([got[0][0], *frames])
    back: list[list[bytes]] = []
    while len(back) < len(sent):
        assert link.poll(30) == (True, False)
        while (message := link.receive()) is not None:
            back.append(message)
    assert back == sent
    link.close()


def test_a_listener_that_is_gone_is_noticed_and_another_is_connected_to(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/a.sock"
    link = LocalLink(address)
    link.look(monotonic())
    assert not link.is_open and not link.send([b"x"]) and link.how == "there is no socket"
    for _ in range(2):
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.linger = 0
            router.bind(address)
            assert connected(link).send([b"x"])
            assert router.recv_multipart()[1:] == [b"x"]
        heard_out(link)
        assert not link.send([b"x"])
    link.close()


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n", b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(55, b"\0"), b"\x01" * 99]
)
def test_what_is_no_tbxd_is_told_and_not_listened_to(
    tmp_path: Path, said: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        path = f"{tmp_path}/a.sock"
        listener.bind(path)
        listener.listen()
        link = LocalLink(f"ipc://{path}")
        link.look(monotonic())
        with listener.accept()[0] as other:
            other.send(said)
            heard_out(link)
        assert "is not tbxd" in link.trouble
        assert link.trouble in capsys.readouterr().err
        link.close()


def stream() -> tuple[bytes, list[list[bytes]]]:
    messages = [[b""], [b"a" * 255, b"b" * 256], [b"c"] * zmtp.FRAMES_MAX, [b"d" * BYTES_MAX]]
    ready = zmtp.opening()
    ping = zmtp.head(7, zmtp.COMMAND) + b"\x04PING\0\0"
    return ready + ping.join(b"".join(zmtp.encoded(message)) for message in messages), messages


def test_what_comes_may_be_cut_anywhere() -> None:
    whole, messages = stream()
    source = random.Random(1)
    for _ in range(20):
        decoder, at = zmtp.Decoder(BYTES_MAX), 0
        while at < len(whole):
            size = source.choice((1, 2, 9, 64, 300, 100_000))
            decoder.feed(whole[at : at + size])
            at += size
        assert decoder.ready and list(decoder.messages) == messages


def test_bytes_that_are_wrong_somewhere_are_refused_or_read_and_never_more_than_allowed() -> None:
    whole, _ = stream()
    source = random.Random(2)
    for _ in range(2000):
        wrong = bytearray(whole[:1500])
        for _ in range(source.randint(1, 3)):
            wrong[source.randrange(len(wrong))] = source.randrange(256)
        decoder = zmtp.Decoder(2000)
        try:
            decoder.feed(bytes(wrong))
        except zmtp.NoZeroMQ:
            continue
        assert sum(len(frame) for message in decoder.messages for frame in message) <= len(wrong)
    for bad in (b"\x02" + (1 << 40).to_bytes(8, "big"), b"\x00\x01x" * 1, b"\x08\x01x", b"\x05\x01x"):
        decoder = zmtp.Decoder(0 if bad == b"\x00\x01x" else BYTES_MAX)
        decoder.feed(zmtp.opening())
        with pytest.raises(zmtp.NoZeroMQ):
            decoder.feed(bad)


# --- what a program does to it ---------------------------------------------------------------------------------------


def test_a_file_that_got_the_number_of_the_doorbell_between_look_and_use_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks finds it to be ours, and in the next moment it is not."""
    bell = Doorbell()
    file = (tmp_path / "file").open("w+b", buffering=0)
    file.write(b"x" * 100)
    file.seek(50)
    for end in (bell._read, bell._write):
        os.dup2(file.fileno(), end.number)
    with monkeypatch.context() as context:
        context.setattr(descriptors.Descriptor, "mine", True)
        bell.ring()
        bell.clear()
    assert file.tell() == 50, "it was read or written"
    bell.ring()
    bell.clear()
    bell.ring()
    assert bell._read.receive(10) == b"!", "there is another one"
    bell.close()
    file.seek(0)
    assert file.read() == b"x" * 100


def test_sockets_of_ours_are_out_of_the_way_of_the_numbers_that_a_program_gets() -> None:
    bell = Doorbell()
    numbers = {bell._read.number, bell._write.number}
    lowest = os.dup(0)
    assert max(numbers) < 1024 and min(numbers) >= min(descriptors.limit(), 1024) - 64 > lowest
    os.close(lowest)
    bell.close()
    for number in numbers:
        with pytest.raises(OSError):
            os.fstat(number)


def test_a_program_may_close_all_descriptors_at_every_millisecond_with_a_daemon_that_runs(place: World) -> None:
    """Each time another process, as daemons are made; libzmq, which ended some of them, is in none."""
    place.serve()
    result = place.run(
        """
        import os, sys, threading, time
        from tbxd_client import SummaryWriter
        def child(number):
            writer = SummaryWriter(f"logs/{number}")
            for step in range(50):
                writer.add_scalar("value", step, step)
            time.sleep(number / 4000)
            os.closerange(3, 65536)
            files = [open(f"file-{number}-{one}", "w+b", buffering=0) for one in range(40)]
            for step in range(50, 100):
                writer.add_scalar("value", step, step)
            assert writer.flush(60), number
            assert len(os.listdir("/proc/self/task")) == 2 and "zmq" not in sys.modules
            writer.close()
            assert all(not file.tell() and not os.fstat(file.fileno()).st_size for file in files)
        for first in range(0, 40, 4):
            children = []
            for number in range(first, first + 4):
                children.append(os.fork())
                if not children[-1]:
                    child(number)
                    os._exit(0)
            for one in children:
                assert os.waitpid(one, 0)[1] == 0
        """,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    wait_for(place.drained, "the journals")
    for number in range(40):
        assert scalars(place.logdir / str(number)) == {"value": [(step, float(step)) for step in range(100)]}


def test_a_default_timeout_of_the_programs_sockets_and_sigpipe_are_none_of_ours(tmp_path: Path) -> None:
    """With a timeout `send` would wait where there is no room; a signal that is not ignored would end the process."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    try:
        bell = Doorbell()
    finally:
        socket.setdefaulttimeout(before)
    done = threading.Event()

    def ring() -> None:
        for _ in range(100_000):
            bell.ring()
        done.set()

    threading.Thread(target=ring, daemon=True).start()
    assert done.wait(30), "it waits for room"
    bell.close()
    place = World(tmp_path)
    result = place.run(
        """
        import os, signal
        from tbxd_client.process.doorbell import Doorbell
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        bell = Doorbell()
        os.close(bell._read.number)
        bell.ring()
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
