"""The writers that are compared, each with its default settings."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 120.0
VENVS = Path(__file__).parent.parent / ".venv-peers"  # made by `make bench-peers`


class MeasurementError(Exception):
    """A measurement is not what it says."""


class NotPossible(Exception):
    """This machine does not permit a measurement: it is left out, and said."""


Log = Callable[[Mapping[str, float], int], object]


@dataclass(frozen=True, slots=True)
class Peer:
    """One writer: where it comes from, and how its records are brought into the file.

    Args:
        name: in tables.
        module: has a ``SummaryWriter``; that of a tracker is one of `benchmarks.trackers`.
        imports: what a script imports to have it; nothing for what Python has.
        versions: what exactly is measured.
        flush: brings what is logged into the file, as far as the writer can be asked to.
        daemon: whether it is tbxd's daemon that does the work.
        environment: the folder of its own virtual environment; none where it lives in that of tbxd.
        packages: what is installed there, the one first whose version is told.
        writer: the name of the peer of which this is a case.
    """

    name: str
    module: str
    imports: str
    versions: Callable[[], str]
    flush: Callable[[Any], None]
    daemon: bool = False
    environment: str = ""
    packages: tuple[str, ...] = ()
    writer: str = ""

    @property
    def title(self) -> str:
        """The name of the writer."""
        return self.writer or self.name

    @property
    def python(self) -> str:
        """The interpreter in which it is measured."""
        return str(VENVS / self.environment / "bin" / "python") if self.environment else sys.executable

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return not self.environment or (VENVS / self.environment / "installed").exists()

    @property
    def tracker(self) -> bool:
        """Whether it writes files of its own kind, which only its adapter can read."""
        return self.module.startswith(f"{__package__}.trackers.")

    def named(self, name: str) -> Peer:
        """The same writer under the name of a case in which it is measured."""
        return replace(self, name=name, writer=self.title)

    def open(self, folder: Path) -> Any:
        """A ``SummaryWriter`` for a folder; imports it the first time."""
        return importlib.import_module(self.module).SummaryWriter(str(folder))

    def log(self, writer: Any) -> Log:
        """What logs many values of one step: the writer's ``log``, or a loop where it has none."""
        try:
            return writer.log  # type: ignore[no-any-return]
        except AttributeError:
            pass

        def loop(values: Mapping[str, float], step: int) -> None:
            for tag, value in values.items():
                writer.add_scalar(tag, value, step)

        return loop

    def close(self, writer: Any) -> None:
        """Return when every record is in the file."""
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


def _tracker(name: str, module: str, *packages: str, imports: str = "") -> Peer:
    """A tracker in an environment of its own, with an adapter of the name of its module."""

    def versions() -> str:
        asked = f"from importlib.metadata import version; print(version({packages[0]!r}))"
        return subprocess.run([peer.python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()

    adapter = f"{__package__}.trackers.{module}"
    peer = Peer(name, adapter, imports or module, versions, _flush, environment=module, packages=packages)
    return peer


BASE = "tbxd"  # what the others are compared with
FLOOR = Peer("csv.writer", f"{__package__}.trackers.csv_rows", "", lambda: f"(Python {sys.version.split()[0]})", _flush)
PEERS = {
    peer.name: peer
    for peer in (
        Peer(BASE, "tbxd_client", "tbxd_client", _tbxd_version, _flush_tbxd, daemon=True),
        Peer("tensorboardX", "tensorboardX", "tensorboardX", lambda: version("tensorboardX"), _flush),
        Peer("torch", "torch.utils.tensorboard", "torch.utils.tensorboard", _torch_versions, _flush),
        FLOOR,
        _tracker("wandb", "wandb", "wandb"),
        _tracker("trackio", "trackio", "trackio"),
        _tracker("mlflow", "mlflow", "mlflow", imports="mlflow.tracking"),
        _tracker("aim", "aim", "aim"),
        _tracker("tf.summary", "tensorflow", "tensorflow-cpu", "tensorboard"),
    )
}
USUAL = tuple(name for name, peer in PEERS.items() if not peer.environment)  # those of `make bench`


def event_writers() -> dict[str, Peer]:
    """Those that are a ``SummaryWriter`` with all its methods."""
    return {name: peer for name, peer in PEERS.items() if not peer.tracker}
