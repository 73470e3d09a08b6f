"""SIGTERM without a handler."""
# run: python $PROGRAM & until grep -qs ,100, noted.csv; do sleep 0.02; done; kill -TERM $!; wait $!
# exit: 143
# oracle: noted.csv

import itertools
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/terminated")
noted = open("noted.csv", "w", buffering=1)
for step in itertools.count():
    noted.write(f"runs/terminated,loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.002)
