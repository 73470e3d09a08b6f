"""Event files that somebody else may have written say nothing about what is written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness import World, events, scalars
from tbxd.tfevents import schema, trust
from tbxd.tfevents.contents import contents_of
from tbxd.tfevents.event_file import EventFile
from tbxd.tfevents.ledger import Entry, carry_over
from tbxd.tfevents.tfrecord import frame
from tbxd_client.logdir.event_names import event_files

SESSION, GENERATION = bytes(range(12)), "0123456789abcdef.0.2"


def event(mark: str, step: int = 0, **value: object) -> bytes:
    made = schema.Event(wall_time=time.time(), step=step)
    made.source_metadata.writer = mark
    if value:
        made.summary.value.add(**value)
    return frame(made.SerializeToString())


def say(folder: Path, number: int = 1) -> Path:
    """An event file that says a lot."""
    file = EventFile(folder / f"events.out.tfevents.{number:010d}.host.1.0")
    marks = [event("tbxd 1"), *map(event, carry_over({SESSION: Entry(1 << 30, 1_000_000)}))]
    file.write(b"".join(marks) + event("G" + GENERATION) + event("R", 10**9, tag="loss", simple_value=1.0))
    file.close()
    return file.path


def believed(folder: Path) -> tuple[int, int]:
    """What the files of a folder are believed: records of the session, and points of ranks."""
    contents = contents_of(folder)
    return contents.ledger().get(SESSION, Entry()).count, len(contents.reduced.history(GENERATION).points)


def test_files_of_this_user_are_believed_also_those_that_the_group_may_write(tmp_path: Path) -> None:
    path = say(tmp_path)
    for mode in (0o600, 0o644, 0o664):
        path.chmod(mode)
        assert believed(tmp_path) == (1_000_000, 1)


@pytest.mark.parametrize("how", ["another user's", "open to all", "a link"])
def test_files_of_other_users_are_not_believed_about_ranks_and_steps(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = say(folder if "link" not in how else tmp_path)
    if how == "another user's":
        if os.getuid():
            pytest.skip("only root can be two users")
        os.chown(path, 12345, 12345)
    elif how == "open to all":
        path.chmod(0o666)
    else:
        (folder / path.name).symlink_to(path)
    assert believed(folder) == (0, 0)
    shown = contents_of(folder).tags.get("loss") is not None
    assert shown == ("link" not in how), "the tags of what is shown are known, whoever has written it"


@pytest.mark.parametrize("word", ["auto", "never"])
def test_steps_that_others_add_are_gone_on_from_and_take_nothing(place: World, word: str) -> None:
    """As TensorBoard looks at them: theirs end where a run comes behind them, or the run is beside them."""
    folder = place.logdir / "run"
    folder.mkdir(parents=True)
    say(folder).chmod(0o666)
    script = """
        import sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/run", resume=sys.argv[1])
        for step in range(10):
            writer.add_scalar("loss", step, step)
        assert writer.flush(30)
    """
    result = place.run(script, word)
    assert result.returncode == 0, result.stderr
    found = {path.parent: scalars(path.parent)["loss"] for path in folder.rglob("*tfevents*")}
    theirs, mine = (10**9, 1.0), [(step, float(step)) for step in range(10)]
    ends = [one.step for one in events(folder) for value in one.summary.value if value.HasField(schema.END_KIND)]
    if word == "auto":
        assert found == {folder: [theirs, *mine]} and ends == [0]
    else:
        assert found.pop(folder) == [theirs] and list(found.values()) == [mine] and not ends


def test_what_a_file_of_this_user_is_like_is_seen_where_the_file_system_has_its_own_modes(tmp_path: Path) -> None:
    say(tmp_path).chmod(0o666)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert trust.found(fd, event_files(fd)) == trust.Trust(os.geteuid(), modes=True)
        assert len(list(tmp_path.iterdir())) == 1, "nothing is left of the look"
    finally:
        os.close(fd)
    assert trust.Trust(os.geteuid(), modes=False).holds(next(tmp_path.iterdir()).stat())
