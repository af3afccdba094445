"""Who may ask for pages and the API: names of this server only, and writes from its own pages only.

A page on a hostile site can point its own name at 127.0.0.1 (DNS rebinding) and would then read all
sessions as if it were ours; the Host header gives it away, for the browser still sends the hostile name.
An address in numbers can't be rebound, so those pass. OTLP's own paths take any name, since programs in
containers reach this server under names we don't know, and they only write. Probes pass too, and /metrics,
for the same reason: it tells sums and names of models, no content; who minds sets a token.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["guard_middleware", "host_is_ours", "origin_is_ours"]

_OPEN_PREFIXES: Final = ("/v1/", "/v1development/")
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


def guard_middleware(hosts: Collection[str]) -> Middleware:
    """Make the middleware that turns away foreign names (421) and writes from foreign pages (403).

    `hosts` are the names under which this server is known, beside localhost and addresses in numbers.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN_PATHS or request.path.startswith(_OPEN_PREFIXES):
            return await handler(request)
        host = request.headers.get(hdrs.HOST, "")
        if not host_is_ours(host, hosts):
            raise web.HTTPMisdirectedRequest(
                text=f"This server does not answer to the name {host!r}. "
                "Open it as localhost or by its address, or name it in --host-name."
            )
        if request.method not in _SAFE_METHODS and not origin_is_ours(request):
            raise web.HTTPForbidden(text="Writes are taken from this server's own pages only.")
        return await handler(request)

    return guard


def host_is_ours(header: str, hosts: Collection[str]) -> bool:
    """Tell whether a Host header names this server."""
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    if not name or "@" in header:
        return False
    name = name.rstrip(".")
    return name == "localhost" or name.endswith(".localhost") or _is_address(name) or name in hosts


def origin_is_ours(request: web.Request) -> bool:
    """Tell whether a write comes from a page of ours, or from no page at all (curl sends no Origin)."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get(hdrs.HOST, "").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
