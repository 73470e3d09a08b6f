"""A trainer logs, a daemon writes, TensorBoard shows it: the whole road with the real thing at every station."""

from __future__ import annotations

import os
import signal

import pytest

from harness import World, each_event, events, scalars, wait_for
from tb import SHOWN, board

LINEAR = """
    import torch
    from tbxd_client import SummaryWriter
    torch.manual_seed(0)
    model = torch.nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    writer = SummaryWriter("logs/linear")
    x, y = torch.randn(64, 10), torch.randn(64, 1)
    for epoch in range(100):
        for i in range(10):
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar('train/loss', loss.item(), epoch*10+i)
    writer.close()
"""

EVERY_PARAMETER = """
    import torch
    from tbxd_client import SummaryWriter
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    writer = SummaryWriter("logs/every")
    x, y = torch.randn(128, 16), torch.randint(0, 4, (128,))
    for step in range(20):
        out = model(x)
        loss = torch.nn.functional.cross_entropy(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        writer.add_scalar('train/loss', loss, step)
        writer.add_scalar('train/accuracy', (out.argmax(1) == y).float().mean(), step)
        for name, param in model.named_parameters():
            writer.add_histogram(name, param, step)
            writer.add_scalar('train/grad_norm/'+name, param.grad.norm(), step)
    writer.close()
"""

ORACLE = """
    import os, signal, sys
    from tbxd_client import SummaryWriter
    count, how = int(sys.argv[1]), sys.argv[2]
    writer = SummaryWriter("logs/oracle")
    for i in range(count):
        writer.add_scalar("value", i % 1000, i)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "_exit":
        os._exit(7)
    elif how == "exit":
        sys.exit(7)
    elif how == "raise":
        raise RuntimeError("on purpose")
    elif how == "close":
        print(writer.flush(60))
"""


def oracle(count: int) -> list[tuple[int, float]]:
    """Return the records of the ORACLE script."""
    return [(i, float(i % 1000)) for i in range(count)]


@pytest.mark.parametrize("loader", SHOWN)
def test_the_first_script_of_the_description_gives_every_record(place: World, loader: str) -> None:
    result = place.run(LINEAR)
    assert result.returncode == 0, result.stderr
    with board(place.logdir, loader) as shown:
        points = shown.until(
            lambda: (found := shown.scalars("linear", "train/loss")) and len(found) >= 1000 and found, "1,000 points"
        )
    assert [step for step, _ in points] == list(range(1000))
    assert points[-1][1] < points[0][1]


@pytest.mark.parametrize("loader", SHOWN)
def test_the_second_script_gives_every_scalar_and_histogram(place: World, loader: str) -> None:
    result = place.run(EVERY_PARAMETER)
    assert result.returncode == 0, result.stderr
    names = {"0.weight", "0.bias", "2.weight", "2.bias"}
    expected = {"train/loss", "train/accuracy"} | {f"train/grad_norm/{name}" for name in names}
    with board(place.logdir, loader) as shown:
        shown.until(lambda: len(shown.scalars("every", "train/grad_norm/2.bias")) == 20, "20 points")
        assert shown.tags()["every"] == expected
        for tag in expected:
            assert [step for step, _ in shown.scalars("every", tag)] == list(range(20))
        assert shown.tags("histograms")["every"] == names
        for name in names:
            histograms = shown.tensors("every", name, "histograms")
            assert [step for step, _ in histograms] == list(range(20))
            sizes = {"0.weight": 512, "0.bias": 32, "2.weight": 128, "2.bias": 4}
            assert all(buckets[:, 2].sum() == sizes[name] for _, buckets in histograms)


@pytest.mark.parametrize(("how", "code"), [("kill", -9), ("_exit", 7), ("exit", 7), ("raise", 1), ("close", 0)])
def test_whatever_ends_the_trainer_all_points_are_written(place: World, how: str, code: int) -> None:
    """3,000 calls have returned; then the process is gone. Its own exit code is kept."""
    result = place.run(ORACLE, 3000, how)
    assert result.returncode == code, result.stderr
    place.ensure()  # it may have been killed before its daemon was up
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "oracle") == {"value": oracle(3000)}


@pytest.mark.parametrize("loader", SHOWN)
def test_killing_the_daemon_in_the_middle_loses_and_doubles_nothing(place: World, loader: str) -> None:
    trainer = place.start(
        """
        import sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/oracle")
        for i in range(100_000):
            writer.add_scalar("value", i % 1000, i)
            if i % 10_000 == 0:
                print(i, flush=True)
                sys.stdin.readline()
        print(writer.flush(60))
        """,
        stdin=-1,
        stdout=-1,
    )
    assert trainer.stdin is not None and trainer.stdout is not None
    killed = 0
    for expected in range(0, 100_000, 10_000):
        assert int(trainer.stdout.readline()) == expected
        if expected in (30_000, 60_000):
            # Some of it is written, and more is on the way, when the daemon dies; the next one starts by itself.
            wait_for(
                lambda before=expected - 29_999: len(scalars(place.logdir / "oracle").get("value", [])) > before,
                "events of this daemon",
            )
            place.kill_daemon()
            killed += 1
        trainer.stdin.write(b"\n")
        trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    assert trainer.wait() == 0
    assert killed == 2
    assert scalars(place.logdir / "oracle") == {"value": oracle(100_000)}
    assert len(list((place.logdir / "oracle").iterdir())) == 3, "a new file after each kill"
    with board(place.logdir, loader) as shown:
        assert shown.until(
            lambda: (found := shown.scalars("oracle", "value")) and len(found) >= 100_000 and found, "all points"
        ) == oracle(100_000)


def test_a_trainer_without_any_daemon_trains_on_and_loses_nothing(place: World) -> None:
    """TBXD_ADDRESS leads nowhere: own exit code, within the flush bound; the next daemon writes it all."""
    nowhere = {"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock", "TBXD_FLUSH_SECONDS": "0.5"}
    result = place.run(ORACLE, 3000, "exit", environ=nowhere, timeout=20)
    assert result.returncode == 7
    assert "wait in" in result.stderr
    assert len(place.journals()) == 1
    assert not (place.logdir / "oracle").exists() or not scalars(place.logdir / "oracle")
    status = place.tbxd("status")
    assert status.returncode == 3 and "1 journal" in status.stdout
    place.serve()
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "oracle") == {"value": oracle(3000)}


def test_without_a_daemon_all_flushes_and_closes_together_wait_once(place: World) -> None:
    """50 times and the exit, of which each could wait 3 seconds; a daemon that comes later is waited for again."""
    nowhere = {"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock", "TBXD_FLUSH_SECONDS": "3"}
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        for number in range(25):
            with SummaryWriter(f"logs/{number}") as writer:
                writer.add_scalar("value", 1.0, 0)
                assert not writer.flush()
        assert not writer.flush(0.1)
        """,
        environ=nowhere,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("wait in") == 1
    trainer = place.start(
        """
        import sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 1.0, 0)
        assert not writer.flush() and not writer.flush()
        print("ready", flush=True)
        sys.stdin.readline()
        assert writer.flush(60)
        writer.add_scalar("value", 1.0, 1)
        assert writer.flush(10)
        """,
        environ={"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock", "TBXD_FLUSH_SECONDS": "1"},
        stdin=-1,
        stdout=-1,
    )
    assert trainer.stdin is not None and trainer.stdout is not None
    assert trainer.stdout.readline() == b"ready\n"
    place.serve()
    trainer.stdin.write(b"\n")
    trainer.stdin.close()
    assert trainer.wait() == 0


def test_both_killed_at_once_and_the_daemon_started_later(place: World) -> None:
    trainer = place.start(
        """
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/oracle")
        for i in range(300_000):
            writer.add_scalar("value", i % 1000, i)
            if i % 1000 == 999:
                print(i + 1, flush=True)
        import signal
        signal.pause()
        """,
        stdout=-1,
    )
    assert trainer.stdout is not None
    wait_for((place.logdir / "oracle").exists, "its folder")
    wait_for(lambda: any(event.summary.value for event in each_event(place.logdir / "oracle")), "a first event")
    trainer.send_signal(signal.SIGSTOP)
    daemon = place.running()
    os.kill(daemon, signal.SIGKILL)
    trainer.kill()
    lines = trainer.stdout.read().split()
    written_before = len(scalars(place.logdir / "oracle")["value"])
    place.serve()
    wait_for(place.drained, "the journal to be drained")
    points = scalars(place.logdir / "oracle")["value"]
    accepted = int(lines[-1])
    assert written_before <= len(points)
    assert accepted <= len(points)
    assert points == oracle(len(points))


def test_status_says_what_was_accepted_written_dropped_and_is_pending(place: World) -> None:
    place.serve()
    result = place.run(ORACLE, 500, "close")
    assert result.stdout == "True\n"
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "oracle")]
    assert (run["accepted"], run["written"], run["pending"], run["dropped"]) == (500, 500, 0, {})
    assert "oracle" in place.tbxd("status").stdout
    assert place.tbxd("stop").stdout == "stopped\n"
    assert place.tbxd("stop").returncode == 3
    assert place.status() is None


def test_every_event_file_begins_with_its_version(place: World) -> None:
    place.run(ORACLE, 1, "close")
    assert events(place.logdir / "oracle")[0].file_version == "brain.Event:2"
