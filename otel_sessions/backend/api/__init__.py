"""The API under /api/v1/: what is stored and what happens, as JSON and as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import web

from otel_sessions.backend.api import export, filters, pins, sessions, spans, status
from otel_sessions.backend.api.openapi import openapi_json
from otel_sessions.backend.api.search import Searches
from otel_sessions.backend.api.stream import Streams
from otel_sessions.backend.replies import answer
from otel_sessions.backend.services import Services

__all__ = ["routes"]

Endpoint = Callable[[Services, web.Request], Awaitable[web.StreamResponse]]


async def _openapi(_services: Services, request: web.Request) -> web.Response:
    return await answer(request, openapi_json)


_ID: Final = "{id:[^/]+}"  # any character but a slash, which comes percent-encoded
_ENDPOINTS: Final[dict[str, Endpoint]] = {
    "/api/v1/sessions": sessions.list_sessions,
    "/api/v1/filters": filters.list_fields,
    f"/api/v1/sessions/{_ID}": sessions.session,
    "/api/v1/spans/{trace_id}/{span_id}": spans.span,
    "/api/v1/status": status.status,
    "/api/v1/csrf": pins.csrf,
    "/api/v1/openapi.json": _openapi,
    "/healthz": status.healthz,
    "/readyz": status.readyz,
    "/metrics": status.metrics,
}
_LONG: Final[dict[str, Endpoint]] = {  # these read contents, not only indices
    f"/api/v1/sessions/{_ID}/transcript": sessions.transcript,
}

LONG_READS_AT_ONCE: Final = 2
"""Worker threads are few; whoever types into a search box must not take all of them from the others."""


def routes(services: Services) -> list[web.AbstractRouteDef]:
    """Return the routes of the API and of the probes."""
    places = asyncio.Semaphore(LONG_READS_AT_ONCE)
    searches = Searches()
    rows: Endpoint = sessions.Rows().answer
    streamed: dict[str, Endpoint] = {
        "/api/v1/search": searches.page,
        "/api/v1/search/stream": searches.stream,
        f"/api/v1/sessions/{_ID}/otlp": export.export_session,
        "/api/v1/stream": Streams().follow,
    }
    return [
        *(web.get(path, partial(_in_turn, places, endpoint, services)) for path, endpoint in _LONG.items()),
        *(web.get(path, partial(endpoint, services)) for path, endpoint in _ENDPOINTS.items()),
        web.get(f"/api/v1/sessions/{_ID}/rows", partial(rows, services)),
        web.put(f"/api/v1/sessions/{_ID}/pin", partial(pins.pin, services)),
        web.delete(f"/api/v1/sessions/{_ID}/pin", partial(pins.pin, services)),
        # No HEAD: a body that is made while it is sent can't be left out.
        *(
            web.get(path, partial(endpoint, services), allow_head=False)
            for path, endpoint in streamed.items()
        ),
    ]


async def _in_turn(
    places: asyncio.Semaphore, endpoint: Endpoint, services: Services, request: web.Request
) -> web.StreamResponse:
    async with places:
        if request.transport is None:  # left while it waited
            return web.Response(status=499)
        return await endpoint(services, request)
