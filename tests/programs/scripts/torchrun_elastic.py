"""torchrun starts both ranks again when one fails; they go on from their checkpoint."""
# run: torchrun --standalone --nproc-per-node 2 --max-restarts 2 $PROGRAM
# needs: torch
# seconds: 120

import os
import sys
import time

from torch.utils.tensorboard import SummaryWriter

rank = int(os.environ["RANK"])
first = 0
if os.path.exists("checkpoint"):
    with open("checkpoint") as file:
        first = int(file.read())
writer = SummaryWriter("runs/elastic", purge_step=first) if rank == 0 else None
for step in range(first, 40):
    if writer:
        writer.add_scalar("loss", 1.0 / (step + 1), step)
    if step == 20 and not first:
        if writer:
            writer.flush()
            with open("checkpoint.new", "w") as file:
                file.write("15")
            os.rename("checkpoint.new", "checkpoint")
        while not os.path.exists("checkpoint"):
            time.sleep(0.01)
        if rank == 1:
            sys.exit(1)
        time.sleep(60)  # in the collective that does not come back
if writer:
    writer.close()
