"""The page shell and the page's files.

Every address of the page answers with the same HTML: a skeleton that is painted at once, the twin of the
page in JSON as `rel="alternate"`, and the modules, all named in the head so that they load side by side.
What is shown in it is fetched by the page's own code from `/api/v1/`; the HTML holds no user's data.
"""

from __future__ import annotations

from html import escape
from typing import Final

from aiohttp import hdrs, web

from otel_sessions._version import __version__
from otel_sessions.backend.web.assets import ENTRY_POINT, Asset, Assets

__all__ = ["PAGE_HEADERS", "PAGE_PATHS", "page_routes", "shell"]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

PAGE_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

PAGE_PATHS: Final = {
    "/sessions": "Sessions",
    "/sessions/{id:[^/]+}": "Session",
    "/spans/{trace_id:[^/]+}/{span_id:[^/]+}": "Span",
    "/search": "Search",
    "/status": "Status",
}
"""Every address of the page, with the title it has until its data is there."""

_FOREVER: Final = "public, max-age=31536000, immutable"
_STYLESHEET: Final = "css/app.css"
_ICON: Final = "icon.svg"


def page_routes(assets: Assets) -> list[web.AbstractRouteDef]:
    """Return the routes of all pages and of their files."""

    def page(path: str, title: str) -> web.RouteDef:
        async def handle(request: web.Request) -> web.Response:
            return _html(shell(assets, title, twin=f"/api/v1{request.raw_path}"))

        return web.get(path, handle)

    async def static(request: web.Request) -> web.Response:
        return _file(request, assets)

    return [
        web.get("/", _home),
        *(page(path, title) for path, title in PAGE_PATHS.items()),
        web.get("/static/{hash}/{path:.+}", static),
        web.get("/favicon.ico", _no_icon),
    ]


def shell(assets: Assets, title: str, twin: str) -> str:
    """Write the HTML of a page: head, bar and skeleton; the main module fills `#app`."""
    preload = "\n".join(f'<link rel="modulepreload" href="{assets.url(path)}">' for path in assets.preload)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="otel-sessions {escape(__version__)}">
<title>{escape(title)} - otel-sessions</title>
<link rel="icon" type="image/svg+xml" href="{assets.url(_ICON)}">
<link rel="stylesheet" href="{assets.url(_STYLESHEET)}">
<link rel="alternate" type="application/json" href="{escape(twin)}">
{preload}
<script type="module" src="{assets.url(ENTRY_POINT)}"></script>
</head>
<body>
<div id="app">{_SKELETON}</div>
<noscript>
<p>This page is drawn by JavaScript, which is switched off here.
The same data is served as JSON: <a href="{escape(twin)}">{escape(twin)}</a>.</p>
</noscript>
</body>
</html>
"""


_SKELETON: Final = """
<header class="bar"><a class="brand" href="/sessions"><i></i>otel-sessions</a><nav aria-label="Pages">
<a href="/sessions">Sessions</a><a href="/search">Search</a><a href="/status">Status</a></nav></header>
<main aria-busy="true"><p class="visually-hidden" role="status">Loading</p>
<div class="skeleton" aria-hidden="true"><i></i><i></i><i></i><i></i><i></i><i></i><i></i><i></i></div></main>
"""


async def _home(_request: web.Request) -> web.Response:
    return web.Response(status=302, headers={**PAGE_HEADERS, hdrs.LOCATION: "/sessions"})


async def _no_icon(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers={**PAGE_HEADERS, "Cache-Control": _FOREVER})


def _html(text: str) -> web.Response:
    headers = {**PAGE_HEADERS, "Cache-Control": "no-cache"}
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)


def _file(request: web.Request, assets: Assets) -> web.Response:
    if request.match_info["hash"] != assets.hash:
        raise web.HTTPNotFound(text="This file is of another version of the page; reload the page.")
    asset = assets.files.get(request.match_info["path"])
    if asset is None:
        raise web.HTTPNotFound
    return _asset_response(asset, zipped="gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower())


def _asset_response(asset: Asset, *, zipped: bool) -> web.Response:
    headers = {
        **PAGE_HEADERS,
        "Cache-Control": _FOREVER,
        "Vary": "Accept-Encoding",
        hdrs.CONTENT_TYPE: asset.media_type,
    }
    if zipped and asset.zipped is not None:
        return web.Response(body=asset.zipped, headers={**headers, hdrs.CONTENT_ENCODING: "gzip"})
    return web.Response(body=asset.body, headers=headers)
