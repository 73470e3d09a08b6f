"""The start of a job that a run definition belongs to."""

from __future__ import annotations

import hashlib

from tbxd_client.protocol.records import RunDefinition


def is_reduced(run: RunDefinition) -> bool:
    """Return True if the values of several ranks in a run become one point."""
    return run.reduce and run.world > 1


def generation_of(run: RunDefinition) -> str:
    """Return the name of a start of a job."""
    digest = hashlib.sha256(run.job.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{digest}.{run.attempt:x}.{run.world:x}"


def job_of(generation: str) -> str:
    """Return the job in the name of a start."""
    return generation.partition(".")[0]


def is_before(generation: str, other: str) -> bool:
    """Return True if a start precedes another of the same job, by attempts: clocks of hosts differ."""
    job, _, rest = generation.partition(".")
    other_job, _, other_rest = other.partition(".")
    return job == other_job and _attempt(rest) < _attempt(other_rest)


def _attempt(rest: str) -> int:
    digits = rest.partition(".")[0]
    try:
        return int(digits, 16)
    except ValueError:  # somebody else's, in an event file
        return -1
