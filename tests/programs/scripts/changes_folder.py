"""Removes what an earlier run left, makes a folder of its own, and changes into it after its writer was made."""

import os
import shutil
import time

from tensorboardX import SummaryWriter

shutil.rmtree("runs", ignore_errors=True)
writer = SummaryWriter("runs/relative")
os.makedirs("outputs/2024-01-01", exist_ok=True)
for step in range(50):
    if step == 20:
        writer.flush()
        os.chdir("outputs/2024-01-01")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
