"""A session as headers: W3C Trace Context and Baggage, which any service understands.

Of ours there is only `session.id` and the root's ids in the baggage, for baggage leaves in every outgoing
request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_sessions import semconv
from otel_sessions.sdk import _context

if TYPE_CHECKING:
    from otel_sessions.sdk._root import Root

__all__ = ["NAMES", "headers"]

NAMES: Final = ("traceparent", "tracestate", "baggage")


def headers(root: Root | None) -> dict[str, str]:
    """Return `traceparent`, `tracestate` and `baggage` that carry a run, as far as there is one.

    The parent is the current span where that is in the run, else the run's root.
    """
    carried: dict[str, str] = {}
    context = _context.parent_context()
    if root is not None:
        scope = _context.current_scope()
        if scope is None or scope.place.root is not root:
            context = trace.set_span_in_context(root.as_parent(), context)
        context = baggage.set_baggage(semconv.SESSION_ID, root.session_id, context)
        if root.span_id:
            context = baggage.set_baggage(semconv.BAGGAGE_RUN, f"{root.span_id:016x}", context)
            if trace.get_current_span(context).get_span_context().trace_id != root.trace_id:
                context = baggage.set_baggage(semconv.BAGGAGE_TRACE, f"{root.trace_id:032x}", context)
    TraceContextTextMapPropagator().inject(carried, context)
    W3CBaggagePropagator().inject(carried, context)
    return carried
