"""The training saves checkpoints; another process waits for them, evaluates, and logs to the folder beside."""

import os
import subprocess
import sys
import time

from tensorboardX import SummaryWriter

CHECKPOINTS = 4


def evaluate():
    writer = SummaryWriter("runs/exp/eval")
    for number in range(CHECKPOINTS):
        while not os.path.exists(f"checkpoint{number}"):
            time.sleep(0.01)
        writer.add_scalar("accuracy", 1 - 0.5**number, number)
        writer.flush()
    writer.close()


def train():
    evaluation = subprocess.Popen([sys.executable, __file__, "evaluate"])
    writer = SummaryWriter("runs/exp/train")
    for step in range(CHECKPOINTS * 25):
        writer.add_scalar("loss", 1.0 / (step + 1), step)
        time.sleep(0.004)
        if step % 25 == 24:
            with open(f"checkpoint{step // 25}", "w") as file:
                file.write("weights")
    writer.close()
    return evaluation.wait()


if __name__ == "__main__":
    sys.exit(evaluate() if sys.argv[1:] else train())
