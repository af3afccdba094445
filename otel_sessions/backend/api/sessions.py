"""Sessions: the list, one in detail, its rows, its transcript.

Every answer bears the position in the stream from before its read. What was committed before is in the
answer; what is committed later is in the stream after that position; what falls between is in both.
"""

from __future__ import annotations

from aiohttp import web

from otel_sessions.backend import columns as columns_of
from otel_sessions.backend.api.parameters import item_of, limit_of, revision_of, session_query
from otel_sessions.backend.api.problems import ProblemError, no_session
from otel_sessions.backend.api.shapes import JsonObject, detail_json, ns, session_json
from otel_sessions.backend.records import SessionDetail
from otel_sessions.backend.replies import answer
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import Store
from otel_sessions.backend.transcript import transcript as transcript_of
from otel_sessions.lifecycle import State

__all__ = ["found", "list_sessions", "rows", "session", "transcript"]


def found(store: Store, ref: str) -> SessionDetail:
    """Read a session by our id or by a unique session id. Raises ProblemError (404)."""
    detail = store.session(ref)
    if detail is None:
        raise no_session(ref)
    return detail


async def list_sessions(services: Services, request: web.Request) -> web.Response:
    """List sessions, newest first. Raises ProblemError (400) for a filter without meaning."""
    now = services.clock.wall()
    idle_before = now - services.settings.idle_after
    query = session_query(request.query, now=now, idle_before=idle_before)
    event_id = services.live.last_event_id()

    def read() -> JsonObject:
        try:
            page = services.store.sessions(query)
        except ValueError as exc:
            raise ProblemError(400, str(exc)) from exc
        counts = services.store.totals(idle_before=idle_before).sessions_by_state
        return {
            "sessions": [session_json(record, idle_before=idle_before) for record in page.sessions],
            "next": page.next,
            "event_id": event_id,
            "now": ns(now),
            "counts": {state.value: counts.get(state.value, 0) for state in State},
        }

    return await answer(request, read)


async def session(services: Services, request: web.Request) -> web.Response:
    """Show one session in detail."""
    ref = request.match_info["id"]
    event_id, now = services.live.last_event_id(), services.clock.wall()

    def read() -> JsonObject:
        detail = found(services.store, ref)
        shown = detail_json(detail, idle_before=now - services.settings.idle_after)
        return {**shown, "event_id": event_id, "now": ns(now)}

    return await answer(request, read)


async def rows(services: Services, request: web.Request) -> web.Response:
    """Show the structure of a session; with `after` only what changed since that revision."""
    ref, after = request.match_info["id"], revision_of(request.query)
    event_id = services.live.last_event_id()

    def read() -> JsonObject:
        session_id = found(services.store, ref).session.id
        stored = services.store.rows(session_id, after)
        columns = (
            columns_of.full(session_id, stored) if after is None else columns_of.delta(session_id, stored)
        )
        # Nothing new leaves the reader where it was.
        return {**columns, "revision": max(columns["revision"], after or 0), "event_id": event_id}

    return await answer(request, read)


async def transcript(services: Services, request: web.Request) -> web.Response:
    """Show a page of what was said and done. Raises ProblemError (400) for an unknown cursor.

    The cursor counts items. While a session goes on, a span that arrives late may put an item before it.
    """
    ref, limit = request.match_info["id"], limit_of(request.query)
    start = item_of(request.query)
    event_id = services.live.last_event_id()

    def read() -> JsonObject:
        session_id = found(services.store, ref).session.id
        items = transcript_of(services.store.spans(session_id), services.store.logs(session_id))
        end = start + limit
        return {
            "items": items[start:end],
            "next": str(end) if end < len(items) else None,
            "event_id": event_id,
        }

    return await answer(request, read)
