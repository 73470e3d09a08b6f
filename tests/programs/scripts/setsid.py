"""setsid: a session of its own, without a terminal, and standard output closed."""
# run: setsid --fork python $PROGRAM >&-

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/setsid")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
