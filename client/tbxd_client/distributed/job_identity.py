"""The name of a job, which all of its processes derive and no other job has; also its default log folder.

The name comes from what the processes share: an id that the user has given, a step of SLURM, or, if all of them are on
one host, the process that has launched them. Only processes of a job with a launcher come here.

Sources: ``sbatch(1)`` and ``srun(1)`` for ``SLURM_*``; PyTorch's ``torchrun`` page for ``TORCHELASTIC_RUN_ID``; PMIx's
``PMIX_NAMESPACE``; Ray's ``src/ray/common/constants.h`` for ``RAY_JOB_ID``; ``proc(5)``.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..config import settings

RUN_ID = settings.RUN_ID.variable
MPI = frozenset(("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK"))
NAMESPACES = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")  # of one mpirun, on all of its hosts
STEP_DIGITS_MAX = 9  # SLURM's own steps, the batch script and so on, have the numbers just below 2**32
LOOPBACK = ("localhost", "127.", "::1")
GENERATIONS_MAX = 32  # of processes between a launcher and one of its ranks
NAME_CHARACTERS_MAX = 100  # of a log folder

# Programs that start many jobs, one after the other, so that their process does not identify a job.
_SHELLS = frozenset(("bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"))
_KEEPERS = "catatonit conmon containerd-shim docker-init dumb-init init raylet slurmstepd systemd tini"
_LASTING = frozenset((*_KEEPERS.split(), "login", "screen", "sshd", "su", "sudo", "tmux: server"))


class Process(NamedTuple):
    """A process of this host. ``started`` is in ticks of the system since it was booted; ``group`` its process group,
    ``state`` the letter of proc(5)."""

    pid: int
    name: str
    parent: int
    session: int
    started: int
    group: int = 0
    state: str = ""


class Job(NamedTuple):
    """A job. ``launcher``: the process that ``name`` was taken from, if any.

    ``shared``: every process of the job derives the same name, on every host, and no other job does.
    """

    name: str
    launcher: Process | None = None
    launch: str = ""  # which of its launcher's jobs it is, as far as it can be known
    shared: bool = True


def job_of(environ: Mapping[str, str], source: str, rank: int, world: int, local_world: int) -> Job:
    """Return the job of this process.

    Args:
        environ: the variables of its environment.
        source: the variable that holds its rank.
        rank, world: its rank and the number of processes of the job.
        local_world: the number of processes of the job on this host; 0 if unknown.
    """
    batch, step = slurm_job(environ), slurm_step(environ)
    address, port = environ.get("MASTER_ADDR", ""), environ.get("MASTER_PORT", "")
    elastic, ray = environ.get("TORCHELASTIC_RUN_ID", ""), environ.get("RAY_JOB_ID")
    # And not srun, which does not tell how many are on this host. A script may have made RANK of what it was told.
    mpirun = not elastic and local_world > 0 and any(map(environ.get, MPI))
    name = environ.get(RUN_ID, "")
    if not name and batch and step and not mpirun:
        name = f"{batch}-{step}"
    if not name and ray and address and port and not elastic:  # whose processes are children of a daemon
        name = f"ray-{ray}-{address}-{port}"
    if name:
        return Job(name)
    launcher = _launcher(source, environ)
    launch = "" if elastic else _launch(launcher, port, rank)  # torchrun begins a job anew with another port
    several = local_world < world if local_world else bool(address) and not address.startswith(LOOPBACK)
    if launcher is not None and not several:
        return Job(f"{os.uname().nodename}-{launcher.pid}-{launcher.started}{launch}", launcher, launch)
    namespace = next(filter(None, map(environ.get, NAMESPACES)), "") if mpirun else ""
    if namespace:
        name = f"{batch or 'mpi'}-{namespace}"
    elif elastic and elastic != "none":
        name = f"torchrun-{elastic}"
    else:
        name = batch
    if name:
        return Job(name)
    return Job("-".join(filter(None, (address, port))), launcher, launch, shared=False)


def slurm_job(environ: Mapping[str, str]) -> str:
    """Return SLURM's job, with its place in an array; "" without one."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"slurm-{array}_{task}"
    job = environ.get("SLURM_JOB_ID")
    return f"slurm-{job}" if job else ""


def slurm_step(environ: Mapping[str, str]) -> str:
    """Return the number of this ``srun`` within SLURM's job; "" in the batch script itself."""
    step = environ.get("SLURM_STEP_ID", "")
    return step if step.isascii() and step.isdigit() and len(step) <= STEP_DIGITS_MAX else ""


def folder_name(job: Job) -> str:
    """Return the default log folder of a job; "" if its processes share nothing."""
    if job.launcher is not None:
        started = time.strftime("%b%d_%H-%M-%S", time.localtime(_seconds(job.launcher.started)))
        name = f"{started}_{os.uname().nodename}_{job.launcher.pid}{job.launch}"
    else:
        name = job.name if job.shared else ""
    return re.sub(r"[^\w.-]", "_", name)[:NAME_CHARACTERS_MAX].lstrip(".")


def _seconds(ticks: int) -> float:
    """Convert ticks since boot to seconds since the epoch; all processes get the same."""
    boot = 0
    with open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                boot = int(line.split()[1])
                break
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def _launcher(source: str, environ: Mapping[str, str]) -> Process | None:
    """Return the launcher of this job on this host: the nearest ancestor whose environment has no rank.

    Processes between (a script that sets variables and so on) have one. None if that process outlives the job and
    starts other jobs, as an interactive shell does.
    """
    # A script may have set one variable by another that it was told. Not under torchrun, which may be told one itself.
    told = {source} if environ.get("TORCHELASTIC_RUN_ID") else {source, *MPI, "RANK"}
    marks = [f"\0{name}=".encode() for name in told]
    me = os.getpid()
    # Lightning's first process starts the others and only then says that it is one of them.
    itself = source == "LOCAL_RANK" and environ.get(source) == "0" and not _was_told(me, marks)
    pid = me if itself else os.getppid()
    for _ in range(GENERATIONS_MAX):
        process = process_of(pid)
        if process is None:
            return None
        if _was_told(pid, marks):
            pid = process.parent
            continue
        lasting = process.name in _LASTING or (process.name in _SHELLS and process.session == process.pid)
        return None if lasting else process
    return None


def process_of(pid: int) -> Process | None:
    """Return a process as ``/proc`` shows it; None if it is not there or cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
        fields = tail.split()  # from the third on, as proc(5) counts them
        parent, group, session, started = (int(fields[place]) for place in (1, 2, 3, 19))
        name, state = os.fsdecode(head.partition(b"(")[2]), os.fsdecode(fields[0])
        return Process(pid, name, parent, session, started, group, state)
    except (OSError, ValueError, IndexError):
        return None


def launched(environ: Mapping[str, str], source: str, rank: int, world: int, local_world: int) -> str:
    """Describe the process that has launched all ranks of a job, if all of them are on this host; "" otherwise.

    ``<namespace of processes>/<pid>.<started>.<group>.<parent>/<own start>/<source>/<all at once>``. With it the daemon
    can see that no rank is left that has not logged yet. ``started`` and the start of this process are in ticks;
    torchrun starts all ranks before it waits for one of them.

    Args: as for `job_of`.
    """
    elastic = bool(environ.get("TORCHELASTIC_RUN_ID"))
    address = environ.get("MASTER_ADDR", "")
    if local_world != world if local_world or elastic else not address.startswith(LOOPBACK):
        return ""
    # A job that somebody has named may have ranks that others have started.
    launcher = _launcher(source, environ) if elastic else job_of(environ, source, rank, world, local_world).launcher
    me, namespace = process_of(os.getpid()), pid_namespace()
    if me is None or launcher is None or not namespace:
        return ""
    return (
        f"{namespace:x}/{launcher.pid}.{launcher.started}.{launcher.group}.{launcher.parent}/{me.started}"
        f"/{source}/{int(elastic)}"
    )


def pid_namespace() -> int:
    """Return the pid namespace of this process; 0 if ``/proc`` does not show it, or belongs to another one."""
    try:
        # ``/proc/self`` is this process as those see it that /proc is of.
        same = os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115
        return os.stat("/proc/self/ns/pid").st_ino if same else 0  # noqa: PTH116
    except OSError:
        return 0


def _was_told(pid: int, marks: list[bytes]) -> bool:
    """Return True if a process was started with one of these variables; False if its environment cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = b"\0" + file.read()
    except OSError:
        return False
    return any(mark in environ for mark in marks)


def _launch(launcher: Process | None, port: str, rank: int) -> str:
    """Return a text that differs between jobs of one launcher: their port, and the number of earlier children."""
    text = f"-{port}" if port else ""
    module = sys.modules.get("multiprocessing.process")
    if module is not None and launcher is not None and launcher.pid == os.getppid():
        counted: Any = getattr(module.current_process(), "_identity", ())  # as in its name, SpawnProcess-5
        if len(counted) == 1 and type(counted[0]) is int:
            text += f"-{counted[0] - rank}"  # the same for all, as they are started in the order of their ranks
    return text
