"""What do the other calls cost the trainer, beside a bare copy of their input? One measurement makes all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conditions import PAUSE_SECONDS, timed
from .meter import CpuMeter, HelperMeter, import_what_a_trainer_has
from .peers import Peer, event_writers
from .question import Figure, Logged, Outcome, Question

TAG = "measured"
Inputs = Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is measured.

    Args:
        name: of its figures and its folder.
        title: with its input, for the tables.
        kind: what it leaves in the files, see `Logged`.
        inputs: makes the input from a random generator of numpy.
        log: logs it: writer, input, step.
        copy: copies it.
        unit: of its figures, ``ms`` or ``µs``.
    """

    name: str
    title: str
    kind: str
    inputs: Callable[[Any], Inputs]
    log: Callable[[Any, Inputs, int], None]
    copy: Callable[[Inputs], object]
    unit: str = "ms"


def _curve(rng: Any) -> Inputs:
    return rng.integers(0, 2, 10_000), rng.random(10_000)


CALLS = (
    Call(
        "video",
        "add_video of 16 frames of 3 by 64 by 64 uint8",
        "image",
        lambda rng: rng.integers(0, 256, (1, 16, 3, 64, 64), "u1"),
        lambda writer, video, step: writer.add_video(TAG, video, step),
        lambda video: video.copy(),
    ),
    Call(
        "embedding",
        "add_embedding of 1,000 by 64 float32",
        "embedding",
        lambda rng: rng.standard_normal((1000, 64), "f4"),
        lambda writer, points, step: writer.add_embedding(points, global_step=step, tag=TAG),
        lambda points: points.copy(),
    ),
    Call(
        "pr_curve",
        "add_pr_curve of 10,000 float64 predictions",
        "tensor",
        _curve,
        lambda writer, curve, step: writer.add_pr_curve(TAG, *curve, step),
        lambda curve: [part.copy() for part in curve],
    ),
    Call(
        "text",
        "add_text of 1,000 characters",
        "tensor",
        lambda rng: "".join(map(chr, rng.integers(97, 123, 1000))),
        lambda writer, text, step: writer.add_text(TAG, text, step),
        lambda text: text.encode(),
        "µs",
    ),
)


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    import numpy as np

    outcome = Outcome()
    for call in CALLS:
        given = call.inputs(np.random.default_rng(1))
        figures = _measure_call(peer, call, given, counts["calls"], logs / call.name)
        outcome.figures |= {f"{figure}_{call.name}": value for figure, value in figures.items()}
        outcome.logged.append(Logged(call.name, _tag(call), call.kind, counts["calls"] + 1))
    return outcome


def _tag(call: Call) -> str:
    return f"{TAG}/text_summary" if call.name == "text" else TAG


def _measure_call(peer: Peer, call: Call, given: Inputs, calls: int, folder: Path) -> dict[str, float]:
    writer = peer.open(folder)
    call.log(writer, given, 0)
    peer.flush(writer)
    helper = HelperMeter(peer)
    cpu = CpuMeter(helper)
    steps = iter(range(1, calls + 1))
    times = timed(lambda: call.log(writer, given, next(steps)), calls, lambda: peer.flush(writer))
    peer.close(writer)
    trainer_cpu, daemon_cpu = cpu.read()
    scale = {"ms": 1e3, "µs": 1e6}[call.unit]
    return {
        "caller": statistics.median(times) * scale,
        "copy": statistics.median(timed(lambda: call.copy(given), calls)) * scale,
        "trainer_cpu": trainer_cpu / calls * scale,
        "daemon_cpu": daemon_cpu / calls * scale,
    }


def _figures(call: Call) -> tuple[Figure, ...]:
    name, title, unit = call.name, call.title, call.unit
    return (
        Figure(f"caller_{name}", f"{title}: caller's time per call, median", unit),
        Figure(f"copy_{name}", f"{title}: a bare copy of the input, for scale", unit, compared=False),
        Figure(f"trainer_cpu_{name}", f"{title}: CPU of the trainer per call", unit),
        Figure(f"daemon_cpu_{name}", f"{title}: CPU of the daemon or helpers per call", unit, compared=False),
    )


QUESTION = Question(
    name="other_calls",
    title="videos, embeddings, curves and texts",
    notes=(
        "10 calls each with random input, after one that does not count. After each come flush() and a pause of "
        f"{PAUSE_SECONDS * 1000:g} ms; the caller's time includes neither. CPU is that of the whole process, "
        "threads included, from the first counted call until flush() and close() have returned. A bare copy is a "
        "copy of the input's arrays, or of a text in UTF-8, in the same process, as often and with the same "
        "pauses. After a pause the processor's caches are cold, so a copy takes several times as long as in a "
        "loop, and a short call more than ten times. The originals write videos with moviepy 1."
    ),
    figures=tuple(figure for call in CALLS for figure in _figures(call)),
    full={"calls": 10, "torch_imported": 1},
    quick={"calls": 2, "torch_imported": 0},
    measure=measure,
    rounds_max=2,
    peers=event_writers(),
)
