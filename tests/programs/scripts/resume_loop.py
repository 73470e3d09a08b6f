"""Started again until it is done: it crashes every 40 steps, and goes on from the checkpoint it has saved before."""
# run: for try in 1 2 3 4 5; do python $PROGRAM && exit; done; exit 1

import json
import os
import sys
import time

from tensorboardX import SummaryWriter

step = 0
if os.path.exists("checkpoint.json"):
    with open("checkpoint.json") as file:
        step = json.load(file)["step"]
writer = SummaryWriter("runs/resumed", purge_step=step)
first = step
while step < 100:
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    step += 1
    time.sleep(0.002)
    if step % 25 == 0:
        with open("checkpoint.json", "w") as file:
            json.dump({"step": step}, file)
    if step == first + 40:
        writer.flush()
        writer.close()
        sys.exit(1)
writer.close()
