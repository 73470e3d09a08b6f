"""Calls whose tags or rows are not known yet: what is left of those that come to nothing, and who sees whom."""

from __future__ import annotations

import sys
import threading

from harness import World
from tbxd_client.session.calls import Call, Firsts

KEY = ("loss", "", "", "")


def begin(firsts: Firsts, known: list[object]) -> Call:
    call = Call(lambda call, patient: None, 1, lambda session: ((), None))
    firsts.begin(KEY, call, known.append)
    return call


def test_a_record_that_is_dropped_leaves_nothing_in_memory(place: World) -> None:
    """Where there is no journal, as where no descriptor is left, every call is one of a tag that is not known."""
    result = place.run(
        """
        import gc, os, resource, tracemalloc
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        most = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        tracemalloc.start()
        taken = []
        for _ in range(2):
            for step in range(2_000):
                writer.add_scalar("value", 0.0, step)
            gc.collect()
            taken.append(tracemalloc.get_traced_memory()[0])
        print(taken[1] - taken[0])
        os._exit(0)
        """
    )
    assert result.returncode == 0 and "no journal" in result.stderr, result.stderr
    assert int(result.stdout) < 20_000, "10 bytes for each record"


def test_a_tag_is_known_when_the_last_call_under_way_has_its_place_or_is_given_up() -> None:
    firsts, known = Firsts(), list[object]()
    one, two, given_up = (begin(firsts, known) for _ in range(3))
    del given_up
    assert two.placed is not None and one.placed is not None
    two.placed()
    assert not known, "the other one is before it"
    one.placed()
    assert known == [KEY]


def test_a_call_that_has_its_place_looks_through_nothing_to_which_other_threads_add() -> None:
    """An exception of that would come out of the trainer's call, and its record would not be counted."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            firsts, over = Firsts(), threading.Event()
            for _ in range(2_000):
                begin(firsts, [])

            def others(firsts: Firsts = firsts, over: threading.Event = over) -> None:
                while not over.is_set():
                    begin(firsts, [])

            thread = threading.Thread(target=others)
            thread.start()
            try:
                for _ in range(5):
                    call = begin(firsts, [])
                    assert call.placed is not None
                    call.placed()
            finally:
                over.set()
                thread.join()
    finally:
        sys.setswitchinterval(interval)
