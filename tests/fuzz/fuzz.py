"""Fuzzing guided by coverage (atheris, which is libFuzzer for Python): ``make fuzz SECONDS=60 TARGET=session``.

Each target runs in a process of its own, begins with the committed corpus and what earlier runs have found, and keeps
new inputs in ``.fuzz/<target>/found``. An input that a target does not hold for is left in ``.fuzz/<target>``.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / ".fuzz"
MEMORY_BYTES = 1 << 30  # beyond what the process has when the target starts: no input needs as much
SECONDS_MAX = 20  # for one input
INPUT_BYTES_MAX = 16 << 10


def limit_memory() -> None:
    """Let whoever takes too much fail with MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def fuzz(name: str, arguments: list[str]) -> None:
    """Run one target in this process until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["tbxd", "tbxd_client"]):
        from targets import TARGETS
    from mutate import mutated
    from seeds import CORPUS

    seeds = []
    for path in sorted((CORPUS / name).iterdir()):
        seeds.append(path.read_bytes())
        try:
            TARGETS[name](seeds[-1])  # also loads what is loaded late, before memory is limited
        except BaseException:
            print(f"Test unit written to {path}")
            raise

    def mutator(data: bytes, size: int, seed: int) -> bytes:
        random = Random(seed)
        made = atheris.Mutate(data, size) if random.random() < 0.2 else mutated(data, random, seeds)
        return made[:size]

    logging.disable()
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name], custom_mutator=mutator)
    limit_memory()
    atheris.Fuzz()


def run(name: str, seconds: int) -> bool:
    """Run one target in a process of its own; True when it held."""
    place = WORK / name
    found = place / "found"
    found.mkdir(parents=True, exist_ok=True)
    arguments = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_MAX}",
        f"-max_len={INPUT_BYTES_MAX}",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={place}/",
        str(found),
        str(Path(__file__).parent / "corpus" / name),
    ]
    process = subprocess.run(
        [sys.executable, __file__, "--inside", name, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    said = process.stderr + process.stdout
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    runs = re.search(r"number_of_executed_units: (\d+)", said)
    counters = "edges {}, features {}, inputs {}".format(*coverage[-1]) if coverage else "nothing covered"
    print(f"{name:10} {int(runs[1]) if runs else 0:>10,} runs, {counters}", flush=True)
    if process.returncode:
        crash = re.search(r"Test unit written to (\S+)", said)
        print(said[-6000:])
        print(f"{name} does not hold for {crash[1] if crash else 'an input that could not be kept'}", flush=True)
    return process.returncode == 0


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return 0
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    chosen = parser.parse_args()
    held = [run(name, chosen.seconds) for name in ([chosen.target] if chosen.target else TARGETS)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
