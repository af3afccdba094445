"""Errors as people see them in a browser: a plain page in place of a problem document.

It looks as the others do and needs no other file, for whoever is turned away gets no stylesheet either. So
the style lies in the page, and the content security policy names it by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from html import escape
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from otel_sessions.backend.web.pages import PAGE_HEADERS

__all__ = ["error_page_middleware"]

_NO_PAGES: Final = ("/api/", "/static/", "/v1/", "/v1development/", "/tempo/", "/jaeger/")
_KEPT: Final = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)

# Tokens and measures of app.css, as many as one card needs.
_STYLE: Final = """
:root { color-scheme: light dark;
  --surface: light-dark(#ffffff, #1a1c1f); --line: light-dark(#e4e4df, #2c3036);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
* { box-sizing: border-box; }
body { margin: 0; background: light-dark(#f7f7f5, #131416); color: light-dark(#1d1f23, #e7e8ea); }
header { padding: 16px 20px; background: var(--surface); border-block-end: 1px solid var(--line);
  font-weight: 650; display: flex; gap: 8px; align-items: center; }
header i { inline-size: 14px; block-size: 14px; border-radius: 4px;
  background: linear-gradient(135deg, light-dark(#6d3fc4, #b79cff), light-dark(#2563eb, #7fb0ff)); }
main { max-inline-size: 560px; margin: 64px auto; padding: 24px; border-radius: 8px; overflow-wrap: anywhere;
  background: var(--surface); border: 1px solid var(--line); }
h1 { font-size: 18px; margin: 0 0 8px; }
h1 i { color: light-dark(#b3261e, #ff8a80); font-style: normal; }
p { margin: 0 0 12px; color: light-dark(#565a61, #a6adb6); }
a { color: light-dark(#2f48d8, #9fb0ff); }
form { display: flex; gap: 8px; margin: 0 0 12px; }
input, button { font: inherit; color: inherit; padding: 6px 10px; border-radius: 6px;
  border: 1px solid var(--line); background: light-dark(#fbfbfa, #202327); }
input { flex: 1; min-inline-size: 0; }
button { cursor: pointer; }
:focus-visible { outline: 2px solid light-dark(#3d5afe, #8fa2ff); outline-offset: 1px; }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = "Content-Security-Policy"
_HEADERS: Final = {
    **PAGE_HEADERS,
    _POLICY: PAGE_HEADERS[_POLICY].replace("style-src 'self'", f"style-src 'sha256-{_HASH}'"),
}

_SIGN_IN: Final = """<form method="get">
<input type="password" name="token" required autofocus autocomplete="current-password" aria-label="Token">
<button>Open</button>
</form>
"""


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
            headers={**headers, **_HEADERS, "Cache-Control": "no-store"},
        )


def _page(exc: web.HTTPException) -> str:
    unsaid = f"{exc.status}: {exc.reason}"
    detail = "There is no such page." if exc.status == HTTPStatus.NOT_FOUND else exc.reason
    said = detail if exc.text in (None, unsaid) else exc.text
    form = _SIGN_IN if exc.status == HTTPStatus.UNAUTHORIZED else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(exc.reason)} - otel-sessions</title>
<style>{_STYLE}</style>
</head>
<body>
<header><i aria-hidden="true"></i>otel-sessions</header>
<main>
<h1><i aria-hidden="true">!</i> {escape(exc.reason)}</h1>
<p>{escape(said or detail)}</p>
{form}<p><a href="/sessions">All sessions</a></p>
</main>
</body>
</html>
"""
