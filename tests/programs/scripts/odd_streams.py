"""Standard output and error are objects of the script's own, of which one raises; a logger writes them to a file."""

import sys
import time

from tensorboardX import SummaryWriter


class Raises:
    def write(self, text):
        raise RuntimeError("this stream is not to be written to")

    def flush(self):
        pass


sys.stderr = Raises()
writer = SummaryWriter("runs/streams")
for step in range(60):
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    time.sleep(0.003)
writer.close()
