"""Detects the rank of this process and the number of processes of its job, as set by the launcher.

The environment is read when a writer is made, and not before: Ray and ``mp.spawn`` set it late. docs/RANKS.md has the
variables and their order.

Sources: PyTorch's page of ``torchrun``; Open MPI's FAQ for ``OMPI_COMM_WORLD_*``; ``srun(1)``; Hydra's ``PMI_RANK`` and
``MPI_LOCALRANKID``; MVAPICH2's user guide; Kubernetes' "Indexed Job"; Lightning's ``LightningEnvironment``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..config import settings
from ..config.settings import warn
from ..protocol.records import JOB_BYTES_MAX, RANKS_MAX
from ..values.names import short_text

if TYPE_CHECKING:
    from . import job_identity

RANK, WORLD = settings.RANK.variable, settings.WORLD_SIZE.variable
RUN_ID, ATTEMPT = settings.RUN_ID.variable, settings.ATTEMPT.variable
VARIABLES = (RANK, WORLD, RUN_ID, ATTEMPT)  # of our own
_WORLDS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE")
_STEP = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
# What has the rank, and what may have the number of ranks that it is one of. The first that is set counts.
LAUNCHERS = {
    RANK: (*_WORLDS, *_STEP),
    "RANK": ("WORLD_SIZE",),
    "OMPI_COMM_WORLD_RANK": ("OMPI_COMM_WORLD_SIZE",),
    "PMIX_RANK": ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE", *_STEP),
    "PMI_RANK": ("PMI_SIZE",),
    "MV2_COMM_WORLD_RANK": ("MV2_COMM_WORLD_SIZE",),
    "JSM_NAMESPACE_RANK": ("JSM_NAMESPACE_SIZE",),
    "SLURM_PROCID": _STEP,
    "LOCAL_RANK": ("WORLD_SIZE",),
    "JOB_COMPLETION_INDEX": ("WORLD_SIZE",),
}
# That say nothing of themselves: the number is also there for a process that is no rank. Without a world: alone.
_QUIET = frozenset(("SLURM_PROCID", "LOCAL_RANK", "JOB_COMPLETION_INDEX"))
LOCAL_RANKS = (
    *("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK"),
    *("JSM_NAMESPACE_LOCAL_RANK", "SLURM_LOCALID"),
)
LOCAL_WORLDS = (
    *("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"),
    "JSM_NAMESPACE_LOCAL_SIZE",
)
NODES = ("GROUP_RANK", "NODE_RANK", "SLURM_NODEID")
ELASTIC_RESTARTS, ELASTIC_RESTARTS_MAX = "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"
SLURM_RESTARTS = "SLURM_RESTART_COUNT"
ATTEMPT_MAX = (1 << 32) - 1
PROCESS_GROUP = "torch.distributed"  # a source that is no variable


class Identity(NamedTuple):
    """Process ``rank`` of the ``world`` processes of ``job``.

    ``local_rank`` is its number on its node, ``node`` the number of the node; 0 if unknown. ``attempt``: the number of
    earlier starts of the job. ``source``: the source of the rank, "" for a process that is alone.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    node: int = 0
    job: str = ""
    attempt: int = 0
    source: str = ""


class _Odd(Exception):
    """The environment is contradictory."""


def identity(environ: Mapping[str, str] = os.environ) -> Identity:
    """Return this process's identity; rank 0 of 1 if the environment has none, or (with one warning) an invalid one."""
    try:
        source, rank, world = _place(environ)
    except _Odd as odd:
        warn(
            f"{odd}; this process counts as alone, rank 0 of 1. {RANK} and {WORLD} say it otherwise", once=f"rank {odd}"
        )
        source, rank, world = "", 0, 1
    attempt = _attempt(environ)
    if not source:
        given = environ.get(RUN_ID) or _slurm_job(environ)
        return Identity(job=short_text(given, JOB_BYTES_MAX), attempt=attempt)
    local_rank, node = _least(environ, LOCAL_RANKS), _least(environ, NODES)
    job = _job(environ, source, rank, world).name
    return Identity(rank, world, local_rank, node, short_text(job, JOB_BYTES_MAX), attempt, source)


def default_folder(who: Identity, environ: Mapping[str, str] = os.environ) -> str:
    """Return the default folder name of all ranks of a job; "" if there is none, with a warning."""
    if who.world == 1:
        return ""
    from . import job_identity

    job = _job(environ, who.source, who.rank, who.world)
    try:
        name = job_identity.folder_name(job)
    except (OSError, ValueError):  # no /proc
        name = ""
    if not job.shared:
        warn(
            f"the {who.world} ranks of this job cannot all know one name for their run, so there will be several; "
            f"give SummaryWriter a folder, or all ranks the same {RUN_ID}",
            once="default folder",
        )
    return name


def launched(who: Identity, environ: Mapping[str, str] = os.environ) -> str:
    """Describe the process that has launched all ranks of a job; see `job_identity.launched`."""
    from . import job_identity

    return job_identity.launched(environ, who.source, who.rank, who.world, _least(environ, LOCAL_WORLDS))


def _place(environ: Mapping[str, str]) -> tuple[str, int, int]:
    """Return the source of the rank, the rank, and the number of ranks."""
    for source, worlds in LAUNCHERS.items():
        text = environ.get(source)
        if not text:
            continue
        variable = next((name for name in (WORLD, *worlds) if environ.get(name) and _counts(name, environ)), "")
        if not variable and source in _QUIET:
            continue
        rank = _number(environ, source)
        if not variable:
            raise _Odd(f"{source}={text!r:.80} without {' or '.join((WORLD, *worlds)[:2])}")
        world = _number(environ, variable)
        if source == "LOCAL_RANK":
            rank += _before(environ)
        if source == "SLURM_PROCID" and world == 1:
            continue
        if not rank < world:
            raise _Odd(f"rank {rank} ({source}) of {world} ({variable})")
        if world > RANKS_MAX:
            raise _Odd(f"{variable}={world}: at most {RANKS_MAX} are possible")
        return source, rank, world
    return _process_group()


def _counts(variable: str, environ: Mapping[str, str]) -> bool:
    """Return True if a variable applies to this process: the batch script has SLURM_NTASKS, too, and is alone."""
    if variable != "SLURM_NTASKS":
        return True
    from . import job_identity

    return bool(job_identity.slurm_step(environ))


def _before(environ: Mapping[str, str]) -> int:
    """Return the number of ranks on the nodes before this one, for a launcher that sets only a local rank."""
    node = next((_number(environ, name) for name in NODES if environ.get(name)), 0)
    if not node:
        return 0
    if not environ.get("LOCAL_WORLD_SIZE"):
        raise _Odd(f"LOCAL_RANK={environ.get('LOCAL_RANK')!r:.80} on node {node}, without RANK or LOCAL_WORLD_SIZE")
    return node * _number(environ, "LOCAL_WORLD_SIZE")


def _process_group() -> tuple[str, int, int]:
    """Return source, rank and number of ranks from ``init_process_group``, if it has been called."""
    module = sys.modules.get(PROCESS_GROUP)
    try:
        if module is not None and module.is_available() and module.is_initialized():
            return PROCESS_GROUP, int(module.get_rank()), int(module.get_world_size())
    except Exception:  # noqa: S110 - of any kind: it is being imported, made or taken down in another thread
        pass
    return "", 0, 1


def _job(environ: Mapping[str, str], source: str, rank: int, world: int) -> job_identity.Job:
    from . import job_identity  # not needed where nobody has launched anything

    return job_identity.job_of(environ, source, rank, world, _least(environ, LOCAL_WORLDS))


def _slurm_job(environ: Mapping[str, str]) -> str:
    if not environ.get("SLURM_JOB_ID"):
        return ""
    from . import job_identity

    return job_identity.slurm_job(environ)


def _attempt(environ: Mapping[str, str]) -> int:
    if environ.get(ATTEMPT):
        return min(_least(environ, (ATTEMPT,)), ATTEMPT_MAX)
    attempt = _least(environ, (ELASTIC_RESTARTS,))
    requeued = _least(environ, (SLURM_RESTARTS,))
    if requeued:  # a job that SLURM begins anew counts its own restarts from 0 again
        attempt += requeued * (1 + _least(environ, (ELASTIC_RESTARTS_MAX,)))
    return min(attempt, ATTEMPT_MAX)


def _number(environ: Mapping[str, str], variable: str) -> int:
    text = environ[variable].strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _Odd(f"{variable}={text!r:.80} is no number of processes")
    return int(text)


def _least(environ: Mapping[str, str], variables: tuple[str, ...]) -> int:
    """Return the number in the first of these variables that is set; 0 if none is, or if it is not a number."""
    for variable in variables:
        if environ.get(variable):
            try:
                return _number(environ, variable)
            except _Odd:
                return 0
    return 0
