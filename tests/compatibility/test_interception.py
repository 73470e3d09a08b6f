"""Programs that step in between a writer and its file, by overrides, wrappers, mocks and patches."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from every_call import CALLS, content
from harness import World, events, scalars, world
from tbxd_client import FileWriter, SummaryWriter
from tbxd_client.session.run_handle import Run

BASES = {
    "tbxd": "from tbxd_client import FileWriter, SummaryWriter",
    "tensorboardX": "from tensorboardX import FileWriter, SummaryWriter",
    "torch": "from torch.utils.tensorboard import FileWriter, SummaryWriter",
}
# That the originals are as the tests take them to be takes 2 s for each, and changes with their releases alone.
EACH = ("tbxd", *(pytest.param(base, marks=pytest.mark.long) for base in ("tensorboardX", "torch")))
# What is called of every method that both originals have, without what they write beside summaries.
BOTH = """
import numpy as np, json, sys, warnings
from unittest import mock
warnings.simplefilter("ignore")

def both(w):
    ones = np.ones((3, 4, 5), np.uint8)
    w.add_scalar("scalar", 1.5, 1)
    w.add_histogram("histogram", np.arange(9.0), 3)
    w.add_histogram_raw("raw", 0.0, 1.0, 3, 2.0, 2.5, [0.0, 1.0], [1, 2], 4)
    w.add_image("image", ones, 5)
    w.add_images("images", np.stack([ones, ones]), 6)
    w.add_image_with_boxes("boxes", ones, np.array([[0, 1, 3, 2]]), 7)
    w.add_audio("audio", np.linspace(-1, 1, 50).astype(np.float32), 9, 8000)
    w.add_text("text", "text", 10)
    w.add_pr_curve("curve", np.array([0, 1, 1]), np.array([0.1, 0.7, 0.9]), 11, 5)
    w.add_pr_curve_raw("raw_curve", [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], 12, 2)
    w.add_custom_scalars({"c": {"t": ["Multiline", ["scalar"]]}})
    import matplotlib.figure
    w.add_figure("figure", matplotlib.figure.Figure(figsize=(1, 1)), 19)

def told(summary):
    return [[v.tag, v.WhichOneof("value")] for v in summary.value]
"""
SEEN = (
    BOTH
    + """
seen = []
class Looking:
    def __init__(self, inner):
        self.inner = inner
    def add_summary(self, summary, global_step=None, walltime=None):
        seen.append([told(summary), global_step or 0])
        self.inner.add_summary(summary, global_step, walltime)
    def __getattr__(self, name):
        return getattr(self.inner, name)

class Mine(SummaryWriter):
    asked = 0
    def _get_file_writer(self):
        self.asked += 1
        return Looking(super()._get_file_writer())
"""
)


def run(place: World, base: str, script: str) -> Any:
    result = place.run(BASES[base] + "\n" + script)
    assert result.returncode == 0, result.stderr[-3000:]
    place.ensure()
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_an_override_sees_of_every_method_what_it_sees_in_the_originals(
    place: World, seen_in_originals: dict[str, dict[str, Any]]
) -> None:
    ours = run(place, "tbxd", SEEN + SEEN_OF_ALL + "print(json.dumps([asked, seen]))")
    for base, found in seen_in_originals.items():
        theirs = found["every method"]
        assert ours[1] == theirs[1], base
        assert ours[0] == theirs[0] == 1, "the constructor asks once"
    assert len(ours[1]) == 12


def test_who_only_looks_on_changes_nothing(place: World) -> None:
    script = CALLS + SEEN + "\nfor kind, name in ((SummaryWriter, 'plain'), (Mine, 'mine')):\n"
    script += "    with kind('logs/' + name) as w:\n        every_call(w)\n"
    script += "print(json.dumps([len(seen), w.stats()['dropped']]))"
    count, dropped = run(place, "tbxd", script)
    assert count > 20
    assert dropped == {}
    plain = content(place.logdir / "plain")
    assert content(place.logdir / "mine") == plain
    assert sum(map(len, plain.values())) > 25


@pytest.mark.parametrize("base", EACH)
def test_what_a_wrapper_changes_is_what_is_written_and_what_it_keeps_is_not(place: World, base: str) -> None:
    script = (
        BOTH
        + """
class Changing:
    def __init__(self, inner):
        self.inner = inner
    def add_summary(self, summary, global_step=None, walltime=None):
        for value in summary.value:
            if value.tag == "secret":
                return
            value.tag = "mine/" + value.tag
            value.simple_value *= 2
        self.inner.add_summary(summary, global_step + 100, walltime)
    def __getattr__(self, name):
        return getattr(self.inner, name)

class Mine(SummaryWriter):
    def _get_file_writer(self):
        return Changing(super()._get_file_writer())

with Mine("logs/r") as w:
    w.add_scalar("loss", 1.5, 1)
    w.add_scalar("secret", 1.5, 2)
    w.add_scalar("loss", 2.5, 3)
print(0)
"""
    )
    run(place, base, script)
    assert scalars(place.logdir / "r") == {"mine/loss": [(101, 3.0), (103, 5.0)]}


REPLACED = {
    "add_summary of the file writer": (
        "inner = w.file_writer.add_summary\n"
        "w.file_writer.add_summary = lambda s, g=None, t=None: (seen.append(told(s)), inner(s, g, t))"
    ),
    "add_event of the file writer": (
        "inner = w.file_writer.add_event\n"
        "w.file_writer.add_event = lambda e, g=None, t=None: (seen.append(told(e.summary)), inner(e, g, t))"
    ),
    "add_event of the event writer": (
        "inner = w.file_writer.event_writer.add_event\n"
        "w.file_writer.event_writer.add_event = lambda e: (seen.append(told(e.summary) + [e.step]), inner(e))"
    ),
    "_get_file_writer of the object": (
        "inner = w._get_file_writer\nw._get_file_writer = lambda: (seen.append('asked'), inner())[1]"
    ),
    "a file writer of a subclass": (
        "class Own(FileWriter):\n"
        "    def add_event(self, event, step=None, walltime=None):\n"
        "        seen.append(told(event.summary)); super().add_event(event, step, walltime)\n"
        "w.file_writer = Own('logs/r')\nw.all_writers = {w.file_writer.get_logdir(): w.file_writer}"
    ),
    "a mock around one": "w.file_writer.add_summary = mock.Mock(wraps=w.file_writer.add_summary,"
    " side_effect=lambda s, *a: seen.append(told(s)) or mock.DEFAULT)",
}

# Of these the others go the same way: by an attribute of the file writer, and by one of the writer.
ELSEWHERE = ("add_event of the file writer", "_get_file_writer of the object", "a mock around one")

SEEN_OF_THREE = """
seen = []
w = SummaryWriter("logs/r")
{how}
w.add_scalar("x", 1.5, 1); w.add_histogram("h", np.arange(4.0), 2); w.add_text("t", "hi", 3)
w.close()
"""

SEEN_OF_ALL = "w = Mine('logs/all'); asked = w.asked; both(w); w.close()\n"


@pytest.fixture(scope="module")
def seen_in_originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is seen of both originals, by package and by what is replaced. In one process: each takes 2 s to begin."""
    scripts = {how: SEEN_OF_THREE.format(how=replaced) for how, replaced in REPLACED.items()}
    all_of_them = f"""
found = {{}}
for how, script in {scripts!r}.items():
    names = dict(globals())
    exec(script, names)
    found[how] = names["seen"]
names = dict(globals())
exec({SEEN + SEEN_OF_ALL!r}, names)
found["every method"] = [names["asked"], names["seen"]]
print(json.dumps(found))
"""
    with world(tmp_path_factory.mktemp("originals") / "world") as place:
        return {base: run(place, base, BOTH + all_of_them) for base in ("tensorboardX", "torch")}


@pytest.mark.parametrize("how", [pytest.param(how, marks=[pytest.mark.long] * (how in ELSEWHERE)) for how in REPLACED])
def test_what_is_put_in_the_place_of_a_method_is_called_as_in_the_originals(
    place: World, seen_in_originals: dict[str, dict[str, Any]], how: str
) -> None:
    script = BOTH + SEEN_OF_THREE.format(how=REPLACED[how])
    ours = run(place, "tbxd", script + "print(json.dumps(seen))")
    for base, seen in seen_in_originals.items():
        assert ours == seen[how], base
    assert len(ours) == 3
    assert scalars(place.logdir / "r") == {"x": [(1, 1.5)]}
    assert {value.tag for event in events(place.logdir / "r") for value in event.summary.value} == {
        *("x", "h", "t/text_summary"),
    }


@pytest.mark.parametrize("base", EACH)
def test_a_mock_gets_what_is_logged_and_nothing_is_written(place: World, base: str) -> None:
    script = (
        BOTH
        + """
w = SummaryWriter("logs/r")
w.add_scalar("before", 1.0, 1)
with mock.patch.object(w, "file_writer", mock.MagicMock()) as fake:
    w.all_writers = w.all_writers or {}
    w.add_scalar("x", 2.0, 2)
with mock.patch.object(w, "_get_file_writer") as asked:
    w.add_scalar("y", 3.0, 3)
    w.add_image("i", np.ones((3, 4, 5), np.uint8), 4)
with mock.patch.object(w.file_writer, "add_summary") as added:
    w.add_scalar("z", 5.0, 5)
w.add_scalar("after", 6.0, 6)
w.close()
calls = [*fake.add_summary.mock_calls, *asked().add_summary.mock_calls, *added.mock_calls]
print(json.dumps([[told(call.args[0]), call.args[1]] for call in calls]))
"""
    )
    assert run(place, base, script) == [
        [[["x", "simple_value"]], 2],
        [[["y", "simple_value"]], 3],
        [[["i", "image"]], 4],
        [[["z", "simple_value"]], 5],
    ]
    assert scalars(place.logdir / "r") == {"before": [(1, 1.0)], "after": [(6, 6.0)]}


@pytest.mark.parametrize("base", EACH)
def test_a_patch_of_the_class_sees_every_file_writer_as_trackers_do_it(place: World, base: str) -> None:
    script = (
        BOTH
        + """
seen, inner = [], FileWriter.add_event
def add_event(self, event, step=None, walltime=None):
    if event.WhichOneof("what") == "summary":
        values = [v for v in event.summary.value if v.WhichOneof("value") == "simple_value"]
        seen.extend([v.tag, v.simple_value, step] for v in values)
    return inner(self, event, step, walltime)
FileWriter.add_event = add_event
w = SummaryWriter("logs/r")
w.add_scalar("x", 1.5, 1)
w.add_scalars("many", {"a": 2.5}, 2)
w.add_hparams({"lr": 0.1}, {"score": 3.5}, **({} if SummaryWriter.__module__.startswith("torch") else {"name": "row"}))
w.close()
print(json.dumps([one for one in seen if not one[0].startswith("_hparams_")]))
"""
    )
    ours = run(place, base, script)
    assert [one[:2] for one in ours] == [["x", 1.5], ["many", 2.5], ["score", 3.5]]
    assert scalars(place.logdir / "r") == {"x": [(1, 1.5)]}


@pytest.mark.parametrize("package", ["tensorboardX", "torch.utils.tensorboard"])
def test_the_file_writer_of_an_original_takes_it_and_is_closed_with_the_writer(place: World, package: str) -> None:
    """Both originals may be imported: the messages are those that its file writer takes."""
    script = (
        BOTH
        + f"""
import tensorboardX, torch.utils.tensorboard
from {package} import FileWriter as Theirs
class Mine(SummaryWriter):
    def _get_file_writer(self):
        if self.all_writers is None or self.file_writer is None:
            self.file_writer = Theirs("logs/theirs")
            self.all_writers = {{"logs/theirs": self.file_writer}}
        return self.file_writer
w = Mine("logs/r")
both(w)
w.close()
print(json.dumps([w.file_writer is None, w.stats()["accepted"]]))
"""
    )
    assert run(place, "tbxd", script) == [True, 0]
    found = content(place.logdir)["theirs"]
    assert len(found) == 12
    assert (1, "scalar", "simple_value") in [one[:3] for one in found]


@pytest.mark.parametrize("base", EACH)
def test_add_graph_of_the_file_writer_gets_the_graph(place: World, base: str) -> None:
    script = (
        BOTH
        + """
import torch
seen = []
class Mine(SummaryWriter):
    def _get_file_writer(self):
        found = super()._get_file_writer()
        inner = found.__class__.add_graph
        def add_graph(profile, walltime=None):
            seen.append(len(profile[0].node) > 2)
            inner(found, profile, walltime)
        found.add_graph = add_graph
        return found
with Mine("logs/r") as w:
    w.add_graph(torch.nn.Linear(2, 3), torch.ones(1, 2))
print(json.dumps(seen))
"""
    )
    assert run(place, base, script) == [True]
    assert [event.WhichOneof("what") for event in events(place.logdir / "r")].count("graph_def") == 1


@pytest.mark.parametrize("base", ["tbxd", "tensorboardX"])
def test_it_is_asked_also_where_nothing_is_written(place: World, base: str) -> None:
    script = (
        SEEN
        + "with Mine('logs/r', write_to_disk=False) as w: w.add_scalar('x', 1.0, 3); w.add_scalars('m', {'a': 1.0})\n"
    )
    script += "print(json.dumps([seen, list(w.scalar_dict.values())[0][0][2]]))"
    assert run(place, base, script) == [[[[["x", "simple_value"]], 3]], 1.0]
    assert not list(place.logdir.rglob("*tfevents*"))


@pytest.mark.parametrize("base", EACH)
def test_a_figure_is_seen_by_an_add_image_of_a_subclass(place: World, base: str) -> None:
    script = (
        BOTH
        + """
seen = []
class Mine(SummaryWriter):
    def add_image(self, tag, img_tensor, *a, **k):
        seen.append([tag, list(img_tensor.shape)])
        return super().add_image(tag, img_tensor, *a, **k)
import matplotlib.figure
figure = lambda: matplotlib.figure.Figure(figsize=(1, 2), dpi=10)
with Mine("logs/r") as w:
    w.add_figure("one", figure(), 1)
    w.add_figure("two", [figure(), figure()], 2)
print(json.dumps(seen))
"""
    )
    assert run(place, base, script) == [["one", [3, 20, 10]], ["two", [2, 3, 20, 10]]]
    assert len([v for event in events(place.logdir / "r") for v in event.summary.value]) == 2


@pytest.mark.long
def test_it_holds_for_copies_and_in_other_processes(place: World) -> None:
    program = place.root / "program.py"
    program.write_text(
        BASES["tbxd"]
        + SEEN
        + """
import multiprocessing, pickle
def log(w, step):
    w.add_scalar("x", float(step), step)
    print(json.dumps([w.asked, seen]), flush=True)
    w.close()
if __name__ == "__main__":
    w = Mine("logs/r")
    log(pickle.loads(pickle.dumps(w)), 1)
    seen.clear()
    child = multiprocessing.get_context("spawn").Process(target=log, args=(w, 2))
    child.start(); child.join()
"""
    )
    result = place.run(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [seen for _, seen in lines] == [[[[["x", "simple_value"]], step]] for step in (1, 2)]
    place.ensure()
    assert scalars(place.logdir / "r") == {"x": [(1, 1.0), (2, 2.0)]}


def test_without_a_package_for_messages_scalars_are_their_bytes_and_others_pass(place: World) -> None:
    script = """
import sys, json
for name in ("tensorboardX", "torch", "tensorboard"):
    sys.modules[name] = None
import numpy as np
from unittest import mock
w = SummaryWriter("logs/r")
added = w.file_writer.add_summary = mock.Mock(wraps=w.file_writer.add_summary)
w.add_scalar("x", 1.5, 1)
w.add_histogram("h", np.arange(4.0), 2)
w.add_text("t", "hi", 3)
w.close()
print(json.dumps([[type(call.args[0]).__name__, call.args[1]] for call in added.mock_calls]))
"""
    assert run(place, "tbxd", script) == [["bytes", 1]]
    tags = [value.tag for event in events(place.logdir / "r") for value in event.summary.value]
    assert tags == ["x", "h", "t/text_summary"]


@pytest.mark.skipif(sys.version_info[:2] not in ((3, 11), (3, 12)), reason="other Pythons keep attributes otherwise")
def test_no_dictionary_is_made_of_a_writer_that_is_used(place: World) -> None:
    """With one, which ``vars`` makes, Python finds the attributes that `add_scalar` needs a tenth more slowly."""
    script = """
import gc, json, pickle
found = []
for w in (SummaryWriter("logs/r"), pickle.loads(pickle.dumps(SummaryWriter("logs/s")))):
    w.add_scalar("x", 1.0, 1)
    w.add_histogram("h", [1.0, 2.0], 1)
    w.flush()
    w.close()
    w.add_scalar("x", 1.0, 2)
    found += [one for one in gc.get_referents(w) if isinstance(one, dict) and "_tbxd_run" in one]
print(len(found))
"""
    assert run(place, "tbxd", script) == 0


def test_a_writer_that_nobody_has_changed_logs_straight_to_its_run(place: World) -> None:
    """And a subclass that changes nothing of this, too: so it pays nothing."""

    class Mine(SummaryWriter):
        def add_scalar(self, *arguments: Any, **more: Any) -> None:
            super().add_scalar(*arguments, **more)

        def _step(self) -> int:
            return 1

    for kind in (SummaryWriter, Mine):
        writer = kind(place.logdir / "r")
        assert type(writer._tbxd_run) is Run
        writer._get_file_writer()
        writer.close()
        writer.file_writer = None
        writer._get_file_writer()
        assert type(writer._tbxd_run) is Run
        writer.file_writer.add_summary = lambda *a: None
        assert type(writer._tbxd_run) is not Run
        del writer.file_writer.add_summary
        assert type(writer._tbxd_run) is Run
        writer.file_writer = FileWriter(place.logdir / "other")
        assert type(writer._tbxd_run) is not Run
