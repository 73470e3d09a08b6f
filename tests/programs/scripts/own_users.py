"""A container with users of its own, as rootless podman makes them: root inside is somebody else outside."""
# run: unshare --user --map-root-user --net python $PROGRAM
# needs: users

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/rootless")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
