"""Which rank of which job a process is, what its policy makes of that, and one default folder for all ranks.

torchrun and mp.spawn are the real ones. There is no mpirun, srun, Ray or Kubernetes here: what those set is given to
processes as their documentation has it, and a script of our own stands for the process that launches them.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import World, scalars, wait_for
from tb import LOADERS, board
from tbxd.ingest.session import Session
from tbxd_client import FileWriter, GlobalSummaryWriter, SummaryWriter
from tbxd_client.config import settings
from tbxd_client.distributed import rank_detection, rank_policy
from tbxd_client.distributed.rank_detection import Identity, default_folder, identity
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.records import (
    JOB_BYTES_MAX,
    RANKS_MAX,
    RunDefinition,
    TagDefinition,
    pack_definition,
    unpack_definition,
)

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1"}
TORCHRUN |= {"GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "node0", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
TORCHRUN |= {"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "3"}
STEP = {"SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}
STEP |= {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
BATCH = {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
OMPI = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
OMPI |= {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_NODE_RANK": "1", "PMIX_RANK": "5", "PMIX_NAMESPACE": "2@1"}
HYDRA = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
RAY = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "NODE_RANK": "1"}
RAY |= {"RAY_JOB_ID": "02000000", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "41235"}
TASK = {"SLURM_ARRAY_JOB_ID": "1200", "SLURM_ARRAY_TASK_ID": "3"}
ODD = {"TBXD_RANK": "", "TBXD_WORLD_SIZE": ""}  # set to nothing is not set

# What is set, and who that is; a job of None is not looked at: it is the process that has launched this one.
TABLE: dict[str, tuple[dict[str, str], tuple[Any, ...]]] = {
    "nothing": ({}, (0, 1, 0, 0, "", 0, "")),
    "empty": (ODD, (0, 1, 0, 0, "", 0, "")),
    "torchrun": (TORCHRUN, (5, 8, 1, 1, "node0-29500", 0, "RANK")),
    "torchrun with an id": (TORCHRUN | {"TORCHELASTIC_RUN_ID": "exp"}, (5, 8, 1, 1, "torchrun-exp", 0, "RANK")),
    "torchrun again": (TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "2"}, (5, 8, 1, 1, None, 2, "RANK")),
    "torchrun on one host": (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, (5, 8, 1, 1, None, 0, "RANK")),
    "torchrun, requeued": (TORCHRUN | STEP | {"SLURM_RESTART_COUNT": "2"}, (5, 8, 1, 1, "slurm-1234-0", 8, "RANK")),
    "torchrun in SLURM": (TORCHRUN | STEP | {"SLURM_PROCID": "1"}, (5, 8, 1, 1, "slurm-1234-0", 0, "RANK")),
    "torchrun of one": ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1, 0, 0, None, 0, "RANK")),
    "srun": (STEP, (5, 8, 1, 1, "slurm-1234-0", 0, "SLURM_PROCID")),
    "srun of an array": (STEP | TASK, (5, 8, 1, 1, "slurm-1200_3-0", 0, "SLURM_PROCID")),
    "srun requeued": (STEP | {"SLURM_RESTART_COUNT": "1"}, (5, 8, 1, 1, "slurm-1234-0", 1, "SLURM_PROCID")),
    "srun of one": (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (0, 1, 0, 0, "slurm-1234", 0, "")),
    "sbatch's script": (BATCH, (0, 1, 0, 0, "slurm-1234", 0, "")),
    "sbatch's own step": (BATCH | {"SLURM_STEP_ID": "4294967291"}, (0, 1, 0, 0, "slurm-1234", 0, "")),
    "srun --mpi=pmix": (STEP | {"PMIX_RANK": "5"}, (5, 8, 1, 1, "slurm-1234-0", 0, "PMIX_RANK")),
    "srun --mpi=pmi2": (STEP | {"PMI_RANK": "5", "PMI_SIZE": "8"}, (5, 8, 1, 1, "slurm-1234-0", 0, "PMI_RANK")),
    "mpirun": (OMPI, (5, 8, 1, 0, "mpi-2@1", 0, "OMPI_COMM_WORLD_RANK")),
    "mpirun in SLURM": (OMPI | STEP, (5, 8, 1, 1, "slurm-1234-2@1", 0, "OMPI_COMM_WORLD_RANK")),
    "mpirun, and a script that says so": (
        OMPI | {"RANK": "5", "WORLD_SIZE": "8"},
        (5, 8, 1, 0, "mpi-2@1", 0, "RANK"),
    ),
    "mpiexec": (HYDRA, (5, 8, 1, 0, "", 0, "PMI_RANK")),
    "MVAPICH2": (
        {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_LOCAL_RANK": "1"},
        (1, 2, 1, 0, None, 0, "MV2_COMM_WORLD_RANK"),
    ),
    "jsrun": (
        {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_LOCAL_RANK": "1"},
        (1, 2, 1, 0, None, 0, "JSM_NAMESPACE_RANK"),
    ),
    "Ray Train": (RAY, (5, 8, 1, 1, "ray-02000000-10.0.0.7-41235", 0, "RANK")),
    "Lightning's first process, before": ({"NODE_RANK": "0"}, (0, 1, 0, 0, "", 0, "")),
    "Lightning, first node": (
        {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "4"},
        (1, 4, 1, 0, None, 0, "LOCAL_RANK"),
    ),
    "Lightning, later node": (
        {"LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node0"},
        (3, 4, 1, 1, "node0", 0, "LOCAL_RANK"),
    ),
    "a local rank alone": ({"LOCAL_RANK": "1"}, (0, 1, 0, 0, "", 0, "")),
    "an indexed job": (
        {"JOB_COMPLETION_INDEX": "3", "TBXD_WORLD_SIZE": "4", "TBXD_RUN_ID": "a"},
        (3, 4, 0, 0, "a", 0, "JOB_COMPLETION_INDEX"),
    ),
    "an indexed job of unknown size": ({"JOB_COMPLETION_INDEX": "3"}, (0, 1, 0, 0, "", 0, "")),
    "ours before all": (
        TORCHRUN | STEP | {"TBXD_RANK": "2", "TBXD_WORLD_SIZE": "3", "TBXD_RUN_ID": "a", "TBXD_ATTEMPT": "9"},
        (2, 3, 1, 1, "a", 9, "TBXD_RANK"),
    ),
    "our world": (TORCHRUN | {"TBXD_WORLD_SIZE": "6"}, (5, 6, 1, 1, None, 0, "RANK")),
    "our rank": (TORCHRUN | {"TBXD_RANK": "7"}, (7, 8, 1, 1, None, 0, "TBXD_RANK")),
    "our id, alone": ({"TBXD_RUN_ID": "a", "TBXD_ATTEMPT": "1"}, (0, 1, 0, 0, "a", 1, "")),
}


@pytest.mark.parametrize("case", TABLE)
def test_every_launcher_is_understood(case: str) -> None:
    environ, expected = TABLE[case]
    who = identity(environ)
    if expected[4] is None:
        assert who.job or who.source == ""
        who = who._replace(job=None)  # type: ignore[arg-type]
    assert tuple(who) == expected


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    """What is said on stderr, by a process that has said nothing yet."""
    monkeypatch.setattr(settings, "_said", set())
    return capsys


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"RANK": "1"}, "RANK='1' without TBXD_WORLD_SIZE or WORLD_SIZE"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 (RANK) of 2 (WORLD_SIZE)"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "rank 0 (RANK) of 0 (WORLD_SIZE)"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one' is no number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1' is no number"),
        ({"RANK": "1", "WORLD_SIZE": "²"}, "WORLD_SIZE='²' is no number"),
        ({"RANK": "1", "WORLD_SIZE": "9" * 5000}, "is no number"),
        ({"RANK": "1", "WORLD_SIZE": str(RANKS_MAX + 1)}, f"at most {RANKS_MAX} are possible"),
        ({"LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4"}, "without RANK or LOCAL_WORLD_SIZE"),
        ({"TBXD_RANK": "x", "RANK": "1", "WORLD_SIZE": "2"}, "TBXD_RANK='x' is no number"),
    ],
)
def test_what_makes_no_sense_is_told_once_and_the_process_is_alone(
    environ: dict[str, str], why: str, told: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert identity(environ) == Identity()
    (line,) = told.readouterr().err.splitlines()
    assert why in line and "counts as alone, rank 0 of 1" in line and "TBXD_RANK" in line


NAMES = sorted(
    {
        *rank_detection.LAUNCHERS,
        *sum(rank_detection.LAUNCHERS.values(), ()),
        *rank_detection.VARIABLES,
        *rank_detection.LOCAL_RANKS,
        *rank_detection.LOCAL_WORLDS,
    }
    | {*rank_detection.NODES, *TORCHRUN, *STEP, *OMPI, *HYDRA, *RAY, *TASK, "SLURM_RESTART_COUNT"}
)
TEXTS = st.one_of(
    st.integers(-2, 20).map(str),
    st.sampled_from(["", " 3 ", "1.0", "1e3", "\uff10", "none", "a/../b", "\udcff", "x" * 300, "4294967291", "9" * 40]),
    st.text(st.characters(exclude_characters="\0"), max_size=12),
)


@given(st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=12))
def test_no_environment_makes_it_raise_or_gives_what_the_wire_does_not_take(environ: dict[str, str]) -> None:
    who = identity(environ)
    assert 0 <= who.rank < who.world <= RANKS_MAX and who.local_rank >= 0 and who.node >= 0
    assert len(who.job.encode()) <= JOB_BYTES_MAX
    definition = RunDefinition(0, "/a", "h", 1, 0.0, "", "", who.rank, who.world, who.job, who.attempt, True)
    import msgpack

    assert unpack_definition(msgpack.unpackb(pack_definition(definition))) == definition
    name = default_folder(who, environ)
    assert "/" not in name and not name.startswith(".") and "\0" not in name
    assert (name == "") or who.world > 1


# --- real launchers ------------------------------------------------------------------------------------------------

RANK_SCRIPT = """
import json, os, sys
from tbxd_client import SummaryWriter
from tbxd_client.distributed import rank_detection as ranks
writer = SummaryWriter(comment="-x")
who = ranks.identity()
writer.add_scalar("rank", who.rank, who.attempt)
assert writer.flush(60)
with open(f"told-{who.rank}-{who.attempt}-{os.getpid()}", "w") as file:
    json.dump([writer.logdir, *who], file)
if who.attempt < int(sys.argv[1]):
    sys.exit(3)
"""


def tell(place: World) -> list[tuple[str, Identity]]:
    """The folder and the identity that each rank has told, by attempt and rank."""
    found = [json.loads(path.read_text()) for path in sorted(place.root.glob("told-*"))]
    for path in place.root.glob("told-*"):
        path.unlink()
    return sorted(((folder, Identity(*who)) for folder, *who in found), key=lambda one: (one[1].attempt, one[1].rank))


def launch(place: World, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env={**place.environ, **environ}, cwd=place.root, capture_output=True, text=True
    )


def test_the_ranks_of_a_real_torchrun_job_log_to_one_run_also_after_a_restart_and_the_next_job_to_another(
    place: World,
) -> None:
    (place.root / "train.py").write_text(RANK_SCRIPT)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--monitor-interval", "0.1")
    where = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
    result = launch(place, *torchrun, *where, "--max-restarts", "1", "train.py", "1")
    assert result.returncode == 0, result.stderr
    first = tell(place)
    assert {(who.rank, who.world, who.local_rank, who.source) for _, who in first} == {
        (0, 2, 0, "RANK"),
        (1, 2, 1, "RANK"),
    }
    assert [(who.rank, who.attempt) for _, who in first][-2:] == [(0, 1), (1, 1)], "begun again by torchrun itself"
    assert len({folder for folder, _ in first}) == 1 and len({who.job for _, who in first}) == 1 and first[0][1].job
    folder = first[0][0]
    assert folder.startswith("runs/") and folder.endswith("-x") and os.uname().nodename in folder
    result = launch(place, *torchrun, "--standalone", "train.py", "0")
    assert result.returncode == 0, result.stderr
    second = tell(place)
    assert len(second) == 2 and len({other for other, _ in second}) == 1
    assert second[0][0] != folder and second[0][1].job != first[0][1].job
    wait_for(place.drained, "the ranks' journals")
    assert {path.name for path in (place.root / "runs").iterdir()} >= {Path(folder).name, Path(second[0][0]).name}


@pytest.mark.long
def test_ranks_of_mp_spawn_that_are_told_late_log_to_one_run_and_the_next_call_to_another(place: World) -> None:
    (place.root / "train.py").write_text(
        """
import os, sys
import torch.multiprocessing
sys.argv.append("0")

def work(rank, how):
    if how == "variables":
        os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="12355")
    else:
        import torch.distributed
        torch.distributed.init_process_group("gloo", f"file://{os.getcwd()}/meet", rank=rank, world_size=2)
    exec(open("script.py").read(), {"__name__": "work"})
    if how != "variables":
        torch.distributed.destroy_process_group()

if __name__ == "__main__":
    from tbxd_client import SummaryWriter
    before = SummaryWriter("before")  # when nobody is a rank yet
    for how in ("variables", "variables", "arguments"):
        torch.multiprocessing.spawn(work, (how,), nprocs=2)
"""
    )
    (place.root / "script.py").write_text(RANK_SCRIPT)
    result = launch(place, "train.py")
    assert result.returncode == 0, result.stderr
    found = tell(place)
    assert sorted((who.rank, who.world, who.source) for _, who in found) == sorted(
        [(0, 2, "RANK"), (1, 2, "RANK")] * 2 + [(0, 2, "torch.distributed"), (1, 2, "torch.distributed")]
    )
    jobs: dict[str, list[int]] = {}
    for folder, who in found:
        jobs.setdefault(f"{folder} {who.job}", []).append(who.rank)
    assert sorted(map(sorted, jobs.values())) == [[0, 1]] * 3
    assert len({folder for folder, _ in found}) == 3


LAUNCHER = """
import os, subprocess, sys
told = [dict(zip(sys.argv[2::2], (value.replace("%", str(rank)) for value in sys.argv[3::2]))) for rank in range(2)]
command = ["bash", "wrapper.sh", sys.executable, sys.argv[1]]
ranks = [subprocess.Popen(command, env={**os.environ, **one}) for one in told]
sys.exit(max(rank.wait() for rank in ranks))
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"OMPI_COMM_WORLD_RANK": "%", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
        {"PMI_RANK": "%", "PMI_SIZE": "2", "MPI_LOCALNRANKS": "2"},
        {"RANK": "%", "WORLD_SIZE": "2", "LOCAL_RANK": "%", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
    ],
    ids=["mpirun", "mpiexec", "by hand"],
)
def test_ranks_that_a_launcher_of_one_host_starts_through_a_shell_script_share_a_run(
    place: World, variables: dict[str, str]
) -> None:
    (place.root / "wrapper.sh").write_text('export TBXD_RANK=$OMPI_COMM_WORLD_RANK$PMI_RANK$RANK\n"$@" 0\nexit $?\n')
    (place.root / "train.py").write_text(RANK_SCRIPT)
    folders = []
    for _ in range(2):
        result = launch(place, "-c", LAUNCHER, "train.py", *(word for pair in variables.items() for word in pair))
        assert result.returncode == 0, result.stderr
        found = tell(place)
        assert [who.rank for _, who in found] == [0, 1]
        assert len({folder for folder, _ in found}) == 1 and len({who.job for _, who in found}) == 1
        folders.append(found[0][0])
    assert folders[0] != folders[1], "two jobs, one after the other"


def test_the_first_process_of_lightnings_launcher_and_those_it_starts_share_a_run(place: World) -> None:
    """It starts the others with LOCAL_RANK, and only then says of itself that it is one of them."""
    (place.root / "train.py").write_text(
        """
import os, subprocess, sys
sys.argv.append("0")
if "LOCAL_RANK" not in os.environ:
    os.environ.update(NODE_RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="41236")
    child = subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "LOCAL_RANK": "1"})
exec(open("script.py").read())
"""
    )
    (place.root / "script.py").write_text(RANK_SCRIPT)
    result = launch(place, "train.py")
    assert result.returncode == 0, result.stderr
    found = wait_for(lambda: len(list(place.root.glob("told-*-*-*"))) == 2 and tell(place), "both")
    assert (
        [who.rank for _, who in found] == [0, 1] and found[0][0] == found[1][0] and found[0][1].job == found[1][1].job
    )


def test_what_nobody_can_know_is_told_and_jobs_do_not_share_a_run_for_it(place: World) -> None:
    """Ranks typed into one shell: it starts other jobs as well, and nothing else is common to them."""
    (place.root / "train.py").write_text(RANK_SCRIPT)
    line = f"RANK=0 WORLD_SIZE=2 {sys.executable} train.py 0; RANK=1 WORLD_SIZE=2 {sys.executable} train.py 0; true"
    command = ["setsid", "--wait", "bash", "-c", line]
    result = subprocess.run(command, env=place.environ, cwd=place.root, capture_output=True, text=True)
    found = tell(place)
    assert [who.rank for _, who in found] == [0, 1], result.stderr
    assert all(who.job == "" for _, who in found)
    assert result.stderr.count("cannot all know one name") == 2 and "TBXD_RUN_ID" in result.stderr
    environ = {**place.environ, "TBXD_RUN_ID": "sweep/7"}
    subprocess.run(command, env=environ, cwd=place.root, check=True)
    assert [(folder, who.job) for folder, who in tell(place)] == [("runs/sweep_7-x", "sweep/7")] * 2


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (STEP, "slurm-1234-0"),
        (STEP | TASK, "slurm-1200_3-0"),
        (STEP | TORCHRUN, "slurm-1234-0"),
        (TORCHRUN | {"TORCHELASTIC_RUN_ID": "my job"}, "torchrun-my_job"),
        (OMPI, "mpi-2_1"),
        (OMPI | STEP, "slurm-1234-2_1"),
        (RAY, "ray-02000000-10.0.0.7-41235"),
        (TORCHRUN | {"TBXD_RUN_ID": "../a"}, "_a"),
        ({"JOB_COMPLETION_INDEX": "3", "TBXD_WORLD_SIZE": "4", "TBXD_RUN_ID": "a"}, "a"),
    ],
)
def test_the_default_name_of_ranks_on_several_hosts_is_that_of_their_job(environ: dict[str, str], name: str) -> None:
    assert default_folder(identity(environ), environ) == name
    assert default_folder(identity({**environ, "SLURM_RESTART_COUNT": "1"}), environ) == name


def test_a_process_that_is_alone_has_the_default_name_of_the_originals(place: World) -> None:
    result = place.run(
        "from tbxd_client import SummaryWriter; print(SummaryWriter(comment='_c', write_to_disk=False).logdir)",
        environ={"TBXD_RUN_ID": "a"},
    )
    assert result.stdout.strip().endswith(f"_{os.uname().nodename}_c"), result.stderr


# --- policies ------------------------------------------------------------------------------------------------------

RANK_1 = {"RANK": "1", "WORLD_SIZE": "2"}


def test_ranks_that_zero_leaves_out_cost_nothing_at_all(place: World) -> None:
    result = place.run(
        """
        import os, threading
        import numpy as np, psutil
        from tbxd_client import FileWriter, GlobalSummaryWriter, SummaryWriter
        from tbxd_client.session import session
        before = psutil.Process().num_fds()
        for writer in (SummaryWriter("logs/a", purge_step=3), SummaryWriter(), GlobalSummaryWriter("logs/a")):
            writer.add_scalar("a", 1.0)
            writer.add_histogram("b", np.ones(10))
            writer.log({"c": 1.0})
            writer.add_scalars("d", {"e": 1.0})
            writer.add_hparams({"f": 1}, {"g": 2.0})
            assert writer.flush() and writer.stats()["accepted"] == 0
            writer.close()
        FileWriter("logs/a").add_event(b"")
        assert session.active() is None and threading.active_count() == 1
        assert psutil.Process().num_fds() == before and not psutil.Process().children()
        assert sorted(os.listdir()) == [], os.listdir()
        """,
        environ={**RANK_1, "TBXD_RANKS": "zero"},
    )
    assert result.returncode == 0, result.stderr
    assert not place.spool.exists() and not place.runtime.exists()


def test_rank_0_logs_under_zero_and_the_argument_goes_before_the_setting(place: World) -> None:
    script = """
        import sys
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a", ranks=sys.argv[1] or None) as writer:
            writer.add_scalar("a", 1.0)
        """
    assert place.run(script, "zero", environ=RANK_1).returncode == 0
    assert not place.logdir.exists()
    assert place.run(script, "", environ={"RANK": "0", "WORLD_SIZE": "2", "TBXD_RANKS": "Zero"}).returncode == 0
    wait_for(place.drained, "the journal")
    assert scalars(place.logdir / "a") == {"a": [(0, 1.0)]}
    assert place.run(script, "all", environ={**RANK_1, "TBXD_RANKS": "zero"}).returncode == 0
    wait_for(place.drained, "the journal")
    assert scalars(place.logdir / "a" / "rank1") == {"a": [(0, 1.0)]}


@pytest.mark.parametrize("loader", LOADERS)
def test_all_gives_each_rank_a_run_of_its_own(place: World, loader: str) -> None:
    for rank in (0, 1, 10):
        result = place.run(
            """
            import sys
            from tbxd_client import FileWriter, GlobalSummaryWriter, SummaryWriter
            with SummaryWriter("logs/a", ranks="all") as writer:
                writer.add_scalar("rank", int(sys.argv[1]), 1)
                writer.add_scalars("pair", {"one": 1.0}, 1)
                print(writer.logdir, *writer.all_writers, FileWriter("logs/a", ranks="all").get_logdir())
            with GlobalSummaryWriter("logs/b", ranks="all") as writer:
                writer.add_scalar("counted", 1.0)
            """,
            rank,
            environ={"RANK": str(rank), "WORLD_SIZE": "11"},
        )
        assert result.returncode == 0, result.stderr
        folder = f"logs/a/rank{rank:02}"
        assert result.stdout.split() == [folder, folder, f"{folder}/pair/one", folder]
    wait_for(place.drained, "the journals")
    runs = {f"a/rank{rank}" for rank in ("00", "01", "10")}
    expected = runs | {f"{run}/pair/one" for run in runs} | {run.replace("a/", "b/") for run in runs}
    with board(place.logdir, loader) as found:
        found.until(lambda: found.runs() == expected, "a run for each rank")
        for run in runs:
            assert found.scalars(run, "rank") == [(1, float(run[-2:]))]
            assert found.scalars(run.replace("a/", "b/"), "counted") == [(0, 1.0)]


def definitions(place: World) -> Iterator[Session]:
    """What a daemon has to read of the journals that wait, as it reads them."""
    for journal in place.journals():
        session = Session(b"0" * 12, 0)
        session.feed_definitions(0, (journal / "definitions").read_bytes())
        yield session


NO_DAEMON = {"TBXD_ADDRESS": "ipc:///nowhere/at/all", "TBXD_FLUSH_SECONDS": "0"}


def test_the_daemon_is_told_rank_world_job_and_words_of_runs_and_tags(place: World) -> None:
    result = place.run(
        """
        import numpy as np
        from tbxd_client import SummaryWriter
        words = {"tokens": "sum", "time/*": "p99", "time/x": "max", "l[0]": "min", "*_n": "last"}
        writer = SummaryWriter("logs/a", reduce=words)
        for tag in ("tokens", "time/step/a", "time/x", "l[0]", "loss", "env", "b_n"):
            writer.add_scalar(tag, 1.0)
        writer.log({"time/row": 1.0})
        writer.add_text("env/text", "a")
        writer.file_writer.add_event(b"")
        writer.add_scalars("time/main", {"one": 1.0})
        SummaryWriter("logs/a", ranks="all", reduce={"loss": "sum"}).add_scalar("loss", 2.0)
        SummaryWriter("logs/a", ranks="zero").add_scalar("later", 2.0)
        print(writer.file_writer.event_writer._file_name)
        """,
        environ={
            **RANK_1,
            **NO_DAEMON,
            "TBXD_RUN_ID": "job",
            "TBXD_ATTEMPT": "2",
            "TBXD_REDUCE": "env*=all, tokens=min",
        },
    )
    assert result.returncode == 0, result.stderr
    (session,) = definitions(place)
    runs = {run.directory: run for run in session.runs if run is not None}
    main = runs.pop(str(place.logdir / "a"))
    assert (main.rank, main.world, main.job, main.attempt, main.reduce, main.file_name) == (1, 2, "job", 2, True, "")
    below = runs.pop(str(place.logdir / "a" / "time" / "main" / "one"))
    assert (below.rank, below.world, below.job, below.attempt, below.reduce) == (1, 2, "job", 2, True)
    own = runs.pop(str(place.logdir / "a" / "rank1"))
    assert (own.rank, own.world, own.job, own.reduce, runs) == (1, 2, "job", False, {})
    assert own.file_name.startswith("events.out.tfevents."), "a run of its own, a name of its own"
    words = {(tag.run, tag.tag): tag.reduce for tag in session.tags if tag is not None}
    assert {tag: word for (run, tag), word in words.items() if run == main.id} == {
        **{
            "tokens": "sum",
            "time/step/a": "p99",
            "time/x": "p99",
            "l[0]": "min",
            "loss": "",
            "env": "all",
            "b_n": "last",
        },
        **{"time/row": "p99", "env/text": "all", "": ""},
    }
    assert words[below.id, "time/main"] == "p99" and words[own.id, "loss"] == ""
    assert Path(result.stdout.strip()).parent == place.logdir / "a" and "tfevents" in result.stdout


def test_a_process_that_is_alone_tells_what_it_told_before(place: World) -> None:
    script = 'from tbxd_client import SummaryWriter; SummaryWriter("logs/a", reduce={"a": "sum"}).add_scalar("a", 1.0)'
    result = place.run(script, environ=NO_DAEMON)
    assert result.returncode == 0, result.stderr
    (session,) = definitions(place)
    (run,), (tag,) = session.runs, session.tags
    assert run is not None and tag is not None
    every = ("umask", "view", "folder", "script", "kin", "parent", "boot", "began")  # which every process tells
    where = {name: getattr(run, name) for name in every}
    told = RunDefinition(run.id, run.directory, run.host, run.pid, run.created, "", run.file_name, **where)
    assert pack_definition(run) == pack_definition(told) and run.file_name
    assert pack_definition(tag) == pack_definition(TagDefinition(tag.id, run.id, "a"))


def test_ranks_of_one_run_share_a_file_that_each_can_name(place: World) -> None:
    place.serve()
    script = """
        import os
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        before = writer.file_writer.event_writer._file_name
        writer.add_scalar(f"rank{os.environ['RANK']}", 1.0)
        assert writer.flush(60)
        print(before, writer.file_writer.event_writer._ev_writer._file_name, sep="\\n")
        """
    told = []
    for rank in ("0", "1"):
        result = place.run(script, environ={"RANK": rank, "WORLD_SIZE": "2"})
        assert result.returncode == 0, result.stderr
        told += result.stdout.split()
    (name,) = event_files(place.logdir / "a")
    assert {Path(path).parent for path in told} == {place.logdir / "a"}
    assert [Path(path).name for path in (told[0], told[1], told[3])] == [name] * 3


def test_a_forked_worker_is_the_same_rank_and_a_process_that_a_writer_is_passed_to_says_itself(place: World) -> None:
    (place.root / "train.py").write_text(
        """
import multiprocessing, os
from tbxd_client import SummaryWriter

def work(writer, rank):
    if rank:
        os.environ.update(TBXD_RANK=rank, TBXD_WORLD_SIZE="4", TBXD_RUN_ID="job")
    writer.add_scalar(rank or "forked", 1.0)

if __name__ == "__main__":
    os.environ.update(TBXD_RANK="1", TBXD_WORLD_SIZE="3", TBXD_RUN_ID="job")
    ours, off = SummaryWriter("logs/a"), SummaryWriter("logs/b", ranks="zero")
    del os.environ["TBXD_RANK"], os.environ["TBXD_WORLD_SIZE"], os.environ["TBXD_RUN_ID"]
    alone, late = SummaryWriter("logs/c"), SummaryWriter("logs/d", ranks="zero")
    for method, writers, rank in (("fork", (ours, off), ""), ("spawn", (ours, alone, late), "2")):
        for writer in writers:
            child = multiprocessing.get_context(method).Process(target=work, args=(writer, rank))
            child.start()
            child.join()
            assert child.exitcode == 0
"""
    )
    result = launch(place, "train.py", **NO_DAEMON)
    assert result.returncode == 0, result.stderr
    found = {}
    for session in definitions(place):
        for run, tag in zip(session.runs, session.tags, strict=True):
            assert run is not None and tag is not None
            found[Path(run.directory).name, tag.tag] = run.rank, run.world, run.reduce, run.file_name == ""
    assert found == {
        ("a", "forked"): (1, 3, True, True),
        ("a", "2"): (2, 4, True, True),
        ("c", "2"): (2, 4, True, True),
    }


def test_a_member_is_pickled_without_knowing_who_it_is() -> None:
    first = rank_policy.Member("all", (("a", "sum"),), Identity(3, 12))
    second = pickle.loads(pickle.dumps(first))
    assert (first.folder("x"), second.who, second.folder("x")) == ("x/rank03", identity(), "x")
    assert (second.policy, second.words) == ("all", (("a", "sum"),))


@pytest.mark.parametrize("writer", [SummaryWriter, GlobalSummaryWriter])
def test_words_that_are_none_raise_and_say_what_is_possible(writer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ranks='some': 'reduce', 'all', 'zero' are possible"):
        writer(tmp_path / "a", ranks="some")
    with pytest.raises(ValueError, match=r"reduce=\{'loss': 'total'\}: 'mean', 'sum', .* 'p99', 'all' are possible"):
        writer(tmp_path / "a", reduce={"loss": "total"})
    with pytest.raises(TypeError, match="reduce is str; a dictionary"):
        writer(tmp_path / "a", reduce="sum")
    with pytest.raises(TypeError, match="a pattern of tags is a string; 3 is int"):
        writer(tmp_path / "a", reduce={3: "sum"})
    with pytest.raises(ValueError, match="are possible"):
        FileWriter(tmp_path / "a", ranks="some")
    assert not (tmp_path / "a").exists()


def test_words_in_the_environment_that_are_none_are_told_and_not_used(told: pytest.CaptureFixture[str]) -> None:
    words = rank_policy.read_words("tokens=sum, time/*=p99,a=b=last,loss=total,,=sum,mean")
    assert words == (("tokens", "sum"), ("time/*", "p99"), ("a=b", "last"))
    err = told.readouterr().err
    assert (
        err.count("is not used") == 3
        and "'loss=total'" in err
        and textwrap.shorten(", ".join(rank_policy.WORDS), 99) in err
    )
