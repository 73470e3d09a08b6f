"""A sweep of 200 runs in one process, each with a writer of its own; every third is forgotten and never closed."""
# seconds: 60

from tensorboardX import SummaryWriter

kept = []
for trial in range(200):
    lr = 10.0 ** (-1 - trial / 50)
    writer = SummaryWriter(f"runs/sweep/{trial:03d}_lr{lr:.0e}")
    for step in range(5):
        writer.add_scalar("loss", lr * step, step)
    if trial % 3:
        writer.close()
    else:
        kept.append(writer)
