"""Threads that hang on a disk are replaced; threads that work are not."""

from __future__ import annotations

import threading
import time

from harness import wait_for
from tbxd.process.io_pool import Pool


def test_jobs_that_hang_hold_up_no_others() -> None:
    pool = Pool(2)
    gate, done = threading.Event(), threading.Event()
    for _ in range(20):
        pool.submit(gate.wait)
    pool.submit(done.set)

    def others_got_on() -> bool:
        pool.relieve()
        return done.is_set()

    wait_for(others_got_on, "a job behind twenty that hang")
    gate.set()
    assert pool.close(10)


def test_jobs_that_compute_share_the_threads_there_are() -> None:
    pool = Pool(2)
    running, most = 0, 0
    lock = threading.Lock()

    def compute() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        until = time.thread_time() + 0.4
        while time.thread_time() < until:
            sum(range(1000))
        with lock:
            running -= 1

    for _ in range(6):
        pool.submit(compute)

    def finished() -> bool:
        pool.relieve()
        return running == 0 and not pool._jobs

    wait_for(finished, "six jobs")
    assert pool.close(10)
    assert most <= 3, "two, and one more where the machine was too busy to tell"


def test_closing_does_what_is_queued_and_does_not_wait_for_what_hangs() -> None:
    pool = Pool(1)
    gate, done = threading.Event(), threading.Event()
    pool.submit(gate.wait)
    pool.submit(done.set)
    assert not pool.close(1.5)
    assert done.is_set(), "another thread has taken over"
    gate.set()
    wait_for(lambda: not pool._started, "the last thread")


def test_many_short_jobs_are_all_done_once() -> None:
    pool = Pool(4)
    found: list[int] = []
    for number in range(5000):
        pool.submit(lambda number=number: found.append(number))  # type: ignore[misc]
    assert pool.close(30)
    assert sorted(found) == list(range(5000))
