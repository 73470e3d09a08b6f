"""Notebooks: a real ipykernel runs cells that log, is interrupted, restarted and shut down."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness import DEADLINE, World, events, scalars, wait_for

jupyter_client = pytest.importorskip("jupyter_client", reason="jupyter_client is not installed (the dev extra has it)")
pytest.importorskip("ipykernel", reason="ipykernel is not installed (the dev extra has it)")

OPEN = "from tbxd_client import SummaryWriter\nwriter = SummaryWriter('logs/a')"
BUSY = """
step = {first}
try:
    while True:
        writer.add_scalar('{tag}', float(step % 100), step)
        step += 1
        if step == {first} + 1000:
            print('busy', flush=True)
finally:
    print(step, flush=True)
"""


def said_only(found: dict[str, list[Any]], text: str) -> bool:
    """Whether a cell has printed this and nothing else was put out; a line and its end may come apart."""
    return found.keys() == {"stdout"} and "".join(found["stdout"]).strip() == text


class Notebook:
    """A kernel of a world and what its cells have put out."""

    def __init__(self, place: World) -> None:
        self.manager = jupyter_client.KernelManager(kernel_name="python3")
        self.log = open(place.root / "kernel.log", "wb")  # noqa: SIM115 - a restarted kernel gets it again
        self.manager.start_kernel(
            env={**place.environ, "IPYTHONDIR": str(place.root / "ipython")}, cwd=str(place.root), stderr=self.log
        )
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=DEADLINE)

    def begin(self, code: str) -> str:
        """Send a cell; its message id."""
        return str(self.client.execute(code))

    def outputs(self, cell: str, until: str = "") -> dict[str, list[Any]]:
        """What a cell puts out, by kind, to its end or until it has printed something."""
        found: dict[str, list[Any]] = {}
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return found
            if kind == "stream":
                found.setdefault(content["name"], []).append(content["text"])
                if until and until in content["text"]:
                    return found
            elif kind == "error":
                found.setdefault("error", []).append(content["ename"])
            elif kind in ("display_data", "execute_result"):
                found.setdefault(kind, []).append(content["data"])
        raise AssertionError(f"the cell did not end: {found}")

    def run(self, code: str) -> dict[str, list[Any]]:
        """Run a cell to its end."""
        return self.outputs(self.begin(code))

    def interrupted(self, tag: str, first: int = 0) -> int:
        """Run a cell that logs for ever, interrupt it, and say at which step it was."""
        cell = self.begin(BUSY.format(tag=tag, first=first))
        assert said_only(self.outputs(cell, until="busy"), "busy")
        self.manager.interrupt_kernel()
        said = self.outputs(cell)
        assert said.keys() == {"stdout", "error"} and said["error"] == ["KeyboardInterrupt"], said
        return int("".join(said["stdout"]))

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self.log.close()


@pytest.fixture
def notebook(place: World) -> Iterator[Notebook]:
    made = Notebook(place)
    try:
        yield made
    finally:
        made.close()


def expected(count: int, first: int = 0) -> list[tuple[int, float]]:
    return [(step, float(step % 100)) for step in range(first, count)]


def lies_at(found: list[tuple[int, float]], logged: int, first: int = 0) -> None:
    """What a cell interrupted in step ``logged`` has logged: the call it was in may have ended or not."""
    assert found in (expected(logged, first), expected(logged + 1, first)), (len(found), logged, first)


def test_cells_log_and_put_out_only_what_is_theirs(place: World, notebook: Notebook) -> None:
    """A cell each for the writer, calls, a plot, and the writer made anew, as people run cells again."""
    assert notebook.run(OPEN) == {}
    assert notebook.run("for step in range(500):\n    writer.add_scalar('value', float(step % 100), step)") == {}
    plotted = notebook.run(
        """
%matplotlib inline
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([1, 2, 3])
writer.add_figure('figure', figure, 0, close=False)
plt.show()
"""
    )
    assert plotted.keys() == {"display_data"} and "image/png" in plotted["display_data"][0]
    assert notebook.run(OPEN) == {}
    assert notebook.run("for step in range(500, 900):\n    writer.add_scalar('value', float(step % 100), step)") == {}
    (result,) = notebook.run("writer.flush(60)")["execute_result"]
    assert result["text/plain"] == "True"
    assert scalars(place.logdir / "a") == {"value": expected(900)}
    pictures = [value for event in events(place.logdir / "a") for value in event.summary.value if value.tag == "figure"]
    assert [picture.WhichOneof("value") for picture in pictures] == ["image"]
    assert notebook.run("writer.stats()['accepted'], writer.stats()['dropped']")["execute_result"][0]["text/plain"] == (
        "(901, {})"
    )


def test_an_interrupted_cell_a_restart_and_a_shutdown_lose_nothing(place: World, notebook: Notebook) -> None:
    assert notebook.run(OPEN) == {}
    first = notebook.interrupted("first")
    again = notebook.interrupted("again")  # the session is whole after an interruption
    notebook.manager.restart_kernel()
    notebook.client.wait_for_ready(timeout=DEADLINE)
    assert notebook.run(OPEN) == {}
    third = notebook.interrupted("third")
    notebook.manager.shutdown_kernel()
    wait_for(place.drained, "the journals")
    found = scalars(place.logdir / "a")
    assert found.keys() == {"first", "again", "third"}
    for tag, logged in (("first", first), ("again", again), ("third", third)):
        lies_at(found[tag], logged)


@pytest.mark.parametrize("now", [False, True], ids=["restart", "restart at once"])
def test_a_kernel_restarted_in_the_middle_of_a_cell_leaves_what_it_logged(
    place: World, notebook: Notebook, now: bool
) -> None:
    assert notebook.run(OPEN) == {}
    cell = notebook.begin(BUSY.format(tag="value", first=0))
    assert said_only(notebook.outputs(cell, until="busy"), "busy")
    notebook.manager.restart_kernel(now=now)
    notebook.client.wait_for_ready(timeout=DEADLINE)
    assert notebook.run(OPEN) == {}
    assert notebook.run("writer.add_scalar('next', 1.0, 0)") == {}
    assert notebook.run("assert writer.flush(60)") == {}
    notebook.manager.shutdown_kernel()
    wait_for(place.drained, "the journals")
    found = scalars(place.logdir / "a")
    assert found["next"] == [(0, 1.0)]
    assert len(found["value"]) >= 1000 and found["value"] == expected(len(found["value"]))


def test_a_kernel_without_a_daemon_is_not_held_up_and_its_cells_are_clean(place: World) -> None:
    place.extra |= {"TBXD_ADDRESS": "ipc:///nonexistent/nobody.sock", "TBXD_FLUSH_SECONDS": "0"}
    notebook = Notebook(place)
    try:
        assert notebook.run(OPEN) == {}
        assert notebook.run("for step in range(500):\n    writer.add_scalar('value', float(step), step)") == {}
        assert notebook.run("assert writer.stats()['pending'] == 500") == {}
    finally:
        notebook.manager.shutdown_kernel()
        notebook.close()
    assert len(place.journals()) == 1
    del place.extra["TBXD_ADDRESS"]
    assert place.tbxd("drain").returncode == 0
    assert len(scalars(place.logdir / "a")["value"]) == 500
