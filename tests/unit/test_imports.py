"""The ladder: a folder uses only those below it, no modules import in a circle, and the client is light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Folders from the ground up: a module imports from its own folder and from those before it. "" are the modules beside
# the folders, which anybody above the first rung may import in `tbxd`, and which only programs import in the client.
CLIENT = (
    "process",
    "config",
    "protocol",
    "statistics",
    "values",
    "logdir",
    "journal",
    "distributed",
    "transport",
    "session",
    "writers",
    "",
)
DAEMON = (
    "",
    "process",
    "metrics",
    "config",
    "transport",
    "tfevents",
    "encode",
    "reduce",
    "runs",
    "scheduler",
    "ingest",
    "system",
    "daemon",
    "tools",
    "tensorboard_plugin",
    "cli",
)
# Who alone imports what is heavy.
ONLY = {
    "zmq": {
        "tbxd_client/transport/connection.py",
        "tbxd/transport/server_socket.py",
        "tbxd/transport/keyring.py",
        "tbxd/transport/zap_auth.py",
        "tbxd/transport/control_client.py",
        "tbxd/daemon/lifecycle.py",
    },
    "msgpack": {
        "tbxd_client/protocol/records.py",
        "tbxd_client/protocol/wire.py",
        "tbxd/ingest/session.py",
        "tbxd/batch_bytes.py",
    },
    "google": {"tbxd/tfevents/schema.py", "tbxd/runs/projector.py"},
    "crc32c": {"tbxd/tfevents/crc.py", "tbxd/tfevents/scalar_columns.py", "tbxd_client/logdir/record_writer.py"},
    "PIL": {f"tbxd/encode/{name}.py" for name in ("image", "heatmap", "boxes", "video")},
    "click": {"tbxd/cli/main.py", "tbxd/cli/config_commands.py", "tbxd/cli/options.py", "tbxd/cli/standard_output.py"},
    "tomllib": {"tbxd/config/toml_file.py"},
    "tomli": {"tbxd/config/toml_file.py"},
    "pynvml": {"tbxd/system/gpus.py"},
    "psutil": set(),
    "prometheus_client": {"tbxd/metrics/catalogue.py"},
    "http": {"tbxd/metrics/http_endpoint.py"},
    "onnx": {"tbxd/encode/onnx_graph.py"},
    "rich": {"tbxd/cli/status_view.py", "tbxd/cli/findings_view.py", "tbxd/tools/demo.py", "tbxd/cli/top_view.py"},
    "torch": {"tbxd/tools/demo_worker.py"},
    "sklearn": {"tbxd/tools/demo_worker.py"},
    "tensorboardX": {"tbxd/tools/demo_worker.py"},
    "pickle": set(),
    "tensorboard": {"tbxd/tensorboard_plugin/plugin.py"},
    "werkzeug": {"tbxd/tensorboard_plugin/plugin.py"},
}

# Imports within functions of the client. A child that is forked while another thread imports a module finds the lock of
# that import held for ever, so that nothing is imported on the way of a record: what these load is loaded with the
# writer, or belongs to one rare call.
LATE = {
    "transport.launcher": {"load", "_look_after", "_launch", "_start"},  # `load` is called with the writer
    "transport.sender": {"load"},
    "session.session": {"load"},
    "session.run_handle": {"leave_file"},  # a writer that has logged nothing
    "logdir.record_writer": {"__init__"},
    "config.paths": {"default_address"},  # a very long runtime folder
    "distributed.rank_detection": {"default_folder", "launched", "_counts", "_job", "_slurm_job"},  # with the writer
    "writers.interception": {"scalar", "array", "histogram", "text", "graph"},  # overridden file writers
    "writers.file_writer": {"_event"},
    "writers.plugin_methods": {"add_graph"},
}
NUMPY = {
    "statistics.distribution",
    "statistics.moments",
    "statistics.numpy_bins",
    "statistics.tensorflow_bins",
    "values.log_values",
    "values.media",
    "values.plots",
    "values.arrays",
    "values.counted",
    "values.numbers",
    "utils",
}  # whoever has arrays has loaded numpy


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


PACKAGES = {
    "tbxd_client": (ROOT / "client" / "tbxd_client", CLIENT),
    "tbxd": (ROOT / "tbxd", DAEMON),
}


def graph(package: str) -> dict[str, set[str]]:
    """Each module of a package, and those of the same package that it imports."""
    known = modules(PACKAGES[package][0])
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for target in imported(path, name, package):
            if target.split(".")[0] != package:
                continue
            below = target.removeprefix(package).strip(".")
            for candidate in (below, f"{below}.__init__".lstrip("."), below.rpartition(".")[0]):
                if candidate in known and candidate != name:
                    found[name].add(candidate)
                    break
    return found


def room(name: str) -> str:
    return name.rpartition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_down_the_ladder(package: str) -> None:
    rungs = PACKAGES[package][1]
    imports = graph(package)
    assert {room(name) for name in imports} == set(rungs), "every folder has its rung"
    for name, targets in imports.items():
        if name == "__main__":  # starts the command line
            continue
        for target in targets:
            assert rungs.index(room(target)) <= rungs.index(room(name)), f"{package}.{name} imports {package}.{target}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_in_a_circle(package: str) -> None:
    imports = {name: targets for name, targets in graph(package).items() if name != "__init__"}
    while imports:
        free = {name for name, targets in imports.items() if not targets & imports.keys()}
        assert free, f"in a circle, or above one: {sorted(imports)}"
        imports = {name: targets for name, targets in imports.items() if name not in free}


def test_the_client_knows_nothing_of_the_daemon() -> None:
    folder = ROOT / "client" / "tbxd_client"
    for name, path in modules(folder).items():
        assert not {target for target in imported(path, name, "tbxd_client") if target.split(".")[0] == "tbxd"}


# Of the client, the daemon uses what both sides have to agree on, and the client's own way to a daemon.
SHARED = {"process", "config", "protocol", "statistics", "logdir", "journal", "distributed", "transport"}
SHARED_MODULES = {"values.embedding", "writers.readback"}
WRITERS = {"tools.demo_worker"}  # logs, as a trainer does


def test_the_daemon_uses_of_the_client_what_both_agree_on() -> None:
    client = modules(PACKAGES["tbxd_client"][0])
    for name, path in modules(PACKAGES["tbxd"][0]).items():
        for target in imported(path, name, "tbxd") if name not in WRITERS else ():
            below = target.removeprefix("tbxd_client.")
            if below != target and (below in client or f"{below}.__init__" in client):
                assert below.split(".")[0] in SHARED or below in {*SHARED_MODULES, "values", "writers"}, (name, target)


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
