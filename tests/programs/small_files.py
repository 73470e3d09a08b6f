"""ulimit -f: no file of this shell may become larger than 100 KiB."""
# run: ulimit -f 100; python $PROGRAM
# xfail: point 6: a journal under ulimit -f

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/files")
for step in range(200):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.002)
writer.close()
