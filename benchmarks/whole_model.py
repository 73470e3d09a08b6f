"""What does it cost to log the histogram of every tensor of a model, each step, as fast as they go?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .meter import CpuMeter, HelperMeter, MemoryMeter, file_bytes, import_what_a_trainer_has
from .peers import Peer, event_writers
from .question import Figure, Logged, Outcome, Question


def shapes(width: int, layers: int, vocabulary: int, context: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a GPT-2; with 768, 12, 50257 and 1024 the 148 of the smallest one."""
    found: dict[str, tuple[int, ...]] = {"wte": (vocabulary, width), "wpe": (context, width)}
    for layer in range(layers):
        for name, shape in {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width),
            "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width),
            "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width),
            "mlp.c_proj.bias": (width,),
        }.items():
            found[f"h.{layer}.{name}"] = shape
    return found | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    model = _model(counts)
    elements = sum(map(_elements, model.values()))
    steps = counts["steps"]
    memory = MemoryMeter()
    memory.forget()
    folder = logs / "model"
    bytes_before = file_bytes(logs)
    writer = peer.open(folder)
    writer.add_scalar("begun", 0.0, 0)
    peer.flush(writer)
    helper = HelperMeter(peer)
    helper.forget_peak()
    cpu = CpuMeter(helper)
    took, longest = 0.0, 0.0
    for step in range(steps):
        for name, tensor in model.items():
            start = time.perf_counter()
            writer.add_histogram(name, tensor, step)
            seconds = time.perf_counter() - start
            took += seconds
            longest = max(longest, seconds)
    journal = writer._tbxd_run.journal.position if peer.daemon else 0
    peer.close(writer)
    trainer_cpu, daemon_cpu = cpu.read()
    outcome = Outcome(logged=[Logged("model", "begun", "simple_value", 1)])
    outcome.figures = {
        "step_ms": took / steps * 1e3,
        "longest_ms": longest * 1e3,
        "trainer_cpu_ms": trainer_cpu / steps * 1e3,
        "daemon_cpu_ms": daemon_cpu / steps * 1e3,
        "total_cpu_ms": (trainer_cpu + daemon_cpu) / steps * 1e3,
        "trainer_mib": memory.over_baseline(),
        "daemon_mib": helper.peak(),
        "disk_bytes": (file_bytes(logs) - bytes_before) / steps,
    }
    if peer.daemon:
        outcome.figures["journal_percent"] = journal / (4 * elements * steps) * 100
    for name, tensor in model.items():
        outcome.logged.append(Logged("model", name, "histo", steps, _elements(tensor)))
    return outcome


def _elements(tensor: Any) -> int:
    return int(tensor.numel()) if hasattr(tensor, "numel") else int(tensor.size)


def _model(counts: Mapping[str, int]) -> dict[str, Any]:
    import numpy as np

    random = np.random.default_rng(1)
    model: dict[str, Any] = {
        name: random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        for name, shape in shapes(counts["width"], counts["layers"], counts["vocabulary"], counts["context"]).items()
    }
    if counts["torch_imported"]:
        import torch

        model = {name: torch.from_numpy(values) for name, values in model.items()}
    return model


QUESTION = Question(
    name="whole_model",
    title="the histograms of all 148 tensors of a GPT-2 with 124 million parameters, as fast as they go",
    notes=(
        "`add_histogram` for each tensor, torch float32 on the CPU, step after step without a pause: 498 MB a step, of "
        "which the largest tensor has 154 MB. Time is that of the calls; CPU is that of the whole process, threads "
        "included, and of the daemon, until all is in the file. torch has the threads that it takes by itself. Memory "
        "is the peak above what the process had before it imported the writer, with the model already there. The "
        "journal is what is written to the disk of the spool, in percent of the model's bytes. Every histogram has to "
        "be in the file, of as many values as its tensor has."
    ),
    figures=(
        Figure("step_ms", "time in calls, a step", "ms"),
        Figure("longest_ms", "longest call", "ms"),
        Figure("trainer_cpu_ms", "CPU of the trainer, a step", "ms"),
        Figure("daemon_cpu_ms", "CPU of the daemon, a step", "ms", compared=False),
        Figure("total_cpu_ms", "CPU of both, a step", "ms"),
        Figure("trainer_mib", "peak memory of the trainer, over baseline", "MiB"),
        Figure("daemon_mib", "peak memory of the daemon", "MiB", compared=False),
        Figure("disk_bytes", "on disk, a step", "bytes"),
        Figure("journal_percent", "through the journal, of the model's bytes", "%", compared=False, partial=True),
    ),
    full={"steps": 4, "width": 768, "layers": 12, "vocabulary": 50_257, "context": 1024, "torch_imported": 1},
    quick={"steps": 2, "width": 64, "layers": 2, "vocabulary": 8192, "context": 64, "torch_imported": 0},
    measure=measure,
    peers=event_writers(),
    rounds_max=3,
)
