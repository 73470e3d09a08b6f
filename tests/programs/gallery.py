"""The gallery: programs as people write them, run with the writer they were written for and with tbxd in its place.

A program is a file in ``tests/programs/scripts``. What has to be known of it stands in comments at its head (`FACTS`).
Each run has a folder of its own; what it leaves there is read as TensorBoard reads it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util

from harness import World, absent, wait_for

HERE = Path(__file__).parent
PROGRAMS = HERE / "scripts"
ORIGINALS = HERE / "originals"  # what the original writer's run left, kept by `make programs`
HOOK = HERE / "hook"
FRAMEWORKS = HERE.parents[1] / ".venv-frameworks"  # made by `make frameworks`
FACTS = {
    "run": "the command line, for bash; $PROGRAM is the file (python $PROGRAM)",
    "needs": "words: root, mounts and users (namespaces), frameworks, modules, commands; without them it is skipped",
    "exit": "the exit code (0)",
    "oracle": "files that the program writes itself, a row run,tag,step,value before each call, for one that is killed",
    "meant": "in what its records differ from the original's (one of MEANT), and why",
    "varies": "a pattern of tags of which only number and steps are compared: values that are times, say",
    "says": "a pattern of what tbxd may say on stderr; without it nothing",
    "seconds": "how long it may take (60)",
    "writes": "`later`: what it leaves is written when the next daemon starts, not before",
    "crowded": "why its calls may take longer than is promised: more processes than processors",
    "without": "modes in which it makes no sense: original, warm, cold, killed",
    "xfail": "why it does not pass yet",
}
NAMESPACES = {"mounts": ("unshare", "--mount", "true"), "users": ("unshare", "--user", "--map-root-user", "true")}
MEANT = {
    "mean": "ranks that log a tag at a step make one point, the mean; the original has one of each",
    "hparams": "no experiment stands beside a row of hparams, from which TensorBoard would take the columns of all",
    "more": "what the original has is there, and behind it what the original loses",
    "noted": "the program's own notes are the measure",
}
MODES = ("original", "warm", "cold", "killed")
CALL_SECONDS_MAX = 1.0  # a call that waits longer hangs; what it takes is in the table
CALL_SECONDS_PROMISED = 0.05  # of every call but close()
ENDS = ("close",)  # calls that may wait
WRITTEN_SECONDS = 10.0  # after its end a program's records are in files by then, where a daemon runs
# What nobody who logs should have to read.
ALARMING = re.compile(
    r"Traceback|Exception ignored|Fatal Python|Aborted|core dumped|Segmentation|Assertion|Resource temporarily|"
    r"ResourceWarning|zmq"
)
_NAMES = (
    (re.compile(r"\w{3}\d\d_\d\d-\d\d-\d\d_[^/]*?(?=/|_run|$)"), "<default>"),
    (re.compile(r"\d{10}\.\d+"), "<time>"),
)

Records = dict[str, dict[str, list[list[Any]]]]  # run to tag to [step, value]


@dataclass
class Program:
    """A file of the gallery and what it says of itself."""

    path: Path
    title: str
    facts: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def digest(self) -> str:
        """Of what it does, to know whether what is kept of it is of this version; not of what is said of it."""
        told = tuple(f"# {fact}: " for fact in FACTS if fact != "run")
        lines = [line for line in self.path.read_text().splitlines() if not line.startswith(told)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @property
    def command(self) -> str:
        return self.facts.get("run", "python $PROGRAM")

    @property
    def seconds(self) -> float:
        return float(self.facts.get("seconds", "60"))

    @property
    def exit(self) -> int:
        return int(self.facts.get("exit", "0"))

    @property
    def meant(self) -> str:
        return self.facts.get("meant", "").partition(":")[0]

    @property
    def modes(self) -> list[str]:
        return [mode for mode in MODES if mode not in self.facts.get("without", "").split()]

    @property
    def heavy(self) -> bool:
        """True if the program is left to `make programs`."""
        return "frameworks" in self.facts.get("needs", "")

    def missing(self) -> str:
        """Return the missing requirements of the program; "" if there are none."""
        for need in self.facts.get("needs", "").replace(",", " ").split():
            if need == "root":
                if os.geteuid() != 0:
                    return "it needs to be root"
            elif need == "frameworks":
                if not FRAMEWORKS.exists():
                    return "it needs the environment that `make frameworks` makes"
            elif need in NAMESPACES:
                if not _may(NAMESPACES[need]):
                    return f"it needs to be allowed `{shlex.join(NAMESPACES[need])}`"
            elif not shutil.which(need) and find_spec(need) is None:
                return f"it needs {need}"
        return ""

    def require(self) -> None:
        """Skip where something is missing; in continuous integration only what cannot be installed may be."""
        missing = self.missing()
        if missing and any(word in missing for word in ("root", "allowed", "frameworks")):
            pytest.skip(missing)
        elif missing:
            absent(missing)


@cache
def _may(command: tuple[str, ...]) -> bool:
    """Return True if a command is allowed here, as it is not in every container."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def programs() -> list[Program]:
    """All of them, by name.

    Raises:
        ValueError: a file says something of itself that is no fact.
    """
    return [read(path) for path in sorted(PROGRAMS.iterdir()) if path.suffix in (".py", ".sh")]


def read(path: Path) -> Program:
    """A program and the facts at its head.

    Raises:
        ValueError: it says something of itself that is no fact, or not what it is.
    """
    text = path.read_text()
    facts: dict[str, str] = {}
    for line in text.splitlines():
        found = re.match(r"# ([a-z]+): (.+)$", line)
        if found:
            if found[1] not in FACTS:
                raise ValueError(f"{path}: {found[1]} is no fact; there are {', '.join(FACTS)}")
            facts[found[1]] = found[2]
        elif line and facts:  # they stand together
            break
    meant = facts.get("meant", "noted:").partition(":")[0]
    if meant not in MEANT:
        raise ValueError(f"{path}: {meant!r} is not meant; {', '.join(MEANT)} may be")
    title = re.search(r'^(?:"""|# )(.+?)(?:"""|$)', text, re.M)
    if not title:
        raise ValueError(f"{path}: its first line says what it is")
    return Program(path, title[1], facts)


# --- running --------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """Times of a call in seconds: in all, on a processor, and ready while another had it (below 0: not known)."""

    method: str
    wall: float
    cpu: float
    ready: float

    @property
    def own(self) -> float:
        """Without the time in which the machine was busy with others."""
        return self.wall - max(0.0, min(self.ready, self.wall))

    @property
    def long(self) -> bool:
        """Whether it took longer than is promised, and not because the machine was busy with others."""
        return self.ready >= 0 and self.own > CALL_SECONDS_PROMISED


@dataclass
class Outcome:
    """The outcome of a run."""

    mode: str
    exit: int
    stdout: str
    stderr: str
    seconds: float
    records: Records
    noted: list[list[tuple[str, str, int, float]]]  # what the program itself has noted, by file
    calls: list[Call]
    left: list[str]  # processes that did not end
    written: bool  # whether all records were in the files without another daemon's help
    error: str = ""

    def longest(self, *methods: str) -> Call | None:
        """The longest call of these methods, or of all that do not end a writer."""
        found = [call for call in self.calls if call.method in methods or (not methods and call.method not in ENDS)]
        return max(found, key=lambda call: call.own, default=None)


def run(program: Program, mode: str, place: World, folder: Path) -> Outcome:
    """Run a program in a folder.

    Args:
        place: the world of its daemon; nothing is started in it for the original. Warm: a daemon answers there already.
        folder: made, and the program's working directory.
    """
    folder.mkdir()
    folder.chmod(0o777)
    calls = folder / ".calls"
    calls.mkdir()
    calls.chmod(0o777)
    mark = uuid.uuid4().hex
    environ = _environ(program, mode, place, mark, calls)
    before = set(place.journals())  # of programs before it, which could not be written
    with open(folder / ".stdout", "w+") as out, open(folder / ".stderr", "w+") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", program.command],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        place.processes.append(process)
        killed = mode != "killed"
        deadline = began + program.seconds
        error = ""
        while process.poll() is None or not _over(mark):
            if not killed and _event_files(folder):
                killed = _kill_daemon(mark)
            if time.monotonic() > deadline:
                error = f"it has not ended after {program.seconds:g} s"
                break
            time.sleep(0.02)
        seconds = time.monotonic() - began
        left = _end(mark)
        code = process.wait()
        code = 128 - code if code < 0 else code  # as a shell has it
    written = True
    if mode != "original":
        if not killed:  # it was faster
            _kill_daemon(mark)
        written = _wait_written(program, mode, place, before)
        while _kill_daemon(mark, place):  # one at a place of the program's own
            pass
    return Outcome(
        mode,
        code,
        (folder / ".stdout").read_text(errors="replace"),
        (folder / ".stderr").read_text(errors="replace"),
        seconds,
        read_records(folder),
        _noted(program, folder),
        list(_calls(calls)),
        left,
        written,
        error,
    )


def _environ(program: Program, mode: str, place: World, mark: str, calls: Path) -> dict[str, str]:
    binaries = [str(Path(sys.executable).parent)]
    if "frameworks" in program.facts.get("needs", "").split():
        binaries.insert(0, str(FRAMEWORKS / "bin"))
    return {
        **place.environ,
        "PATH": os.pathsep.join([*binaries, os.environ["PATH"]]),
        "PYTHONPATH": str(HOOK),
        "PROGRAM": str(program.path),
        "TBXD_GALLERY_MARK": mark,
        "TBXD_GALLERY_CALLS": str(calls),
        "TBXD_GALLERY_WRITER": "original" if mode == "original" else "tbxd",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _event_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.tfevents.*") if path.is_file()]


def _marked(mark: str) -> Iterator[psutil.Process]:
    """The processes of a run but for daemons."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if mark not in process.environ().values() or _is_daemon(process.cmdline()):
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _is_daemon(words: list[str]) -> bool:
    return "-m" in words and "tbxd" in words


def _kill_daemon(mark: str, but: World | None = None) -> bool:
    """SIGKILL the daemon that a run has started; by what it is, for in a namespace its pid is another one.

    Args:
        but: not one of this world.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environ = process.environ()
            if not _is_daemon(process.cmdline()) or mark not in environ.values():
                continue
            if but is None or environ.get("TBXD_RUNTIME_DIR") != str(but.runtime):
                process.kill()
                process.wait(10)
                return True
    return False


def _alive(mark: str) -> list[psutil.Process]:
    return list(_marked(mark))


def _over(mark: str) -> bool:
    """Whether no process of a run is left: seen twice, for one may have forked and gone while it was looked for."""
    for _ in range(2):
        if _alive(mark):
            return False
        time.sleep(0.03)
    return True


def _end(mark: str) -> list[str]:
    """Kill what is left of a run; what it was."""
    left = []
    for process in _alive(mark):
        with suppress(psutil.Error):
            left.append(f"{process.pid} {shlex.join(process.cmdline())[:200]}")
            process.kill()
    return left


def _wait_written(program: Program, mode: str, place: World, before: set[Path]) -> bool:
    """Wait until the spool is empty, at last with a daemon started here; whether it was without that."""

    def drained() -> bool:
        return before.issuperset(place.journals())

    if mode != "killed" and program.facts.get("writes") != "later":
        with suppress(AssertionError):
            wait_for(drained, "the records in the spool", WRITTEN_SECONDS)
            return True
    if drained():
        return True
    with suppress(AssertionError):
        place.ensure()
        wait_for(drained, "the records in the spool", WRITTEN_SECONDS)
    return drained() and (mode == "killed" or program.facts.get("writes") == "later")


def _calls(folder: Path) -> Iterator[Call]:
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) == 4:
                yield Call(words[0], *(int(word) / 1e9 for word in words[1:]))


def _noted(program: Program, folder: Path) -> list[list[tuple[str, str, int, float]]]:
    found = []
    pattern = program.facts.get("oracle", "")
    for path in sorted(folder.glob(pattern)) if pattern else []:
        rows = [row for row in csv.reader(path.read_text().splitlines()) if len(row) == 4]
        found.append([(row[0], row[1], int(row[2]), float(row[3])) for row in rows])
    return found


# --- reading --------------------------------------------------------------------------------------------------


def read_records(folder: Path) -> Records:
    """Return the records that TensorBoard reads in a folder and below, by tag and in order."""
    found: Records = {}
    for directory in sorted({path.parent for path in _event_files(folder)}):
        logging.getLogger("tensorboard").setLevel(logging.CRITICAL)
        accumulator = _accumulator(directory)
        run = str(directory.relative_to(folder))
        for pattern, instead in _NAMES:
            run = pattern.sub(instead, run)
        tags = found.setdefault(run, {})
        for tag in accumulator.Tags()["tensors"]:
            plugin = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
            tags[tag] = [[event.step, _plain(plugin, event.tensor_proto)] for event in accumulator.Tensors(tag)]
    return found


def _accumulator(directory: Path) -> Any:
    everything = dict.fromkeys(("scalars", "images", "audio", "histograms", "text", "hparams", "pr_curves"), 0)
    accumulator = plugin_event_accumulator.EventAccumulator(str(directory), tensor_size_guidance=everything)
    accumulator.Reload()
    return accumulator


def _plain(plugin: str, proto: Any) -> Any:
    """What is compared of a value: of scalars and texts all, of others what they are; test_same_result looks closer."""
    array = tensor_util.make_ndarray(proto)
    if plugin == "scalars":
        return float(array)
    if plugin == "text":
        return [text.decode(errors="replace") for text in array.reshape(-1).tolist()]
    if plugin == "images":
        return [plugin, *(int(size) for size in array.tolist()[:2]), len(array.tolist()) - 2]
    if plugin == "histograms":
        return [plugin, float(array[:, 2].sum())]
    return [plugin]


# --- the verdict ----------------------------------------------------------------------------------------------


def keep(program: Program, outcome: Outcome) -> dict[str, Any]:
    """Keep what the original left, for the runs in which only tbxd's is looked at; returns it."""
    found = {
        "program": program.digest,
        "exit": outcome.exit,
        "alarms": sorted({*ALARMING.findall(outcome.stderr)}),
        "records": {} if outcome.noted else outcome.records,
    }
    if not program.heavy:  # what is only run with its original needs nothing that is kept
        ORIGINALS.mkdir(exist_ok=True)
        path = ORIGINALS / f"{program.name}.json"
        path.write_text(json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n")
    return found


def kept(program: Program) -> dict[str, Any] | None:
    """What is kept of the original's run; None where there is nothing, or it is of another version of the program."""
    path = ORIGINALS / f"{program.name}.json"
    found = json.loads(path.read_text()) if path.exists() else None
    return found if found and found["program"] == program.digest else None


def faults(program: Program, outcome: Outcome, original: dict[str, Any]) -> list[str]:
    """What is wrong with a run of tbxd's, in sentences; ``original`` as kept."""
    found = [outcome.error] if outcome.error else []
    if outcome.left:
        found.append(f"processes were left: {outcome.left}")
    if outcome.exit != program.exit or outcome.exit != original["exit"]:
        found.append(f"exit code {outcome.exit}, and the original's is {original['exit']}")
    if not outcome.written:
        found.append("its records were not written by themselves")
    found += _records_wrong(program, outcome, original["records"])
    longest = outcome.longest()
    if longest and longest.own > CALL_SECONDS_MAX and "crowded" not in program.facts:
        found.append(f"{longest.method} took {longest.own:.2f} s")
    found += _alarms(program, outcome, original["alarms"])
    return found


def _alarms(program: Program, outcome: Outcome, known: list[str]) -> list[str]:
    """Lines on stderr that would alarm somebody, but for kinds that the original has, too."""
    patterns = [program.facts["says"]] if "says" in program.facts else []
    if outcome.mode == "killed":  # on a machine so busy that the next daemon is not there in time
        patterns.append(r"records wait in .* the (next )?daemon")
    found = []
    for line in outcome.stderr.splitlines():
        if line.startswith("tbxd:"):
            if not any(re.search(pattern, line) for pattern in patterns):
                found.append(f"stderr has: {line}")
        elif {*ALARMING.findall(line)} - {*known}:
            found.append(f"stderr has: {line}")
    return found


def _records_wrong(program: Program, outcome: Outcome, original: Records) -> list[str]:
    if program.facts.get("oracle"):
        return list(_against_notes(outcome))
    ours = outcome.records
    if program.meant == "mean":
        original = _means(original)
        ours = {run: tags for run, tags in ours.items() if run in original}
    elif program.meant == "hparams":
        original = {run: _without(tags, "_hparams_/experiment") for run, tags in original.items()}
    elif program.meant == "more":
        ours = {
            run: {tag: points[: len(original[run][tag])] for tag, points in tags.items() if tag in original[run]}
            for run, tags in ours.items()
            if run in original
        }
    varies = program.facts.get("varies")
    if varies:
        original, ours = (_without_values(records, varies) for records in (original, ours))
    return list(differences(original, ours))


def _without_values(records: Records, pattern: str) -> Records:
    return {
        run: {
            tag: [[step, None] for step, _ in points] if re.search(pattern, tag) else points
            for tag, points in tags.items()
        }
        for run, tags in records.items()
    }


def _without(tags: dict[str, Any], tag: str) -> dict[str, Any]:
    return {name: points for name, points in tags.items() if name != tag}


def _means(records: Records) -> Records:
    """Return one point of each step: the mean of those of all ranks."""
    found: Records = {}
    for run, tags in records.items():
        for tag, points in tags.items():
            steps: dict[int, list[float]] = {}
            for step, value in points:
                steps.setdefault(step, []).append(value)
            found.setdefault(run, {})[tag] = [
                [step, statistics.fmean(values)] for step, values in sorted(steps.items())
            ]
    return found


def differences(theirs: Records, ours: Records) -> Iterator[str]:
    """Return the differences between the original and tbxd."""
    for run in sorted({*theirs, *ours}):
        for tag in sorted({*theirs.get(run, {}), *ours.get(run, {})}):
            left, right = theirs.get(run, {}).get(tag, []), ours.get(run, {}).get(tag, [])
            if left != right and json.dumps(left) != json.dumps(right):  # NaN is no NaN
                at = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(right))
                yield (
                    f"{run}: {tag}: {len(left)} records of the original, {len(right)} of tbxd; from number {at} on "
                    f"{str(left[at : at + 3])[:200]} and {str(right[at : at + 3])[:200]}"
                )


def _against_notes(outcome: Outcome) -> Iterator[str]:
    """Each record that was noted is there once and in its order; of each process the last one may be missing."""
    if not any(outcome.noted):
        yield "the program has noted nothing"
    wanted: dict[tuple[str, str], list[list[Any]]] = {}
    last: set[tuple[str, str, int]] = set()
    for rows in outcome.noted:
        for run, tag, step, value in rows:
            wanted.setdefault((run, tag), []).append([step, _float32(value)])
        if rows:
            last.add(rows[-1][:3])
    found = {(run, tag): points for run, tags in outcome.records.items() for tag, points in tags.items()}
    for key in sorted({*wanted, *found}):
        points, there = wanted.get(key, []), found.get(key, [])
        wanted_now = [point for point in points if point in there or (*key, point[0]) not in last]
        if there != wanted_now:
            missing = [point for point in wanted_now if point not in there]
            yield f"{key}: {len(points)} noted, {len(there)} there; missing {missing[:5]}, in all {len(missing)}"


def _float32(value: float) -> float:
    import numpy as np

    return float(np.float32(value))


# --- the table ------------------------------------------------------------------------------------------------

_rows: dict[str, dict[str, str]] = {}
over: list[str] = []  # calls that took longer than is promised


def account(program: Program, outcome: Outcome, wrong: list[str]) -> None:
    """Add a run to the table."""
    _rows.setdefault(program.name, {})[outcome.mode] = "" if not outcome.calls else _cell(outcome)
    _rows[program.name].setdefault("verdict", "")
    if wrong:
        _rows[program.name]["verdict"] += f" {outcome.mode}"


def _cell(outcome: Outcome) -> str:
    calls = [call for call in outcome.calls if call.method not in ENDS]
    adds = [call.own for call in calls if call.method.startswith("add_")]
    longest = outcome.longest()
    median = statistics.median(adds) * 1e6 if adds else 0
    most = longest.own * 1e3 if longest else 0
    return (
        f"{median:6.0f} {most:7.1f} {longest.method if longest else '':<10.10} {sum(c.own for c in calls) * 1e3:7.0f}"
    )


def table() -> str:
    """Of the calls but close(): median of add_* in µs, the longest and the sum in ms, without waits for a core."""
    blank = " " * len(_cell(Outcome("", 0, "", "", 0, {}, [], [], [], True)))
    width = max(map(len, _rows), default=0)
    lines = [" " * width + "  " + "   ".join(mode.ljust(len(blank)) for mode in MODES)]
    lines.append(" " * width + "  " + "   ".join("   µs   longest ms        all ms".ljust(len(blank)) for _ in MODES))
    for name, cells in sorted(_rows.items()):
        failed = f"   FAILED:{cells['verdict']}" if cells["verdict"] else ""
        lines.append(f"{name.ljust(width)}  " + "   ".join(cells.get(mode) or blank for mode in MODES) + failed)
    if over:
        lines += ["", f"longer than {CALL_SECONDS_PROMISED * 1e3:g} ms:", *over]
    return "\n".join(lines)
