"""What clients could not keep is written into their runs, and shown there.

A client reports what it has dropped. What the journal of a trainer that is gone counts beyond its reports is told here
as well, so that nothing is missing without a word.
"""

from __future__ import annotations

from collections.abc import Callable

from ..runs.accounting import add_counts
from ..scheduler.run_registry import RunState
from ..scheduler.run_scheduler import RunScheduler
from .client import Client


class ToldDrops:
    """Takes drops of clients to their runs.

    Args:
        scheduler: writes the runs.
        run: gives the run of a folder.
    """

    def __init__(self, scheduler: RunScheduler, run: Callable[[str], RunState]) -> None:
        self.homeless = 0  # told by journals that name no run
        self._scheduler = scheduler
        self._run = run

    def tell(self, client: Client, number: int, dropped: dict[str, int]) -> None:
        """Write what a client could not keep into its run.

        Args:
            client: which.
            number: of its run.
            dropped: records by reason.
        """
        run = client.session.run(number)
        if run is None or not dropped or client.undecided or client.elsewhere or client.newcomer:
            return
        state = self._run(run.directory)
        if state.writer.tell(run, client.session.id, dropped):
            self._scheduler.soon(state)

    def tell_rest(self, client: Client, dropped: dict[str, int]) -> bool:
        """What the journal of a trainer that is gone counts, and no report of it did, is missing in its first run.

        True when all its runs have it in their event files.
        """
        runs = {run.directory: run for run in reversed(client.session.runs) if run is not None}
        writers = {directory: self._run(directory) for directory in runs} if dropped else {}
        unknown = [directory for directory, state in writers.items() if state.writer.read_for(runs[directory])]
        for directory in unknown:
            self._scheduler.write(writers[directory])
        if unknown or any(state.writer.waiting for state in writers.values()):
            return False
        missing = dict(dropped)
        for state in writers.values():
            for reason, count in state.writer.entry(client.session.id).dropped.items():
                missing[reason] = missing.get(reason, 0) - count
        missing = {reason: count for reason, count in missing.items() if count > 0}
        if not missing:
            return True
        first = next((run for run in client.session.runs if run is not None), None)
        if first is None:
            self.homeless += sum(missing.values())
            return True
        add_counts(missing, writers[first.directory].writer.entry(client.session.id).dropped)
        self.tell(client, first.id, missing)
        return False
