"""What our exporter adds to an ended span that no hook could set any more.

OpenTelemetry drops the oldest attributes beyond a span's limit, so `session.id`, set at the start, goes
first; it cuts long values, ids too, where OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT says so; and nobody may set an
attribute on a span that has ended. A copy is made only where something is missing.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util import BoundedList

from otel_sessions import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_sessions.sdk._context import Place

__all__ = ["amended", "missing"]


def amended(span: ReadableSpan, place: Place | None, *, late: bool) -> ReadableSpan:
    """Return `span`, or a copy that bears its session, its lateness and the process it ran in."""
    more = missing(span.attributes or {}, place, late=late)
    resource = _resource_here(span.resource)
    if not more and resource is span.resource:
        return span
    return _copy(span, {**(span.attributes or {}), **more}, resource)


def missing(attributes: Mapping[str, Any], place: Place | None, *, late: bool) -> dict[str, Any]:
    """Return what an ended span with these attributes has to bear besides them, or in their place."""
    more: dict[str, Any] = {}
    if place is not None:
        more = {name: value for name, value in place.stamp.items() if name not in attributes}
        session_id = attributes.get(semconv.SESSION_ID)
        if session_id != place.session_id and place.root is not None and place.root.bears(session_id):
            more[semconv.SESSION_ID] = place.root.session_id
    if late and semconv.LATE not in attributes:
        more[semconv.LATE] = True
    return more


def _copy(span: ReadableSpan, attributes: dict[str, Any], resource: Resource) -> ReadableSpan:
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped = span.dropped_attributes
    events = BoundedList.from_seq(None, span.events)
    events.dropped = span.dropped_events
    links = BoundedList.from_seq(None, span.links)
    links.dropped = span.dropped_links
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=resource,
        attributes=bounded,
        events=events,
        links=links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _resource_here(resource: Resource) -> Resource:
    """Return the resource with this process's id: a provider keeps the one of the process that made it."""
    pid = os.getpid()
    known = resource.attributes.get(semconv.PROCESS_PID)
    return resource if known is None or known == pid else _with_pid(resource, pid)


@lru_cache(maxsize=8)
def _with_pid(resource: Resource, pid: int) -> Resource:
    return resource.merge(Resource({semconv.PROCESS_PID: pid}))
