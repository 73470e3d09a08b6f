"""The metrics for Prometheus: their names, and the paths of their numbers in `tbxd status --json`.

They are made from that answer alone, so both agree. docs/METRICS.md has them as a table.
Only this module imports prometheus_client, and nothing imports this module unless the endpoint is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric.

    ``path`` is its path in `tbxd status --json`, with dots between the keys. With a ``label``, the path leads to an
    object whose keys are the label's values.
    """

    name: str
    kind: str
    path: str
    help: str
    label: str = ""


METRICS = (
    Declared("tbxd_build_info", GAUGE, "version", "1, with the version of the daemon", "version"),
    Declared("tbxd_start_time_seconds", GAUGE, "started", "when the daemon started, since 1970"),
    Declared("tbxd_records_accepted", GAUGE, "totals.accepted", "records that scripts logged"),
    Declared("tbxd_records_written", GAUGE, "totals.written", "records that are in event files"),
    Declared("tbxd_records_pending", GAUGE, "totals.pending", "records that are not written yet"),
    Declared("tbxd_records_dropped", GAUGE, "totals.dropped", "records dropped, by reason", "reason"),
    Declared("tbxd_received_records_total", COUNTER, "metrics.received_records", "records received"),
    Declared("tbxd_received_bytes_total", COUNTER, "metrics.received_bytes", "bytes of received records"),
    Declared("tbxd_settled_records_total", COUNTER, "metrics.settled_records", "records written or refused"),
    Declared("tbxd_written_bytes_total", COUNTER, "metrics.written_bytes", "bytes written to event files"),
    Declared("tbxd_lag_seconds", GAUGE, "metrics.lag_seconds", "age of the oldest received record that is not written"),
    Declared(
        "tbxd_batch_lag_seconds", HISTOGRAM, "metrics.histograms.lag", "time from a batch's arrival to its event file"
    ),
    Declared("tbxd_encode_seconds", HISTOGRAM, "metrics.histograms.encode", "time to make the events of a write"),
    Declared("tbxd_write_seconds", HISTOGRAM, "metrics.histograms.write", "time to write the events"),
    Declared("tbxd_fsync_seconds", HISTOGRAM, "metrics.histograms.fsync", "time to sync an event file"),
    Declared("tbxd_batch_records", HISTOGRAM, "metrics.histograms.batch_records", "records of a write"),
    Declared("tbxd_batch_bytes", HISTOGRAM, "metrics.histograms.batch_bytes", "bytes of a write"),
    Declared("tbxd_sessions", GAUGE, "metrics.sessions", "processes that log, or whose journals are drained"),
    Declared(
        "tbxd_sessions_broken",
        GAUGE,
        "metrics.sessions_broken",
        "sessions that sent something invalid",
    ),
    Declared("tbxd_journals_adopting", GAUGE, "metrics.journals_adopting", "journals of dead scripts being drained"),
    Declared(
        "tbxd_runs",
        GAUGE,
        "metrics.runs",
        "runs that the daemon knows, including some that are finished",
    ),
    Declared("tbxd_runs_held_up", GAUGE, "metrics.runs_held_up", "runs that cannot be written at the moment"),
    Declared("tbxd_event_files_open", GAUGE, "metrics.event_files_open", "runs whose files are open"),
    Declared("tbxd_queued_batches", GAUGE, "metrics.queued_batches", "batches received and not written"),
    Declared("tbxd_queued_bytes", GAUGE, "metrics.queued_bytes", "bytes of these batches"),
    Declared("tbxd_queued_jobs", GAUGE, "metrics.queued_jobs", "writes that wait for a thread"),
    Declared("tbxd_threads", GAUGE, "metrics.threads", "threads that write"),
    Declared("tbxd_threads_hanging", GAUGE, "metrics.threads_hanging", "threads that wait for a disk"),
    Declared("tbxd_descriptors_open", GAUGE, "metrics.descriptors", "file descriptors of the daemon"),
    Declared("tbxd_descriptors_most", GAUGE, "metrics.descriptors_most", "limit of file descriptors"),
    Declared("tbxd_memory_bytes", GAUGE, "metrics.memory_bytes", "resident memory of the daemon"),
    Declared("tbxd_memory_peak_bytes", GAUGE, "metrics.memory_peak_bytes", "peak resident memory of the daemon"),
    Declared("tbxd_cpu_seconds_total", COUNTER, "metrics.cpu_seconds", "processor time of the daemon"),
    Declared("tbxd_messages_refused_total", COUNTER, "refused_messages", "messages and sessions refused"),
    Declared(
        "tbxd_connections_refused_total",
        COUNTER,
        "connections_turned_away",
        "connections closed for lack of file descriptors",
    ),
    Declared(
        "tbxd_internal_errors_total",
        COUNTER,
        "metrics.internal_errors",
        "internal errors that ended one session or delayed one run; the status says where",
    ),
    Declared("tbxd_homeless_drops_total", COUNTER, "homeless_drops", "drops reported by journals that name no run"),
    Declared(
        "tbxd_journals_quarantined_total",
        COUNTER,
        "quarantined_journals",
        "journals that could not be read and were put aside",
    ),
    Declared(
        "tbxd_crash_lost_bytes_total",
        COUNTER,
        "lost_bytes_at_crash",
        "bytes of journals lost in crashes of the machine",
    ),
)


def value_at(status: Status, path: str) -> Any:
    """Return the value at a path of a status."""
    value: Any = status
    for key in path.split("."):
        value = value[key]
    return value


def families(status: Status) -> Iterator[Metric]:
    """Yield all metrics of one status. A value of None has no sample."""
    for metric in METRICS:
        value = value_at(status, metric.path)
        if metric.kind == HISTOGRAM:
            yield _histogram(metric, value)
            continue
        make = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
        if not metric.label:
            yield make(metric.name, metric.help, value=value)
            continue
        family = make(metric.name, metric.help, labels=[metric.label])
        for label, number in value.items() if isinstance(value, dict) else [(str(value), 1)]:
            family.add_metric([label], number)
        yield family


def _histogram(metric: Declared, value: dict[str, Any]) -> Metric:
    counts, total, buckets = value["counts"], 0, []
    for bound, count in zip([*value["bounds"], None], counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound is None else f"{float(bound)!r}", total))
    return HistogramMetricFamily(metric.name, metric.help, buckets=buckets, sum_value=value["sum"])


class _Collector:
    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        return families(self._status())


def exposition(status: Status, accept: str) -> tuple[bytes, str]:
    """Return the text of all metrics and its content type, in the scraper's format: OpenMetrics or the older one."""
    registry = CollectorRegistry(auto_describe=False)
    encode, content_type = choose_encoder(accept)
    registry.register(_Collector(lambda: status))
    return encode(registry), content_type
