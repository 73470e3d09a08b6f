"""What can never be written, because the file system refuses a name.

A full disk is waited for, and so is a folder that somebody may give back. A name that is refused is refused for ever.
Where it is the folder's, what comes for it is counted as dropped, so that its session's credit and journal do not stand
still behind it. An event file has another name then (`event_folder`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..batch import Batch, Scalars
from ..tfevents.ledger import Entry, Ledger

BAD_NAME = "bad_name"


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
