"""Log folders for looking at the tab "tbxd": event files that are written straight, with whatever somebody may log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import frame

BEGUN = 1_764_520_000.0  # seconds since 1970, of the first point
Point = tuple[int, float, float]  # step, wall time, value


def curve(values: Iterable[float], first: int = 0, stride: int = 1, seconds: float = 1.0) -> list[Point]:
    """Points of a curve."""
    return [(first + stride * place, BEGUN + seconds * place, float(value)) for place, value in enumerate(list(values))]


def write_run(folder: Path, curves: dict[str, list[Point]], begun: float = BEGUN) -> None:
    """An event file of one run, begun at that time: its points are as much later than `curve` says."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [frame(schema.Event(wall_time=begun, file_version="brain.Event:2").SerializeToString())]
    for tag, points in curves.items():
        for step, time, value in points:
            one = schema.Summary.Value(tag=tag, simple_value=value)
            pieces.append(
                frame(
                    schema.Event(
                        wall_time=time + begun - BEGUN, step=step, summary=schema.Summary(value=[one])
                    ).SerializeToString()
                )
            )
    (folder / f"events.out.tfevents.{int(begun)}.host.1.0").write_bytes(b"".join(pieces))
