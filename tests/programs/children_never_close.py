"""Forked workers log and end without closing anything; the parent closes, and copies the results away at once."""
# oracle: noted*.csv
# meant: noted: the original loses what its workers have not flushed

import multiprocessing
import shutil

from tensorboardX import SummaryWriter


def work(number):
    writer = SummaryWriter(f"runs/{number}")
    with open(f"noted{number}.csv", "w") as noted:
        for step in range(10):
            for folder in ("runs", "copied"):
                noted.write(f"{folder}/{number},value,{step},{number * 10 + step}\n")
            writer.add_scalar("value", number * 10 + step, step)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    writer = SummaryWriter("runs/parent")
    with open("noted_parent.csv", "w") as noted:
        for folder in ("runs", "copied"):
            noted.write(f"{folder}/parent,value,0,1.0\n")
    writer.add_scalar("value", 1.0, 0)
    workers = [multiprocessing.Process(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    writer.close()
    shutil.copytree("runs", "copied")
