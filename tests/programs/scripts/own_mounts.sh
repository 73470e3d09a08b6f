#!/usr/bin/env bash
# A container with a mount namespace of its own: a tmpfs over the log folder, the home and temporary folders shared.
# run: unshare --mount bash $PROGRAM
# needs: root, mounts
# seconds: 40

set -e
mkdir -p runs copied
mount -t tmpfs tmpfs runs
cat > train.py <<'PYTHON'
import time
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs/inside")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.flush()
writer.close()
PYTHON
python train.py
cp -r runs/* copied
