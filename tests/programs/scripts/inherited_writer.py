"""Forked children go on with their parent's writer, each with tags of its own, and leave without closing it."""
# without: original
# meant: noted: the original has no thread in a forked child: its flush never comes back
# oracle: noted*.csv

import multiprocessing

from tensorboardX import SummaryWriter


def log(name, step, value):
    with open(f"noted_{name}.csv", "a") as file:
        file.write(f"runs/inherited,{name},{step},{value}\n")
    writer.add_scalar(name, value, step)


def work(number):
    for step in range(20):
        log(f"child{number}", step, number + step)
    writer.flush()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    writer = SummaryWriter("runs/inherited")
    log("parent", 0, 0.0)
    children = [multiprocessing.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for step in range(1, 50):
        log("parent", step, step)
    for child in children:
        child.join()
    writer.close()
