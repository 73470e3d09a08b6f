"""SIGTERM with a grace: the handler sets a flag, the loop saves a checkpoint, closes and exits with 0."""
# run: python $PROGRAM & until grep -qs ,100, noted.csv; do sleep 0.02; done; kill -TERM $!; wait $!
# oracle: noted.csv

import signal
import time

from tensorboardX import SummaryWriter

stop = False


def handler(number, frame):
    global stop
    stop = True


signal.signal(signal.SIGTERM, handler)
writer = SummaryWriter("runs/preempted")
noted = open("noted.csv", "w", buffering=1)
step = 0
while not stop:
    noted.write(f"runs/preempted,loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    step += 1
    time.sleep(0.005)
noted.write(f"runs/preempted,preempted,{step},1.0\n")
writer.add_scalar("preempted", 1.0, step)
writer.close()
with open("checkpoint", "w") as file:
    file.write(str(step))
