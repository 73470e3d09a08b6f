"""`tbxd demo`: it says what it has measured, and what it has logged is in TensorBoard."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from harness import World, wait_for, world
from tb import LOADERS, board
from tbxd.tools import demo as demo_module

LAYERS = ("conv1", "conv2", "hidden", "output")
PARAMETERS = {f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")}
SCALARS = {"train/loss", "train/accuracy", "train/learning_rate", "epoch/validation_loss"} | {
    f"gradient_norm/{name}" for name in PARAMETERS
}
PICTURES = {"pictures/samples", "pictures/confusion_matrix", "pictures/least_certain"}


def demo(place: World, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tbxd", "demo", *arguments],
        env={**place.environ, **environ},
        cwd=place.root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a short demo, whose processes are gone."""
    with world(tmp_path_factory.mktemp("demo") / "world") as place:
        result = demo(place, "--epochs", "1", "--logdir", "demo")
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        return place.root / "demo", result.stdout


@pytest.mark.long
def test_it_prints_what_it_has_measured(shown: tuple[Path, str]) -> None:
    _, output = shown
    found = re.search(r"records: ([\d,]+) accepted, ([\d,]+) written", output)
    assert found, output
    accepted, written = (int(number.replace(",", "")) for number in found.groups())
    assert accepted == written > 500
    assert re.search(r"training time in logging calls +\d+\.\d+% +\d+\.\d+%\n", output), output
    assert re.search(r"wall time until all were done +\d+\.\d+ s +\d+\.\d+ s\n", output), output
    for writer in ("tbxd", "tensorboardX"):
        assert f"{writer}: 1 of 1 epochs" in output
    for method in ("add_scalar", "log", "add_histogram", "add_images", "add_heatmap", "add_figure", "add_text"):
        assert re.search(rf"{method}: .* [\d,]+ +[\d,.]+ µs +[\d,.]+ µs\n", output), output
    assert "tensorboard --logdir demo\n" in output


@pytest.mark.long
@pytest.mark.parametrize("loader", LOADERS)
def test_tensorboard_shows_all_of_it(shown: tuple[Path, str], loader: str) -> None:
    logdir, _ = shown
    workers = {"worker0", "worker1"}
    curves = {f"{worker}/epoch/accuracy/{which}" for worker in workers for which in ("train", "validation")}
    with board(logdir, loader) as shows:
        shows.until(lambda: shows.runs() >= workers | curves, "the runs")
        for worker in workers:
            shows.until(lambda run=worker: shows.tags("text").get(run), "the last of a run's kinds")
            shows.until(lambda run=worker: shows.tags("images").get(run) == PICTURES, "the pictures")
            assert shows.tags()[worker] == SCALARS
            assert shows.tags("histograms")[worker] == {f"parameters/{name}" for name in PARAMETERS}
            assert shows.tags("text")[worker] == {"hyper_parameters/text_summary"}
            steps = [step for step, _ in shows.scalars(worker, "train/loss")]
            assert steps == list(range(len(steps))) and len(steps) > 50
        for curve in curves:
            assert shows.tags()[curve] == {"epoch/accuracy"}


@pytest.mark.long
def test_open_starts_tensorboard_on_the_result_until_it_is_left(place: World) -> None:
    command = [sys.executable, "-m", "tbxd", "demo", "--epochs", "1", "--workers", "1", "--open"]
    process = subprocess.Popen(command, env=place.environ, cwd=place.root, stderr=subprocess.PIPE, text=True)
    place.processes.append(process)
    assert process.stderr is not None
    address = next(
        found.group() for line in process.stderr if (found := re.search(r"http://[\w.]+:\d+/(?= \(Press CTRL)", line))
    )

    def runs() -> list[str]:
        with urllib.request.urlopen(address + "data/runs") as answer:
            return json.load(answer)

    wait_for(lambda: "worker0" in runs(), "TensorBoard to show the demo")
    children = psutil.Process(process.pid).children()
    (tensorboard,) = (child for child in children if "tensorboard.main" in child.cmdline())
    for each in (tensorboard, process):  # Ctrl-C goes to both
        each.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_a_second_demo_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    from tbxd.tools.demo import _fresh

    assert [_fresh(tmp_path / "runs" / "demo") for _ in range(3)] == [
        tmp_path / "runs" / name for name in ("demo", "demo-2", "demo-3")
    ]
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="file: "):
        _fresh(tmp_path / "file")


def test_missing_packages_are_named(place: World) -> None:
    hidden = place.root / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in ('torch', 'sklearn') else find(name, *rest)\n"
    )
    path = ":".join([str(hidden), *sys.path])
    result = demo(place, "--logdir", "demo", PYTHONPATH=path)
    assert result.returncode == 1
    assert "needs torch and scikit-learn: pip install torch scikit-learn" in result.stderr
    assert not (place.root / "demo").exists()


@pytest.mark.long
def test_a_worker_that_fails_fails_the_demo(place: World) -> None:
    broken = place.root / "broken" / "sklearn"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "datasets.py").write_text("raise RuntimeError('no digits today')\n")
    result = demo(place, "--logdir", "demo", PYTHONPATH=":".join([str(broken.parent), *sys.path]))
    assert result.returncode == 1
    assert "no digits today" in result.stderr
    assert re.search(r"tbxd: worker \d has failed with exit code 1\n", result.stderr)


def test_a_worker_that_does_not_end_is_said_to_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to have ended with exit code None; and it is ended."""
    monkeypatch.setattr(demo_module, "END_SECONDS", 0.05)
    crew = demo_module.Crew(tmp_path, 1, 0)
    process = multiprocessing.get_context("spawn").Process(target=signal.pause, daemon=True)
    process.start()
    crew._processes.append(process)
    with pytest.raises(demo_module.DemoFailed, match=r"^worker 0 has finished its work, but has not ended"):
        crew.finish()
    crew.end()
    assert process.exitcode == -signal.SIGTERM
