"""A worker of `tbxd demo`: trains a small classifier of digits, logs every kind of record, and takes the time.

The same training runs with tbxd and with tensorboardX, one after the other in the same process, so that both have the
same steps, the same seeds and the same warm libraries. Only workers import this module and its large packages.
"""

from __future__ import annotations

import math
import signal
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import matplotlib as mpl
import matplotlib.backends.backend_agg
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn

from tbxd_client import SummaryWriter

try:
    import tensorboardX
except ImportError:  # then there is nothing to compare with, which the demo says
    tensorboardX = None

mpl.use("Agg")

BATCH = 64
VALIDATION = 360  # pictures that are not trained on
HISTOGRAM_STEPS = 10  # parameters are logged every so many steps
REPORT_STEPS = 10
SAMPLES = 32
ZOOM = 4  # pixels of a logged sample for each of the digit's
CELL = 24  # pixels of a cell of the confusion matrix with tensorboardX
DIGITS = [str(digit) for digit in range(10)]


@dataclass(frozen=True, slots=True)
class Task:
    """The task of one worker."""

    number: int
    epochs: int
    logdir: str  # of this worker

    @property
    def learning_rate(self) -> float:
        """Different for each worker: 0.1, 0.03, 0.01, 0.003, and again."""
        return (0.1, 0.03, 0.01, 0.003)[self.number % 4]

    @property
    def seed(self) -> int:
        """Different for each worker."""
        return 1000 + self.number


Report = Callable[..., None]  # "step", steps, loss; or "epoch", steps, epochs, validation loss and accuracy


def work(connection: Connection, task: Task) -> None:
    """Train once for each "tbxd" and "tensorboardX" from the connection, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    torch.set_num_threads(1)
    data = Data()
    _warm_up(data, task)
    connection.send(("ready", data.steps * task.epochs, None if tensorboardX is None else tensorboardX.__version__))
    while (writer := connection.recv()) is not None:

        def report(*message: Any) -> None:
            connection.send(message)

        if writer == "tbxd":
            outcome = train(Timed(SummaryWriter(task.logdir)), data, task, report)
        else:
            with tempfile.TemporaryDirectory(prefix="tbxd-demo-") as folder:
                outcome = train(Timed(Substitute(folder)), data, task, report)
        connection.send(("outcome", outcome))


# --- writers ---------------------------------------------------------------------------------------------------


class Timed:
    """Counts and times the calls of a writer."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.calls: dict[str, list[float]] = {}  # method: the seconds of each call

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.writer, name)
        calls = self.calls.setdefault(name, [])

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = method(*arguments, **options)
            calls.append(time.perf_counter() - start)
            return result

        setattr(self, name, timed)
        return timed


class Substitute:
    """tensorboardX, with the nearest equivalents of tbxd's own methods."""

    def __init__(self, logdir: str) -> None:
        self._writer = tensorboardX.SummaryWriter(logdir)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def log(self, values: dict[str, float], step: int) -> None:
        """As tbxd's."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def add_heatmap(self, tag: str, matrix: Any, step: int, **_: Any) -> None:
        """As tbxd's, but for colours, scale and labels."""
        cells = np.repeat(np.repeat(matrix, CELL, axis=0), CELL, axis=1)
        self._writer.add_image(tag, cells / max(cells.max(), 1), step, dataformats="HW")


# --- the training ----------------------------------------------------------------------------------------------


class Data:
    """The digits of scikit-learn as tensors; those to train on also moved by a pixel in each direction."""

    def __init__(self) -> None:
        digits = load_digits()
        pictures = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        labels = torch.tensor(digits.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        pictures, labels = pictures[order], labels[order]
        self.validation = pictures[:VALIDATION], labels[:VALIDATION]
        rest = pictures[VALIDATION:]
        moved = [rest.roll(shift, axis) for axis in (2, 3) for shift in (-1, 1)]
        self.pictures = torch.cat([rest, *moved])
        self.labels = labels[VALIDATION:].repeat(5)
        self.steps = math.ceil(len(self.labels) / BATCH)  # of an epoch


def _model() -> Any:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            hidden=nn.Linear(64 * 4 * 4, 128),
            relu3=nn.ReLU(),
            output=nn.Linear(128, 10),
        )
    )


def train(writer: Any, data: Data, task: Task, report: Report) -> dict[str, Any]:
    """Train from the beginning, as a user would write it. Return the fields of an `Outcome`."""
    torch.manual_seed(task.seed)
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, data.steps * task.epochs)
    start = time.perf_counter()
    writer.add_text("hyper_parameters", _hyper_parameters(model, task))
    step = 0
    for epoch in range(task.epochs):
        correct = 0.0
        order = torch.randperm(len(data.labels))
        for batch in order.split(BATCH):
            labels = data.labels[batch]
            output = model(data.pictures[batch])
            loss = nn.functional.cross_entropy(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            accuracy = (output.argmax(1) == labels).float().mean().item()
            correct += accuracy * len(labels)

            writer.add_scalar("train/loss", loss.item(), step)
            writer.add_scalar("train/accuracy", accuracy, step)
            writer.add_scalar("train/learning_rate", schedule.get_last_lr()[0], step)
            writer.log(_gradient_norms(model), step)
            if step % HISTOGRAM_STEPS == 0:
                for name, parameter in model.named_parameters():
                    writer.add_histogram(f"parameters/{name}", parameter, step)

            schedule.step()
            step += 1
            if step % REPORT_STEPS == 0:
                report("step", step, loss.item())

        output, validation_loss = _validate(model, data)
        guesses, labels = output.argmax(1), data.validation[1]
        shares = {"train": correct / len(data.labels), "validation": (guesses == labels).float().mean().item()}
        writer.add_scalars("epoch/accuracy", shares, step)
        writer.add_scalar("epoch/validation_loss", validation_loss, step)
        matrix = np.bincount((labels * 10 + guesses).numpy(), minlength=100).reshape(10, 10)
        writer.add_heatmap("pictures/confusion_matrix", matrix, step, row_labels=DIGITS, column_labels=DIGITS)
        samples = data.pictures[order[:SAMPLES]].repeat_interleave(ZOOM, 2).repeat_interleave(ZOOM, 3)
        writer.add_images("pictures/samples", torch.nn.functional.pad(samples, (ZOOM,) * 4, value=0.3), step)
        report("epoch", step, epoch + 1, validation_loss, shares["validation"])
    writer.add_figure("pictures/least_certain", _figure(output, data), step)
    loop = time.perf_counter() - start
    calls = dict(writer.calls)

    start = time.perf_counter()
    writer.flush()
    writer.close()
    closing = time.perf_counter() - start
    stats = writer.writer.stats() if isinstance(writer.writer, SummaryWriter) else {}
    return {"steps": step, "loop": loop, "closing": closing, "calls": calls, "stats": stats}


def _warm_up(data: Data, task: Task) -> None:
    """Let the libraries load, before the measurement, what they load at first use."""
    model = _model()
    for batch in torch.arange(BATCH * 5).split(BATCH):
        nn.functional.cross_entropy(model(data.pictures[batch]), data.labels[batch]).backward()
        _gradient_norms(model)
    _figure(_validate(model, data)[0], data).canvas.draw()


def _gradient_norms(model: Any) -> dict[str, float]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    norms = torch.stack([parameter.grad.norm() for parameter in parameters]).tolist()
    return {f"gradient_norm/{name}": norm for name, norm in zip(names, norms, strict=True)}


def _validate(model: Any, data: Data) -> tuple[Any, float]:
    pictures, labels = data.validation
    with torch.no_grad():
        output = model(pictures)
    return output, float(nn.functional.cross_entropy(output, labels))


def _hyper_parameters(model: Any, task: Task) -> str:
    rows = {
        "worker": task.number,
        "seed": task.seed,
        "optimizer": "SGD, momentum 0.9",
        "learning rate": f"{task.learning_rate:g}, falling to 0 as a cosine",
        "batch": BATCH,
        "epochs": task.epochs,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
    }
    return "\n".join(["| name | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _figure(output: Any, data: Data) -> Any:
    """The validation pictures that the model is least certain of, with its guess and the truth."""
    pictures, labels = data.validation
    certainty, guesses = output.softmax(1).max(1)
    figure = Figure(figsize=(3.3, 2.2), dpi=100, layout="constrained")  # as large as TensorBoard shows it
    mpl.backends.backend_agg.FigureCanvasAgg(figure)
    for place, index in enumerate(certainty.argsort()[:10].tolist(), 1):
        axes = figure.add_subplot(2, 5, place)
        axes.imshow(pictures[index, 0], cmap="gray_r")
        axes.set_axis_off()
        wrong = guesses[index] != labels[index]
        axes.set_title(
            f"{guesses[index]} at {certainty[index]:.0%}" + (f"\nis {labels[index]}" if wrong else ""),
            color="crimson" if wrong else "black",
            fontsize=7,
        )
    return figure
