"""Connections over HTTP: how many there may be, and how long one may say nothing or half of a request's head.

aiohttp waits for the head of a first request for ever, and accepts connections until the system has no more.
So each connection is watched from outside: a protocol in front of aiohttp's sees its bytes come, and a
middleware sees its requests begin and end. What is in the middle of a request is never closed here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["Connections", "most_connections"]

HEAD_SECONDS: Final = 20.0
"""How long the head of a request may take, from its first byte on."""

LAST_WORD_SECONDS: Final = 0.2
"""How long after the sender's end of a connection what it sent may take to become a request, and an answer to
be handed to the system."""

IDLE_SECONDS: Final = 600.0
"""How long a connection may say nothing; those who lose it open another without a word to their user."""

LOOK_SECONDS: Final = 1.0

_FILES_OF_OURS: Final = 256  # the database's, gRPC's own
_AT_LEAST: Final = 64
_UNKNOWN: Final = 8192


def most_connections() -> int:
    """Tell how many connections the open files of this process allow, half of them being gRPC's."""
    files = _UNKNOWN
    with contextlib.suppress(ImportError):  # Windows
        import resource  # noqa: PLC0415 - where there is one

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(_AT_LEAST, (files - _FILES_OF_OURS) // 2)


class Connections:
    """All connections of a server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._watched: dict[asyncio.BaseTransport, _Watched] = {}  # the oldest first
        self._look: asyncio.TimerHandle | None = None

    def protocols(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Wrap what makes the protocol of each connection."""
        return lambda: _Watched(make(), self)

    def middleware(self) -> Middleware:
        """Make the middleware that tells which connections are in the middle of a request."""

        @web.middleware
        async def tell(request: web.Request, handler: Handler) -> web.StreamResponse:
            watched = self._watched.get(request.transport) if request.transport else None
            if watched is None:
                return await handler(request)
            watched.begin(request)
            try:
                return await handler(request)
            finally:
                watched.end()

        return tell

    def start(self) -> None:
        """Begin to look after the connections, every second, in the event loop."""
        self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_after)

    def stop(self) -> None:
        """End looking."""
        if self._look is not None:
            self._look.cancel()

    def add(self, transport: asyncio.BaseTransport, watched: _Watched) -> None:
        """Note a new connection; where there are too many, one that is idle goes.

        One that never asked for anything, if there is one, else the one that was idle for the longest.
        """
        self._watched[transport] = watched
        if len(self._watched) > self._most:
            idle = [one for one in self._watched.values() if not one.busy and one is not watched]
            self._cut(min(idle, key=lambda one: (one.served, one.since), default=watched))

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection that is closed."""
        self._watched.pop(transport, None)

    def _cut(self, watched: _Watched) -> None:
        """Cut a connection and forget it at once: when many come in one go, as many have to leave."""
        if watched.transport is not None:
            self.remove(watched.transport)
            watched.transport.abort()

    def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for watched in list(self._watched.values()):
            if watched.is_over(now):
                self._cut(watched)
        self._look = loop.call_later(LOOK_SECONDS, self._look_after)


class _Watched(asyncio.Protocol):
    """The protocol of one connection, which passes everything on."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._request: web.Request | None = None
        self._ended = False  # by the other side
        self.served = False  # whether it ever brought a request
        self._head_since: float | None = None  # of a request that has not begun
        self.since = self._loop.time()  # of being idle
        self.pause_writing = inner.pause_writing
        self.resume_writing = inner.resume_writing

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._request is not None

    def begin(self, request: web.Request) -> None:
        """Note that a request begins."""
        self._request = request
        self.served = True
        self._head_since = None

    def end(self) -> None:
        """Note that a request was answered."""
        self._request = None
        self.since = self._loop.time()
        if self._ended:
            self._loop.call_later(LAST_WORD_SECONDS, self._part)

    def is_over(self, now: float) -> bool:
        """Tell whether the connection has been without a request for too long."""
        if self.busy:
            return False
        if self._head_since is not None and now - self._head_since > HEAD_SECONDS:
            return True
        return now - self.since > IDLE_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Watch from here on."""
        self.transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)
        self._connections.add(transport, self)

    def data_received(self, data: bytes) -> None:
        """Note when the head of a request begins."""
        if self._head_since is None and self._request is None:
            self._head_since = self._loop.time()
        self._inner.data_received(data)

    def eof_received(self) -> bool:
        """Keep the way back open for the answer to what came whole; asyncio would close it with the other."""
        self._ended = True
        self._loop.call_later(LAST_WORD_SECONDS, self._part)
        return True

    def _part(self) -> None:
        """Close the connection of who ended its side, unless an answer to what it sent is being made."""
        request = self._request
        waits = request is not None and request.method == hdrs.METH_POST and request.content.is_eof()
        if self.transport is not None and not waits:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no more."""
        if self.transport is not None:
            self._connections.remove(self.transport)
        self._inner.connection_lost(exc)
