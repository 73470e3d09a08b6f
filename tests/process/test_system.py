"""System metrics: the node as the daemon sees it, beside the runs that are active."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import disk_log
from harness import World, absent, events, scalars, wait_for, world
from tb import LOADERS, board
from tbxd.system import proc
from tbxd.system.curves import Curves
from tbxd.system.gpus import NO_LIBRARY, Gpus
from tbxd.system.probe import HANG_SECONDS, Probe
from tbxd.system.sampler import Sampler
from tbxd.tfevents.ledger import LedgerReader
from tbxd_client import SummaryWriter
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.records import LocalProtocolError, RunDefinition, pack_definition

NODE = os.uname().nodename
FAKE = Path(__file__).parents[1] / "fake_nvml"
GIB, MB = 1 << 30, 1e6

# Logs a scalar every 20 ms until the file named next to it is there.
TRAINER = """
    import pathlib, sys, time
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1], **eval(sys.argv[3]))
    step = 0
    while not pathlib.Path(sys.argv[2]).exists():
        writer.add_scalar("loss", 1 / (step + 1), step)
        step += 1
        time.sleep(0.02)
    """


def train(place: World, name: str, options: str = "{}", **more: Any) -> Path:
    """A trainer in the background; returns its run's folder. It ends when there is a file ``<name>.end``."""
    place.start(TRAINER, place.logdir / name, place.root / f"{name}.end", options, **more)
    return place.logdir / name


def end(place: World, name: str) -> None:
    (place.root / f"{name}.end").touch()


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    return scalars(run / "system" / NODE)


def samples(run: Path) -> int:
    return max(map(len, curves_of(run).values()), default=0)


@contextmanager
def nvml(root: Path, **plan: Any) -> Iterator[tuple[World, Any]]:
    """A world whose daemons find the stand-in for nvidia-ml-py, and a function that changes what it does."""
    path = root / "nvml.json"

    def change(**plan: Any) -> None:
        (root / "new.json").write_text(json.dumps(plan))
        (root / "new.json").replace(path)

    change(**plan)
    paths = os.pathsep.join((str(FAKE), os.environ.get("PYTHONPATH", "")))
    with world(root / "world", TBXD_SYSTEM_SECONDS="1", FAKE_NVML=str(path), PYTHONPATH=paths) as place:
        yield place, change


# --- the whole way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", LOADERS)
def test_the_node_is_shown_beside_a_run_that_is_active(tmp_path: Path, loader: str) -> None:
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1") as place:
        run = train(place, "exp")
        wait_for(lambda: samples(run) >= 3, "samples")
        end(place, "exp")
        wait_for(place.drained, "the journal to be drained")
        assert place.tbxd("stop").returncode == 0  # a sample that was being taken when the run ended is written, too
        written = curves_of(run)
        with board(place.logdir, loader) as shown:
            name = f"exp/system/{NODE}"
            # A loader shows what it has read so far: one tag of a run and not the next, or its first points.
            shown.until(lambda: shown.tags().get(name) == written.keys(), "the tags")
            shown.until(lambda: "loss" in shown.tags().get("exp", ()), "the run itself")
            assert not {tag for tag in shown.tags()["exp"] if "system" in tag}
            for tag, points in written.items():
                shown.until(lambda tag=tag, points=points: shown.scalars(name, tag) == points, tag)
            begun, last = int(event_files(run)[0].split(".")[3]), -1
            for step, seconds, value in shown.timed_scalars(name, "system/memory_percent"):
                assert 0 < value < 100
                # On a busy machine two samples may be of one second.
                assert step == max(last + 1, int(seconds) - begun), "seconds since the run's first event file"
                last = step
        expected = {"cpu_percent", "cpu_busiest_percent", "load", "memory_gib", "memory_percent", "disk_used_percent"}
        expected |= {"trainers_memory_gib", "trainers_cpu_cores"}
        assert {tag.removeprefix("system/") for tag in written} >= expected


@pytest.mark.long
def test_steps_go_up_over_a_daemon_that_is_killed_and_nothing_of_the_ledger_changes(tmp_path: Path) -> None:
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1") as place:
        run = train(place, "exp")
        for count in (2, 4, 6):  # of samples
            wait_for(lambda count=count: samples(run) >= count, "samples")
            place.kill_daemon()
        wait_for(lambda: samples(run) >= 8, "samples of the last daemon")
        end(place, "exp")
        wait_for(place.drained, "the journal to be drained")
        folder = run / "system" / NODE
        assert len(event_files(folder)) == 4, "one file for each daemon"
        for tag, points in curves_of(run).items():
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), tag
        reader = LedgerReader()
        for event in events(folder):
            if event.file_version:
                reader = LedgerReader()
            reader.follow(event.source_metadata.writer, len(event.summary.value))
            assert reader.ours and not reader.ledger
        status = wait_for(place.status, "an answer")
        counts = status["runs"][str(run)]
        assert counts["accepted"] == counts["written"] > 0 and not counts["dropped"]
        assert str(folder) not in status["runs"]
        assert place.tbxd("check", str(place.logdir)).returncode == 0
        loss = [step for step, _ in scalars(run)["loss"]]
        assert loss == list(range(len(loss)))


@pytest.mark.long
def test_a_run_that_is_over_gets_nothing_more(tmp_path: Path) -> None:
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1") as place:
        place.serve()
        first, second, third = (train(place, name) for name in ("first", "second", "third"))
        for run in (first, second, third):
            wait_for(lambda run=run: samples(run) >= 2, "samples")
        end(place, "first")
        killed = place.processes[2]
        killed.kill()
        wait_for(lambda: place.status()["system"]["runs"] == [str(third)], "two runs to be over")
        before = samples(first), samples(second)
        now = samples(third)
        wait_for(lambda: samples(third) >= now + 2, "further samples of the third")
        assert (samples(first), samples(second)) == before
        end(place, "third")
        wait_for(lambda: place.status()["system"]["seconds"] == 0, "the sampling to rest")
        assert "system metrics: on, no run is active" in place.tbxd("status").stdout


def test_by_default_nothing_of_it_is_loaded_sampled_or_written(tmp_path: Path) -> None:
    names = ("tbxd.system.sampler", "tbxd.system.curves", "tbxd.system.proc", "tbxd.system.gpus", "psutil", "pynvml")
    with world(tmp_path, PYTHONPROFILEIMPORTTIME="1") as place:  # the daemon's log has what it imports
        run = train(place, "exp", stderr=subprocess.DEVNULL)
        wait_for(lambda: len(scalars(run).get("loss", [])) > 100, "records")
        assert not (run / "system").exists()
        log = place.runtime / "daemon.log"
        assert "tbxd.system.watch" in log.read_text() and not [name for name in names if name in log.read_text()]
        assert "system metrics: off" in place.tbxd("status").stdout
        system = place.status()["system"]
        assert (system["on"], system["seconds"], system["runs"], system["last"]) == (False, 0, [], {})
        asked = train(place, "asked", "dict(system=1)", stderr=subprocess.DEVNULL)
        wait_for(lambda: samples(asked) > 0, "a sample")
        assert [name for name in names if name in log.read_text()][:4] == [*names[:4]]


def test_a_writer_asks_for_itself_and_for_nobody_else(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        place.serve()
        asks, not_asked = train(place, "asks", "dict(system=1)"), train(place, "silent")
        wait_for(lambda: samples(asks) >= 3, "samples")
        assert not (not_asked / "system").exists()
        system = place.status()["system"]
        assert (system["runs"], system["seconds"]) == ([str(asks)], 1)
    with world(tmp_path / "set", TBXD_SYSTEM_SECONDS="600") as place:
        place.serve()
        sooner, never = train(place, "sooner", "dict(system=1)"), train(place, "never", "dict(system=False)")
        wait_for(lambda: samples(sooner) >= 3, "samples")
        assert not (never / "system").exists()


def test_what_belongs_to_a_writer_has_the_curves_of_its_folder(tmp_path: Path) -> None:
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1") as place:
        place.start(
            """
            import sys, time
            from tbxd_client import SummaryWriter
            writer = SummaryWriter(sys.argv[1])
            for step in range(10**6):  # nothing in the folder of the writer itself
                writer.add_scalars("loss", {"train": 1 / (step + 1), "val": 2 / (step + 1)}, step)
                time.sleep(0.02)
            """,
            place.logdir / "exp",
        )
        wait_for(lambda: samples(place.logdir / "exp") >= 2, "samples")
        assert {path.parent.parent for path in place.logdir.rglob(NODE)} == {place.logdir / "exp"}


def test_a_writer_takes_no_interval_that_cannot_be(tmp_path: Path) -> None:
    for wrong, kind in (
        (0.5, ValueError),
        (3601, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        ("x", TypeError),
    ):
        with pytest.raises(kind, match="system"):
            SummaryWriter(tmp_path / "run", system=wrong)
    assert SummaryWriter(tmp_path / "run", system=True)._tbxd_run.described == {"system": 10.0}
    with pytest.raises(LocalProtocolError, match="'system' of a definition"):
        pack_definition(RunDefinition(0, "/a", "", 0, 0.0, system=0.5))


# --- values ---------------------------------------------------------------------------------------------------------


def test_values_are_those_of_the_kernel() -> None:
    sampler = Sampler(lambda: None)
    me = psutil.Process()
    sampler.ask([os.getpid()])
    wait_for(lambda: sampler.ready, "the first reading")
    assert sampler.take() is None
    before, began = (
        (psutil.cpu_times(), psutil.disk_io_counters(), psutil.net_io_counters(pernic=True)),
        time.monotonic(),
    )
    own = time.process_time()
    while time.monotonic() < began + 1:  # something to be seen
        pass
    sampler.ask([os.getpid()])
    wait_for(lambda: sampler.ready, "the second reading")
    after, seconds = (
        (psutil.cpu_times(), psutil.disk_io_counters(), psutil.net_io_counters(pernic=True)),
        time.monotonic(),
    )
    own, seconds = time.process_time() - own, seconds - began
    sample = sampler.take()
    assert sample is not None
    values = sample.values([os.getpid()])

    def total(times: Any) -> float:
        return sum(times[:8])

    idle = after[0].idle + after[0].iowait - before[0].idle - before[0].iowait
    busy = 100 * (1 - idle / (total(after[0]) - total(before[0])))
    assert abs(values["cpu_percent"] - busy) < 10
    assert values["cpu_percent"] - 5 <= values["cpu_busiest_percent"] <= 100  # ticks are 10 ms
    memory = psutil.virtual_memory()
    assert abs(values["memory_gib"] - (memory.total - memory.available) / GIB) < 0.5
    assert abs(values["memory_percent"] - memory.percent) < 5
    assert abs(values["load"] - os.getloadavg()[0]) < 1
    assert abs(values["trainers_memory_gib"] - me.memory_info().rss / GIB) < 0.05
    assert abs(values["trainers_cpu_cores"] - own / seconds) < 0.3
    if psutil.swap_memory().total:
        assert abs(values["swap_gib"] - psutil.swap_memory().used / GIB) < 0.1
    if "disk_written_mb_s" in values:
        assert 0 <= values["disk_written_mb_s"] * MB * seconds <= after[1].write_bytes - before[1].write_bytes + 50 * MB
    names = {name for name in before[2] if name != "lo"}
    if names:
        sent = sum(after[2][name].bytes_sent - before[2][name].bytes_sent for name in names)
        assert 0 <= values["network_sent_mb_s"] * MB * seconds <= sent + MB


def test_the_disk_is_the_one_that_the_run_is_on(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    curves = Curves(tmp_path, "node")
    curves.write({}, time.time())
    curves.close()
    assert not curves.error
    [(_, used)] = scalars(tmp_path / "system" / "node")["system/disk_used_percent"]
    assert abs(used - psutil.disk_usage(str(tmp_path)).percent) < 1


def made(root: Path, files: dict[str, str]) -> proc.Node:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc.Node(root)


PLAIN = {
    "proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 90 0 90 320 0 0 0 0 0 0\ncpu1 10 0 10 480 0 0 0 0 0 0\nintr 1\n",
    "proc/meminfo": "MemTotal: 67108864 kB\nMemFree: 1 kB\nMemAvailable: 50331648 kB\nSwapTotal: 0 kB\n",
    "proc/loadavg": "1.50 1.00 0.50 2/300 12345\n",
    "proc/diskstats": "259 0 nvme0n1 1 0 1000 0 1 0 2000 0 0 0 0\n259 1 nvme0n1p1 1 0 999 0 1 0 1999 0 0 0 0\n"
    "253 0 dm-0 1 0 998 0 1 0 1998 0 0 0 0\n",
    "sys/block/nvme0n1/device/x": "",
    "sys/block/dm-0/x": "",
    "proc/net/dev": "Inter-|\n face |\n    lo: 7 0 0 0 0 0 0 0 7 0\n  eth0: 1000 1 0 0 0 0 0 0 2000 1\n"
    "docker0: 900 1 0 0 0 0 0 0 1900 1\n",
    "sys/class/net/eth0/device/x": "",
    "proc/7/stat": "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 50 50 0 0 20 0 1 0 999 0 262144 0\n",
}


def moved(files: dict[str, str], **changes: str) -> dict[str, str]:
    return {**files, **{name.replace("__", "/"): text for name, text in changes.items()}}


def test_disks_and_interfaces_are_counted_once(tmp_path: Path) -> None:
    node = made(tmp_path, PLAIN)
    before = node.read([7])
    assert before.disks == {"nvme0n1": (512_000, 1_024_000)} and before.network == {"eth0": (1000, 2000)}
    assert before.processes[7].started == 999
    later = moved(PLAIN, proc__stat="cpu  200 0 100 900 0 0 0 0\ncpu0 190 0 90 320 0 0 0 0\ncpu1 10 0 10 580 0 0 0 0\n")
    later["proc/diskstats"] = "259 0 nvme0n1 1 0 3000 0 1 0 2000 0 0 0 0\n"
    later["proc/net/dev"] = "\n\n  eth0: 2001000 1 0 0 0 0 0 0 1000 1\n"  # sent: begun anew
    node = made(tmp_path, later)
    after = node.read([7])
    after.time = before.time + 2
    values = proc.node_values(before, after)
    assert values == {
        "cpu_percent": 50,
        "cpu_busiest_percent": 100,
        "load": 1.5,
        "memory_gib": 16,
        "memory_percent": 25,
        "disk_read_mb_s": 2000 * 512 / 2 / MB,
        "disk_written_mb_s": 0,
        "network_received_mb_s": 1,
        "network_sent_mb_s": 0,
    }


def test_limits_of_a_container_or_a_job_count_where_they_are_set(tmp_path: Path) -> None:
    files = moved(
        PLAIN,
        proc__7__cgroup="0::/jobs/job1/step0\n",
        sys__fs__cgroup__jobs__job1__step0__memory_max="max\n",
    )
    job = "sys/fs/cgroup/jobs/job1"
    files |= {
        f"{job}/step0/memory.max": "max\n",
        f"{job}/memory.max": f"{8 * GIB}\n",
        f"{job}/memory.current": f"{5 * GIB}\n",
        f"{job}/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 3\n",
        "sys/fs/cgroup/jobs/memory.max": f"{500 * GIB}\n",  # more than there is
        f"{job}/step0/cpu.max": "max 100000\n",
        f"{job}/cpu.max": "50000 100000\n",
        f"{job}/cpu.stat": "usage_usec 1000000\nuser_usec 1\n",
    }
    before = made(tmp_path, files).read([7])
    files[f"{job}/cpu.stat"] = "usage_usec 1500000\nuser_usec 1\n"
    after = made(tmp_path, files).read([7])
    after.time = before.time + 2
    group = after.processes[7].group
    assert group == "/jobs/job1/step0"
    assert proc.group_values(before, after, group) == {"memory_gib": 4, "memory_percent": 50, "cpu_percent": 50}
    for without in ("0::/\n", "1:cpu:/x\n", "0::/../elsewhere\n", ""):
        bare = made(tmp_path / "bare", moved(PLAIN, proc__7__cgroup=without))
        assert proc.group_values(bare.read([7]), bare.read([7]), bare.read([7]).processes[7].group) == {}


@pytest.mark.parametrize(
    "text", ["", "\n", "cpu", "cpu x y", "a b c d e f g h i j k", "::::\n::", "\0" * 100, "ü 9 9 9"]
)
def test_files_that_make_no_sense_leave_out_what_they_would_tell(tmp_path: Path, text: str) -> None:
    names = [*(name for name in PLAIN if name.startswith("proc")), "proc/7/cgroup"]
    node = made(tmp_path, dict.fromkeys(names, text))
    before, after = node.read([7, 8]), node.read([7, 8])
    values = proc.node_values(before, after) | proc.process_values(before, after, [7, 8])
    assert not values
    assert not proc.node_values(proc.Node(tmp_path / "none").read(), after)


def test_a_process_that_has_got_the_pid_of_another_begins_anew(tmp_path: Path) -> None:
    before = made(tmp_path, PLAIN).read([7])
    other = "7 (a) R 1 7 7 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 5000 0 262144 0\n"
    after = made(tmp_path, moved(PLAIN, proc__7__stat=other)).read([7])
    assert proc.process_values(before, after, [7]) == {"trainers_memory_gib": 1}


# --- GPUs, with a stand-in for nvidia-ml-py -------------------------------------------------------------------------


def test_every_gpu_is_shown(tmp_path: Path) -> None:
    with nvml(tmp_path, gpus=2) as (place, _):
        run = train(place, "exp")
        wait_for(lambda: samples(run) >= 2, "samples")
        found = {tag: points[-1][1] for tag, points in curves_of(run).items() if "gpu" in tag}
        assert found == {
            f"system/gpu{gpu}/{what}": value
            for gpu in (0, 1)
            for what, value in (
                ("use_percent", 90 + gpu),
                ("memory_gib", 20 * (gpu + 1)),
                ("memory_percent", 25 * (gpu + 1)),
                ("power_watts", 300.5 + gpu),
                ("temperature_c", 60 + gpu),
            )
        }
        assert "GPUs 90, 91 %" in place.tbxd("status").stdout


def test_a_gpu_that_is_lost_takes_no_other_with_it(tmp_path: Path) -> None:
    fails = {"gpu 1": 15, "nvmlDeviceGetPowerUsage": 3}  # lost; not supported
    with nvml(tmp_path, gpus=3, fails=fails) as (place, change):
        run = train(place, "exp")
        wait_for(lambda: samples(run) >= 2, "samples")
        found = {tag for tag in curves_of(run) if "gpu" in tag}
        names = ("use_percent", "memory_gib", "memory_percent", "temperature_c")
        assert found == {f"system/gpu{gpu}/{name}" for gpu in (0, 2) for name in names}
        assert "gpu1" in place.status()["system"]["trouble"]
        change(gpus=3, fails={"nvmlDeviceGetUtilizationRates 0": 999})
        wait_for(lambda: "gpu0: error 999" in place.status()["system"]["trouble"], "another trouble")


@pytest.mark.long
@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetMemoryInfo"])
def test_an_nvml_that_hangs_keeps_no_record_and_no_other_figure(tmp_path: Path, name: str) -> None:
    with nvml(tmp_path, gpus=1, hangs=name) as (place, change):
        daemon = place.serve()
        run = train(place, "exp")
        wait_for(lambda: samples(run) >= 3, "samples")
        assert "system/memory_percent" in curves_of(run)
        before = len(scalars(run)["loss"])
        wait_for(lambda: len(scalars(run)["loss"]) > before + 50, "records to be written")
        wait_for(lambda: place.status()["system"]["trouble"] == "nvml does not answer", "that to be said")
        assert not any("gpu" in tag for tag in curves_of(run))
        change(gpus=1)
        wait_for(lambda: "system/gpu0/use_percent" in curves_of(run), "GPUs again")
        change(gpus=1, hangs=name if name != "nvmlInit" else "nvmlDeviceGetPowerUsage")
        began = time.monotonic()
        assert place.tbxd("stop").returncode == 0
        daemon.wait(timeout=20)
        assert time.monotonic() - began < 10, "what hangs keeps nobody from leaving"


def test_gpus_are_let_go_of_when_no_run_is_active(tmp_path: Path) -> None:
    with nvml(tmp_path, gpus=1) as (place, _):
        place.serve()
        run = train(place, "exp")
        wait_for(lambda: samples(run) >= 1, "a sample")
        calls = tmp_path / "nvml.json.calls"
        assert "nvmlShutdown" not in calls.read_text()
        end(place, "exp")
        wait_for(lambda: "nvmlShutdown" in calls.read_text(), "the GPUs to be let go of")
        again = train(place, "again")
        wait_for(lambda: "system/gpu0/use_percent" in curves_of(again), "GPUs in another run")


def test_the_stand_in_has_the_names_of_the_real_one() -> None:
    real = pytest.importorskip("pynvml")
    assert not str(real.__file__).startswith(str(FAKE))
    text = (FAKE / "pynvml.py").read_text()
    used = (FAKE.parent.parent / "tbxd" / "system" / "gpus.py").read_text()
    for name in {
        word for word in text.replace("(", " ").replace(":", " ").split() if word.startswith(("nvml", "NVML_"))
    }:
        assert hasattr(real, name), name
    assert {"nvmlInit", "nvmlShutdown"} <= {name for name in vars(real) if name in used}
    for name, value in (("NOT_SUPPORTED", 3), ("DRIVER_NOT_LOADED", 9), ("LIBRARY_NOT_FOUND", 12), ("GPU_IS_LOST", 15)):
        assert getattr(real, f"NVML_ERROR_{name}") == value
    if not Path("/proc/driver/nvidia").exists():
        gpus = Gpus()
        assert gpus.read() == {} and gpus.trouble == "", "a machine without GPUs is in no trouble"


# --- the parts ------------------------------------------------------------------------------------------------------


def test_a_probe_has_one_thread_whatever_hangs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    probe: Probe[int] = Probe("thing", answered.set)
    hang = threading.Event()
    began = threading.active_count()

    def job() -> int:
        hang.wait()
        return 1

    assert probe.ask(job) and not probe.ask(job) and probe.take() is None
    clock = time.monotonic()
    monkeypatch.setattr("tbxd.system.probe.time.monotonic", lambda: clock + HANG_SECONDS + 1)
    for _ in range(5):
        assert not probe.ask(job)
    assert probe.hangs and threading.active_count() == began + 1
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "thing has not answered for 11 s; its values are left out until it does"
    ]
    hang.set()
    assert answered.wait(10) and probe.take() == 1
    assert probe.ask(job) and not probe.hangs


def test_steps_go_up_whatever_the_clock_and_the_folder_do(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "events.out.tfevents.1700000000.h.1.0").touch()
    now = 1_700_000_100.5

    def steps() -> list[int]:
        return [step for step, _ in scalars(tmp_path / "system" / "a_b")["system/x"]]

    curves = Curves(tmp_path, "a/b")
    for seconds in (now, now + 1, now + 1.2, now - 50):  # twice in a second; a clock that is set back
        curves.write({"x": 1.0}, seconds)
    assert not curves.error and steps() == [100, 101, 102, 103]
    curves.close()
    curves.write({"x": 1.0}, now - 49)  # the folder had been let go of
    assert steps() == [100, 101, 102, 103, 104]
    curves.close()
    other = Curves(tmp_path, "a/b")  # another daemon, after an hour
    other.write({"x": 1.0}, now + 3600)
    assert steps()[-1] == 3700
    curves.write({"x": 1.0}, now)
    assert "another tbxd daemon" in curves.error and curves.left_out == 1
    other.close()
    # The tail of the newest file is torn, and one that holds nothing follows it.
    names = event_files(tmp_path / "system" / "a_b")
    with open(tmp_path / "system" / "a_b" / names[-1], "r+b") as file:
        file.truncate(file.seek(0, 2) - 3)
    (tmp_path / "system" / "a_b" / names[-1].replace(".tfevents.1", ".tfevents.2")).touch()
    (tmp_path / "events.out.tfevents.1700000000.h.1.0").unlink()
    curves.write({"x": 1.0}, now)
    assert not curves.error
    newest = event_files(tmp_path / "system" / "a_b")[-1]
    [step] = [event.step for event in events_of(tmp_path / "system" / "a_b", newest) if event.summary.value]
    assert step == 105
    curves.close()


def events_of(folder: Path, name: str) -> list[Any]:
    alone = folder / "alone"
    alone.mkdir()
    shutil.copy(folder / name, alone / name)
    try:
        return events(alone)
    finally:
        shutil.rmtree(alone)


def test_a_folder_that_is_removed_is_made_again_only_with_its_run(tmp_path: Path) -> None:
    run = tmp_path.resolve() / "run"
    run.mkdir()
    curves = Curves(run, "node")
    curves.write({"x": 1.0}, 1e9)
    shutil.rmtree(run)
    for _ in range(3):
        curves.write({"x": 1.0}, 1e9)
    assert curves.error and curves.left_out == 3 and not run.exists()
    run.mkdir()
    curves.write({"x": 1.0}, 1e9)
    assert not curves.error and len(scalars(run / "system" / "node")["system/x"]) == 1
    curves.close()


def test_a_sample_takes_little_of_a_processor() -> None:
    node = proc.Node()
    before = node.read([os.getpid()])
    took = []
    for _ in range(50):
        began = time.thread_time()
        after = node.read([os.getpid()])
        proc.node_values(before, after)
        took.append(time.thread_time() - began)
    assert min(took) < 0.01, "five times what docs/SYSTEM.md says, for machines with many processors"
    assert NO_LIBRARY


@pytest.mark.long
@pytest.mark.parametrize("policy", ["reduce", "all"])
def test_a_node_is_sampled_once_for_all_ranks_of_a_job(tmp_path: Path, policy: str) -> None:
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1", TBXD_RANKS=policy) as place:
        place.serve()
        for rank in range(3):
            run = train(place, "exp", environ={"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "3"})
        wait_for(lambda: len(place.status()["sessions"]) == 3 and samples(run) >= 3, "samples with all ranks")
        assert {path.parent.parent for path in place.logdir.rglob(NODE)} == {run}
        sample = place.status()["system"]
        assert sample["runs"] == [str(run)] and not sample["errors"]
        pids = [session["pid"] for session in place.status()["sessions"]]
        memory = sum(psutil.Process(pid).memory_info().rss for pid in pids) / GIB

        def last() -> float:
            return curves_of(run)["system/trainers_memory_gib"][-1][1]

        wait_for(lambda: abs(last() - memory) < 0.2 * memory, "their memory")


def test_a_run_that_becomes_active_again_and_again_goes_on_in_one_file(tmp_path: Path) -> None:
    """200 evaluations made 200 files, each of which TensorBoard opens."""
    tmp_path = tmp_path.resolve()
    folder = tmp_path / "system" / "node"
    curves = Curves(tmp_path, "node")
    for second in range(200):
        curves.write({"x": 1.0}, 1e9 + second)
        curves.close()
    assert not curves.error and curves.left_out == 0
    assert len(event_files(folder)) == 1 and len(scalars(folder)["system/x"]) == 200
    assert not any(str(folder) in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if alive(fd))
    other = Curves(tmp_path, "node")  # another daemon: it never touches what somebody else has left
    other.write({"x": 1.0}, 1e9 + 200)
    other.close()
    curves.write({"x": 1.0}, 1e9 + 201)  # and its file is the newest now
    curves.close()
    assert len(event_files(folder)) == 3
    (folder / event_files(folder)[-1]).write_bytes(b"changed")
    curves.write({"x": 1.0}, 1e9 + 202)
    curves.write({"x": 1.0}, 1e9 + 203)
    curves.close()
    assert len(event_files(folder)) == 4 and curves.left_out == 1


@pytest.mark.parametrize("sync", ["always", "periodic"])
def test_samples_are_synced_as_runs_are(tmp_path: Path, sync: str) -> None:
    if shutil.which("strace") is None:
        absent("strace is not installed")
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1", TBXD_SYNC=sync, TBXD_SYNC_SECONDS="0.2") as place:
        tape = place.root / "tape"
        place.start("import tbxd.cli.main; tbxd.cli.main.main()", "serve", under=disk_log.command(tape))
        wait_for(place.running, "the daemon")
        run = train(place, "a")
        wait_for(lambda: samples(run) >= 3, "samples")

        def synced() -> bool:
            lines = tape.read_text(errors="replace").splitlines()
            data = [line for line in lines if "fdatasync(" in line and f"/a/system/{NODE}/events" in line]
            names = [line for line in lines if "fsync(" in line and "fdatasync(" not in line]
            above = all(any(f"<{folder}>" in line for line in names) for folder in (run, run / "system"))
            return len(data) >= 2 and above

        wait_for(synced, "syncs of the samples while the run is active, and of the folders that were made for them")
        place.kill_daemon()


def test_samples_that_the_disk_refuses_are_told_until_it_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = tmp_path.resolve()
    curves = Curves(tmp_path, "node", durable=True)
    curves.write({"x": 1.0}, 1e9)
    assert not curves.dirty and not curves.error
    sync = os.fdatasync

    def refused(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", refused)
    curves.write({"x": 2.0}, 1e9 + 1)
    assert curves.dirty and curves.error == "fsync: Input/output error"
    curves.close()
    assert curves.error == "fsync: Input/output error"
    monkeypatch.setattr(os, "fdatasync", sync)
    curves.write({"x": 3.0}, 1e9 + 2)
    assert not curves.dirty and not curves.error
    assert [value for _, value in scalars(tmp_path / "system" / "node")["system/x"]] == [1.0, 2.0, 3.0]
    late = Curves(tmp_path, "late")
    late.write({"x": 1.0}, 1e9)
    assert late.dirty
    late.sync()
    assert not late.dirty and not late.error
    for one in (curves, late):
        one.close()


def alive(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.long
def test_evaluations_that_come_and_go_have_their_samples_in_one_file(tmp_path: Path) -> None:
    with world(tmp_path, TBXD_SYSTEM_SECONDS="1") as place:
        place.serve()
        for number in range(3):
            run = train(place, "a")
            wait_for(lambda number=number, run=run: samples(run) > 2 * number + 1, "samples")
            end(place, "a")
            wait_for(lambda: not place.status()["system"]["runs"], "the run to be over")  # type: ignore[index]
            (place.root / "a.end").unlink()
        assert len(event_files(run / "system" / NODE)) == 1
        steps = [step for step, _ in curves_of(run)["system/cpu_percent"]]
        assert steps == sorted(set(steps))
