"""``file_writer``: protocol buffers of the caller's own, and the name of the event file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness import World, events, scalars, wait_for
from tb import LOADERS, board
from tbxd.encode.raw_event import ALLOWED, what_of
from tbxd.encode.rejections import Refused
from tbxd.tfevents import schema
from tbxd_client.protocol.kinds import EVENT
from tbxd_client.protocol.protowire import field
from tbxd_client.protocol.records import Record

SCRIPT = """
import os
from tbxd_client import FileWriter, SummaryWriter
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboardX.proto.summary_pb2 import Summary as TheirSummary

writer = SummaryWriter("logs/a")
assert writer._get_file_writer() is writer.file_writer is writer.all_writers["logs/a"]
assert writer.file_writer.get_logdir() == "logs/a"
before = writer.file_writer.event_writer._file_name
assert os.path.dirname(before) == os.path.abspath("logs/a") and "events.out.tfevents." in before
writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="board", simple_value=1.5)]), 3, 1_700_000_000.5)
writer.file_writer.add_summary(TheirSummary(value=[TheirSummary.Value(tag="theirs", simple_value=2.5)]), 4)
writer.file_writer.add_event(Event(step=7, summary=Summary(value=[Summary.Value(tag="event", simple_value=3.5)])))
writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="x" * 200, simple_value=1)]).SerializeToString(), 1)
writer.file_writer.add_event(Event(file_version="brain.Event:1"))
writer.file_writer.add_summary(b"\\xff\\xff\\xff", 1)
graph = GraphDef()
graph.node.add(name="node", op="Op")
writer.file_writer.add_graph((graph, None))
assert writer.flush(60)
name = writer.file_writer.event_writer._file_name
assert name == writer.file_writer.event_writer._ev_writer._file_name and os.path.getsize(name) > 100
with SummaryWriter("logs/off", write_to_disk=False) as off:
    off.file_writer.add_summary(Summary(), 1)
    off.file_writer.flush()
other = FileWriter("logs/other")
other.add_summary(Summary(value=[Summary.Value(tag="own", simple_value=1.0)]), 1)
other.close()
for wrong in (3, "text", None):
    try:
        other.add_event(wrong)
    except TypeError as error:
        assert "a protocol buffer or its bytes are expected" in str(error)
    else:
        raise AssertionError(wrong)
"""


def test_protocol_buffers_of_any_package_are_logged_and_checked(place: World) -> None:
    result = place.run(SCRIPT)
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    status = place.status()
    assert status is not None
    assert status["runs"][str(place.logdir / "a")]["dropped"] == {"bad_record": 2}
    found = scalars(place.logdir / "a")
    long = found.pop("x" * 200)
    assert long == [(1, 1.0)]
    assert found.pop("tbxd/dropped/bad_record")[-1][1] == 2
    assert found == {"board": [(3, 1.5)], "theirs": [(4, 2.5)], "event": [(7, 3.5)]}
    assert [event.file_version for event in events(place.logdir / "a") if event.file_version] == ["brain.Event:2"]
    (graph,) = (event for event in events(place.logdir / "a") if event.graph_def)
    assert b"node" in graph.graph_def
    assert scalars(place.logdir / "other") == {"own": [(1, 1.0)]}
    assert not (place.logdir / "off").exists()
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            shown.until(lambda shown=shown: shown.scalars("a", "event") == [(7, 3.5)], "the event")


def test_a_graph_of_the_callers_own_keeps_its_run_metadata_and_no_other_bytes_pass(place: World) -> None:
    result = place.run(
        """
        import torch
        from torch.utils.tensorboard import _pytorch_graph
        from tensorboard.compat.proto.event_pb2 import Event
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            pair = _pytorch_graph.graph(torch.nn.Linear(4, 2), torch.ones(1, 4))
            writer.file_writer.add_graph(pair)
            writer.file_writer.add_graph((pair[0].SerializeToString(), pair[1].SerializeToString()))
            writer.file_writer.add_graph(b"\\xff\\xff")
            writer.file_writer.add_event(Event(graph_def=b"no graph"))
            writer.file_writer.add_event(b"\\x42\\x01\\xff")  # tagged_run_metadata
            for wrong in (None, (), (None, None), "graph"):
                try:
                    writer.file_writer.add_graph(wrong)
                except TypeError as error:
                    assert "a protocol buffer or its bytes are expected" in str(error)
                else:
                    raise AssertionError(wrong)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    status = place.status()
    assert status is not None
    assert status["runs"][str(place.logdir / "a")]["dropped"] == {"bad_record": 3}
    read = EventAccumulator(str(place.logdir / "a")).Reload()
    assert len(read.Graph().node) == 5
    assert read.RunMetadata("step1").step_stats.dev_stats[0].device == "/device:CPU:0"


@given(st.binary(max_size=30) | st.builds(field, st.integers(1, 15), st.binary(max_size=20)))
def test_any_bytes_are_an_event_that_may_be_said_or_refused(data: bytes) -> None:
    try:
        found = what_of(Record(EVENT, 1, 0, 0.0, {}, data))
    except Refused:
        return
    assert found.keys() <= ALLOWED
    schema.Event(**found).SerializeToString()


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 100_000])
def test_a_field_is_protobufs(length: int) -> None:
    assert field(4, bytes(length)) == schema.Event(graph_def=bytes(length)).SerializeToString()
