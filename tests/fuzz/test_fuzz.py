"""Every fuzz target holds for the kept corpus and for mutations of it. ``make fuzz`` goes on from here by coverage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, os.path.dirname(__file__))

from fuzz import limit_memory
from mutate import mutated
from seeds import CORPUS, seeds
from targets import TARGETS
from tbxd_client.protocol import kinds, wire

CORPUS_BYTES_MAX = 200_000


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds_for_the_corpus_within_bounds_of_memory(target: str) -> None:
    """In a process of its own, where what takes too much fails: ``python tests/fuzz/test_fuzz.py <target>``."""
    result = subprocess.run([sys.executable, __file__, target], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout) == len(corpus(target)) > 0


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_target_holds_for_mutations(target: str, data: st.DataObject) -> None:
    inputs = corpus(target)
    made = data.draw(st.sampled_from(inputs))
    random = data.draw(st.randoms(use_true_random=False))
    for _ in range(data.draw(st.integers(1, 4))):
        made = mutated(made, random, inputs)
    TARGETS[target](made)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_a_target_holds_for_any_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_the_seeds_in_the_corpus_are_those_of_the_script() -> None:
    for target, values in seeds().items():
        for name, value in values.items():
            assert (CORPUS / target / name).read_bytes() == msgpack.packb(value), "python tests/fuzz/seeds.py"
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS) == set(seeds())


def test_there_is_a_seed_of_every_message_and_kind() -> None:
    numbers = {value[0] for value in seeds()["record"].values()}
    assert numbers == set(kinds.KIND_NAMES)
    messages = {value[0][1] for value in seeds()["wire"].values()}
    assert messages == set(wire.MESSAGES)


@pytest.mark.parametrize("name", seeds()["record"])
def test_what_a_seed_holds_is_written_and_not_refused(name: str) -> None:
    from targets import _event_of, record_of, unpack_record

    value: Any = seeds()["record"][name]
    assert _event_of(unpack_record(record_of(value))) is not None


def test_the_corpus_stays_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < CORPUS_BYTES_MAX


if __name__ == "__main__":
    inputs = corpus(sys.argv[1])
    TARGETS[sys.argv[1]](inputs[0])  # what is loaded late
    limit_memory()
    for number, one in enumerate(inputs):
        try:
            TARGETS[sys.argv[1]](one)
        except BaseException:
            print(
                f"input {sorted(path.name for path in Path(CORPUS / sys.argv[1]).iterdir())[number]}", file=sys.stderr
            )
            raise
    print(len(inputs))
