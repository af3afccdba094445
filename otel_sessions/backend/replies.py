"""From JSON-ready values to answers: encoded, compressed, read off the event loop; whole or in pieces.

Reading a store blocks and encoding 10,000 rows takes tens of milliseconds; both happen in a worker
thread, so that the loop stays free for those who send telemetry. Of a document that is sent in pieces no more
than one is in memory, whatever its size; one that breaks half way is cut, so that nobody takes a part for
the whole.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from aiohttp import hdrs, web

__all__ = ["API_HEADERS", "Documents", "accepts_gzip", "answer", "encode", "merged", "separated", "written"]

logger = logging.getLogger(__name__)

API_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}
"""On every answer of the API: it is hostile text from models and users, and private."""

COMPRESS_FROM_BYTES: Final = 1400  # what fits one packet gains nothing
COMPRESS_LEVEL: Final = 4
PIECE_BYTES: Final = 64 * 1024
DOCUMENTS: Final = 8
"""Documents on their way at once: each holds what it is made of, as long as its reader takes."""
MADE_AT_ONCE: Final = 2
"""Of these, how many are made at a time: every thread that runs Python makes the event loop wait."""
STALLED_SECONDS: Final = 60.0
RETRY_AFTER_SECONDS: Final = 2
_GZIP: Final = 31  # zlib's window bits for a gzip stream


def encode(value: Any) -> bytes:
    """Encode compactly; a lone surrogate becomes its JSON escape, since UTF-8 has no form for it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


async def answer(request: web.Request, read: Callable[[], Any]) -> web.Response:
    """Answer with the JSON of what `read` returns; it runs in a worker thread and may block."""
    return await _answered(request, partial(_read_and_encode, read))


async def written(request: web.Request, pieces: Callable[[], Iterator[bytes]]) -> web.Response:
    """Answer with JSON that is written in pieces; all of it runs in a worker thread and may block."""
    return await _answered(request, partial(_join, pieces))


async def _answered(request: web.Request, make: Callable[[bool], tuple[bytes, str | None]]) -> web.Response:
    body, encoding = await asyncio.to_thread(make, accepts_gzip(request))
    headers = {**API_HEADERS, "Vary": "Accept-Encoding"}
    if encoding is not None:
        headers["Content-Encoding"] = encoding
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)


def accepts_gzip(request: web.Request) -> bool:
    """Tell whether the reader takes gzip, by name or by `*`, and has not set its weight to 0."""
    weights: dict[str, float] = {}
    for part in ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, [])).split(","):
        coding, _, parameter = part.partition(";")
        weights[coding.strip().lower()] = _weight(parameter)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _read_and_encode(read: Callable[[], Any], zipped: bool) -> tuple[bytes, str | None]:
    body = encode(read())
    if zipped and len(body) >= COMPRESS_FROM_BYTES:
        return gzip.compress(body, COMPRESS_LEVEL, mtime=0), "gzip"
    return body, None


def _join(pieces: Callable[[], Iterator[bytes]], zipped: bool) -> tuple[bytes, str | None]:
    if zipped:
        return b"".join(_zipped(merged(pieces()))), "gzip"
    return b"".join(pieces()), None


class Documents:
    """Sends documents while they are made: a bounded number at once, and few that are made at a time."""

    def __init__(
        self,
        *,
        most: int = DOCUMENTS,
        made_at_once: int = MADE_AT_ONCE,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        self._free = most
        self._turns = asyncio.Semaphore(made_at_once)
        self._stalled_seconds = stalled_seconds

    async def send(
        self, request: web.Request, pieces: Iterator[bytes], headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Send one document; `pieces` runs in worker threads and may block.

        What it raises before its first piece goes on to the caller, who can still answer something else. A
        reader that takes nothing for a minute is cut off. Raises HTTPServiceUnavailable where there is no
        room for one more.
        """
        if not self._free:
            raise web.HTTPServiceUnavailable(
                text="Too many documents are being sent; try again in a moment.",
                headers={hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)},
            )
        self._free -= 1
        try:
            return await self._sent(request, pieces, headers)
        finally:
            self._free += 1

    async def _sent(
        self, request: web.Request, pieces: Iterator[bytes], headers: Mapping[str, str]
    ) -> web.StreamResponse:
        headers = {**API_HEADERS, **headers, hdrs.VARY: hdrs.ACCEPT_ENCODING}
        if accepts_gzip(request):
            headers[hdrs.CONTENT_ENCODING] = "gzip"
            pieces = _zipped(pieces)
        piece = await self._next(pieces)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            while piece is not None:
                await asyncio.wait_for(response.write(piece), self._stalled_seconds)
                piece = await self._next(pieces)
        except (ConnectionError, asyncio.TimeoutError):
            logger.debug("the reader of %s went, or takes nothing more", request.path)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _next(self, pieces: Iterator[bytes]) -> bytes | None:
        async with self._turns:
            return await asyncio.to_thread(next, pieces, None)


def separated(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Put a comma between the parts of a JSON array."""
    for number, part in enumerate(parts):
        yield b"," + part if number else part


def merged(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Gather small parts into pieces of some size."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    squeezer = zlib.compressobj(COMPRESS_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        if squeezed := squeezer.compress(piece):
            yield squeezed
    yield squeezer.flush()
