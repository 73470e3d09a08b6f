"""torchrun with two ranks of which rank 0 alone logs, and flushes in each step while the other waits."""
# run: torchrun --standalone --nproc-per-node 2 $PROGRAM
# needs: torch
# seconds: 90

import torch
import torch.distributed as dist
from torch.utils.tensorboard import SummaryWriter

dist.init_process_group("gloo")
rank = dist.get_rank()
writer = SummaryWriter("runs/ddp") if rank == 0 else None
for step in range(20):
    loss = torch.tensor([1.0 / (step + 1)])
    dist.all_reduce(loss)
    if writer:
        writer.add_scalar("loss", loss.item() / 2, step)
        writer.flush()
dist.barrier()
if writer:
    writer.close()
dist.destroy_process_group()
