"""Pins: sessions that no retention removes; and the token by which a page may write."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.api.sessions import found
from otel_sessions.backend.replies import answer
from otel_sessions.backend.services import Services
from otel_sessions.errors import BackendError

__all__ = ["csrf", "pin"]


async def csrf(services: Services, request: web.Request) -> web.Response:
    """Tell the page the token that its writes have to bear; pages of others can't read the answer."""
    return await answer(request, lambda: {"token": services.csrf})


async def pin(services: Services, request: web.Request) -> web.Response:
    """Keep a session from retention (PUT), or no longer (DELETE). Raises ProblemError (404, 503)."""
    pinned = request.method == hdrs.METH_PUT
    detail = await asyncio.to_thread(found, services.store, request.match_info["id"])
    session_id = detail.session.id
    try:
        await services.ingest.between(lambda: services.store.pin(session_id, pinned=pinned), lambda _: None)
    except BackendError as error:
        raise ProblemError(503, str(error), headers={hdrs.RETRY_AFTER: "5"}) from error
    return await answer(request, lambda: {"id": session_id, "pinned": pinned})
