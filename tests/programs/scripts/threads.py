"""Eight threads and one writer, a ninth that is a daemon and never ends."""

import threading
import time

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/threads")


def work(number):
    for step in range(100):
        writer.add_scalar(f"thread{number}", number + step / 100, step)
        time.sleep(0.001)


def idle():
    while True:
        time.sleep(0.01)


threading.Thread(target=idle, daemon=True).start()
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
writer.close()
