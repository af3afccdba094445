"""The search over all sessions: a substring, in any script, in names and contents."""

from __future__ import annotations

from aiohttp import web

from otel_sessions.backend.api.parameters import limit_of
from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.api.shapes import JsonObject, hit_json
from otel_sessions.backend.replies import answer
from otel_sessions.backend.services import Services

__all__ = ["search"]


async def search(services: Services, request: web.Request) -> web.Response:
    """Find spans, newest first. Raises ProblemError (400) without a text, or for an unknown cursor."""
    text, limit = request.query.get("q", ""), limit_of(request.query)
    before = request.query.get("before") or None
    if not text.strip():
        raise ProblemError(400, "q is missing: say what to find, as in search?q=refund.", parameter="q")
    event_id = services.live.last_event_id()

    def read() -> JsonObject:
        try:
            hits, cursor = services.store.search(text, limit=limit, before=before)
        except ValueError as exc:
            raise ProblemError(400, str(exc), parameter="before") from exc
        return {"hits": [hit_json(hit) for hit in hits], "next": cursor, "event_id": event_id}

    return await answer(request, read)
