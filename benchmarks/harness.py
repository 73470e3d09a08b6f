"""Rounds of measurements: every one in a fresh process and a fresh world, checked against the files it left.

The peers take turns (tbxd, tensorboardX, torch, tbxd, …), so that whatever else the machine does meets them all, and
ratios are taken within a round.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import read_records
from tbxd_client.config.paths import RUNTIME_VARIABLE, SPOOL_VARIABLE, lock_path
from tbxd_client.journal.journal_files import journals, unfinished
from tbxd_client.logdir.event_names import event_files
from tbxd_client.transport.launcher import is_locked

from . import kept
from .peers import BASE, MeasurementError, NotPossible, Peer
from .question import Logged, Outcome, Question

ROOT = Path(__file__).parent.parent
WORK = "/var/tmp"  # the disk of tbxd's default spool; the event files are there too
PROJECTOR_CONFIG = "projector_config.pbtxt"  # where embeddings are listed: they are in no event file
TRACKIO_VARIABLE = "TRACKIO_DIR"  # it is read when trackio is imported
CHILD_SECONDS = 900
STOP_SECONDS = 15.0
STEPS_READ_MAX = 500_000  # of more records only the number is looked at: reading their steps would take minutes

Document = dict[str, Any]


def ask(question: Question, rounds: int, quick: bool, progress: Callable[[str], None]) -> Document:
    """Answer a question: ``rounds`` measurements of each peer, with the statistics and all single values.

    Raises:
        MeasurementError: a measurement is not what it says.
    """
    counts = question.quick if quick else question.full
    left_out = {name: "`make bench-peers` installs it" for name, peer in question.peers.items() if not peer.installed}
    for peer in {peer.title: peer for name, peer in question.peers.items() if name not in left_out}.values():
        _compile(peer)
    measured: list[Document] = []
    started = datetime.now().astimezone()
    for number in range(1, rounds + 1):
        row = {}
        for name in question.peers:
            if name in left_out:
                continue
            progress(f"{question.name}: round {number} of {rounds}, {name}")
            try:
                row[name] = measure(question, name, counts)
            except (NotPossible, MeasurementError) as reason:
                if isinstance(reason, MeasurementError) and not question.peers[name].environment:
                    raise
                left_out[name] = str(reason).splitlines()[0]
                progress(f"{question.name}, {name}: left out: {reason}")
        measured.append(row)
    asked = [name for name in question.peers if name not in left_out]
    return {
        "question": question.name,
        "title": question.title,
        "notes": question.notes,
        "date": started.isoformat(timespec="seconds"),
        "quick": quick,
        "counts": dict(counts),
        "machine": machine(),
        "columns": asked,
        "left_out": left_out,
        "versions": {question.peers[name].title: question.peers[name].versions() for name in asked},
        "x": question.x,
        "figures": [dataclasses.asdict(figure) for figure in question.figures],
        "summary": {
            figure.name: summary(
                {
                    name: [row[name]["figures"][figure.name] for row in measured]
                    for name in asked
                    if all(figure.name in row[name]["figures"] for row in measured)
                },
                figure.compared,
                question.base,
            )
            for figure in question.figures
        },
        "rounds": measured,
    }


def _compile(peer: Peer) -> None:
    """Import a writer once, so that its bytecode is there as it is after an installation."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [peer.python, "-c", f"import {peer.module}"], cwd=ROOT, env=environ, check=True, stderr=subprocess.DEVNULL
    )


# --- one measurement ---------------------------------------------------------------------------------------------


def measure(question: Question, peer: str, counts: Mapping[str, int]) -> Document:
    """One measurement in a world of its own, checked.

    Raises:
        MeasurementError: it is not what it says.
        NotPossible: this machine does not permit it.
    """
    load = os.getloadavg()[0]
    with _world() as (folder, environ):
        if question.peers[peer].tracker:
            environ |= {"HOME": str(folder), TRACKIO_VARIABLE: str(folder / "logs" / ".trackio")}
        outcome = _run_child(question, peer, counts, folder, environ)
        if outcome.not_possible:
            raise NotPossible(outcome.not_possible)
        check_figures(question, outcome)
        records = 0
        if not outcome.counted:
            records = _checked(question.peers[peer], folder / "logs", outcome.logged, environ)
            _check_spool(folder)
    return {"figures": outcome.figures, "records": records, "load_before": load}


@contextmanager
def _world() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for the daemon, the journals and the logs; the daemon is stopped and the folder removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tbxd-bench-", dir=WORK))
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TBXD_")}
    environ[RUNTIME_VARIABLE] = str(folder / "run")
    environ[SPOOL_VARIABLE] = str(folder / "spool")
    environ["OPENBLAS_NUM_THREADS"] = "1"
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        yield folder, environ
    finally:
        try:
            _stop_daemon(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _run_child(
    question: Question, peer: str, counts: Mapping[str, int], folder: Path, environ: dict[str, str]
) -> Outcome:
    result = folder / "result.json"
    arguments = (question.name, peer, json.dumps(dict(counts)), str(folder / "logs"), str(result))
    child = subprocess.run(
        [question.peers[peer].python, "-m", f"{__package__}.child", *arguments],
        check=False,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
    )
    if child.returncode or not result.exists():
        raise MeasurementError(f"{question.name}, {peer}: exit code {child.returncode}\n{child.stderr[-4000:]}")
    if "tbxd: " in child.stderr:  # what the client tells its user: records that wait or were dropped
        raise MeasurementError(f"{question.name}, {peer}: it said\n{child.stderr[-4000:]}")
    data = json.loads(result.read_text())
    return Outcome(**data | {"logged": [Logged(**item) for item in data["logged"]]})


def _stop_daemon(folder: Path) -> None:
    lock = lock_path(folder / "run")
    if not is_locked(lock):
        return
    pid = int(lock.read_text())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_locked(lock):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise MeasurementError(f"the daemon did not stop within {STOP_SECONDS:g} s")
        time.sleep(0.01)


# --- is it what it says? -----------------------------------------------------------------------------------------


def check_figures(question: Question, outcome: Outcome) -> None:
    """Every figure of the question that all give, no other, and each a number that can be.

    Raises:
        MeasurementError: otherwise.
    """
    expected = {figure.name for figure in question.figures}
    needed = {figure.name for figure in question.figures if not (figure.curve or figure.partial)}
    if not needed <= outcome.figures.keys() <= expected:
        raise MeasurementError(f"{question.name}: figures {sorted(outcome.figures.keys() ^ expected)} do not match")
    signed = {figure.name for figure in question.figures if figure.signed}
    wrong = {
        name: value
        for name, value in outcome.figures.items()
        if not (math.isfinite(value) and (value >= 0 or name in signed))
    }
    if wrong:
        raise MeasurementError(f"{question.name}: impossible figures {wrong}")


def _checked(peer: Peer, logs: Path, logged: list[Logged], environ: Mapping[str, str]) -> int:
    if peer.tracker or sum(item.count for item in logged) > STEPS_READ_MAX:
        return check_points(peer, logs, logged, environ)
    return check_files(logs, logged)


def check_points(peer: Peer, logs: Path, logged: Iterable[Logged], environ: Mapping[str, str] | None = None) -> int:
    """The files hold as many points of each tag as were logged; of a kind of file that only the peer can read.

    Returns:
        The number of points found.

    Raises:
        MeasurementError: otherwise.
    """
    wanted: dict[str, dict[str, int]] = {}
    for item in logged:
        wanted.setdefault(item.folder, {})[item.tag] = item.count
    read = kept.points_of_all(peer, [logs / folder for folder in wanted], environ)
    for (folder, tags), found in zip(wanted.items(), read, strict=True):
        different = {tag: (found.get(tag, 0), count) for tag, count in tags.items() if found.get(tag, 0) != count}
        if different:
            raise MeasurementError(f"{peer.name}, {folder}: found and expected: {dict(list(different.items())[:5])}")
    return sum(sum(tags.values()) for tags in wanted.values())


def check_files(logs: Path, logged: Iterable[Logged]) -> int:
    """The event files hold exactly what was logged: every step once and in order, nothing else.

    Returns:
        The number of records found.

    Raises:
        MeasurementError: otherwise.
    """
    found = {folder.name: read_steps(folder) for folder in logs.iterdir()}
    total = 0
    for item in logged:
        steps = found.get(item.folder, {}).pop((item.tag, item.kind, item.elements), [])
        if steps != list(range(0, item.count * item.stride, item.stride)):
            raise MeasurementError(
                f"{item.folder}: {len(steps)} records of {item.tag!r} in order were expected to be {item.count}; "
                f"found steps {steps[:3]} … {steps[-3:]}"
            )
        total += item.count
    rest = {name: {key: len(steps) for key, steps in tags.items()} for name, tags in found.items() if tags}
    if rest:
        raise MeasurementError(f"records that nobody logged: {rest}")
    return total


def read_steps(folder: Path) -> dict[tuple[str, str, int], list[int]]:
    """The steps in a folder's files, by tag, kind of value, and number of values in a histogram."""
    found: dict[tuple[str, str, int], list[int]] = {}
    for name in event_files(folder):
        with open(folder / name, "rb") as file:
            for _, data in read_records(file.read):
                event = schema.Event()
                event.ParseFromString(data)
                for value in event.summary.value:
                    kind = value.WhichOneof("value")
                    elements = int(value.histo.num) if kind == "histo" else 0
                    found.setdefault((value.tag, kind, elements), []).append(event.step)
    config = folder / PROJECTOR_CONFIG
    for tag, step in re.findall(r'tensor_name: "(.*):(\d+)"', config.read_text() if config.exists() else ""):
        found.setdefault((tag, "embedding", 0), []).append(int(step))
    return found


def _check_spool(folder: Path) -> None:
    spool = folder / "spool"
    left = journals(spool) + unfinished(spool)
    if left:
        raise MeasurementError(f"journals are left behind: {left}")


# --- statistics --------------------------------------------------------------------------------------------------


def spread(values: list[float]) -> Document:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(values: Mapping[str, list[float]], compared: bool, first: str = BASE) -> Document:
    """Spread of each peer and, where they are compared, of its ratio to ``first`` within each round."""
    result: Document = {}
    for peer, measured in values.items():
        result[peer] = spread(measured)
        base = values.get(first, [])
        if compared and peer != first and base and all(value > 0 for value in base):
            ratios = [value / other for value, other in zip(measured, base, strict=True)]
            result[peer]["ratio"] = spread(ratios)
    return result


def machine() -> Document:
    """What was measured on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "kernel": platform.release(),
        "filesystem": _filesystem(Path(WORK)),
        "python": platform.python_version(),
    }


def _filesystem(path: Path) -> str:
    """The type of the file system that holds ``path``."""
    mounted = [item for item in psutil.disk_partitions(all=True) if path.is_relative_to(item.mountpoint)]
    return max(mounted, key=lambda item: len(item.mountpoint)).fstype if mounted else "unknown"
