"""Metrics: what Prometheus scrapes from a real daemon, that `tbxd status` says the same, and that nobody is hurt."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from harness import World, scalars, wait_for
from tbxd.metrics import http_endpoint
from tbxd.metrics.catalogue import COUNTER, HISTOGRAM, METRICS, value_at
from tbxd.metrics.histograms import BYTES, RECORDS, SECONDS, Buckets

DOCS = Path(__file__).parents[2] / "docs"
HISTOGRAMS = {"encode": SECONDS, "write": SECONDS, "fsync": SECONDS, "lag": SECONDS}
HISTOGRAMS |= {"batch_records": RECORDS, "batch_bytes": BYTES}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
LOG = """
    import sys
    import numpy as np
    from tbxd_client import SummaryWriter
    for name in "ab":
        with SummaryWriter(f"logs/{name}") as writer:
            for step in range(1000):
                writer.add_scalar("loss", 1 / (step + 1), step)
            writer.add_histogram("nothing", np.array([np.nan]), 0)
"""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(address: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(f"{address}/metrics", headers=headers), timeout=20) as answer:
        return str(answer.read().decode())


def samples(text: str) -> dict[str, float]:
    return {
        name + "".join(f"{{{key}={value}}}" for key, value in labels.items()): number
        for family in text_string_to_metric_families(text)
        for name, labels, number, *_ in family.samples
    }


@pytest.fixture
def scraped(place: World) -> Iterator[tuple[World, str]]:
    """A daemon with an endpoint."""
    address = f"http://127.0.0.1:{free_port()}"
    place.serve("--metrics", address)
    yield place, address


def expected(status: dict[str, Any]) -> dict[str, float]:
    """Return the expected scrape, made from a status without the code of the exporter."""
    found: dict[str, float] = {}
    for metric in METRICS:
        value = value_at(status, metric.path)
        if metric.kind == HISTOGRAM:
            for index, bound in enumerate([*value["bounds"], float("inf")]):
                label = "+Inf" if bound == float("inf") else repr(float(bound))
                found[f"{metric.name}_bucket{{le={label}}}"] = sum(value["counts"][: index + 1])
            found[f"{metric.name}_sum"], found[f"{metric.name}_count"] = value["sum"], value["count"]
        elif isinstance(value, dict):
            found |= {f"{metric.name}{{{metric.label}={key}}}": number for key, number in value.items()}
        elif metric.label:
            found[f"{metric.name}{{{metric.label}={value}}}"] = 1
        elif value is not None:
            found[metric.name] = value
    return found


MOVES = ("tbxd_memory", "tbxd_cpu", "tbxd_descriptors", "tbxd_threads")  # also while nobody logs


def test_a_scrape_and_status_say_the_same_after_a_real_run(scraped: tuple[World, str]) -> None:
    place, address = scraped
    assert place.run(LOG).returncode == 0
    wait_for(place.drained, "the journals to be drained")

    def quiet() -> tuple[dict[str, float], dict[str, float]] | None:
        before, got, after = place.status(), samples(scrape(address)), place.status()
        assert before is not None and after is not None
        wanted = expected(before)
        still = {name: value for name, value in wanted.items() if not name.startswith(MOVES)}
        if still != {name: value for name, value in expected(after).items() if not name.startswith(MOVES)}:
            return None  # something still went on
        if got["tbxd_fsync_seconds_count"] != wanted["tbxd_fsync_seconds_count"]:
            return None  # a scrape may get numbers that are `AGE_SECONDS` old
        return (wanted, got) if wanted["tbxd_fsync_seconds_count"] >= 2 else None

    wanted, got = wait_for(quiet, "a daemon that is done")
    assert got.keys() == wanted.keys()
    different = {name: (wanted[name], got[name]) for name in wanted if wanted[name] != got[name]}
    assert all(name.startswith(MOVES) for name in different), different
    assert all(got[name] == pytest.approx(wanted[name], rel=0.5, abs=16) for name in different), different
    assert got["tbxd_records_accepted"] == 2002 and got["tbxd_records_written"] == 2000
    assert got["tbxd_records_pending"] == 0 and got["tbxd_records_dropped{reason=no_finite_values}"] == 2
    assert got["tbxd_received_records_total"] == got["tbxd_settled_records_total"] == 2002
    assert got["tbxd_batch_records_sum"] == 2002
    size = sum(path.stat().st_size for path in place.logdir.glob("*/events*"))
    assert 0 < got["tbxd_written_bytes_total"] <= size <= got["tbxd_written_bytes_total"] + 1000
    for name in ("encode", "write", "fsync", "batch_lag"):
        assert got[f"tbxd_{name}_seconds_count"] > 0 and 0 < got[f"tbxd_{name}_seconds_sum"] < 60
    assert got["tbxd_memory_bytes"] > 1 << 20 and got["tbxd_descriptors_open"] > 5 and got["tbxd_runs"] == 2


def test_the_endpoint_speaks_both_formats_and_has_no_other_path(scraped: tuple[World, str]) -> None:
    _, address = scraped
    families = {family.name for family in parse_openmetrics(scrape(address, Accept=OPENMETRICS))}
    assert families == {metric.name.removesuffix("_total") for metric in METRICS}
    for path, code in (("/", 404), ("/metrics/x", 404), ("/../etc/passwd", 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address + path, timeout=20)
        assert refused.value.code == code
    for method in ("POST", "PUT", "DELETE"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{address}/metrics", b"x", method=method), timeout=20)
        assert refused.value.code == 501


def test_a_page_in_a_browser_cannot_read_it_under_a_name_of_its_own(scraped: tuple[World, str]) -> None:
    _, address = scraped
    with pytest.raises(urllib.error.HTTPError) as refused:
        scrape(address, Host="evil.example:9000")
    assert refused.value.code == 403
    assert "tbxd_runs" in scrape(address, Host="localhost:1")


def test_at_a_unix_socket_only_its_owner_scrapes(place: World) -> None:
    place.runtime.mkdir(mode=0o700)
    path = place.runtime / "metrics.sock"
    daemon = place.serve("--metrics", f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def ask() -> str:
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            wait_for(lambda: connection.connect_ex(str(path)) == 0, "somebody to listen")
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return connection.makefile().read()

    assert "\ntbxd_runs 0.0\n" in ask()
    place.kill_daemon()
    daemon.wait()
    assert path.exists(), "who is killed leaves it behind"
    place.serve("--metrics", f"unix:{path}")
    assert "\ntbxd_runs 0.0\n" in ask()
    assert place.tbxd("stop").returncode == 0
    assert not path.exists()


def test_what_it_cannot_be_is_refused_with_the_reason(place: World) -> None:
    place.runtime.mkdir(mode=0o700)
    others, file, port = place.root / "others", place.root / "file", free_port()
    others.mkdir()
    others.chmod(0o777)
    file.write_text("")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for where, reason in (
            ("http://0.0.0.0:9000", "only this machine may scrape"),
            ("http://[::]:9000", "only this machine may scrape"),
            ("http://example.org:9000", "only this machine may scrape"),
            ("http://127.0.0.1", "http://127.0.0.1:PORT or unix:/path"),
            ("http://127.0.0.1:99999", "http://127.0.0.1:PORT or unix:/path"),
            ("https://127.0.0.1:9000", "http://127.0.0.1:PORT or unix:/path"),
            ("9000", "http://127.0.0.1:PORT or unix:/path"),
            ("unix:metrics.sock", "begins with /"),
            (f"unix:/{'x' * 200}", "at most 107 bytes"),
            (f"unix:{others}/metrics.sock", "nobody else may write to"),
            (f"unix:{place.root}/nowhere/metrics.sock", "make that folder"),
            (f"unix:{file}", "something other than a socket"),
            (f"http://127.0.0.1:{port}", "Address already in use"),
        ):
            result = place.tbxd("serve", "--metrics", where)
            assert result.returncode in (1, 2) and reason in result.stderr, (where, result.stderr)
            assert "Traceback" not in result.stderr
    assert not place.running()


def test_without_the_package_it_is_refused_and_without_the_setting_nothing_of_it_is_imported(place: World) -> None:
    hidden = place.root / "hidden"
    (hidden / "prometheus_client").mkdir(parents=True)
    (hidden / "prometheus_client" / "__init__.py").write_text("raise ImportError('it is not here')")
    place.extra["PYTHONPATH"] = f"{hidden}:{os.environ.get('PYTHONPATH', '')}"
    result = place.tbxd("serve", "--metrics", f"http://127.0.0.1:{free_port()}")
    assert result.returncode == 1 and "pip install prometheus-client" in result.stderr
    place.extra["TBXD_METRICS"] = f"http://127.0.0.1:{free_port()}"
    assert place.run(LOG).returncode == 0  # the daemon that a writer starts goes on without
    wait_for(place.drained, "the journals to be drained")
    assert len(scalars(place.logdir / "a")["loss"]) == 1000
    assert "it continues without metrics" in (place.runtime / "daemon.log").read_text()
    script = (
        "import sys, tbxd.cli.main, tbxd.daemon.lifecycle, tbxd.tools.top; "
        "print([m for m in ('prometheus_client', 'http.server') "
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script + "if m in sys.modules])"], env=place.environ, capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "[]", loaded.stderr


def test_scrapers_that_say_nothing_or_never_stop_hold_up_neither_trainers_nor_others(
    scraped: tuple[World, str],
) -> None:
    place, address = scraped
    port = int(address.rpartition(":")[2])
    before = psutil.Process(place.running()).num_fds()
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        begun = time.monotonic()
        assert place.run(LOG).returncode == 0
        wait_for(place.drained, "the journals to be drained")
        assert len(scalars(place.logdir / "a")["loss"]) == 1000
        daemon = psutil.Process(place.running())
        assert daemon.num_fds() < before + 50 + http_endpoint.SCRAPERS_MAX
        assert daemon.num_threads() < 8 + 6 + http_endpoint.SCRAPERS_MAX

        def answered() -> bool:
            try:
                return "tbxd_runs" in scrape(address)
            except OSError:
                return False

        wait_for(answered, "those who say nothing to be hung up on")
        assert time.monotonic() - begun < 3 * http_endpoint.SCRAPE_SECONDS + 30
    finally:
        for connection in idle:
            connection.close()
    with closing(socket.create_connection(("127.0.0.1", port))) as endless:
        endless.settimeout(60)
        with pytest.raises(OSError):
            while True:
                endless.sendall(b"x" * 65536)
    assert answered()


def test_whoever_scrapes_all_the_time_takes_next_to_nothing_from_the_daemon(scraped: tuple[World, str]) -> None:
    place, address = scraped
    assert place.run(LOG).returncode == 0
    until, texts = time.monotonic() + 2.0, []

    def all_the_time() -> None:
        while time.monotonic() < until:
            try:
                texts.append(scrape(address))
            except OSError:
                pass

    threads = [threading.Thread(target=all_the_time) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = {re.search(r"^tbxd_cpu_seconds_total .*$", text, re.M)[0] for text in texts}  # type: ignore[index]
    assert len(texts) > 10 and len(made) <= 2.0 / http_endpoint.AGE_SECONDS + 2, (len(texts), len(made))


def test_a_daemon_that_does_not_get_to_it_is_said_to_be_busy(scraped: tuple[World, str]) -> None:
    place, address = scraped
    os.kill(place.running() or 0, signal.SIGSTOP)
    try:
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{address}/metrics", timeout=1.0)
    finally:
        os.kill(place.running() or 0, signal.SIGCONT)
    assert "tbxd_runs" in scrape(address)
    numbers = http_endpoint.Numbers(lambda: None)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(numbers.get()))
    thread.start()
    numbers.close()
    thread.join(http_endpoint.ANSWER_SECONDS + 30)
    assert answers == [None]


def test_a_value_is_in_the_first_bucket_that_reaches_it() -> None:
    buckets = Buckets((1.0, 10.0))
    for value in (0.0, 1.0, 1.5, 10.0, 11.0, 1e9):
        buckets.observe(value)
    assert buckets.status() == {"bounds": [1.0, 10.0], "counts": [2, 2, 2], "count": 6, "sum": 1e9 + 23.5}


def test_every_metric_is_in_the_table_of_its_page_and_in_a_scrape(scraped: tuple[World, str]) -> None:
    place, address = scraped
    page = (DOCS / "METRICS.md").read_text()
    rows = re.findall(r"^\| `(\w+)`(?: by `(\w+)`)? \| (\w+) \| `([\w.]+)` \| (.+?) \|$", page, re.M)
    assert [(name, label, kind, path, text) for name, label, kind, path, text in rows] == [
        (metric.name, metric.label, metric.kind, metric.path, metric.help) for metric in METRICS
    ]
    place.run(LOG)
    wait_for(place.drained, "the journals to be drained")
    families = {family.name: family for family in text_string_to_metric_families(scrape(address))}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total") if metric.kind == COUNTER else metric.name]
        assert family.type == metric.kind and family.documentation == metric.help and family.samples
    assert len(families) == len(METRICS)


def expressions(panel: Any) -> Iterator[str]:
    if isinstance(panel, dict):
        for key, value in panel.items():
            if key == "expr":
                yield value
            else:
                yield from expressions(value)
    elif isinstance(panel, list):
        for value in panel:
            yield from expressions(value)


def test_the_dashboard_asks_for_nothing_that_is_not_exported(scraped: tuple[World, str]) -> None:
    place, address = scraped
    place.run(LOG)
    wait_for(place.drained, "the journals to be drained")
    dashboard = json.loads((DOCS / "grafana" / "tbxd.json").read_text())
    known = {name.partition("{")[0] for name in samples(scrape(address))}
    asked = {name for text in expressions(dashboard) for name in re.findall(r"\btbxd_\w+", text)}
    assert len(asked) > 20 and asked <= known, asked - known
    used = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name for name in asked}
    assert {"tbxd_records_dropped", "tbxd_lag_seconds", "tbxd_runs_held_up", "tbxd_memory_bytes"} <= used
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24, "panels do not overlap"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"] == "tbxd" and "__inputs" in dashboard
