#!/usr/bin/env bash
# chroot into a copy of the machine's files, with the working directory and the temporary folder bound into it.
# run: unshare --mount bash $PROGRAM
# needs: root, mounts, chroot

set -e
mkdir root
mount -t tmpfs tmpfs root
for folder in /*; do
  case $folder in /proc | /sys | /dev | /lost+found | /mnt | /media) continue ;; esac
  if [ -L "$folder" ]; then cp -a "$folder" root/; elif [ -d "$folder" ]; then
    mkdir "root$folder"
    mount --rbind "$folder" "root$folder"
  fi
done
mkdir root/proc root/dev
mount -t proc proc root/proc
mount --rbind /dev root/dev
cat > train.py <<'PYTHON'
import time
from tensorboardX import SummaryWriter
writer = SummaryWriter("runs/chroot")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
PYTHON
exec chroot root bash -c "cd '$PWD' && exec python train.py"
