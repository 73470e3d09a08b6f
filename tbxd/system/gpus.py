"""NVIDIA's GPUs, as NVML has them (nvidia-ml-py, the extra ``tbxd[gpu]``).

Any call may fail, for one value, for one GPU, or for all, and may hang: call it on a thread that may be abandoned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GIB = 1 << 30
GPUS_MAX = 64  # looked at
RETRY_SECONDS = 60.0  # after NVML could not be begun, or has failed altogether, before it is tried again
DRIVER = Path("/proc/driver/nvidia/version")  # there while NVIDIA's driver is loaded
NO_LIBRARY = "nvidia-ml-py is not installed: pip install nvidia-ml-py"


class Gpus:
    """Reads the GPUs of this node. Never raises.

    ``trouble`` is the error of the last reading, or "".
    """

    def __init__(self) -> None:
        self.trouble = ""
        self._nvml: Any = None  # the module, while NVML is in use
        self._handles: list[Any] = []
        self._not_there: set[tuple[int, str]] = set()  # values that a GPU does not have
        self._next_try = 0.0

    def read(self) -> dict[str, float]:
        """Return the values of every GPU that answers, by name: ``gpu0/use_percent`` and so on."""
        try:
            if self._nvml is None and not self._begin():
                return {}
            return self._read()
        except Exception as error:  # whatever a library that is not ours may do
            self._fail(f"{type(error).__name__}: {error}")
            return {}

    def _begin(self) -> bool:
        if time.monotonic() < self._next_try:
            return False
        try:
            import pynvml
        except ImportError:
            self.trouble, self._next_try = NO_LIBRARY if DRIVER.exists() else "", float("inf")
            return False
        try:
            pynvml.nvmlInit()
            count = min(pynvml.nvmlDeviceGetCount(), GPUS_MAX)
            self._handles = []
            for index in range(count):
                try:
                    self._handles.append(pynvml.nvmlDeviceGetHandleByIndex(index))
                except pynvml.NVMLError:  # lost before we came; the others count
                    self._handles.append(None)
        except pynvml.NVMLError as error:
            none = getattr(error, "value", None) in (
                pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
                pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
            )
            self._fail("" if none and not DRIVER.exists() else str(error))  # a machine without GPUs is in no trouble
            return False
        self._nvml, self.trouble = pynvml, ""
        self._not_there = set()
        return True

    def _read(self) -> dict[str, float]:
        nvml = self._nvml
        values: dict[str, float] = {}
        troubles = []
        for index, handle in enumerate(self._handles):
            if handle is None:
                troubles.append(f"gpu{index} is not to be had")
                continue
            for what, ask in _ASKED.items():
                if (index, what) in self._not_there:
                    continue
                try:
                    for name, value in ask(nvml, handle).items():
                        values[f"gpu{index}/{name}"] = value
                except nvml.NVMLError as error:
                    if getattr(error, "value", None) == nvml.NVML_ERROR_NOT_SUPPORTED:
                        self._not_there.add((index, what))
                    else:
                        troubles.append(f"gpu{index}: {error}")
        self.trouble = troubles[0] if troubles else ""
        if troubles and not values:
            self._fail(troubles[0])
        return values

    def _fail(self, why: str) -> None:
        self.close()
        self.trouble = why
        self._next_try = time.monotonic() + RETRY_SECONDS

    def close(self) -> None:
        """Release the GPUs until the next reading: an administrator cannot reset one that a process holds."""
        nvml, self._nvml, self._handles = self._nvml, None, []
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"


def _memory(nvml: Any, handle: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    percent = {"memory_percent": 100 * memory.used / memory.total} if memory.total else {}
    return {"memory_gib": memory.used / GIB, **percent}


_ASKED: dict[str, Callable[[Any, Any], dict[str, float]]] = {
    "use": lambda nvml, handle: {"use_percent": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)},
    "memory": _memory,
    "power": lambda nvml, handle: {"power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000},
    "temperature": lambda nvml, handle: {
        "temperature_c": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    },
}
