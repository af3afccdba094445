"""Write the dashboards: `python dashboards/make.py`, which needs the dependency group `dashboards`.

The JSON beside this file is made here, never edited; with `--check` nothing is written, and what is not
current is named. Queries use the metrics of
docs/metrics.md; another test runs each of them in a real Prometheus.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from panels import BARS, LINES, NUMBERS, TABLE, Panel, Query, dashboard_json

__all__ = ["dashboards", "main"]

FOLDER = Path(__file__).parent
HERE = '{instance=~"$instance"}'
RATE = "[$__rate_interval]"


def _sum(metric: str, by: str = "", labels: str = "") -> str:
    return f"sum{_by(by)} ({metric}{_where(labels)})"


def _rate(metric: str, by: str = "", labels: str = "") -> str:
    return f"sum{_by(by)} (rate({metric}{_where(labels)}{RATE}))"


def _increase(metric: str, by: str = "") -> str:
    return f"sum{_by(by)} (increase({metric}{HERE}{RATE}))"


def _quantile(share: float, metric: str) -> Query:
    return Query(
        f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{HERE}{RATE})))", f"p{share * 100:g}"
    )


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _where(labels: str) -> str:
    return HERE if not labels else HERE.replace("}", f", {labels}}}")


SESSIONS = (
    (
        Panel(
            "Sessions now",
            "Sessions stored, by state. Follow a number to their list.",
            NUMBERS,
            "short",
            (Query(_sum("otel_sessions_sessions", "state"), "{{state}}"),),
            width=16,
            link=("These sessions", "${page}/sessions?state=${__field.labels.state}"),
        ),
        Panel(
            "Silent: stale or lost",
            "Sessions that have not ended and are not heard any more: their process is gone or hangs.",
            NUMBERS,
            "short",
            (Query(_sum("otel_sessions_sessions", "state", 'state=~"stale|lost"'), "{{state}}"),),
            alarm=1,
            link=("These sessions", "${page}/sessions?state=${__field.labels.state}"),
        ),
    ),
    (
        Panel(
            "Open sessions",
            "Sessions that have not ended and are not idle, by state.",
            LINES,
            "short",
            (Query(_sum("otel_sessions_sessions", "state", 'state!~"ended|idle"'), "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Ended, by outcome",
            "Sessions that were seen to end. Unknown: the process ended with the session open.",
            LINES,
            "short",
            (Query(_increase("otel_sessions_sessions_ended_total", "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "Ended, by reason",
            "Why sessions ended: completed, error, signal, timeout, …; and those that were lost.",
            LINES,
            "short",
            (
                Query(_increase("otel_sessions_sessions_ended_total", "end_reason"), "{{end_reason}}"),
                Query(_increase("otel_sessions_sessions_lost_total"), "lost"),
            ),
            stacked=True,
        ),
    ),
    (
        Panel(
            "Duration",
            "How long sessions took that ended, as the buckets of the histogram tell it.",
            LINES,
            "s",
            tuple(_quantile(share, "otel_sessions_session_duration_seconds") for share in (0.5, 0.9, 0.99)),
        ),
        Panel(
            "Calls",
            "Model and tool calls a second.",
            LINES,
            "ops",
            (
                Query(_rate("otel_sessions_model_calls_total"), "model"),
                Query(_rate("otel_sessions_tool_calls_total"), "tool"),
            ),
        ),
        Panel(
            "Errors",
            "Spans with status ERROR a second, in whatever session.",
            LINES,
            "ops",
            (Query(_rate("otel_sessions_span_errors_total"), "errors"),),
        ),
    ),
    (
        Panel(
            "Tokens a second",
            "Input and output tokens, by model. A call that two spans tell counts once.",
            LINES,
            "short",
            (Query(_rate("otel_sessions_tokens_total", "model, direction"), "{{model}} {{direction}}"),),
        ),
        Panel(
            "Tokens by model",
            "Input and output tokens since the backend started.",
            BARS,
            "short",
            (Query(_sum("otel_sessions_tokens_total", "model"), "{{model}}"),),
        ),
        Panel(
            "Input from the cache",
            "Which share of the input tokens came from a prompt cache, by model.",
            LINES,
            "percentunit",
            (
                Query(
                    _rate("otel_sessions_cached_tokens_total", "model")
                    + " / "
                    + _rate("otel_sessions_tokens_total", "model", 'direction="input"'),
                    "{{model}}",
                ),
            ),
        ),
    ),
    (
        Panel(
            "Cost by model",
            "What senders say that calls cost, since the backend started. Nothing where they don't say it.",
            BARS,
            "currencyUSD",
            (Query(_sum("otel_sessions_cost_usd_total", "model"), "{{model}}"),),
        ),
        Panel(
            "Incomplete sessions",
            "Sessions stored of which spans are known to be missing.",
            NUMBERS,
            "short",
            (Query(_sum("otel_sessions_sessions_incomplete"), "incomplete"),),
            alarm=1,
            link=("All sessions", "${page}/sessions"),
        ),
        Panel(
            "Lists of sessions",
            "Prometheus knows no single session. From here to those that are in a state, in each backend.",
            TABLE,
            "short",
            (Query(_sum("otel_sessions_sessions", "instance, state") + " > 0"),),
            link=("These sessions", "${page}/sessions?state=${__data.fields.state}"),
        ),
    ),
)

DELIVERY = (
    (
        Panel(
            "Running for",
            "Time since the backend started; counters began at 0 then.",
            NUMBERS,
            "s",
            (Query(f"time() - otel_sessions_start_time_seconds{HERE}", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Queue",
            "How full the queue of the commits is. At 100 % senders are told to come back.",
            NUMBERS,
            "percentunit",
            (
                Query(
                    f"otel_sessions_queue_bytes{HERE} / otel_sessions_queue_limit_bytes{HERE}", "{{instance}}"
                ),
            ),
            width=6,
            alarm=0.5,
        ),
        Panel(
            "Missing spans",
            "Spans known to exist that are not stored: counted by their senders, or named as parents.",
            NUMBERS,
            "short",
            (Query(_sum("otel_sessions_spans_missing"), "missing"),),
            width=6,
            alarm=1,
        ),
        Panel(
            "Readers",
            "Pages and programs that follow the event stream.",
            NUMBERS,
            "short",
            (Query(_sum("otel_sessions_stream_readers"), "readers"),),
            width=6,
        ),
    ),
    (
        Panel(
            "Stored",
            "Spans and log records stored a second; only what was not there before.",
            LINES,
            "ops",
            (
                Query(_rate("otel_sessions_spans_stored_total"), "spans"),
                Query(_rate("otel_sessions_logs_stored_total"), "logs"),
            ),
        ),
        Panel(
            "Came again",
            "Spans and log records that were stored already: exporters repeat what was not acknowledged.",
            LINES,
            "ops",
            (
                Query(_rate("otel_sessions_spans_duplicate_total"), "spans"),
                Query(_rate("otel_sessions_logs_duplicate_total"), "logs"),
            ),
        ),
        Panel(
            "Given up by agents",
            "Spans that agents say they dropped: a full queue, a refused batch, no endpoint for too long.",
            LINES,
            "short",
            (Query(_increase("otel_sessions_spans_dropped_total"), "spans"),),
        ),
    ),
    (
        Panel(
            "Requests",
            "OTLP requests answered a second, by signal and protocol.",
            LINES,
            "reqps",
            (
                Query(
                    _rate("otel_sessions_requests_total", "signal, transport"),
                    "{{signal}} over {{transport}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Requests not stored",
            "Busy and not_stored are sent again; the others are refused for good, with the reason.",
            LINES,
            "reqps",
            (
                Query(
                    _rate("otel_sessions_requests_total", "result", 'result!~"stored|partial"'), "{{result}}"
                ),
            ),
            width=6,
        ),
        Panel(
            "Rejected items",
            "Spans, log records and data points that can't be stored, out of requests of which the rest was.",
            LINES,
            "ops",
            (Query(_rate("otel_sessions_rejected_items_total", "signal"), "{{signal}}"),),
            width=6,
        ),
        Panel(
            "Redacted secrets",
            "Secrets in what arrived, replaced before it was stored: agents that should not send them.",
            LINES,
            "short",
            (Query(_increase("otel_sessions_redacted_total", "kind"), "{{kind}}"),),
            width=6,
        ),
    ),
    (
        Panel(
            "Commit",
            "Time to store one batch durably; every acknowledgement waits for one.",
            LINES,
            "s",
            tuple(_quantile(share, "otel_sessions_commit_duration_seconds") for share in (0.5, 0.99)),
        ),
        Panel(
            "Requests a commit",
            "How many requests share a commit, on average; it grows with the load.",
            LINES,
            "short",
            (
                Query(
                    _rate("otel_sessions_commit_requests_sum")
                    + " / "
                    + _rate("otel_sessions_commit_requests_count"),
                    "requests",
                ),
            ),
        ),
        Panel(
            "Waiting",
            "Requests that wait for a commit, and commits that failed.",
            LINES,
            "short",
            (
                Query(_sum("otel_sessions_queue_requests"), "waiting"),
                Query(_increase("otel_sessions_commits_failed_total"), "failed commits"),
            ),
        ),
    ),
    (
        Panel(
            "Disk",
            "Size of the database with its write-ahead log.",
            LINES,
            "bytes",
            (Query(f"otel_sessions_store_size_bytes{HERE}", "{{instance}}"),),
        ),
        Panel(
            "CPU",
            "Processor time of the backend; 1 is a whole core.",
            LINES,
            "short",
            (
                Query(
                    f"rate(process_cpu_seconds_total{HERE}{RATE}) * on (instance, job) group_left ()"
                    f" otel_sessions_build_info{HERE}",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Memory",
            "Resident memory of the backend.",
            LINES,
            "bytes",
            (
                Query(
                    f"process_resident_memory_bytes{HERE} * on (instance, job) group_left ()"
                    f" otel_sessions_build_info{HERE}",
                    "{{instance}}",
                ),
            ),
        ),
    ),
    (
        Panel(
            "Event loop",
            "How late its timers are. Beyond a second, heartbeats wait to be heard.",
            LINES,
            "s",
            tuple(_quantile(share, "otel_sessions_event_loop_lag_seconds") for share in (0.5, 0.99)),
        ),
        Panel(
            "Stored in all",
            "Spans and log records that the database holds.",
            LINES,
            "short",
            (
                Query(_sum("otel_sessions_store_spans"), "spans"),
                Query(_sum("otel_sessions_store_logs"), "logs"),
            ),
        ),
        Panel(
            "Watched",
            "Open runs whose lease is watched, and events published to the stream a second.",
            LINES,
            "short",
            (
                Query(_sum("otel_sessions_watched_runs"), "runs"),
                Query(_rate("otel_sessions_stream_events_total"), "events a second"),
            ),
        ),
    ),
)


def dashboards() -> dict[str, str]:
    """Return the JSON of each dashboard by the name of its file."""
    return {
        "sessions.json": dashboard_json(
            "otel-sessions",
            "Sessions",
            "Sessions of AI agents: what runs, what fell silent, how it ended, what it used.",
            SESSIONS,
        ),
        "delivery.json": dashboard_json(
            "otel-sessions-delivery",
            "Delivery",
            "Whether telemetry of sessions arrives whole: what came, what was refused, what is missing.",
            DELIVERY,
        ),
    }


def main(arguments: Sequence[str]) -> int:
    """Write them beside this file, or only compare; return 1 where a file is not current."""
    made = dashboards()
    if list(arguments) == ["--check"]:
        stale = [name for name, text in made.items() if (FOLDER / name).read_text() != text]
        for name in stale:
            print(f"{name} is not what make.py makes; run it again")
        return int(bool(stale))
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
