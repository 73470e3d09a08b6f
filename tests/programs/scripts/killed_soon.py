"""Kills itself right after its last record: out of memory, say."""
# exit: 137
# oracle: noted.csv

import os
import signal

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/oom")
with open("noted.csv", "w", buffering=1) as noted:
    for step in range(1000):
        noted.write(f"runs/oom,loss,{step},{1.0 / (step + 1)}\n")
        writer.add_scalar("loss", 1.0 / (step + 1), step)
os.kill(os.getpid(), signal.SIGKILL)
