"""A writer without a folder, as a context manager, with a comment."""

import time

from tensorboardX import SummaryWriter

with SummaryWriter(comment="_lr0.1") as writer:
    for epoch in range(3):
        for batch in range(20):
            writer.add_scalar("loss", 1.0 / (1 + epoch * 20 + batch), epoch * 20 + batch)
            time.sleep(0.005)
        writer.add_scalar("epoch/accuracy", epoch / 3, epoch)
