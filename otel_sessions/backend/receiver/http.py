"""OTLP over HTTP: `/v1/traces`, `/v1/logs`, `/v1/metrics`, in protobuf or JSON, plain or compressed.

The body is read as it comes, chunked or not, and refused at the limit, before and after inflation; the
server must leave `Content-Encoding` to us (`auto_decompress=False`), since it inflates without a bound.
The answer goes out only when the request is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, hdrs, web

from otel_sessions.backend.ingest import Room
from otel_sessions.backend.receiver.answers import (
    MAX_BODY_BYTES,
    Refusal,
    StalledError,
    encode,
    refusal_for,
    status_of,
    success,
)
from otel_sessions.backend.receiver.inflate import CODINGS, BrokenBodyError, TooLargeError, inflate
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.services import Services

__all__ = ["routes", "turned_away"]

logger = logging.getLogger(__name__)

PATHS: Final = {f"/v1/{signal.value}": signal for signal in Signal}

READING_BYTES: Final = 128 * 1024 * 1024
"""Bodies that are being read, all connections together; beyond, new ones are told to come back."""

STALLED_SECONDS: Final = 20.0
"""How long the next part of a body may take; whoever stops in the middle holds room that others need."""

INLINE_BYTES: Final = 256 * 1024
"""Bodies up to here are inflated in the event loop; what is or turns out greater goes to a thread."""

_MEDIA_TYPES: Final = {
    "application/x-protobuf": Encoding.PROTOBUF,
    "application/protobuf": Encoding.PROTOBUF,
    "application/json": Encoding.JSON,
}
_CONTENT_TYPES: Final = {
    Encoding.PROTOBUF: "application/x-protobuf",
    Encoding.JSON: "application/json",
}
_PREFLIGHT_SECONDS: Final = "7200"


def routes(services: Services, inflating: Executor) -> list[web.RouteDef]:
    """Return the routes that receive telemetry; large bodies are inflated in the threads of `inflating`.

    Those are not the loop's own threads, where slow reads of the API would hold telemetry up.
    """
    receiver = _HttpReceiver(services, inflating)
    return [web.route("*", path, receiver.handler(signal)) for path, signal in PATHS.items()]


def turned_away(services: Services) -> Callable[[str], None]:
    """Return what counts a request that came without the token, by its path."""
    tally = services.receivers["http"]

    def note(path: str) -> None:
        if path in PATHS:
            tally.note(PATHS[path], "unauthenticated")

    return note


class _HttpReceiver:
    def __init__(self, services: Services, inflating: Executor) -> None:
        self._ingest = services.ingest
        self._inflating = inflating
        self._tally = services.receivers["http"]
        self._reading = Room(READING_BYTES)

    def handler(self, signal: Signal) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Make the handler of one signal's path."""

        async def handle(request: web.Request) -> web.Response:
            response = await self._answer(request, signal)
            if hdrs.ORIGIN in request.headers:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
            return response

        return handle

    async def _answer(self, request: web.Request, signal: Signal) -> web.Response:
        if request.method == hdrs.METH_OPTIONS:
            return _preflight(request)
        if request.method != hdrs.METH_POST:
            self._tally.note(signal, "method")
            return web.Response(status=405, text="Send telemetry with POST.\n", headers={hdrs.ALLOW: "POST"})
        encoding = _MEDIA_TYPES.get(request.content_type)  # aiohttp strips parameters, lowers the case
        coding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() or "identity"
        if encoding is None or (coding != "identity" and coding not in CODINGS):
            self._tally.note(signal, "media_type")
            return web.Response(
                status=415, text=_UNSUPPORTED, headers={"Accept-Encoding": ", ".join(CODINGS)}
            )
        return await self._take(request, signal, encoding, coding)

    async def _take(
        self, request: web.Request, signal: Signal, encoding: Encoding, coding: str
    ) -> web.Response:
        try:
            body = await self._read(request, coding)
            stored = await self._ingest.accept(signal, encoding, body)
        except (ConnectionError, asyncio.CancelledError):
            raise  # nobody is left to answer
        except Exception as error:  # noqa: BLE001 - the guard at the server's edge: the sender is owed a Status
            refusal = refusal_for(error)
            self._tally.note(signal, refusal.word)
            return self._refuse(refusal, encoding, error)
        self._tally.note(signal, "partial" if stored.rejected else "stored")
        return web.Response(body=success(stored), headers={hdrs.CONTENT_TYPE: _CONTENT_TYPES[encoding]})

    async def _read(self, request: web.Request, coding: str) -> bytes:
        """Read the whole body, inflated.

        Raises TooLargeError, BrokenBodyError, BackPressureError, StalledError.
        """
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise _too_large()
        held = 0
        parts: list[bytes] = []
        try:
            while part := await _next_part(request.content):
                self._reading.take(len(part))
                held += len(part)
                if held > MAX_BODY_BYTES:
                    raise _too_large()
                parts.append(part)
            return await self._plain(b"".join(parts), coding)
        except web.RequestPayloadError as error:
            raise BrokenBodyError(f"the body can't be read: {error}") from error
        finally:
            self._reading.give(held)

    async def _plain(self, body: bytes, coding: str) -> bytes:
        if coding == "identity" or not body:
            return body
        if len(body) <= INLINE_BYTES:
            try:
                return inflate(body, coding, INLINE_BYTES)
            except TooLargeError:
                pass  # for the loop, perhaps not for us
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._inflating, inflate, body, coding, MAX_BODY_BYTES)

    def _refuse(self, refusal: Refusal, encoding: Encoding, error: Exception) -> web.Response:
        if refusal.http == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("a request could not be handled", exc_info=error)
        headers = {hdrs.CONTENT_TYPE: _CONTENT_TYPES[encoding]}
        if refusal.retry_seconds is not None:
            headers[hdrs.RETRY_AFTER] = str(refusal.retry_seconds)
        response = web.Response(
            status=refusal.http, body=encode(status_of(refusal), encoding), headers=headers
        )
        if isinstance(error, StalledError):
            response.force_close()  # what may still come is the rest of a body, no request
        return response


_UNSUPPORTED: Final = (
    "Send application/x-protobuf or application/json, plain or compressed with gzip, deflate or zstd.\n"
)


async def _next_part(content: StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(content.readany(), STALLED_SECONDS)
    except asyncio.TimeoutError as error:
        raise StalledError(f"nothing more of the body came for {STALLED_SECONDS:g} seconds") from error
    except ConnectionError as error:  # agents get killed: counted, but no error of ours
        raise StalledError("the connection was cut within the body") from error


def _too_large() -> TooLargeError:
    return TooLargeError(f"the body is larger than {MAX_BODY_BYTES} bytes; send smaller batches")


def _preflight(request: web.Request) -> web.Response:
    """Let pages of any origin send telemetry, as OTLP asks for: they can write here, never read."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "Content-Type, Content-Encoding")
    return web.Response(
        status=204,
        headers={
            hdrs.ALLOW: "POST",
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "POST",
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: asked,
            hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
        },
    )
