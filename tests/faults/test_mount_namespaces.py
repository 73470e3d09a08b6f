"""A trainer that sees other files than the daemon under one path: its records reach its own folder, or it is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import World, scalars, wait_for, world

# Scripts print what their own folder holds, because nobody else sees it.
LOG = """
    import os, sys, time
    sys.path.insert(0, sys.argv[1])
    from harness import scalars
    from pathlib import Path
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[2])
    first, count = int(sys.argv[3]), int(sys.argv[4])
    for step in range(first, first + count):
        writer.add_scalar("loss", step, step)
    print(writer.flush(30), len(scalars(Path(sys.argv[2])).get("loss", ())), flush=True)
    if sys.argv[5] == "stay":
        sys.stdin.readline()
    if sys.argv[5] == "kill":
        os.kill(os.getpid(), 9)
    writer.close()
    print(len(scalars(Path(sys.argv[2])).get("loss", ())), flush=True)
"""
HERE = str(Path(__file__).parents[1])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    if os.getuid() or shutil.which("unshare") is None:
        pytest.skip("namespaces need root, and unshare (apt-get install util-linux)")
    if subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("no mount namespaces")
    with world(tmp_path / "world", TBXD_IDLE_SECONDS="2") as result:
        result.logdir.mkdir()
        try:
            yield result
        finally:
            end_views(result)


def views(place: World) -> list[Path]:
    """The locks of daemons of other namespaces."""
    return list(place.runtime.glob("view-*/daemon.lock"))


def end_views(place: World) -> None:
    for lock in views(place):
        text = lock.read_text().strip()
        with suppress(psutil.NoSuchProcess, ValueError):
            process = psutil.Process(int(text))
            if "tbxd" in " ".join(process.cmdline()):
                process.kill()


def namespace(place: World) -> list[str]:
    """The beginning of a command that runs in a mount namespace with another file system over the log folder."""
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {place.logdir} && exec "$@"', "sh"]


def start(place: World, *arguments: object, under: list[str]) -> subprocess.Popen[bytes]:
    return place.start(LOG, HERE, *arguments, under=under, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def out(trainer: subprocess.Popen[bytes]) -> list[str]:
    said, _ = trainer.communicate(b"\n", timeout=60)
    return said.decode().splitlines()


def status_of_view(place: World) -> dict[str, Any]:
    (lock,) = views(place)
    environ = {**place.environ, "TBXD_RUNTIME_DIR": str(lock.parent)}
    command = [sys.executable, "-m", "tbxd", "status", "--json"]
    return dict(json.loads(subprocess.run(command, env=environ, capture_output=True, check=True).stdout))


@pytest.mark.parametrize("daemon", ["warm", "cold"])
def test_records_reach_the_folder_that_the_trainer_sees(place: World, daemon: str) -> None:
    if daemon == "warm":
        place.serve()
    trainer = start(place, "logs/run", 0, 100, "end", under=namespace(place))
    assert out(trainer) == ["True 100", "100"]
    assert trainer.returncode == 0
    assert not list(place.logdir.iterdir()), "nothing in the folder of that name outside"
    assert place.drained()
    if daemon == "warm":
        status = place.status()
        assert status is not None and status["runs"] == {} and status["sessions"] == []
        assert status["refused_messages"] == 0, "that is no trouble"
    assert len(views(place)) == (daemon == "warm")


def test_a_folder_that_both_see_is_written_by_the_daemon_of_all(place: World) -> None:
    place.serve()
    trainer = start(place, "logs/run", 0, 100, "end", under=["unshare", "-m"])
    assert out(trainer) == ["True 100", "100"]
    assert len(scalars(place.logdir / "run")["loss"]) == 100
    assert not views(place)


def test_two_namespaces_and_the_host_log_under_one_path_at_once(place: World) -> None:
    place.serve()
    trainers = [start(place, "logs/run", 0, 100, "stay", under=namespace(place)) for _ in range(2)]
    trainers.append(start(place, "logs/run", 1000, 50, "stay", under=[]))
    for trainer, count in zip(trainers, (100, 100, 50), strict=True):
        assert trainer.stdout is not None and trainer.stdout.readline().decode() == f"True {count}\n"
    assert len(views(place)) == 2
    status = place.status()
    assert status is not None and len(status["views"]) == 2
    for trainer, count in zip(trainers, (100, 100, 50), strict=True):
        assert out(trainer) == [str(count)]
    assert scalars(place.logdir / "run")["loss"] == [(step, float(step)) for step in range(1000, 1050)]
    wait_for(place.drained, "the journals to be drained")


def test_a_trainer_whose_daemon_there_is_killed_goes_on(place: World) -> None:
    place.serve()
    script = LOG.replace(
        "    if sys.argv[5]", "    sys.stdin.readline()\n    writer.add_scalar('loss', 9, 9)\n    if sys.argv[5]", 1
    )
    trainer = place.start(
        script, HERE, "logs/run", 0, 9, "end", under=namespace(place), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert trainer.stdout is not None and trainer.stdout.readline() == b"True 9\n"
    os.kill(status_of_view(place)["pid"], signal.SIGKILL)
    assert out(trainer) == ["10"]
    assert not list(place.logdir.iterdir())


def test_what_a_killed_trainer_has_left_is_written_by_the_next_of_its_namespace_and_told_meanwhile(
    place: World,
) -> None:
    place.serve("--log-level", "info")
    # The namespace lives as long as this shell; its first trainer is killed before any daemon there has come.
    shell = subprocess.Popen(
        [*namespace(place), "sh"], stdin=subprocess.PIPE, env=place.environ, cwd=place.root, text=True
    )
    place.processes.append(shell)  # type: ignore[arg-type]
    assert shell.stdin is not None
    first = place.root / "first.py"
    first.write_text(
        "import os, sys, time\n"
        "from tbxd_client import SummaryWriter\n"
        "os.environ['TBXD_ADDRESS'] = 'ipc:///nowhere/socket'\n"
        "writer = SummaryWriter('logs/run')\n"
        "for step in range(40): writer.add_scalar('loss', step, step)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    shell.stdin.write(f"{sys.executable} first.py; touch done\n")
    shell.stdin.flush()
    wait_for((place.root / "done").exists, "the first trainer to be killed")

    def told() -> Any:
        status = place.status()
        return status is not None and status["elsewhere_journals"]

    (path,) = wait_for(told, "it to be told")
    assert "another mount namespace" in told()[path] and path in place.tbxd("status").stdout
    assert path in place.tbxd("doctor").stdout
    drained = place.tbxd("drain")
    assert drained.returncode != 0 and path in drained.stdout, drained.stdout
    assert not list(place.logdir.iterdir()) and Path(path).exists()
    shell.stdin.write(f"{sys.executable} -m tbxd drain > drained; cp -r logs/run/. seen/; touch drained.done\n")
    (place.root / "seen").mkdir()
    shell.stdin.flush()
    wait_for((place.root / "drained.done").exists, "tbxd drain in the namespace")
    assert scalars(place.root / "seen")["loss"] == [(step, float(step)) for step in range(40)], (
        place.root / "drained"
    ).read_text()
    assert place.drained() and not list(place.logdir.iterdir())
    shell.stdin.close()
    shell.wait(60)


def test_what_is_left_of_a_namespace_that_is_gone_is_kept_and_told(place: World) -> None:
    place.serve()
    trainer = place.start(
        "import os\n"
        "from tbxd_client import SummaryWriter\n"
        "os.environ['TBXD_ADDRESS'] = 'ipc:///nowhere/socket'\n"
        "writer = SummaryWriter('logs/run')\n"
        "writer.add_scalar('loss', 1.0, 0)\n"
        "os.kill(os.getpid(), 9)\n",
        under=namespace(place),
    )
    assert trainer.wait(60) == -signal.SIGKILL
    wait_for(lambda: (place.status() or {}).get("elsewhere_journals"), "it to be told")
    again = start(place, "logs/run", 0, 5, "end", under=namespace(place))  # the same path in another namespace
    assert out(again) == ["True 5", "5"], "nothing of the one before"
    assert len(place.journals()) == 1 and not list(place.logdir.iterdir())


def test_a_trainer_under_another_root_logs_into_its_own_folder(place: World) -> None:
    """chroot, in one mount namespace with the daemon: the same path leads to another folder."""
    jail = place.root / "jail"
    script = place.root / "trainer.py"
    script.write_text("\n".join(line[4:] for line in LOG.splitlines()))
    jail.mkdir()
    (place.logdir / "outside").mkdir()
    command = f"""
        mount --rbind / {jail} && mount -t tmpfs none {jail}{place.logdir} || exit 1
        {sys.executable} -m tbxd serve & daemon=$!
        until [ -S {place.runtime}/daemon.sock ]; do sleep 0.05; done
        chroot {jail} sh -c 'cd {place.root} && exec {sys.executable} trainer.py {HERE} logs/run 0 100 end'
        code=$?
        {sys.executable} -m tbxd status --json > {place.root}/status
        kill $daemon; wait; exit $code
        """
    trainer = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], env=place.environ, capture_output=True, text=True, timeout=60
    )
    assert trainer.stdout.splitlines() == ["True 100", "100"], trainer.stderr
    assert trainer.returncode == 0
    assert [path.name for path in place.logdir.iterdir()] == ["outside"]
    assert json.loads((place.root / "status").read_text())["runs"] == {}
    assert len(views(place)) == 1


def test_a_folder_that_is_made_again_is_gone_on_with(place: World) -> None:
    """In one namespace the path is what counts, whatever stands there by now."""
    place.serve()
    trainer = start(place, "logs/run", 0, 10, "stay", under=[])
    assert trainer.stdout is not None and trainer.stdout.readline() == b"True 10\n"
    shutil.rmtree(place.logdir / "run")
    (place.logdir / "run").mkdir()
    second = start(place, "logs/run", 10, 10, "end", under=[])
    assert out(second)[0].startswith("True")
    out(trainer)
    assert not views(place)
