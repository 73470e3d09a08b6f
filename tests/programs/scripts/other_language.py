"""A folder with an umlaut in a machine whose language is C and whose Python does not use UTF-8."""
# run: PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 LC_ALL=C LANG=C python $PROGRAM

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/l\udcc3\udcb6gs")
for step in range(50):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
