"""`tbxd demo`: train a small classifier in several processes, log every kind of record, and print the cost.

All printed numbers are measured in that run. The training is in `demo_worker`, which imports torch and other large
packages; this process starts the workers, shows their progress, and asks the daemon what it has written.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from shutil import which
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tbxd_client.config.paths import configured_address

from ..config.settings import Settings
from ..transport import control_client

NEEDED = {"torch": "torch", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
SETTLE_SECONDS = 30.0  # for the daemon to write what the workers have logged
END_SECONDS = 60.0  # torch takes a second to be taken down, and ten and more on a machine that is busy
KINDS = {  # method: what the demo logs with it
    "add_scalar": "loss, accuracy, …",
    "log": "8 gradient norms",
    "add_scalars": "two accuracies",
    "add_histogram": "a layer's parameters",
    "add_images": "32 digits",
    "add_heatmap": "confusion matrix",
    "add_figure": "matplotlib draws here",
    "add_text": "the first call of all",
}
NOTE = "log() is add_scalar() for each number; add_heatmap() is add_image() of the matrix, without scale and labels"


@dataclass(slots=True)
class Outcome:
    """The measurements of one worker in one training."""

    steps: int
    loop: float  # seconds of the training loop, the logging calls in it included
    closing: float  # seconds of flush and close after it
    calls: dict[str, list[float]]  # method: seconds of each call in the loop
    stats: dict[str, Any]  # of tbxd's writer


class DemoFailed(Exception):
    """The demo cannot continue, or its result is wrong."""


def run(logdir: Path, epochs: int, workers: int, open_: bool) -> int:
    """Run the demo.

    Args:
        logdir: where to log; ``<logdir>-2`` and so on if it holds an earlier demo.
        epochs, workers: the numbers of epochs and of processes.
        open_: start TensorBoard on the result, and stay until it ends.

    Returns:
        The exit code: 0 if every accepted record has been written.
    """
    try:
        logdir = _run(logdir, epochs, workers, Console(highlight=False))
        return _tensorboard(logdir) if open_ else 0
    except (DemoFailed, control_client.NotRunning) as error:
        print(f"tbxd: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("tbxd: interrupted", file=sys.stderr)
    return 1


def _run(logdir: Path, epochs: int, workers: int, console: Console) -> Path:
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise DemoFailed(f"the demo needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    logdir = _fresh(logdir)
    console.print(
        f"{workers} process{'es' if workers > 1 else ''} training for {epochs} epoch{'s' if epochs > 1 else ''}, "
        f"logging to {escape(str(logdir))}",
        soft_wrap=True,
    )
    crew = Crew(logdir, epochs, workers)
    try:
        version = crew.start()
        ours, wall = crew.train("tbxd", console)
        written, accepted, troubles = _settled(logdir, ours)
        theirs, their_wall = crew.train("tensorboardX", console) if version else ([], 0.0)
        crew.finish()
    finally:
        crew.end()

    _say(console, ours, wall, theirs, their_wall, version)
    console.print(f"\nrecords: {accepted:,} accepted, {written:,} written")
    for trouble in troubles:
        console.print(escape(trouble), soft_wrap=True)
    console.print(f"look at them: {escape(shlex.join([_tensorboard_name(), '--logdir', str(logdir)]))}", soft_wrap=True)
    if written != accepted:
        raise DemoFailed("not every record has been written; `tbxd status` says more")
    return logdir


def _fresh(logdir: Path) -> Path:
    """Return a folder without an earlier demo, claimed by making the folder of its first worker.

    Raises:
        DemoFailed: the folder cannot be made.
    """
    base = logdir if logdir.name not in ("", "..") else logdir.resolve()
    number = 1
    while True:
        chosen = base if number == 1 else base.parent / f"{base.name}-{number}"
        try:
            chosen.mkdir(parents=True, exist_ok=True)
            (chosen / "worker0").mkdir()
            return chosen
        except OSError as error:
            if not (chosen / "worker0").is_dir():
                raise DemoFailed(f"{chosen}: {error.strerror}") from error
        number += 1


def _settled(logdir: Path, outcomes: list[Outcome]) -> tuple[int, int, list[str]]:
    """Return the records written by the daemon, the records accepted by the writers, and the errors."""
    accepted = sum(outcome.stats["accepted"] for outcome in outcomes)
    settings = Settings.of({"address": configured_address()})
    root = logdir.absolute()
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        status = control_client.ask(settings, "status")
        runs = [state for name, state in status["runs"].items() if Path(name).is_relative_to(os.path.normpath(root))]
        written = sum(state["written"] for state in runs)
        pending = sum(state["pending"] for state in runs)
        if written == accepted or not pending or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    troubles = [f"{count:,} dropped: {reason}" for state in runs for reason, count in state["dropped"].items()]
    return written, accepted, troubles + [state["error"] for state in runs if state["error"]]


# --- workers ---------------------------------------------------------------------------------------------------


def _work(connection: Connection, task: dict[str, Any]) -> None:
    """Run a worker process, which does the slow imports."""
    from .demo_worker import Task, work

    work(connection, Task(**task))


class Crew:
    """The worker processes. They are spawned, so that they inherit nothing of this process.

    Raises:
        DemoFailed: from every method but `end`, if a worker has ended early.
    """

    def __init__(self, logdir: Path, epochs: int, workers: int) -> None:
        self._epochs = epochs
        self._tasks = [
            {"number": number, "epochs": epochs, "logdir": str(logdir.absolute() / f"worker{number}")}
            for number in range(workers)
        ]
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        self._steps = 0  # of one worker

    def start(self) -> str:
        """Start all workers and wait until they are ready. Return the version of tensorboardX, "" without it."""
        context = multiprocessing.get_context("spawn")
        for task in self._tasks:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, task), name=f"worker{task['number']}", daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        version = ""
        for number in range(len(self._tasks)):
            _, self._steps, version = self._receive(number)
        return version or ""

    def train(self, writer: str, console: Console) -> tuple[list[Outcome], float]:
        """Train in all workers at once. Return their measurements, and the seconds until the last had finished."""
        outcomes: dict[int, Outcome] = {}
        start = time.perf_counter()
        for connection in self._connections:
            connection.send(writer)
        with Shown(writer, self._epochs, self._steps, len(self._tasks), console) as shown:
            while len(outcomes) < len(self._tasks):
                busy = [each for number, each in enumerate(self._connections) if number not in outcomes]
                for ready in multiprocessing.connection.wait(busy):
                    number = self._connections.index(ready)  # type: ignore[arg-type]
                    kind, *content = self._receive(number)
                    if kind == "outcome":
                        outcomes[number] = Outcome(**content[0])
                    elif kind == "epoch":
                        shown.epoch(number, *content)
                    else:
                        shown.step(number, *content)
        return [outcomes[number] for number in range(len(self._tasks))], time.perf_counter() - start

    def finish(self) -> None:
        """Let the workers end."""
        for connection in self._connections:
            connection.send(None)
        for number, process in enumerate(self._processes):
            process.join(END_SECONDS)
            if process.exitcode is None:
                raise DemoFailed(f"worker {number} has finished its work, but has not ended after {END_SECONDS:.0f} s")
            if process.exitcode:
                raise DemoFailed(f"worker {number} has ended with exit code {process.exitcode}")

    def end(self) -> None:
        """Terminate all workers."""
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        for process in self._processes:
            process.join()

    def _receive(self, number: int) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = self._connections[number].recv()
        except (EOFError, OSError):
            self._processes[number].join(END_SECONDS)
            code = self._processes[number].exitcode
            what = "has failed, but does not end" if code is None else f"has failed with exit code {code}"
            raise DemoFailed(f"worker {number} {what}") from None
        return message


class Shown:
    """The progress of the workers: a bar on a terminal, else a line for each epoch that all have finished."""

    def __init__(self, writer: str, epochs: int, steps: int, workers: int, console: Console) -> None:
        self._writer = writer
        self._epochs = epochs
        self._steps = [0] * workers
        self._finished = [0] * workers
        self._console = console
        self._progress = Progress(
            TextColumn(f"{writer:<12}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=steps * workers, text="")

    def __enter__(self) -> Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, number: int, step: int, loss: float) -> None:
        """Show the steps of a worker."""
        self._steps[number] = step
        self._progress.update(self._bar, completed=sum(self._steps), text=f"loss {loss:.3f}")

    def epoch(self, number: int, step: int, epoch: int, loss: float, accuracy: float) -> None:
        """Show the epochs of a worker; loss and accuracy are those of the validation."""
        self._steps[number] = step
        self._progress.update(self._bar, completed=sum(self._steps))
        before = min(self._finished)
        self._finished[number] = epoch
        if min(self._finished) > before and not self._console.is_terminal:
            self._console.print(
                f"{self._writer}: {min(self._finished)} of {self._epochs} epochs, "
                f"validation loss {loss:.3f}, accuracy {accuracy:.1%}"
            )


# --- the result ------------------------------------------------------------------------------------------------


def _say(
    console: Console, ours: list[Outcome], wall: float, theirs: list[Outcome], their_wall: float, version: str
) -> None:
    """Print the costs of both writers."""
    columns = ["tbxd", f"tensorboardX {version}"] if theirs else ["tbxd"]
    both = [outcomes for outcomes in (ours, theirs) if outcomes]
    steps = f"{ours[0].steps:,} steps"
    table = _table(f"median of {len(ours)} workers, {steps} each" if len(ours) > 1 else steps, *columns)
    table.add_row("training time in logging calls", *(f"{_share(outcomes):.2%}" for outcomes in both))
    for text, measure in (("training loop", attrgetter("loop")), ("flush and close after it", attrgetter("closing"))):
        table.add_row(text, *(f"{statistics.median(map(measure, outcomes)):.2f} s" for outcomes in both))
    table.add_row("wall time until all were done", *(f"{seconds:.2f} s" for seconds in (wall, their_wall)[: len(both)]))
    console.print()
    console.print(table)

    table = _table("median of the calls", "calls", *columns)
    for method, what in KINDS.items():
        calls = [[seconds for outcome in outcomes for seconds in outcome.calls[method]] for outcomes in both]
        medians = (f"{statistics.median(each) * 1e6:,.1f} µs" for each in calls)
        table.add_row(f"{method}: {what}", f"{len(calls[0]):,}", *medians)
    console.print()
    console.print(table)
    if theirs:
        console.print(f"With tensorboardX {NOTE}.")
    else:
        console.print("tensorboardX is not installed, so there is no comparison.")


def _table(title: str, *columns: str) -> Table:
    table = Table(title, *columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    return table


def _share(outcomes: list[Outcome]) -> float:
    """Return the share of the loop spent in logging calls; the median of the workers."""
    return statistics.median(sum(map(sum, outcome.calls.values())) / outcome.loop for outcome in outcomes)


def _tensorboard_name() -> str:
    """Return the command for TensorBoard: that of this environment if the shell would find none."""
    ours = Path(sys.executable).parent / "tensorboard"
    if which("tensorboard") or not ours.exists():
        return "tensorboard"
    return str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)


def _tensorboard(logdir: Path) -> int:
    """Run TensorBoard in the foreground, until it ends."""
    if find_spec("tensorboard") is None:
        raise DemoFailed("TensorBoard is not installed: pip install tensorboard")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:  # the usual way to leave it; it has had the signal as well
        return 0
