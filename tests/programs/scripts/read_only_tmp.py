"""/var/tmp is read-only, as on hosts that keep people from leaving things there."""
# run: unshare --mount bash -c 'mount -t tmpfs -o ro tmpfs /var/tmp && unset TBXD_SPOOL && exec python $PROGRAM'
# needs: root, mounts

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/tmp")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
