"""The ladder: a module uses only what stands below it, and the client is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up; a module may import those before it. What stands on one rung does not know of each other.
CLIENT = (
    ("interpreters", "native", "limits", "overrides", "folder_names"),
    ("descriptors",),
    ("folder_lock", "view", "own_sockets", "zmtp"),
    ("mounts",),
    ("settings", "turns", "room", "headroom", "doorbell", "helper", "records", "journal_files", "event_names"),
    ("paths", "executable", "jobs", "reach", "storing"),
    ("places", "origin"),
    ("keys", "names", "snapshot", "wire", "segment", "launch", "shares", "protowire", "record_writer", "kept_points"),
    ("link", "local_link", "outage", "reports", "media", "messages", "journal", "readback", "model_files", "ranks"),
    ("memory_journal", "sender", "policy"),
    ("session",),
    ("calls",),
    ("run", "plots", "hparams", "embedding", "utils", "graph", "log_values"),
    ("lenient", "interception"),
    ("writer_base", "file_writer"),
    ("writer_media", "writer_plugins", "event_file_writer"),
    ("writer",),
    ("global_writer", "torchvis"),
    ("__init__",),
)
DAEMON = (
    (
        "__init__",
        "board.__init__",
        "events.__init__",
        "events.crc",
        "events.schema",
        "events.modes",
        "events.mounts",
        "names",
        "standard_output",
        "summaries.errors",
    ),
    (
        "events.folder",
        "events.trust",
        "settings",
        "keys",
        "roots",
        "ended",
        "pool",
        "credit",
        "descriptors",
        "notify",
        "logs",
        "service",
        "walls",
        "inotify",
        "heap",
    ),
    ("buckets", "vitals", "troubles", "metrics", "quotas", "reported"),
    ("endpoint", "config_file", "finding", "holders"),
    ("config",),
    ("options", "declared", "doctor_settings"),
    ("system.__init__", "system.proc", "system.gpus", "system.probe"),
    ("system.sampler",),
    ("events.record", "events.ledger", "events.grouping", "summaries.arrays", "strand", "stored", "gate"),
    ("events.peek", "events.kept", "events.tags", "events.rank_notes", "events.tape"),
    ("events.reduced",),
    ("events.plain", "events.lineage"),
    ("events.scalar", "events.file", "summaries.metadata"),
    ("events.scan", "events.contents", "events.rivals", "events.inherited", "events.walk"),
    ("events.steps", "events.rows", "events.resume", "events.checkpoint"),
    ("hidden",),
    ("summaries.scalar", "summaries.histogram", "summaries.text", "summaries.image", "summaries.tensor"),
    ("summaries.heatmap", "summaries.boxes", "summaries.video", "summaries.audio", "summaries.curve", "summaries.mesh"),
    ("summaries.layout", "summaries.hparams", "summaries.embedding", "summaries.event", "session", "receiver"),
    ("projector", "summaries.nodes"),
    ("summaries.graph", "summaries.onnx_graph", "summaries.openvino_graph"),
    ("summaries.__init__", "system.curves"),
    ("scalars", "unwritable", "others"),
    ("ranks.__init__", "ranks.points", "ranks.frontier", "ranks.starts", "ranks.coming", "ranks.launched"),
    ("ranks.encoder", "ranks.parts", "ranks.restarts", "ranks.unread"),
    ("lives", "losses", "ranks.side", "ranks.tags", "ranks.speakers", "ranks.waiting"),
    ("plan", "tally"),
    ("beside",),
    ("ranks.sides", "ranks.patience", "ranks.moved"),
    ("ranks.emission", "ranks.recall"),
    ("ranks.reduction",),
    ("ranks.ranks",),
    ("run",),
    ("keeping",),
    ("shown",),
    ("hub",),
    ("succession",),
    ("adopt", "system.watch"),
    ("ask", "reload"),
    ("daemon", "demo_worker"),
    ("leftovers",),
    ("drain",),
    ("forward",),
    ("check", "tail", "versions", "top", "keyboard"),
    ("doctor", "board.curves"),
    ("board.live",),
    ("board.plugin",),
    ("show", "report"),
    ("demo", "top_view"),
    ("cli_config",),
    ("cli",),
    ("__main__",),
)
# Who alone imports what is heavy.
ONLY = {
    "zmq": {"tbxd_client/link.py", "tbxd/receiver.py", "tbxd/keys.py", "tbxd/gate.py", "tbxd/ask.py", "tbxd/daemon.py"},
    "msgpack": {"tbxd_client/records.py", "tbxd_client/wire.py", "tbxd/session.py"},
    "google": {"tbxd/events/schema.py", "tbxd/projector.py"},
    "crc32c": {"tbxd/events/crc.py", "tbxd/events/rows.py", "tbxd_client/record_writer.py"},
    "PIL": {f"tbxd/summaries/{name}.py" for name in ("image", "heatmap", "boxes", "video")},
    "click": {"tbxd/cli.py", "tbxd/cli_config.py", "tbxd/options.py", "tbxd/standard_output.py"},
    "tomllib": {"tbxd/config_file.py"},
    "tomli": {"tbxd/config_file.py"},
    "pynvml": {"tbxd/system/gpus.py"},
    "psutil": set(),
    "prometheus_client": {"tbxd/metrics.py"},
    "http": {"tbxd/endpoint.py"},
    "onnx": {"tbxd/summaries/onnx_graph.py"},
    "rich": {"tbxd/show.py", "tbxd/report.py", "tbxd/demo.py", "tbxd/top_view.py"},
    "torch": {"tbxd/demo_worker.py"},
    "sklearn": {"tbxd/demo_worker.py"},
    "tensorboardX": {"tbxd/demo_worker.py"},
    "pickle": set(),
    "tensorboard": {"tbxd/board/plugin.py"},
    "werkzeug": {"tbxd/board/plugin.py"},
}

# Imports within functions of the client. A child that is forked while another thread imports a module finds the lock of
# that import held for ever, so that nothing is imported on the way of a record: what these load is loaded with the
# writer, or belongs to one rare call.
LATE = {
    "launch": {"load", "_look_after", "_launch", "_start"},  # `load` is called with the writer
    "sender": {"load"},
    "session": {"load"},
    "run": {"leave_file"},  # a writer that has logged nothing
    "record_writer": {"__init__"},
    "paths": {"default_address"},  # a very long runtime folder
    "ranks": {"default_folder", "launched", "_counts", "_job", "_slurm_job"},  # with the writer
    "interception": {"scalar", "array", "text", "graph"},  # overridden file writers
    "file_writer": {"_event"},
    "writer": {"default_bins"},
    "writer_plugins": {"add_graph"},
}
NUMPY = {"log_values", "media", "plots", "snapshot", "utils"}  # arrays: whoever has one has loaded numpy


def modules(folder: Path) -> dict[str, Path]:
    return {".".join(path.relative_to(folder).with_suffix("").parts): path for path in sorted(folder.rglob("*.py"))}


def imported(path: Path, name: str, package: str) -> set[str]:
    """Full names of everything that a module imports, also inside functions."""
    found: set[str] = set()
    parts = [package, *name.split(".")]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level] if node.level else []
            stem = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found |= {f"{stem}.{alias.name}" for alias in node.names} | ({stem} - {package})
    return found


@pytest.mark.parametrize(
    ("package", "folder", "rungs"),
    [("tbxd_client", ROOT / "client" / "tbxd_client", CLIENT), ("tbxd", ROOT / "tbxd", DAEMON)],
)
def test_imports_go_down_the_ladder(package: str, folder: Path, rungs: tuple[tuple[str, ...], ...]) -> None:
    height = {name: rung for rung, names in enumerate(rungs) for name in names}
    known = modules(folder)
    assert set(known) == set(height), "every module has its rung"
    for name, path in known.items():
        for target in imported(path, name, package):
            if target.split(".")[0] != package:
                continue
            below = target.removeprefix(package).strip(".")
            for candidate in (below, f"{below}.__init__" if below else "__init__", below.rpartition(".")[0]):
                if candidate in height and candidate != name:
                    limit = height[name] - (name != "__init__" and not candidate.endswith("__init__"))
                    assert height[candidate] <= limit, f"{package}.{name} imports {package}.{candidate}"
                    break


def test_the_client_knows_nothing_of_the_daemon() -> None:
    folder = ROOT / "client" / "tbxd_client"
    for name, path in modules(folder).items():
        assert not {target for target in imported(path, name, "tbxd_client") if target.split(".")[0] == "tbxd"}


def test_each_heavy_package_has_its_one_door() -> None:
    for package, folder in (("tbxd_client", ROOT / "client" / "tbxd_client"), ("tbxd", ROOT / "tbxd")):
        for name, path in modules(folder).items():
            place = f"{package}/{path.relative_to(folder)}"
            for target in imported(path, name, package):
                allowed = ONLY.get(target.split(".")[0])
                assert allowed is None or place in allowed, f"{place} imports {target}"


def test_importing_the_client_loads_no_numpy_torch_or_protobuf(tmp_path: Path) -> None:
    script = """
import sys, threading
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
heavy = {"numpy", "torch", "google.protobuf", "tensorboard", "tensorboardX", "matplotlib", "PIL", "tbxd", "jax"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert threading.active_count() == 1, "nothing is started before the first record"
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "run")], check=True)


@pytest.mark.parametrize("local", [True, False])
def test_pyzmq_comes_with_the_first_writer_and_over_tcp_alone(tmp_path: Path, local: bool) -> None:
    """Not with the import, not on the sender's thread, and never for a daemon of this host."""
    script = """
import sys
import tbxd_client
assert not {"zmq", "dataclasses", "inspect"} & set(sys.modules), "the import is to be quick"
writer = tbxd_client.SummaryWriter(sys.argv[1])
assert ("zmq" in sys.modules) == (sys.argv[2] == "False"), "the first record is to be quick"
before = set(sys.modules)
writer.add_scalar("loss", 0.5, 0)
writer.flush(0.5)
assert not {name for name in set(sys.modules) - before if name.startswith("zmq")}
"""
    environ = {
        **os.environ,
        "TBXD_ADDRESS": f"ipc://{tmp_path}/nobody.sock" if local else "tcp://127.0.0.1:9",
        "TBXD_SPOOL": str(tmp_path / "spool"),
        "TBXD_FLUSH_SECONDS": "0",
    }
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "run"), str(local)], check=True, env=environ)


def test_nothing_is_imported_on_the_way_of_a_record() -> None:
    for name, path in modules(ROOT / "client" / "tbxd_client").items():
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            late = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
            if name in NUMPY:
                late = [
                    node
                    for node in late
                    if not {"numpy", "matplotlib"} & {alias.name.split(".")[0] for alias in node.names}
                    | {str(getattr(node, "module", "")).split(".")[0]}
                ]
            assert not late or function.name in LATE.get(name, set()), f"{name}.{function.name} imports when it runs"
