"""Started by something that gave it no standard descriptors at all; it writes to them nevertheless, and just leaves."""
# run: python $PROGRAM 0<&- 1>&- 2>&-
# oracle: noted.csv
# meant: noted: the original opens its file as one of the three, and what is written to standard error damages it

import os

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/closed")
for step in range(2000):
    if step % 100 == 0:
        try:
            os.write(2, b"step %d of 2000\n" % step)
        except OSError:
            pass
    if step % 500 == 0:
        noted = os.open("noted.csv", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        lines = [f"runs/closed,loss,{number},{1.0 / (number + 1)}\n" for number in range(step, step + 500)]
        os.write(noted, "".join(lines).encode())
        os.close(noted)
    writer.add_scalar("loss", 1.0 / (step + 1), step)
os._exit(0)
