"""Jobs beside a run: what of a batch goes there, and what is known of it when the run begins anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tbxd.batch import SCALAR_DTYPE, Batch, Scalars, Token
from tbxd.reduce.displaced_jobs import Moved, name_of
from tbxd.tfevents.ledger import Entry
from tbxd_client.protocol.records import RunDefinition

RUN = RunDefinition(0, "/logs/a", "host", 1, 1.0, world=2, job="job/1", reduce=True, script="train.py")


class Beside:
    """A writer of a job beside the run, which writes when the test says so."""

    def __init__(self, done: Any) -> None:
        self.done, self.offered, self.entries = done, [], {}  # type: Any, list[Batch], dict[bytes, Entry]

    def offer(self, batch: Batch) -> int:
        self.offered.append(batch)
        return 0

    def entry(self, session: bytes) -> Entry:
        return self.entries.setdefault(session, Entry())

    def write(self) -> None:
        pass


def batch(*ends: int) -> Batch:
    values = np.zeros(len(ends), SCALAR_DTYPE)
    made = Batch(b"s" * 12, RUN, [], [], Token(ends[-1], 1))
    made.items.append(Scalars(values, np.array(ends, np.int64)))
    return made


def moved() -> tuple[Moved, list[Beside]]:
    made: list[Beside] = []

    def make(directory: Path, done: Any, held: Any) -> Any:
        made.append(Beside(done))
        return made[-1]

    result = Moved(Path("/logs/a"), make)
    result.begin(RUN)
    return result, made


def test_a_job_has_a_folder_of_its_name() -> None:
    assert name_of(RUN) == "train.py-job_1" and name_of(RUN._replace(script="", job="")) == "process-job"


def test_what_the_run_has_of_a_batch_does_not_go_beside_it_and_all_of_it_is_counted_once() -> None:
    beside, (writer,) = moved()
    assert RUN in beside and RUN._replace(job="other") not in beside
    beside.take(batch(34, 68, 102, 136), 34, np.array([102]))
    (part,) = writer.offered
    (item,) = part.items
    assert isinstance(item, Scalars) and item.ends.tolist() == [68, 136] and part.records == 2
    assert part.run.directory == "/logs/a/train.py-job_1"
    assert beside.write(lambda session: Entry(34, 1)) == ([], {})
    writer.entries[b"s" * 12] = Entry(136, 2, {"late_rank": 1})
    writer.done(part)
    done, entries = beside.write(lambda session: Entry(34, 1))
    assert len(done) == 1 and (entries[b"s" * 12].end, entries[b"s" * 12].count) == (136, 4)
    assert entries[b"s" * 12].refused == {"late_rank": 1}
    beside.take(batch(170), 136)
    writer.entries[b"s" * 12] = Entry(170, 3, {"late_rank": 1, "bad_record": 2})
    writer.done(writer.offered[-1])
    _, entries = beside.write(lambda session: Entry(136, 4, {"late_rank": 1}))
    assert entries[b"s" * 12].refused == {"late_rank": 1, "bad_record": 2}, "what is new"


def test_a_batch_of_which_the_run_has_all_is_settled_at_once() -> None:
    beside, (writer,) = moved()
    beside.take(batch(34, 68), 68)
    assert not writer.offered
    done, entries = beside.write(lambda session: Entry(68, 2))
    assert len(done) == 1 and (entries[b"s" * 12].end, entries[b"s" * 12].count) == (68, 2)


def test_whatever_is_not_settled_is_given_back_when_the_run_begins_anew() -> None:
    beside, (writer,) = moved()
    first, second = batch(34), batch(68)
    beside.take(first, 0)
    beside.take(second, 0)
    writer.done(writer.offered[0])
    assert [id(held) for held in beside.start_over()] == [id(first), id(second)]
    assert RUN not in beside and beside.start_over() == []
