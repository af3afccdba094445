"""Errors as people see them in a browser: a plain page in place of a problem document.

It needs no other file, for whoever is turned away gets no stylesheet either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from otel_sessions.backend.web.pages import PAGE_HEADERS

__all__ = ["error_page_middleware"]

_NO_PAGES: Final = ("/api/", "/static/", "/v1/", "/v1development/", "/tempo/", "/jaeger/")
_KEPT: Final = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)


@web.middleware
async def error_page_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Show an error as a page to those who ask for HTML; all others get a problem from further out."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        for_people = "text/html" in request.headers.get(hdrs.ACCEPT, "")
        if exc.status < HTTPStatus.BAD_REQUEST or not for_people or request.path.startswith(_NO_PAGES):
            raise
        headers = {name: exc.headers[name] for name in _KEPT if name in exc.headers}
        return web.Response(
            status=exc.status,
            text=_page(exc),
            content_type="text/html",
            charset="utf-8",
            headers={**headers, **PAGE_HEADERS, "Cache-Control": "no-store"},
        )


def _page(exc: web.HTTPException) -> str:
    unsaid = f"{exc.status}: {exc.reason}"
    detail = "There is no such page." if exc.status == HTTPStatus.NOT_FOUND else exc.reason
    said = detail if exc.text in (None, unsaid) else exc.text
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(exc.reason)} - otel-sessions</title>
</head>
<body>
<main>
<h1>{escape(exc.reason)}</h1>
<p>{escape(said or detail)}</p>
<p><a href="/sessions">All sessions</a></p>
</main>
</body>
</html>
"""
