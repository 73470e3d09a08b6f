"""``TorchVis``: tensorboardX's writer to several programs, of which tbxd has one."""

from __future__ import annotations

from typing import Any

from .writer import SummaryWriter

FORMATS = {"tensorboard": SummaryWriter}


class TorchVis:
    """Forwards every method call to a `SummaryWriter`.

    Args:
        args: ``"tensorboard"``, or nothing, which is the same.
        init_kwargs: ``tensorboard``: a dict of arguments for `SummaryWriter`.

    Raises:
        ValueError: another format. tensorboardX also has ``"visdom"``, and ignores unknown formats.
    """

    def __init__(self, *args: str, **init_kwargs: Any) -> None:
        self.subscribers: dict[str, SummaryWriter] = {}
        self.register(*args, **init_kwargs)

    def register(self, *args: str, **init_kwargs: Any) -> None:
        """Start writing formats that are not written yet; arguments and errors as for the constructor."""
        for name in args or tuple(FORMATS):
            if name not in FORMATS:
                raise ValueError(f"format {name!r}: tbxd writes {', '.join(FORMATS)}; for visdom use tensorboardX")
            if name not in self.subscribers:
                self.subscribers[name] = FORMATS[name](**init_kwargs.get(name, {}))

    def unregister(self, *args: str) -> None:
        """Flush and forget the writers of these formats.

        Raises:
            KeyError: a format has no writer.
        """
        for name in args:
            self.subscribers.pop(name).close()

    def __getattr__(self, attr: str) -> Any:
        if not attr.startswith("_") and attr != "subscribers":
            for writer in self.subscribers.values():
                return getattr(writer, attr)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {attr!r}")
