"""``add_histograms``: all arrays of a model in one call, as a call of ``add_histogram`` for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import World, events

SCRIPT = """
    import torch
    from tbxd_client import GlobalSummaryWriter, SummaryWriter

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(50, 16), torch.nn.LSTM(16, 8), torch.nn.Identity())
    model.half_scale = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    once, each = SummaryWriter("logs/once"), SummaryWriter("logs/each")
    gradients = lambda: ((name, one.grad) for name, one in model.named_parameters())
    for step in range(3):
        once.add_histograms(model.named_parameters(), step)
        once.add_histograms(gradients(), step, prefix="gradients/", color="#ff0000")
        once.add_histograms(torch.nn.ParameterDict(), step)
        for name, one in model.named_parameters():
            each.add_histogram(name, one, step)
            if one.grad is not None:
                each.add_histogram("gradients/" + name, one.grad, step, color="#ff0000")
        model.zero_grad()
        model[1](model[0](torch.arange(12)))[0].square().sum().backward()
    counted = GlobalSummaryWriter("logs/counted")
    for _ in range(2):
        counted.add_histograms({"weight": model[0].weight})
    for writer in (once, each, counted):
        writer.close()
"""


def histograms(folder: Path) -> list[tuple[int, str, bytes]]:
    return [
        (event.step, value.tag, value.SerializeToString())
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("histo")
    ]


def test_one_call_logs_what_a_call_for_each_array_does(place: World) -> None:
    place.serve()
    result = place.run(SCRIPT)
    assert result.returncode == 0, result.stderr
    found = histograms(place.logdir / "once")
    assert sorted(found) == sorted(histograms(place.logdir / "each"))
    names = {tag for _, tag, _ in found}
    assert {"0.weight", "1.weight_hh_l0", "half_scale", "gradients/0.weight"} <= names
    assert "gradients/half_scale" not in names and {step for step, tag, _ in found if tag[0] == "g"} == {1, 2}
    assert [step for step, _, _ in histograms(place.logdir / "counted")] == [0, 1]


def test_all_have_one_wall_time(place: World) -> None:
    place.serve()
    result = place.run("""
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_histograms({f"tag {number}": [float(number)] for number in range(200)}, 1)
    """)
    assert result.returncode == 0, result.stderr
    times = {event.wall_time for event in events(place.logdir / "a") if event.HasField("summary")}
    assert len(histograms(place.logdir / "a")) == 200 and len(times) == 1


WRONG: dict[str, Any] = {
    "no iterable": object(),
    "a string": "ab",
    "arrays without names": [[1.0, 2.0]],
    "names alone": {"a": 1}.keys(),
    "three": [("a", [1.0], 2)],
}


@pytest.mark.parametrize("what", WRONG)
def test_what_gives_no_pairs_is_refused_with_an_example(tmp_path: Path, what: str) -> None:
    from tbxd_client import SummaryWriter

    writer = SummaryWriter(tmp_path / "logs")
    with pytest.raises(TypeError, match=r"add_histograms: .*model\.named_parameters\(\)"):
        writer.add_histograms(WRONG[what], 1)
    assert writer.stats()["accepted"] == 0


def test_an_override_of_add_histogram_sees_each_and_a_wrong_array_is_named(place: World) -> None:
    place.serve()
    result = place.run("""
        import json
        from tbxd_client import SummaryWriter
        class Mine(SummaryWriter):
            def add_histogram(self, tag, *arguments, **more):
                seen.append(tag)
                super().add_histogram(tag, *arguments, **more)
        seen = []
        with Mine("logs/a") as writer:
            try:
                writer.add_histograms({"good": [1.0], "bad": ["x"], "late": [2.0]}, 1, prefix="w/")
            except (TypeError, ValueError) as error:
                said = str(error)
        print(json.dumps([seen, said]))
    """)
    assert result.returncode == 0, result.stderr
    seen, said = json.loads(result.stdout)
    assert seen == ["w/good", "w/bad"] and "'w/bad'" in said
    assert [tag for _, tag, _ in histograms(place.logdir / "a")] == ["w/good"]
