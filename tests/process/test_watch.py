"""``watch``: the parameters and gradients of a model that is trained, logged by themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import World, events

MODEL = """
    import gc, json, sys, weakref
    import numpy as np
    import torch
    from torch.optim import optimizer as of_torch
    from torch.utils.checkpoint import checkpoint
    from tbxd_client import SummaryWriter

    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Block(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm, self.attention = torch.nn.LayerNorm(width), torch.nn.MultiheadAttention(width, 2)
            self.mlp = torch.nn.Sequential(torch.nn.Linear(width, 64), torch.nn.ReLU(), torch.nn.Linear(64, width))
        def forward(self, x):
            y = self.norm(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(self.norm(x))

    class Model(torch.nn.Module):
        def __init__(self, width=16):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(20, width), torch.nn.Linear(width, 20)
            self.blocks = torch.nn.ModuleList([Block(width) for _ in range(2)])
        def forward(self, tokens):
            x = self.embed(tokens)
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.head(x)

    def backward(model, times=1):
        for _ in range(times):
            tokens = torch.randint(0, 20, (6, 4))
            torch.nn.functional.cross_entropy(model(tokens).view(-1, 20), tokens.view(-1)).backward()

    def hooks():
        return len(of_torch._global_optimizer_post_hooks)
"""


def histograms(folder: Path) -> dict[tuple[str, int], Any]:
    return {
        (value.tag, event.step): value.histo
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("histo")
    }


def numbers(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }


def test_a_training_logs_what_numpy_finds_of_each_tensor_and_nothing_stays_behind(place: World) -> None:
    """With gradient accumulation, checkpointing and set_to_none, and a second optimizer."""
    place.serve()
    result = place.run(
        MODEL
        + """
    model, other = Model(), torch.nn.Linear(2, 2)
    before = hooks(), set(vars(model)), [len(part._forward_hooks) for part in model.modules()]
    writer = SummaryWriter("logs/a")
    writer.watch(model, every=3)
    matrices = [one for one in model.parameters() if one.ndim > 1]
    first = torch.optim.AdamW(matrices, lr=0.01)
    second = torch.optim.SGD([one for one in model.parameters() if one.ndim < 2], lr=0.01)
    foreign = torch.optim.SGD(other.parameters(), lr=0.01)
    wanted = {}
    for step in range(7):
        foreign.step()
        backward(model, times=2)
        first.step()
        for name, one in model.named_parameters():
            for kind, tensor in (("parameters", one), ("gradients", one.grad)):
                array = tensor.detach().numpy().astype(float)
                wanted[f"{kind}/{name} {step}"] = [
                    array.size, float(array.min()), float(array.sum()), float(np.linalg.norm(array)),
                    float((array == 0).mean())]
        second.step()
        first.zero_grad(set_to_none=True)
        second.zero_grad(set_to_none=True)
    writer.unwatch(model)
    after = hooks(), set(vars(model)), [len(part._forward_hooks) for part in model.modules()]
    assert before == after
    backward(model)
    first.step()
    assert writer.flush(30)
    print(json.dumps(wanted))
    """
    )
    assert result.returncode == 0, result.stderr
    wanted = json.loads(result.stdout)
    found, scalars = histograms(place.logdir / "a"), numbers(place.logdir / "a")
    names = {key.split()[0] for key in wanted}
    assert set(found) == {(name, step) for name in names for step in (0, 3, 6)}
    for (name, step), histogram in found.items():
        size, least, total, norm, zeros = wanted[f"{name} {step}"]
        assert (histogram.num, histogram.min) == (size, least)
        assert histogram.sum == pytest.approx(total, rel=1e-9, abs=1e-12)
        assert sum(histogram.bucket) == size
        assert scalars["norms/" + name, step] == pytest.approx(norm, rel=1e-6)
        assert scalars["zeros/" + name, step] == pytest.approx(zeros, rel=1e-6)
    for kind in ("parameters", "gradients"):
        squares = [numbers[3] ** 2 for key, numbers in wanted.items() if key.startswith(kind) and key.endswith(" 6")]
        assert scalars["norms/" + kind, 6] == pytest.approx(math.sqrt(np.sum(squares)), rel=1e-6)
    assert not [tag for tag, _ in scalars if "nonfinite" in tag]


def test_the_first_tensor_that_is_not_finite_is_named(place: World) -> None:
    place.serve()
    result = place.run(
        MODEL
        + """
    model = Model()
    writer = SummaryWriter("logs/a")
    writer.watch(model, every=1, what="gradients", step=lambda: 40 + step)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for step in range(3):
        backward(model)
        if step == 1:
            model.blocks[1].mlp[0].weight.grad[3, 2] = float("nan")
            model.head.bias.grad[:2] = float("inf")
        optimizer.step()
        optimizer.zero_grad()
    writer.close()
    """
    )
    assert result.returncode == 0, result.stderr
    said = [
        (event.step, value.tensor.string_val[0].decode())
        for event in events(place.logdir / "a")
        for value in event.summary.value
        if value.tag.startswith("tbxd/nonfinite")
    ]
    (step, text), *_ = said
    assert (step, text) == (41, "gradients/head.bias: of 20 numbers 0 are NaN and 2 infinite")
    assert result.stderr.count(f"at step 41 {text}") == 1


def test_gradients_that_are_made_in_the_step_are_those_of_that_step(place: World) -> None:
    """As Lightning makes them: in a closure, which first sets the last ones to None."""
    place.serve()
    result = place.run(
        MODEL
        + """
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    writer = SummaryWriter("logs/a")
    writer.watch(model, every=1, what="gradients")
    for step in range(3):
        def closure():
            optimizer.zero_grad()
            loss = model(torch.full((1, 1), 1.0 + step)).sum()
            loss.backward()
            return loss
        optimizer.step(closure)
    writer.close()
    """
    )
    assert result.returncode == 0, result.stderr
    found = histograms(place.logdir / "a")
    assert {step: found["gradients/weight", step].max for step in range(3)} == {0: 1.0, 1: 2.0, 2: 3.0}


def test_wrapped_and_compiled_models_have_the_names_of_their_own(place: World) -> None:
    place.serve()
    result = place.run(
        MODEL
        + """
    model = torch.compile(Model(), backend="eager")
    writer = SummaryWriter("logs/a")
    writer.watch(model, every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model)
    optimizer.step()
    step = torch.compile(optimizer.step, backend="eager")
    step()  # looks at no hook
    writer.close()
    assert hooks() == 0
    """,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    found = histograms(place.logdir / "a")
    assert {step for _, step in found} == {0} and ("gradients/blocks.0.mlp.2.weight", 0) in found
    assert not [tag for tag, _ in found if "_orig_mod" in tag]


def test_a_model_that_is_gone_is_let_go_and_one_that_is_watched_anew_is_watched_once(place: World) -> None:
    place.serve()
    result = place.run(
        MODEL
        + """
    writer, other = SummaryWriter("logs/a"), SummaryWriter("logs/b")
    model = Model()
    writer.watch(model)
    writer.watch(model, what="parameters")
    other.watch(model)
    assert hooks() == 2
    other.unwatch()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and hooks() == 0
    """
    )
    assert result.returncode == 0, result.stderr


def test_nothing_that_goes_wrong_comes_out_of_the_optimizers_step(place: World) -> None:
    place.serve()
    result = place.run(
        MODEL
        + """
    parameter = lambda *shape: torch.nn.Parameter(torch.ones(*shape))
    model = torch.nn.ParameterDict({"good": parameter(3), "sparse": parameter(4, 2)})
    writer = SummaryWriter("logs/a")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    writer.watch(model, every=1, what="gradients")
    model["good"].grad = torch.ones(3)
    model["sparse"].grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (4, 2))
    optimizer.step()
    writer.watch(model, every=1, step=lambda: 1 / 0)
    optimizer.step()
    class Stop(BaseException):
        pass
    def stop():
        raise Stop
    writer.watch(model, every=1, step=stop)
    try:
        optimizer.step()
    except Stop:
        print("stopped")
    writer.close()
    """
    )
    assert result.returncode == 0 and result.stdout == "stopped\n", result.stderr
    assert result.stderr.count("ZeroDivisionError") == 1
    assert ("gradients/good", 0) in histograms(place.logdir / "a")


def test_an_override_of_the_file_writer_sees_what_is_watched(place: World) -> None:
    place.serve()
    result = place.run(
        MODEL
        + """
    class Looking:
        def __init__(self, inner):
            self.inner = inner
        def add_summary(self, summary, *more):
            seen.update(value.tag for value in summary.value)
            self.inner.add_summary(summary, *more)
        def __getattr__(self, name):
            return getattr(self.inner, name)
    class Mine(SummaryWriter):
        def _get_file_writer(self):
            return Looking(super()._get_file_writer())
    seen = set()
    model = torch.nn.Linear(2, 3)
    with Mine("logs/a") as writer:
        writer.watch(model, what="parameters")
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    print(json.dumps(sorted(seen)))
    """
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert {"parameters/weight", "norms/parameters/bias", "zeros/parameters/bias", "norms/parameters"} <= set(seen)
    assert histograms(place.logdir / "a").keys() == {("parameters/weight", 0), ("parameters/bias", 0)}


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    import torch

    from tbxd_client import SummaryWriter

    writer, model = SummaryWriter(tmp_path), torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        writer.watch("model")
    for every in (0, 1.5, -1):
        with pytest.raises(ValueError, match="every"):
            writer.watch(model, every=every)  # type: ignore[arg-type]
    for what in ("weights", ["gradients", 1], [], 7):
        with pytest.raises(ValueError, match="'parameters', 'gradients'"):
            writer.watch(model, what=what)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="step"):
        writer.watch(model, step=3)  # type: ignore[arg-type]
    writer.unwatch(model)
