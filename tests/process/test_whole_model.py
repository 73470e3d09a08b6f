"""All tensors of a model, each step, as fast as they go: no histogram is dropped because it is large."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tensorboardX.summary import make_histogram
from tensorboardX.writer import SummaryWriter as Original

from harness import World, events, wait_for

EDGES = Original(write_to_disk=False).default_bins
STEPS = 4

# The tensors of a transformer of 11 million parameters, with the shapes of GPT-2.
SCRIPT = """
    import json, sys
    import numpy as np
    from tbxd_client import SummaryWriter

    width, layers = 320, 6
    shapes = {"wte": (8192, width), "wpe": (512, width), "ln_f.weight": (width,)}
    for layer in range(layers):
        for name, shape in {"ln.weight": (width,), "attn": (width, 3 * width), "proj": (width, width),
                            "fc": (width, 4 * width), "fc.bias": (4 * width,), "out": (4 * width, width)}.items():
            shapes[f"h{layer}.{name}"] = shape
    random = np.random.default_rng(0)
    model = {name: random.standard_normal(shape, dtype="f4") for name, shape in shapes.items()}
    writer = SummaryWriter("logs/a", flush_secs=1)
    for step in range(int(sys.argv[1])):
        for name, values in model.items():
            writer.add_histogram(name, values, step)
            values *= np.float32(1.5)  # what is logged is what it was
    print(json.dumps([len(model), writer.stats()["dropped"]]))
"""


def histograms(place: World) -> dict[tuple[str, int], Any]:
    return {
        (value.tag, event.step): value.histo
        for event in events(place.logdir / "a")
        for value in event.summary.value
        if value.HasField("histo")
    }


@pytest.mark.parametrize("journal_bytes", [4 << 20, 256 << 20])
@pytest.mark.parametrize("daemon", [True, False])
def test_no_histogram_is_dropped_and_the_counts_are_tensorboardxs(
    place: World, daemon: bool, journal_bytes: int
) -> None:
    """A step has 44 MB, so that a small journal has no room for one, and none for all while no daemon takes them."""
    environ = {"TBXD_JOURNAL_BYTES": str(journal_bytes), "TBXD_FLUSH_SECONDS": "1"}
    if not daemon:
        environ["TBXD_ADDRESS"] = f"ipc://{place.root}/nobody"
    result = place.run(SCRIPT, STEPS, environ=environ)
    assert result.returncode == 0, result.stderr
    count, dropped = json.loads(result.stdout)
    assert not dropped, dropped
    if not daemon:
        place.ensure()
    wait_for(place.drained, "all that was logged")
    found = histograms(place)
    assert len(found) == STEPS * count
    values = np.random.default_rng(0).standard_normal((8192, 320), dtype="f4")
    for step in range(STEPS):
        wanted = make_histogram(values.reshape(-1).astype(float), EDGES)
        one = found["wte", step]
        assert list(one.bucket) == list(wanted.bucket) and list(one.bucket_limit) == list(wanted.bucket_limit)
        assert (one.num, one.min, one.max) == (wanted.num, wanted.min, wanted.max)
        assert one.sum_squares == pytest.approx(wanted.sum_squares, rel=1e-9)
        values *= np.float32(1.5)


def test_a_script_without_memory_to_count_goes_on(place: World) -> None:
    """To count takes some MiB that the script may not have: the record is copied, or dropped and counted."""
    script = """
        import json, resource
        import numpy as np
        from tbxd_client import SummaryWriter

        writer, values = SummaryWriter("logs/a"), np.ones(8 << 20, "f4")
        writer.add_histogram("small", np.ones(9), 0)
        writer.flush()
        pages = int(open("/proc/self/statm").read().split()[0])
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, ((pages << 12) + (3 << 20), most))
        writer.add_histogram("large", values, 1)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        stats = writer.stats()
        print(json.dumps([stats["accepted"], sum(stats["dropped"].values())]))
    """
    result = place.run(script)
    assert result.returncode == 0, result.stderr
    accepted, dropped = json.loads(result.stdout)
    assert (accepted, dropped <= 1) == (2, True)


def test_where_histograms_may_fill_little_of_the_journal_large_ones_leave_each_other_room(place: World) -> None:
    """Copied until the journal is half full, the first ones would take all that histograms may fill."""
    script = """
        import json
        import numpy as np
        from tbxd_client import SummaryWriter

        writer, values = SummaryWriter("logs/a"), np.ones(1 << 18, "f4")
        for step in range(100):
            writer.add_histogram("large", values, step)
        print(json.dumps(writer.stats()["dropped"]))
    """
    environ = {"TBXD_JOURNAL_BYTES": str(64 << 20), "TBXD_JOURNAL_SHARES": "histogram=30", "TBXD_FLUSH_SECONDS": "1"}
    result = place.run(script, environ={**environ, "TBXD_ADDRESS": f"ipc://{place.root}/nobody"})
    assert result.returncode == 0, result.stderr
    assert not json.loads(result.stdout), result.stdout
