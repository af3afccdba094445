"""Jaeger's spans and traces in the JSON of its API v1; pure."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_sessions.backend.jaeger.golang import number_text
from otel_sessions.backend.jaeger.model import Log, Process, Reference, Span, Tag

__all__ = ["JsonObject", "error_json", "id_text", "processes_json", "span_json"]

JsonObject = dict[str, Any]

_EXACT: Final = 2**53 - 1  # what JavaScript holds exactly


def span_json(span: Span, process_id: str, warnings: Iterable[str]) -> JsonObject:
    """Write one span; times in µs."""
    return {
        "traceID": id_text(span.trace_id),
        "spanID": span.span_id.hex(),
        "operationName": span.operation,
        "references": [_reference_json(reference) for reference in span.references],
        "startTime": span.start // 1000,
        "duration": max(0, span.duration) // 1000,
        "tags": _tags_json(span.tags),
        "logs": [_log_json(log) for log in span.logs],
        "processID": process_id,
        "warnings": list(warnings) or None,
    }


def processes_json(processes: Mapping[Process, str]) -> JsonObject:
    """Write the processes of a trace by their ids."""
    return {
        process_id: {"serviceName": process.service, "tags": _tags_json(process.tags)}
        for process, process_id in processes.items()
    }


def error_json(message: str, *, code: int | None = None, trace_id: str | None = None) -> JsonObject:
    """Write one error of an answer."""
    known: JsonObject = {} if code is None else {"code": code}
    return {**known, "msg": message, **({} if trace_id is None else {"traceID": trace_id})}


def id_text(trace_id: bytes) -> str:
    """Write a trace id; one of 64 bits is as long as that."""
    digits = trace_id.hex()
    return digits[16:] if not any(trace_id[:8]) else digits


def _reference_json(reference: Reference) -> JsonObject:
    trace_id, span_id = id_text(reference.trace_id), reference.span_id.hex()
    return {"refType": reference.type, "traceID": trace_id, "spanID": span_id}


def _log_json(log: Log) -> JsonObject:
    return {"timestamp": log.at // 1000, "fields": _tags_json(log.fields)}


def _tags_json(tags: Iterable[Tag]) -> list[JsonObject]:
    return [{"key": tag.key, "type": tag.type, "value": _value(tag)} for tag in tags]


def _value(tag: Tag) -> object:
    """Return a value that JSON and JavaScript hold exactly."""
    if tag.type == "int64":
        return tag.value if abs(tag.value) <= _EXACT else str(tag.value)
    if tag.type == "float64":
        return tag.value if math.isfinite(tag.value) else number_text(tag.value)
    if tag.type == "binary":
        return base64.b64encode(tag.value).decode()
    return tag.value
