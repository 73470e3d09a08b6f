"""Real jobs of several processes, started by torchrun: DDP and FSDP on a CPU. What TensorBoard shows of them equals
what numpy makes of the numbers that each rank has kept beside."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import World, events, scalars, wait_for
from tb import LOADERS, Board, board
from tbxd_client.logdir.event_names import event_files

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "4", "--monitor-interval", "0.1")
WHERE = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
SIDES = {"exp/ranks/min", "exp/ranks/max", "exp/ranks"}

# What each script begins with. `kept` is what a rank has logged: by tag, and of histograms by tag and step.
BEGIN = """
import os, sys, time
import numpy as np
import torch
import torch.distributed as dist
from tbxd_client import SummaryWriter

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
kept = {}

def keep(tag, step, value):
    kept.setdefault(tag, []).append((step, float(value)))
    return value

def keep_all(tag, step, tensor):
    kept[f"histogram {step} {tag}"] = tensor.detach().numpy().copy()
    return tensor

def end():
    np.savez(f"kept-{rank}-{os.environ['TORCHELASTIC_RESTART_COUNT']}.npz", **kept)
    dist.destroy_process_group()
"""


def torchrun(place: World, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script in four processes, to its end."""
    (place.root / "train.py").write_text(BEGIN + textwrap.dedent(script))
    return subprocess.run(
        [sys.executable, *TORCHRUN, *WHERE, *options, "train.py"],
        env=place.environ,
        cwd=place.root,
        capture_output=True,
        text=True,
        timeout=120,
    )


@dataclass
class Kept:
    """What the ranks have kept. ``scalars``: tag to step to rank to value; ``histograms``: tag and step to arrays."""

    scalars: dict[str, dict[int, dict[int, float]]]
    histograms: dict[tuple[str, int], dict[int, Any]]

    def values(self, tag: str) -> list[Any]:
        """The ranks' values of each step, in the order of both."""
        steps = sorted(self.scalars[tag].items())
        return [np.array([value for _, value in sorted(ranks.items())]) for _, ranks in steps]

    def whole(self, tag: str, step: int) -> Any:
        """Return all numbers of a histogram."""
        return np.concatenate([array.reshape(-1) for array in self.histograms[tag, step].values()])


def kept(root: Path, attempt: int = 0) -> Kept:
    result = Kept({}, {})
    for path in sorted(root.glob(f"kept-*-{attempt}.npz")):
        rank = int(path.name.split("-")[1])
        for name, array in np.load(path).items():
            if name.startswith("histogram "):
                _, step, tag = name.split(" ")
                result.histograms.setdefault((tag, int(step)), {})[rank] = array
            else:
                for at, value in array.tolist():
                    result.scalars.setdefault(name, {}).setdefault(int(at), {})[rank] = value
    return result


def settled(place: World) -> dict[str, Any]:
    """The run as `tbxd status` tells it, once everything is delivered; nothing was left out."""
    wait_for(place.drained, "the ranks' journals")
    status = place.status()
    assert status is not None and set(status["runs"]) == {str(place.logdir / "exp")}
    run: dict[str, Any] = status["runs"][str(place.logdir / "exp")]
    assert run["accepted"] == run["written"] > 0 and not run["dropped"] and not run["pending"], run
    return run


def files(logdir: Path) -> dict[str, int]:
    """Return the number of event files of each folder."""
    folders = {path.parent for path in logdir.rglob("*") if path.is_file()}
    return {str(folder.relative_to(logdir)): len(event_files(folder)) for folder in folders}


def is_curve(found: list[tuple[int, float]], steps: list[int], expected: list[Any]) -> None:
    """A curve has these points, to the last bit but one of a float32."""
    assert [step for step, _ in found] == steps
    numbers = np.array([value for _, value in found], np.float32)
    np.testing.assert_array_max_ulp(numbers, np.array(expected, np.float32), 1)


def is_reduced(shown: Board, oracle: Kept, tag: str, how: Callable[[Any], Any] = np.mean) -> None:
    """A tag's curve, those of its extremes and those of its spread are what numpy makes of the ranks' values."""
    steps, values = sorted(oracle.scalars[tag]), oracle.values(tag)
    for run, name, reduced in (
        ("exp", tag, how),
        ("exp/ranks/min", tag, np.min),
        ("exp/ranks/max", tag, np.max),
        ("exp/ranks", f"tbxd/ranks/std/{tag}", np.std),
        ("exp/ranks", f"tbxd/ranks/lowest/{tag}", np.argmin),
        ("exp/ranks", f"tbxd/ranks/highest/{tag}", np.argmax),
    ):
        is_curve(shown.scalars(run, name), steps, [reduced(ranks) for ranks in values])


def is_histogram(shown: Board, directory: Path, tag: str, step: int, numbers: Any) -> None:
    """The histogram in the file, and in TensorBoard, is one of all these numbers."""
    found = [
        value.histo
        for event in events(directory)
        for value in event.summary.value
        if value.tag == tag and event.step == step
    ]
    (histogram,) = found
    numbers = numbers.astype(np.float64)
    assert (histogram.num, histogram.min, histogram.max) == (len(numbers), numbers.min(), numbers.max())
    assert histogram.sum == pytest.approx(numbers.sum(), rel=1e-9, abs=1e-9)
    assert histogram.sum_squares == pytest.approx(np.square(numbers).sum(), rel=1e-9)
    limits, counts = np.array(histogram.bucket_limit), np.array(histogram.bucket)
    assert counts[0] == 0 and counts[1:].tolist() == np.histogram(numbers, limits)[0].tolist()
    tensor = dict(shown.tensors("exp", tag, "histograms"))[step]
    assert tensor[:, 2].sum() == len(numbers)
    assert tensor[-1, 1] == pytest.approx(numbers.max())


DDP = """
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel

images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = (images / 16).float()
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), 0.5)
random = np.random.default_rng(rank)

def loss_of(rows):
    return torch.nn.functional.cross_entropy(model(images[rows]), labels[rows])

with SummaryWriter("logs/exp", reduce={"tokens": "sum", "time/*": "p99"}) as writer:
    for step in range(40):
        begin = time.perf_counter()
        rows = random.choice(len(images), 20 + 7 * rank)
        with model.no_sync():  # this rank's own gradient
            loss = loss_of(rows)
            loss.backward()
        writer.add_scalar("train/loss", keep("train/loss", step, loss.item()), step)
        norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters()])
        writer.add_scalar("train/grad_norm", norm, step)
        keep("train/grad_norm", step, norm)
        if step % 10 == 0:
            for name, parameter in net.named_parameters():
                writer.add_histogram(f"grad/{name}", keep_all(f"grad/{name}", step, parameter.grad), step)
        if rank == 0:
            writer.add_scalar("lr", keep("lr", step, 0.5 * 0.99**step), step)
        loss_of(random.choice(len(images), 20)).backward()  # and all ranks' together
        optimizer.step()
        optimizer.zero_grad()
        writer.add_scalar("tokens", keep("tokens", step, len(rows) + 20), step)
        right = (model(images).argmax(1) == labels).float()
        row = {f"part/{part}": keep(f"part/{part}", step, right[part::world + 3][rank:].mean()) for part in range(3)}
        writer.log(row, step)
        if step % 20 == 0:
            writer.add_histogram("weight", keep_all("weight", step, net[0].weight), step)
            writer.add_text("note", f"rank {rank} at {step}", step)
        writer.add_scalar("time/step", keep("time/step", step, time.perf_counter() - begin), step)
end()
"""


@pytest.mark.long
def test_what_four_ranks_of_a_ddp_job_log_is_reduced_as_numpy_would_and_written_to_one_run(place: World) -> None:
    result = torchrun(place, DDP)
    assert result.returncode == 0, result.stderr
    run = settled(place)
    assert (run["ranks"]["world"], run["ranks"]["joined"]) == (4, 4)
    assert (run["ranks"]["missing"], run["ranks"]["late"]) == (0, 0)
    oracle = kept(place.root)
    calls = sum(len(ranks) for tag, steps in oracle.scalars.items() if "part" not in tag for ranks in steps.values())
    rows, texts = 4 * 40, 4 * 2
    assert run["accepted"] == calls + rows + texts + sum(map(len, oracle.histograms.values()))
    assert files(place.logdir) == {"exp": 1, "exp/ranks": 1, "exp/ranks/min": 1, "exp/ranks/max": 1}
    words = {"tokens": np.sum, "time/step": lambda values: np.percentile(values, 99)}
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda: shown.runs() == SIDES | {"exp"}, "the run and its sides")
            shown.until(lambda: len(shown.scalars("exp", "time/step")) == 40, "all steps")
            assert shown.tags()["exp"] == oracle.scalars.keys() and shown.tags()["exp/ranks/min"] == (
                oracle.scalars.keys() - {"lr"}
            )
            for tag in oracle.scalars.keys() - {"lr"}:
                assert [len(values) for values in oracle.values(tag)] == [4] * 40
                is_reduced(shown, oracle, tag, words.get(tag, np.mean))
            is_curve(shown.scalars("exp", "lr"), list(range(40)), [value[0] for value in oracle.values("lr")])
            assert len(oracle.histograms) == 4 * 4 + 2
            for tag, step in oracle.histograms:
                is_histogram(shown, place.logdir / "exp", tag, step, oracle.whole(tag, step))
            texts_shown = shown.tensors("exp", "note/text_summary", "text")
            assert [(step, *text.tolist()) for step, text in texts_shown] == [
                (0, b"rank 0 at 0"),
                (20, b"rank 0 at 20"),
            ]


FSDP = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

def net_of(seed):
    torch.manual_seed(seed)  # rows that four ranks cannot share evenly, or that are too few for all of them
    return torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))

def trained(model, optimizer):
    optimizer.zero_grad()
    loss = model(torch.randn(8, 64) + rank).square().mean()
    loss.backward()
    return loss

mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts"))
sharded, hybrid = net_of(0), net_of(1)
fully_shard(sharded, mesh=init_device_mesh("cpu", (world,)))
fully_shard(hybrid, mesh=mesh)
old = FullyShardedDataParallel(net_of(2), device_id=torch.device("cpu"), use_orig_params=True)
optimizers = {model: torch.optim.SGD(model.parameters(), 0.1) for model in (sharded, hybrid, old)}
empty = 0

with SummaryWriter("logs/exp", reduce={"partial": "sum"}) as writer:
    for step in range(3):
        for model, name in ((sharded, "fsdp"), (hybrid, "hsdp")):
            loss = trained(model, optimizers[model])
            writer.add_scalar(f"{name}/loss", keep(f"{name}/loss", step, loss), step)
            for kind in ("params", "grads"):
                for key, parameter in model.named_parameters():
                    tensor = parameter if kind == "params" else parameter.grad
                    assert isinstance(tensor, DTensor)
                    empty += tensor.to_local().numel() == 0
                    writer.add_histogram(f"{name}/{kind}/{key}", tensor, step)
                    keep_all(f"{name}/{kind}/{key}", step, tensor.full_tensor())
            optimizers[model].step()
        trained(old, optimizers[old])
        optimizers[old].step()
        for key, parameter in old.named_parameters():
            tag = "old/" + key.replace("_fsdp_wrapped_module.", "")
            writer.add_histogram(tag, keep_all(tag, step, parameter), step)
        columns = distribute_tensor(torch.randn(5, 3), mesh, [Shard(1), Shard(0)])
        writer.add_histogram("columns", columns, step)
        keep_all("columns", step, columns.full_tensor())
        same = distribute_tensor(torch.randn(5, 3), mesh, [Replicate(), Replicate()])
        writer.add_histogram("same", same, step)
        keep_all("same", step, same.full_tensor())
        partial = DTensor.from_local(torch.tensor(rank + 0.5), mesh, [Partial(), Partial()])
        writer.add_scalar("partial", partial, step)
        keep("partial", step, rank + 0.5)
        try:
            writer.add_histogram("refused", partial, step)
        except TypeError as error:
            kept["refused"] = np.array([[step, "full_tensor()" in str(error)]])
    if rank == 0:  # nobody else is asked: this returns
        writer.add_histogram("first", sharded[0].weight, 0)
    keep("empty", 0, empty)
end()
"""


@pytest.mark.long
def test_the_shards_of_a_tensor_become_the_histogram_of_the_whole_tensor(place: World) -> None:
    """Also where they are not even, or empty, or there are copies of them; the ranks do not wait for each other."""
    result = torchrun(place, FSDP)
    assert result.returncode == 0, result.stderr
    run = settled(place)
    assert (run["ranks"]["missing"], run["ranks"]["late"]) == (0, 0)
    oracle = kept(place.root)
    assert all(len(ranks) == 4 for ranks in oracle.scalars["refused"].values())
    assert min(oracle.values("refused")[0]) == 1
    assert oracle.values("empty")[0].max() > 0, "the fourth of three rows"
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda: len(shown.scalars("exp", "partial")) == 3, "all steps")
            for tag in ("fsdp/loss", "hsdp/loss"):
                is_reduced(shown, oracle, tag)
            is_reduced(shown, oracle, "partial", np.sum)
            tags = {tag for tag, _ in oracle.histograms}
            assert tags | {"first"} == shown.tags("histograms")["exp"] and len(tags) == 2 * 2 * 4 + 4 + 2
            for tag, step in oracle.histograms:
                whole = oracle.histograms[tag, step][0].reshape(-1)  # full_tensor() is the same on all ranks
                if tag.startswith("old/"):  # this FSDP has plain tensors, each rank the part that it holds
                    whole = oracle.whole(tag, step)
                is_histogram(shown, place.logdir / "exp", tag, step, whole)


@pytest.mark.long
def test_where_rank_0_alone_logs_nobody_in_the_job_waits_for_it(place: World) -> None:
    """It flushes in each step, and the others stand in the all-reduce meanwhile."""
    place.serve()
    result = torchrun(
        place,
        """
        writer = SummaryWriter("logs/exp")
        took = []
        for step in range(20):
            dist.all_reduce(torch.ones(1))
            if rank == 0:
                writer.add_scalar("loss", keep("loss", step, step), step)
                before = time.monotonic()
                writer.flush()
                took.append(time.monotonic() - before)
        dist.barrier()
        before = time.monotonic()
        writer.close()
        took.append(time.monotonic() - before)
        if rank == 0:
            print("took", *took, flush=True)
        end()
        """,
    )
    assert result.returncode == 0, result.stderr
    took = [float(seconds) for seconds in result.stdout.split("took ")[1].split()]
    assert len(took) == 21 and max(took) < 1 and sorted(took)[15] < 0.05, took
    assert "records wait" not in result.stderr
    wait_for(place.drained, "the journal of rank 0", seconds=15)  # not those 30 s: it has ended
    found = [value.simple_value for event in events(place.logdir / "exp") for value in event.summary.value]
    assert found == list(range(20))


def test_sums_are_whole_where_one_rank_alone_logs_large_histograms(place: World) -> None:
    """Its scalars come later than the others', for what stands before them has to be read first."""
    script = """
        import os
        import numpy as np
        from tbxd_client import SummaryWriter
        rank = int(os.environ["RANK"])
        writer = SummaryWriter("logs/exp", reduce={"tokens": "sum"})
        numbers = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
        for step in range(60):
            writer.add_scalar("loss", rank, step)
            writer.add_scalar("tokens", 1, step)
            for index in range(10 if rank == 0 and step % 30 == 0 else 0):
                writer.add_histogram(f"w{index}", numbers, step)
        writer.close()
    """
    place.serve()
    job = {"WORLD_SIZE": "4", "TBXD_RUN_ID": "k"}
    processes = [place.start(script, environ={**job, "RANK": str(rank)}) for rank in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    settled(place)
    found = scalars(place.logdir / "exp")
    assert found["tokens"] == [(step, 4.0) for step in range(60)]
    assert found["loss"] == [(step, 1.5) for step in range(60)]


def test_what_goes_back_in_a_job_is_shown_as_without_ranks(place: World) -> None:
    script = """
        import os, time
        from tbxd_client import SummaryWriter
        rank = int(os.environ["RANK"])
        open(f"ready-{rank}", "w").close()
        while not (os.path.exists("ready-0") and os.path.exists("ready-1")):
            time.sleep(0.01)
        with SummaryWriter("logs/exp") as writer:
            for epoch in range(3):
                for step in range(10):
                    writer.add_scalar("epochs", 10 * epoch + step + rank, step)
            for call in range(20):
                writer.add_scalar("no step", call + rank)
            for step in range(100):
                writer.add_scalar("loss", step + rank, step)
        for _ in range(2):
            with SummaryWriter("logs/exp", purge_step=50) as writer:
                for step in range(50, 100):
                    writer.add_scalar("loss", step + rank, step)
    """
    place.serve()
    job = {"WORLD_SIZE": "2", "TBXD_RUN_ID": "k"}
    processes = [place.start(script, environ={**job, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(60) for process in processes] == [0] * 2
    settled(place)
    found = scalars(place.logdir / "exp")
    assert found["epochs"] == [(step, 10 * epoch + step + 0.5) for epoch in range(3) for step in range(10)]
    assert found["no step"] == [(0, call + 0.5) for call in range(20)]
    steps = [*range(100), *range(50, 100), *range(50, 100)]
    assert found["loss"] == [(step, step + 0.5) for step in steps]
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda: "exp" in shown.runs(), "the run")
            shown.until(lambda: len(shown.scalars("exp", "loss")) == 100, "each step once")
            assert shown.scalars("exp", "loss") == [(step, step + 0.5) for step in range(100)]
            assert shown.scalars("exp/ranks/min", "loss") == [(step, step) for step in range(100)]


def test_a_rank_that_starts_long_after_the_others_is_in_their_sums(place: World) -> None:
    """Nobody has logged a tag for longer than a rank is given to come to it; but one of the job has never been seen."""
    script = """
        import os, time
        import numpy as np
        from tbxd_client import SummaryWriter
        rank = int(os.environ["RANK"])
        if rank == 2:
            time.sleep(7)
        with SummaryWriter("logs/exp", reduce={"tokens": "sum"}) as writer:
            for step in range(20):
                writer.add_scalar("tokens", 1, step)
                writer.add_histogram("weight", np.array([rank]), step)
            assert writer.flush(5), "who waits for the other is held up by it in nothing"
    """
    place.serve()
    job = {"WORLD_SIZE": "3", "TBXD_RUN_ID": "k"}
    processes = [place.start(script, environ={**job, "RANK": str(rank)}) for rank in range(3)]
    assert [process.wait(60) for process in processes] == [0] * 3
    run = settled(place)
    assert run["ranks"]["missing"] == 0
    assert scalars(place.logdir / "exp")["tokens"] == [(step, 3.0) for step in range(20)]
    found = [value for event in events(place.logdir / "exp") for value in event.summary.value if value.tag == "weight"]
    assert [value.histo.num for value in found] == [3] * 20
