"""Sessions: the list, one in detail, its rows, its transcript.

Every answer bears the position in the stream from before its read. What was committed before is in the
answer; what is committed later is in the stream after that position; what falls between is in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from otel_sessions.backend import columns as columns_of
from otel_sessions.backend.api.parameters import item_of, limit_of, revision_of, session_query
from otel_sessions.backend.api.problems import ProblemError, no_session
from otel_sessions.backend.api.shapes import JsonObject, detail_json, ns, session_json
from otel_sessions.backend.records import SessionDetail
from otel_sessions.backend.replies import answer, written
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import Store
from otel_sessions.backend.transcript import transcript as transcript_of
from otel_sessions.lifecycle import State

__all__ = ["Rows", "found", "list_sessions", "session", "transcript"]

LARGE: Final = 10_000
"""Spans from which on a session is large: its rows take a tenth of a second to make."""


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


class Rows:
    """The structure of sessions; of large ones one is made at a time.

    Each that is made takes some seconds of Python's lock, and some memory, from all others.
    """

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(1)

    async def answer(self, services: Services, request: web.Request) -> web.Response:
        """Show the structure of a session; with `after` only what changed since that revision."""
        ref, after = request.match_info["id"], revision_of(request.query)
        record = await asyncio.to_thread(services.store.record, ref)
        if record is None:
            raise no_session(ref)
        if after or record.spans <= LARGE:
            return await _rows(services, request, record.id, after)
        async with self._large:
            if request.transport is None:  # left while it waited
                return web.Response(status=499)
            return await _rows(services, request, record.id, after)


async def _rows(services: Services, request: web.Request, session_id: str, after: int | None) -> web.Response:
    event_id = services.live.last_event_id()

    def pieces() -> Iterator[bytes]:
        stored = services.store.columns(session_id, after)
        if after is None:
            return columns_of.full(session_id, stored, {"event_id": event_id})
        # Nothing new leaves the reader where it was.
        newest = max(stored.revision, after)
        return columns_of.delta(session_id, stored, {"revision": newest, "event_id": event_id})

    return await written(request, pieces)


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
