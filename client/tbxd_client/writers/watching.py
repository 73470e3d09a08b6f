"""``watch``: a model of torch that logs its parameters and gradients by itself.

What is watched hangs on a hook that torch calls after each step of any optimizer: the gradients are whole then,
however many backward passes they are made of, and are not yet set to None. Before the step they need not be there:
Lightning, and whoever else gives ``step`` a closure, makes them in it. A hook on each tensor would be called in the
backward pass, once for each micro batch.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..config.settings import warn
from ..values.numbers import Numbers

PARAMETERS, GRADIENTS = "parameters", "gradients"
KINDS = (PARAMETERS, GRADIENTS)
NOT_FINITE = "tbxd/nonfinite"
OPTIMIZER = "torch.optim.optimizer"  # a module that torch loads and has no attribute for
# Of modules that wrap a model: DistributedDataParallel, FullyShardedDataParallel, torch.compile, and checkpointing.
_WRAPPERS = frozenset(["module", "_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"])

_watches: list[Watch] = []


class Watch:
    """A model that is watched by a writer, until the model is gone or `end` is called.

    Args:
        writer: a `SummaryWriter`.
        model: a ``torch.nn.Module``; no reference to it is kept.
        every: steps of the optimizer between two that are logged; the first one is.
        kinds: of `KINDS`.
        prefix: before each tag.
        step: gives the step to log at; None counts the steps of the optimizer from 0.
    """

    def __init__(
        self, writer: Any, model: Any, every: int, kinds: list[str], prefix: str, step: Callable[[], Any] | None
    ) -> None:
        self.writer = writer
        self._model = weakref.ref(model, lambda _: self.end())
        self._every, self._kinds, self._prefix, self._step = every, kinds, prefix, step
        self._count = 0
        self._optimizer: weakref.ref[Any] | None = None  # whose steps are counted
        self._others: weakref.WeakSet[Any] = weakref.WeakSet()  # that have no parameter of the model
        self._hook: Any = None

    def watches(self, model: Any) -> bool:
        """Whether it watches this model."""
        return self._model() is model

    def begin(self) -> None:
        """Be called after each step of an optimizer."""
        self._hook = sys.modules[OPTIMIZER].register_optimizer_step_post_hook(self._after_step)
        _watches.append(self)

    def end(self) -> None:
        """Leave nothing behind."""
        if self in _watches:
            _watches.remove(self)
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        if _is_compiled():
            return
        try:
            model = self._model()
            if model is None or not self._counts(model, optimizer):
                return
            count = self._count
            self._count += 1
            if count % self._every == 0 and self._hook is not None:
                self._log(model, count if self._step is None else self._step())
        except Exception as error:  # of any kind: logging never hurts the run
            warn(
                f"watch: a step of the model could not be logged: {type(error).__name__}: {error}",
                once=f"watch {type(error).__name__}",
            )

    def _counts(self, model: Any, optimizer: Any) -> bool:
        """Whether a step of an optimizer is one of the model: that of the first one that has a parameter of it."""
        if self._optimizer is not None and (known := self._optimizer()) is not None:
            return known is optimizer
        if optimizer in self._others:
            return False
        mine = {id(parameter) for parameter in model.parameters()}
        if not any(id(one) in mine for group in optimizer.param_groups for one in group["params"]):
            self._others.add(optimizer)
            return False
        self._optimizer = weakref.ref(optimizer)
        return True

    def _log(self, model: Any, step: Any) -> None:
        writer = self.writer
        if not writer._tbxd_write:
            return
        step, when = writer._tbxd_step(step), writer._tbxd_time(None)
        run, odd = writer._tbxd_run, ""
        for kind in self._kinds:
            squares = 0.0
            for name, tensor in _tensors(model, kind):
                tag = f"{self._prefix}{kind}/{name}"
                try:
                    numbers = Numbers(tensor, f"watch {tag!r}", run.merges(tag))
                    found = run.distribution(tag, step, when, numbers)
                except (TypeError, ValueError) as error:  # of one tensor, not of those after it
                    warn(f"watch: {error}", once=f"watch {tag}")
                    continue
                if found is None or not found.size or _is_shard(tensor):
                    continue  # the norm of a part is not that of the whole
                if found.left_out and not odd:
                    odd = (
                        f"{tag}: of {found.size:,} numbers {found.nan:,} are NaN and "
                        f"{found.negative_infinite + found.positive_infinite:,} infinite"
                    )
                squares += found.sum_squares
                for what, value in (("norms", math.sqrt(found.sum_squares)), ("zeros", found.zeros / found.size)):
                    writer.add_scalar(f"{self._prefix}{what}/{kind}/{name}", value, step, when)
            writer.add_scalar(f"{self._prefix}norms/{kind}", math.sqrt(squares), step, when)
        if odd:
            writer.add_text(f"{self._prefix}{NOT_FINITE}", odd, step, when)
            warn(f"watch: at step {step} {odd}", once="watch not finite")


def watch(writer: Any, model: Any, every: Any, what: Any, prefix: str, step: Any) -> None:
    """Begin to watch a model; see `SummaryWriter.watch`."""
    torch = sys.modules.get("torch")
    module = getattr(getattr(torch, "nn", None), "Module", None)
    if module is None or not isinstance(model, module):
        raise TypeError(f"watch: a torch.nn.Module is expected, not {type(model).__name__}")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"watch: every={every!r:.80}; a number of optimizer steps from 1 on is expected")
    kinds = [what] if isinstance(what, str) else list(what) if isinstance(what, Iterable) else []
    if not kinds or not all(isinstance(kind, str) and kind in KINDS for kind in kinds):
        raise ValueError(f"watch: what={what!r:.80}; some of {', '.join(map(repr, KINDS))} are expected")
    if step is not None and not callable(step):
        raise TypeError("watch: step: a function without arguments is expected, which gives the step")
    if not hasattr(sys.modules.get(OPTIMIZER), "register_optimizer_step_post_hook"):
        raise RuntimeError("watch needs torch 2.0 or newer")
    unwatch(writer, model)
    Watch(writer, model, every, [kind for kind in KINDS if kind in kinds], prefix, step).begin()


def unwatch(writer: Any, model: Any = None) -> None:
    """End what a writer watches; see `SummaryWriter.unwatch`."""
    for one in list(_watches):
        if one.writer is writer and (model is None or one.watches(model)):
            one.end()


def _is_compiled() -> bool:
    """Whether torch.compile looks at this call, which is then none: the step of the optimizer itself is compiled."""
    is_compiling = getattr(getattr(sys.modules["torch"], "compiler", None), "is_compiling", None)  # since torch 2.1
    return is_compiling is not None and is_compiling()


def _tensors(model: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Give the tensors of a model that there are, each with the name that it has without what wraps the model."""
    for name, parameter in model.named_parameters():
        tensor = parameter if kind == PARAMETERS else parameter.grad
        if tensor is not None:
            yield ".".join(part for part in name.split(".") if part not in _WRAPPERS), tensor


def _is_shard(tensor: Any) -> bool:
    """Whether it is one rank's part of a tensor that several ranks share."""
    return hasattr(tensor, "to_local")
