"""What can never be written, because the file system refuses a name.

A full disk is waited for, and so is a folder that somebody may give back. A name that is refused is refused for ever.
Where it is the folder's, what comes for it is counted as dropped, so that its session's credit and journal do not stand
still behind it. An event file has another name then: it is a wish of the trainer's, who cannot ask the file system
where he is on another host.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from tbxd_client.logdir.event_names import file_name
from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch, Scalars
from ..tfevents.event_file import EventFile
from ..tfevents.folder import NameRefused, refuses
from ..tfevents.ledger import Entry, Ledger

log = logging.getLogger(__name__)

BAD_NAME = "bad_name"


def new_file(
    directory: Path, folder: int, umask: int | None, wanted: str, run: RunDefinition, names: list[str]
) -> EventFile:
    """An event file under the name that is wanted, or one without the run's suffix, or without its host.

    Args:
        directory: of the run.
        folder: a descriptor of it.
        umask: see `EventFile`.
        wanted: the name.
        run: as it is defined.
        names: behind which the name has to sort.

    Raises:
        NameRefused: the file system takes none of them.
        OSError: it cannot be made at this moment.
    """
    refused: OSError | None = None
    for host in (None, run.host, ""):
        name = wanted if host is None else file_name(names, time.time(), host, run.pid)
        try:
            file = EventFile(directory / name, folder, umask)
        except OSError as error:
            if not refuses(error, folder):
                raise
            refused = error
            continue
        if refused is not None:
            log.warning("%s: its file system takes no file %r; it is %s", directory, wanted, name)
        return file
    assert refused is not None
    raise NameRefused(refused.errno, f"its file system takes no file {wanted!r}") from refused


def refused(ledger: Ledger, batches: Iterable[Batch]) -> Ledger:
    """A ledger in which the records of these batches are counted as dropped."""
    result = dict(ledger)
    for batch in batches:
        entry = result[batch.session] = result[batch.session].copy() if batch.session in result else Entry()
        reasons = dict(entry.refused)
        for item in batch.items:
            ends = item.ends.tolist() if isinstance(item, Scalars) else [item.end]
            count = sum(1 for end in ends if end > entry.end)
            reason = BAD_NAME if isinstance(item, Scalars) or not item.reason else item.reason
            if count:
                entry.end = max(entry.end, ends[-1])
                entry.count += count
                reasons[reason] = reasons.get(reason, 0) + count
        entry.refused = reasons
    return result
