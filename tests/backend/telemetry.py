"""OTLP messages for tests of the pure part of the backend: built small, fixed in every id and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Encoding, Request, Signal, SpanRecord, SpanRow
from otel_sessions.backend.records import LogRecord as DecodedLog
from otel_sessions.backend.store.base import StoredLog, StoredSpan

TRACE = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
OTHER_TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
BEGAN = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


def sid(number: int) -> bytes:
    """Return a span id by a number."""
    return number.to_bytes(8, "big")


def any_value(value: Any) -> AnyValue:
    """Wrap a Python value; None is the empty value."""
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    field = {int: "int_value", float: "double_value", bytes: "bytes_value", str: "string_value"}[type(value)]
    return AnyValue(**{field: value})


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Wrap attributes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span(number: int, parent: int = 0, name: str = "work", at: int = 0, lasts: int = 1, **more: Any) -> Span:
    """Make a span by number; `at` and `lasts` are seconds. `attributes`, `events`, `trace`, `status` as `more`."""
    return Span(
        trace_id=more.get("trace", TRACE),
        span_id=sid(number),
        parent_span_id=sid(parent) if parent else b"",
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=BEGAN + at * SECOND,
        end_time_unix_nano=BEGAN + (at + lasts) * SECOND,
        attributes=key_values(more.get("attributes", {})),
        events=[
            Span.Event(name=event, attributes=key_values(given)) for event, given in more.get("events", [])
        ],
        status=Status(code=more.get("status", 0), message=more.get("message", "")),
    )


def log(name: str = "", at: int = 0, *, number: int = 0, body: Any = None, **more: Any) -> LogRecord:
    """Make a log record; `number` is the span it belongs to, `attributes` and `trace` as `more`."""
    return LogRecord(
        event_name=name,
        time_unix_nano=BEGAN + at * SECOND,
        trace_id=more.get("trace", TRACE) if number else b"",
        span_id=sid(number) if number else b"",
        body=None if body is None else any_value(body),
        attributes=key_values(more.get("attributes", {})),
    )


def resource(attributes: Mapping[str, Any] | None = None) -> Resource:
    """Make a resource, of the service "agent" unless told."""
    return Resource(attributes=key_values(attributes or {"service.name": "agent"}))


def traces(
    spans: Iterable[Span], scope: str = "test", given: Mapping[str, Any] | None = None
) -> ExportTraceServiceRequest:
    """Put spans into one export request."""
    scoped = ScopeSpans(scope=InstrumentationScope(name=scope), spans=list(spans))
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource(given), scope_spans=[scoped])]
    )


def logs(
    records: Iterable[LogRecord], scope: str = "test", given: Mapping[str, Any] | None = None
) -> ExportLogsServiceRequest:
    """Put log records into one export request."""
    scoped = ScopeLogs(scope=InstrumentationScope(name=scope), log_records=list(records))
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=resource(given), scope_logs=[scoped])]
    )


def decoded(message: ExportTraceServiceRequest | ExportLogsServiceRequest) -> Request:
    """Decode an export request as it comes over protobuf."""
    signal = Signal.TRACES if isinstance(message, ExportTraceServiceRequest) else Signal.LOGS
    return decode(signal, Encoding.PROTOBUF, message.SerializeToString(), BEGAN)


def decoded_span(one: Span, scope: str = "test", given: Mapping[str, Any] | None = None) -> SpanRecord:
    """Decode one span."""
    return decoded(traces([one], scope, given)).spans[0]


def decoded_log(one: LogRecord, scope: str = "test", given: Mapping[str, Any] | None = None) -> DecodedLog:
    """Decode one log record."""
    return decoded(logs([one], scope, given)).logs[0]


def row_of(record: SpanRecord, revision: int = 1) -> SpanRow:
    """Return the index row of a span that was just decoded."""
    fields = (name for name in SpanRow.__slots__ if name != "revision")
    return SpanRow(**{name: getattr(record, name) for name in fields}, revision=revision)


def stored_spans(spans: Iterable[Span], scope: str = "test") -> list[StoredSpan]:
    """Return spans as a store gives them back."""
    request = traces(spans, scope)
    [group] = request.resource_spans
    [scoped] = group.scope_spans
    return [
        StoredSpan("id", row_of(record), message, group.resource, scoped.scope, "", BEGAN)
        for record, message in zip(decoded(request).spans, scoped.spans, strict=True)
    ]


def stored_logs(records: Iterable[LogRecord], scope: str = "test") -> list[StoredLog]:
    """Return log records as a store gives them back."""
    scoped = InstrumentationScope(name=scope)
    return [StoredLog("id", record, resource(), scoped, "", BEGAN) for record in records]
