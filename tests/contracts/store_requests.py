"""Export requests for a store, built as emitters build them and decoded as the backend decodes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Encoding, Gauge, Request, RunRecord, Signal, SpanRow, TimelineEntry
from otel_sessions.backend.resolve import global_key
from otel_sessions.backend.store.base import Store
from otel_sessions.lifecycle import Phase, Run
from otel_sessions.lifecycle import Signal as Heard

__all__ = [
    "SECOND", "START", "announced", "announcing", "chat", "gauge", "log", "logs", "rows_of", "run", "span", "span_id", "timeline", "trace_id", "traces",
]  # fmt: skip

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
_arrivals = itertools.count(START)


def rows_of(store: Store, session_id: str, after: int | None = None) -> Sequence[SpanRow]:
    """Read the index rows of a session whole: the columns tell which, and each is read with its span."""
    columns = store.columns(session_id, after)
    keys = zip((columns.traces[no] for no in columns.trace), columns.span_id, strict=True)
    found = [store.span(*key) for key in keys]
    return [stored.row for stored in found if stored is not None]


def trace_id(no: int) -> bytes:
    """Return the trace id with this number."""
    return no.to_bytes(16, "big")


def span_id(no: int) -> bytes:
    """Return the span id with this number."""
    return no.to_bytes(8, "big")


def span(
    no: int, session: str | None = "s-1", *, trace: int = 1, parent: int = 0, at: int = 0, lasting: int = 1,
    name: str = "step", error: bool = False, **attributes: Any,
) -> Span:  # fmt: skip
    """Make an ended span; `at` and `lasting` are seconds, dots in attribute names are two underscores."""
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return Span(
        trace_id=trace_id(trace),
        span_id=span_id(no),
        parent_span_id=span_id(parent) if parent else b"",
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=START + at * SECOND,
        end_time_unix_nano=START + (at + lasting) * SECOND,
        status=Status(code=Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET),
        attributes=_key_values({**({} if session is None else {"session.id": session}), **named}),
    )


def chat(no: int, session: str | None = "s-1", tokens: int | None = None, **more: Any) -> Span:
    """Make a model call, with as many tokens in as out."""
    usage = (
        {}
        if tokens is None
        else {"gen_ai__usage__input_tokens": tokens, "gen_ai__usage__output_tokens": tokens}
    )
    return span(
        no,
        session,
        name="chat gpt",
        gen_ai__operation__name="chat",
        gen_ai__request__model="gpt",
        **usage,
        **more,
    )


def log(
    session: str | None = "s-1", *, trace: int = 0, of: int = 0, at: int = 0, name: str = "note", body: str = "",
    **attributes: Any,
) -> LogRecord:  # fmt: skip
    """Make a log record, of a trace and a span where told."""
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return LogRecord(
        time_unix_nano=START + at * SECOND,
        event_name=name,
        trace_id=trace_id(trace) if trace else b"",
        span_id=span_id(of) if of else b"",
        body=AnyValue(string_value=body) if body else None,
        attributes=_key_values({**({} if session is None else {"session.id": session}), **named}),
    )


def announced(
    no: int, session: str = "s-1", *, trace: int = 1, parent: int = 0, name: str = "step"
) -> LogRecord:
    """Make the event that announces a span which is still open."""
    more = {"otel_sessions.span.parent_id": span_id(parent).hex()} if parent else {}
    record = log(session, trace=trace, of=no, name="otel_sessions.span.start")
    record.attributes.extend(
        _key_values(
            {
                "otel_sessions.span.name": name,
                "otel_sessions.span.kind": 1,
                "otel_sessions.span.start": START,
                **more,
            }
        )
    )
    return record


def traces(
    *spans: Span, service: str = "planner", scope: str = "tests", json: bool = False, **resource: Any
) -> Request:
    """Decode an export request of spans."""
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=_resource(service, resource),
                scope_spans=[ScopeSpans(scope=InstrumentationScope(name=scope, version="1"), spans=spans)],
                schema_url="https://opentelemetry.io/schemas/1.44.0",
            )
        ]
    )
    return _request(Signal.TRACES, message, json=json)


def logs(
    *records: LogRecord, service: str = "planner", scope: str = "tests", json: bool = False, **resource: Any
) -> Request:
    """Decode an export request of logs."""
    message = ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=_resource(service, resource),
                scope_logs=[
                    ScopeLogs(scope=InstrumentationScope(name=scope, version="1"), log_records=records)
                ],
            )
        ]
    )
    return _request(Signal.LOGS, message, json=json)


def announcing(*records: LogRecord) -> Request:
    """Decode a request of life cycle events."""
    return logs(*records, scope="otel_sessions")


def run(
    session: str = "s-1", root: int = 1, *, phase: Phase = Phase.RUNNING, heard: Heard = Heard.LIVE, at: int = 0,
    ended_at: int | None = None, outcome: str | None = None, **more: Any,
) -> RunRecord:  # fmt: skip
    """Make the record of a run; times are seconds."""
    ended = phase is Phase.ENDED
    state = Run(
        phase=phase,
        waiting_for="approval" if phase is Phase.WAITING else None,
        signal=Heard.NONE if ended else heard,
        started_at=START + at * SECOND,
        ended_at=None if ended_at is None else START + ended_at * SECOND,
        outcome=outcome,
        end_reason="completed" if ended else None,
        phase_seq=3,
        beat_seq=3,
        live_until=15 * SECOND,
        lease_until=120 * SECOND,
    )
    return RunRecord(
        **{
            "session_key": global_key(session),
            "root_id": span_id(root),
            "trace_id": trace_id(1),
            "process": "p-1",
            "run": state,
            "interval": 5 * SECOND,
            "lease": 120 * SECOND,
            "last_heard_at": START + at * SECOND,
            "open_spans": (span_id(1), span_id(2)),
            **more,
        }
    )


def gauge(ended: int, *, session: str = "s-1", process: str = "p-1", seq: int = 1, dropped: int = 0) -> Gauge:
    """Make a sender's counts."""
    return Gauge(global_key(session), process, seq, ended, ended, dropped)


def timeline(
    state: str, at: int, *, session: str = "s-1", root: int = 1, detail: str | None = None
) -> TimelineEntry:
    """Make an entry of a timeline; `at` is seconds."""
    return TimelineEntry(global_key(session), span_id(root), START + at * SECOND, state, detail)


def _request(signal: Signal, message: Any, *, json: bool) -> Request:
    if not json:
        return decode(signal, Encoding.PROTOBUF, message.SerializeToString(), next(_arrivals))
    return decode(signal, Encoding.JSON, _otlp_json(message), next(_arrivals))


def _otlp_json(message: Any) -> bytes:
    """Write OTLP's JSON: ids in hex, enums as numbers."""
    import base64
    import json

    def hex_ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: base64.b64decode(inner).hex()
                if key in ("traceId", "spanId", "parentSpanId")
                else hex_ids(inner)
                for key, inner in value.items()
            }
        return [hex_ids(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(hex_ids(MessageToDict(message, use_integers_for_enums=True))).encode()


def _resource(service: str, more: Mapping[str, Any]) -> Resource:
    named = {key.replace("__", "."): value for key, value in more.items()}
    return Resource(attributes=_key_values({"service.name": service, **named}))


def _key_values(attributes: Mapping[str, Any]) -> Iterable[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)
