"""The writers that are compared, each with its default settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 120.0


class MeasurementError(Exception):
    """A measurement is not what it says."""


class NotPossible(Exception):
    """This machine does not permit a measurement: it is left out, and said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One writer: where it comes from, and how its records are brought into the file."""

    name: str
    module: str
    versions: Callable[[], str]
    flush: Callable[[Any], None]
    daemon: bool = False
    writer: str = ""  # the name of the peer of which this is a case

    @property
    def title(self) -> str:
        """The name of the writer."""
        return self.writer or self.name

    def named(self, name: str) -> Peer:
        """The same writer under the name of a case in which it is measured."""
        return replace(self, name=name, writer=self.title)

    def open(self, folder: Path) -> Any:
        """A ``SummaryWriter`` for a folder; imports it the first time."""
        return importlib.import_module(self.module).SummaryWriter(str(folder))

    def close(self, writer: Any) -> None:
        """Return when every record is in the event file."""
        self.flush(writer)
        writer.close()


def _flush_tbxd(writer: Any) -> None:
    if writer.flush(FLUSH_SECONDS) is not True:
        raise MeasurementError(f"tbxd's flush() did not succeed within {FLUSH_SECONDS:g} s")


def _flush(writer: Any) -> None:
    writer.flush()  # tensorboardX's does not wait for its queue; its close() does


def _tbxd_version() -> str:
    import tbxd

    return tbxd.__version__


def _torch_versions() -> str:
    return f"{version('torch')} with tensorboard {version('tensorboard')}"


BASE = "tbxd"  # what the others are compared with
PEERS = {
    peer.name: peer
    for peer in (
        Peer(BASE, "tbxd_client", _tbxd_version, _flush_tbxd, daemon=True),
        Peer("tensorboardX", "tensorboardX", lambda: version("tensorboardX"), _flush),
        Peer("torch", "torch.utils.tensorboard", _torch_versions, _flush),
    )
}
