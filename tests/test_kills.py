"""Random kills under load: every value is a function of (session, number), so what is missing, doubled or wrong shows.

``TBXD_KILLS`` sets how many kills (8 in the suite), ``TBXD_SEED`` replays a run.
"""

from __future__ import annotations

import os
import random
import time

from harness import World, scalars, wait_for

KILLS = int(os.environ.get("TBXD_KILLS", "8"))
SEED = int(os.environ.get("TBXD_SEED", "1"))

TRAINER = """
    import sys, time
    import numpy as np
    from tbxd_client import SummaryWriter
    number, count, pace = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    writer = SummaryWriter("logs/shared")
    mine = SummaryWriter(f"logs/own{number}")
    for step in range(count):
        writer.add_scalar(f"trainer{number}", (step * 31 + number) % 1009, step)
        mine.add_scalar("value", (step * 37 + number) % 1013, step)
        if step % 50 == 0:
            mine.log({"a": step % 7, "b": step % 11}, step)
        if step % 1000 == 0:
            mine.add_histogram("histogram", np.arange(20_000.0), step)
        if step % 100 == 0:
            print(step, flush=True)
            time.sleep(pace)
    print("done", flush=True)
    ok = writer.flush(120)
    print(ok, flush=True)
"""


def check(points: list[tuple[int, float]], factor: int, number: int, modulus: int) -> None:
    steps = [step for step, _ in points]
    assert steps == list(range(len(points))), "missing, doubled or out of order"
    assert all(value == (step * factor + number) % modulus for step, value in points)


def test_kills_of_daemon_and_trainers_at_random_moments_lose_and_double_nothing(place: World) -> None:
    rng = random.Random(SEED)
    alive = {}
    started = 0
    logged: dict[int, int] = {}  # the last step that a trainer has said it logged

    def start() -> None:
        nonlocal started
        alive[started] = place.start(TRAINER, started, 10**9, 0.05, stdout=-1)
        started += 1

    daemon_kills = trainer_kills = 0
    for _ in range(3):
        start()
    while daemon_kills + trainer_kills < KILLS:
        until = time.monotonic() + rng.uniform(0.05, 1.0)
        wait_for(lambda until=until: time.monotonic() > until, "a random moment")
        if rng.random() < 0.6:
            place.kill_daemon()
            daemon_kills += 1
            if rng.random() < 0.5:
                place.ensure()
        else:
            number = rng.choice(sorted(alive))
            trainer = alive.pop(number)
            trainer.kill()
            assert trainer.stdout is not None
            logged[number] = max((int(line) for line in trainer.stdout.read().split()), default=-1)
            trainer_kills += 1
            start()
    for number, trainer in alive.items():
        trainer.kill()
        assert trainer.stdout is not None
        logged[number] = max((int(line) for line in trainer.stdout.read().split()), default=-1)
    place.ensure()
    wait_for(place.drained, "all journals to be drained")
    shared = scalars(place.logdir / "shared")
    for number, last in logged.items():
        points = shared.get(f"trainer{number}", [])
        assert len(points) > last, f"trainer {number} had logged step {last}"
        check(points, 31, number, 1009)
        if last >= 0:
            own = scalars(place.logdir / f"own{number}")
            assert len(points) - 1 <= len(own["value"]) + 1
            check(own["value"], 37, number, 1013)
            rows = [step for step, _ in own["a"]]
            assert rows == list(range(0, 50 * len(rows), 50))
    assert daemon_kills and trainer_kills
