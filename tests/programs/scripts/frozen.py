"""A frozen program, as PyInstaller makes them: sys.executable is the program itself."""
# run: FOLDER=$PWD python $PROGRAM
# writes: later
# says: .

import os
import stat
import sys
import time

with open(os.environ["FOLDER"] + "/started", "a") as file:
    file.write("x")
if os.path.getsize(os.environ["FOLDER"] + "/started") > 1:
    sys.exit("the training was started again")
with open("trainer", "w") as file:
    file.write(f"#!/bin/sh\nexec python {__file__} again\n")
os.chmod("trainer", os.stat("trainer").st_mode | stat.S_IXUSR)
sys.frozen = True
sys.executable = os.path.abspath("trainer")

from tensorboardX import SummaryWriter  # noqa: E402

writer = SummaryWriter("runs/frozen")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.01)
writer.close()
if os.path.getsize(os.environ["FOLDER"] + "/started") > 1:
    sys.exit("the training was started again")
