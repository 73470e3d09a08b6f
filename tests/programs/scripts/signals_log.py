"""A timer's signal handler that logs how far the training is, in the middle of whatever it does."""
# meant: noted: the original's queue is not made for it: a signal that comes while it holds its lock never returns
# without: original
# oracle: noted*.csv

import signal
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/signals")
noted = open("noted_loss.csv", "w")
beats = open("noted_beats.csv", "w")
beat = 0
inside = False


def alarm(number, frame):
    global beat, inside
    if inside:
        return
    inside = True
    beats.write(f"runs/signals,beat,{beat},{beat}\n")
    writer.add_scalar("beat", beat, beat)
    beat += 1
    inside = False


signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.003)
end = time.monotonic() + 1.0
step = 0
while time.monotonic() < end or beat < 20:
    noted.write(f"runs/signals,loss,{step},{1.0 / (step + 1)}\n")
    writer.add_scalar("loss", 1.0 / (step + 1), step)
    step += 1
signal.setitimer(signal.ITIMER_REAL, 0)
writer.close()
