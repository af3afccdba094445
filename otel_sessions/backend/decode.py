"""OTLP bytes into records; pure.

`decode` takes one export request, decompressed, and returns what lists, sums and the tree need of it. The
body itself is kept as it came; `parse` reads it again when somebody asks for a span in full.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError as WireError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sessions import semconv
from otel_sessions.backend import otlp_json
from otel_sessions.backend.attributes import Source, identity, sender_of, source_of, word
from otel_sessions.backend.decode_logs import (
    announced_root,
    announced_span,
    decode_log,
    is_life_cycle,
    run_event,
)
from otel_sessions.backend.decode_spans import decode_span, root_event
from otel_sessions.backend.records import (
    Emitted,
    Encoding,
    LogRecord,
    Request,
    RunEvent,
    Signal,
    SpanRecord,
)
from otel_sessions.backend.vocabulary import emitter_of

__all__ = [
    "MAX_ITEMS",
    "MOST_APART",
    "OTHERS",
    "DecodeError",
    "ExportRequest",
    "count_apart",
    "decode",
    "parse",
    "parse_bounded",
    "unreadable",
]

ExportRequest = ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest

_MESSAGES: Final[Mapping[Signal, type[ExportRequest]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
_DIGEST_BYTES: Final = 16
_UID: Final = "log.record.uid"  # by the conventions, records with the same one are duplicates
MAX_ITEMS: Final = 2**17
"""Most resources, scopes and records in one request. An empty one takes two bytes, almost none of them when
compressed, and some hundred bytes as a record; and ordinals have to fit 24 bits in the store.
Exporters send 512 records at a time, collectors 8192 (OpenTelemetry's defaults)."""

MOST_APART: Final = 1_000
"""Names of metrics, and sessions, whose data points are counted apart."""

OTHERS: Final = "(other)"
"""What those beyond are counted under."""


class DecodeError(ValueError):
    """A body is not what it is said to be; the message tells what is wrong with it."""


def decode(signal: Signal, encoding: Encoding, body: bytes, received_at: int) -> Request:
    """Decode one export request.

    Raises DecodeError where the body as a whole can't be read, or holds more than MAX_ITEMS. A span without a
    valid id is rejected alone: `Request.rejected` counts such, and the rest is kept.
    """
    message = parse_bounded(signal, encoding, body)
    if isinstance(message, ExportTraceServiceRequest):
        return _traces(message, encoding, body, received_at)
    if isinstance(message, ExportLogsServiceRequest):
        return _logs(message, encoding, body, received_at)
    return _metrics(message, encoding, body, received_at)


def parse_bounded(signal: Signal, encoding: Encoding, body: bytes) -> ExportRequest:
    """Read a body into its message. Raises DecodeError, also where it holds more than MAX_ITEMS."""
    message = parse(signal, encoding, body)
    if _count_items(message) > MAX_ITEMS:
        raise DecodeError(
            f"the request holds more than {MAX_ITEMS} resources, scopes and records: send less at once"
        )
    return message


def parse(signal: Signal, encoding: Encoding, body: bytes) -> ExportRequest:
    """Read a body into its message, with ids as bytes whatever the encoding. Raises DecodeError."""
    kind = _MESSAGES[signal]
    try:
        if encoding is Encoding.JSON:
            return otlp_json.parse(kind, body)
        return kind.FromString(body)
    except (WireError, ValueError) as error:
        raise unreadable(signal, encoding, error) from error


def unreadable(signal: Signal, encoding: Encoding, error: Exception) -> DecodeError:
    """Say that a body is not what it is said to be."""
    return DecodeError(f"the body is no {_MESSAGES[signal].__name__} in {encoding.value}: {error}")


def _count_items(message: ExportRequest) -> int:
    """Count resources, scopes and records (for metrics, the metrics), without a look into any record."""
    if isinstance(message, ExportTraceServiceRequest):
        scopes = [group.scope_spans for group in message.resource_spans]
        records = sum(len(scope.spans) for group in scopes for scope in group)
    elif isinstance(message, ExportLogsServiceRequest):
        scopes = [group.scope_logs for group in message.resource_logs]
        records = sum(len(scope.log_records) for group in scopes for scope in group)
    else:
        scopes = [group.scope_metrics for group in message.resource_metrics]
        records = sum(len(scope.metrics) for group in scopes for scope in group)
    return len(scopes) + sum(map(len, scopes)) + records


def _traces(message: ExportTraceServiceRequest, encoding: Encoding, body: bytes, received_at: int) -> Request:
    spans: list[SpanRecord] = []
    events: list[RunEvent] = []
    emitted: list[Emitted] = []
    ordinal = 0
    for resource_spans in message.resource_spans:
        before = len(spans)
        source = source_of(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            emitter = emitter_of(scope_spans.scope.name)
            for span in scope_spans.spans:
                decoded = decode_span(span, emitter, source, ordinal)
                ordinal += 1
                if decoded is None:
                    continue
                spans.append(decoded[0])
                event = root_event(*decoded)
                if event is not None:
                    events.append(event)
        own = spans[before:]
        emitted.append(Emitted(sender_of(resource_spans.resource), len(own), 0, _ids(own)))
    rejected = ordinal - len(spans)
    return Request(
        Signal.TRACES,
        encoding,
        body,
        received_at,
        spans=tuple(spans),
        events=tuple(events),
        rejected=rejected,
        message=f"{rejected} of {ordinal} spans have no valid trace id or span id" if rejected else "",
        keep=bool(spans),
        emitted=tuple(emitted),
    )


def _ids(records: Iterable[SpanRecord | LogRecord]) -> frozenset[str]:
    """Return the ids of sessions that records bear, as they were sent."""
    return frozenset(record.hint.value for record in records if record.hint is not None)


@dataclass(slots=True)
class _Gathered:
    """What the logs of one request tell."""

    spans: list[SpanRecord] = field(default_factory=list[SpanRecord])
    logs: list[LogRecord] = field(default_factory=list[LogRecord])
    events: list[RunEvent] = field(default_factory=list[RunEvent])
    emitted: list[Emitted] = field(default_factory=list[Emitted])


def _logs(message: ExportLogsServiceRequest, encoding: Encoding, body: bytes, received_at: int) -> Request:
    gathered = _Gathered()
    ordinal = 0
    seen: Counter[bytes] = Counter()
    for resource_logs in message.resource_logs:
        before = len(gathered.logs)
        source = source_of(resource_logs.resource)
        for scope_logs in resource_logs.scope_logs:
            scope = scope_logs.scope.name
            emitter = emitter_of(scope)
            digests = _digests(resource_logs.resource, scope_logs.scope, scope_logs.log_records, seen)
            for log, digest in zip(scope_logs.log_records, digests, strict=True):
                if not is_life_cycle(log, scope):
                    gathered.logs.append(decode_log(log, emitter, source, ordinal, digest))
                else:
                    _take_event(gathered, log, source, ordinal, digest)
                ordinal += 1
        own = gathered.logs[before:]
        gathered.emitted.append(Emitted(sender_of(resource_logs.resource), 0, len(own), _ids(own)))
    return Request(
        Signal.LOGS,
        encoding,
        body,
        received_at,
        spans=tuple(gathered.spans),
        logs=tuple(gathered.logs),
        events=tuple(gathered.events),
        keep=bool(gathered.logs),
        emitted=tuple(gathered.emitted),
    )


def _take_event(gathered: _Gathered, log: LogMessage, source: Source, ordinal: int, digest: bytes) -> None:
    """Take a life cycle event for what it tells; heartbeats leave no log behind."""
    event = run_event(log)
    announced: SpanRecord | None = None
    if event is not None:
        gathered.events.append(event)
        if event.name in (semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_RESUMED):
            announced = announced_root(event, log, source, ordinal)
    elif log.event_name == semconv.EVENT_SPAN_START:
        announced = announced_span(log, source, ordinal)
    if announced is not None:
        gathered.spans.append(announced)
    if log.event_name != semconv.EVENT_SESSION_HEARTBEAT:
        gathered.logs.append(decode_log(log, "", source, ordinal, digest))


def _digests(
    resource: Resource, scope: InstrumentationScope, logs: Iterable[LogMessage], seen: Counter[bytes]
) -> Iterator[bytes]:
    """Yield what tells each log record from any other; a repeated request gives the same again.

    Records that are equal within one request were sent twice on purpose, as far as OTLP can tell: the second
    is another one (clocks of milliseconds, as in JavaScript, give one time to a whole loop). Only those that
    bear a name of their own are the same one, of which a Collector merged two deliveries.
    """
    origin = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in (resource.SerializeToString(deterministic=True), scope.SerializeToString(deterministic=True)):
        origin.update(len(part).to_bytes(8, "big") + part)
    for log in logs:
        state = origin.copy()
        state.update(log.SerializeToString(deterministic=True))
        digest = state.digest()
        seen[digest] += 1
        if seen[digest] > 1 and not _is_named(log):
            state.update(seen[digest].to_bytes(8, "big"))
            digest = state.digest()
        yield digest


def _is_named(log: LogMessage) -> bool:
    """Tell whether a log record bears a name that no other has: by the conventions, or by our own events."""
    keys = {attribute.key for attribute in log.attributes}
    return _UID in keys or {semconv.PROCESS_ID, semconv.SEQ} <= keys


def _metrics(
    message: ExportMetricsServiceRequest, encoding: Encoding, body: bytes, received_at: int
) -> Request:
    """Count the data points of each metric and session; the points themselves are not stored."""
    names: dict[str, int] = {}
    sessions: dict[str, int] = {}
    for resource_metrics in message.resource_metrics:
        of_resource = _session_in(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                points = getattr(metric, kind).data_points
                count_apart(names, word(metric.name), len(points))
                for point in points:
                    session = _session_in(point.attributes) or of_resource
                    if session:
                        count_apart(sessions, session, 1)
    return Request(
        Signal.METRICS, encoding, body, received_at, metrics=names, metric_sessions=sessions, keep=False
    )


def count_apart(counts: dict[str, int], name: str, count: int) -> None:
    """Add to what is counted under a name, or under OTHERS once MOST_APART names are."""
    key = name if name in counts or len(counts) < MOST_APART else OTHERS
    counts[key] = counts.get(key, 0) + count


def _session_in(attributes: Iterable[KeyValue]) -> str:
    """Return the `session.id` among attributes, as index rows hold it; "" where there is none."""
    found = (one.value.string_value for one in attributes if one.key == semconv.SESSION_ID)
    return identity(next(found, ""))
