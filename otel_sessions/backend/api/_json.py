"""From JSON-ready values to answers: encoded, compressed and read off the event loop.

Reading a store blocks and encoding 10,000 rows takes tens of milliseconds; both happen in a worker
thread, so that the loop stays free for those who send telemetry.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs, web

__all__ = ["API_HEADERS", "accepts_gzip", "answer", "encode"]

API_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}
"""On every answer of the API: it is hostile text from models and users, and private."""

COMPRESS_FROM_BYTES: Final = 1400  # what fits one packet gains nothing
COMPRESS_LEVEL: Final = 4


def encode(value: Any) -> bytes:
    """Encode compactly; a lone surrogate becomes its JSON escape, since UTF-8 has no form for it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


async def answer(request: web.Request, read: Callable[[], Any]) -> web.Response:
    """Answer with the JSON of what `read` returns; it runs in a worker thread and may block."""
    zipped = accepts_gzip(request)
    body, encoding = await asyncio.to_thread(_read_and_encode, read, zipped)
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
