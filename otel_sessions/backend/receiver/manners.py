"""What OTLP owes a sender whatever is wrong: errors in its own encoding, and answers that pages may read.

A middleware around the paths of OTLP, outside of whatever else may turn a request away (a missing token, an
unknown path): to an exporter all of that has to look like OTLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from google.rpc.code_pb2 import Code

from otel_sessions.backend.origins import Origins
from otel_sessions.backend.receiver.answers import Refusal, encode, status_of
from otel_sessions.backend.records import Encoding

__all__ = ["CONTENT_TYPES", "encoding_of", "manners_middleware", "refuse"]

PREFIXES: Final = ("/v1/", "/v1development/")

CONTENT_TYPES: Final = {
    Encoding.PROTOBUF: "application/x-protobuf",
    Encoding.JSON: "application/json",
}
_MEDIA_TYPES: Final = {
    "application/x-protobuf": Encoding.PROTOBUF,
    "application/protobuf": Encoding.PROTOBUF,
    "application/json": Encoding.JSON,
}
_CODES: Final = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    405: Code.UNIMPLEMENTED,
    413: Code.RESOURCE_EXHAUSTED,
    415: Code.INVALID_ARGUMENT,
}
_KEPT_HEADERS: Final = (hdrs.ALLOW, hdrs.ACCEPT_ENCODING, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE)
_NOTHING_THERE: Final = "OTLP is taken at /v1/traces, /v1/logs and /v1/metrics; {} is none of them."
_PROFILES: Final = "Profiles are not taken: sessions are made of traces and logs."
_PREFLIGHT_SECONDS: Final = "7200"


def encoding_of(request: web.Request) -> Encoding | None:
    """Return the encoding that a request announces; None where it is none of OTLP's."""
    return _MEDIA_TYPES.get(request.content_type)  # aiohttp strips parameters and lowers the case


def refuse(
    refusal: Refusal, encoding: Encoding | None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with a google.rpc.Status in the request's encoding; with plain text where that is unknown."""
    kept = dict(headers or {})
    if refusal.retry_seconds is not None:
        kept[hdrs.RETRY_AFTER] = str(refusal.retry_seconds)
    if encoding is None:
        return web.Response(status=refusal.http, text=refusal.message + "\n", headers=kept)
    kept[hdrs.CONTENT_TYPE] = CONTENT_TYPES[encoding]
    return web.Response(status=refusal.http, body=encode(status_of(refusal), encoding), headers=kept)


def manners_middleware(origins: Origins) -> Middleware:
    """Make the middleware; pages of `origins` may send telemetry and read the answers."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(PREFIXES):
            return await handler(request)
        origin = request.headers.get(hdrs.ORIGIN)
        admitted = origin is None or origins.admit(origin)
        if request.method == hdrs.METH_OPTIONS:
            response: web.StreamResponse = _preflight(request, admitted=admitted)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = _as_status(request, error)
        if origin is not None and admitted:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
            response.headers[hdrs.VARY] = hdrs.ORIGIN
        return response

    return answer


def _preflight(request: web.Request, *, admitted: bool) -> web.Response:
    if not admitted:
        return web.Response(
            status=403,
            text=f"Pages of {request.headers[hdrs.ORIGIN]} may not send telemetry here; "
            "--otlp-origins names those that may.\n",
        )
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "Content-Type, Content-Encoding")
    return web.Response(
        status=204,
        headers={
            hdrs.ALLOW: hdrs.METH_POST,
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: hdrs.METH_POST,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: asked,
            hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
        },
    )


def _as_status(request: web.Request, error: web.HTTPException) -> web.Response:
    """Say in OTLP's way what was raised on the way: by the router, the guard of the token, the receiver."""
    message = error.text or error.reason
    if error.status == web.HTTPNotFound.status_code:
        profiles = request.path.startswith("/v1development/profiles")
        message = _PROFILES if profiles else _NOTHING_THERE.format(request.path)
    code = _CODES.get(error.status, Code.UNKNOWN)
    kept = {str(name): error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
    return refuse(Refusal("", error.status, code, message.strip()), encoding_of(request), kept)
