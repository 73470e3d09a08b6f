"""A soak: ranks that log at 1 kHz, a kill a minute, and a line a minute; at the end 0 lost and 0 doubled.

    make soak MINUTES=60            (TBXD_SEED replays the choices)

Runs are ended, verified and deleted as it goes, so the disk stays small. Exit code 1 when a record was lost, doubled or
wrong, or when the memory or the descriptors of a daemon or a trainer have grown.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import psutil

from harness import World, wait_for, world
from inject import descriptors, train
from numbered import COUNTERS
from oracle import Verdict, judge, read_count

GENERATION_SECONDS = 300.0  # then its ranks end, one after the other, and others begin
WARM_SECONDS = 45.0  # until a process has what it needs
MEMORY_GROWTH = 64 << 20  # that a process may show after that, bytes of its own
DESCRIPTOR_GROWTH = 32


@dataclass
class Process:
    """A process that is watched: what it had when it was warm, and the most it has had since."""

    born: float
    memory: int = 0
    files: int = 0
    memory_now: int = 0
    files_now: int = 0

    def look(self, pid: int) -> None:
        try:
            self.memory_now = int(psutil.Process(pid).memory_full_info().uss)
            self.files_now = descriptors(pid)
        except (psutil.Error, OSError):
            return
        if time.monotonic() - self.born > WARM_SECONDS and not self.memory:
            self.memory, self.files = self.memory_now, self.files_now

    @property
    def complaint(self) -> str:
        if self.memory and self.memory_now > self.memory + MEMORY_GROWTH:
            return f"memory from {self.memory >> 20} to {self.memory_now >> 20} MiB"
        if self.files and self.files_now > self.files + DESCRIPTOR_GROWTH:
            return f"descriptors from {self.files} to {self.files_now}"
        return ""


@dataclass
class Soak:
    """The state of a soak."""

    place: World
    rng: random.Random
    ranks: int
    hz: int
    total: Verdict = field(default_factory=Verdict)
    alive: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    folders: dict[int, str] = field(default_factory=dict)
    watched: dict[int, Process] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=lambda: {"daemon": 0, "rank": 0})
    complaints: list[str] = field(default_factory=list)
    generation: int = 0
    next: int = 0

    def start(self) -> None:
        """Start a rank: half of them share a folder."""
        number, self.next = self.next, self.next + 1
        self.folders[number] = f"g{self.generation}/{'shared' if number % 2 else number}"
        self.alive[number] = train(self.place, number, f"logs/{self.folders[number]}", hz=self.hz)

    def look(self) -> None:
        """Take note of memory and descriptors."""
        pids = {process.pid for process in self.alive.values()} | ({self.daemon} if self.daemon else set())
        for gone in set(self.watched) - pids:
            del self.watched[gone]
        for pid in pids:
            one = self.watched.setdefault(pid, Process(time.monotonic()))
            one.look(pid)
            if one.complaint:
                what = "daemon" if pid == self.daemon else "rank"
                self.complaints.append(f"{what} {pid}: {one.complaint}")
                one.memory = one.files = 0  # told once

    @property
    def daemon(self) -> int:
        return self.place.running() or 0

    def kill(self) -> None:
        """Kill a daemon or a rank."""
        if self.rng.random() < 0.5:
            self.place.kill_daemon()
            self.kills["daemon"] += 1
            if self.rng.random() < 0.5:
                self.place.ensure()
        else:
            number = self.rng.choice(sorted(self.alive))
            process = self.alive.pop(number)
            process.kill()
            process.wait()
            self.kills["rank"] += 1
            self.start()

    def renew(self) -> None:
        """End all ranks, verify what they have logged, delete it, and begin anew."""
        old, self.alive = self.alive, {}
        folders, self.folders = self.folders, {}
        for process in old.values():
            process.kill()
            process.wait()
        self.generation += 1
        self.place.ensure()
        wait_for(self.place.drained, "the journals of the last generation", 300)
        counts = {number: read_count(self.place, number) for number in folders}
        logdir = self.place.logdir
        verdict = judge([logdir / folder for folder in set(folders.values())], counts)
        if verdict.faults:
            kept = logdir.with_name(f"faulty{self.generation}")
            shutil.copytree(logdir, kept)
            print(f"{verdict.faults}: {verdict.examples[:5]}; kept in {kept}", flush=True)
        self.total.add(verdict)
        shutil.rmtree(logdir)
        for number in folders:
            (self.place.root / COUNTERS / str(number)).unlink(missing_ok=True)
        self.place.processes[:] = [process for process in self.place.processes if process.poll() is None]

    def line(self, minute: int) -> str:
        """Return the line printed each minute."""
        accepted = self.total.accepted + sum(read_count(self.place, number).returned for number in self.folders)
        status: dict[str, Any] = self.place.status() or {"totals": {"written": 0, "pending": 0}}
        pids = {process.pid for process in self.alive.values()}
        trainers = [one for pid, one in self.watched.items() if pid in pids]
        daemon = self.watched.get(self.daemon, Process(0.0))
        return (
            f"minute {minute:4d}: {accepted:13,} accepted, {self.total.written:13,} verified, "
            f"{status['totals']['pending']:9,} pending | "
            f"daemon {daemon.memory_now >> 20:4d} MiB {daemon.files_now:3d} files | "
            f"rank {max((one.memory_now for one in trainers), default=0) >> 20:3d} MiB "
            f"{max((one.files_now for one in trainers), default=0):3d} files | "
            f"kills {self.kills['daemon']} daemons, {self.kills['rank']} ranks | "
            f"lost {self.total.lost}, doubled {self.total.doubled}, wrong {self.total.corrupted + self.total.spurious}"
        )

    def run(self, minutes: float) -> bool:
        """The soak. True when all was well."""
        begun = time.monotonic()
        end = begun + 60 * minutes
        minute, renewal = 1, begun + GENERATION_SECONDS
        kill = begun + self.rng.uniform(5, 60)
        for _ in range(self.ranks):
            self.start()
        while (now := time.monotonic()) < end:
            time.sleep(1.0)
            self.look()
            if now >= kill:
                self.kill()
                kill = begun + 60 * minute + self.rng.uniform(0, 60)
            if now >= renewal:
                self.renew()
                renewal = time.monotonic() + GENERATION_SECONDS
                for _ in range(self.ranks):
                    self.start()
            if now >= begun + 60 * minute:
                print(self.line(minute), flush=True)
                minute += 1
        self.renew()
        print(self.line(minute), flush=True)
        for complaint in self.complaints:
            print(f"grown: {complaint}")
        return not self.total.faults and not self.complaints


def main() -> None:
    parser = argparse.ArgumentParser(description="Random kills under load, for as long as you like.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--hz", type=int, default=1000, help="records a second of each rank")
    options = parser.parse_args()
    seed = int(os.environ.get("TBXD_SEED", "1"))
    print(f"TBXD_SEED={seed}: {options.ranks} ranks at {options.hz} Hz for {options.minutes:g} minutes", flush=True)
    root = Path(tempfile.mkdtemp(prefix="tbxd-soak-"))
    with world(root / "world") as place:
        well = Soak(place, random.Random(seed), options.ranks, options.hz).run(options.minutes)
    if well:
        shutil.rmtree(root)
    else:
        print(f"what is left is in {root}")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
