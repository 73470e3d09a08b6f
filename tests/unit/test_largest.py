"""The largest that a call takes is written: each limit is the same on both sides, and tried with the real daemon."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import World, world
from tbxd_client.protocol import limits, records

ROOT = Path(__file__).parents[2]

START = """
import io, itertools, json, os, sys
import numpy as np
from tbxd_client import SummaryWriter
from tbxd_client.protocol import limits
from tbxd_client.protocol import kinds, records
from tbxd_client.session import session
writer = SummaryWriter("logs/a")
WIDE = "\\U0001f600"  # four bytes of UTF-8
"""

END = """
assert writer.flush(50)
print(json.dumps(writer.stats()))
"""

# What each logs, by the limits that it concerns.
LARGEST = {
    "TAG_BYTES_MAX DESCRIPTION_BYTES_MAX": """
        tag = WIDE * (records.TAG_BYTES_MAX // 4)
        writer.add_scalar(tag, 1.0, 1, display_name=WIDE * 256, summary_description=WIDE * 4096, color="#123456")
        writer.add_text(tag, "text", 1)
        writer.add_scalar("t" * records.TAG_BYTES_MAX, 1.0, 1)
        """,
    "STEP_MAX STEP_MIN": """
        for step in (records.STEP_MIN, 0, records.STEP_MAX):
            writer.add_text(f"{step}", "text", step)
        writer.add_scalar("most", 1.0, records.STEP_MAX)
        writer.add_scalar("least", 1.0, records.STEP_MIN)
        writer.log({"row": 1.0}, records.STEP_MAX)
        """,
    "ROW_VALUES_MAX": """
        writer.log({f"tag{number}": float(number) for number in range(limits.ROW_VALUES_MAX)}, 1)
        writer.log({f"more{number}": float(number) for number in range(limits.ROW_VALUES_MAX + 1)}, 1)
        """,
    "BINS_MAX": """
        numbers = np.linspace(0, 1, 1000)
        writer.add_histogram("edges", numbers, 1, bins=np.linspace(0, 1, 20_001))
        writer.add_histogram("most", numbers, 1, bins=np.linspace(0, 1, limits.BINS_MAX + 1))
        writer.add_histogram("number", numbers, 1, bins=limits.BINS_MAX, max_bins=limits.BINS_MAX)
        edges = np.arange(1, limits.BINS_MAX + 1)
        writer.add_histogram_raw("raw", 0, 1, 1, 1, 1, edges, np.ones(limits.BINS_MAX), 1)
        """,
    # No sum that a client makes has so many parts; tests/unit/test_statistics.py tries records that have more.
    "PARTIAL_SUMS_MAX": """
        writer.add_histogram("sums", np.logspace(-300, 300, 300_000), 1)
        """,
    "BIN_RULES": """
        for rule in limits.BIN_RULES:
            writer.add_histogram(rule, np.linspace(0, 1, 1000), 1, bins=rule)
        """,
    "DTYPES DIMENSIONS_MAX": """
        for dtype in limits.DTYPES:
            array = np.ones((1,) * limits.DIMENSIONS_MAX, dtype)
            writer.add_tensor(f"tensor{dtype}", array, 1)
            if np.dtype(dtype).kind != "c":
                writer.add_histogram(f"histogram{dtype}", array, 1)
                writer.add_image(f"image{dtype}", np.ones((3, 8, 8), dtype), 1)
        """,
    "BOXES_MAX LABEL_CHARS_MAX RESCALE_MAX": """
        boxes = np.tile([1, 1, 6, 6], (limits.BOXES_MAX, 1))
        labels = [WIDE * limits.LABEL_CHARS_MAX] * limits.BOXES_MAX
        writer.add_image_with_boxes("boxes", np.zeros((3, 8, 8), np.uint8), boxes, 1, labels=labels)
        writer.add_image_with_boxes("rescaled", np.zeros((3, 8, 8), np.uint8), boxes[:1], 1, rescale=limits.RESCALE_MAX)
        """,
    "COLORMAPS LABELS_MAX": """
        for name in limits.COLORMAPS:
            writer.add_heatmap(name, np.eye(4), 1, colormap=name)
        labels = [WIDE * limits.LABEL_CHARS_MAX] * limits.LABELS_MAX
        writer.add_heatmap("labels", np.eye(limits.LABELS_MAX), 1, row_labels=labels, column_labels=labels)
        """,
    "MATRIX_AXIS_MAX MATRIX_VALUES_MAX": """
        writer.add_heatmap("long", np.zeros((1, limits.MATRIX_AXIS_MAX), np.uint8), 1)
        writer.add_heatmap("large", np.zeros((64, limits.MATRIX_VALUES_MAX // 64), np.uint8), 1)
        """,
    "PIXELS_MAX CHANNELS_MAX": """
        writer.add_image("large", np.zeros((8192, limits.PIXELS_MAX // 8192), np.uint8), 1, dataformats="HW")
        for channels in range(1, limits.CHANNELS_MAX + 1):
            writer.add_image(f"{channels}", np.zeros((channels, 8, 8), np.uint8), 1)
        """,
    "GIF_FRAMES_MAX GIF_SIDE_MAX GIF_HUNDREDTHS_MAX": """
        writer.add_video("long", np.zeros((1, limits.GIF_FRAMES_MAX, 1, 1, 1), np.uint8), 1, fps=50)
        writer.add_video("wide", np.zeros((1, 1, 1, 1, limits.GIF_SIDE_MAX), np.uint8), 1)
        writer.add_video("slow", np.zeros((1, 2, 1, 1, 1), np.uint8), 1, fps=100 / limits.GIF_HUNDREDTHS_MAX)
        """,
    "SAMPLE_RATE_MAX SOUND_CHANNELS_MAX": """
        writer.add_audio("rate", np.zeros(100), 1, sample_rate=limits.SAMPLE_RATE_MAX)
        writer.add_audio("stereo", np.zeros((100, limits.SOUND_CHANNELS_MAX)), 1)
        writer.add_audio("other", np.zeros((limits.SOUND_CHANNELS_MAX, 100)), 1)
        """,
    "THRESHOLDS_MAX": """
        labels, predictions = np.arange(100) % 2, np.linspace(0, 1, 100)
        writer.add_pr_curve("most", labels, predictions, 1, num_thresholds=limits.THRESHOLDS_MAX)
        rows = [np.ones(limits.THRESHOLDS_MAX)] * 6
        writer.add_pr_curve_raw("raw", *rows, 1, num_thresholds=limits.THRESHOLDS_MAX)
        """,
    "CONFIG_BYTES_MAX": """
        config = {"x": "y" * (limits.CONFIG_BYTES_MAX - len('{"x": ""}'))}
        writer.add_mesh("mesh", np.zeros((1, 3, 3), np.float32), config_dict=config, global_step=1)
        try:
            writer.add_mesh("mesh", np.zeros((1, 3, 3), np.float32), config_dict={**config, "z": 1}, global_step=1)
        except ValueError:
            pass
        else:
            raise AssertionError("more than may be")
        """,
    "LAYOUT_BYTES_MAX": """
        tags = ["t" * 1000] * 1040
        writer.add_custom_scalars({"category": {"chart": ["Multiline", tags]}})
        """,
    "HPARAMS_BYTES_MAX": """
        writer.add_hparams({f"{number}": "v" * 1000 for number in range(1028)}, {"metric": 1.0})
        """,
    "POINTS_MAX NUMBERS_MAX": """
        writer.add_embedding(np.zeros((limits.POINTS_MAX, 1), np.uint8), tag="points", global_step=1)
        numbers = np.zeros((16, limits.NUMBERS_MAX // 16), np.uint8)
        writer.add_embedding(numbers, tag="numbers", global_step=1)
        """,
    "SPRITE_SIDE_MAX": """
        pictures = np.zeros((4, 3, limits.SPRITE_SIDE_MAX // 2, limits.SPRITE_SIDE_MAX // 2), np.uint8)
        writer.add_embedding(np.eye(4), label_img=pictures, tag="pictures", global_step=1)
        """,
    "NODES_MAX NODE_NAME_BYTES_MAX NODE_ATTRIBUTES_BYTES_MAX NODE_DIMENSIONS_MAX": """
        from tbxd_client.values import graph
        nodes = [graph.Node(f"{number}", "op", []) for number in range(limits.NODES_MAX - 1)]
        nodes.append(
            graph.Node(
                WIDE * (limits.NODE_NAME_BYTES_MAX // 4), "o" * limits.NODE_NAME_BYTES_MAX, [],
                WIDE * (limits.NODE_ATTRIBUTES_BYTES_MAX // 4), [1] * limits.NODE_DIMENSIONS_MAX,
            )
        )
        writer._tbxd_run.text(kinds.GRAPH, "", 0, 0.0, graph._text(nodes))
        """,
    "RANKS_MAX JOB_BYTES_MAX": """
        from tbxd_client.distributed.rank_detection import Identity
        who = Identity(records.RANKS_MAX - 1, records.RANKS_MAX, job="j" * records.JOB_BYTES_MAX)
        made = session.current().define_run(writer._tbxd_run.directory, "s" * 100, "", False, who, False)
        assert made.number >= 0
        writer.add_scalar("loss", 1.0, 1)
        """,
    "PATH_BYTES_MAX": """
        parts = ["d" * 200] * 17
        long = os.path.join(writer._tbxd_run.directory, *parts)
        long += "/" + "e" * min(200, 3800 - len(long))
        other = SummaryWriter(long, filename_suffix="s" * 20)
        other.add_scalar("loss", 1.0, 1)
        writer.add_scalar("loss", 1.0, 1)
        assert other.stats()["accepted"] == 1
        """,
}
# What no call of a script can reach, or only with gigabytes.
ELSEWHERE = {
    "RECORD_BYTES_MAX": "a gigabyte; test_a_record_that_is_larger_than_the_window_gets_through has 80 MB",
    "ATTRS_BYTES_MAX": "more than all attributes of any call here",
    "DEFINITION_BYTES_MAX": "more than any definition with the largest texts",
    "RUNS_MAX": "test_keeping.py, with another number",
    "ORIGIN_BYTES_MAX": "test_successors.py",
    "TAGS_MAX": "takes minutes; test_quotas.py bounds them",
    "ROWS_MAX": "takes minutes",
    "UMASK_MAX": "test_umask.py",
    "VIEW_BYTES_MAX": "of /proc",
    "LAUNCHED_BYTES_MAX": "of /proc",
    "REDUCE_BYTES_MAX": "one of a few words",
    "SYSTEM_SECONDS_MAX": "test_system.py",
    "POSITION_MAX": "an exabyte",
    "FILL_BYTES_MAX": "test_journal.py",
    "LIST_MAX": "the greatest of the others",
    "ARRAYS_MAX": "more than any call has",
    "GRAPH_BYTES_MAX": "more than the largest graph here",
    "MODEL_BYTES_MAX": "test_model_files.py",
    "SYSTEM_SECONDS_MIN": "",
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, TBXD_JOURNAL_BYTES=str(1 << 30)) as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize("what", LARGEST)
def test_the_largest_that_a_call_takes_is_written(place: World, what: str) -> None:
    place.serve()
    result = place.run(START + textwrap.dedent(LARGEST[what]) + END)
    assert result.returncode == 0, result.stderr
    stats = json.loads(result.stdout)
    assert stats["accepted"] > 0 and stats["accepted"] == stats["written"] and not stats["dropped"], stats
    status: Any = place.status()
    assert not status["totals"]["dropped"] and not status["totals"].get("refused") and not status["refused_messages"]


def test_every_limit_is_logged_at_its_largest_or_says_where_it_is_tried() -> None:
    """A limit that is added has to be tried: declared once, it could still be one that the other side does not hold."""
    tried = {name for names in LARGEST for name in names.split()}
    declared = {
        name
        for module in (limits, records)
        for name in vars(module)
        if name.endswith("_MAX") and not name.startswith(("_", "TEXT"))
    }
    assert declared <= tried | ELSEWHERE.keys(), declared - tried - ELSEWHERE.keys()
    assert tried | ELSEWHERE.keys() <= declared | {"STEP_MIN", "BIN_RULES", "DTYPES", "COLORMAPS", "SYSTEM_SECONDS_MIN"}


def test_a_limit_of_what_a_record_holds_is_declared_nowhere_but_once() -> None:
    """No module of the summaries has a limit of its own that a client would have to know."""
    own = {"STONE_VALUES_MAX", "FLOAT16_MAX", "NAME_BYTES_MAX", "CELLS_MAX", "CELL_PIXELS_MAX", "SIZE_MAX"}
    for path in (ROOT / "tbxd" / "summaries").glob("*.py"):
        found = set(re.findall(r"^([A-Z]\w*_MAX)\b.* = ", path.read_text(), re.M))
        assert found <= own, f"{path.name}: {found - own} belongs to tbxd_client/protocol/limits.py"
