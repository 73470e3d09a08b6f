"""ulimit -f: no file of this shell may become larger than 100 KiB."""
# says: no journal can be made
# run: ulimit -f 100; python $PROGRAM

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/files")
for step in range(200):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.002)
writer.close()
