#!/usr/bin/env bash
# docker run --read-only: every file system is read-only but the working directory and /dev/shm.
# run: unshare --mount bash $PROGRAM
# needs: root, mounts

set -e
work=$PWD
mount --bind "$work" "$work"
mount -o remount,bind,ro /
for place in /tmp /var/tmp /run; do
  case $work/ in "$place"/*) continue ;; esac
  mountpoint -q "$place" || mount --bind "$place" "$place"
  mount -o remount,bind,ro "$place"
done
mount -t tmpfs -o size=64m tmpfs /dev/shm
cd "$work"
cat > train.py <<'PYTHON'
import time
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs/read_only")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
PYTHON
unset TBXD_RUNTIME_DIR TBXD_SPOOL XDG_RUNTIME_DIR
exec python train.py
