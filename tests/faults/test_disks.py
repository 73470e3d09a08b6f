"""A disk that is really full, and slow: the run waits in its journal, others go on, and it resumes by itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from tb import LOADERS, board


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("no permission to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def expected(count: int) -> dict[str, list[tuple[int, float]]]:
    return {"value": [(step, float(step % 100)) for step in range(count)]}


@pytest.mark.parametrize("kill", [False, True], ids=["alive", "daemon killed while full"])
def test_a_full_disk_holds_up_its_own_run_only_and_is_gone_on_with(place: World, kill: bool) -> None:
    full = place.logdir / "full"
    with small_disk(full, "256k"):
        place.serve()
        trainer = place.start(
            """
            import sys
            from tbxd_client import SummaryWriter
            full, other = SummaryWriter("logs/full"), SummaryWriter("logs/other")
            for step in range(20_000):
                full.add_scalar("value", step % 100, step)
                other.add_scalar("value", step % 100, step)
            print(full.flush(1), flush=True)
            sys.stdin.readline()
            print(full.flush(60), flush=True)
            """,
            stdin=-1,
            stdout=-1,
        )
        assert trainer.stdout is not None and trainer.stdin is not None
        assert trainer.stdout.readline() == b"False\n"
        assert scalars(place.logdir / "other") == expected(20_000)
        status = place.status()
        assert status is not None
        run = status["runs"][str(full)]
        assert run["error"] == "No space left on device"
        assert run["accepted"] == run["written"] + run["pending"] == 20_000
        written = scalars(full)["value"]
        assert 0 < len(written) < 20_000, "the disk was really full"
        if kill:
            place.kill_daemon()
            place.ensure()
        subprocess.run(["mount", "-o", "remount,size=16m", str(full)], check=True)
        trainer.stdin.write(b"\n")
        trainer.stdin.flush()
        assert trainer.stdout.readline() == b"True\n"
        assert scalars(full) == expected(20_000)
        for loader in LOADERS:
            with board(place.logdir, loader) as shown:
                points = shown.until(
                    lambda shown=shown: (found := shown.scalars("full", "value")) and len(found) >= 20_000 and found,
                    "all points",
                )
                assert points == expected(20_000)["value"]


def test_a_full_spool_drops_and_counts_and_never_kills_the_trainer(place: World) -> None:
    with small_disk(place.spool, "3m"):
        os.chmod(place.spool, 0o700)
        result = place.run(
            """
            import numpy as np
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/a")
            for step in range(200_000):
                writer.add_scalar("value", step, step)
            writer.add_histogram("large", np.zeros(1_000_000), 0)
            import json; print(json.dumps(writer.stats()))
            """,
            environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock", "TBXD_FLUSH_SECONDS": "0"},
        )
        assert result.returncode == 0, result.stderr
        assert "journal_error" in result.stdout
        counts = json.loads(result.stdout)
        assert counts["accepted"] == 200_001
        assert "records dropped in this process" in result.stderr
        place.serve()
        wait_for(place.drained, "the journal")
    points = scalars(place.logdir / "a")["value"]
    assert len(points) == 200_001 - counts["dropped"]["journal_error"]
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps)), "what was kept is in order and there once"
