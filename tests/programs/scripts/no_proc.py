"""A jail without /proc."""
# run: unshare --mount bash -c 'umount -l /proc && exec python $PROGRAM'
# needs: root, mounts

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/no_proc")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
