"""``RecordWriter`` and ``TorchVis``."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import tensorboardX
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.summary.writer.record_writer import RecordWriter as TorchRecordWriter

from harness import World, scalars, wait_for
from tbxd.tfevents.tfrecord import read_records
from tbxd_client import RecordWriter


@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_records_are_those_of_both_originals(records: list[bytes]) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    for writer in (RecordWriter(ours), TorchRecordWriter(theirs)):
        for record in records:
            writer.write(record)
        writer.flush()
    assert ours.getvalue() == theirs.getvalue()
    assert [data for _, data in read_records(io.BytesIO(ours.getvalue()).read)] == records


def test_a_path_is_made_anew_and_is_on_disk_after_a_flush(tmp_path: Path) -> None:
    paths = tmp_path / "ours", tmp_path / "theirs"
    for path, make in zip(paths, (RecordWriter, tensorboardX.RecordWriter), strict=True):
        path.write_bytes(b"before")
        writer = make(str(path))
        assert writer.path == str(path)
        writer.write(b"one")
        writer.write(b"")
        writer.flush()
        assert path.stat().st_size == 35
        writer.close()
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with RecordWriter(tmp_path / "path") as last:
        last.write(b"x")
    assert last.closed and (tmp_path / "path").stat().st_size == 17


def test_what_cannot_be_written_raises_in_the_call(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no/such"):
        RecordWriter(tmp_path / "no" / "such")
    for path in ("s3://bucket/file", "gs://bucket/file"):
        with pytest.raises(ValueError, match="only local files"):
            RecordWriter(path)


def test_torchvis_writes_tensorboards_files_and_refuses_visdom(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter, TorchVis
        vis = TorchVis("tensorboard", tensorboard={"logdir": "logs/a"})
        vis.add_scalar("value", 1.5, 3)
        vis.register("tensorboard", tensorboard={"logdir": "logs/never"})  # is there already
        assert isinstance(vis.subscribers["tensorboard"], SummaryWriter)
        vis.unregister("tensorboard")
        for attempt in (lambda: TorchVis("visdom"), lambda: vis.register("other")):
            try:
                attempt()
            except ValueError as error:
                assert "tbxd writes tensorboard" in str(error)
            else:
                raise AssertionError
        for name in ("add_scalar", "_private"):
            try:
                getattr(vis, name)
            except AttributeError as error:
                assert name in str(error)
            else:
                raise AssertionError(name)
        assert not hasattr(TorchVis(), "no_method")
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "a") == {"value": [(3, 1.5)]}
    assert not (place.logdir / "never").exists()
