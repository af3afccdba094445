"""Whatever comes in whatever order, however often and in whatever batches: a store shows the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from store_oracle import reckon
from store_requests import rows_of

from otel_sessions.backend.columns import full, gathered
from otel_sessions.backend.records import (
    Encoding,
    Flag,
    Gauge,
    LogRecord,
    Request,
    SessionHint,
    Signal,
    SpanRecord,
    SpanRow,
)
from otel_sessions.backend.resolve import global_key
from otel_sessions.backend.store.base import RowColumns, SessionQuery, Store

SERVICES = ("/planner", "/booker")
hints = st.none() | st.builds(
    lambda value, scoped, service: SessionHint(value, service if scoped else "", service),
    st.sampled_from(("one", "two")),
    st.booleans(),
    st.sampled_from(SERVICES),
)
ids = st.integers(1, 4)
starts = st.integers(1, 6)
counts = st.none() | st.integers(0, 9)


@st.composite
def spans(draw: st.DrawFn) -> SpanRecord:
    """Draw a span of a small world, so that copies, parents and homes meet."""
    start = draw(starts)
    announced = draw(st.booleans())
    parent = draw(st.integers(0, 4))
    return SpanRecord(
        trace_id=bytes([draw(st.integers(1, 3))] * 16),
        span_id=bytes([draw(ids)] * 8),
        parent_id=bytes([parent] * 8) if parent else b"",
        name=draw(st.sampled_from(("plan", "book"))),
        kind=1,
        start=start,
        end=None if announced else start + draw(st.integers(0, 3)),
        status=draw(st.sampled_from((0, 2))),
        category=draw(st.sampled_from(("agent", "model", "tool", "embedding"))),
        ordinal=0,
        size=0,
        flags=Flag.OPEN if announced else draw(st.sampled_from((0, Flag.LATE, Flag.SYNTHETIC))),
        service=draw(st.sampled_from(("planner", "booker"))),
        hint=draw(hints),
        user_id=draw(st.none() | st.sampled_from(("ann", "bob"))),
        task_id=draw(st.none() | st.sampled_from(("t1", "t2"))),
        agent=draw(st.none() | st.sampled_from(("ada", "bea"))),
        model=draw(st.none() | st.sampled_from(("big", "small"))),
        provider=draw(st.none() | st.just("acme")),
        input_tokens=draw(counts),
        output_tokens=draw(counts),
        cost=draw(st.none() | st.sampled_from((0.25, 1.5))),
        turn=draw(st.booleans()),
        outcome=draw(st.none() | st.sampled_from(("error", "cancelled", "" if parent else "waiting"))),
        failure=draw(st.none() | st.sampled_from(("boom", "bang"))),
    )


@st.composite
def logs(draw: st.DrawFn) -> LogRecord:
    """Draw a log of the same world; what tells it apart is its digest."""
    log = LogRecord(
        trace_id=draw(st.just(b"") | st.integers(1, 3).map(lambda no: bytes([no] * 16))),
        span_id=b"",
        time=draw(starts),
        event_name="note",
        severity=9,
        ordinal=0,
        digest=b"",
        service=draw(st.sampled_from(("planner", "booker"))),
        hint=draw(hints),
        user_id=draw(st.none() | st.just("cyd")),
        model=draw(st.none() | st.just("small")),
        category=draw(st.sampled_from(("", "model", "tool"))),
        input_tokens=draw(counts),
        turn=draw(st.booleans()),
    )
    return log._replace(digest=repr(log).encode())


def _body(count: int) -> bytes:
    scope = ScopeLogs(log_records=[LogMessage(severity_number=9) for _ in range(count)])
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[scope])]).SerializeToString()


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """Draw requests; sizes tell all copies of a span apart."""
    sizes = itertools.count(1)
    drawn: list[Request] = []
    for _ in range(draw(st.integers(1, 5))):
        of_spans = draw(st.lists(spans(), max_size=4))
        of_logs = draw(st.lists(logs(), max_size=3))
        drawn.append(
            Request(
                signal=Signal.LOGS,
                encoding=Encoding.PROTOBUF,
                body=_body(len(of_spans) + len(of_logs)),
                received_at=0,
                spans=tuple(s._replace(ordinal=no, size=next(sizes)) for no, s in enumerate(of_spans)),
                logs=tuple(log._replace(ordinal=no) for no, log in enumerate(of_logs, len(of_spans))),
            )
        )
    return drawn


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[Request]]:
    """Draw what is sent, in the batches in which it arrives: in any order, some of it more than once."""
    sent = draw(requests())
    repeated = draw(st.lists(st.sampled_from(range(len(sent))), max_size=3))
    order = draw(st.permutations([*range(len(sent)), *repeated]))
    arriving = [replace(sent[no], received_at=at) for at, no in enumerate(order, 1)]
    cuts = draw(st.sets(st.integers(1, len(arriving))))
    places = [0, *sorted(cuts - {len(arriving)}), len(arriving)]
    return [arriving[begin:end] for begin, end in itertools.pairwise(places)]


gauges = st.lists(
    st.builds(
        lambda value, process, seq, ended: Gauge(global_key(value), process, seq, ended, ended, seq % 2),
        st.sampled_from(("one", "two")),
        st.sampled_from(("p1", "p2")),
        st.integers(1, 3),
        st.integers(0, 6),
    ),
    max_size=3,
    unique_by=lambda gauge: (gauge.session_key, gauge.process, gauge.seq),
)


def read(columns: RowColumns) -> Any:
    """Return what the API makes of rows by columns."""
    return json.loads(b"".join(full("s", columns, {})))


def shown(store: Store) -> dict[str, dict[str, Any]]:
    """Return all that a store shows, in the oracle's words."""
    seen: dict[str, dict[str, Any]] = {}
    for record in store.sessions(SessionQuery(limit=1000)).sessions:
        detail = store.session(record.id)
        assert detail is not None
        assert detail.session == record
        rows = rows_of(store, record.id)
        assert read(store.columns(record.id)) == read(gathered(rows))
        assert store.record(record.id) == record
        assert all(row.revision <= record.revision for row in rows)
        assert record.traces_count == len(detail.traces)
        assert record.tasks_count == len(detail.tasks)
        assert {(s.trace_id, s.span_id) for s in detail.open_spans} == {
            (row.trace_id, row.span_id) for row in rows if row.end is None
        }
        names = ("input_tokens", "output_tokens", "cached_tokens", "cost", "spans", "errors", "turns",
                 "model_calls", "tool_calls", "agents", "models", "tools", "started_at", "last_seen_at", "service", "name",
                 "user_id", "outcome", "waiting_for", "error", "last_ended_at", "missing_spans")  # fmt: skip
        seen[record.id] = {
            **{name: getattr(record, name) for name in names},
            "traces": set(detail.traces),
            "tasks": {task.id for task in detail.tasks},
            "rows": {replace(row, revision=0) for row in rows},
            "logs": len(list(store.logs(record.id))),
        }
    return seen


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Return by session and field what is found and what should be."""
    return {
        (key, name): (found.get(key, {}).get(name), expected.get(key, {}).get(name))
        for key in found.keys() | expected.keys()
        for name in found.get(key, {}).keys() | expected.get(key, {}).keys()
        if found.get(key, {}).get(name) != expected.get(key, {}).get(name)
    }


def as_rows(expected: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Turn the spans that the oracle expects into rows."""
    for session in expected.values():
        session["rows"] = {
            SpanRow(
                **{name: getattr(span, name) for name in SpanRow.__slots__ if name != "revision"}, revision=0
            )
            for span in session["rows"]
        }
    return expected


@settings(
    max_examples=200, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck)
)
@given(batches=arrivals(), counted=gauges)
def test_any_order_and_any_repetition_show_the_same(
    open_store: Callable[[Path], Store],
    batches: list[list[Request]],
    counted: list[Gauge],
) -> None:
    """Sessions, roll-ups and rows are a function of the set of what was sent."""
    sent = [request for batch in batches for request in batch]
    expected = as_rows(reckon(sent, counted))
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        store.append([], gauges=counted)  # as the live view does: a run is known before its first span
        for batch in batches:
            store.append(batch, gauges=counted[::-1])
        found, totals = shown(store), store.totals()
        store.close()
    assert differences(found, expected) == {}
    assert totals.spans == len({(s.trace_id, s.span_id) for request in sent for s in request.spans})
    assert totals.logs == len({log.digest for request in sent for log in request.logs})
    assert totals.sessions == len(expected)
