"""The endpoints of both APIs: parameters in, the store asked in a worker thread, answers or errors out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Final

from aiohttp import hdrs, web

from otel_sessions.backend.jaeger import parameters, traces
from otel_sessions.backend.jaeger.model import KINDS
from otel_sessions.backend.jaeger.parameters import ParameterError, Query, TraceSearch
from otel_sessions.backend.jaeger.v1 import JsonObject, error_json
from otel_sessions.backend.records import SpanRow
from otel_sessions.backend.replies import API_HEADERS, answer, encode
from otel_sessions.backend.services import Services
from otel_sessions.errors import BackendError

__all__ = ["routes"]

logger = logging.getLogger(__name__)

Endpoint = Callable[[Services, web.Request], Awaitable[web.StreamResponse]]
Envelope = Callable[[int, str], JsonObject]

SEARCHES_AT_ONCE: Final = 2
"""Worker threads are few, and a search by tags reads contents; it must not take all of them from others."""

_JSON: Final[dict[str, str]] = {hdrs.CONTENT_TYPE: "application/json"}
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})


def routes(services: Services) -> list[web.RouteDef]:
    """Return the routes of both APIs."""
    places = asyncio.Semaphore(SEARCHES_AT_ONCE)
    by_envelope: dict[Envelope, dict[str, Endpoint]] = {
        _envelope_v1: {
            "/jaeger/api/services": _services_v1,
            "/jaeger/api/services/{service:[^/]+}/operations": _operation_names_v1,
            "/jaeger/api/operations": _operations_v1,
            "/jaeger/api/traces": partial(_traces_v1, places),
            "/jaeger/api/traces/{trace_id}": _trace_v1,
            "/jaeger/api/dependencies": partial(_dependencies_v1, places),
        },
        _envelope_v3: {
            "/jaeger/api/v3/services": _services_v3,
            "/jaeger/api/v3/operations": _operations_v3,
            "/jaeger/api/v3/traces": partial(_traces_v3, places),
            "/jaeger/api/v3/traces/{trace_id}": _trace_v3,
        },
    }
    return [
        # No HEAD: a body that is made while it is sent can't be left out.
        web.get(path, partial(_enveloped, envelope, endpoint, services), allow_head=False)
        for envelope, endpoints in by_envelope.items()
        for path, endpoint in endpoints.items()
    ]


# --- Errors -----------------------------------------------------------------------------------------------


class _NotFoundError(Exception):
    """A trace is not stored."""


async def _enveloped(
    envelope: Envelope, endpoint: Endpoint, services: Services, request: web.Request
) -> web.StreamResponse:
    """Answer, errors in the form in which this API's clients expect them."""
    try:
        return await endpoint(services, request)
    except ParameterError as exc:
        return _failure(envelope(400, str(exc)), 400)
    except _NotFoundError:
        return _failure(envelope(404, traces.NOT_FOUND), 404)
    except web.HTTPServiceUnavailable as exc:  # too many documents on their way
        return _failure(envelope(503, exc.text or exc.reason), 503, exc.headers[hdrs.RETRY_AFTER])
    except BackendError as exc:
        if request.writer.output_size:
            raise  # an answer that is half sent can only be cut
        logger.error("%s failed", request.path, exc_info=exc)  # noqa: TRY400 - the same, with the path
        return _failure(envelope(503, str(exc)), 503)


def _envelope_v1(status: int, message: str) -> JsonObject:
    return _data(None, [error_json(message, code=status)])


def _envelope_v3(status: int, message: str) -> JsonObject:
    return {"error": {"httpCode": status, "message": message}}


def _failure(document: JsonObject, status: int, retry_after: str = "") -> web.Response:
    # As plain text, like Jaeger's own: what was asked is quoted in it.
    body = encode(document) + b"\n"
    headers = {**API_HEADERS, **({hdrs.RETRY_AFTER: retry_after} if retry_after else {})}
    return web.Response(status=status, body=body, content_type="text/plain", charset="utf-8", headers=headers)


def _query(request: web.Request) -> Query:
    return {name: request.query.getall(name) for name in request.query}


# --- API v1 -----------------------------------------------------------------------------------------------


def _data(data: object, errors: list[JsonObject] | None = None, *, total: int = 0) -> JsonObject:
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}


async def _services_v1(services: Services, request: web.Request) -> web.StreamResponse:
    """List services, which is also how Grafana checks the health of its data source."""

    def read() -> JsonObject:
        names = traces.services(services.store)
        return _data(names or None, total=len(names))

    return await answer(request, read)


async def _operation_names_v1(services: Services, request: web.Request) -> web.StreamResponse:
    """List the names of a service's spans, whatever their kinds."""

    def read() -> JsonObject:
        known = traces.operations(services.store, request.match_info["service"])
        names = list(dict.fromkeys(name for name, _ in known))
        return _data(names or None, total=len(names))

    return await answer(request, read)


async def _operations_v1(services: Services, request: web.Request) -> web.StreamResponse:
    """List names and kinds of a service's spans, or those of one kind."""
    service, kind = parameters.operations_v1(_query(request))

    def read() -> JsonObject:
        known = _operations(services, service, kind)
        return _data(known, total=len(known))

    return await answer(request, read)


async def _traces_v1(
    places: asyncio.Semaphore, services: Services, request: web.Request
) -> web.StreamResponse:
    """Send the traces of a search."""
    search = parameters.traces_v1(_query(request), services.clock.wall())
    found = await _found(places, services, search)
    rows = map(services.store.trace, found.traces)
    return await services.documents.send(request, traces.pieces_v1(services.store, rows, found.errors), _JSON)


async def _trace_v1(services: Services, request: web.Request) -> web.StreamResponse:
    """Send one trace, with `raw=true` as it came."""
    rows = _stored(services, parameters.trace_id_of(request.match_info["trace_id"]))
    raw = request.query.get("raw", "") in _TRUE
    return await services.documents.send(request, traces.pieces_v1(services.store, rows, raw=raw), _JSON)


async def _dependencies_v1(
    places: asyncio.Semaphore, services: Services, request: web.Request
) -> web.StreamResponse:
    """Count calls between services."""
    between = parameters.dependencies_range(_query(request), services.clock.wall())

    def read() -> JsonObject:
        links, complete = traces.calls(services.store, between, request.query.get("service", ""))
        errors = None if complete else [error_json("Not all spans were counted: there are too many.")]
        return _data(links, errors)

    async with places:
        return await answer(request, read)


# --- API v3 -----------------------------------------------------------------------------------------------


async def _services_v3(services: Services, request: web.Request) -> web.StreamResponse:
    """List services."""
    return await answer(request, lambda: {"services": traces.services(services.store)})


async def _operations_v3(services: Services, request: web.Request) -> web.StreamResponse:
    """List names and kinds of a service's spans, or those of one kind; what is empty is left out."""
    service, kind = parameters.operations_v3(_query(request))

    def read() -> JsonObject:
        known = _operations(services, service, kind)
        return {"operations": [{key: value for key, value in one.items() if value} for one in known]}

    return await answer(request, read)


async def _traces_v3(
    places: asyncio.Semaphore, services: Services, request: web.Request
) -> web.StreamResponse:
    """Send the traces of a search; one that was ended early is an error, for OTLP has no place to say so."""
    found = await _found(places, services, parameters.traces_v3(_query(request)))
    if not found.complete:
        return _failure(_envelope_v3(504, traces.ENDED_EARLY), 504)
    rows = map(services.store.trace, found.traces)
    return await services.documents.send(request, traces.pieces_v3(services.store, rows), _JSON)


async def _trace_v3(services: Services, request: web.Request) -> web.StreamResponse:
    """Send one trace."""
    try:
        trace_id = parameters.trace_id_of(request.match_info["trace_id"])
    except ParameterError as exc:
        raise parameters.malformed("trace_id", exc) from exc
    rows = _stored(services, trace_id)
    return await services.documents.send(request, traces.pieces_v3(services.store, rows), _JSON)


# --- Both -------------------------------------------------------------------------------------------------


def _operations(services: Services, service: str, kind: str) -> list[JsonObject]:
    known = traces.operations(services.store, service)
    named = [(name, KINDS[number] if 0 <= number < len(KINDS) else KINDS[0]) for name, number in known]
    return [{"name": name, "spanKind": word} for name, word in named if kind in ("", word)]


async def _found(places: asyncio.Semaphore, services: Services, search: TraceSearch) -> traces.Found:
    async with places:
        return await asyncio.to_thread(traces.found, services.store, search, time.monotonic)


def _stored(services: Services, trace_id: bytes) -> Iterator[Sequence[SpanRow]]:
    """Read the rows of a stored trace when they are wanted. Raises _NotFoundError for any other."""
    rows = services.store.trace(trace_id)
    if not rows:
        raise _NotFoundError
    yield rows
