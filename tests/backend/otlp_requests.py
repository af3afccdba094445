"""OTLP requests for tests of the API, built and posted as an exporter would."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_sessions import semconv

SECOND = 1_000_000_000
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def any_value(value: Any) -> AnyValue:
    """Wrap a Python value."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    return AnyValue(string_value=value)


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Wrap attributes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def new_trace_id() -> bytes:
    """Draw a trace id."""
    return secrets.token_bytes(16)


def new_span_id() -> bytes:
    """Draw a span id."""
    return secrets.token_bytes(8)


def span(
    session: str | None = None,
    name: str = "step",
    *,
    trace: bytes | None = None,
    id: bytes | None = None,  # noqa: A002 - as OTLP calls it
    parent: bytes = b"",
    start: int | None = None,
    duration: int = SECOND,
    error: bool = False,
    **attributes: Any,
) -> Span:
    """Make one ended span; dots in attribute names are written as two underscores."""
    start = time.time_ns() - 10 * SECOND if start is None else start
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    message = Span(
        trace_id=trace or new_trace_id(),
        span_id=id or new_span_id(),
        parent_span_id=parent,
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=start + duration,
        attributes=key_values({**({semconv.SESSION_ID: session} if session else {}), **named}),
    )
    if error:
        message.status.code = message.status.STATUS_CODE_ERROR
    return message


def traces(spans: Iterable[Span], service: str = "planner") -> bytes:
    """Make an export request."""
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=key_values({"service.name": service})),
                scope_spans=[ScopeSpans(scope=InstrumentationScope(name="tests", version="1"), spans=spans)],
            )
        ]
    ).SerializeToString()


class LifeCycle:
    """The life cycle events of one run in one process, in the order they are asked for."""

    def __init__(self, session: str, *, root: bytes | None = None, trace: bytes | None = None) -> None:
        self.session = session
        self.root = root or new_span_id()
        self.trace = trace or new_trace_id()
        self.process = secrets.token_hex(8)
        self._seq = itertools.count(1)
        self._began = time.monotonic_ns()

    def event(self, name: str, **attributes: Any) -> LogRecord:
        """Make one event; names of attributes are those of semconv's constants."""
        named = {getattr(semconv, key): value for key, value in attributes.items()}
        now = time.time_ns()
        return LogRecord(
            time_unix_nano=now,
            observed_time_unix_nano=now,
            event_name=name,
            trace_id=self.trace,
            span_id=self.root,
            attributes=key_values(
                {
                    semconv.SESSION_ID: self.session,
                    semconv.PROCESS_ID: self.process,
                    semconv.SEQ: next(self._seq),
                    semconv.ELAPSED: time.monotonic_ns() - self._began,
                    semconv.HEARTBEAT_INTERVAL: 5.0,
                    semconv.LEASE: 120.0,
                    **named,
                }
            ),
        )

    def start(self, name: str = "plan trip") -> list[LogRecord]:
        """Start, with a first heartbeat."""
        return [self.event(semconv.EVENT_SESSION_START, SESSION_NAME=name), self.beat()]

    def beat(self, phase: str = "running", **attributes: Any) -> LogRecord:
        """Make a heartbeat."""
        counts = {"SPANS_STARTED": 1, "SPANS_ENDED": 0, "SPANS_DROPPED": 0}
        return self.event(semconv.EVENT_SESSION_HEARTBEAT, PHASE=phase, **{**counts, **attributes})

    def waiting(self, reason: str) -> LogRecord:
        """Say that the run waits."""
        return self.event(semconv.EVENT_SESSION_STATE, PHASE="waiting", WAITING_FOR=reason)

    def end(self, outcome: str = "ok", reason: str = "completed") -> LogRecord:
        """Say that the run ended."""
        return self.event(semconv.EVENT_SESSION_END, SESSION_OUTCOME=outcome, SESSION_END_REASON=reason)

    def opened(self, span_id: bytes, name: str, parent: bytes = b"") -> LogRecord:
        """Announce a span that is still open."""
        record = self.event(
            semconv.EVENT_SPAN_START,
            SPAN_NAME=name,
            SPAN_KIND=1,
            SPAN_START=time.time_ns(),
            **({"SPAN_PARENT_ID": parent.hex()} if parent else {}),
        )
        record.span_id = span_id
        return record


def logs(records: Iterable[LogRecord], service: str = "planner") -> bytes:
    """Make an export request."""
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=Resource(attributes=key_values({"service.name": service})),
                scope_logs=[
                    ScopeLogs(scope=InstrumentationScope(name=semconv.SCOPE_NAME), log_records=records)
                ],
            )
        ]
    ).SerializeToString()
