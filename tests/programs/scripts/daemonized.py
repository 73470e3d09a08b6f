"""Logs its first record, forks twice, leaves its session, and points its descriptors at a log: a daemon that trains."""
# without: original
# meant: noted: the original has no thread in a forked child, and does not end
# oracle: noted*.csv

import os
import sys
import time

from tensorboardX import SummaryWriter


def daemonize():
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open("daemon.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


writer = SummaryWriter("runs/daemonized")
with open("noted_first.csv", "w") as noted:
    noted.write("runs/daemonized,begun,0,1.0\n")
writer.add_scalar("begun", 1.0, 0)
daemonize()
noted = open("noted.csv", "w", buffering=1)
for step in range(100):
    noted.write(f"runs/daemonized,loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.005)
writer.close()
