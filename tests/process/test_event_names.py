"""The event file has the name that the trainer has told its user, from the moment a writer was made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from harness import World, events, scalars, wait_for
from tb import LOADERS, board
from tbxd.scheduler.run_scheduler import IDLE_SECONDS
from tbxd_client.config.paths import default_address
from tbxd_client.logdir.event_names import (
    AHEAD_SECONDS_MAX,
    COUNT_MAX,
    event_files,
    file_name,
    is_acceptable,
    second_of,
)
from tbxd_client.logdir.folder_lock import is_held
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar

NAME = "events.out.tfevents.1700000000.host.123.0"


@pytest.mark.parametrize("package", ["tbxd_client", "tensorboardX", "torch.utils.tensorboard"])
def test_the_name_is_known_at_once_and_kept_in_the_words_of_both_originals(place: World, package: str) -> None:
    """The scripts that look for it: Weights & Biases, trainers that upload or rename the file when they are done."""
    result = place.run(
        """
        import importlib, os, sys
        package = sys.argv[1]
        SummaryWriter = importlib.import_module(package).SummaryWriter
        writer = SummaryWriter("logs/a", filename_suffix=".mine")
        event_writer = writer.file_writer.event_writer
        names = {
            "tensorboardX": lambda: [
                event_writer._ev_writer._file_name, event_writer._ev_writer._py_recordio_writer.path
            ],
            "torch.utils.tensorboard": lambda: [event_writer._file_name],
        }
        ask = names.get(package, lambda: [name for ask in names.values() for name in ask()])
        first = ask()
        assert len(set(first)) == 1, first
        writer.add_scalar("value", 1.0, 1)
        writer.flush(*[60] * (package == "tbxd_client"))  # a daemon is being started
        assert os.path.isfile(first[0]) and ask() == first, (first, os.listdir("logs/a"))
        name = os.path.basename(first[0])
        assert name.split("tfevents.")[1].split(".")[0].isdigit() and os.uname().nodename in name
        assert name.endswith(".mine") and len(os.listdir("logs/a")) == 1
        writer.close()
        assert os.path.getsize(first[0]) > 60
        """,
        package,
    )
    assert result.returncode == 0, result.stderr


def test_a_second_life_of_a_run_has_a_file_of_its_own_whose_name_it_knew(place: World) -> None:
    """In an old folder, with a daemon that has never seen it, and with one that let go of it a while ago."""
    place.logdir.mkdir()
    (place.logdir / "a").mkdir()
    old = place.logdir / "a" / "events.out.tfevents.4000000000.elsewhere.1.0"  # a clock that was wrong
    old.write_bytes(b"")
    place.serve()
    script = """
        import os, sys
        from tbxd_client import SummaryWriter
        before = set(os.listdir("logs/a"))
        writer = SummaryWriter("logs/a")
        name = writer.file_writer.event_writer._file_name
        assert os.path.basename(name) > max(before)
        writer.add_scalar("value", int(sys.argv[1]), int(sys.argv[1]))
        assert writer.flush(60)
        assert {os.path.basename(name)} == set(os.listdir("logs/a")) - before
        assert writer.file_writer.event_writer._file_name == name
        """
    for life in range(2):
        result = place.run(script, life)
        assert result.returncode == 0, result.stderr
        wait_for(place.drained, "the journal to be drained")
        wait_for(lambda: not is_held(str(place.logdir / "a")), "the folder to be let go of", 4 * IDLE_SECONDS)
    assert scalars(place.logdir / "a")["value"] == [(0, 0.0), (1, 1.0)]
    assert len(event_files(place.logdir / "a")) == 3
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda shown=shown: shown.scalars("a", "value") == [(0, 0.0), (1, 1.0)], "both lives")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_in_one_folder_share_a_file_and_each_finds_it(place: World, method: str) -> None:
    (place.root / "script.py").write_text(
        """
import multiprocessing, os, sys
from tbxd_client import SummaryWriter

def work(writer, name, number):
    ask = lambda: writer.file_writer.event_writer._file_name
    assert ask() == name, (ask(), name)  # passed on with the writer
    writer.add_scalar(f"passed{number}", 1.0, 1)
    own = SummaryWriter("logs/a")
    own.add_scalar(f"own{number}", 1.0, 1)
    assert own.flush(60)
    assert own.file_writer.event_writer._file_name == ask() == name

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    writer = SummaryWriter("logs/a")
    name = writer.file_writer.event_writer._file_name
    children = [context.Process(target=work, args=(writer, name, number)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    second = SummaryWriter("logs/a")
    assert second.file_writer.event_writer._file_name == name
    writer.add_scalar("parent", 1.0, 1)
    assert writer.flush(60) and second.file_writer.event_writer._file_name == name
    assert os.listdir("logs/a") == [os.path.basename(name)]
"""
    )
    result = place.run(
        "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('script.py', run_name='__main__')", method
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journals to be drained")
    tags = {"parent", *(f"{how}{number}" for how in ("passed", "own") for number in range(3))}
    assert scalars(place.logdir / "a").keys() == tags


def test_processes_that_do_not_know_of_each_other_agree_once_they_have_logged(place: World) -> None:
    script = """
        import sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        print(writer.file_writer.event_writer._file_name, flush=True)
        sys.stdin.readline()
        writer.add_scalar(sys.argv[1], 1.0, 1)
        assert writer.flush(60)
        print(writer.file_writer.event_writer._file_name, flush=True)
        sys.stdin.readline()
        """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    trainers = [place.start(script, name, **pipes) for name in ("one", "other")]

    def line(number: int) -> str:
        stdout = trainers[number].stdout
        assert stdout is not None
        return stdout.readline().decode().strip()

    def go_on(number: int) -> None:
        stdin = trainers[number].stdin
        assert stdin is not None
        stdin.write(b"\n")
        stdin.flush()

    asked = [line(0), line(1)]
    assert asked[0] != asked[1], "both were first"
    go_on(0)
    assert line(0) == asked[0]
    go_on(1)
    assert line(1) == asked[0]
    for number, trainer in enumerate(trainers):
        go_on(number)
        assert trainer.wait(60) == 0
    assert [str(path) for path in (place.logdir / "a").iterdir()] == asked[:1]


def test_after_a_killed_daemon_the_name_is_that_of_the_file_that_goes_on(place: World) -> None:
    place.serve()
    script = """
        import os, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        ask = lambda: writer.file_writer.event_writer._file_name
        first = ask()
        writer.add_scalar("value", 0.0, 0)
        assert writer.flush(60) and ask() == first
        print("written", flush=True)
        sys.stdin.readline()
        writer.add_scalar("value", 1.0, 1)
        assert writer.flush(60)
        assert ask() != first and os.path.basename(ask()) == max(os.listdir("logs/a"))
        """
    trainer = place.start(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert trainer.stdout is not None and trainer.stdout.readline() == b"written\n"
    place.kill_daemon()
    place.ensure()
    trainer.communicate(b"\n", 60)
    assert trainer.returncode == 0
    assert scalars(place.logdir / "a")["value"] == [(0, 0.0), (1, 1.0)]


def test_a_file_that_was_removed_is_not_made_again_under_its_name(place: World) -> None:
    """A TensorBoard that has it open would never notice the new one."""
    place.serve()
    result = place.run(
        """
        import os
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        name = writer.file_writer.event_writer._file_name
        for step in range(2):
            writer.add_scalar("value", step, step)
            assert writer.flush(60)
            if not step:
                os.unlink(name)
        assert name != writer.file_writer.event_writer._file_name != ""
        assert os.path.basename(name) not in os.listdir("logs/a")
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "a")["value"][-1] == (1, 1.0)


@pytest.mark.parametrize(
    ("name", "suffix", "existing", "good"),
    [
        (NAME, "", [], True),
        (NAME, "", ["events.out.tfevents.1699999999.zzz.9.9"], True),
        (NAME + ".mine/..", ".mine/..", [], False),
        (NAME + ".mine", ".mine", [], True),
        (NAME + ".mine", "", [], False),
        (NAME, ".mine", [], False),
        (NAME, "", [NAME], False),
        (NAME, "", ["events.out.tfevents.1700000000.host.123.1"], False),
        (NAME, "", ["zzz.tfevents"], False),
        ("../" + NAME, "", [], False),
        ("/tmp/" + NAME, "", [], False),
        (NAME.replace("host", "a/b"), "", [], False),
        (NAME.replace("host", "a\nb"), "", [], False),
        (NAME.replace("host", "h" * 255), "", [], False),
        (NAME.replace("1700000000", "9999999999"), "", [], False),
        (NAME.replace("1700000000", "4000000001"), "", ["events.out.tfevents.4000000000.x.1.0"], True),
        (NAME.replace("1700000000", "4000000002"), "", ["events.out.tfevents.4000000000.x.1.0"], False),
        (NAME.replace("1700000000", "4000000000000001"), "", ["events.out.tfevents.4000000000.x.1.0"], True),
        (NAME.replace("1700000000", "4000000000000001"), "", ["events.out.tfevents.4000000000000001.x.1.0"], False),
        (NAME.replace("1700000000", "1700000000000001"), "", [NAME], True),
        (NAME.replace("1700000000", "170000000000001"), "", [NAME], False),
        ("events.out.tfevents", "", [], False),
        ("", "", [], False),
        (".", "", [], False),
    ],
)
def test_a_name_is_obeyed_where_that_is_safe(name: str, suffix: str, existing: list[str], good: bool) -> None:
    assert is_acceptable(name, suffix, existing, 1_700_000_000.0) is good


@given(
    st.lists(st.integers(0, 3_000_000_000), max_size=5),
    st.integers(0, 3_000_000_000),
    st.text(max_size=20),
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=20),
)
def test_what_a_trainer_chooses_a_daemon_obeys(earlier: list[int], now: int, host: str, suffix: str) -> None:
    existing = [f"events.out.tfevents.{second:010d}.zzz.99999.9" for second in earlier]
    name = file_name(existing, now, host, 1, suffix)
    assert is_acceptable(name, suffix, existing, now)
    assert is_acceptable(name, suffix, existing, now - AHEAD_SECONDS_MAX)
    assert Path(name).name == name


def test_names_never_run_ahead_of_time_however_many_files_are_made() -> None:
    """One second each, and after a thousand short scripts what other writers made went before them."""
    now = 1_700_000_000
    for last in (now, now + 7200, 9_999_999_999):
        names = [f"events.out.tfevents.{last}.zzz.99999.9"]
        for number in range(3000):
            name = file_name(names[-1:], now + number / 10_000, "a-host", 1)
            assert name > names[-1] and second_of(name) == last
            assert is_acceptable(name, "", names[-1:], now)
            names.append(name)
        assert names == sorted(names)
    assert second_of(file_name([f"events.out.tfevents.{now}.z.1.0"], now + 1, "a", 1)) == now + 1
    assert second_of(file_name([f"events.out.tfevents.{now}{COUNT_MAX}.z.1.0"], now, "a", 1)) == now + 1
    # What others count by: milliseconds, fractions.
    for digits in ("1", "123", "1234567", "0", "000001"):
        other = f"events.out.tfevents.{now}{digits}.z.1.0"
        name = file_name([other], now, "a", 1)
        assert other < name < f"events.out.tfevents.{now + 1}"


def test_files_made_in_one_second_are_read_in_the_order_they_were_made(place: World) -> None:
    """By both loaders: the points of later files are behind those of earlier ones."""
    folder = place.logdir / "a"
    for life in range(4):
        result = place.run(
            """
            import sys
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/a")
            for step in range(int(sys.argv[1]), int(sys.argv[1]) + 5):
                writer.add_scalar("value", step, step)
            assert writer.flush(60)
            """,
            5 * life,
        )
        assert result.returncode == 0, result.stderr
        wait_for(place.drained, "the journal to be drained")
        place.kill_daemon()
        for path in folder.iterdir():  # all of them in one second, which is long ago
            path.rename(folder / re.sub(r"tfevents\.\d{10}", "tfevents.4000000000", path.name))
    names = event_files(folder)
    assert len(names) == 4 and {second_of(name) for name in names} == {4_000_000_000}
    expected = [(step, float(step)) for step in range(20)]
    assert scalars(folder)["value"] == expected
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda shown=shown: shown.scalars("a", "value") == expected, "all of them in their order")


def test_a_definition_with_a_bad_name_gets_a_file_of_the_daemons_own(place: World) -> None:
    place.serve()
    session, target = bytes(range(12)), place.logdir / "a"
    run = RunDefinition(0, str(target), "host", 1, 0.0, "/../x", "../../../events.out.tfevents.1700000000.h.1.0/../x")
    definitions = pack_definition(run) + pack_definition(TagDefinition(0, 0, "value"))
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(default_address(place.runtime))
        for message in (
            wire.Hello(session, 0, 1, "host", "", "", ""),
            wire.Data(session, wire.DEFINITIONS, 0, definitions),
            wire.Data(session, wire.RECORDS, 0, pack_scalar(0, 1, 1.0, 2.0)),
        ):
            socket.send_multipart(wire.pack(message))
        wait_for(lambda: target.exists() and scalars(target), "the scalar")
    (made,) = target.iterdir()
    assert made.name.endswith("_.._x") and [path.name for path in place.logdir.iterdir()] == ["a"]
    assert scalars(target) == {"value": [(1, 2.0)]} and events(target)


def test_no_call_that_logs_looks_into_the_log_folder(place: World) -> None:
    """Its disk may hang. The constructor makes the folder and looks into it; from then on only the daemon does."""
    result = place.run(
        """
        import sys
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        seen = []
        WATCHED = {"open", "os.scandir", "os.listdir", "os.mkdir", "os.rename", "os.remove"}
        sys.addaudithook(lambda name, args: seen.append(args) if name in WATCHED and "/logs" in str(args[0]) else None)
        writer.add_scalar("value", 1.0, 1)
        writer.log({"a": 1.0, "b": 2.0}, 1)
        writer.add_scalars("group", {"x": 1.0}, 1)
        writer.add_histogram("histogram", np.arange(10.0), 1)
        writer.add_text("text", "hello", 1)
        assert writer.flush(60)
        assert not seen, seen
        SummaryWriter("logs/b")
        assert seen, "it would have been noticed"
        """
    )
    assert result.returncode == 0, result.stderr
