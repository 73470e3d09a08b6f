"""In which order what processes have left is written: that of their beginnings, where they log to the same runs.

A process that begins takes the place of what an earlier one has logged, or goes on behind it (`runs.resume`), so that
what the earlier one has left has to be there first.
"""

from __future__ import annotations

import time

from tbxd_client.distributed import process_identity
from tbxd_client.journal.journal_files import JournalReader, JournalState
from tbxd_client.protocol.records import RunDefinition

from .client import Client

CLOCK_SECONDS = 1.0  # by which two clocks may have moved apart, or what one process says of its beginning by both


def began(client: Client, state: JournalState | None = None) -> float:
    """When a process began to log, in milliseconds since the start of this system: what came before that is below 0.

    Args:
        client: its session, whose first definitions are known.
        state: of its journal, where that is read here.
    """
    run = _first(client)
    if run is not None and run.began and run.boot and run.boot == process_identity.boot():
        return float(run.began)
    if state is None:
        return float(process_identity.clock())
    if state.of_this_boot:  # of an older client, which has the time of the day alone
        return max(0.0, process_identity.clock() - 1000 * (time.time() - state.started))
    return state.started - time.time() - 1e9


def last_stored(client: Client, reader: JournalReader) -> float:
    """When the process of a journal was there still, by the same clock; 0 where nobody knows.

    Two that logged at once while no daemon was there are known by that: neither goes on with the other's work. Only the
    clock of files tells, so nobody knows where that has been set since the process began.
    """
    state, stored = reader.state, reader.stored
    run = _first(client)
    if not state.of_this_boot or not stored or run is None or not run.began:
        return 0.0
    ahead = time.time() - process_identity.clock() / 1000  # of the time of day, in seconds
    if abs(state.started - run.began / 1000 - ahead) > CLOCK_SECONDS:
        return 0.0
    return 1000 * (min(stored, time.time()) - ahead)


def comes_before(one: Client, other: Client, one_began: float, other_began: float) -> bool:
    """Whether what one process has left is to be written before what another has; false where no run is of both."""
    pairs = [
        (mine, others)
        for mine in one.session.runs
        for others in other.session.runs
        if mine is not None and others is not None and mine.directory == others.directory
    ]
    for mine, others in pairs:
        if mine.job and mine.job == others.job and mine.attempt != others.attempt:
            return mine.attempt < others.attempt
    return bool(pairs) and (one_began, one.session.id) < (other_began, other.session.id)


def _first(client: Client) -> RunDefinition | None:
    return next((run for run in client.session.runs if run is not None), None)
