"""One daemon and the ranks of a very large job: how many values a second it reduces, and what that takes.

The sessions are simulated (a process each would not fit any machine), everything behind the socket is the daemon's own:
hub, sessions, credit, runs, reduction, event files, acknowledgements. Each step every rank's records come in one
message, as they do when a step takes longer than a tick of the sender. `python -m benchmarks.scale` writes
``docs/scale.json``, and the table of ``docs/SCALE.md`` from it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "scale.json"
PAGE = ROOT / "docs" / "SCALE.md"
SHAPES = ((8, 100, 100), (64, 100, 60), (512, 100, 20), (1_000, 100, 20), (4_000, 100, 10), (10_000, 100, 8))
ROUNDS = 3
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def measure(world: int, tags: int, steps: int) -> dict[str, float]:
    """Reduce some steps of a job; the first, in which every rank tells its tags, is measured apart."""
    import numpy as np

    from tbxd.batch import SCALAR_DTYPE
    from tbxd.config.settings import Settings
    from tbxd.ingest.hub import Hub
    from tbxd.transport.server_socket import Peer
    from tbxd_client.protocol import wire
    from tbxd_client.protocol.kinds import SCALAR
    from tbxd_client.protocol.records import (
        FLOAT64,
        INT64,
        SCALAR_BYTES,
        SCALAR_HEAD,
        UINT32,
        RunDefinition,
        TagDefinition,
        pack_definition,
    )

    with tempfile.TemporaryDirectory(dir=os.environ.get("TBXD_BENCH_DIR")) as folder:
        woken = threading.Event()
        hub = Hub(Settings.of({}), woken.set, lambda peer, message: None)
        random = np.random.default_rng(0)
        stretch = np.zeros(tags, SCALAR_DTYPE)
        for name, value in (("h", SCALAR_HEAD), ("k", SCALAR), ("m0", UINT32), ("m1", INT64), ("m2", FLOAT64)):
            stretch[name] = value
        stretch["m3"], stretch["tag"], stretch["wall_time"] = FLOAT64, np.arange(tags), 1.0
        shared = b"".join(pack_definition(TagDefinition(tag, 0, f"metric/{tag:03d}")) for tag in range(tags))
        sessions, peers = [os.urandom(12) for _ in range(world)], [Peer(b"%d" % rank, 1) for rank in range(world)]
        origin = (f"{folder}/run", "host", 1, 1.0, "", "")
        begun = time.process_time()
        for rank, (session, peer) in enumerate(zip(sessions, peers, strict=True)):
            hub.handle(peer, wire.Hello(session, 0, 1, "host", "", "", ""))
            run = pack_definition(RunDefinition(0, *origin, rank, world, "job", 0, True))
            hub.handle(peer, wire.Data(session, wire.DEFINITIONS, 0, run + shared))
        times: list[float] = []
        for step in range(steps):
            stretch["step"] = step
            payloads = []
            for _ in range(world):
                stretch["value"] = random.normal(size=tags)
                payloads.append(stretch.tobytes())
            before = time.process_time()
            if step:
                begun = before
            for session, peer, payload in zip(sessions, peers, payloads, strict=True):
                hub.handle(peer, wire.Data(session, wire.RECORDS, step * tags * SCALAR_BYTES, payload))
            end = (step + 1) * tags * SCALAR_BYTES
            while any(client.session.written < end for client in hub.clients.values()):
                woken.wait(max(0.0, hub.tick(time.monotonic()) - time.monotonic()))
                woken.clear()
                hub.collect()
            times.append(time.process_time() - begun)
        status = hub.status()
        hub.close(30)
        written = sum(path.stat().st_size for path in Path(folder).rglob("*tfevents*"))
    values = world * tags
    assert status["totals"]["written"] == values * steps, status["totals"]
    rest = sorted(times[1:])
    return {
        "first_s": times[0],
        "step_s": rest[len(rest) // 2],
        "values_per_s": values / rest[len(rest) // 2],
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes_per_step": written / steps,
    }


def main() -> None:
    """Measure every shape several times, each in a process of its own, in turns; write results and page."""
    if sys.argv[1:]:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
        return
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for shape in SHAPES:
            command = [sys.executable, "-m", "benchmarks.scale", *map(str, shape)]
            output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            found.setdefault("x".join(map(str, shape[:2])), []).append(json.loads(output))
            print(shape, output.strip(), flush=True)
    RESULTS.write_text(json.dumps({"machine": f"{os.cpu_count()} cores", "rounds": ROUNDS, "shapes": found}, indent=1))
    PAGE.write_text(with_tables(PAGE.read_text(), found))


def with_tables(page: str, found: dict[str, Any]) -> str:
    """The page with its table made from the results."""
    lines = [
        "| ranks x tags a step | values a second | CPU of a step | the first step | memory at most | written a step |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, rounds in found.items():
        middle = {key: sorted(one[key] for one in rounds)[len(rounds) // 2] for key in rounds[0]}
        least, most = (choose(one["values_per_s"] for one in rounds) for choose in (min, max))
        ranks, tags = map(int, name.split("x"))
        lines.append(
            f"| {ranks:,} x {tags} | {middle['values_per_s'] / 1e6:.2f} M ({least / 1e6:.2f} to {most / 1e6:.2f}) "
            f"| {middle['step_s'] * 1e3:,.1f} ms | {middle['first_s']:.2f} s | {middle['memory_mib']:,.0f} MiB "
            f"| {middle['bytes_per_step'] / 1e3:,.1f} kB |"
        )
    table = "\n".join(lines)
    return re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n{table}\n{END}", page, flags=re.S)


if __name__ == "__main__":
    main()
