"""Gradient accumulation: four micro-batches a step, and a flush after each step."""

import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/accumulate")
micro = 0
for step in range(60):
    total = 0.0
    for _ in range(4):
        total += 1.0 / (micro + 1)
        writer.add_scalar("micro/loss", 1.0 / (micro + 1), micro)
        micro += 1
        time.sleep(0.002)
    writer.add_scalar("loss", total / 4, step)
    writer.flush()
writer.close()
