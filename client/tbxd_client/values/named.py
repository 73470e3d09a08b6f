"""Arrays with their names, as a model gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

EXPECTED = "a mapping of names to arrays, or (name, array) pairs like model.named_parameters(), is expected"


def named_arrays(named: Mapping[str, Any] | Iterable[tuple[str, Any]], what: str) -> Iterator[tuple[Any, Any]]:
    """Give each name and its array, in their order.

    Args:
        named: a mapping, or pairs.
        what: names the call in errors.

    Raises:
        TypeError: it is neither; also while pairs are taken.
    """
    items = getattr(named, "items", None)  # also of what is no Mapping: torch.nn.ParameterDict
    if callable(items):
        yield from items()
        return
    # An array is not asked for its elements: torch makes them all first, 2**30 of a sparse tensor.
    if isinstance(named, str | bytes) or hasattr(named, "__array__") or not isinstance(named, Iterable):
        raise TypeError(f"{what}: {EXPECTED}, not {type(named).__name__}")
    for pair in named:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"{what}: {EXPECTED}; one of them is {type(pair).__name__}")
        yield pair[0], pair[1]
