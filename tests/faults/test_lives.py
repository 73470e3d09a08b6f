"""How trainers begin and end: every way out with every state of the daemon, every kind of child under kills."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness import World, events, wait_for
from inject import train
from oracle import Count, judge, read_count
from report import account

EXITS = {
    "return": (0,),
    "sys.exit": (7,),
    "exception": (1,),
    "os._exit": (9,),
    "SIGTERM": (-signal.SIGTERM,),
    "SIGKILL": (-signal.SIGKILL,),
    "Ctrl-C": (-signal.SIGINT,),
    "double Ctrl-C": (-signal.SIGINT,),
}
FLUSH_SECONDS = 2.0
SLOW_MACHINE_SECONDS = 8.0  # seven interpreters that end at once on two cores, with other tests beside them
COUNT = 3000


@pytest.mark.parametrize("daemon", ["present", "absent", pytest.param("stopped", marks=pytest.mark.matrix)])
def test_every_way_out_is_gone_within_its_bound_with_its_own_exit_code(place: World, daemon: str) -> None:
    if daemon != "absent":
        server = place.serve()
    environ = {"TBXD_FLUSH_SECONDS": str(FLUSH_SECONDS), "TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}
    trainers: dict[str, Any] = {}
    for number, how in enumerate(EXITS):
        end = "Ctrl-C" if how == "double Ctrl-C" else how
        trainers[how] = train(place, number, "logs/a", count=COUNT, wait=True, end=end, environ=environ)
    for number in range(len(EXITS)):
        wait_for(lambda number=number: read_count(place, number).ended, "the trainers to log")
    if daemon == "stopped":
        server.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    for how, trainer in trainers.items():
        assert trainer.stdin is not None
        trainer.stdin.write(b"\n")
        trainer.stdin.flush()
        if how == "double Ctrl-C" and daemon != "present":
            # The second one comes while it waits for the daemon in its last flush.
            wait_for(lambda: time.monotonic() > started + 0.5, "the last flush to begin")
            trainer.send_signal(signal.SIGINT)
    for how, trainer in trainers.items():
        code = trainer.wait(FLUSH_SECONDS + 20)
        assert code in EXITS[how], f"{how}: {code}"
    took = time.monotonic() - started
    assert took < FLUSH_SECONDS + SLOW_MACHINE_SECONDS, f"gone after {took:.1f} s"
    if daemon == "stopped":
        server.send_signal(signal.SIGCONT)
    place.ensure()
    wait_for(place.drained, "the journals")
    counts = {number: read_count(place, number) for number in range(len(EXITS))}
    assert all(count.returned == COUNT for count in counts.values())
    account("exits", len(EXITS), judge([place.logdir / "a"], counts))


IMPATIENT = """
import atexit, signal, sys
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for step in range(50):
    writer.add_scalar("value", step, step)
if sys.argv[1] == "raises":
    def ring(number, frame):
        raise TimeoutError("the time is over")
else:
    ring = signal.default_int_handler
signal.signal(signal.SIGALRM, ring)
atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.5)  # called before the last flush begins, which takes longer
"""


@pytest.mark.parametrize("how", ["Ctrl-C", "raises"])
@pytest.mark.parametrize("kept", ["on disk", "in memory"])
def test_who_does_not_want_to_wait_at_the_end_is_told_all_the_same(place: World, how: str, kept: str) -> None:
    """Ctrl-C once more, in the last flush: it ends the waiting, and not what is said of records."""
    environ = {"TBXD_FLUSH_SECONDS": "50", "TBXD_ADDRESS": f"ipc://{place.runtime}/nobody.sock"}
    under = ["prlimit", "--fsize=200000"] if kept == "in memory" else []
    trainer = place.start(IMPATIENT, how, under=under, environ=environ, stderr=subprocess.PIPE, text=True)
    _, said = trainer.communicate(timeout=40)  # and not the 50 s
    assert trainer.returncode == 0
    assert ("Traceback" in said) == (how == "raises"), said
    if kept == "in memory":
        assert "50 records were dropped in this process: 50 no_journal" in said, said
        return
    assert f"bytes of records wait in {place.spool}" in said, said
    place.ensure()
    wait_for(place.drained, "the journal")
    assert [event.step for event in events(place.logdir / "a") if event.summary.value] == list(range(50))


CHILDREN = """
import multiprocessing, os, sys, threading
sys.path.insert(0, sys.argv[2])
from trainer import Counter
from numbered import log_record
from tbxd_client import SummaryWriter

def work(writer, number, count):
    counter = Counter(number)
    for n in range(count):
        log_record(writer, number, n)
        counter.returned(n + 1)
        if n % 20 == 19:
            import time
            time.sleep(0.02)
    counter.ended()

class Data:
    def __init__(self, writer, count):
        self.writer, self.count = writer, count
    def __len__(self):
        return 4
    def __getitem__(self, index):
        work(self.writer, 1 + index, self.count)
        return index

if __name__ == "__main__":
    method, count = sys.argv[1], int(sys.argv[3])
    writer = SummaryWriter("logs/a")
    log_record(writer, 0, 0)
    if method == "DataLoader":
        import torch
        loader = torch.utils.data.DataLoader(Data(writer, count), batch_size=1, num_workers=2)
        assert len(list(loader)) == 4
    elif method == "threads":
        children = [threading.Thread(target=work, args=(writer, 1 + n, count)) for n in range(4)]
        for child in children: child.start()
        for child in children: child.join()
    else:
        context = multiprocessing.get_context(method)
        children = [context.Process(target=work, args=(writer, 1 + n, count)) for n in range(4)]
        for child in children: child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
"""


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.matrix) for name in ("fork", "forkserver", "spawn", "threads", "DataLoader")],
)
def test_children_of_every_kind_log_everything_while_the_daemon_is_killed(place: World, method: str) -> None:
    (place.root / "script.py").write_text(CHILDREN)
    trainer = place.start(
        "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('script.py', run_name='__main__')",
        method,
        Path(__file__).parent,
        1500,
    )
    kills = 0
    while trainer.poll() is None:
        begun = sum(read_count(place, number).returned for number in range(1, 5))
        wait_for(
            lambda begun=begun: (
                trainer.poll() is not None
                or sum(read_count(place, number).returned for number in range(1, 5)) > begun + 700
            ),
            "the children to log",
        )
        # A client whose new daemons are killed before they have answered waits in the end, and may be gone before.
        if wait_for(lambda: place.running() or trainer.poll() is not None, "a daemon to kill") and place.running():
            place.kill_daemon()
            kills += 1
    assert trainer.returncode == 0
    place.ensure()
    wait_for(place.drained, "the children's journals")
    counts = {number: read_count(place, number) for number in range(1, 5)}
    assert all(count.ended for count in counts.values())
    counts[0] = Count(1, True)
    account("processes", kills, judge([place.logdir / "a"], counts))
