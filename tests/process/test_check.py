"""`tbxd check`: real damage on real files, and TensorBoard's own loaders as the judge of what it says."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import World, events, scalars, world
from tb import board
from tbxd.tfevents import schema
from tbxd.tfevents.ledger import encode_session
from tbxd.tfevents.lineage import beside_text, digest_of
from tbxd.tfevents.loader_model import STRETCHES_MAX, Kept
from tbxd.tfevents.scalar_encoder import ScalarEncoder
from tbxd.tfevents.scalar_parser import Peek, value_of
from tbxd.tfevents.scan import CUT, DAMAGED, WHOLE, scan
from tbxd.tfevents.tfrecord import frame
from tbxd.tools import check as module
from tbxd.tools.check import DAMAGE, KINDS, Problem

NAME = "events.out.tfevents.{:010d}.host.1.0"
VERSION = frame(schema.Event(wall_time=1e9, file_version="brain.Event:2").SerializeToString())


def event(tag: str, step: int, value: float = 0.5, wall_time: float = 1e9) -> bytes:
    return ScalarEncoder().event([tag], step, wall_time, struct.pack("<f", value))


def file(folder: Path, records: list[bytes], number: int = 1_000_000_000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME.format(number)
    path.write_bytes(b"".join(records))
    return path


def check(place: World, *arguments: object) -> tuple[int, dict[str, Any]]:
    """The exit code and what `tbxd check --json` says, problems by kind."""
    result = place.tbxd("check", "--json", *map(str, arguments))
    assert result.returncode in (0, 1, 2) and result.stdout, result.stderr
    answer = json.loads(result.stdout)
    answer["by"] = {problem["kind"]: problem for problem in answer["problems"]}
    return result.returncode, answer


Shown = dict[str, dict[str, list[int]]]


def all_shown(logdir: Path, runs: set[str], tag: str, loader: str) -> Shown:
    """Run to tag to the steps that a loader has, once it has read a tag of all runs."""
    with board(logdir, loader) as seen:
        seen.until(lambda: all(tag in seen.tags().get(run, set()) for run in runs), "the tag in every run")
        return {
            run: {tag: [step for step, _ in seen.scalars(run, tag)] for tag in tags}
            for run, tags in seen.tags().items()
        }


def shown(logdir: Path, run: str, tag: str, loader: str) -> dict[str, list[int]]:
    """The same of one run."""
    return all_shown(logdir, {run}, tag, loader)[run]


# --- files that are well ------------------------------------------------------------------------------------------

TRAIN = """
    import numpy as np
    from tbxd_client import SummaryWriter
    with SummaryWriter("logs/a") as writer:
        for step in range(300):
            writer.add_scalar("loss", 1 / (step + 1), step)
            writer.log({"x": step, "y": -step}, step)
        writer.add_histogram("weights", np.arange(100.0), 1)
        writer.add_image("picture", np.zeros((3, 4, 4), np.uint8), 1)
        writer.add_text("words", "hello", 1)
        writer.add_hparams({"lr": 0.1}, {"best": 1.0})
    assert writer.flush(30)
"""


def test_what_the_daemon_writes_is_well_also_after_it_was_killed(place: World) -> None:
    for _ in range(2):
        result = place.run(TRAIN.replace('"logs/a"', f'"logs/{len(list(place.root.glob("logs/*")))}"'))
        assert result.returncode == 0, result.stderr
        place.kill_daemon()
    code, answer = check(place, place.logdir)
    assert code == 0 and answer["runs"] >= 2 and not [p for p in answer["problems"] if p["level"] != "note"]
    assert answer["records"] == sum(
        len(events(path)) for path in {item.parent for item in place.logdir.rglob("*tfev*")}
    )
    tags = answer["tags"]["0"]
    assert tags["loss"] == tags["x"] == [300, 300]
    text = place.tbxd("check", str(place.logdir)).stdout
    assert "all well" in text and f"{answer['records']:,} whole records" in text


def test_files_of_the_originals_are_well(place: World) -> None:
    result = place.run(
        """
        import numpy as np
        from tensorboardX import SummaryWriter
        from torch.utils.tensorboard import SummaryWriter as Torch
        for name, kind in (("x", SummaryWriter), ("t", Torch)):
            with kind(f"logs/{name}") as writer:
                for step in range(50):
                    writer.add_scalar("loss", step, step)
                    if name == "t":
                        writer.add_scalar("new", step, step, new_style=True)
                writer.add_histogram("weights", np.arange(100.0), 1)
                writer.add_text("words", "hello", 1)
                writer.add_pr_curve("curve", np.array([0, 1, 1]), np.array([0.1, 0.8, 0.6]), 1)
        """
    )
    assert result.returncode == 0, result.stderr
    code, answer = check(place, place.logdir)
    assert code == 0, answer["problems"]
    assert answer["tags"]["x"]["loss"] == answer["tags"]["t"]["loss"] == answer["tags"]["t"]["new"] == [50, 50]


# --- steps --------------------------------------------------------------------------------------------------------


def test_the_points_that_the_fast_loader_drops_are_those_that_are_foretold(place: World) -> None:
    """Two hundred tags, in one file or two, whose steps go forth, back and stand still."""
    order = random.Random(7)
    first, second, offered = [VERSION], [VERSION], {}
    for number in range(200):
        tag, step, steps = f"tag{number}", 0, []
        for _ in range(order.randint(1, 60)):
            step += order.choice([1, 1, 1, 2, 5, 0, -1, -7, order.randint(-60, 60)])
            steps.append(step)
        part = order.randint(0, len(steps))
        first += [event(tag, step) for step in steps[:part]]
        second += [event(tag, step, wall_time=1e9 + 9) for step in steps[part:]]
        offered[tag] = steps
    file(place.logdir / "run", first)
    file(place.logdir / "run", second, 1_000_000_100)
    seen = shown(place.logdir, "run", "tag199", "fast")
    code, answer = check(place, place.logdir)
    assert code == 1
    for tag, steps in offered.items():
        kept = Kept()
        lost = sum(map(kept.offer, steps))
        assert kept.steps() == seen[tag], tag
        assert answer["tags"]["run"][tag] == [len(steps), len(seen[tag])] and lost == len(steps) - len(seen[tag])
    assert answer["points_lost"] == sum(len(steps) - len(seen[tag]) for tag, steps in offered.items())


@given(st.lists(st.one_of(st.integers(-9, 60), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=80))
def test_what_is_kept_of_any_steps_is_what_a_list_of_them_would_have(steps: list[int]) -> None:
    kept, expected = Kept(), []
    for step in steps:
        before = len(expected)
        expected = [one for one in expected if one < step]
        assert kept.offer(step) == before - len(expected)
        expected.append(step)
        assert kept.steps() == expected and kept.total == len(expected) and kept.last == step


def test_a_tag_of_irregular_steps_takes_bounded_memory_and_is_estimated() -> None:
    kept, order, step = Kept(), random.Random(1), 0
    for _ in range(20 * STRETCHES_MAX):
        step += order.randint(1, 1000)
        assert kept.offer(step) == 0
    assert kept.estimated and len(kept._below) <= STRETCHES_MAX and kept.total == 20 * STRETCHES_MAX
    half = kept.offer(step // 2)
    assert abs(half - 10 * STRETCHES_MAX) < STRETCHES_MAX


def test_each_step_problem_is_said_with_its_place_and_what_it_costs(place: World) -> None:
    start = [VERSION, *(event("a", step) for step in range(10))]
    path = file(place.logdir / "r", [*start, event("a", 4), event("b", 1), event("b", 1), event("b", 1)])
    code, answer = check(place, path.parent)
    back, again = answer["by"]["step_back"], answer["by"]["repeated_step"]
    assert code == 1 and answer["found"] == {"step_back": 1, "repeated_step": 2}
    assert (back["position"], back["step"], back["tag"], back["points"]) == (len(b"".join(start)), 4, "a", 6)
    assert (again["tag"], again["step"], again["count"], again["points"]) == ("b", 1, 2, 2)
    assert answer["tags"]["."] == {"a": [11, 5], "b": [3, 1]}
    lines = place.tbxd("check", str(path.parent)).stdout.splitlines()
    assert f"byte {back['position']:,}, step 4, tag 'a'" in lines[0] and "To do: " in lines[0]
    assert "2 times; 2 points not shown" in lines[1] and lines[-1].endswith("does not show 8 points")


def test_a_restart_that_says_so_is_only_noted(place: World) -> None:
    start = schema.Event(wall_time=1e9, step=5)
    start.session_log.status = schema.SESSION_START
    file(
        place.logdir,
        [
            VERSION,
            *(event("a", step) for step in range(10)),
            frame(start.SerializeToString()),
            *(event("a", step) for step in range(5, 12)),
            event("a", 3),
        ],
    )
    code, answer = check(place, place.logdir)
    assert code == 1 and answer["found"] == {"restart": 1, "step_back": 1}
    assert answer["by"]["restart"]["points"] == 5 and answer["by"]["step_back"]["points"] == 9 == answer["points_lost"]


# --- damage -------------------------------------------------------------------------------------------------------

STEPS = 60
Damage = Callable[[bytes, list[int]], bytes]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def odd_event(**fields: Any) -> bytes:
    made = schema.Event(step=30, **fields)
    made.summary.value.add(tag="loss", simple_value=0.5)
    return frame(made.SerializeToString())


# What is done to a file whose records begin at `at`, and the kind that is found at the beginning of the 30th.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "value": (lambda data, at: flip(data, at[31] - 6), "data_checksum"),
    "tag": (
        lambda data, at: data[: at[30]] + data[at[30] : at[31]].replace(b"loss", b"l\xffss") + data[at[31] :],
        "damaged_event",
    ),
    "checksum of the data": (lambda data, at: flip(data, at[31] - 2), "data_checksum"),
    "length": (lambda data, at: flip(data, at[30] + 1), "length_checksum"),
    "checksum of a length": (lambda data, at: flip(data, at[30] + 9), "length_checksum"),
    "hole of zeros": (lambda data, at: data[: at[30]] + bytes(at[33] - at[30]) + data[at[33] :], "length_checksum"),
    "bytes lost": (lambda data, at: data[: at[30]] + data[at[30] + 20 :], "length_checksum"),
    "bytes added": (lambda data, at: data[: at[30]] + b"ten bytes!" + data[at[30] :], "length_checksum"),
    "cut and gone on": (lambda data, at: data[: at[31] - 9] + data[at[31] :], "cut_inside"),
    "no event": (lambda data, at: data[: at[30]] + frame(b"\xff\xff\xff") + data[at[30] :], "no_event"),
    "text that is no UTF-8": (
        lambda data, at: data[: at[30]] + frame(b"\x2a\x05\x0a\x03\x0a\x01\xff") + data[at[30] :],
        "no_event",
    ),
    "NaN as wall time": (
        lambda data, at: data[: at[30]] + odd_event(wall_time=math.nan) + data[at[31] :],
        "nan_wall_time",
    ),
    "infinite wall time": (
        lambda data, at: data[: at[30]] + odd_event(wall_time=math.inf) + data[at[31] :],
        "infinite_wall_time",
    ),
    "cut tail": (lambda data, at: data[: at[31] - 9], "cut_tail"),
    "cut within a length": (lambda data, at: data[: at[30] + 5], "cut_tail"),
}


NOTHING_LOST = ("bytes added", "no event", "text that is no UTF-8", "NaN as wall time", "infinite wall time")
BREAK_THE_SLOW_LOADER = {"no event", "text that is no UTF-8"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An event file of the daemon's with one scalar a step."""
    with world(tmp_path_factory.mktemp("written") / "world") as place:
        result = place.run(
            f"""
            from tbxd_client import SummaryWriter
            with SummaryWriter("logs") as writer:
                for step in range({STEPS}):
                    writer.add_scalar("loss", step, step)
            assert writer.flush(30)
            """
        )
        assert result.returncode == 0, result.stderr
        (path,) = place.logdir.iterdir()
        return path.read_bytes()


def starts(data: bytes) -> list[int]:
    """Where the records of the steps begin, of a file without damage."""
    found = list(scan(lambda position, length: data[position : position + length], len(data)))
    assert all(state == WHOLE for state, *_ in found)
    return [start for _, start, _, record in found if b"loss" in record] + [len(data)]


@dataclass
class Damaged:
    """The damaged files, what `check` says of each run and the copies it makes, and what the loaders make of both."""

    logdir: Path
    copies: Path
    answers: dict[str, tuple[int, dict[str, Any]]]
    seen: dict[str, Shown]  # by loader, "fast" and "slow"
    copies_seen: dict[str, Shown]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, written: bytes) -> Iterator[Damaged]:
    """Every damage, each in a run of its own; one TensorBoard for all of them."""
    at = starts(written)
    with world(tmp_path_factory.mktemp("damaged") / "world") as place:
        copies = place.root / "copies"
        answers = {}
        for name, (damage, _) in DAMAGES.items():
            path = file(place.logdir / name, [damage(written, at)])
            before = path.read_bytes()
            answers[name] = check(place, path.parent, "--repair-into", copies / name)
            assert path.read_bytes() == before
        runs = set(DAMAGES)
        seen = {"fast": all_shown(place.logdir, runs, "loss", "fast")}
        for name in BREAK_THE_SLOW_LOADER:
            (place.logdir / name).rename(place.root / name)
        seen["slow"] = all_shown(place.logdir, runs - BREAK_THE_SLOW_LOADER, "loss", "slow")
        copies_seen = {loader: all_shown(copies, runs, "loss", loader) for loader in ("fast", "slow")}
        yield Damaged(place.logdir, copies, answers, seen, copies_seen)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_what_both_loaders_make_of_it_foretold_and_the_copy_whole(
    place: World, damaged: Damaged, written: bytes, name: str
) -> None:
    kind, at = DAMAGES[name][1], starts(written)
    code, answer = damaged.answers[name]
    assert answer["by"][kind]["position"] == at[30] and code == (0 if KINDS[kind].level == "note" else 1)

    fast = damaged.seen["fast"][name]["loss"]
    assert answer["tags"]["."]["loss"][1] == len(fast)
    whole = [step for step, _ in scalars(damaged.copies / name)["loss"]]
    lost = {30, 31, 32} if name == "hole of zeros" else set() if name in NOTHING_LOST else {30}
    lost = set(range(30, STEPS)) if kind == "cut_tail" else lost
    assert whole == [step for step in range(STEPS) if step not in lost]
    assert answer["repaired_records"] == answer["records"] - (kind == "no_event")
    assert answer["skipped"] == (kind in ("no_event", "damaged_event", *DAMAGE.values()))
    told = {
        who: int(count)
        for count, who in re.findall(
            r"([\d,]+) by the (fast|slow)", answer["by"].get("not_shown", {}).get("detail", "")
        )
    }
    dropped_itself = name in ("NaN as wall time", "infinite wall time")  # which has a line of its own
    assert told.get("fast", 0) == len(set(whole) - set(fast)) - dropped_itself
    if kind == "no_event":
        assert name in BREAK_THE_SLOW_LOADER
    else:
        assert told.get("slow", 0) == len(set(whole) - set(damaged.seen["slow"][name]["loss"]))

    code, again = check(place, damaged.copies / name)
    assert code == 0 and not again["problems"], again["problems"]
    assert damaged.copies_seen["fast"][name]["loss"] == damaged.copies_seen["slow"][name]["loss"] == whole


def test_what_is_no_event_stops_the_slow_loader(damaged: Damaged) -> None:
    for name in BREAK_THE_SLOW_LOADER:
        with board(damaged.logdir.parent / name, "slow") as seen, pytest.raises(Exception, match="Error parsing"):
            seen.until(lambda: False, "an error")


def test_a_copy_whose_version_was_lost_has_one(place: World, written: bytes) -> None:
    file(place.logdir / "run", [flip(written, 15)])
    copy = place.root / "copy"
    code, _ = check(place, place.logdir, "--repair-into", copy)
    assert code == 1 and events(copy / "run")[0].file_version == "brain.Event:2"
    assert check(place, copy)[0] == 0
    for loader in ("fast", "slow"):
        assert shown(copy, "run", "loss", loader)["loss"] == list(range(STEPS))


def test_a_copy_is_refused_where_it_could_do_harm(place: World, written: bytes) -> None:
    path = file(place.logdir / "run", [written])
    for target, why in ((place.logdir / "new", "inside of"), (place.logdir, "inside of"), (place.root, "not empty")):
        result = place.tbxd("check", str(place.logdir), "--repair-into", str(target))
        assert result.returncode == 2 and why in result.stderr, (target, result.stderr)
    assert list(place.logdir.rglob("*")) == [path.parent, path]
    single = place.tbxd("check", str(path), "--repair-into", str(place.root / "one"))
    assert single.returncode == 0 and (place.root / "one" / path.name).read_bytes() == written
    assert "repaired into" in single.stdout and "left out 0 damaged stretches" in single.stdout


def test_copies_of_several_paths_have_folders_of_their_own(place: World, written: bytes) -> None:
    for run in ("a", "b"):
        file(place.root / run / "run", [written])
    copy = place.root / "copy"
    code, answer = check(place, place.root / "a", place.root / "b", "--repair-into", copy)
    assert code == 0 and answer["tags"].keys() == {"a/run", "b/run"} and answer["repaired_files"] == 2
    assert sorted(str(path.parent.relative_to(copy)) for path in copy.rglob("*tfevents*")) == ["a/run", "b/run"]
    same = place.tbxd("check", f"{place.root}/a/run", f"{place.root}/b/run", "--repair-into", f"{place.root}/other")
    assert same.returncode == 2 and "the same name" in same.stderr


# --- other things that TensorBoard does not show ------------------------------------------------------------------


def tensor(tag: str, step: int, plugin: str = "", **fields: Any) -> bytes:
    made = schema.Event(wall_time=1e9, step=step)
    value = made.summary.value.add(tag=tag)
    if plugin:
        value.metadata.plugin_data.plugin_name = plugin
    value.tensor.CopyFrom(schema.TensorProto(**fields))
    return frame(made.SerializeToString())


def test_scalars_that_the_fast_loader_does_not_take_are_said(place: World) -> None:
    file(
        place.logdir / "run",
        [
            VERSION,
            tensor("float", 1, "scalars", dtype=schema.DT_FLOAT, float_val=[0.5]),
            tensor("double", 1, "scalars", dtype=schema.DT_DOUBLE, double_val=[0.5]),
            tensor("bare", 1, dtype=schema.DT_FLOAT, float_val=[0.5]),
            event("end", 1),
        ],
    )
    code, answer = check(place, place.logdir)
    assert code == 1 and answer["found"] == {"no_float": 1, "no_metadata": 1}
    assert answer["by"]["no_float"]["tag"] == "double" and answer["by"]["no_metadata"]["tag"] == "bare"
    seen = shown(place.logdir, "run", "end", "fast")
    assert {tag: len(steps) for tag, steps in seen.items() if steps} == {"float": 1, "end": 1}
    assert answer["tags"]["run"]["float"] == [1, 1] and answer["tags"]["run"]["double"] == [1, 0]


def test_two_files_that_were_written_at_once_are_told_from_two_in_turn(place: World) -> None:
    def part(number: int, times: range) -> None:
        version = schema.Event(wall_time=times[0], file_version="brain.Event:2")
        records = [event("a", step, wall_time=step) for step in times]
        file(place.logdir / "run", [frame(version.SerializeToString()), *records], number)

    part(1_000_000_000, range(1000, 1010))
    part(1_000_000_100, range(1010, 1020))
    assert check(place, place.logdir)[0] == 0
    part(1_000_000_200, range(1015, 1030))
    code, answer = check(place, place.logdir)
    assert code == 1 and answer["by"]["written_at_once"]["file"].endswith(NAME.format(1_000_000_200))
    assert "went on for 4.0 s" in answer["by"]["written_at_once"]["detail"]


def test_files_without_a_version_empty_ones_and_folders_in_their_place_are_said(place: World) -> None:
    file(place.logdir / "old", [event("a", 1)])
    file(place.logdir / "empty", [])
    (place.logdir / "folder" / NAME.format(1)).mkdir(parents=True)
    code, answer = check(place, place.logdir)
    assert code == 1 and answer["found"] == {"no_file_version": 1, "empty_file": 1, "folder": 1}
    other = place.root / "run.bin"
    other.write_bytes(VERSION + event("a", 1))
    code, answer = check(place, other)
    assert code == 0 and answer["found"] == {"not_looked_at": 1} and answer["records"] == 2
    nothing = place.root / "nothing"
    nothing.mkdir()
    assert "no event files" in place.tbxd("check", str(nothing)).stderr


def test_what_cannot_be_read_is_exit_code_2_and_the_rest_is_read(place: World) -> None:
    file(place.logdir / "a", [VERSION, event("a", 1)])
    (place.logdir / "b").mkdir()
    os.mkfifo(place.logdir / "b" / NAME.format(2))
    code, answer = check(place, place.logdir)
    assert code == 2 and answer["found"] == {"unreadable": 1} and answer["records"] == 2
    result = place.tbxd("check", str(place.root / "none"))
    assert result.returncode == 2 and "no such file or folder" in result.stderr
    assert place.tbxd("check").returncode == 2


def test_on_a_terminal_a_bar_goes_along_and_the_lines_stay_whole(place: World) -> None:
    file(place.logdir / "run", [VERSION, *(event("a", step) for step in range(20_000)), event("a", 3)])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "check", str(place.logdir)],
        env={**place.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO when the other end is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert process.wait() == 1
    assert b"reading" in shown and b"step 3, tag 'a'" in shown and b"To do: " in shown


def test_names_and_tags_that_a_terminal_would_obey_are_told_as_text(place: World) -> None:
    folder = place.logdir / os.fsdecode(b"odd\xff\x1b[2J\n")
    file(folder, [VERSION, event("tag\x1b[2J[bold]", 1), event("tag\x1b[2J[bold]", 1)])
    text = place.tbxd("check", str(place.logdir))
    assert text.returncode == 1 and "\x1b" not in text.stdout and "[bold]" in text.stdout, text.stderr
    assert len(text.stdout.splitlines()) == 4
    tail = place.tbxd("tail", str(place.logdir), "--no-follow")
    assert tail.returncode == 0 and "\x1b" not in tail.stdout and len(tail.stdout.splitlines()) == 1, tail.stderr


def test_links_to_folders_are_followed_once(place: World) -> None:
    file(place.root / "elsewhere", [VERSION, event("a", 1)])
    place.logdir.mkdir()
    (place.logdir / "link").symlink_to(place.root / "elsewhere")
    (place.root / "elsewhere" / "around").symlink_to(place.logdir)
    code, answer = check(place, place.logdir)
    assert code == 0 and answer["files"] == 1 and list(answer["tags"]) == ["link"]


def test_memory_does_not_grow_with_the_file(place: World) -> None:
    encoder, sizes = ScalarEncoder(), []
    for number, count in (("small", 2_000), ("large", 500_000)):
        file(place.logdir / number, [VERSION, *(encoder.event(["loss"], step, 1e9, bytes(4)) for step in range(count))])
        result = place.run(
            r"""
            import re, sys
            from click.testing import CliRunner
            from tbxd.cli.main import main
            result = CliRunner().invoke(main, ["check", sys.argv[1]])
            assert result.exit_code == 0, result.output
            print(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
            """,
            place.logdir / number,
        )
        assert result.returncode == 0, result.stderr
        sizes.append(int(result.stdout) * 1024)
    assert (place.logdir / "large" / NAME.format(1_000_000_000)).stat().st_size > 20 << 20
    assert sizes[1] - sizes[0] < 6 << 20  # two stretches of a mebibyte, and what they are joined from


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_was_done_to_a_file_is_checked_to_its_end_and_the_copy_is_strictly_whole(
    tmp_path: Path, written: bytes, data: st.DataObject
) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    damaged = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged)))
        damaged[start : start + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=60))
    file(root / "logs", [bytes(damaged)])
    told: list[Problem] = []
    total = module.check(module.find([root / "logs"]), told.append, repair_into=root / "copy")
    assert sum(problem.count for problem in told) == sum(total.found.values())
    assert total.bytes == len(damaged)
    if damaged:
        copy = events(root / "copy")
        assert len(copy) - total.repaired_records in (0, 1)  # the version, where it was lost
        again = module.check(module.find([root / "copy"]), told.append)
        assert {"length_checksum", "data_checksum", "cut_inside", "no_event", "cut_tail"}.isdisjoint(again.found)
    shutil.rmtree(root)


# --- the readers below, with whatever bytes ------------------------------------------------------------------------

RECORDS = [frame(bytes([number]) * (number * 7 % 50)) for number in range(40)]
GOOD = b"".join(RECORDS)
BEGINS = [sum(map(len, RECORDS[:number])) for number in range(len(RECORDS) + 1)]


def found_in(data: bytes) -> list[tuple[int, int, int, bytes]]:
    return list(scan(lambda position, length: data[position : position + length], len(data)))


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 80), st.binary(max_size=120))
def test_every_record_that_damage_has_not_touched_is_found(start: int, removed: int, put: bytes) -> None:
    """A stretch is replaced by another: what stands before and behind it is whole, and no byte is passed over.

    But where what is left of a record happens to be followed by others up to just where it says that it ends: these are
    taken for its data, by TensorBoard as well.
    """
    end = min(start + removed, len(GOOD))
    data = GOOD[:start] + put + GOOD[end:]
    found = found_in(data)
    position = 0
    for _, begin, finish, _ in found:
        assert begin == position < finish
        position = finish
    assert position == len(data)
    whole = {(begin, record) for state, begin, _, record in found if state == WHOLE}
    swallowed = [range(begin, finish) for state, begin, finish, _ in found if state == DAMAGED]
    for number, begin in enumerate(BEGINS[:-1]):
        moved = begin + len(data) - len(GOOD)
        if BEGINS[number + 1] <= start:
            assert (begin, RECORDS[number][12:-4]) in whole
        elif begin >= end:
            assert (moved, RECORDS[number][12:-4]) in whole or any(moved in stretch for stretch in swallowed)


@given(st.integers(0, len(GOOD)), st.integers(1, 40))
def test_a_file_is_read_alike_wherever_it_is_cut_and_in_whatever_pieces(size: int, piece: int) -> None:
    found = list(scan(lambda position, length: GOOD[position : min(position + min(length, piece), size)], size))
    whole = [begin for state, begin, _, _ in found if state == WHOLE]
    assert whole == [begin for number, begin in enumerate(BEGINS[:-1]) if BEGINS[number + 1] <= size]
    assert [state for state, *_ in found[len(whole) :]] == ([] if size in BEGINS else [CUT])


def test_a_hole_of_many_zeros_is_passed_quickly_and_a_record_across_two_stretches_is_found() -> None:
    for size in ((1 << 20) - 6, (1 << 20) + 1, 40 << 20):
        data = GOOD + bytes(size) + GOOD
        found = found_in(data)
        assert [state for state, *_ in found].count(WHOLE) == 2 * len(RECORDS), size
        noise = GOOD + random.Random(size).randbytes(size) + GOOD
        assert [state for state, *_ in found_in(noise)].count(WHOLE) == 2 * len(RECORDS), size


@given(
    st.text(max_size=150),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(width=32, allow_nan=False),
    st.floats(allow_nan=False),
    st.sampled_from(["", "M", "M0,22,22,1", "L" * 118, "L" * 123, "L" * 127]),
)
def test_a_scalar_is_recognised_as_protobuf_has_it(
    tag: str, step: int, value: float, wall_time: float, mark: str
) -> None:
    peek, encoder = Peek(), ScalarEncoder()
    data = encoder.event([tag], step, wall_time, struct.pack("<f", value), mark)[12:-4]
    made = schema.Event()
    made.ParseFromString(data)
    assert peek.scalar(data) is None
    peek.learn(made)
    seen = peek.scalar(data)
    if (len(tag.encode()) < 100 and len(mark) < 124) or not mark:
        assert seen is not None
    plain = schema.Event(wall_time=wall_time, step=step, summary=made.summary).SerializeToString()
    for form in (data, plain):
        seen = peek.scalar(form)
        if seen is not None:
            assert seen[:3] == (tag, step, wall_time) and value_of(form, seen[3]) == value
    assert peek.scalar(encoder.event([tag], 7, 5.0, bytes(4))[12:-4]) is not None
    made.summary.value[0].metadata.display_name = "x"
    made.summary.value.add(tag="other", simple_value=1)
    assert peek.scalar(made.SerializeToString()) is None


@given(st.binary(max_size=60))
def test_bytes_that_are_no_scalar_are_left_to_protobuf(data: bytes) -> None:
    peek = Peek()
    made = schema.Event(wall_time=1.0, step=1)
    made.summary.value.add(tag="a", simple_value=0.5)
    peek.learn(made)
    for candidate in (
        data,
        b"\x09" + data,
        made.SerializeToString()[:9] + b"\x10" + b"\xff" * len(data) + b"\x01",
        made.SerializeToString()[:10] + data,
        made.SerializeToString() + data,
    ):
        seen = peek.scalar(candidate)
        if seen is not None:
            parsed = schema.Event()
            parsed.ParseFromString(candidate)
            assert (parsed.summary.value[0].tag, parsed.step) == seen[:2]
            assert parsed.wall_time == seen[2] or math.isnan(seen[2])


def test_the_folder_of_what_is_beside_a_run_is_looked_for_once_and_no_pipe_is_waited_for(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, folder = b"s" * 12, place.logdir / "run"
    notes = [schema.Event(wall_time=1e9) for _ in range(50)]
    for step, note in enumerate(notes):
        note.source_metadata.writer = beside_text(session, step, digest_of(f"tag{step}"))
    file(folder, [VERSION, *(frame(note.SerializeToString()) for note in notes)])
    own = schema.Event(wall_time=1e9)
    own.source_metadata.writer = f"N={encode_session(session)},"
    file(folder / "there", [VERSION, frame(own.SerializeToString())])
    (folder / "before").mkdir()
    os.mkfifo(folder / "before" / NAME.format(1))
    result = place.tbxd("check", "--json", str(folder / NAME.format(1_000_000_000)))
    found = {problem["kind"]: problem for problem in json.loads(result.stdout)["problems"]}
    assert found["beside"]["count"] == 50 and "there" in found["beside"]["detail"]

    looks = []
    monkeypatch.setattr(module, "folder_of", lambda *which: looks.append(which) or "there")
    module.check(module.find([folder / NAME.format(1_000_000_000)]), lambda problem: None)
    assert len(looks) == 1, "a session may have a note for each of its tags"
