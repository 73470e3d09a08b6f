"""The batches of a run that are not in its event file: queued, or encoded and only half written. Any thread may ask."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from ..batch import Batch


class Backlog:
    """Of one run. Any thread may add to the queue; the run's own takes from it."""

    def __init__(self) -> None:
        self._queue: deque[Batch] = deque()
        self._queued_bytes = 0
        self._unwritten: deque[Batch] = deque()  # encoded, but the file does not hold all of it
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether something is queued."""
        return bool(self._queue)

    def offer(self, batch: Batch) -> int:
        """Queue a batch; returns the bytes that are queued."""
        with self._lock:
            self._queue.append(batch)
            self._queued_bytes += batch.size
            return self._queued_bytes

    def queued(self) -> tuple[int, int, float]:
        """Batches and bytes that are queued or only half written, and when the oldest came, 0 where there is none."""
        with self._lock:
            unwritten = list(self._unwritten)
            first = unwritten[0] if unwritten else self._queue[0] if self._queue else None
            return (
                len(unwritten) + len(self._queue),
                self._queued_bytes + sum(batch.size for batch in unwritten),
                first.arrived if first is not None else 0.0,
            )

    # --- by who writes the run -------------------------------------------------------------------------------

    @property
    def first(self) -> Batch | None:
        """What is first in the queue."""
        return self._queue[0] if self._queue else None

    @property
    def waiting(self) -> list[Batch]:
        """What is queued."""
        with self._lock:
            return list(self._queue)

    @property
    def unwritten(self) -> Sequence[Batch]:
        """What is encoded, in its order."""
        return self._unwritten

    def begin(self) -> Batch:
        """Take the first of the queue, to be encoded."""
        with self._lock:  # it is in one of both, whoever counts
            batch = self._queue.popleft()
            self._queued_bytes -= batch.size
            self._unwritten.append(batch)
            return batch

    def hand_over(self) -> None:
        """Others answer for the batch that was begun last."""
        with self._lock:
            self._unwritten.pop()

    def take_back(self, batches: Sequence[Batch]) -> None:
        """Others have written these; the run itself has yet to say so."""
        with self._lock:
            self._unwritten += batches

    def end(self) -> None:
        """The first that was begun is in the file."""
        with self._lock:
            self._unwritten.popleft()

    def again(self, batches: Sequence[Batch]) -> None:
        """Queue batches before all others."""
        with self._lock:
            self._queue.extendleft(reversed(batches))
            self._queued_bytes += sum(batch.size for batch in batches)

    def start_over(self, others: Sequence[Batch]) -> None:
        """Queue again what was begun.

        Args:
            others: what others had of it; it comes first.
        """
        with self._lock:
            known = {id(batch) for batch in others}  # one that was just being handed over may be in both
            again = [*others, *(batch for batch in self._unwritten if id(batch) not in known)]
            self._unwritten.clear()
            self._queue.extendleft(reversed(again))
            self._queued_bytes += sum(batch.size for batch in again)

    def drop(self, batches: Sequence[Batch]) -> None:
        """These, the first of the queue, are not written."""
        with self._lock:
            for _ in batches:
                self._queued_bytes -= self._queue.popleft().size
