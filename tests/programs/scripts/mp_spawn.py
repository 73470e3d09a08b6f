"""torch.multiprocessing.spawn with two ranks; rank 0 logs and has said so before in the parent."""
# needs: torch
# seconds: 90

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.tensorboard import SummaryWriter


def train(rank, world):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["PORT"])
    dist.init_process_group("gloo", rank=rank, world_size=world)
    writer = SummaryWriter("runs/spawned/rank0") if rank == 0 else None
    for step in range(20):
        loss = torch.tensor([float(step + rank)])
        dist.all_reduce(loss)
        if writer:
            writer.add_scalar("loss", loss / world, step)
    if writer:
        writer.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["PORT"] = str(probe.getsockname()[1])
    writer = SummaryWriter("runs/spawned")
    writer.add_text("config", "world=2", 0)
    mp.spawn(train, args=(2,), nprocs=2)
    writer.close()
