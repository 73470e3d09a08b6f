"""atexit: a summary is logged at the end by a function that was registered before there was a writer."""
# says: logged when the program had ended
# oracle: noted.csv
# meant: noted: the original has closed its file by then

import atexit
import time

best = 0.0


def note(tag, step, value):
    with open("noted.csv", "a") as file:
        file.write(f"runs/atexit,{tag},{step},{value}\n")


@atexit.register
def summary():
    note("best", 0, best)
    writer.add_scalar("best", best, 0)
    writer.close()


from tensorboardX import SummaryWriter  # noqa: E402

writer = SummaryWriter("runs/atexit")
for step in range(50):
    best = max(best, 1 - 1.0 / (step + 1))
    note("accuracy", step, 1 - 1.0 / (step + 1))
    writer.add_scalar("accuracy", 1 - 1.0 / (step + 1), step)
    time.sleep(0.004)
