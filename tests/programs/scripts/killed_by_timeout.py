"""SIGKILL ends it in the middle, as `timeout -s KILL` and schedulers do at the end of a job's time."""
# run: python $PROGRAM & until grep -qs ,100, noted.csv; do sleep 0.02; done; kill -KILL $!; wait $!
# exit: 137
# oracle: noted.csv

import itertools
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/killed")
noted = open("noted.csv", "w", buffering=1)
for step in itertools.count():
    noted.write(f"runs/killed,loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.002)
