"""`tbxd tail`: what a writer logs comes out as lines, from the files alone."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import World, wait_for
from tbxd.tfevents import schema
from tbxd.tfevents.scalar_encoder import ScalarEncoder
from tbxd.tfevents.tfrecord import frame

VERSION = frame(schema.Event(wall_time=1e9, file_version="brain.Event:2").SerializeToString())


def event(tag: str, step: int, value: float = 0.5, wall_time: float = 1e9) -> bytes:
    return ScalarEncoder().event([tag], step, wall_time, struct.pack("<f", value))


def name(number: int) -> str:
    return f"events.out.tfevents.{number:010d}.host.1.0"


@contextmanager
def tailing(place: World, *arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], list[dict[str, Any]]]]:
    """A `tbxd tail --json` and the lines that it has printed; it has to leave with 0 when it is interrupted."""
    import threading

    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "tail", "--json", *map(str, arguments)],
        env=place.environ,
        stdout=subprocess.PIPE,
        stderr=(place.root / "tail.stderr").open("wb"),
    )
    place.processes.append(process)
    lines: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    yield process, lines
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    reader.join()


def test_values_come_while_they_are_logged_also_of_new_runs_and_files(place: World) -> None:
    place.logdir.mkdir()
    writer = """
        import sys
        from tbxd_client import SummaryWriter
        with SummaryWriter(f"logs/{sys.argv[1]}") as writer:
            for step in range(50):
                writer.add_scalar("loss/train", step / 2, step)
                writer.add_scalar("other", step, step)
        assert writer.flush(30)
    """
    with tailing(place, place.logdir, "loss/*", "-n", 50) as (_, lines):  # where it begins after the script
        for run in ("a", "b"):
            assert place.run(writer, run).returncode == 0
            wait_for(lambda run=run: sum(line["run"] == run for line in lines) == 50, f"the values of {run}")
        place.kill_daemon()  # the next one writes a new file
        assert place.run(writer, "a").returncode == 0
        wait_for(lambda: len(lines) == 150, "the values of the next file")
    assert {line["tag"] for line in lines} == {"loss/train"} and {line["kind"] for line in lines} == {"scalar"}
    assert [(line["step"], line["value"]) for line in lines[:50]] == [(step, step / 2) for step in range(50)]


def test_the_last_values_come_first_and_then_what_follows(place: World) -> None:
    place.logdir.mkdir()
    path = place.logdir / name(1_000_000_000)
    with path.open("wb", buffering=0) as file:
        file.write(VERSION + b"".join(event(tag, step, wall_time=1e9 + step) for step in range(9) for tag in "ab"))
        with tailing(place, place.logdir, "-n", 2) as (_, lines):
            wait_for(lambda: len(lines) == 4, "the last two values of each tag")
            assert [(line["tag"], line["step"]) for line in lines] == [("a", 7), ("b", 7), ("a", 8), ("b", 8)]
            whole = event("a", 9)
            file.write(whole[:20])  # in two pieces, as a reader may see a write
            os.fsync(file.fileno())
            file.write(whole[20:])
            wait_for(lambda: len(lines) == 5, "the next value")
        assert (lines[4]["tag"], lines[4]["step"], lines[4]["run"]) == ("a", 9, "")
    once = place.tbxd("tail", str(place.logdir), "b", "-n", "3", "--no-follow").stdout.splitlines()
    assert [line.split()[1:] for line in once] == [["b", "step", str(step), "0.5"] for step in (6, 7, 8)]


def test_what_is_damaged_is_said_and_passed_over(place: World) -> None:
    (place.logdir / "run").mkdir(parents=True)
    path = place.logdir / "run" / name(1_000_000_000)
    path.write_bytes(VERSION + event("a", 1) + b"no record at all" + event("a", 2))
    with tailing(place, place.logdir, "-n", 9) as (_, lines):
        wait_for(lambda: len(lines) == 2, "both values")
        with path.open("ab") as file:
            file.write(b"damage again" + event("a", 3))
        wait_for(lambda: len(lines) == 3, "what follows damage")
    said = (place.root / "tail.stderr").read_text().splitlines()
    position = len(VERSION + event("a", 1))
    assert len(said) == 2 and f"damaged at byte {position:,}; `tbxd check` says more" in said[0]


def test_values_that_are_no_number_and_what_is_no_scalar_have_a_line_too(place: World) -> None:
    result = place.run(
        """
        import numpy as np
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs") as writer:
            writer.add_scalar("nan", float("nan"), 1)
            writer.add_scalar("inf", float("-inf"), 1)
            writer.log({"x": 0.1, "y": 2}, 1)
            writer.add_histogram("weights", np.arange(100.0), 1)
            writer.add_image("picture", np.zeros((3, 4, 6), np.uint8), 1)
            writer.add_text("words", "hello", 1)
            writer.add_tensor("numbers", np.zeros((2, 3), np.float32), 1)
        assert writer.flush(30)
        """
    )
    assert result.returncode == 0, result.stderr
    shown = place.tbxd("tail", "--json", "--no-follow", str(place.logdir))
    lines = {line["tag"]: (line["kind"], line["value"]) for line in map(json.loads, shown.stdout.splitlines())}
    assert lines["nan"] == ("scalar", "NaN") and lines["inf"] == ("scalar", "-Infinity")
    assert lines["x"] == ("scalar", 0.1) and lines["y"] == ("scalar", 2.0)
    assert lines["weights"] == ("histogram", "100 values, 0 to 99") and lines["picture"] == ("image", "6 by 4")
    assert lines["words/text_summary"] == ("text", "hello") and lines["numbers"][1] == "2 by 3"
    plain = place.tbxd("tail", "--no-follow", str(place.logdir)).stdout
    assert "<image> 6 by 4" in plain and "nan" in plain


def test_a_reader_that_leaves_and_a_folder_that_is_not_there_end_it_quietly(place: World) -> None:
    missing = place.tbxd("tail", "--no-follow", str(place.root / "none"))
    assert missing.returncode == 2 and "no such folder" in missing.stderr
    place.logdir.mkdir()
    path = place.logdir / name(1_000_000_000)
    path.write_bytes(VERSION + b"".join(event("a", step) for step in range(20_000)))
    result = subprocess.run(
        f"{sys.executable} -m tbxd tail -n 20000 --no-follow {place.logdir} | head -n 2",
        shell=True,
        env=place.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert len(result.stdout.splitlines()) == 2 and not result.stderr, result.stderr


def test_what_is_not_there_is_said_with_what_there_is_and_waited_for_where_it_may_come(place: World) -> None:
    """It was waited for without a word, whatever it was."""
    for run in ("exp1", "exp2"):
        (place.logdir / run).mkdir(parents=True)
        (place.logdir / run / name(1)).write_bytes(VERSION + event("train/loss", 1) + event("val/loss", 1))
    wrong = place.root / "wrong" / "exp1"
    exp1 = place.logdir / "exp1"
    for arguments, code, said in (
        ((place.logdir / "exp3", "--no-follow"), 2, f"no such folder; in {place.logdir} there are exp2, exp1"),
        ((place.root / "lgos" / "exp1",), 2, f"no such folder, for there is no {place.root}/lgos; there is logs"),
        ((wrong,), 2, f"there is no {place.root}/wrong"),
        ((exp1 / name(1),), 2, f"is a file; name the folder of the run, {exp1}"),
        ((place.root, "--no-follow"), 0, ""),
        ((exp1, "train/los", "--no-follow"), 1, "no tag fits 'train/los'; there are train/loss, val/loss"),
        ((exp1, "train/los", "val/*", "--no-follow"), 1, "no tag fits 'train/los'; there are train/loss"),
    ):
        result = place.tbxd("tail", *map(str, arguments))
        assert result.returncode == code and said in result.stderr, (arguments, result)
        assert bool(result.stderr) == bool(said) and bool(result.stdout) == (not code or "val/*" in arguments)

    def said_while(arguments: tuple[object, ...], come: Callable[[], object]) -> str:
        with tailing(place, *arguments) as (process, lines):
            wait_for((place.root / "tail.stderr").read_text, "a word", 15)
            assert process.poll() is None and not lines
            come()
            wait_for(lambda: lines, "a value")
        return (place.root / "tail.stderr").read_text()

    def comes() -> None:
        (place.logdir / "exp3").mkdir()
        (place.logdir / "exp3" / name(1)).write_bytes(VERSION + event("train/loss", 1))

    text = said_while((place.logdir / "exp3",), comes)
    assert text.startswith(f"tbxd: {place.logdir}/exp3: no such folder; in {place.logdir} there are exp2, exp1")
    assert text.endswith("; waiting for it (Ctrl-C ends)\n") and text.count("\n") == 1

    def adds() -> None:
        with (place.logdir / "exp3" / name(1)).open("ab") as file:
            file.write(event("test/loss", 2))

    text = said_while((place.logdir / "exp3", "test/loss"), adds)
    assert text == "tbxd: no tag fits 'test/loss'; there is train/loss; waiting for it (Ctrl-C ends)\n"
    (place.logdir / "empty").mkdir()
    none = place.tbxd("tail", str(place.logdir / "empty"), "--no-follow")
    assert none.returncode == 2 and "there are no event files" in none.stderr


def test_a_folder_that_comes_later_is_waited_for(place: World) -> None:
    with tailing(place, place.logdir) as (process, lines):
        assert process.poll() is None
        folder: Path = place.logdir / "late"
        folder.mkdir(parents=True)
        (folder / name(1)).write_bytes(VERSION + event("a", 1))
        wait_for(lambda: lines, "a value")
        assert lines[0]["run"] == "late"
