"""The program replaces itself with exec when its configuration changes, three times, without closing anything."""
# oracle: noted*.csv
# meant: noted: the original's queue is lost with each exec

import os
import sys
import time

from tensorboardX import SummaryWriter

generation = int(sys.argv[1]) if sys.argv[1:] else 0
writer = SummaryWriter(f"runs/generation{generation}")
with open(f"noted{generation}.csv", "w") as noted:
    for step in range(50):
        noted.write(f"runs/generation{generation},loss,{step},{generation + step / 100}\n")
        writer.add_scalar("loss", generation + step / 100, step)
        time.sleep(0.002)
if generation < 3:
    os.execv(sys.executable, [sys.executable, __file__, str(generation + 1)])
writer.close()
