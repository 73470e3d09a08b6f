"""ulimit -s: a stack of 256 KiB, which every thread gets."""
# run: ulimit -s 256; python $PROGRAM

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/stack")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
