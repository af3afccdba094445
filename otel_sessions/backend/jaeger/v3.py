"""Jaeger's spans in the OTLP JSON of its API v3; pure.

Jaeger 1.62 keeps its own model and translates back, so what the model has no place for is gone: arrays stay
the JSON that they became, links keep their type only, counts of what was dropped are lost. The rules are
those of the translator in opentelemetry-collector-contrib 0.111 (pkg/translator/jaeger).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any, Final

from otel_sessions import semconv
from otel_sessions.backend.jaeger.model import (
    CHILD_OF,
    KINDS,
    NO_RESOURCE,
    Log,
    Process,
    Span,
    Tag,
    parent_of,
)

__all__ = ["resource_spans"]

JsonObject = dict[str, Any]
_Attributes = dict[str, Tag]  # a later tag takes the place of an earlier one of its key
_Scope = tuple[str, str]

GROUP_SPANS: Final = 256  # under one resource and scope, before the group is repeated
_ERROR: Final = 2
_STATUSES: Final = {"OK": 1, "ERROR": _ERROR}
_CLIENT, _SERVER = KINDS.index("client"), KINDS.index("server")


def resource_spans(spans: Iterable[Span]) -> Iterator[JsonObject]:
    """Group spans that follow each other by resource and scope, and write each group."""
    split = ((span.process, *_scope_of(span.tags), span) for span in spans)
    for (process, scope), members in groupby(split, key=lambda one: one[:2]):
        while some := list(islice(members, GROUP_SPANS)):
            written = [_span(span, tags) for _, _, tags, span in some]
            yield {
                "resource": _some(attributes=_values(_resource(process))),
                "scopeSpans": [{"scope": _some(name=scope[0], version=scope[1]), "spans": written}],
            }


def _scope_of(tags: tuple[Tag, ...]) -> tuple[_Scope, list[Tag]]:
    """Take the scope out of a span's tags; a version counts only with a name."""
    rest = list(tags)
    name = _take(rest, "otel.scope.name")
    version = None if name is None else _take(rest, "otel.scope.version")
    return (_text(name), _text(version)), rest


def _take(tags: list[Tag], key: str) -> Tag | None:
    found = next((tag for tag in tags if tag.key == key), None)
    if found is not None:
        tags.remove(found)
    return found


def _text(tag: Tag | None) -> str:
    return tag.value if tag is not None and tag.type == "string" else ""


def _resource(process: Process) -> _Attributes:
    if process.service == NO_RESOURCE:
        return {}
    named = Tag(semconv.SERVICE_NAME, "string", process.service)
    attributes = _by_key((named, *process.tags))
    if "hostname" in attributes and "host.name" not in attributes:
        attributes["host.name"] = attributes.pop("hostname")
    if "jaeger.version" in attributes and "opencensus.exporterversion" not in attributes:
        version = "Jaeger-" + _text(attributes.pop("jaeger.version"))
        attributes["opencensus.exporterversion"] = Tag("", "string", version)
    return attributes


def _span(span: Span, tags: list[Tag]) -> JsonObject:
    attributes = _by_key(tags)
    parent = parent_of(span.trace_id, span.references)
    kind_text = _text(attributes.pop("span.kind", None))
    kind = KINDS.index(kind_text) if kind_text in KINDS else 0
    code, message = _status(attributes, kind)
    state = _text(attributes.pop("w3c.tracestate", None))
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": parent.hex(),
        "status": _some(code=code, message=message),
        **_some(
            traceState=state,
            name=span.operation,
            kind=kind,
            startTimeUnixNano=str(span.start or ""),
            endTimeUnixNano=str(span.start + span.duration or ""),
            attributes=_values(attributes),
            events=[_event(log) for log in span.logs],
            links=list(_links(span, parent)),
        ),
    }


def _status(attributes: _Attributes, kind: int) -> tuple[int, str]:
    """Take the status out of the attributes, where senders that know only Jaeger's tags put it too."""
    error = attributes.get("error")
    failed = error is not None and error.type == "bool" and error.value
    code_tag = attributes.pop("otel.status_code", None)
    if failed:
        del attributes["error"]
        described = attributes.pop("otel.status_description", attributes.get("http.status_message"))
        return _ERROR, _text(described)
    if code_tag is not None:
        described = attributes.pop("otel.status_description", None)
        return _STATUSES.get(_text(code_tag).upper(), 0), _text(described)
    code = _http_code(attributes.get("http.status_code"), kind)
    return (code, _text(attributes.get("http.status_message"))) if code else (0, "")


def _http_code(tag: Tag | None, kind: int) -> int:
    """Return the status of a span that tells none but that of its HTTP answer."""
    if tag is None or tag.type not in ("int64", "string"):
        return 0
    try:
        number = int(tag.value)
    except ValueError:
        return 0
    if 400 <= number < 500 and kind in (_CLIENT, _SERVER):  # noqa: PLR2004 - a class of HTTP
        return _ERROR if kind == _CLIENT else 0
    return 0 if 100 <= number < 399 else _ERROR  # noqa: PLR2004 - 399 is the bound over there


def _event(log: Log) -> JsonObject:
    attributes = _by_key(log.fields)
    name = _text(attributes.pop("event", None))
    return _some(timeUnixNano=str(log.at or ""), name=name, attributes=_values(attributes))


def _links(span: Span, parent: bytes) -> Iterator[JsonObject]:
    for reference in span.references:
        if reference.span_id == parent and reference.type == CHILD_OF:
            continue
        kind = Tag("opentracing.ref_type", "string", reference.type.lower())
        yield {
            "traceId": _hex(reference.trace_id),
            "spanId": _hex(reference.span_id),
            "attributes": _values({kind.key: kind}),
        }


def _hex(given: bytes) -> str:
    """Write an id; one of zeros is none."""
    return given.hex() if any(given) else ""


# --- Attributes -------------------------------------------------------------------------------------------


def _by_key(tags: Iterable[Tag]) -> _Attributes:
    return {tag.key: tag for tag in tags}


def _values(attributes: _Attributes) -> list[JsonObject]:
    return [{"key": key, "value": _value(tag)} for key, tag in attributes.items()]


def _value(tag: Tag) -> JsonObject:
    if tag.type == "string":
        return {"stringValue": tag.value}
    if tag.type == "bool":
        return {"boolValue": tag.value}
    if tag.type == "int64":
        return {"intValue": str(tag.value)}
    if tag.type == "float64":
        return {"doubleValue": _double(tag.value)}
    return {"bytesValue": base64.b64encode(tag.value).decode()}


def _double(number: float) -> float | str:
    """Return a number as protobuf's JSON has it, which spells what JSON has no number for."""
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"


def _some(**members: Any) -> JsonObject:
    """Return the members that are not empty; protobuf's JSON leaves those out."""
    return {name: value for name, value in members.items() if value}
