"""torchrun with three ranks that all log the same tags to the same folder."""
# run: torchrun --standalone --nproc-per-node 3 $PROGRAM
# needs: torch
# seconds: 90
# meant: mean: the ranks of a job are one run

import torch.distributed as dist
from torch.utils.tensorboard import SummaryWriter

dist.init_process_group("gloo")
rank = dist.get_rank()
writer = SummaryWriter("runs/all_ranks")
for step in range(50):
    writer.add_scalar("loss", rank + step, step)
    if step % 10 == 0:
        dist.barrier()
writer.close()
dist.destroy_process_group()
