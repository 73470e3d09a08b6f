"""Models whose graphs are compared; imported by the tests and by the trainers that they start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.lin(x))


class Nested(nn.Module):
    """Modules in modules, a list of them, a parameter and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Inner()
        self.blocks = nn.ModuleList([Inner(), Inner()])
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("shift", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x * self.scale + self.shift


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.lin(x) + y


class DictInput(TwoInputs):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.lin(batch["x"]) + batch["y"]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout())
        self.head = nn.Linear(8 * 3 * 3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return functional.log_softmax(self.head(self.features(x).flatten(1)), 1)


class UsedTwice(nn.Module):
    """One module at three places and under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.again = self.lin

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.lin(self.lin(x)))


class TupleOutput(UsedTwice):
    def forward(self, x: Tensor) -> Any:
        return self.lin(x), (x, x + 1)


class DictOutput(UsedTwice):
    def forward(self, x: Tensor) -> Any:
        return {"a": self.lin(x), "b": x}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        weights = functional.softmax(self.query(x) @ self.key(x).transpose(-1, -2) / 8**0.5, -1)
        return weights @ self.value(x)


class Constants(nn.Module):
    """Small and large constants; a text that TensorBoard's parser would stumble over."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.arange(3000.0)[:4]
        y[0] = 3
        return torch.div(y, 2, rounding_mode="floor")


class PassesOn(nn.Module):
    """An input that is the output, and one that nothing is done with."""

    def forward(self, x: Tensor, unused: Tensor) -> Tensor:
        return x


class WithoutInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(3)


class NamedOutput(nn.Module):
    """Its first value is called ``output.1`` in a trace, as the node of its first output is."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        output = self.lin(x)
        output = torch.relu(output)
        output = torch.sigmoid(output)
        return output + 1


class Draws(nn.Module):
    """Random numbers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.frozen = nn.BatchNorm1d(4)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.drop(self.frozen(x)) + torch.rand(4)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("nothing of ours")


@torch.jit.script
def branching(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        return x + 1
    return x * 2


class Scripted(UsedTwice):
    """A branch, which a trace does not have but a script within it."""

    def forward(self, x: Tensor) -> Tensor:
        return branching(self.lin(x))


def cases() -> dict[str, tuple[nn.Module, Any]]:
    """Models with what they are called with, by name."""
    torch.manual_seed(7)
    x = torch.randn(2, 4)
    sequence = torch.randn(2, 3, 8)
    return {
        "nested": (Nested(), x),
        "two inputs": (TwoInputs(), (x, torch.ones(2, 3))),
        "a dictionary": (DictInput(), {"x": x, "y": torch.ones(2, 3)}),
        "convolutions": (Convolutions(), torch.randn(2, 3, 8, 8)),
        "used twice": (UsedTwice(), x),
        "a tuple back": (TupleOutput(), x),
        "a dictionary back": (DictOutput(), x),
        "attention": (Attention(), sequence),
        "transformer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), sequence),
        "recurrent": (nn.LSTM(4, 5, 2), torch.randn(3, 2, 4)),
        "embedding": (nn.EmbeddingBag(10, 3), torch.tensor([[1, 2], [3, 4]])),
        "constants": (Constants(), x),
        "passes on": (PassesOn(), (x, x)),
        "without input": (WithoutInput(), x),
        "scripted within": (Scripted(), x),
        "a list of inputs": (UsedTwice(), [x]),
        "one module": (nn.Linear(4, 2), x),
        "half precision": (nn.Linear(4, 2).bfloat16(), x.bfloat16()),
        "scripted": (torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), x),
    }
