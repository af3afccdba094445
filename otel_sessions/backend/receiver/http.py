"""OTLP over HTTP: `/v1/traces`, `/v1/logs`, `/v1/metrics`, in protobuf or JSON, plain or compressed.

The body is read as it comes, chunked or not, and refused at the limit, before and after inflation; the
server must leave `Content-Encoding` to us (`auto_decompress=False`), since it inflates without a bound.
The answer goes out only when the request is stored.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, hdrs, web

from otel_sessions.backend.ingest import Room
from otel_sessions.backend.receiver.answers import (
    StalledError,
    forget_bodies,
    refusal_for,
    success,
    too_large,
)
from otel_sessions.backend.receiver.inflate import CODINGS, BrokenBodyError, Inflating
from otel_sessions.backend.receiver.manners import CONTENT_TYPES, encoding_of, refuse
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.services import Services

__all__ = ["routes", "turned_away"]

logger = logging.getLogger(__name__)

PATHS: Final = {f"/v1/{signal.value}": signal for signal in Signal}

READING_BYTES: Final = 128 * 1024 * 1024
"""Bodies that are being read, all connections together; beyond, new ones are told to come back."""

STALLED_SECONDS: Final = 20.0
"""How long the next part of a body may take; whoever stops in the middle holds room that others need."""

SLOWEST_BYTES: Final = 8 * 1024
"""Bytes a second that a body must bring on average after its first STALLED_SECONDS: a modem does. Slower ones
hold their room for nothing, since exporters give up after ten seconds (OTEL_EXPORTER_OTLP_TIMEOUT)."""

_UTF8: Final = frozenset({"utf-8", "ascii"})


def routes(services: Services, inflating: Inflating) -> list[web.RouteDef]:
    """Return the routes that receive telemetry."""
    receiver = _HttpReceiver(services, inflating)
    return [web.route("*", path, receiver.handler(signal)) for path, signal in PATHS.items()]


def turned_away(services: Services) -> Callable[[str, str], None]:
    """Return what counts a request that came without the right token, by its path and the word for why."""
    tally = services.receivers["http"]

    def note(path: str, why: str) -> None:
        if path in PATHS:
            tally.note(PATHS[path], why)

    return note


class _HttpReceiver:
    def __init__(self, services: Services, inflating: Inflating) -> None:
        self._ingest = services.ingest
        self._inflating = inflating
        self._max_body = services.settings.max_body
        self._tally = services.receivers["http"]
        self._reading = Room(READING_BYTES)

    def handler(self, signal: Signal) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Make the handler of one signal's path."""

        async def handle(request: web.Request) -> web.Response:
            if request.method != hdrs.METH_POST:
                self._tally.note(signal, "method")
                raise web.HTTPMethodNotAllowed(request.method, ["POST"], text="Send telemetry with POST.")
            encoding = encoding_of(request)
            coding = _coding_of(request)
            if encoding is None or coding is None or not _is_utf8(request, encoding):
                self._tally.note(signal, "media_type")
                raise web.HTTPUnsupportedMediaType(text=_UNSUPPORTED, headers=_ACCEPTED)
            return await self._take(request, signal, encoding, coding)

        return handle

    async def _take(
        self, request: web.Request, signal: Signal, encoding: Encoding, coding: str
    ) -> web.Response:
        try:
            body = await self._read(request, coding)
            stored = await self._ingest.accept(signal, encoding, body)
        except (ConnectionError, asyncio.CancelledError):
            raise  # nobody is left to answer
        except Exception as error:  # noqa: BLE001 - the guard at the server's edge: the sender is owed a Status
            return self._refuse(error, signal, encoding)
        self._tally.note(signal, "partial" if stored.rejected else "stored")
        return web.Response(body=success(stored), headers={hdrs.CONTENT_TYPE: CONTENT_TYPES[encoding]})

    async def _read(self, request: web.Request, coding: str) -> bytes:
        """Read the whole body, inflated.

        Raises TooLargeError, BrokenBodyError, BackPressureError, StalledError.
        """
        if (request.content_length or 0) > self._max_body:
            raise too_large(self._max_body)
        pace = _Pace(request.content)
        parts: list[bytes] = []
        try:
            while part := await pace.next_part():
                self._reading.take(len(part))
                pace.taken += len(part)
                if pace.taken > self._max_body:
                    raise too_large(self._max_body)
                parts.append(part)
            body = b"".join(parts)
            return body if coding == _PLAIN else await self._inflating.inflate(body, coding)
        except web.RequestPayloadError as error:
            raise BrokenBodyError(f"the body can't be read: {error}") from error
        finally:
            self._reading.give(pace.taken)

    def _refuse(self, error: Exception, signal: Signal, encoding: Encoding) -> web.Response:
        refusal = refusal_for(error)
        self._tally.note(signal, refusal.word)
        if refusal.http == HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("a request could not be handled", exc_info=error)
        forget_bodies(error)
        response = refuse(refusal, encoding)
        if isinstance(error, StalledError):
            response.force_close()  # what may still come is the rest of a body, no request
        return response


class _Pace:
    """Reads a body part by part, as long as it comes at some speed."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._began = asyncio.get_running_loop().time()
        self.taken = 0

    async def next_part(self) -> bytes:
        """Return what came next, nothing at the end. Raises StalledError."""
        lasted = asyncio.get_running_loop().time() - self._began
        left = STALLED_SECONDS + self.taken / SLOWEST_BYTES - lasted
        try:
            return await asyncio.wait_for(self._content.readany(), min(left, STALLED_SECONDS))
        except asyncio.TimeoutError as error:
            raise StalledError(
                f"{self.taken} bytes of the body came in {lasted:.0f} seconds, then nothing; send it again"
            ) from error
        except ConnectionError as error:  # agents get killed: counted, but no error of ours
            raise StalledError("the connection was cut within the body") from error


_PLAIN: Final = "identity"
_ACCEPTED: Final = {hdrs.ACCEPT_ENCODING: ", ".join(CODINGS)}
_UNSUPPORTED: Final = (
    "Send application/x-protobuf or application/json (in UTF-8), "
    "plain or compressed with gzip, deflate or zstd."
)


def _coding_of(request: web.Request) -> str | None:
    """Return how the body is compressed, by its name here; None where it can't be read."""
    named = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ())).split(",")
    codings = [coding for name in named if (coding := name.strip().lower()) not in ("", _PLAIN)]
    if not codings:
        return _PLAIN
    return codings[0] if len(codings) == 1 and codings[0] in CODINGS else None


def _is_utf8(request: web.Request, encoding: Encoding) -> bool:
    """Tell whether the text of a body is in the one encoding that JSON has between programs."""
    if encoding is not Encoding.JSON or request.charset is None:
        return True
    try:
        return codecs.lookup(request.charset).name in _UTF8
    except (LookupError, ValueError):
        return False
