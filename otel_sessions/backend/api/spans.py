"""One span in full: as it came, its index row, what was said in it, the logs that bear its ids."""

from __future__ import annotations

from aiohttp import web

from otel_sessions.backend.api.parameters import span_ids
from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.api.shapes import JsonObject, ns, span_row_json
from otel_sessions.backend.otlp_json import log_json, resource_json, scope_json, span_json
from otel_sessions.backend.replies import answer
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import StoredSpan
from otel_sessions.backend.transcript import span_messages

__all__ = ["span", "stored_span_json"]


async def span(services: Services, request: web.Request) -> web.Response:
    """Show one span. Raises ProblemError: 400 for what is no id, 404 for what is not stored."""
    trace_id, span_id = span_ids(request.match_info)
    event_id = services.live.last_event_id()

    def read() -> JsonObject:
        stored = services.store.span(trace_id, span_id)
        if stored is None:
            raise ProblemError(404, f"No span {span_id.hex()} of trace {trace_id.hex()} is stored.")
        return {"event_id": event_id, **stored_span_json(stored)}

    return await answer(request, read)


def stored_span_json(stored: StoredSpan) -> JsonObject:
    """Shape one span as it is stored; `span` is null while it is only announced."""
    return {
        "session": stored.session_id,
        "span": None if stored.span is None else span_json(stored.span),
        "resource": None if stored.resource is None else resource_json(stored.resource),
        "scope": None if stored.scope is None else scope_json(stored.scope),
        "schema_url": stored.schema_url or None,
        "row": span_row_json(stored.row),
        "messages": span_messages(stored),
        "logs": [log_json(log) for log in stored.events],
        "received_at": ns(stored.received_at or None),
    }
