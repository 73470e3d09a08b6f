"""Overrides of our methods: in a subclass, in an object, or in our own class (a mock, a patch).

They are looked for when a writer is made and when an attribute is set. So calls of a writer without overrides check
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

PACKAGE = __name__.rpartition(".writers.")[0]


def is_ours(function: Any) -> bool:
    """Return True if a function is this package's own, and not a wrapper or a mock in its place."""
    module = getattr(function, "__globals__", {}).get("__name__", "")
    return isinstance(module, str) and module.startswith(f"{PACKAGE}.")


def is_overridden(owner: object, *names: str) -> bool:
    """Return True if one of these methods of an object is not ours: set in the object, or defined in its class.

    It does not use ``vars``, which makes Python (3.11, 3.12) create a dictionary for the object and find its attributes
    more slowly from then on: a tenth of `add_scalar`.
    """
    return any(not is_ours(getattr(owner, name, None)) for name in names)


class Watched:
    """An attribute of a writer; when it is set or deleted, the writer checks its overrides again.

    Args:
        function: the method that it is until it is set. Without one it has to be set.

        Values that are set are in the writer's ``_tbxd_set``, by name; see `is_overridden`.
    """

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self._function = function
        self.__doc__ = getattr(function, "__doc__", None)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self if self._function is None else self._function
        own = instance._tbxd_set
        # What is set in an object stands before its class; but `super()` asks for what stands behind that.
        if self._name in own and (self._function is None or is_ours(getattr(type(instance), self._name, None))):
            return own[self._name]
        if self._function is None:
            raise AttributeError(f"{type(instance).__name__!r} object has no attribute {self._name!r}")
        return MethodType(self._function, instance)

    def __set__(self, instance: Any, value: Any) -> None:
        instance._tbxd_set[self._name] = value
        instance._tbxd_look()

    def __delete__(self, instance: Any) -> None:
        if self._name not in instance._tbxd_set:
            raise AttributeError(self._name)
        del instance._tbxd_set[self._name]
        instance._tbxd_look()
