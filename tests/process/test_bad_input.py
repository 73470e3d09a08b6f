"""Wrong arguments raise in the call and say what would be right; odd values never stop training or the daemon."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness import World, events, scalars
from tb import LOADERS, board

ODD = """
    import numpy as np, warnings
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/odd")
    inf, nan = float("inf"), float("nan")
    for step, value in enumerate([nan, inf, -inf, 1e300, -1e300, 1e-320, True, np.float16(2.5), np.int8(-3), [7.0],
                                  np.array([[8.0]]), 2**70]):
        writer.add_scalar("value", value, step)
    writer.add_scalar("none", 1.0)
    writer.add_scalar("negative", 1.0, -5)
    writer.add_scalar("far", 1.0, 2**63 - 1)
    writer.add_scalar("bad/wall/time", 1.0, 1, walltime=nan)
    writer.add_scalar("after", 1.0, 1)
    writer.add_histogram("empty", np.zeros(0), 1)
    writer.add_histogram("all nan", np.full(10, nan), 1)
    writer.add_histogram("some nan", np.array([1.0, nan, inf, 2.0]), 1)
    writer.add_histogram("half", np.arange(10, dtype=np.float16), 1)
    writer.add_histogram("bool", np.array([True, False, True]), 1)
    writer.add_histogram("backwards", np.arange(10.0)[::-2], 1)
    writer.add_histogram("list", [[1, 2], [3, 4]], 1)
    writer.add_scalar("tab\\tnew\\nline\\x1b[31m", 1.0, 1)
    writer.add_scalar("lone \\ud800 surrogate", 1.0, 1)
    writer.add_scalar("../../../escape", 1.0, 1)
    writer.add_scalars("../up", {"../../x": 1.0, "/etc/passwd": 2.0, "..": 3.0, "": 4.0}, 1)
    writer.add_image("nan picture", np.full((3, 4, 4), nan), 1)
    writer.add_heatmap("nan map", np.array([[nan, 1.0], [inf, 2.0]]), 1)
    writer.add_text("text", "\\ud800 \\x00 <script>alert(1)</script>", 1)
    writer.add_scalar("last", 1.0, 1)
    assert writer.flush(60)
    print(writer.stats())
"""


def test_odd_values_are_written_or_counted_and_the_file_stays_readable(place: World) -> None:
    place.serve()
    result = place.run(ODD)
    assert result.returncode == 0, result.stderr
    found = scalars(place.logdir / "odd")
    values = [value for _, value in found["value"]]
    assert math.isnan(values[0])
    assert values[1:5] == [math.inf, -math.inf, math.inf, -math.inf]
    assert values[5:] == [0.0, 1.0, 2.5, -3.0, 7.0, 8.0, 2.0**70]
    assert found["negative"] == [(-5, 1.0)] and found["far"] == [(2**63 - 1, 1.0)] and found["none"] == [(0, 1.0)]
    assert found["last"] == [(1, 1.0)]
    assert all(math.isfinite(event.wall_time) for event in events(place.logdir / "odd"))
    assert not [tag for tag in found if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in tag)]
    status = place.status()
    assert status is not None
    assert status["runs"][str(place.logdir / "odd")]["dropped"] == {"no_finite_values": 2}
    assert status["totals"]["pending"] == 0
    assert status["totals"]["accepted"] == status["totals"]["written"] + 2
    outside = [path for path in place.root.rglob("*tfevents*") if place.logdir / "odd" not in path.parents]
    assert outside == [], "names cannot leave the log folder"
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda shown=shown: shown.scalars("odd", "last"), "the last scalar")
            assert {"some nan", "half", "bool", "backwards", "list"} == shown.tags("histograms")["odd"]
            assert "nan picture" in shown.tags("images")["odd"] and "nan map" in shown.tags("images")["odd"]
            assert len(shown.scalars("odd", "value")) == 12


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("add_scalar('x', [1, 2, 3], 0)", "ValueError", "a list of 3"),
        ("add_scalar('x', np.zeros(3), 0)", "ValueError", "(3,)"),
        ("add_scalar('x', 'one', 0)", "TypeError", "str"),
        ("add_scalar('x', None, 0)", "TypeError", "None"),
        ("add_scalar('x', 1.0, 2**64)", "ValueError", "64 bits"),
        ("add_scalar('x', 1.0, float('nan'))", "(TypeError|ValueError)", "nan"),
        ("add_scalar('x' * 2000, 1.0, 0)", "ValueError", "1,?024"),
        ("add_scalar(7, 1.0, 0)", "TypeError", "int"),
        ("add_scalar('x', 1.0, 0, color='no such colour')", "ValueError", "no such colour"),
        ("log({'a': 1.0, 'b': ['two']}, 0)", "TypeError", "b"),
        ("add_scalars('x', {'a': [1, 2]}, 0)", "ValueError", "a list of 2"),
        ("add_image('x', np.zeros((3, 4)), 0)", "ValueError", "CHW"),
        ("add_image('x', np.zeros((7, 4, 4)), 0)", "ValueError", "7"),
        ("add_image('x', np.zeros((3, 4, 4)), 0, dataformats='CHX')", "ValueError", "CHX"),
        ("add_images('x', np.zeros((3, 4, 4)), 0)", "ValueError", "NCHW"),
        ("add_heatmap('x', np.zeros(5), 0)", "ValueError", "two"),
        ("add_heatmap('x', np.zeros((2, 2)), 0, colormap='rainbow')", "ValueError", "viridis"),
        ("add_histogram('x', np.array(['a', 'b']), 0)", "TypeError", "<U1"),
        ("add_histogram('x', np.array([object()]), 0)", "TypeError", "object"),
        ("add_histogram('x', np.zeros(3), 0, bins='no such rule')", "ValueError", "no such rule"),
    ],
)
def test_wrong_arguments_raise_in_the_call_and_say_why(place: World, call: str, error: str, said: str) -> None:
    script = f"""
import re, numpy as np
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for known in (False, True):  # the first record of a tag and a later one take different ways
    try:
        writer.{call}
    except Exception as caught:
        assert re.fullmatch({error!r}, type(caught).__name__), repr(caught)
        assert re.search({said!r}, str(caught)) or {said!r} in str(caught), str(caught)
    else:
        raise SystemExit("nothing was raised")
    writer.add_scalar("x", 1.0, 0)
    writer.log({{"a": 1.0, "b": 2.0}}, 0)
    writer.add_scalars("x", {{"a": 1.0}}, 0)
print(writer.flush(60), writer.stats()["accepted"])
"""
    result = place.run(script)
    assert result.returncode == 0, result.stderr + result.stdout
    assert result.stdout == "True 6\n"


def test_nothing_at_all_happens_with_write_to_disk_off(place: World) -> None:
    result = place.run(
        """
        import numpy as np, threading
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/off", write_to_disk=False)
        writer.add_scalar("a", 1.0, 0)
        writer.add_scalars("a", {"b": 1.0}, 0)
        writer.log({"a": 1.0}, 0)
        writer.add_histogram("a", np.arange(9.0), 0)
        writer.add_image("a", np.zeros((3, 4, 4)), 0)
        writer.add_heatmap("a", np.zeros((4, 4)), 0)
        writer.add_text("a", "b", 0)
        assert writer.flush() and threading.active_count() == 1
        writer.close()
        """
    )
    assert result.returncode == 0, result.stderr
    assert not place.logdir.exists() and not place.spool.exists()


def test_a_spool_that_cannot_be_used_stops_nobody_and_another_is_taken(place: World) -> None:
    (place.root / "file").write_text("")
    place.extra["TBXD_SPOOL"] = str(place.root / "file" / "spool")
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(1000):
            writer.add_scalar("value", step, step)
        print(writer.flush(30), writer.stats())
        """
    )
    assert result.returncode == 0
    assert "True {'accepted': 1000, 'written': 1000, 'pending': 0, 'dropped': {}" in result.stdout
    assert result.stderr.count("tbxd:") == 1 and place.extra["TBXD_SPOOL"] in result.stderr
    assert "It is in /" in result.stderr


def test_a_log_folder_that_cannot_be_made_keeps_its_records_until_it_can(place: World) -> None:
    blocker = place.root / "logs"
    blocker.write_text("in the way")
    place.serve()
    trainer = place.start(
        """
        import sys
        from tbxd_client import SummaryWriter
        blocked, other = SummaryWriter("logs/a"), SummaryWriter("elsewhere/a")
        for step in range(100):
            blocked.add_scalar("value", step, step)
            other.add_scalar("value", step, step)
        print(blocked.flush(1), flush=True)
        sys.stdin.readline()
        print(blocked.flush(60), flush=True)
        """,
        stdin=-1,
        stdout=-1,
    )
    assert trainer.stdout is not None and trainer.stdin is not None
    assert trainer.stdout.readline() == b"False\n"
    expected = {"value": [(step, float(step)) for step in range(100)]}
    assert scalars(place.root / "elsewhere" / "a") == expected, "the other run is not held up"
    status = place.status()
    assert status is not None
    stuck = status["runs"][str(place.logdir / "a")]
    assert stuck["pending"] == 100 and stuck["error"]
    blocker.unlink()
    trainer.stdin.write(b"\n")
    trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    assert scalars(place.logdir / "a") == expected


def test_a_log_folder_that_is_removed_is_made_again(place: World) -> None:
    place.serve()
    trainer = place.start(
        """
        import sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(3):
            writer.add_scalar("value", step, step)
            print(writer.flush(60), flush=True)
            sys.stdin.readline()
        """,
        stdin=-1,
        stdout=-1,
    )
    assert trainer.stdout is not None and trainer.stdin is not None
    assert trainer.stdout.readline() == b"True\n"
    for file in (place.logdir / "a").iterdir():
        file.unlink()
    (place.logdir / "a").rmdir()
    trainer.stdin.write(b"\n")
    trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    assert scalars(place.logdir / "a") == {"value": [(1, 1.0)], "tbxd/dropped/file_lost": [(1, 1.0)]}
    (place.logdir / "a").rename(place.root / "moved")
    trainer.stdin.write(b"\n")
    trainer.stdin.flush()
    assert trainer.stdout.readline() == b"True\n"
    assert scalars(place.logdir / "a") == {"value": [(2, 2.0)]}, "what is in the other folder is not lost"
    assert scalars(place.root / "moved") == {"value": [(1, 1.0)], "tbxd/dropped/file_lost": [(1, 1.0)]}


def test_names_and_texts_that_no_definition_may_hold_do_not_end_the_session(place: World) -> None:
    place.serve()
    result = place.run(
        r"""
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("described", 1.0, 0, None, "a\0name", "NUL \0, surrogate \ud800, " + "\u20ac" * 20_000)
        for name in ("a\0b", "\ud800", "../up", "/etc", "\x1b[31m"):
            writer.add_hparams({"a": 1}, {"m": 1.0}, name)
        for wrong in ("x" * 300, "x/" * 600):
            try:
                writer.add_hparams({"a": 1}, {"m": 1.0}, wrong)
            except ValueError:
                pass
            else:
                raise SystemExit(wrong)
        for folder, suffix in (("logs/\0", ""), ("logs/\ud800", ""), ("x/" * 3000, ""), ("logs/b", "\u20ac" * 50),
                               ("logs/b", "/x"), ("logs/b", "\0"), ("logs/b", "\ud800"), ("logs/b", 5), (5, "")):
            try:
                SummaryWriter(folder, filename_suffix=suffix)
            except (TypeError, ValueError):
                pass
            else:
                raise SystemExit(repr((folder, suffix)))
        SummaryWriter(b"logs/bytes").add_scalar("value", 1.0, 0)
        writer.add_scalar("last", 1.0, 1)
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a")["last"] == [(1, 1.0)]
    assert scalars(place.logdir / "bytes")["value"] == [(0, 1.0)]
    below = {path.parent.name for path in (place.logdir / "a").rglob("*tfevents*")}
    assert below == {"a", r"a\x00b", r"\ud800", "up", "etc", r"\x1b[31m"}
    status = place.status()
    assert status is not None and not any(session["broken"] for session in status["sessions"])
    (metadata,) = [
        value.metadata
        for event in events(place.logdir / "a")
        for value in event.summary.value
        if value.tag == "described"
    ]
    assert metadata.display_name == r"a\x00name"
    assert metadata.summary_description.startswith(r"NUL \x00, surrogate \ud800, €€€")
    assert len(metadata.summary_description.encode()) <= 16 << 10


def test_definitions_that_cannot_be_made_leave_no_gap_that_ends_the_session(place: World) -> None:
    place.serve()
    result = place.run(
        """
        import errno
        from tbxd_client import SummaryWriter
        from tbxd_client.protocol import records
        from tbxd_client.session import session
        writer = SummaryWriter("logs/a")
        writer.add_scalar("first", 1.0, 0)
        journal = session.active().journal
        fine = journal.define
        def full(definition):
            raise OSError(errno.ENOSPC, "No space left")
        journal.define = full
        for number in range(2000):
            writer.add_scalar(f"{number}", 1.0, 0)
        journal.define = fine
        most, records.TAGS_MAX = records.TAGS_MAX, 2
        writer.add_scalar("second", 1.0, 0)
        for number in range(2000):
            writer.add_scalar(f"{number}", 1.0, 0)
        records.TAGS_MAX = most
        writer.add_scalar("last", 1.0, 0)
        assert not writer.flush(60), "some could not be kept"
        assert writer.flush(60)
        print(writer.stats()["dropped"])
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "{'journal_error': 2000, 'too_large': 2000}\n"
    assert {"first", "second", "last"} <= scalars(place.logdir / "a").keys()


def test_color_and_names_are_carried_into_the_event_file(place: World) -> None:
    from tbxd.encode.metadata import color_of

    result = place.run(
        """
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(3):
            writer.add_scalar("loss", step, step, None, "The loss", "lower is better", color="#ff8000")
            writer.add_histogram("histogram", np.arange(9.0), step, color=(0, 128, 255))
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    colors = {}
    for event in events(place.logdir / "a"):
        for value in event.summary.value:
            if value.metadata.plugin_data.content:
                colors[value.tag] = color_of(value.metadata.plugin_data.content)
    assert colors == {"loss": "#ff8000", "histogram": "#0080ff"}
    with board(place.logdir, "fast") as shown:
        shown.until(lambda: len(shown.scalars("a", "loss")) == 3, "three points")
        metadata = shown.metadata("a", "loss")
        assert (metadata.display_name, metadata.description) == ("The loss", "lower is better")
        assert color_of(metadata.plugin_content) == "#ff8000"
    with board(place.logdir, "slow") as shown:
        assert shown.until(lambda: len(shown.scalars("a", "loss")) == 3, "three points")
        assert len(shown.tensors("a", "histogram", "histograms")) == 3


def test_relative_folders_are_those_of_the_construction(place: World) -> None:
    result = place.run(
        """
        import os
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        assert os.path.isdir("logs/a"), "the folder is there when the constructor has returned"
        default = SummaryWriter(comment="_test")
        assert default.logdir == default.log_dir == default.get_logdir()
        assert default.logdir.startswith("runs/") and default.logdir.endswith("_test")
        os.chdir("/")
        writer.add_scalar("value", 1.0, 0)
        writer.add_scalars("main", {"a": 1.0, "b/c": 2.0}, 0)
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}
    assert scalars(place.logdir / "a" / "main" / "a") == {"main": [(0, 1.0)]}
    assert scalars(place.logdir / "a" / "main" / "b" / "c") == {"main": [(0, 2.0)]}
    assert Path(place.root / "runs").exists()
