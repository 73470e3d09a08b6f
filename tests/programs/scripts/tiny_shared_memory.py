"""A container whose /dev/shm has 64 KiB."""
# run: unshare --mount bash -c 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec python $PROGRAM'
# needs: root, mounts

import time

import numpy as np
from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/shm")
for step in range(50):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    writer.add_histogram("weights", np.arange(10_000, dtype=np.float32) / (step + 1), step)
    time.sleep(0.003)
writer.close()
