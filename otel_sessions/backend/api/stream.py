"""What changes, as server-sent events: resumable at any event, bounded, silent only between two pings.

A reader holds a place in the feed's ring and nothing else, so one that does not read costs no memory;
the writing side waits for its socket. One whose socket takes nothing for `STALLED_SECONDS` is cut off,
and will resume where it was, or be told to load afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final, cast

from aiohttp import hdrs, web

from otel_sessions.backend.api.problems import ProblemError, no_session
from otel_sessions.backend.api.shapes import JsonObject, ns, session_json
from otel_sessions.backend.columns import delta
from otel_sessions.backend.live import StreamEvent
from otel_sessions.backend.records import SessionRecord, SpanRow
from otel_sessions.backend.replies import API_HEADERS, encode
from otel_sessions.backend.services import Services

__all__ = ["MAX_STREAMS", "Streams"]

PING_SECONDS: Final = 15.0
STALLED_SECONDS: Final = 60.0
MAX_STREAMS: Final = 256
THREAD_FROM_ROWS: Final = 500  # more rows than this are encoded off the loop

_PING: Final = b": ping\n\n"
_HEADERS: Final = {
    **API_HEADERS,
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


class Streams:
    """The streams of one backend, no more than `MAX_STREAMS` of them at once."""

    def __init__(self) -> None:
        self._open = 0

    async def follow(self, services: Services, request: web.Request) -> web.StreamResponse:
        """Follow what changes from a position on, until the reader goes or the backend stops."""
        after = request.headers.get("Last-Event-ID") or request.query.get("after") or None
        session = await _session_id(services, request.query.get("session"))
        if self._open >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} streams are open, which is the most; close one."
            raise ProblemError(503, detail, headers={"Retry-After": "15"})
        self._open += 1  # here and not at the first event: many may be admitted before that
        try:
            return await _follow(services, request, after, session)
        finally:
            self._open -= 1


async def _follow(
    services: Services, request: web.Request, after: str | None, session: str | None
) -> web.StreamResponse:
    response = web.StreamResponse(headers=_HEADERS)
    events = cast("AsyncGenerator[StreamEvent]", services.live.subscribe(after, session))
    # Closed in this order: a generator that waits inside another can't be closed from outside.
    async with contextlib.aclosing(events), contextlib.aclosing(_with_pings(events)) as paced:
        try:
            await response.prepare(request)
            await response.write(b": connected\n\n")
            async for event in paced:
                frame = _PING if event is None else await _frame(services, event)
                await asyncio.wait_for(response.write(frame), STALLED_SECONDS)
        except (ConnectionError, asyncio.TimeoutError):
            _cut_off(request)
    return response


async def _session_id(services: Services, ref: str | None) -> str | None:
    if not ref:
        return None
    detail = await asyncio.to_thread(services.store.session, ref)
    if detail is None:
        raise no_session(ref)
    return detail.session.id


async def _with_pings(events: AsyncGenerator[StreamEvent]) -> AsyncGenerator[StreamEvent | None]:
    """Iterate over events, and None where for a while there was none; ends with them."""
    upcoming = asyncio.ensure_future(_next(events))
    try:
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=PING_SECONDS)
            if not done:
                yield None
                continue
            event = upcoming.result()
            if event is None:
                return
            upcoming = asyncio.ensure_future(_next(events))
            yield event
    finally:
        upcoming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await upcoming


async def _next(events: AsyncGenerator[StreamEvent]) -> StreamEvent | None:
    return await anext(events, None)


async def _frame(services: Services, event: StreamEvent) -> bytes:
    if event.name == "rows":
        session_id, rows = cast("tuple[str, tuple[SpanRow, ...]]", event.data)
        if len(rows) > THREAD_FROM_ROWS:
            return await asyncio.to_thread(_rows_frame, event, session_id, rows)
        return _rows_frame(event, session_id, rows)
    return _encoded(event, _data(services, event))


def _data(services: Services, event: StreamEvent) -> JsonObject:
    if isinstance(event.data, SessionRecord):
        now = services.clock.wall()
        return {**session_json(event.data, idle_before=now - services.settings.idle_after), "now": ns(now)}
    return {} if event.data is None else {"id": event.data}


def _rows_frame(event: StreamEvent, session_id: str, rows: tuple[SpanRow, ...]) -> bytes:
    return _encoded(event, delta(session_id, rows))


def _encoded(event: StreamEvent, data: JsonObject) -> bytes:
    # Compact JSON holds no line break, so one data line carries it.
    return f"id: {event.id}\nevent: {event.name}\ndata: ".encode() + encode(data) + b"\n\n"


def _cut_off(request: web.Request) -> None:
    """Drop the connection of a reader that went or takes nothing, with all that waits for it."""
    if request.transport is not None:
        request.transport.abort()
