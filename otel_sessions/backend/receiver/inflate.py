"""Compressed bodies, inflated no further than the limit: a bomb costs what an honest body may cost."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final, Protocol

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

from otel_sessions.backend.aside import aside

__all__ = ["CODINGS", "MAX_MEMBERS", "BrokenBodyError", "Inflating", "TooLargeError", "inflate"]

INLINE_BYTES: Final = 256 * 1024
"""Bodies up to here are inflated in the event loop; what is or turns out greater goes to a thread."""


class BrokenBodyError(Exception):
    """The body is not what its Content-Encoding announces."""


class TooLargeError(Exception):
    """The body is over the limit, as sent or inflated."""


class _Inflater(Protocol):
    """What zlib's and zstd's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gzip() -> _Inflater:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _zlib() -> _Inflater:
    return zlib.decompressobj(zlib.MAX_WBITS)


def _raw_deflate() -> _Inflater:
    return zlib.decompressobj(-zlib.MAX_WBITS)


CODINGS: Final[dict[str, Callable[[], _Inflater]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _zlib,
    "zlib": _zlib,  # the Collector's name for it
    "zstd": ZstdDecompressor,
}
"""Content codings that are understood, beside identity."""

MAX_MEMBERS: Final = 1_000
"""Members or frames of one body; senders make one, or one for each flush."""

_WINDOW_BYTES: Final = 64 * 1024
"""What is fed at once: at the end of each member a decompressor copies what is left of it."""

_PIECE_BYTES: Final = 1024 * 1024


def inflate(body: bytes, coding: str, limit: int) -> bytes:
    """Return the body inflated, members or frames one after the other.

    Raises BrokenBodyError where it is not what `coding` says, TooLargeError beyond `limit` bytes.
    """
    try:
        return _inflate(body, CODINGS[coding], limit)
    except (zlib.error, ZstdError) as error:
        if CODINGS[coding] is not _zlib:
            raise BrokenBodyError(f"the body is no {coding}: {error}") from error
    try:  # some senders take "deflate" for what the word says, without the wrapper
        return _inflate(body, _raw_deflate, limit)
    except zlib.error as error:
        raise BrokenBodyError(f"the body is no {coding}: {error}") from error


def _inflate(body: bytes, make: Callable[[], _Inflater], limit: int) -> bytes:
    parts: list[bytes] = []
    size = at = members = 0
    inflater = make()
    while at < len(body):
        if inflater.eof:
            inflater = make()
            members += 1
            if members == MAX_MEMBERS:
                raise BrokenBodyError(f"the body has more than {MAX_MEMBERS} compressed members; send one")
        window = body[at : at + _WINDOW_BYTES]
        for part in _pieces(inflater, window):
            size += len(part)
            if size > limit:
                parts.clear()  # which the error would keep alive
                raise TooLargeError(f"the body inflates beyond {limit} bytes")
            parts.append(part)
        at += len(window) - len(inflater.unused_data)
    if body and not inflater.eof:
        raise BrokenBodyError("the body ends in the middle of its compressed data")
    return b"".join(parts)


def _pieces(inflater: _Inflater, window: bytes) -> Iterator[bytes]:
    """Feed a window and yield what comes of it, in pieces: a decompressor gathers twice what it returns."""
    while True:
        piece = inflater.decompress(window, _PIECE_BYTES)
        yield piece
        window = getattr(inflater, "unconsumed_tail", b"")  # zlib hands it back, zstd keeps it
        if inflater.eof or (len(piece) < _PIECE_BYTES and not window):
            return


class Inflating:
    """Inflates bodies up to a limit; large ones in threads of its own.

    Those are not the loop's threads, where slow reads of the API would hold telemetry up.
    """

    def __init__(self, threads: Executor, limit: int) -> None:
        self._threads = threads
        self._limit = limit

    async def inflate(self, body: bytes, coding: str) -> bytes:
        """Return the body inflated. Raises BrokenBodyError, TooLargeError."""
        if not body:
            return body
        if len(body) <= INLINE_BYTES:
            try:
                return inflate(body, coding, min(INLINE_BYTES, self._limit))
            except TooLargeError:
                pass  # for the loop, perhaps not for us
        return await aside(self._threads, lambda held: inflate(held, coding, self._limit), body)
