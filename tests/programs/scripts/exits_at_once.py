"""os._exit right after the last record, without closing anything: nothing that Python does at its end is done."""
# exit: 3
# oracle: noted.csv

import os

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/exit")
with open("noted.csv", "w") as noted:
    for step in range(100):
        noted.write(f"runs/exit,loss,{step},{1.0 / (step + 1)}\n")
        writer.add_scalar("loss", 1.0 / (step + 1), step)
os._exit(3)
