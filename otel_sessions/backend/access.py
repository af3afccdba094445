"""Who may speak to the backend: with a token set, nobody without it, whatever the protocol.

Exporters send it as `Authorization: Bearer TOKEN` or `x-otel-sessions-token: TOKEN`. A browser is opened
once with `?token=TOKEN` and from then on shows a cookie, which is derived from the token and no use
elsewhere. Probes tell nothing and are open.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["COOKIE", "OPEN_PATHS", "TOKEN_HEADER", "access_middleware", "metadata_bears"]

COOKIE: Final = "otel_sessions"
TOKEN_HEADER: Final = "x-otel-sessions-token"  # noqa: S105 - the name, not a token
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
COOKIE_SECONDS: Final = 30 * 24 * 3600


def access_middleware(token: str, turned_away: Callable[[str], None]) -> Middleware:
    """Make the middleware that lets nobody pass without the token; it tells the path of who did not."""
    cookie = _cookie_for(token)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS or _is_preflight(request):
            return await handler(request)
        if request.method == hdrs.METH_GET and "token" in request.query:
            if _same(request.query["token"], token):
                return _welcome(request, cookie)
        elif _headers_bear(request.headers, token) or _same(request.cookies.get(COOKIE, ""), cookie):
            return await handler(request)
        turned_away(request.path)
        _turn_away()

    return check


def metadata_bears(metadata: Iterable[tuple[str, Any]] | None, token: str) -> bool:
    """Tell whether the metadata of a gRPC call bears the token."""
    texts = {key: value for key, value in metadata or () if isinstance(value, str)}
    return _headers_bear(texts, token)


def _headers_bear(headers: Mapping[str, str], token: str) -> bool:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    own = headers.get(TOKEN_HEADER, "")
    return _same(own, token) or (scheme.lower() == "bearer" and _same(bearer.strip(), token))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _cookie_for(token: str) -> str:
    return hmac.new(token.encode(), b"otel-sessions page", hashlib.sha256).hexdigest()


def _is_preflight(request: web.Request) -> bool:
    """Tell whether a browser only asks what it may send; it shows no credentials with that."""
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _welcome(request: web.Request, cookie: str) -> web.Response:
    # One slash only: "//elsewhere" would lead to another server.
    target = "/" + str(request.rel_url.without_query_params("token")).lstrip("/")
    response = web.Response(status=303, headers={hdrs.LOCATION: target, "Referrer-Policy": "no-referrer"})
    response.set_cookie(COOKIE, cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="Strict", path="/")
    return response


def _turn_away() -> NoReturn:
    raise web.HTTPUnauthorized(
        text="This backend asks for its token: send 'Authorization: Bearer TOKEN', "
        "or open the page once with ?token=TOKEN.",
        headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
    )
