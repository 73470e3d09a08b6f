"""Stands for nvidia-ml-py where there is no GPU: the names that tbxd uses, and misbehaviour on request.

On the path of a daemon it is imported instead of the real one. A JSON file, whose path is in ``FAKE_NVML``, says with
each call how many ``gpus`` there are, what ``fails`` (a function's name, that and a GPU, ``nvmlDeviceGetPowerUsage 1``,
or a GPU, ``gpu 1``, to the number of an NVML error), and in which function it ``hangs`` until the file says otherwise.
A file beside it, ``….calls``, gets a line for each call.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_GPU_IS_LOST = 15
NVML_TEMPERATURE_GPU = 0
TOTAL_BYTES = 80 << 30
_MESSAGES = {3: "Not Supported", 9: "Driver Not Loaded", 12: "NVML Shared Library Not Found", 15: "GPU is lost"}
_begun = False


class NVMLError(Exception):
    """The error of NVML, as in the real module: `value` is its number."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _MESSAGES.get(self.value, f"error {self.value}")


def _plan() -> dict:
    return json.loads(Path(os.environ["FAKE_NVML"]).read_text())


def _call(name: str, gpu: int | None = None) -> dict:
    with open(os.environ["FAKE_NVML"] + ".calls", "a") as file:
        file.write(f"{name}\n")
    while name == _plan().get("hangs"):
        time.sleep(0.02)
    plan = _plan()
    for key in (name, f"{name} {gpu}", f"gpu {gpu}"):
        if key in plan.get("fails", {}):
            raise NVMLError(plan["fails"][key])
    if name != "nvmlInit" and not _begun:
        raise NVMLError(1)
    return plan


def nvmlInit() -> None:
    global _begun
    _call("nvmlInit")
    _begun = True


def nvmlShutdown() -> None:
    global _begun
    _call("nvmlShutdown")
    _begun = False


def nvmlDeviceGetCount() -> int:
    return _call("nvmlDeviceGetCount")["gpus"]


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    _call("nvmlDeviceGetHandleByIndex", index)
    return index


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:
    _call("nvmlDeviceGetUtilizationRates", handle)
    return SimpleNamespace(gpu=90 + handle, memory=50)


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    _call("nvmlDeviceGetMemoryInfo", handle)
    return SimpleNamespace(total=TOTAL_BYTES, used=TOTAL_BYTES // 4 * (handle + 1), free=0)


def nvmlDeviceGetPowerUsage(handle: int) -> int:
    _call("nvmlDeviceGetPowerUsage", handle)
    return 300_500 + 1000 * handle


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:
    assert sensor == NVML_TEMPERATURE_GPU
    _call("nvmlDeviceGetTemperature", handle)
    return 60 + handle
