"""accepted = written + pending + dropped, for the trainer that asks, for the daemon, and in the run itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import World, scalars, wait_for
from tb import LOADERS, board
from tbxd_client.journal.fill_limits import SHARES_VARIABLE, default_shares, read_shares
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.segments import SEGMENT_BYTES_MIN
from tbxd_client.protocol import kinds

NOBODY = {"TBXD_FLUSH_SECONDS": "0", "TBXD_JOURNAL_BYTES": str(4 << 20), "TBXD_BLOCK_MS": "0"}


def nobody(place: World) -> dict[str, str]:
    return {**NOBODY, "TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock"}


def balanced(counts: dict[str, Any]) -> bool:
    missing = sum(counts["dropped"].values())
    return bool(counts["accepted"] == counts["written"] + counts["pending"] + missing and counts["pending"] >= 0)


def status_of(place: World, name: str) -> dict[str, Any]:
    status = place.status()
    run = status["runs"].get(str(place.logdir / name)) if status else None
    return run or {"accepted": 0, "written": 0, "pending": 0, "dropped": {}}


def test_a_trainer_can_ask_what_became_of_its_records_at_any_moment(place: World) -> None:
    result = place.run(
        """
        import json
        import numpy as np
        from tbxd_client import SummaryWriter
        writer, other = SummaryWriter("logs/a"), SummaryWriter("logs/b", filename_suffix=".x")
        again = SummaryWriter("logs/a", filename_suffix=".second")
        for step in range(30_000):
            writer.add_scalar("value", step, step)
            if step % 1000 == 0:
                print(json.dumps(writer.stats()))
        writer.add_scalars("group", {"x": 1.0, "y": 2.0}, 1)
        writer.add_histogram("nothing", np.full(10, np.nan), 1)
        again.add_scalar("again", 1.0, 1)
        other.add_scalar("value", 1.0, 1)
        assert writer.flush(60)
        print(json.dumps(writer.stats()))
        """
    )
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(balanced(counts) for counts in found)
    last = found[-1]
    assert (last["accepted"], last["written"], last["pending"]) == (30_004, 30_003, 0)
    assert last["dropped"] == {"no_finite_values": 1}
    assert last["waiting_bytes"] == 0 and last["journal_bytes"] > 0
    assert "1 records were dropped in this process: 1 no_finite_values" in result.stderr


@pytest.mark.parametrize("end", ["return", "kill"])
def test_what_was_dropped_is_shown_in_the_run_and_survives_trainer_and_daemon(place: World, end: str) -> None:
    """Also where the trainer is killed before it has told anybody: its journal knows."""
    result = place.run(
        """
        import os, signal, sys
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(100):
            writer.add_scalar("value", step, step)
            writer.add_tensor("large", np.zeros(40_000), step)
        print(sum(writer.stats()["dropped"].values()), flush=True)
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        end,
        environ=nobody(place),
    )
    assert result.returncode == (-9 if end == "kill" else 0)
    dropped = int(result.stdout)
    assert 80 < dropped < 100, "large records were dropped, and only they"
    if end == "return":
        assert f"{dropped} records were dropped in this process: {dropped} journal_full" in result.stderr
    for life in range(2):
        place.serve()
        wait_for(place.drained, "the journal to be drained")
        if life:  # the second daemon knows of the run when somebody logs to it again
            more = 'from tbxd_client import SummaryWriter; SummaryWriter("logs/a").add_scalar("more", 1.0, 1)'
            assert place.run(more).returncode == 0
        run = wait_for(lambda life=life: (found := status_of(place, "a"))["written"] and found, "the run")
        assert run["dropped"] == {"journal_full": dropped}
        assert run["accepted"] == 200 + life and run["pending"] == 0 and balanced(run)
        place.kill_daemon()
    points = scalars(place.logdir / "a")
    assert points["value"] == [(step, float(step)) for step in range(100)], "no scalar is missing"
    assert [value for _, value in points["tbxd/dropped/journal_full"]] == [float(dropped)]
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            found = shown.until(lambda shown=shown: shown.scalars("a", "tbxd/dropped/journal_full"), "the drops")
            assert [value for _, value in found] == [float(dropped)]


def test_a_run_of_which_nothing_could_be_kept_still_says_so(place: World) -> None:
    place.serve()
    result = place.run(
        """
        import numpy as np
        from tbxd_client import SummaryWriter
        kept, lost = SummaryWriter("logs/kept"), SummaryWriter("logs/lost")
        kept.add_scalar("value", 1.0, 1)
        for step in range(3):
            lost.add_tensor("huge", np.zeros(1_000_000), step)
        """,
        environ={"TBXD_JOURNAL_BYTES": str(4 << 20)},
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    run = wait_for(lambda: (found := status_of(place, "lost"))["dropped"] and found, "the report")
    assert run["dropped"] == {"too_large": 3} and run["accepted"] == 3 and balanced(run)
    notes = wait_for(
        lambda: (found := scalars(place.logdir / "lost")) and found["tbxd/dropped/too_large"][-1][1] == 3.0 and found,
        "the note",
    )
    assert set(notes) == {"tbxd/dropped/too_large"}


def test_sessions_have_the_same_equation(place: World) -> None:
    place.serve()
    trainer = place.start(
        """
        import sys
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(1000):
            writer.add_scalar("value", step, step)
        writer.add_histogram("nothing", np.full(10, np.nan), 1)
        print(writer.flush(60), flush=True)
        sys.stdin.readline()
        """,
        stdin=-1,
        stdout=-1,
    )
    assert trainer.stdout is not None and trainer.stdout.readline() == b"True\n"
    status = place.status()
    assert status is not None
    (session,) = status["sessions"]
    assert (session["accepted"], session["written"], session["dropped"]) == (1001, 1000, {"no_finite_values": 1})
    assert balanced(session) and session["pid"] == trainer.pid
    trainer.communicate(b"\n")


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([1 << 20, 3 << 20, 10 << 20, 40 << 20]),
    st.lists(st.integers(20_000, 2_000_000), min_size=1, max_size=20),
)
def test_pictures_leave_room_for_scalars_whatever_their_sizes(
    tmp_path_factory: pytest.TempPathFactory, bytes_max: int, sizes: list[int]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("spool"), lambda: None, bytes_max=bytes_max, block_seconds=0)
    share = default_shares()[kinds.IMAGE]
    for number in range(10 * bytes_max // sum(sizes) * len(sizes) + 10 * len(sizes)):
        size = sizes[number % len(sizes)]
        journal.append(bytes(min(size, bytes_max // 2)), share=share)
    taken = journal.committed
    assert journal.dropped()["journal_full"] > 0, "it was really full of pictures"
    assert taken <= bytes_max * share
    kept = 0
    while journal.append(bytes(340)) == "":
        kept += 340
    room = bytes_max * (1 - share)
    assert kept >= room - 340 * (1 + room / SEGMENT_BYTES_MIN), "but for the ends of the segments"
    assert sum(file.stat().st_size for file in journal.path.glob("*.segment")) <= bytes_max + 64 * 70
    journal.release(journal.committed)
    assert journal.append(bytes(bytes_max // 2), share=share) == "", "and there is room again"
    journal.close()


def test_shares_can_be_set_and_what_makes_no_sense_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_shares(lambda name: None) == default_shares()
    given_text = {SHARES_VARIABLE: "image=50, histogram=100,scalar=3,nothing=5,video=x,audio=101"}
    shares = read_shares(given_text.get)
    expected = {**default_shares(), kinds.IMAGE: 0.5, kinds.HISTOGRAM: 1.0}
    assert shares == expected
    told = capsys.readouterr().err
    for entry in ("scalar=3", "nothing=5", "video=x", "audio=101"):
        assert f"{entry!r} is not used" in told
    assert set(shares) == set(kinds.KIND_NAMES)


def test_a_full_journal_drops_pictures_first_and_scalars_never_while_there_is_room(place: World) -> None:
    result = place.run(
        """
        import json
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(2000):
            writer.add_scalar("value", step, step)
            writer.add_image("picture", np.zeros((3, 64, 64), np.uint8), step)
        print(json.dumps(writer.stats()))
        """,
        environ=nobody(place),
    )
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    assert balanced(counts) and 1000 < counts["dropped"]["journal_full"] < 2000
    place.serve()
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "a")["value"] == [(step, float(step)) for step in range(2000)]


def test_the_bound_of_the_journal_is_one_of_its_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: None, bytes_max=8 << 20, block_seconds=0)
    while journal.append(np.zeros(10_000).tobytes(), share=0.75) == "":
        pass
    assert sum(file.stat().st_size for file in journal.path.glob("*.segment")) <= 0.75 * (8 << 20) + 64 * 10
    journal.close()
