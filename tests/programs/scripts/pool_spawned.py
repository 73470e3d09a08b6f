"""A pool of spawned processes , each task with a writer of its own."""

import multiprocessing
import time

from tensorboardX import SummaryWriter


def work(number):
    writer = SummaryWriter(f"runs/spawned/{number}")
    for step in range(20):
        writer.add_scalar("loss", number + step, step)
        time.sleep(0.002)
    writer.close()
    return number


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    writer = SummaryWriter("runs/spawned")
    writer.add_scalar("begun", 1.0, 0)
    with context.Pool(2) as pool:
        for done in pool.imap(work, range(6)):
            writer.add_scalar("done", done, done)
    writer.close()
