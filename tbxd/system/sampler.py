"""Samples of a node since the last one, taken on threads of their own, one for Linux and one for GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .gpus import Gpus
from .probe import Probe
from .proc import Node, Reading, group_values, node_values, process_values


@dataclass(slots=True)
class Sample:
    """A sample. ``seconds`` since the epoch; ``left_out`` are the probes that have not answered."""

    seconds: float
    before: Reading
    after: Reading
    gpus: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def values(self, pids: Iterable[int]) -> dict[str, float]:
        """Return the values by name, for a run to which these processes log.

        If their group has limits of its own, these apply; all ranks of a run on one node are in one group.
        """
        pids = list(pids)
        groups = {self.after.processes[pid].group: None for pid in pids if pid in self.after.processes}
        values = node_values(self.before, self.after)
        for group in list(groups)[:1]:
            values |= group_values(self.before, self.after, group)
        return values | process_values(self.before, self.after, pids) | self.gpus


class Sampler:
    """Takes samples of this node.

    Args:
        wake: called on another thread for each answer.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._node = Node()
        self._gpus = Gpus()
        self._linux: Probe[Reading] = Probe("proc", wake)
        self._nvidia: Probe[dict[str, float]] = Probe("nvml", wake)
        self._probes = (self._linux, self._nvidia)
        self._asked: list[Probe[Reading] | Probe[dict[str, float]]] = []
        self._before: Reading | None = None
        self._seconds = 0.0

    def ask(self, pids: Iterable[int]) -> None:
        """Start a sample; probes that hang are left out."""
        chosen = list(pids)
        self._seconds = time.time()
        self._asked = []
        if self._linux.ask(lambda: self._node.read(chosen)):
            self._asked.append(self._linux)
        if self._nvidia.ask(self._gpus.read):
            self._asked.append(self._nvidia)

    @property
    def ready(self) -> bool:
        """True if all asked probes have answered."""
        return not any(probe.busy for probe in self._asked)

    def take(self) -> Sample | None:
        """Return the sample of all probes that have answered; None for the first since `rest`, the base of the next."""
        reading = self._linux.take() if self._linux in self._asked else None
        gpus = self._nvidia.take() if self._nvidia in self._asked else None
        left_out = [probe.name for probe in self._probes if probe not in self._asked or probe.busy]
        self._asked = []
        before, after = self._before, reading
        if reading is not None:
            self._before = reading
        if before is None:
            return None
        if after is None:  # GPUs alone
            after = before = Reading(before.time)
        return Sample(self._seconds, before, after, gpus or {}, left_out)

    def rest(self) -> None:
        """Pause: no sample is wanted for a while."""
        self._before = None
        self._asked = []
        if not self._nvidia.busy:
            self._nvidia.ask(self._close_gpus)

    def _close_gpus(self) -> dict[str, float]:
        self._gpus.close()
        return {}

    @property
    def trouble(self) -> str:
        """The current problem, or ""."""
        hanging = [f"{probe.name} does not answer" for probe in self._probes if probe.hangs]
        return "; ".join(filter(None, (*hanging, "" if self._nvidia.hangs else self._gpus.trouble)))
