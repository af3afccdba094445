"""What changes, as server-sent events: resumable at any event, bounded, silent only between two pings.

A reader holds a place in the feed's ring and nothing else, so one that does not read costs no memory;
the writing side waits for its socket. One whose socket takes nothing for `STALLED_SECONDS` is cut off,
and will resume where it was, or be told to load afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection
from dataclasses import replace
from typing import Final, cast

from aiohttp import hdrs, web

from otel_sessions.backend.api.parameters import filter_of, states_of
from otel_sessions.backend.api.problems import ProblemError, no_session
from otel_sessions.backend.api.shapes import JsonObject, ns, session_json, shown_state
from otel_sessions.backend.columns import delta, gathered
from otel_sessions.backend.filters import Filter, matches
from otel_sessions.backend.live import StreamEvent
from otel_sessions.backend.records import SessionRecord, SpanRow
from otel_sessions.backend.replies import API_HEADERS, encode
from otel_sessions.backend.services import Services

__all__ = ["MAX_STREAMS", "Streams"]

PING_SECONDS: Final = 15.0
STALLED_SECONDS: Final = 60.0
MAX_STREAMS: Final = 256
MAX_UNMATCHED: Final = 10_000  # ids remembered for one reader; beyond, some are told again
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
        query, states = filter_of(request.query), states_of(request.query)
        session = await _session_id(services, request.query.get("session"))
        if self._open >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} streams are open, which is the most; close one."
            raise ProblemError(503, detail, headers={"Retry-After": "15"})
        self._open += 1  # here and not at the first event: many may be admitted before that
        try:
            return await _follow(_Frames(services, query, states, session), request, after)
        finally:
            self._open -= 1


class _Frames:
    """What one reader is told: all sessions, or those that a filter and states leave, and one in any case."""

    def __init__(
        self, services: Services, query: Filter, states: tuple[str, ...], session: str | None
    ) -> None:
        self.services = services
        self.session = session
        self._query = query
        self._states = states
        self._unmatched: set[str] = set()  # who was said not to match, and is not said so again

    async def of(self, event: StreamEvent) -> bytes | None:
        """Return what is sent of an event, None where this reader need not know."""
        if event.name == "rows":
            session_id, rows = cast("tuple[str, Collection[SpanRow]]", event.data)
            if len(rows) > THREAD_FROM_ROWS:
                return await asyncio.to_thread(_rows_frame, event, session_id, rows)
            return _rows_frame(event, session_id, rows)
        if isinstance(event.data, SessionRecord):
            return self._session(event, event.data)
        return _encoded(event, {} if event.data is None else {"id": event.data})

    def _session(self, event: StreamEvent, record: SessionRecord) -> bytes | None:
        now = self.services.clock.wall()
        idle_before = now - self.services.settings.idle_after
        wanted = self._wants(record, now, idle_before)
        whole = b""
        if wanted or record.id == self.session:
            whole = _encoded(event, {**session_json(record, idle_before=idle_before), "now": ns(now)})
        if wanted:
            self._unmatched.discard(record.id)
            return whole
        if record.id in self._unmatched:
            return whole or None
        if len(self._unmatched) >= MAX_UNMATCHED:
            self._unmatched.clear()
        self._unmatched.add(record.id)
        return whole + _encoded(replace(event, name="unmatched"), {"id": record.id})

    def _wants(self, record: SessionRecord, now: int, idle_before: int) -> bool:
        state = shown_state(record, idle_before=idle_before)
        if self._states and state not in self._states:
            return False
        return not self._query or matches(self._query.at(now), replace(record, state=state))


async def _follow(frames: _Frames, request: web.Request, after: str | None) -> web.StreamResponse:
    response = web.StreamResponse(headers=_HEADERS)
    live = frames.services.live
    events = cast("AsyncGenerator[StreamEvent]", live.subscribe(after, frames.session))
    # Closed in this order: a generator that waits inside another can't be closed from outside.
    async with contextlib.aclosing(events), contextlib.aclosing(_with_pings(events)) as paced:
        try:
            await response.prepare(request)
            await response.write(b": connected\n\n")
            async for event in paced:
                frame = _PING if event is None else await frames.of(event)
                if frame is not None:
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


def _rows_frame(event: StreamEvent, session_id: str, rows: Collection[SpanRow]) -> bytes:
    return _framed(event, b"".join(delta(session_id, gathered(rows))))


def _encoded(event: StreamEvent, data: JsonObject) -> bytes:
    return _framed(event, encode(data))


def _framed(event: StreamEvent, data: bytes) -> bytes:
    # Compact JSON holds no line break, so one data line carries it.
    return f"id: {event.id}\nevent: {event.name}\ndata: ".encode() + data + b"\n\n"


def _cut_off(request: web.Request) -> None:
    """Drop the connection of a reader that went or takes nothing, with all that waits for it."""
    if request.transport is not None:
        request.transport.abort()
