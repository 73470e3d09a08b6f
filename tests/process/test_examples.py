"""The examples for containers: read as they are, and run in namespaces like a container's, with one folder shared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from harness import World, scalars, wait_for
from tbxd.daemon.lifecycle import CLOSE_SECONDS, DRAIN_SECONDS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TRAIN = """
    import sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    for step in range(20_000):
        writer.add_scalar("value", step, step)
    print("logged", flush=True)
    sys.stdin.readline()
    assert writer.flush(60)
"""


def compose() -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The daemon's container, the training's, and what the image sets."""
    services = yaml.safe_load((EXAMPLES / "docker" / "compose.yaml").read_text())["services"]
    image = (EXAMPLES / "docker" / "Dockerfile").read_text()
    (line,) = [line for line in image.splitlines() if line.startswith("ENV ")]
    return services["tbxd"], services["train"], dict(word.split("=") for word in line.split()[1:])


def environs(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The environment of the daemon and that of the training, as an example has them."""
    if name == "compose":
        daemon, train, image = compose()
        return {**image, **daemon.get("environment", {})}, {**image, **train["environment"]}
    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes" / f"{name}.yaml").read_text()))
    pod = documents[0]["spec"]["template"]["spec"]
    if name == "sidecar":
        containers = pod["initContainers"][0], pod["containers"][0]
    else:
        containers = pod["containers"][0], documents[1]["spec"]["containers"][0]
    daemon, train = containers
    assert daemon["command"][:2] == ["tbxd", "serve"]
    assert daemon["volumeMounts"] == train["volumeMounts"], "the same folders under the same names"
    for container in containers:
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    first, second = ({item["name"]: item["value"] for item in container["env"]} for container in containers)
    return first, second


def contained(
    place: World, host: str, environ: dict[str, str], *command: str, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a command as the first process of its own process, host, IPC and network namespaces."""
    given = {key: value.replace("/tbxd", str(place.root / "tbxd")) for key, value in environ.items()}
    process = subprocess.Popen(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc", "--net"),
            *("sh", "-c", f'echo {host} > /proc/sys/kernel/hostname; exec "$@"', "sh", *command),
        ],
        env={**{key: value for key, value in place.environ.items() if not key.startswith("TBXD_")}, **given},
        cwd=place.root,
        **options,
    )
    place.processes.append(process)
    return process


@pytest.mark.parametrize("name", ["compose", "sidecar", "daemonset"])
def test_daemon_and_training_in_containers_of_their_own_lose_nothing(place: World, name: str) -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("namespaces need root, and unshare (apt-get install util-linux)")
    for_daemon, for_training = environs(name)
    (place.root / "tbxd").mkdir(mode=0o1777)
    place.runtime, place.spool = place.root / "tbxd" / "run", place.root / "tbxd" / "spool"
    outside = contained(place, "daemon", for_daemon, sys.executable, "-m", "tbxd", "serve")
    wait_for(lambda: outside.poll() is not None or (place.runtime / "daemon.sock").exists(), "the daemon")
    if outside.poll() is not None:
        pytest.skip("no permission for namespaces")
    script = "\n".join(line[4:] for line in TRAIN.splitlines())
    for run in ("killed", "ended"):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        trainer = contained(place, "training", for_training, sys.executable, "-c", script, f"logs/{run}", **pipes)
        assert trainer.stdin is not None and trainer.stdout is not None and trainer.stdout.readline() == b"logged\n"
        if run == "killed":
            for process in psutil.Process(trainer.pid).children():
                process.kill()
        trainer.stdin.close()
        assert (trainer.wait(120) == 0) == (run == "ended")
    wait_for(place.drained, "the killed trainer's journal")
    for run in ("killed", "ended"):
        assert scalars(place.logdir / run) == {"value": [(step, float(step)) for step in range(20_000)]}
    assert not (place.runtime / "daemon.log").exists(), "no writer has started a daemon"
    health = contained(place, "daemon", for_daemon, sys.executable, "-m", "tbxd", "status", stdout=subprocess.DEVNULL)
    assert health.wait(60) == 0
    (daemon,) = psutil.Process(outside.pid).children()
    daemon.send_signal(signal.SIGTERM)  # also as the first process of a container it takes it
    assert outside.wait(60) == 0


def test_containers_run_as_one_user_and_have_time_to_write_what_is_queued() -> None:
    longest = DRAIN_SECONDS + CLOSE_SECONDS
    daemon, train, _ = compose()
    assert daemon["user"] == train["user"] and daemon["volumes"] == train["volumes"][:2]
    assert int(daemon["stop_grace_period"].removesuffix("s")) > longest
    for name in ("sidecar", "daemonset"):
        for document in yaml.safe_load_all((EXAMPLES / "kubernetes" / f"{name}.yaml").read_text()):
            pod = document["spec"].get("template", document)["spec"]
            assert pod["securityContext"]["runAsUser"] == 1000
            if document["kind"] != "Pod":
                assert pod["terminationGracePeriodSeconds"] > longest


def test_the_scripts_for_slurm_are_shell() -> None:
    for name, shell in (("prolog.sh", "sh"), ("epilog.sh", "sh"), ("job.sbatch", "bash")):
        done = subprocess.run([shell, "-n", str(EXAMPLES / "slurm" / name)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
