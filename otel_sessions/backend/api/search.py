"""The search over all sessions: words, in any script, in names and contents; in pages, or streamed.

A long scan is cut into short ones, so that a reader sees at once what is found and how far it came, one
that goes away ends it, and no snapshot of the store is held for long. Scans cost what telemetry needs:
few are admitted, fewer run at the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp import hdrs, web

from otel_sessions.backend.api.parameters import filter_of, limit_of
from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.api.shapes import JsonObject, hit_json, progress_json
from otel_sessions.backend.filters import Filter
from otel_sessions.backend.replies import API_HEADERS, answer, encode
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import SearchPage, SearchQuery

__all__ = ["MAX_SCANS", "Searches"]

MAX_SCANS: Final = 4
"""Searches admitted at once; who comes then is asked to come again."""
RUNNING_AT_ONCE: Final = 2
"""Of these, how many read at the same moment: worker threads are few, and others need them too."""
FIRST_SLICE: Final = 0.05  # s: the first hits are shown at once
LAST_SLICE: Final = 0.5
PAGE_SECONDS: Final = 1.0  # of an answer that is not streamed
STALLED_SECONDS: Final = 60.0
RETRY_AFTER_SECONDS: Final = 1

_HEADERS: Final = {
    **API_HEADERS,
    hdrs.CONTENT_TYPE: "application/x-ndjson; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would hold lines back
}


class Searches:
    """The searches of one backend, no more than `MAX_SCANS` of them at once."""

    def __init__(self) -> None:
        self._open = 0
        self._turns = asyncio.Semaphore(RUNNING_AT_ONCE)

    async def page(self, services: Services, request: web.Request) -> web.StreamResponse:
        """Answer with what one second finds, and a cursor to go on.

        Raises ProblemError: 400 without words or for a wrong filter or cursor, 503 while too many search.
        """
        query = replace(_query(services, request), seconds=PAGE_SECONDS)
        event_id = services.live.last_event_id()
        async with self._place():
            page = await self._scan(services, query, partial(_is_gone, request))
        return await answer(
            request,
            lambda: {
                "hits": [hit_json(hit) for hit in page.hits],
                "next": page.next,
                "progress": progress_json(page),
                "event_id": event_id,
            },
        )

    async def stream(self, services: Services, request: web.Request) -> web.StreamResponse:
        """Tell each hit when it is found, how far the search came, and at the end where to go on.

        Ends when as many hits as asked for are found, all is read, or the reader goes away.
        """
        query = _query(services, request)
        event_id = services.live.last_event_id()
        async with self._place():
            pages = self._pages(services, query, partial(_is_gone, request))
            first = await anext(pages)  # a wrong cursor is a problem, not a broken stream
            response = web.StreamResponse(headers=_HEADERS)
            try:
                await response.prepare(request)
                await _send(response, first)
                page = first
                async for page in pages:
                    await _send(response, page)
                await _write(response, {"end": {"next": page.next, "event_id": event_id}})
            except (ConnectionError, asyncio.TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
        return response

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncGenerator[None]:
        if self._open >= MAX_SCANS:
            detail = f"{MAX_SCANS} searches are running, which is the most; try again in a moment."
            raise ProblemError(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _pages(
        self, services: Services, query: SearchQuery, is_gone: Callable[[], bool]
    ) -> AsyncIterator[SearchPage]:
        """Search slice by slice, the first a short one, until there is enough, no more, or nobody listens."""
        query = replace(query, seconds=FIRST_SLICE)
        while True:
            page = await self._scan(services, query, is_gone)
            yield page
            if page.next is None or len(page.hits) >= query.limit or is_gone():
                return
            query = replace(
                query,
                before=page.next,
                limit=query.limit - len(page.hits),
                seconds=min(2 * query.seconds, LAST_SLICE),
            )

    async def _scan(self, services: Services, query: SearchQuery, is_gone: Callable[[], bool]) -> SearchPage:
        """Search in a worker thread, which stops when the reader has gone away."""
        async with self._turns:
            return await asyncio.to_thread(_search, services, query, is_gone)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None


def _search(services: Services, query: SearchQuery, stopped: Callable[[], bool]) -> SearchPage:
    try:
        return services.store.search(query, stopped)
    except ValueError as exc:
        raise ProblemError(400, str(exc), parameter="before") from exc


def _query(services: Services, request: web.Request) -> SearchQuery:
    now = services.clock.wall()
    asked = filter_of(request.query, search=True).at(now)
    if not asked.words:
        detail = (
            "There is no word to find: add one, as in 'state:lost refund'. "
            "To filter sessions without one, use the list."
        )
        if not request.query.get("q", "").strip():
            detail = "q is missing: say what to find, as in search?q=refund."
        raise ProblemError(400, detail, parameter="q")
    return SearchQuery(
        words=asked.words,
        filter=Filter(conditions=asked.conditions),
        limit=limit_of(request.query),
        before=request.query.get("before") or None,
        idle_before=now - services.settings.idle_after,
    )


async def _send(response: web.StreamResponse, page: SearchPage) -> None:
    await _write(response, *({"hit": hit_json(hit)} for hit in page.hits), {"progress": progress_json(page)})


async def _write(response: web.StreamResponse, *lines: JsonObject) -> None:
    data = b"".join(encode(line) + b"\n" for line in lines)
    await asyncio.wait_for(response.write(data), STALLED_SECONDS)
