"""Compressed bodies, inflated no further than the limit: a bomb costs what an honest body may cost."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Final, Protocol

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

__all__ = ["CODINGS", "BrokenBodyError", "TooLargeError", "inflate"]


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
    size = 0
    while body:
        inflater = make()
        part = inflater.decompress(body, limit - size + 1)
        size += len(part)
        if size > limit:
            raise TooLargeError(f"the body inflates beyond {limit} bytes")
        if not inflater.eof:
            raise BrokenBodyError("the body ends in the middle of its compressed data")
        parts.append(part)
        body = inflater.unused_data
    return b"".join(parts)
