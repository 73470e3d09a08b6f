"""The spool on file systems that write elsewhere or end: nothing is lost unseen, and no store ends a trainer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from disks import MIB, fill, loop_disk, shut_down, write_back
from harness import World, scalars, wait_for
from oracle import Verdict
from report import account
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.storing import is_in_place
from tbxd_client.process.descriptors import open_file
from tbxd_client.process.mounts import mount_of
from test_out_of_reach import Told, journals, whole

NOBODY = "ipc:///nonexistent/nobody.sock"


def test_a_full_xfs_drops_and_counts_and_ends_no_trainer(place: World) -> None:
    """What a journal has got is its own, also for what is stored into it again when it has been written back."""
    with loop_disk("xfs", place.spool, place.root / "image"):
        trainer = Told(place, TBXD_ADDRESS=NOBODY, TBXD_FLUSH_SECONDS="0")
        trainer.do("log 1000")
        fill(place.spool)
        found = {}
        for _ in range(12):
            write_back(place.spool)
            found = trainer.do("log 2500")
        assert trainer.end() == 0, trainer.said
        dropped = found["dropped"].get("journal_error", 0)
        assert found["accepted"] == 31_000 and set(found["dropped"]) <= {"journal_error"}
        place.serve()
        wait_for(lambda: not journals(place), "the journal")
        steps = [step for step, _ in scalars(place.logdir / "a")["value"]]
        assert len(steps) == 31_000 - dropped and steps == sorted(set(steps))
        assert len(steps) >= 25_000, "the segment in use has room for so many"
    account("xfs", 1, Verdict(accepted=31_000, written=len(steps), dropped=dropped))


def test_a_full_btrfs_is_left_and_ends_no_trainer(place: World) -> None:
    """What a file has got there is little help: each store takes milliseconds."""
    with loop_disk("btrfs", place.spool, place.root / "image"):
        place.serve()
        trainer = Told(place)
        trainer.do("log 1000")
        before = journals(place)
        fill(place.spool)
        write_back(place.spool)
        wait_for(lambda: trainer.do("log 10") and _elsewhere(place, before), "another journal")
        assert trainer.do("log 100000")["dropped"].keys() <= {"journal_error"}
        assert trainer.do("flush")["flushed"] or trainer.do("stats")["dropped"]
        found = trainer.do("stats")
        assert trainer.end() == 0, trainer.said
        missing = sum(found["dropped"].values())
        steps = [step for step, _ in scalars(place.logdir / "a")["value"]]
        assert len(steps) == found["accepted"] - missing and steps == sorted(set(steps))
        assert missing < 100, "it is left soon"
    account("btrfs", 1, Verdict(accepted=found["accepted"], written=found["written"], dropped=missing))


@pytest.mark.parametrize("daemon", ["there", "comes later"])
def test_an_xfs_that_shuts_down_costs_nothing_and_ends_no_trainer(place: World, daemon: str) -> None:
    with loop_disk("xfs", place.spool, place.root / "image"):
        if daemon == "there":
            place.serve()
        trainer = Told(place, TBXD_ADDRESS=f"ipc://{place.runtime}/daemon.sock")
        trainer.do("log 20000")
        before = journals(place)
        write_back(place.spool)  # so that the pages that are stored into next are clean
        trainer.do("log 20000")
        shut_down(place.spool)
        wait_for(lambda: trainer.do("log 1") and _elsewhere(place, before), "another journal")
        trainer.do("log 100000")
        if daemon != "there":
            place.serve()
        assert trainer.do("flush")["flushed"], trainer.said
        found = trainer.do("stats")
        assert found["dropped"] == {}
        assert trainer.end() == 0
        assert scalars(place.logdir / "a") == whole(found["accepted"])
    account("xfs", 1, Verdict(accepted=found["accepted"], written=found["written"]))


# What stores into a journal whose pages have been written back, after its file system has ended.
STORES = {
    "a record behind a sync": "journal.sync()",
    "a record behind a pause": "assert journal.arm(journal.position)",
    "a release": "journal.release(journal.released + 1)",
    "a segment to be used again": "journal.release(journal._segments.live[0].end)",
    "a count of drops": "journal.count_drop('too_large')",
    "the end": "journal.note_records(1000)",
}


@pytest.mark.parametrize("store", STORES)
def test_no_store_ends_a_process_whose_file_system_has_ended(place: World, store: str) -> None:
    """The kernel refuses the first store into a page that was written back: SIGBUS."""
    before = store.startswith("a record")
    with loop_disk("xfs", place.spool, place.root / "image"):
        result = place.run(
            f"""
            import subprocess, sys
            from pathlib import Path
            from tbxd_client.journal.journal import Journal, JournalClosed
            spool = Path(sys.argv[1])
            journal = Journal(spool, lambda: True)
            while len(journal._segments.live) < 3:
                assert not journal.append(bytes(1000))
            if {before}:
                {STORES[store]}
            subprocess.run(["sync", "-f", spool], check=True)
            subprocess.run(["xfs_io", "-x", "-c", "shutdown", spool], check=True)
            if not {before}:
                {STORES[store]}
            try:
                assert journal.append(b"record") == "journal_error"
            except JournalClosed:
                pass
            assert journal.sealed
            """,
            place.spool,
        )
        assert result.returncode == 0, (result.returncode, result.stderr)


def _elsewhere(place: World, before: list[Path]) -> bool:
    return any(path.parent != place.spool and path not in before for path in journals(place))


@pytest.mark.long
def test_a_btrfs_whose_disk_fails_costs_nothing_and_ends_no_trainer(place: World) -> None:
    """It becomes read-only by itself then."""
    thin = place.root / "thin"
    thin.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={24 * MIB}", "tmpfs", str(thin)], capture_output=True
        ).returncode
    ):
        pytest.skip("no permission to mount")
    try:
        with loop_disk("btrfs", place.spool, thin / "image"):
            place.serve()
            trainer = Told(place)
            trainer.do("log 10000")
            before = journals(place)
            fill(place.spool)  # with more than its disk has

            def failed() -> bool:
                trainer.do("log 100")
                write_back(place.spool)
                return " ro," in _options(place.spool) and _elsewhere(place, before)

            wait_for(failed, "a disk that fails, and another journal")
            assert trainer.do("flush")["flushed"], trainer.said
            found = trainer.do("stats")
            assert trainer.end() == 0
            missing = sum(found["dropped"].values())
            assert len(scalars(place.logdir / "a")["value"]) == found["accepted"] - missing
            assert set(found["dropped"]) <= {"journal_error"}, found
    finally:
        subprocess.run(["umount", "-l", str(thin)], check=True)
    account("btrfs", 1, Verdict(accepted=found["accepted"], written=found["written"], dropped=missing))


def _options(folder: Path) -> str:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return next((f" {line.split()[3]}," for line in lines if line.split()[1] == str(folder)), "")


@pytest.mark.parametrize(("kind", "mapped"), [("btrfs", False), ("xfs", True)])
def test_small_records_are_stored_through_a_map_where_that_is_safe_alone(place: World, kind: str, mapped: bool) -> None:
    with loop_disk(kind, place.spool, place.root / "image"):
        journal = Journal(place.spool, lambda: False)
        assert (journal._segments.live[-1].map is not None) == mapped
        assert mount_of(journal.files.control_file.number)[0] == kind
        for number in range(1000):
            assert journal.append(b"%4d" % number) == ""
        assert journal.read(0, 4000) == b"".join(b"%4d" % number for number in range(1000))
        journal.release(4000)
        assert journal.close()


def test_an_overlay_is_as_what_is_below_it(place: World) -> None:
    with loop_disk("btrfs", place.spool, place.root / "image") as disk:
        for name in ("lower", "upper", "work", "merged"):
            (disk / name).mkdir()
        options = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
        mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(disk / "merged")]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no overlay can be mounted here")
        try:
            file = open_file(disk / "merged" / "file", os.O_RDWR | os.O_CREAT)
            assert mount_of(file.number)[0] == "overlay"
            assert not is_in_place(file)
            file.close()
        finally:
            subprocess.run(["umount", "-l", str(disk / "merged")], check=True)


def test_a_scalar_costs_little_also_where_the_system_stores_it(place: World) -> None:
    """Not the microsecond of a store through a map, but no more than the writers that it takes the place of."""
    with loop_disk("btrfs", place.spool, place.root / "image"):
        result = place.run(
            """
            import time
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/a")
            writer.add_scalar("value", 1.0, 0)
            best = 1.0
            for _ in range(200):
                begun = time.perf_counter()
                for step in range(20):
                    writer.add_scalar("value", 1.0, step)
                best = min(best, (time.perf_counter() - begun) / 20)
            print(best)
            """,
            environ={"TBXD_ADDRESS": NOBODY, "TBXD_FLUSH_SECONDS": "0"},
        )
        assert float(result.stdout) < 100e-6, result
