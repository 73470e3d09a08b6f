"""The arguments of ``add_hparams``: those of both originals, as plain data."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..protocol.limits import HPARAMS_BYTES_MAX
from .arrays import to_float, to_number
from .names import clean_tag, text_of

SHOWN_MAX = 1000  # characters of a value that is no number

Value = bool | float | str


class Positional(NamedTuple):
    """The arguments after the two dictionaries."""

    name: str = ""
    step: Any = None
    domains: Any = None


def positional(arguments: tuple[Any, ...]) -> Positional:
    """Tell the originals' calls apart: ``(name, global_step)`` and ``(hparam_domain_discrete, run_name, global_step)``.

    Raises:
        TypeError: more than three arguments, or in another order.
    """
    name, step, domains = Positional()
    if len(arguments) > 3:
        raise TypeError(f"add_hparams takes at most 5 positional arguments; {2 + len(arguments)} were given")
    for argument in arguments:
        if argument is None:
            continue
        if isinstance(argument, Mapping) and (name, step, domains) == Positional():
            domains = argument
        elif isinstance(argument, str) and not name and step is None:
            name = argument
        elif step is None and not isinstance(argument, str | Mapping):
            step = argument
        else:
            raise TypeError(
                f"{argument!r:.60} was not expected; name, global_step (tensorboardX) or hparam_domain_discrete, "
                "run_name, global_step (torch) may follow the dictionaries"
            )
    return Positional(name, step, domains)


def values_of(hparams: Any) -> dict[str, Value]:
    """Convert hyper-parameters to booleans, numbers and text; None is left out.

    Raises:
        TypeError: the argument is not a dictionary, or a name is not text.
    """
    if not isinstance(hparams, Mapping):
        raise TypeError(f"hparam_dict is {type(hparams).__name__}; a dictionary is expected")
    return {clean_tag(name): _value(value, name) for name, value in hparams.items() if value is not None}


def _value(value: Any, name: str) -> Value:
    if isinstance(value, bool | str):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.bool_):
        return bool(value)
    if callable(value) and not hasattr(value, "__float__"):
        return text_of(getattr(value, "__name__", value))[:SHOWN_MAX]
    if not isinstance(value, list | tuple | dict | set):
        try:
            return to_float(value, name)
        except (TypeError, ValueError):
            pass
    return text_of(value)[:SHOWN_MAX]


def metrics_of(metrics: Any) -> dict[str, float]:
    """Convert metrics to numbers.

    Raises:
        TypeError: the argument is not a dictionary of text to numbers.
        ValueError: a value holds more than one number.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metric_dict is {type(metrics).__name__}; a dictionary is expected")
    return {clean_tag(name): to_number(value, f"metric {name!r}") for name, value in metrics.items()}


def domains_of(domains: Any, values: Mapping[str, Value]) -> dict[str, list[Value]]:
    """Return the possible values of hyper-parameters by name.

    Raises:
        TypeError: the argument is not a dictionary of lists, or names an unknown hyper-parameter or one of another
            type.
    """
    if domains is None:
        return {}
    if not isinstance(domains, Mapping):
        raise TypeError(f"hparam_domain_discrete is {type(domains).__name__}; a dictionary is expected")
    found: dict[str, list[Value]] = {}
    for name, choices in domains.items():
        if name not in values or not isinstance(choices, list):
            raise TypeError(f"hparam_domain_discrete[{name!r:.60}] should be a list of values of a hyper-parameter")
        found[name] = [_value(choice, name) for choice in choices]
        if any(type(choice) is not type(values[name]) for choice in found[name]):
            raise TypeError(
                f"hparam_domain_discrete[{name!r:.60}] should be a list of the type of that hyper-parameter"
            )
    return found


def json_of(values: Mapping[str, Value], metrics: Mapping[str, float], domains: Mapping[str, list[Value]]) -> str:
    """Return hyper-parameters, metrics and domains as JSON; if it is too large, text is cut.

    Raises:
        ValueError: the JSON is too large even so.
    """
    text = json.dumps({"hparams": values, "metrics": list(metrics), "domains": domains})
    if len(text) > HPARAMS_BYTES_MAX:
        short = {name: value[:SHOWN_MAX] if isinstance(value, str) else value for name, value in values.items()}
        text = json.dumps({"hparams": short, "metrics": list(metrics), "domains": domains})
    if len(text) > HPARAMS_BYTES_MAX:
        raise ValueError(f"hyper-parameters of {len(text):,} bytes; at most {HPARAMS_BYTES_MAX:,} are possible")
    return text
