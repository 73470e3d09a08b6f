"""Ctrl-C in the middle: the script saves, closes its writer, and leaves with a code of its own."""
# run: python $PROGRAM & until grep -qs ,100, noted.csv; do sleep 0.02; done; kill -INT $!; wait $!
# exit: 7
# oracle: noted.csv

import itertools
import signal
import sys
import time

from tensorboardX import SummaryWriter

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
writer = SummaryWriter("runs/interrupted")
noted = open("noted.csv", "w", buffering=1)
try:
    for step in itertools.count():
        noted.write(f"runs/interrupted,loss,{step},{1.0 / (step + 1)}\n")
        writer.add_scalar("loss", 1.0 / (step + 1), step)
        time.sleep(0.005)
except KeyboardInterrupt:
    writer.close()
    sys.exit(7)
