"""A pool of forked processes made after the first record; each worker has a writer of its own, which nobody closes."""
# oracle: noted*.csv
# meant: noted: the original loses what its workers log, which the pool ends

import multiprocessing

from tensorboardX import SummaryWriter


def begin():
    global writer
    number = multiprocessing.current_process()._identity[0]
    writer = SummaryWriter(f"runs/pool/worker{number}")
    with open(f"noted_{number}.csv", "w") as noted:
        noted.write(f"runs/pool/worker{number},started,0,1.0\n")
    writer.add_scalar("started", 1.0, 0)
    writer.flush()


def work(item):
    return sum(range(item)) / (item + 1)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main = SummaryWriter("runs/pool")
    noted = open("noted_main.csv", "w", buffering=1)
    with multiprocessing.Pool(4, initializer=begin) as pool:
        for step, value in enumerate(pool.imap(work, range(200))):
            noted.write(f"runs/pool,value,{step},{value}\n")
            main.add_scalar("value", value, step)
    main.close()
