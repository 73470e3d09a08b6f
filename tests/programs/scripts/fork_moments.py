"""os.fork at moments from 0 to 300 ms after the first record; the children live on, log, run a program, or leave."""

import os
import sys
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/forks")
began = time.monotonic()
writer.add_scalar("loss", 1.0, 0)
children = []
for number in range(31):
    while time.monotonic() - began < number / 100:
        time.sleep(0.0005)
    pid = os.fork()
    if pid == 0:
        kind = number % 4
        if kind == 0:
            time.sleep(1.0)
        elif kind == 1:
            own = SummaryWriter(f"runs/forks/child{number:02d}")
            for step in range(10):
                own.add_scalar("loss", number + step, step)
            own.close()
        elif kind == 2:
            os.execlp("sleep", "sleep", "1")
        os._exit(0)
    children.append(pid)
    writer.add_scalar("loss", 1.0 / (number + 2), number + 1)
writer.close()
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
sys.exit(max(codes))
