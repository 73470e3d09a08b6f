"""Started by something that gave it no standard descriptors at all; what it writes to them goes nowhere."""
# run: python $PROGRAM 0<&- 1>&- 2>&-
# oracle: noted.csv
# meant: noted: the original opens its file as one of the three, and what is written to standard error damages it

import os
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/closed")
for step in range(200):
    with open("noted.csv", "a") as file:
        file.write(f"runs/closed,loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    if step % 20 == 19:
        try:
            os.write(2, b"step %d\n" % step)
        except OSError:
            pass
    time.sleep(0.002)
writer.close()
