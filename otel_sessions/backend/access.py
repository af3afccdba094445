"""Who may speak to the backend, and what: with a token set, nobody without one, whatever the protocol.

Three rights, a token each: everything; reading alone (page, API, Jaeger's, metrics, stream); sending alone,
for agents that have no business in what others sent. Exporters send theirs as `Authorization: Bearer TOKEN`
or `x-otel-sessions-token: TOKEN`. A browser is opened once with `?token=TOKEN` and from then on shows a
cookie, which is derived from the token, bears its right, and is no use elsewhere. Probes tell nothing and are
open.
"""

from __future__ import annotations

import hashlib
import hmac
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn
from urllib.parse import quote

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from otel_sessions.backend.settings import Settings

__all__ = ["COOKIE", "FORBIDDEN", "OPEN_PATHS", "TOKEN_HEADER", "Access", "Right", "access_middleware"]

COOKIE: Final = "otel_sessions"
TOKEN_HEADER: Final = "x-otel-sessions-token"  # noqa: S105 - the name, not a token
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
COOKIE_SECONDS: Final = 30 * 24 * 3600

_OTLP: Final = ("/v1/", "/v1development/")
_IN_URLS: Final = string.punctuation.replace("\\", "")  # "%" too: it is encoded already
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class Right(str, Enum):
    """What a token is good for."""

    FULL = "full"
    READ = "read"
    SEND = "send"

    def allows(self, method: str, path: str) -> bool:
        """Tell whether a request may be made with it."""
        if path.startswith(_OTLP):
            return self is not Right.READ
        return self is Right.FULL or (self is Right.READ and method in _READING)


@dataclass(frozen=True, slots=True)
class Access:
    """The tokens of a backend; without any, everybody may do everything."""

    tokens: Mapping[str, Right]

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Return the tokens that a backend was told."""
        given = {
            settings.token: Right.FULL,
            settings.read_token: Right.READ,
            settings.send_token: Right.SEND,
        }
        return cls({token: right for token, right in given.items() if token is not None})

    def right_in(self, headers: Mapping[str, str]) -> Right | None:
        """Return what the headers of a request give a right to."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = (headers.get(TOKEN_HEADER, ""), bearer.strip() if scheme.lower() == "bearer" else "")
        return self._find(given, lambda token: token)

    def right_in_metadata(self, metadata: Iterable[tuple[str, Any]] | None) -> Right | None:
        """Return what the metadata of a gRPC call give a right to."""
        return self.right_in({key: value for key, value in metadata or () if isinstance(value, str)})

    def right_of(self, token: str) -> Right | None:
        """Return what a token gives a right to."""
        return self._find((token,), lambda known: known)

    def right_of_cookie(self, cookie: str) -> Right | None:
        """Return what the page's cookie gives a right to."""
        return self._find((cookie,), _cookie_for)

    def _find(self, given: Iterable[str], shown: Callable[[str], str]) -> Right | None:
        """Compare with every token, each time for as long: how long it takes tells nothing."""
        rights = [
            right
            for token, right in self.tokens.items()
            for one in given
            if hmac.compare_digest(one.encode("utf-8", "surrogateescape"), shown(token).encode())
        ]
        return rights[0] if rights else None


def access_middleware(access: Access, turned_away: Callable[[str, str], None]) -> Middleware:
    """Make the middleware that asks for tokens; `turned_away` is told the path, and a word for why."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS or _is_preflight(request):
            return await handler(request)
        by_query = request.method == hdrs.METH_GET and "token" in request.query
        if by_query:
            right = access.right_of(request.query["token"])
        else:
            right = access.right_in(request.headers) or _right_by_cookie(access, request)
        if right is None:
            turned_away(request.path, "unauthenticated")
            _ask()
        if not right.allows(request.method, request.path):
            turned_away(request.path, "forbidden")
            _forbid(right)
        return _welcome(request, _cookie_for(request.query["token"])) if by_query else await handler(request)

    return check


def _right_by_cookie(access: Access, request: web.Request) -> Right | None:
    """Return the page's right; none to send: what comes from another port here would bring the cookie too."""
    if request.path.startswith(_OTLP):
        return None
    return access.right_of_cookie(request.cookies.get(COOKIE, ""))


def _cookie_for(token: str) -> str:
    return hmac.new(token.encode(), b"otel-sessions page", hashlib.sha256).hexdigest()


def _is_preflight(request: web.Request) -> bool:
    """Tell whether a browser only asks what it may send; it shows no credentials with that."""
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _welcome(request: web.Request, cookie: str) -> web.Response:
    # One slash only: "//elsewhere" would lead to another server; browsers read "/\elsewhere" as the same.
    kept = quote(str(request.rel_url.without_query_params("token")), safe=_IN_URLS)
    target = "/" + kept.lstrip("/")
    response = web.Response(status=303, headers={hdrs.LOCATION: target, "Referrer-Policy": "no-referrer"})
    by_tls = request.headers.get("X-Forwarded-Proto", request.scheme).lower() == "https"
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="Strict",
        path="/",
        secure=by_tls,
    )
    return response


def _ask() -> NoReturn:
    raise web.HTTPUnauthorized(
        text="This backend asks for its token: send 'Authorization: Bearer TOKEN', "
        "or open the page once with ?token=TOKEN.",
        headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
    )


def _forbid(right: Right) -> NoReturn:
    raise web.HTTPForbidden(text=FORBIDDEN[right])


FORBIDDEN: Final = {
    Right.READ: "This token may only read: to send, show the backend's full token or that for sending.",
    Right.SEND: "This token may only send telemetry: to read, show the full token or that for reading.",
}
"""What somebody is told who has a token, but not for this; the full one is for everything."""
