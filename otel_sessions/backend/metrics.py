"""What `/metrics` shows, for Prometheus: what the store holds, what was counted, how the process is.

`METRICS` declares every metric of ours; docs/metrics.md lists the same, which a test compares. A registry
lives as long as one scrape: it takes values over and holds none. No label bears a value without bound: no
session, user, span or service is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from otel_sessions._version import __version__
from otel_sessions.backend.counts import Distribution, SessionCounts, WriteCounts
from otel_sessions.backend.records import Signal
from otel_sessions.backend.services import Services, Tally
from otel_sessions.backend.store.base import Totals

__all__ = ["METRICS", "Metric", "exposition"]

OPENMETRICS: Final = "application/openmetrics-text"

RESULTS: Final = (
    *("stored", "partial", "invalid", "too_large", "stalled", "busy", "not_stored", "failed"),
    *("method", "media_type", "unauthenticated", "forbidden"),
)
"""What becomes of a request, as receivers note it; all are shown from the start, so that 0 is a number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as declared: its full name, its type, what it means, its labels."""

    name: str
    kind: str  # counter, gauge, histogram
    meaning: str
    labels: tuple[str, ...] = ()


_COUNTER, _GAUGE, _HISTOGRAM = "counter", "gauge", "histogram"

METRICS: Final = (
    # Sessions
    Metric("otel_sessions_sessions", _GAUGE, "Sessions stored, by shown state", ("state",)),
    Metric(
        "otel_sessions_sessions_ended_total",
        _COUNTER,
        "Sessions that were seen to end; one that is resumed ends again",
        ("outcome", "end_reason"),
    ),
    Metric("otel_sessions_sessions_lost_total", _COUNTER, "Sessions that were lost: their lease ran out"),
    Metric(
        "otel_sessions_session_duration_seconds",
        _HISTOGRAM,
        "From start to end, of sessions that were seen to end",
    ),
    Metric("otel_sessions_sessions_incomplete", _GAUGE, "Sessions stored of which spans are missing"),
    Metric(
        "otel_sessions_tokens_total", _COUNTER, "Tokens of model calls", ("provider", "model", "direction")
    ),
    Metric(
        "otel_sessions_cached_tokens_total",
        _COUNTER,
        "Input tokens read from a prompt cache",
        ("provider", "model"),
    ),
    Metric(
        "otel_sessions_cost_usd_total",
        _COUNTER,
        "Cost of model calls, where senders tell it",
        ("provider", "model"),
    ),
    Metric("otel_sessions_model_calls_total", _COUNTER, "Model calls"),
    Metric("otel_sessions_tool_calls_total", _COUNTER, "Tool calls"),
    Metric("otel_sessions_span_errors_total", _COUNTER, "Spans with status ERROR"),
    Metric("otel_sessions_watched_runs", _GAUGE, "Open runs whose lease is watched"),
    # Delivery
    Metric(
        "otel_sessions_requests_total",
        _COUNTER,
        "OTLP requests answered, by what became of them",
        ("transport", "signal", "result"),
    ),
    Metric(
        "otel_sessions_rejected_items_total",
        _COUNTER,
        "Spans, log records or data points that can't be stored, in requests of which the rest was",
        ("signal",),
    ),
    Metric(
        "otel_sessions_redacted_total",
        _COUNTER,
        "Secrets replaced in what was stored, by kind; nothing where redaction is off",
        ("kind",),
    ),
    Metric("otel_sessions_spans_stored_total", _COUNTER, "Ended spans stored for the first time"),
    Metric("otel_sessions_spans_duplicate_total", _COUNTER, "Ended spans that came again"),
    Metric("otel_sessions_logs_stored_total", _COUNTER, "Log records stored for the first time"),
    Metric("otel_sessions_logs_duplicate_total", _COUNTER, "Log records that came again"),
    Metric("otel_sessions_metric_points_total", _COUNTER, "Data points of metrics, which are not stored"),
    Metric("otel_sessions_spans_dropped_total", _COUNTER, "Spans that agents say they gave up"),
    Metric("otel_sessions_spans_missing", _GAUGE, "Spans known to exist that are not stored"),
    Metric("otel_sessions_queue_requests", _GAUGE, "Requests that wait for a commit"),
    Metric("otel_sessions_queue_bytes", _GAUGE, "Bytes of requests that wait for a commit"),
    Metric("otel_sessions_queue_limit_bytes", _GAUGE, "Bytes beyond which senders are told to come back"),
    Metric("otel_sessions_commit_duration_seconds", _HISTOGRAM, "Time to store one batch durably"),
    Metric("otel_sessions_commit_requests", _HISTOGRAM, "Requests stored by one commit"),
    Metric("otel_sessions_commits_failed_total", _COUNTER, "Commits that failed; nothing of them is stored"),
    Metric("otel_sessions_store_size_bytes", _GAUGE, "Size of the database on disk"),
    Metric("otel_sessions_store_spans", _GAUGE, "Spans stored, announced ones included"),
    Metric("otel_sessions_store_logs", _GAUGE, "Log records stored"),
    Metric("otel_sessions_stream_readers", _GAUGE, "Readers of the event stream"),
    Metric("otel_sessions_stream_events_total", _COUNTER, "Events published to the stream"),
    Metric("otel_sessions_event_loop_lag_seconds", _HISTOGRAM, "How late a timer of the event loop is"),
    Metric("otel_sessions_start_time_seconds", _GAUGE, "When this backend started, Unix time"),
    Metric("otel_sessions_build_info", _GAUGE, "Always 1; the label tells the version", ("version",)),
)
"""Every metric of ours. Those of the process (`process_*`, `python_info`) are prometheus-client's."""

Samples = Mapping[tuple[str, ...], float]
"""Values by the values of the labels."""


def exposition(services: Services, totals: Totals, accept: str) -> tuple[bytes, str]:
    """Return all metrics as Prometheus reads them, and their content type.

    Called in the event loop, where all is counted that is not in `totals`.
    """
    registry = CollectorRegistry()
    registry.register(_Scrape(services, totals))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    if OPENMETRICS in accept:
        return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Scrape(Collector):
    """What one scrape shows of ours."""

    def __init__(self, services: Services, totals: Totals) -> None:
        counts = services.ingest.counts
        self._samples: dict[str, Samples] = {
            **_stored(totals),
            **_sessions(counts.sessions),
            **_delivered(services, counts),
            **_requests(services.receivers),
            **_running(services),
        }
        self._histograms = {
            "otel_sessions_session_duration_seconds": counts.sessions.durations,
            "otel_sessions_commit_duration_seconds": counts.commit_seconds,
            "otel_sessions_commit_requests": counts.commit_requests,
            "otel_sessions_event_loop_lag_seconds": counts.loop_lag,
        }

    def collect(self) -> Iterator[Family]:
        """Yield every metric that is declared."""
        for metric in METRICS:
            if metric.kind == _HISTOGRAM:
                spread = self._histograms[metric.name]
                yield HistogramMetricFamily(metric.name, metric.meaning, _buckets(spread), spread.sum)
                continue
            family = _FAMILIES[metric.kind](metric.name, metric.meaning, labels=metric.labels)
            for labels, value in self._samples[metric.name].items():
                family.add_metric(labels, value)
            yield family


_FAMILIES: Final[Mapping[str, Callable[..., CounterMetricFamily | GaugeMetricFamily]]] = {
    _COUNTER: CounterMetricFamily,
    _GAUGE: GaugeMetricFamily,
}


def _buckets(spread: Distribution) -> list[tuple[str, float]]:
    bounds = map(floatToGoString, (*spread.bounds, math.inf))
    return list(zip(bounds, accumulate(spread.counts), strict=True))


def _one(value: float) -> Samples:
    return {(): value}


def _stored(totals: Totals) -> dict[str, Samples]:
    return {
        "otel_sessions_sessions": {(state,): n for state, n in totals.sessions_by_state.items()},
        "otel_sessions_sessions_incomplete": _one(totals.incomplete_sessions),
        "otel_sessions_spans_missing": _one(totals.missing_spans),
        "otel_sessions_store_size_bytes": _one(totals.bytes_on_disk),
        "otel_sessions_store_spans": _one(totals.spans),
        "otel_sessions_store_logs": _one(totals.logs),
    }


def _sessions(counts: SessionCounts) -> dict[str, Samples]:
    shown = {key: growing.shown for key, growing in counts.sums.items()}
    tokens = {key[1:]: n for key, n in shown.items() if key[0] == "tokens"}
    return {
        "otel_sessions_sessions_ended_total": dict(counts.ended),
        "otel_sessions_sessions_lost_total": _one(counts.lost),
        "otel_sessions_tokens_total": {key: n for key, n in tokens.items() if key[-1] != "cached"},
        "otel_sessions_cached_tokens_total": {
            key[:-1]: n for key, n in tokens.items() if key[-1] == "cached"
        },
        "otel_sessions_cost_usd_total": {key[1:]: n / 1e9 for key, n in shown.items() if key[0] == "cost"},
        "otel_sessions_model_calls_total": _one(shown["model_calls",]),
        "otel_sessions_tool_calls_total": _one(shown["tool_calls",]),
        "otel_sessions_span_errors_total": _one(shown["errors",]),
        "otel_sessions_spans_dropped_total": _one(shown["dropped",]),
    }


def _delivered(services: Services, counts: WriteCounts) -> dict[str, Samples]:
    stats = services.ingest.stats()
    return {
        "otel_sessions_rejected_items_total": {(signal,): n for signal, n in counts.rejected.items()},
        "otel_sessions_redacted_total": {(kind,): n for kind, n in stats.redacted.items()},
        "otel_sessions_spans_stored_total": _one(counts.spans_stored),
        "otel_sessions_spans_duplicate_total": _one(counts.spans_again),
        "otel_sessions_logs_stored_total": _one(counts.logs_stored),
        "otel_sessions_logs_duplicate_total": _one(counts.logs_again),
        "otel_sessions_metric_points_total": _one(stats.metric_points),
        "otel_sessions_queue_requests": _one(stats.waiting_requests),
        "otel_sessions_queue_bytes": _one(stats.waiting_bytes),
        "otel_sessions_queue_limit_bytes": _one(stats.room_bytes),
        "otel_sessions_commits_failed_total": _one(stats.failed_commits),
    }


def _requests(receivers: Mapping[str, Tally]) -> dict[str, Samples]:
    counted = {
        (transport, signal.value, result): tally.counts[signal, result]
        for transport, tally in receivers.items()
        for signal in Signal
        for result in RESULTS
    }
    return {"otel_sessions_requests_total": counted}


def _running(services: Services) -> dict[str, Samples]:
    live = services.live.stats()
    return {
        "otel_sessions_watched_runs": _one(live.watched_runs),
        "otel_sessions_stream_readers": _one(live.readers),
        "otel_sessions_stream_events_total": _one(live.events),
        "otel_sessions_start_time_seconds": _one(services.started_at / 1e9),
        "otel_sessions_build_info": {(__version__,): 1},
    }
