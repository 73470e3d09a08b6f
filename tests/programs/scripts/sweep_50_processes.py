"""A sweep of 50 processes that all begin at once, each a training of its own."""
# seconds: 120
# crowded: a call waits for a thread of its process that waits for a core, with any writer

import multiprocessing
import sys

from tensorboardX import SummaryWriter


def train(trial):
    with SummaryWriter(f"runs/sweep/{trial:02d}") as writer:
        for step in range(20):
            writer.add_scalar("loss", trial + 1.0 / (step + 1), step)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    trials = [multiprocessing.Process(target=train, args=(trial,)) for trial in range(50)]
    for trial in trials:
        trial.start()
    for trial in trials:
        trial.join()
    sys.exit(max(trial.exitcode for trial in trials))
