"""Forked workers log to their parent's folder and end without closing; it closes and copies the results away."""
# oracle: noted*.csv
# meant: noted: the original loses what its workers have not flushed

import multiprocessing
import shutil

from tensorboardX import SummaryWriter


def work(number):
    writer = SummaryWriter("runs/all")
    with open(f"noted{number}.csv", "w") as noted:
        for step in range(10):
            for folder in ("runs", "copied"):
                noted.write(f"{folder}/all,value{number},{step},{number * 10 + step}\n")
            writer.add_scalar(f"value{number}", number * 10 + step, step)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    writer = SummaryWriter("runs/all")
    with open("noted_parent.csv", "w") as noted:
        for folder in ("runs", "copied"):
            noted.write(f"{folder}/all,value,0,1.0\n")
    writer.add_scalar("value", 1.0, 0)
    workers = [multiprocessing.Process(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    writer.close()
    shutil.copytree("runs", "copied")
