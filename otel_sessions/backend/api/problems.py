"""One shape for every error of the API and the pages: RFC 9457, told apart by status and named by request.

What goes wrong on the way to an answer is raised, as `ProblemError` by us and as aiohttp's own
exceptions by its router; `problem_middleware`, the outermost of all, turns both into
`application/problem+json`. It is also the server's one guard: what nobody foresaw is logged with the
request's id and answered 500. OTLP's own paths are left alone, they owe a `google.rpc.Status`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from otel_sessions.errors import BackendError

__all__ = ["OTLP_PREFIXES", "ProblemError", "no_session", "problem_middleware", "problem_response"]

logger = logging.getLogger(__name__)

OTLP_PREFIXES: Final = ("/v1/", "/v1development/")
"""Paths whose answers belong to OTLP, errors included."""

RETRY_AFTER_SECONDS: Final = 2
KEPT_HEADERS: Final = ("Allow", "Retry-After", "WWW-Authenticate")
FAILED: Final = "The server failed; its log has the details under this request_id."


class ProblemError(Exception):
    """A request that can't be answered as asked: the status, and in one sentence why and what to do.

    `members` become further members of the problem ("parameter", "allowed").
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


def no_session(ref: str) -> ProblemError:
    """Say that no session is stored under an id."""
    return ProblemError(
        404, f"No session is stored under {ref!r}; GET /api/v1/sessions lists those that are."
    )


def problem_response(
    request: web.Request,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> web.Response:
    """Build the problem document for one failed request; its id is also the header X-Request-Id."""
    request_id = secrets.token_hex(8)
    document = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": detail,
        "instance": request.raw_path,
        "request_id": request_id,
        **(members or {}),
    }
    return web.Response(
        status=status,
        body=json.dumps(document).encode(),
        content_type="application/problem+json",
        headers={
            "X-Request-Id": request_id,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **(headers or {}),
        },
    )


@web.middleware
async def problem_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every failure outside OTLP's paths as a problem."""
    if request.path.startswith(OTLP_PREFIXES):
        return await handler(request)
    try:
        return await handler(request)
    except ProblemError as problem:
        return problem_response(
            request, problem.status, problem.detail, headers=problem.headers, members=problem.members
        )
    except web.HTTPException as exc:
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        return _from_http_exception(request, exc)
    except BackendError as exc:
        if request.writer.output_size:
            raise
        return _logged(request, exc, 503, str(exc), {"Retry-After": str(RETRY_AFTER_SECONDS)})
    except Exception as exc:
        # A half-sent answer can only be cut: aiohttp does that, and logs it, when the exception goes on.
        if request.writer.output_size:
            raise
        return _logged(request, exc, 500, FAILED)


def _from_http_exception(request: web.Request, exc: web.HTTPException) -> web.Response:
    kept = {name: exc.headers[name] for name in KEPT_HEADERS if name in exc.headers}
    said = exc.text or ""
    detail = _router_detail(request, exc) if said == f"{exc.status}: {exc.reason}" else said
    return problem_response(request, exc.status, detail, headers=kept)


def _router_detail(request: web.Request, exc: web.HTTPException) -> str:
    if exc.status == HTTPStatus.NOT_FOUND:
        return f"Nothing lives at {request.path}; /api/v1/openapi.json lists what does."
    if isinstance(exc, web.HTTPMethodNotAllowed):
        return f"{exc.method} is not allowed here; allowed: {', '.join(sorted(exc.allowed_methods))}."
    return exc.reason


def _logged(
    request: web.Request, exc: Exception, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    response = problem_response(request, status, detail, headers=headers)
    request_id = response.headers["X-Request-Id"]
    logger.error("%s %s failed, request_id=%s", request.method, request.path, request_id, exc_info=exc)
    return response


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"
