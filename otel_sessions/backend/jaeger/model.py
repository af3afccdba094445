"""A span as Jaeger models it, made of a stored one; pure.

Jaeger knows neither kinds nor statuses nor scopes: its collector turns them into tags, arrays into JSON,
events into logs, parent and links into references. The rules are those of the translator in
opentelemetry-collector-contrib 0.111 (pkg/translator/jaeger), which Jaeger 1.62 uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions import semconv
from otel_sessions.backend.jaeger.golang import nested_json, number_text

__all__ = [
    "CHILD_OF",
    "EMPTY_SERVICE",
    "FOLLOWS_FROM",
    "KINDS",
    "NO_RESOURCE",
    "TYPES",
    "Log",
    "Process",
    "Reference",
    "Span",
    "Tag",
    "host_of",
    "parent_of",
    "process_of",
    "references_of",
    "span_of",
    "tag_text",
]

KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
"""OTLP's kinds of spans in Jaeger's words, by number; what is no kind is unspecified."""

TYPES: Final = ("string", "bool", "int64", "float64", "binary")
"""Types of tags, in the order in which tags of one key are sorted."""

CHILD_OF: Final = "CHILD_OF"
FOLLOWS_FROM: Final = "FOLLOWS_FROM"
NO_RESOURCE: Final = "OTLPResourceNoServiceName"
"""The service of spans whose resource says nothing at all."""
EMPTY_SERVICE: Final = "empty-service-name"
"""The service of spans whose resource has attributes, and none of them names the service."""

_REF_TYPE: Final = "opentracing.ref_type"
_STATUSES: Final = {1: "OK", 2: "ERROR"}
_ERROR: Final = 2


class Tag(NamedTuple):
    """One typed value under a key, of a span, a log or a process."""

    key: str
    type: str
    value: Any


class Log(NamedTuple):
    """Something that happened in a span, at Unix ns."""

    at: int
    fields: tuple[Tag, ...]


class Reference(NamedTuple):
    """How a span refers to another one."""

    type: str
    trace_id: bytes
    span_id: bytes


class Process(NamedTuple):
    """Who sent a span."""

    service: str
    tags: tuple[Tag, ...]


class Span(NamedTuple):
    """A span; `start` in Unix ns, `duration` in ns, below 0 where a clock was set back."""

    trace_id: bytes
    span_id: bytes
    operation: str
    references: tuple[Reference, ...]
    start: int
    duration: int
    tags: tuple[Tag, ...]
    logs: tuple[Log, ...]
    process: Process


def span_of(span: SpanMessage, process: Process, scope: InstrumentationScope) -> Span:
    """Return a span as Jaeger's collector would keep it."""
    return Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        operation=span.name,
        references=references_of(span),
        start=span.start_time_unix_nano,
        duration=span.end_time_unix_nano - span.start_time_unix_nano,
        tags=tuple(_span_tags(span, scope)),
        logs=tuple(Log(event.time_unix_nano, tuple(_log_fields(event))) for event in span.events),
        process=process,
    )


def process_of(resource: Resource) -> Process:
    """Return who sent the spans of a resource."""
    attributes = resource.attributes
    names = [item.value.string_value for item in attributes if item.key == semconv.SERVICE_NAME]
    service = (names[0] if names else "") or (EMPTY_SERVICE if attributes else NO_RESOURCE)
    return Process(service, tuple(_tags(item for item in attributes if item.key != semconv.SERVICE_NAME)))


def references_of(span: SpanMessage) -> tuple[Reference, ...]:
    """Return the parent, then the links; a link to the parent only says of which type that reference is."""
    parent = (span.trace_id, span.parent_span_id) if any(span.parent_span_id) else None
    first: list[Reference] = [] if parent is None else [Reference(CHILD_OF, *parent)]
    others: list[Reference] = []
    for link in span.links:
        reference = Reference(_type_of(link), link.trace_id.rjust(16, b"\0"), link.span_id.rjust(8, b"\0"))
        if reference[1:] == parent:
            first = [reference]
        else:
            others.append(reference)
    return (*first, *others)


def _type_of(link: SpanMessage.Link) -> str:
    types = [item.value.string_value for item in link.attributes if item.key == _REF_TYPE]
    return CHILD_OF if types[:1] == ["child_of"] else FOLLOWS_FROM


def parent_of(trace_id: bytes, references: Iterable[Reference]) -> bytes:
    """Return the id of the parent, which may be one that the span only follows from; b"" without one."""
    own = [reference for reference in references if reference.trace_id == trace_id]
    chosen = next((one for one in own if one.type == CHILD_OF), own[0] if own else None)
    return chosen.span_id if chosen is not None and any(chosen.span_id) else b""


def host_of(process: Process) -> str:
    """Return what Jaeger tells hosts apart by; "" where nothing does, as ever with OpenTelemetry."""
    tag = next((tag for tag in process.tags if tag.key == "ip"), None)
    if tag is None:
        return ""
    if tag.type == "int64":
        return ".".join(map(str, (tag.value & 0xFFFFFFFF).to_bytes(4, "big")))
    return tag.value if tag.type == "string" else ""


def tag_text(tag: Tag) -> str:
    """Return a tag's value as a search compares it."""
    if tag.type == "bool":
        return "true" if tag.value else "false"
    if tag.type == "float64":
        return number_text(tag.value)
    return tag.value.hex() if tag.type == "binary" else str(tag.value)


# --- Tags -------------------------------------------------------------------------------------------------


def _span_tags(span: SpanMessage, scope: InstrumentationScope) -> Iterator[Tag]:
    if scope.name:
        yield Tag("otel.scope.name", "string", scope.name)
    if scope.version:
        yield Tag("otel.scope.version", "string", scope.version)
    yield from _tags(span.attributes)
    if 0 < span.kind < len(KINDS):
        yield Tag("span.kind", "string", KINDS[span.kind])
    if span.status.code in _STATUSES:
        yield Tag("otel.status_code", "string", _STATUSES[span.status.code])
    if span.status.code == _ERROR:
        yield Tag("error", "bool", value=True)
    if span.status.message:
        yield Tag("otel.status_description", "string", span.status.message)
    if span.trace_state:
        yield Tag("w3c.tracestate", "string", span.trace_state)
    yield Tag("internal.span.format", "string", "otlp")  # what Jaeger's collector says of how it came


def _log_fields(event: SpanMessage.Event) -> Iterator[Tag]:
    if event.name and all(item.key != "event" for item in event.attributes):
        yield Tag("event", "string", event.name)
    yield from _tags(event.attributes)


def _tags(attributes: Iterable[KeyValue]) -> Iterator[Tag]:
    return (_tag(item.key, item.value) for item in attributes)


_BY_FIELD: Final = {
    "string_value": "string",
    "bool_value": "bool",
    "int_value": "int64",
    "double_value": "float64",
    "bytes_value": "binary",
}


def _tag(key: str, value: AnyValue) -> Tag:
    kind = value.WhichOneof("value")
    if kind in _BY_FIELD:
        return Tag(key, _BY_FIELD[kind], getattr(value, kind))
    return Tag(key, "string", "" if kind is None else nested_json(value))
