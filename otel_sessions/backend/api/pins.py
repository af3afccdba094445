"""Pins: sessions that no retention removes; and the token by which a page may write."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from otel_sessions.backend.api.problems import ProblemError, no_session
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
    ref = request.match_info["id"]
    record = await asyncio.to_thread(services.store.record, ref)
    if record is None:
        raise no_session(ref)
    try:
        there = await services.ingest.between(
            lambda: services.store.pin(record.id, pinned=pinned), lambda _: None
        )
    except BackendError as error:
        raise ProblemError(503, str(error), headers={hdrs.RETRY_AFTER: "5"}) from error
    if not there:  # retention removed it meanwhile
        raise no_session(ref)
    return await answer(request, lambda: {"id": record.id, "pinned": pinned})
