"""`tbxd top`: the installed program on a real terminal, on a real daemon and scripts that log."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness import DEADLINE, World, wait_for
from tbxd.cli import top_view
from tbxd.tools import top

HOME = "\x1b[H"
ANSI = re.compile(r"\x1b[\[?][0-9;?]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>]")
ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"

TRAIN = """
    import sys, time
    import numpy as np
    from tbxd_client import SummaryWriter
    writers = {name: SummaryWriter(f"logs/{name}") for name in sys.argv[1:]}
    for name, writer in writers.items():
        if name.startswith("bad"):
            writer.add_histogram("nothing", np.array([np.nan]), 0)
    for step in range(1_000_000):
        for number, writer in enumerate(writers.values()):
            for _ in range(number + 1):
                writer.add_scalar("train/loss", 0.25, step)
            writer.add_scalar("odd[red]tag[/red]", float(step), step)
        time.sleep(0.005)
"""


class Terminal:
    """A `tbxd top` on a terminal, and what it shows."""

    def __init__(self, place: World, *arguments: str, rows: int = 40, columns: int = 120) -> None:
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(other)
        self.other = other
        environ = {**place.environ, "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "LINES", "COLUMNS"):  # the size is the terminal's: the last two would be believed more
            environ.pop(name, None)

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "tbxd", "top", *arguments],
            env=environ,
            stdin=other,
            stdout=other,
            stderr=other,
            preexec_fn=take_terminal,  # noqa: PLW1509 - no thread runs yet
            cwd=place.root,
        )
        place.processes.append(self.process)
        self.text = ""

    def read(self, seconds: float = 0.05) -> str:
        """Return all output."""
        until = time.monotonic() + seconds
        while select.select([self._own], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                self.text += os.read(self._own, 65536).decode(errors="replace")
            except OSError:
                break
        return self.text

    def screen(self) -> str:
        """The last whole frame as it is seen."""
        frames = self.read().split(HOME)
        return ANSI.sub("", frames[-1]).replace("\r", "")

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait for something to be seen."""
        deadline = time.monotonic() + DEADLINE
        while (found := re.search(pattern, self.screen(), re.S)) is None:
            assert time.monotonic() < deadline, (pattern, self.screen())
            assert self.process.poll() is None, self.text
        return found

    def press(self, key: str) -> None:
        os.write(self._own, key.encode())

    def left(self) -> int:
        """Wait for its end."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < deadline
        self.read()
        return self.process.wait()

    def close(self) -> None:
        os.close(self._own)
        os.close(self.other)


@contextmanager
def terminal(place: World, *arguments: str, **size: int) -> Iterator[Terminal]:
    shown = Terminal(place, *arguments, **size)
    try:
        yield shown
    finally:
        if shown.process.poll() is None:
            shown.process.kill()
            shown.process.wait()
        shown.close()


def test_it_shows_runs_rates_last_values_and_drops_and_q_leaves_the_terminal_as_it_was(place: World) -> None:
    daemon = place.serve()
    place.start(TRAIN, "slow", "bad", "fast")
    with terminal(place) as shown:
        shown.shows(rf"tbxd \S+  daemon, pid {daemon.pid}, up \d+ s")
        shown.shows(r"records/s [\d.]+k? .*sessions 1 .*runs 3")
        shown.shows(r"disk  .* free of .*\(spool")
        screen = shown.shows(r"fast +\S+.*train/loss 0\.25 @\d+").string
        assert re.search(r"odd\[red\]tag\[/red\] \d+ @\d+", screen), screen
        shown.shows(r"logs/fast .*logs/bad .*logs/slow ")  # the quickest first
        hint = shown.shows(r"1 dropped, no_finite_values: histograms without a finite value").string
        assert "q quits" in hint and ALTERNATE in shown.text
        colours = shown.text.split(HOME)[-1]
        assert re.search(r"\x1b\[[\d;]*31m *1\x1b", colours), "drops are red"
        shown.press("q")
        assert shown.left() == 0
        assert shown.text.rstrip().endswith(("\x1b[?25h", BACK)) and BACK in shown.text
        assert termios.tcgetattr(shown.other) == shown.before


def test_s_sorts_and_p_pauses(place: World) -> None:
    place.serve()
    trainer = place.start(TRAIN, "a", "bad", "c")
    with terminal(place, "--interval", "0.2") as shown:
        shown.shows(r"rec/s ▾.*logs/c .*logs/bad .*logs/a ")
        for column, order in (
            ("run", r"run ▾.*logs/a .*logs/bad .*logs/c "),
            ("pending", r"pending ▾"),
            ("dropped", r"dropped ▾.*logs/bad .*logs/a .*logs/c "),
            ("rate", r"rec/s ▾.*logs/c .*logs/bad .*logs/a "),
        ):
            shown.press("s")
            assert shown.shows(order), column
        shown.press("p")
        still = re.search(r"written [\d,]+", shown.shows(r"p goes on   PAUSED").string)
        assert still
        shown.read(1.0)
        assert still[0] in shown.screen()
        shown.press("p")
        wait_for(lambda: "PAUSED" not in shown.screen() and still[0] not in shown.screen(), "it to go on")
        shown.process.send_signal(signal.SIGINT)
        assert shown.left() == 0
        assert termios.tcgetattr(shown.other) == shown.before
    trainer.kill()


def test_a_daemon_that_goes_away_is_missed_and_found_again(place: World) -> None:
    place.serve()
    assert place.run(
        "from tbxd_client import SummaryWriter\nwith SummaryWriter('logs/a') as w: w.add_scalar('x', 1, 0)"
    )
    with terminal(place, "--interval", "0.2") as shown:
        shown.shows(r"logs/a ")
        pid = place.kill_daemon()
        screen = shown.shows(r"it waits for a daemon: no daemon ").string
        assert "logs/a " in screen and f"pid {pid}, is gone" in screen, "what was last known stays"
        assert re.search(r"the numbers are of \d\d:\d\d:\d\d, \d+ s ago", screen), "and is told from what is"
        assert re.search(r"records/s - .*written/s - .*lag - .*sessions - .*cpu - .*memory - .*written 1", screen, re.S)
        again = place.serve()
        shown.shows(rf"pid {again.pid}, up \d s")
        assert "it waits" not in shown.screen()
        shown.process.send_signal(signal.SIGTERM)
        assert shown.left() == 128 + signal.SIGTERM
        assert termios.tcgetattr(shown.other) == shown.before, "also then the terminal is put right"


def test_a_small_terminal_gets_the_first_runs_and_is_told_how_many_more(place: World) -> None:
    place.serve()
    place.start(TRAIN, *(f"run{number:02}" for number in range(30)))
    with terminal(place, rows=18, columns=60) as shown:
        screen = shown.shows(r"lag [\d.]+ m?s .*disk .*\d+ more runs.*q quits").string
        assert len(screen.splitlines()) <= 18 and all(len(line) <= 60 for line in screen.splitlines()), screen


def test_long_names_are_cut_where_they_are_alike(place: World) -> None:
    place.serve()
    place.start(TRAIN, *(f"model=large,dataset=imagenet,seed={seed},augment=none,optimizer=adamw" for seed in range(4)))
    with terminal(place, columns=80) as shown:
        shown.shows(r"seed=\d.*seed=\d.*seed=\d.*seed=\d")
        screen = shown.shows(r"seed=0").string
        assert {f"seed={seed}" for seed in range(4)} == set(re.findall(r"seed=\d", screen)), screen
        assert all(len(line) <= 80 for line in screen.splitlines()), screen


def test_runs_that_have_no_room_are_scrolled_to(place: World) -> None:
    place.serve()
    names = [f"run{number:02}" for number in range(30)]
    place.run(
        "import sys; from tbxd_client import SummaryWriter\n"
        "for name in sys.argv[1:]:\n    with SummaryWriter(f'logs/{name}') as writer: writer.add_scalar('loss', 1, 1)",
        *names,
    )

    def seen(screen: str) -> list[str]:
        return re.findall(r"logs/(run\d\d) ", screen)

    with terminal(place, "--interval", "0.2", rows=20, columns=80) as shown:
        shown.shows(r"PgDn scroll")
        shown.press("s")  # by name
        first = seen(shown.shows(r"run ▾.*run00 .*more runs.*PgDn scroll").string)
        assert first == names[: len(first)] and 3 <= len(first) < 20
        assert f"{30 - len(first)} more runs" in shown.screen()
        for keys, begin in (
            ("\x1b[B", 1),  # down
            ("\x1bOB", 2),  # as in the mode that some terminals are in
            ("j", 3),
            ("\x1b[A", 2),  # up
            ("\x1b[6~", 2 + len(first) - 1),  # a page
            ("\x1b[5~", 2),
            ("\x1b[F", 30 - len(first)),  # the end
            ("\x1b[B\x1b[B", 30 - len(first)),  # and not beyond
            ("\x1b[A\x1b[A", 28 - len(first)),  # two keys in one piece
            ("\x1b[H", 0),
            ("\x1b[A", 0),
            ("\x1b[4~", 30 - len(first)),
            ("\x1b[15~", 30 - len(first)),  # F5 is nothing
            ("g", 0),
        ):
            shown.press(keys)
            wait_for(lambda begin=begin: seen(shown.screen()) == names[begin : begin + len(first)], repr(keys), 20)
            above = re.search(r"(\d+) runs? above", shown.screen())
            assert (int(above[1]) if above else 0) == begin
            assert len(shown.screen().splitlines()) <= 20
        shown.press("\x1b[")
        time.sleep(0.3)
        shown.press("q")
        assert shown.left() == 0


def test_without_a_daemon_the_exit_code_is_3(place: World) -> None:
    for arguments in ((), ("--once",), ("--json",), ("--once", "--json")):
        result = place.tbxd("top", *arguments)
        assert result.returncode == 3 and "no daemon is running" in result.stderr
        assert not result.stdout or json.loads(result.stdout)["running"] is False
    with terminal(place) as shown:
        assert shown.left() == 3 and "no daemon is running" in shown.text and ALTERNATE not in shown.text


def test_one_frame_is_printed_where_there_is_no_terminal(place: World) -> None:
    place.serve()
    empty = place.tbxd("top", "--once")
    assert empty.returncode == 0 and "nothing has been logged yet" in empty.stdout and "\x1b" not in empty.stdout
    place.start(TRAIN, "a", "bad")
    wait_for(lambda: (place.status() or {"runs": ()})["runs"], "the runs")
    text = place.tbxd("top", "--once").stdout
    assert re.search(r"records/s [1-9]", text) and "train/loss 0.25 @" in text and "\x1b" not in text, text
    frame = json.loads(place.tbxd("top", "--once", "--json").stdout)
    assert frame["running"] and frame["records_per_second"] > 0 and frame["sessions"] == 1
    runs = {os.path.basename(run["directory"]): run for run in frame["runs"]}
    assert runs["bad"]["dropped"] == {"no_finite_values": 1} and runs["a"]["rate"] > 0
    assert runs["a"]["values"]["train/loss"]["value"] == 0.25 and runs["a"]["values"]["train/loss"]["step"] > 0
    (disk,) = [disk for disk in frame["disks"] if "spool" in disk["what"]]
    assert 0 <= disk["free_bytes"] <= disk["total_bytes"]


def test_frame_follows_frame_in_a_pipe_and_a_reader_that_leaves_ends_it(place: World) -> None:
    place.serve()
    place.start(TRAIN, "a")
    lines: list[dict[str, Any]] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "top", "--json", "--interval", "0.2"],
        env=place.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    place.processes.append(process)
    assert process.stdout is not None and process.stderr is not None
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.append(json.loads(line))
            if lines[-1].get("pid") and not lines[-1]["running"]:
                break

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: len(lines) > 3 and lines[-1]["runs"] and lines[-1]["runs"][0]["rate"] > 0, "frames")
    times = [line["time"] for line in lines]
    assert times == sorted(times) and len(set(times)) == len(times)
    place.extra["TBXD_ADDRESS"] = "ipc:///nowhere"  # nobody starts another
    place.kill_daemon()
    reader.join(DEADLINE)
    assert lines[-1]["running"] is False and "no daemon" in lines[-1]["trouble"]
    stdout.close()
    assert process.wait(DEADLINE) == 0 and process.stderr.read() == b""


def test_values_are_read_from_the_end_of_a_file_whatever_its_size(place: World) -> None:
    place.serve()
    place.run(
        """
        import numpy as np
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            for step in range(40_000):
                writer.add_scalar("early" if step < 20_000 else "late", step, step)
        """
    )
    wait_for(place.drained, "the journal to be drained")
    (path,) = (place.logdir / "a").glob("events*")
    assert path.stat().st_size > 8 * top.END_BYTES
    end = top._End(path)
    end.read()
    assert end.values == {"late": (39_999, 39_999.0)}
    with path.open("ab") as file:
        file.write(b"\xff" * 1000)
    end.read()
    assert end.values == {"late": (39_999, 39_999.0)}, "what is damaged is passed over"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (top_view.bytes_of(0), "0 B"),
        (top_view.bytes_of(1536), "1.5 KiB"),
        (top_view.bytes_of(123 << 20), "123 MiB"),
        (top_view.bytes_of(5 << 50), "5120 TiB"),
        (top_view.rate_of(0.4), "0"),
        (top_view.rate_of(999), "999"),
        (top_view.rate_of(12_345), "12.3k"),
        (top_view.rate_of(4.6e6), "4.6M"),
        (top_view.time_of(59), "59 s"),
        (top_view.time_of(3661), "1 h 01 min"),
        (top_view.time_of(90_000), "1 d 1 h"),
        (top_view.lag_of(0.0123), "12 ms"),
        (top_view.lag_of(12.34), "12.3 s"),
        (top_view.lag_of(300), "5 min 00 s"),
    ],
)
def test_numbers_are_short(made: str, text: str) -> None:
    assert made == text
