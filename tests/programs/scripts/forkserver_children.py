"""Children of a fork server, started after the first record, which log and end."""

import multiprocessing
import time

from tensorboardX import SummaryWriter


def actor(number):
    writer = SummaryWriter(f"runs/rl/actor{number}")
    for episode in range(30):
        writer.add_scalar("return", number * 100 + episode, episode)
        time.sleep(0.003)
    writer.close()


if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    learner = SummaryWriter("runs/rl/learner")
    learner.add_scalar("loss", 1.0, 0)
    actors = [multiprocessing.Process(target=actor, args=(number,)) for number in range(3)]
    for process in actors:
        process.start()
    for step in range(1, 60):
        learner.add_scalar("loss", 1.0 / (step + 1), step)
        time.sleep(0.003)
    for process in actors:
        process.join()
    learner.close()
