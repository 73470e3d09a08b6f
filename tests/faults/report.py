"""The table at the end: what was injected how often, and what became of the records."""

from __future__ import annotations

from dataclasses import dataclass, field

from oracle import Verdict

# The faults, in the order of the table. A test names the row that it injects.
ROWS = {
    "daemon_kill": "daemon killed at random moments under load",
    "trainer_kill": "trainer killed right after a call",
    "both_kill": "both killed within a millisecond",
    "nth_call": "daemon killed at its n-th write, fsync, rename, truncate",
    "repair_kill": "killed again while repairing",
    "trainer_nth_call": "trainer killed at its n-th system call on its journal",
    "sync": "each record on the disk before its call returns, before it is acknowledged",
    "torn": "event file cut, its tail zeroed, bits flipped",
    "disk_full": "the run's disk full",
    "disk_readonly": "the run's disk read-only",
    "disk_slow": "the run's disk slow (0.5 s a write)",
    "disk_error": "the run's disk failing (EIO on write, on fsync)",
    "spool_full": "the spool's disk full",
    "spool_away": "the spool emptied, renamed, removed, covered, closed to the trainer",
    "btrfs": "the spool on btrfs: full, read-only after an error",
    "xfs": "the spool on XFS: full, shut down",
    "nfs": "two hosts write one folder, with locks as NFS has them",
    "nfs_without": "two hosts write one folder, without locks between them",
    "close_quota": "the run's server refuses for its quota what was written, with fsync or close",
    "gevent": "gevent and eventlet in the place of threads",
    "stopped": "daemon stopped for a minute",
    "away": "daemon away, its clock a day later when it comes",
    "network": "network cut and healed, acks lost",
    "second_daemon": "second daemon; stale socket and locks",
    "processes": "fork, forkserver, spawn, threads, DataLoader workers",
    "forks": "children started at every moment of the first 300 ms after the first record",
    "exits": "return, sys.exit, exception, os._exit, SIGTERM, Ctrl-C",
    "journal_full": "journal full",
    "overload": "overload: 64 writers",
    "clock": "clock an hour back, a year forward",
    "folder": "log folder removed, renamed, a link; its file cut",
    "planted": "links, FIFOs and devices in log folder and spool",
    "descriptors": "file descriptors run out",
    "upgrade": "upgrade with journals pending",
    "mute": "a thousand mute connections; garbage",
}


@dataclass
class Line:
    """The sums of a row of the table."""

    injected: int = 0
    verdict: Verdict = field(default_factory=Verdict)


lines: dict[str, Line] = {}


def account(row: str, injected: int, verdict: Verdict | None = None) -> None:
    """Add to a row, and hold that the fault has happened and that nothing was lost, doubled or wrong."""
    line = lines.setdefault(row, Line())
    assert row in ROWS
    line.injected += injected
    if verdict is not None:
        line.verdict.add(verdict)
        verdict.assert_clean()
    assert injected > 0, f"{ROWS[row]}: it never happened"


def table() -> str:
    """The table, as text."""
    heads = ("fault", "injected", "accepted", "written", "dropped", "doubled", "lost", "wrong")
    rows = [heads]
    for row, text in ROWS.items():
        if row in lines:
            line, v = lines[row], lines[row].verdict
            wrong = v.corrupted + v.spurious + v.disordered
            figures = (line.injected, v.accepted, v.written, v.dropped, v.doubled, v.lost, wrong)
            rows.append((text, *(f"{figure:,}" for figure in figures)))
        else:
            rows.append((text, *[""] * (len(heads) - 1)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
