"""ulimit -v: 4 GB of addresses, of which the script itself takes most before it logs."""
# says: memory|records wait
# writes: later
# run: ulimit -v 4000000; OPENBLAS_NUM_THREADS=1 python $PROGRAM

import mmap
import time

from tensorboardX import SummaryWriter

held = []
try:
    while True:
        held.append(mmap.mmap(-1, 8 << 20))
except OSError:
    del held[-8:]
writer = SummaryWriter("runs/memory")
for step in range(100):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
