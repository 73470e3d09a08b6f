"""concurrent.futures: a process pool that computes, a thread pool whose threads log."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from tensorboardX import SummaryWriter

writer = SummaryWriter("runs/futures")


def square(number):
    return number * number


def log(number):
    for step in range(50):
        writer.add_scalar(f"thread/{number}", number + step / 100, step)


if __name__ == "__main__":
    writer.add_scalar("begun", 1.0, 0)
    with ProcessPoolExecutor(3) as processes, ThreadPoolExecutor(4) as threads:
        logged = [threads.submit(log, number) for number in range(4)]
        for step, value in enumerate(processes.map(square, range(100))):
            writer.add_scalar("square", value, step)
        for future in logged:
            future.result()
    writer.close()
