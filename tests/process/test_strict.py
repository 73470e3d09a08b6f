"""``TBXD_STRICT``: wrong arguments raise; off, they are said once and counted. `test_odd_values.py` has the many."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness import World, scalars, wait_for

OFF = {"TBXD_STRICT": "0"}


@pytest.mark.parametrize("value", ["0", "off", "False", "no"])
def test_off_is_said_in_several_ways(place: World, value: str) -> None:
    result = place.run(
        "from tbxd_client import SummaryWriter; SummaryWriter('logs/a').add_scalar('x', 'text', 0)",
        environ={"TBXD_STRICT": value, "TBXD_FLUSH_SECONDS": "0"},
    )
    assert result.returncode == 0, result.stderr
    assert "add_scalar: x: 'text' (str) was given; one real number is expected" in result.stderr


@pytest.mark.parametrize("value", ["", "1", "on", "perhaps", "7"])
def test_it_is_on_where_it_is_not_off(place: World, value: str) -> None:
    result = place.run(
        "from tbxd_client import SummaryWriter; SummaryWriter('logs/a').add_scalar('x', 'text', 0)",
        environ={"TBXD_STRICT": value},
    )
    assert result.returncode == 1 and "TypeError: x: 'text' (str) was given" in result.stderr
    assert ("0 to 1" in result.stderr) == (value in ("perhaps", "7"))


def test_calls_with_wrong_arguments_are_counted_with_their_run_and_shown_in_it(place: World) -> None:
    place.serve()
    result = place.run(
        """
        import json
        from tbxd_client import GlobalSummaryWriter, SummaryWriter
        writer, off = SummaryWriter("logs/a"), SummaryWriter("logs/off", write_to_disk=False)
        for step in range(1000):
            writer.add_scalar("x", [step, step], step)
            off.add_histogram("x", object(), step)
        writer.add_scalar("x", 1.0, "text")
        writer.file_writer.add_summary(object())
        GlobalSummaryWriter("logs/global").add_scalar("x", "text")
        writer.add_scalar("x", 1.0, 7)
        assert writer.flush(60)
        print(json.dumps([writer.stats(), off.stats()]))
        """,
        environ=OFF,
    )
    assert result.returncode == 0, result.stderr
    stats, off = json.loads(result.stdout)
    assert (stats["accepted"], stats["written"], stats["dropped"]) == (1003, 1, {"bad_argument": 1002})
    assert off["accepted"] == 0
    assert result.stderr.count("such calls are dropped and counted") == 3  # add_scalar twice: ValueError and TypeError

    def counted() -> bool:
        status = place.status()
        assert status is not None
        dropped = {name: status["runs"].get(str(place.logdir / name), {}).get("dropped") for name in ("a", "global")}
        return dropped == {"a": {"bad_argument": 1002}, "global": {"bad_argument": 1}}

    wait_for(counted, "the counts in tbxd status")
    wait_for(lambda: "tbxd/dropped/bad_argument" in scalars(place.logdir / "a"), "the counts in the run")


def test_they_are_counted_when_the_trainer_is_killed(place: World) -> None:
    place.serve()
    result = place.run(
        """
        import os, signal
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("x", 1.0, 0)
        for step in range(5):
            writer.add_image("x", "text", step)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        environ=OFF,
    )
    assert result.returncode == -9
    wait_for(place.drained, "the journal to be drained")
    status = place.status()
    assert status is not None
    assert status["runs"][str(place.logdir / "a")]["dropped"] == {"bad_argument": 5}


CHILDREN = """
import multiprocessing, os, pickle
from tbxd_client import SummaryWriter

def child(writer):
    writer.add_scalar("x", "text", 0)
    writer.add_scalar("x", 1.0, os.getpid())

if __name__ == "__main__":
    os.environ["TBXD_STRICT"] = "off"  # after the import: it is read when a writer is made
    writer = SummaryWriter("logs/a")
    writer.add_scalar("x", None, 0)
    pickle.loads(pickle.dumps(writer)).add_scalar("x", None, 0)
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=child, args=(writer,))
        process.start()
        process.join()
        assert process.exitcode == 0, method
    assert writer.flush(60)
"""


def test_the_setting_holds_in_children_and_for_writers_that_were_pickled(place: World) -> None:
    script = place.root / "children.py"
    script.write_text(CHILDREN)
    result = subprocess.run(
        [sys.executable, str(script)], env=place.environ, cwd=place.root, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    wait_for(lambda: len(scalars(place.logdir / "a").get("x", ())) == 2, "both children's scalars")
