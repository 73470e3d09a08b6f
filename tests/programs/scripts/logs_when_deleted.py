"""A trainer object with a __del__ that logs its last line and closes; some die in the loop, one at the very end."""
# says: logged when the program had ended
# meant: more: the last trainer dies when the original has ended

import time

from tensorboardX import SummaryWriter


class Trainer:
    def __init__(self, number):
        self.writer = SummaryWriter(f"runs/trainer{number}")
        self.step = 0

    def train(self):
        for _ in range(20):
            self.writer.add_scalar("loss", 1.0 / (self.step + 1), self.step)
            self.step += 1
            time.sleep(0.002)

    def __del__(self):
        self.writer.add_scalar("steps", self.step, 0)
        self.writer.flush()


for number in range(4):
    trainer = Trainer(number)
    trainer.train()
