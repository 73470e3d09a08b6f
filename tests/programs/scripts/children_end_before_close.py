"""Four forked workers log and end, the parent closes its writer, and the results are looked at at once."""

import glob
import multiprocessing
import os

from tensorboardX import SummaryWriter


def work(number):
    writer = SummaryWriter(f"runs/workers/{number}")
    for step in range(10):
        writer.add_scalar("value", number * 10 + step, step)
    writer.close()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    writer = SummaryWriter("runs/workers/parent")
    writer.add_scalar("value", 0.0, 0)
    workers = [multiprocessing.Process(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    writer.close()
    found = glob.glob("runs/workers/*/events*")
    assert len(found) == 5 and all(os.path.getsize(path) > 60 for path in found), found
