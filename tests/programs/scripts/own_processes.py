"""A container with processes of its own: pid 1 is the shell, /proc shows nothing else, and all ends with it."""
# run: unshare --pid --fork --mount --mount-proc bash -c 'python $PROGRAM; exit $?'
# needs: root, mounts
# writes: later

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/container")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
