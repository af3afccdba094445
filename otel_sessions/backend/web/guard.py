"""Who may ask for pages and the API: names of this server only, and writes from its own pages only.

A page on a hostile site can point its own name at 127.0.0.1 (DNS rebinding) and would then read all
sessions as if it were ours; the Host header gives it away, for the browser still sends the hostile name.
An address in numbers can't be rebound, so those pass. OTLP's own paths take any name, since programs in
containers reach this server under names we don't know, and they only write. Probes pass too. /metrics takes
names that no public name server answers, as scrapers in containers use them, and with a token any: a rebound
page has none.

A write from a page has to bear `X-CSRF-Token` as well, on loopback too: the origin is what a browser says of
itself, the token what only a page that may read `/api/v1/csrf` can know. Programs send neither.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["CSRF_HEADER", "guard_middleware", "host_is_ours", "host_is_private", "origin_is_ours"]

_OPEN_PREFIXES: Final = ("/v1/", "/v1development/")
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
_METRICS: Final = "/metrics"
CSRF_HEADER: Final = "X-CSRF-Token"
_PRIVATE_SUFFIXES: Final = (".internal", ".local")  # reserved: ICANN 2024, RFC 6762
_SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


def guard_middleware(hosts: Collection[str], *, csrf: str, asks_for_token: bool = False) -> Middleware:
    """Make the middleware that turns away foreign names (421) and writes from foreign pages (403).

    `hosts` are the names under which this server is known, beside localhost and addresses in numbers;
    `csrf` is the token of its own pages.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN_PATHS or request.path.startswith(_OPEN_PREFIXES):
            return await handler(request)
        host = request.headers.get(hdrs.HOST, "")
        if request.path == _METRICS and (asks_for_token or host_is_private(host)):
            return await handler(request)
        if not host_is_ours(host, hosts):
            raise web.HTTPMisdirectedRequest(
                text=f"This server does not answer to the name {host!r}. "
                "Open it as localhost or by its address, or name it in --host-name."
            )
        if request.method not in _SAFE_METHODS and not origin_is_ours(request):
            raise web.HTTPForbidden(text="Writes are taken from this server's own pages only.")
        if request.method not in _SAFE_METHODS and _comes_from_a_page(request) and not _knows(request, csrf):
            raise web.HTTPForbidden(
                text=f"A page that writes has to bear {CSRF_HEADER}, from /api/v1/csrf; this one has none, "
                "or that of an earlier start. Reload the page."
            )
        return await handler(request)

    return guard


def host_is_ours(header: str, hosts: Collection[str]) -> bool:
    """Tell whether a Host header names this server."""
    name = _name_in(header)
    return bool(name) and (
        name == "localhost" or name.endswith(".localhost") or _is_address(name) or name in hosts
    )


def host_is_private(header: str) -> bool:
    """Tell whether a Host header has a name that nobody outside of this network can give an address."""
    name = _name_in(header)
    return bool(name) and ("." not in name or name.endswith(_PRIVATE_SUFFIXES))


def _name_in(header: str) -> str:
    """Return the name without port and final dot; nothing for what is no Host header."""
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return ""
    return name.rstrip(".") if name and "@" not in header else ""


def origin_is_ours(request: web.Request) -> bool:
    """Tell whether a write comes from a page of ours, or from no page at all (curl sends no Origin)."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get(hdrs.HOST, "").lower()


def _comes_from_a_page(request: web.Request) -> bool:
    """Tell whether a browser sends it: programs have no origin, and show a token instead of a cookie."""
    return any(name in request.headers for name in (hdrs.ORIGIN, "Sec-Fetch-Site", hdrs.COOKIE))


def _knows(request: web.Request, csrf: str) -> bool:
    given = request.headers.get(CSRF_HEADER, "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), csrf.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
