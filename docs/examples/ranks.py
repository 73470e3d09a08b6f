"""Eight ranks train a classifier of digits, and each logs what is its own; TensorBoard shows one run of them.

    torchrun --nproc-per-node 8 docs/examples/ranks.py runs/digits

It needs torch and scikit-learn.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from tbxd_client import SummaryWriter

STEPS, BATCH = 300, 48
# What becomes of the ranks' values; of a tag that is not named, the mean.
REDUCE = {"data/samples": "sum", "time/*": "p95"}


def main(folder: str) -> None:
    """Train; every rank makes its writer, and none waits for another to log."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    own = torch.randperm(len(images))[rank::world]  # the rank's part of the data
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    random = torch.Generator().manual_seed(rank)
    with SummaryWriter(folder, reduce=REDUCE) as writer:
        for step in range(STEPS):
            begin = time.perf_counter()
            rows = own[torch.randint(len(own), (BATCH,), generator=random)]
            outputs = model(images[rows])
            loss = cross_entropy(outputs, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("train/loss", loss.item(), step)
            writer.add_scalar("train/accuracy", (outputs.argmax(1) == labels[rows]).float().mean().item(), step)
            writer.add_scalar("data/samples", (step + 1) * BATCH, step)
            writer.add_scalar("time/step", time.perf_counter() - begin, step)
            if rank == 0:
                writer.add_scalar("train/weight_norm", net[0].weight.norm().item(), step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
