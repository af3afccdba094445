"""A session as headers: W3C Trace Context and Baggage, which any service understands.

Of ours there is only `session.id` and the root's ids in the baggage, for baggage leaves in every outgoing
request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_sessions import semconv
from otel_sessions.sdk import _context
from otel_sessions.sdk._registry import registry

if TYPE_CHECKING:
    from otel_sessions.sdk._root import Root

__all__ = ["NAMES", "headers", "with_headers"]

NAMES: Final = ("traceparent", "tracestate", "baggage")

_OURS: Final = frozenset({semconv.SESSION_ID, semconv.BAGGAGE_RUN, semconv.BAGGAGE_TRACE})
_MOST_ENTRIES: Final = 180
_MOST_CHARACTERS: Final = 8192
"""Beyond these OpenTelemetry reads nothing of a baggage; W3C asks for no more than that many characters."""


def headers(root: Root | None) -> dict[str, str]:
    """Return `traceparent`, `tracestate` and `baggage` that carry a run, as far as there is one.

    The parent is the current span where that is in the run, else the run's root.
    """
    carried: dict[str, str] = {}
    context = _context.parent_context()
    if root is not None:
        scope = _context.current_scope()
        around = trace.get_current_span(context)
        inside = registry.is_inside(around, root) if scope is None else scope.place.root is root
        if not inside:
            context = trace.set_span_in_context(root.as_parent(), context)
        context = baggage.set_baggage(semconv.SESSION_ID, root.session_id, context)
        if root.span_id:
            context = baggage.set_baggage(semconv.BAGGAGE_RUN, f"{root.span_id:016x}", context)
            if trace.get_current_span(context).get_span_context().trace_id != root.trace_id:
                context = baggage.set_baggage(semconv.BAGGAGE_TRACE, f"{root.trace_id:032x}", context)
    TraceContextTextMapPropagator().inject(carried, context)
    W3CBaggagePropagator().inject(carried, context)
    return carried


def with_headers(environ: Mapping[str, str], carried: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with what `carried` says of trace and session, and with nothing else of them.

    The baggage keeps the entries of others that were there, as many as there is room for beside ours.
    """
    kept = {name: value for name, value in environ.items() if name.lower() not in NAMES}
    there = environ.get("BAGGAGE") or environ.get("baggage") or ""
    merged = _merged(carried.get("baggage", ""), there)
    new = {**carried, "baggage": merged} if merged else carried
    return kept | {name.upper(): value for name, value in new.items()}


def _merged(ours: str, theirs: str) -> str:
    """Return one baggage of two, entry by entry as they are written; of one name ours wins."""
    entries = [entry for entry in ours.split(",") if entry]
    names = {_name(entry) for entry in entries} | _OURS
    left = _MOST_CHARACTERS - len(ours)
    for entry in map(str.strip, theirs.split(",")):
        room = len(entries) < _MOST_ENTRIES and len(entry.encode(errors="replace")) < left
        if entry and room and _name(entry) not in names:
            entries.append(entry)
            left -= len(entry.encode(errors="replace")) + 1
    return ",".join(entries)


def _name(entry: str) -> str:
    return entry.partition("=")[0].strip()
