"""The valid inputs that fuzzing begins with: ``python tests/fuzz/seeds.py`` writes them into the corpus.

One of each message, kind of record, journal and event file; what fuzzing has found lies beside them, named by its hash.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgpack

from targets import DEFINITIONS, SESSION
from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import frame
from tbxd_client.journal.journal_files import (
    CONTROL_BYTES,
    CONTROL_HEAD,
    CONTROL_NAME,
    DEFINITIONS_NAME,
    MAGIC,
    SEGMENT_HEAD,
    SEGMENT_HEAD_BYTES,
    WORDS,
    WORDS_OFFSET,
    segment_name,
)
from tbxd_client.protocol import kinds, wire
from tbxd_client.protocol.protowire import field
from tbxd_client.protocol.records import pack_scalar

CORPUS = Path(__file__).parent / "corpus"

FOUR = struct.pack("<4f", 0.1, 0.9, 1.0, float("nan"))


# A ModelProto: its graph with a node (input, output, name, operation, an attribute) and an input with type and shape.
NODE = field(1, field(1, b"in") + field(2, b"out") + field(3, b"name") + field(4, b"Add") + field(5, field(1, b"axis")))
INPUT = field(11, field(1, b"in") + field(2, field(1, b"\x08\x01" + field(2, field(1, b"\x08\x03")))))
ONNX = b"\x08\x08" + field(7, NODE + INPUT)
OPENVINO = b"""<?xml version="1.0"?><net><layers><layer id="0" name="in"/><layer id="1" name="out"/></layers>
<edges><edge from-layer="0" to-layer="1"/></edges></net>"""


def array(dtype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, **more}


def arrays(*described: tuple[str, str, list[int]], **more: Any) -> dict[str, Any]:
    return {"arrays": [list(one) for one in described], **more}


RECORDS: dict[str, list[Any]] = {
    "scalar": [kinds.SCALAR, 0, 1, 2.0, {}, 0.5],
    "row": [kinds.ROW, 0, 1, 2.0, {}, struct.pack(">2d", 0.5, 1.5)],
    "histogram": [kinds.HISTOGRAM, 0, 1, 2.0, array("<f4", [2, 2], bins="auto", max_bins=10), FOUR],
    "histogram-edges": [kinds.HISTOGRAM, 0, 1, 2.0, array("<f4", [4], bins=[0.0, 0.5, 1.0]), FOUR],
    "image": [kinds.IMAGE, 0, 1, 2.0, array("|u1", [3, 4, 5], dataformats="CHW"), [b"\0\x80\xff\1", 60]],
    "images": [kinds.IMAGE, 0, 1, 2.0, array("<f4", [2, 1, 2, 2], dataformats="NCHW"), [FOUR, 32]],
    "text": [kinds.TEXT, 0, 1, 2.0, {}, "# a *text*"],
    "heatmap": [
        kinds.HEATMAP,
        0,
        1,
        2.0,
        array("<f4", [2, 2], colormap="magma", vmin=0.0, vmax=1.0, row_labels=["a", "b"], column_labels=["c", "d"]),
        FOUR,
    ],
    "restart": [kinds.RESTART, 0, 7, 2.0, {}, None],
    "histogram_raw": [
        kinds.HISTOGRAM_RAW,
        0,
        1,
        2.0,
        arrays(("limits", "<f4", [2]), ("counts", "<f4", [2]), min=0.0, max=1.0, num=2.0, sum=1.0, sum_squares=1.0),
        FOUR,
    ],
    "boxes": [
        kinds.BOXES,
        0,
        1,
        2.0,
        arrays(("image", "|u1", [3, 4, 4]), ("boxes", "<f4", [1, 4]), dataformats="CHW", rescale=2.0, labels=["a"]),
        bytes(48) + FOUR,
    ],
    "video": [
        kinds.VIDEO,
        0,
        1,
        2.0,
        array("|u1", [1, 3, 3, 4, 4], dataformats="NTCHW", fps=4),
        [bytes(range(251)), 144],
    ],
    "audio": [kinds.AUDIO, 0, 1, 2.0, array("<f4", [4], sample_rate=8000), FOUR],
    "pr_curve": [
        kinds.PR_CURVE,
        0,
        1,
        2.0,
        arrays(("labels", "|b1", [4]), ("predictions", "<f4", [4]), num_thresholds=9),
        b"\0\1\1\0" + FOUR,
    ],
    "pr_curve_raw": [kinds.PR_CURVE_RAW, 0, 1, 2.0, array("<f4", [6, 2]), [FOUR, 48]],
    "mesh": [
        kinds.MESH,
        0,
        1,
        2.0,
        arrays(("vertices", "<f4", [1, 3, 3]), ("faces", "<i4", [1, 1, 3]), ("colors", "|u1", [1, 3, 3]), config="{}"),
        [FOUR, 57],
    ],
    "tensor": [kinds.TENSOR, 0, 1, 2.0, array("bfloat16", [2, 4]), FOUR],
    "custom_scalars": [
        kinds.CUSTOM_SCALARS,
        0,
        1,
        2.0,
        {},
        json.dumps({"one": {"chart": ["Multiline", ["a", "b"]], "band": ["Margin", ["a", "b", "c"]]}}),
    ],
    "hparams": [
        kinds.HPARAMS,
        0,
        1,
        2.0,
        {},
        json.dumps({"hparams": {"lr": 0.1, "on": True, "name": "x"}, "metrics": ["m"], "domains": {"lr": [0.1, 1]}}),
    ],
    "embedding": [
        kinds.EMBEDDING,
        0,
        1,
        2.0,
        arrays(("mat", "<f4", [2, 2]), ("metadata", "|u1", [4]), ("images", "<f4", [2, 3, 2, 2])),
        [FOUR, 116],
    ],
    "event": [
        kinds.EVENT,
        0,
        1,
        2.0,
        {},
        schema.Event(
            summary=schema.Summary(value=[schema.Summary.Value(tag="a", simple_value=1.0)])
        ).SerializeToString(),
    ],
    "graph": [
        kinds.GRAPH,
        0,
        1,
        2.0,
        {},
        json.dumps({"nodes": [["in", "Input", [], "", [1, -1]], ["out", "Add", ["in"], "{a: 1}", None]]}),
    ],
    "onnx_graph": [kinds.ONNX_GRAPH, 0, 1, 2.0, {}, ONNX],
    "openvino_graph": [kinds.OPENVINO_GRAPH, 0, 1, 2.0, {}, OPENVINO],
}

TOO_MUCH = {0: [2**64 - 1, {"too_large": 1}], 1: [2**63, {"too_large": 2**64 - 1}]}

MESSAGES: list[wire.Message] = [
    wire.Hello(SESSION, 34, 1, "host", "/journal", "program", "token"),
    wire.Stored(SESSION, 34, 68, 1),
    wire.Flush(SESSION, 68, 1, 2),
    wire.Report(SESSION, {0: [3, {"journal_full": 1}]}),
    wire.Goodbye(SESSION),
    wire.Welcome(SESSION, 34, 10, 1 << 20, 1, 1),
    wire.Ack(SESSION, 34, 1 << 20, {0: [3, {"bad_record": 1}]}, 68, 2, "/logs/a: No space left on device"),
    wire.Unknown(SESSION),
    wire.Refused(SESSION, "reason"),
    wire.Ask("status", ""),
    wire.Answer({"runs": {}}),
]


def journal(start: int, stream: bytes, split: int) -> dict[str, Any]:
    """A journal that holds ``stream`` in two segments."""
    control = bytearray(CONTROL_BYTES)
    CONTROL_HEAD.pack_into(control, 0, MAGIC, SESSION, 1, bytes(16), 0, 1.0)
    WORDS.pack_into(control, WORDS_OFFSET, start + len(stream), start, start, 3, *[0] * 8)
    files: dict[str, Any] = {
        CONTROL_NAME: bytes(control).rstrip(b"\0").ljust(256, b"\0"),
        DEFINITIONS_NAME: DEFINITIONS,
    }
    for number, (base, part) in enumerate(((start, stream[:split]), (start + split, stream[split:]))):
        head = SEGMENT_HEAD.pack(MAGIC, SESSION, base).ljust(SEGMENT_HEAD_BYTES, b"\0")
        files[segment_name(number)] = head + part
    return files


def seeds() -> dict[str, dict[str, Any]]:
    """Inputs as values, by target and name."""
    stream = b"".join(pack_scalar(tag, step, 1.0, 0.5) for step in range(2) for tag in (0, 1, 0))
    first = schema.Event(wall_time=1.0, file_version="brain.Event:2")
    first.source_metadata.writer = "tbxd 0"
    event = schema.Event(step=1, summary=schema.Summary(value=[schema.Summary.Value(tag="loss", simple_value=0.5)]))
    opening = [[first.SerializeToString()]]
    texts = [
        "tbxd 0",
        "LAAECAwQFBgcICQoL,44,2,,full:1;AQECAwQFBgcICQoL,22,1,bad:1",
        "L.",
        "M0=AAECAwQFBgcICQoL,66,22,3",
        "",
        "M1=AQECAwQFBgcICQoL,44,22,2,bad_record:1",
        "M0,aa,22,5",
        "NAAECAwQFBgcICQoL,journal_full:3",
    ]
    plain = [event.SerializeToString()]
    event.source_metadata.writer = texts[3]
    marked = [event.SerializeToString()]
    event.ClearField("source_metadata")
    event.step = -5
    negative = [event.SerializeToString()]
    event.step = 1
    event.summary.value.add(tag="accuracy", simple_value=0.25)
    several = [event.SerializeToString()]
    burst = b"".join(pack_scalar(tag, step, 1.0, 0.5) for step in range(40) for tag in (0, 2, 1))
    return {
        "wire": {
            type(one).__name__.lower(): [msgpack.unpackb(wire.pack(one)[0], strict_map_key=False)] for one in MESSAGES
        }
        | {"data": [[wire.VERSION, "data", SESSION, 0, 34], stream]},
        "hub": {
            "each": [
                [*msgpack.unpackb(wire.pack(one)[0], strict_map_key=False)]
                for one in MESSAGES
                if not isinstance(one, wire.Goodbye)
            ],
            "records": [
                [wire.VERSION, "data", SESSION, 0, 0, stream],
                [wire.VERSION, "report", SESSION, {0: [9, {"too_large": 1, "no_journal": 2}], 5: [1, {}]}],
                [wire.VERSION, "flush", SESSION, len(stream), 1],
                [wire.VERSION, "goodbye", SESSION],
                [wire.VERSION, "hello", SESSION, 0, 1, "host", "/journal", "program", ""],
            ],
            "too-much": [
                [wire.VERSION, "report", SESSION, TOO_MUCH],
                [wire.VERSION, "hello", SESSION, 2**63 - 1, 2**63 - 1, "", "", "", ""],
                [wire.VERSION, "stored", SESSION, 2**63 - 1, 2**63 - 1, 2**63 - 1],
                [wire.VERSION, "flush", SESSION, 2**63 - 1, 2**63 - 1],
            ],
        },
        "session": {
            name: [1000, [1, 33, 1, 100], None, [RECORDS["scalar"], record, [1, 1, 2, 3.0, {}, 4.0]]]
            for name, record in RECORDS.items()
        }
        | {
            "definitions": [
                0,
                [5, 7],
                msgpack_items(DEFINITIONS),
                [stream, RECORDS["text"], stream, [kinds.TEXT, 1, 5, 6.0, {}, "numbered"]],
            ],
            "burst": [0, [1 << 12], None, [burst, RECORDS["text"], burst]],
        },
        "record": dict(RECORDS),
        "journal": {"two-segments": journal(0, stream, 68), "later": journal(1 << 20, stream, 70)},
        "ledger": {"all": texts, "one-mark": [texts[0], texts[2], texts[3], "", ""]}
        | {"values": [*texts[:3], "V0=AAECAwQFBgcICQoL,66,22,3", "", texts[6], "", "V0,110,22,8"]},
        "model": {
            "small": [ONNX],
            "weights": [
                [7, [[1, [[1, [b"in"]], [5, [[1, [b"value"]], [5, [[9, [[b"\0\1", 70_000]]], b"\x10\x01"]]]]]], INPUT]]
            ],
        },
        "events": {
            "two-files": [[*opening, *texts[1:4], plain, plain], [*opening, *texts[1:], plain]],
            "several": [[*opening, "L.", "V0=AAECAwQFBgcICQoL,66,22,3", several, plain, texts[6], several]],
            "cut": [[*opening, "L.", texts[3], plain, plain, b"\x0c\0\0\0"]],
            "not-ours": [[plain, plain], [b"something else"]],
        },
        "scan": {
            "whole": [*opening, plain, several, plain],
            "torn": [plain, frame(several[0])[:-9], plain, b"\0" * 40, plain],
            "damaged": [plain, frame(plain[0])[:-1] + b"x", several, frame(plain[0])[:20]],
        },
        "peek": {
            "plain": [*plain, *plain, *marked, *negative, *several],
            "written-again": [*marked, *plain, [9, plain], *negative, b"\x09" + bytes(8) + b"\x10"],
        },
    }


def msgpack_items(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(data)
    return list(unpacker)


def write() -> None:
    for target, values in seeds().items():
        place = CORPUS / target
        place.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (place / name).write_bytes(msgpack.packb(value))


if __name__ == "__main__":
    write()
