"""A sweep of 50 processes that all begin at once, each a training of its own."""
# seconds: 400

import subprocess
import sys


def train(trial):
    from tensorboardX import SummaryWriter

    with SummaryWriter(f"runs/sweep/{trial:02d}") as writer:
        for step in range(20):
            writer.add_scalar("loss", trial + 1.0 / (step + 1), step)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(int(sys.argv[1]))
    else:
        trials = [subprocess.Popen([sys.executable, __file__, str(trial)]) for trial in range(50)]
        sys.exit(max(trial.wait() for trial in trials))
