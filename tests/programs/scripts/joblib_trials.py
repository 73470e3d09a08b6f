"""joblib runs trials in its own processes; the script logs what comes back and the trials log themselves."""
# needs: joblib
# seconds: 60

import time

from joblib import Parallel, delayed
from tensorboardX import SummaryWriter


def trial(number):
    with SummaryWriter(f"runs/joblib/trial{number}") as writer:
        for step in range(20):
            writer.add_scalar("loss", number / (step + 1), step)
            time.sleep(0.002)
    return number / 20


if __name__ == "__main__":
    with SummaryWriter("runs/joblib/summary") as writer:
        writer.add_text("search", "grid", 0)
        for number, score in enumerate(Parallel(n_jobs=2)(delayed(trial)(number) for number in range(8))):
            writer.add_scalar("score", score, number)
