"""Cut a request of spans that its receiver found too large in two: rare, hence by protobuf's classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from otel_sessions import semconv
from otel_sessions.sdk._ledger import counted_in
from otel_sessions.sdk._parcel import Parcel

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

    Placed = tuple[ResourceSpans, ScopeSpans, Span]

__all__ = ["split_parcel"]

_PARTS: Final = 2


def split_parcel(parcel: Parcel) -> list[Parcel]:
    """Return two parcels that hold what the one held."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - rare
        ExportTraceServiceRequest,
    )

    request = ExportTraceServiceRequest.FromString(parcel.body)
    spans = [
        (of_resource, of_scope, span)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]
    middle = (len(spans) + 1) // _PARTS
    return [_parcel(parcel, half) for half in (spans[:middle], spans[middle:]) if half]


def _parcel(whole: Parcel, spans: Sequence[Placed]) -> Parcel:
    sessions = Counter(_session_of(span) for _, _, span in spans)
    return replace(whole, body=_body(spans), items=len(spans), sessions=dict(sessions))


def _session_of(span: Span) -> str:
    said = {
        pair.key: pair.value for pair in span.attributes if pair.key in (semconv.SESSION_ID, semconv.LATE)
    }
    return counted_in({key: value.bool_value or value.string_value for key, value in said.items()})


def _body(spans: Iterable[Placed]) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - rare
        ExportTraceServiceRequest,
    )

    request = ExportTraceServiceRequest()
    for of_resource, inside in groupby(spans, key=itemgetter(0)):
        made = request.resource_spans.add(resource=of_resource.resource, schema_url=of_resource.schema_url)
        for of_scope, placed in groupby(inside, key=itemgetter(1)):
            inner = made.scope_spans.add(scope=of_scope.scope, schema_url=of_scope.schema_url)
            inner.spans.extend(span for _, _, span in placed)
    return request.SerializeToString()
