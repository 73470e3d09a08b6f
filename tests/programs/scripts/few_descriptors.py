"""ulimit -n 24, and the script keeps as many files open as it may."""
# says: descriptors|records wait
# writes: later
# run: ulimit -n 24; python $PROGRAM

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/descriptors")
writer.add_scalar("loss", 1.0, 0)
writer.flush()
files = []
try:
    while True:
        files.append(open("/dev/null"))
except OSError:
    pass
for step in range(1, 100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
for file in files:
    file.close()
writer.close()
