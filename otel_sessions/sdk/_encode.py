"""Life cycle events -> OTLP bytes, by opentelemetry-proto's classes.

Loads protobuf, so only the sender's thread imports it. (The SDK's own logs signal is private API.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.sdk._events import Event, Origin

__all__ = ["any_value", "to_record", "to_request", "to_resource"]

_SAMPLED: Final = 1
"""W3C trace flags of every event: unsampled runs send none."""
_INT64: Final = range(-(2**63), 2**63)


def to_resource(attributes: Mapping[str, Any]) -> Resource:
    """Encode the resource of this process."""
    return Resource(attributes=_pairs(attributes))


def to_record(event: Event, origin: Origin) -> LogRecord:
    """Encode one event as an OTLP log record of severity DEBUG."""
    attributes: dict[str, Any] = {
        semconv.SESSION_ID: event.session_id,
        semconv.PROCESS_ID: origin.process_id,
        semconv.SEQ: event.stamp.seq,
        semconv.ELAPSED: event.stamp.elapsed,
        semconv.HEARTBEAT_INTERVAL: float(origin.heartbeat),
        semconv.LEASE: float(origin.lease),
        **event.attributes,
    }
    if event.child:
        attributes[semconv.CHILD] = True
    return LogRecord(
        time_unix_nano=event.at,
        observed_time_unix_nano=event.stamp.at,
        severity_number=SeverityNumber.SEVERITY_NUMBER_DEBUG,
        severity_text="DEBUG",
        event_name=event.name,
        trace_id=event.trace_id.to_bytes(16, "big"),
        span_id=event.span_id.to_bytes(8, "big"),
        flags=_SAMPLED,
        attributes=_pairs(attributes),
    )


def to_request(records: Iterable[LogRecord], resource: Resource) -> bytes:
    """Put records into one request for `LogsService/Export` or `/v1/logs`."""
    scope = InstrumentationScope(name=semconv.SCOPE_NAME, version=__version__)
    logs = ResourceLogs(resource=resource, scope_logs=[ScopeLogs(scope=scope, log_records=records)])
    return ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()


def any_value(value: Any) -> AnyValue:
    """Encode one attribute value.

    What OTLP has no place for (an int beyond 64 bits, an object) becomes its text rather than a hole.
    """
    for types, encode in _ENCODERS:
        if isinstance(value, types):
            return encode(value)
    return AnyValue(string_value=_text(value))


def _int(value: int) -> AnyValue:
    return AnyValue(int_value=value) if value in _INT64 else AnyValue(string_value=str(value))


def _array(value: Sequence[Any]) -> AnyValue:
    return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))


# In this order: a bool is an int, and text and bytes are sequences.
_ENCODERS: Final[tuple[tuple[type, Callable[[Any], AnyValue]], ...]] = (
    (str, lambda value: AnyValue(string_value=_text(value))),
    (bool, lambda value: AnyValue(bool_value=value)),
    (int, _int),
    (float, lambda value: AnyValue(double_value=value)),
    (bytes, lambda value: AnyValue(bytes_value=value)),
    (Mapping, lambda value: AnyValue(kvlist_value=KeyValueList(values=_pairs(value)))),
    (Sequence, _array),
    (type(None), lambda _: AnyValue()),
)


def _pairs(attributes: Mapping[Any, Any]) -> list[KeyValue]:
    return [KeyValue(key=_text(key), value=any_value(value)) for key, value in attributes.items()]


def _text(value: Any) -> str:
    """Return text that UTF-8 can hold: a lone surrogate (half an emoji) would fail the whole batch."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
