"""Logs its configuration and then daemonizes, closing every descriptor, as python-daemon does; a new writer follows."""

import os
import time

from tensorboardX import SummaryWriter

with SummaryWriter("runs/config") as writer:
    writer.add_text("config", "lr=0.1", 0)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(0, 1024)
for _ in range(3):
    os.open(os.devnull, os.O_RDWR)
writer = SummaryWriter("runs/training")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.005)
writer.close()
