"""The versions of tbxd's dependencies, and of the readers of its files."""

from __future__ import annotations

import platform
from importlib import metadata

from tbxd_client.protocol import wire

from .. import __version__
from ..transport import control_client

MISSING = "not installed"
NEEDED = ("pyzmq", "msgpack", "protobuf", "numpy", "pillow", "crc32c", "click", "rich")
READERS = ("tensorboard", "tensorboard-data-server", "tensorboardX", "torch")


def versions() -> dict[str, str]:
    """Return the versions by name."""
    return {
        "tbxd": __version__,
        "protocol": str(wire.VERSION),
        "python": platform.python_version(),
        "linux": platform.release(),
        "libzmq": control_client.libzmq_version(),
        **{name: _version(name) for name in (*NEEDED, *READERS)},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING
