"""OTLP's JSON, in and out: hex ids, enums as integers, typed attribute values kept exactly; pure.

`google.protobuf.json_format` reads and writes bytes as base64, and takes hex digits for base64 without a
word (a trace id becomes 24 bytes). So ids are turned into base64 before it, and back into hex after it.
"""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_sessions.backend.json_values import loads

__all__ = ["log_json", "parse", "read", "request_json", "resource_json", "scope_json", "span_json"]

MessageT = TypeVar("MessageT", bound=Message)

_MAX_DEPTH: Final = 400  # a value that nests 100 messages deep, which is protobuf's limit, takes 300 levels
_IDS: Final = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
_GROUPS: Final = (
    ("resourceSpans", "scopeSpans", "spans"),
    ("resourceLogs", "scopeLogs", "logRecords"),
    ("resource_spans", "scope_spans", "spans"),
    ("resource_logs", "scope_logs", "log_records"),
)


def span_json(span: Span) -> dict[str, Any]:
    """Write a span in OTLP's JSON."""
    return _with_hex_ids(_plain(span))


def log_json(log: LogRecord) -> dict[str, Any]:
    """Write a log record in OTLP's JSON."""
    return _with_hex_ids(_plain(log))


def resource_json(resource: Resource) -> dict[str, Any]:
    """Write a resource in OTLP's JSON."""
    return _plain(resource)


def scope_json(scope: InstrumentationScope) -> dict[str, Any]:
    """Write an instrumentation scope in OTLP's JSON."""
    return _plain(scope)


def _plain(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, use_integers_for_enums=True)


def request_json(request: Message) -> dict[str, Any]:
    """Write an export request in OTLP's JSON."""
    data = _plain(request)
    for part in _records(data):
        _ids_to_hex(part)
    return data


def _with_hex_ids(record: dict[str, Any]) -> dict[str, Any]:
    for part in (record, *record.get("links", ())):
        _ids_to_hex(part)
    return record


def _ids_to_hex(part: dict[str, Any]) -> None:
    for name in _IDS:
        if name in part:
            part[name] = base64.b64decode(part[name]).hex()


def read(body: bytes, object_of: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Read the JSON of a body, the one way for all that look into it. Raises ValueError."""
    return loads(body.removeprefix(codecs.BOM_UTF8), depth=_MAX_DEPTH, object_of=object_of)


def parse(kind: type[MessageT], body: bytes) -> MessageT:
    """Read an export request in OTLP's JSON; fields it does not know are ignored.

    An id that is no hex becomes empty, so that its record alone is rejected. Raises ValueError.
    """
    try:
        data = read(body)
        if not isinstance(data, dict):
            raise TypeError("the body is no JSON object")  # noqa: TRY301 - told as any other fault of the body
        for record in _records(data):
            _ids_to_base64(record)
        return json_format.ParseDict(data, kind(), ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _records(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Iterate over everything in an export request that bears ids."""
    for resources, scopes, records in _GROUPS:
        for resource in _dicts(data.get(resources)):
            for scope in _dicts(resource.get(scopes)):
                for record in _dicts(scope.get(records)):
                    yield record
                    yield from _dicts(record.get("links"))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _ids_to_base64(record: dict[str, Any]) -> None:
    for name in _IDS:
        if name in record:
            record[name] = _base64_of(record[name])


def _base64_of(digits: Any) -> str:
    try:
        return base64.b64encode(bytes.fromhex(digits)).decode() if isinstance(digits, str) else ""
    except ValueError:
        return ""
