"""``scalar_dict`` and ``export_scalars_to_json``: read back from the event files, nothing kept in the trainer."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import World, wait_for
from tbxd.tfevents import schema
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol import protowire
from tbxd_client.writers.readback import points, shortest

EXPORT = """
    import sys
    import numpy as np
    from {package} import SummaryWriter
    writer = SummaryWriter("logs/run")
    for step in range(30):
        writer.add_scalars("chart", {{"one": 0.1 * step, "two": np.float32(step / 3)}}, step, 1_700_000_000.25 + step)
        writer.add_scalars("nested/chart", {{"deep/er": -step}}, step - 5, 1_700_000_000.0)
        writer.add_scalar("no chart", step, step)
    writer.add_scalars("chart", {{"one": float("nan"), "two": float("inf")}}, 30, 1.0)
    writer.add_hparams({{"lr": 1.0}}, {{"chart": 2.0}}, "chart")
    writer.export_scalars_to_json("first.json")
    writer.add_scalars("chart", {{"one": 5}}, 31, 2.0)
    writer.export_scalars_to_json("second.json")
    writer.export_scalars_to_json("third.json")
    writer.close()
"""


def rounded(found: dict[str, list[list[float]]]) -> Any:
    return {
        name: [(time, step, struct.pack("<f", value)) for time, step, value in values] for name, values in found.items()
    }


def test_the_export_is_tensorboardxs_but_for_the_rounding_to_float32(place: World) -> None:
    found: dict[str, list[Any]] = {}
    for package in ("tbxd_client", "tensorboardX"):
        result = place.run(EXPORT.format(package=package))
        assert result.returncode == 0, result.stderr
        texts = [(place.root / f"{name}.json").read_text() for name in ("first", "second", "third")]
        found[package] = [rounded(json.loads(text)) for text in texts]
        assert "[1700000003.25, 3, 0.3" in texts[0]
    ours, theirs = found["tbxd_client"], found["tensorboardX"]
    assert ours[0].keys() == {"logs/run/chart/one", "logs/run/chart/two", "logs/run/nested/chart/deep/er"}
    assert ours == theirs and ours[2] == {}


def test_only_what_this_process_has_logged_is_exported_also_over_a_killed_daemon(place: World) -> None:
    place.serve()
    script = """
        import json, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/run")
        for step in range(200):
            writer.add_scalars("chart", {"one": step}, step, 1.0)
        assert writer.flush(60)
        print("half", flush=True)
        sys.stdin.readline()
        for step in range(200, 400):
            writer.add_scalars("chart", {"one": step}, step, 1.0)
        assert writer.flush(60)
        assert [step for _, step, _ in writer.scalar_dict["logs/run/chart/one"]] == list(range(400))
        assert writer.scalar_dict == writer.scalar_dict
        assert set(writer.all_writers) == {"logs/run", "logs/run/chart/one"}
        writer.all_writers["logs/run/chart/one"].flush()
        writer.export_scalars_to_json("all.json")
        assert writer.scalar_dict == {}
        """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    one = place.start(script, **pipes)
    assert one.stdout is not None and one.stdin is not None and one.stdout.readline() == b"half\n"
    other = place.run(script.replace("all.json", "other.json"), input="\n")
    assert other.returncode == 0, other.stderr
    place.kill_daemon()
    place.ensure()
    one.stdin.write(b"\n")
    one.stdin.close()
    assert one.wait(60) == 0
    for name in ("all", "other"):
        (values,) = json.loads((place.root / f"{name}.json").read_text()).values()
        assert [step for _, step, _ in values] == list(range(400))
    assert len(event_files(place.logdir / "run/chart/one")) == 2


def test_without_a_daemon_it_exports_what_there_is_and_says_so(place: World) -> None:
    result = place.run(
        """
        import json
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/run") as writer:
            writer.add_scalars("chart", {"one": 1.0}, 0)
            writer.export_scalars_to_json("empty.json")
        with SummaryWriter("logs/off", write_to_disk=False) as off:
            off.add_scalars("chart", {"one": 1.0}, 0, walltime=5.0)
            off.export_scalars_to_json("off.json")
            assert off.scalar_dict == {}
        try:
            writer.export_scalars_to_json("no/such/folder.json")
        except OSError as error:
            assert "folder.json" in str(error)
        else:
            raise AssertionError
        """,
        environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody", "TBXD_FLUSH_SECONDS": "0.2"},
    )
    assert result.returncode == 0, result.stderr
    assert "not all scalars are in the event files yet" in result.stderr
    assert json.loads((place.root / "empty.json").read_text()) == {}
    assert json.loads((place.root / "off.json").read_text()) == {"logs/off/chart/one": [[5.0, 0, 1.0]]}
    place.serve()
    wait_for(place.drained, "the journal to be drained")


@given(st.floats(width=32))
def test_the_shortest_number_is_the_same_float32(value: float) -> None:
    found = shortest(struct.pack("<f", value))
    assert math.isnan(found) if math.isnan(value) else struct.pack("<f", found) == struct.pack("<f", value)


@given(st.decimals(-1000, 1000, places=3))
def test_a_number_of_few_digits_comes_back_as_it_was(value: Any) -> None:
    assert shortest(struct.pack("<f", float(value))) == float(value)


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.tuples(st.text(max_size=5), st.floats(width=32, allow_nan=False)), max_size=3),
)
def test_the_fields_of_an_event_are_protobufs(step: int, wall_time: float, values: list[tuple[str, float]]) -> None:
    event = schema.Event(step=step, wall_time=wall_time)
    event.summary.value.extend(schema.Summary.Value(tag=tag, simple_value=value) for tag, value in values)
    event.source_metadata.writer = "w"
    found = {number: value for number, _, value in protowire.fields(event.SerializeToString())}
    assert (found.get(2, 0), found[10]) == (step % 2**64, b"\n\x01w")
    assert bytes(found[5]) == event.summary.SerializeToString()  # type: ignore[arg-type]


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_wire_error(data: bytes) -> None:
    try:
        list(protowire.fields(data))
    except protowire.WireError:
        with pytest.raises(protowire.WireError):
            list(protowire.fields(data))


@given(st.binary(max_size=300))
def test_any_file_is_read_up_to_what_is_damaged(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "events.out.tfevents.0.x").write_bytes(data)
        assert points(folder, "tag", bytes(12), 0) == ([], 0)


def test_a_damaged_length_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "tfevents").write_bytes((1 << 30).to_bytes(8, "little") + bytes(100))
    tracemalloc.start()
    try:
        assert points(str(tmp_path), "loss", bytes(12), 0) == ([], 0)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
