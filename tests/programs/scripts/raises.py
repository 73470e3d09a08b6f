"""An exception that nobody catches."""
# exit: 1

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/raises")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
raise RuntimeError("CUDA error: an illegal memory access was encountered")
