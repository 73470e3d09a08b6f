"""A master forks its workers at once after its first record and then only waits: all the work is theirs."""

import os
import sys
import time

from tensorboardX import SummaryWriter

master = SummaryWriter("runs/master")
master.add_text("config", "workers=4", 0)
pids = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        writer = SummaryWriter(f"runs/worker{number}")
        for step in range(100):
            writer.add_scalar("loss", number + 1.0 / (step + 1), step)
            time.sleep(0.003)
        writer.close()
        os._exit(0)
    pids.append(pid)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
