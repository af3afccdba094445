"""Who may send a gRPC message now: few at a time, for its size is known only when it is here.

Until its turn has come, a call holds what fits HTTP/2's window. A turn that lasts is taken away when others
wait, so that senders that trickle never keep out those that don't. Of those that wait, the connections come
first that have brought a message before; then the newest, since the oldest is the nearest to giving up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from otel_sessions.backend.ingest import BackPressureError
from otel_sessions.backend.receiver.answers import StalledError

__all__ = ["MOST_TURNS", "Turns"]

MOST_TURNS: Final = 8
"""Messages that are read at once, each of which may take the limit of one."""

SAFE_SECONDS: Final = 2.0
"""How long a message may take even if others wait."""

READ_SECONDS: Final = 60.0
"""How long it may take at all; exporters give up after ten (OTEL_EXPORTER_OTLP_TIMEOUT)."""

_SOON: Final = 0.01  # between two that are pushed out

WAIT_SECONDS: Final = 5.0
"""How long a call waits for its turn before it is told to come back."""

MOST_WAITING: Final = 4096
MOST_KNOWN: Final = 4096

_CROWDED: Final = "too many messages are being sent at once; send it again later"


class Turns:
    """Hands out turns to read a message each."""

    def __init__(self, most: int = MOST_TURNS) -> None:
        self._free = most
        self._waiting: dict[asyncio.Future[None], str] = {}  # by connection; the newest at the end
        self._reading: dict[asyncio.Task[bytes], float] = {}  # since when; the oldest first
        self._known: dict[str, None] = {}  # connections that have brought a message; the latest at the end
        self._push: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, peer: str) -> AsyncGenerator[None]:
        """Wait for a turn for a connection, and hold it in the block. Raises BackPressureError."""
        await self._enter(peer)
        try:
            yield
        finally:
            self._leave()

    async def read(self, message: Coroutine[Any, Any, bytes], peer: str) -> bytes:
        """Read a message within a turn. Raises what reading it raises, and StalledError."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(message)
        self._reading[task] = loop.time()
        try:
            await asyncio.wait({task}, timeout=READ_SECONDS)
            if not task.done() or task.cancelled():
                raise StalledError("the message came too slowly while others waited; send it again")
            self._know(peer)
            return task.result()
        finally:
            del self._reading[task]
            task.cancel()

    async def _enter(self, peer: str) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= MOST_WAITING:
            raise BackPressureError(_CROWDED)
        mine = asyncio.get_running_loop().create_future()
        self._waiting[mine] = peer
        self._arm()
        try:
            await asyncio.wait_for(mine, WAIT_SECONDS)
        except (asyncio.TimeoutError, asyncio.CancelledError) as error:
            if mine.done() and not mine.cancelled():
                self._leave()  # the turn came in the moment in which the sender went, or its time was over
            if isinstance(error, asyncio.CancelledError):
                raise
            raise BackPressureError(_CROWDED) from error
        finally:
            self._waiting.pop(mine, None)

    def _leave(self) -> None:
        while self._waiting:
            newest = reversed(self._waiting)
            known = (one for one in newest if self._waiting[one] in self._known)
            chosen = next(known, None) or next(reversed(self._waiting))
            del self._waiting[chosen]
            if not chosen.done():
                chosen.set_result(None)
                return
        self._free += 1

    def _know(self, peer: str) -> None:
        self._known.pop(peer, None)
        self._known[peer] = None
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _arm(self) -> None:
        """See to it that the oldest reader is looked at when its time is over."""
        loop = asyncio.get_running_loop()
        if self._push is None:
            oldest = next(iter(self._reading.values()), loop.time())
            self._push = loop.call_at(max(oldest + SAFE_SECONDS, loop.time() + _SOON), self._push_out)

    def _push_out(self) -> None:
        """Take the turn of whoever has read for the longest, once that is long enough, while others wait."""
        self._push = None
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        for task, since in self._reading.items():
            if now - since >= SAFE_SECONDS and not task.done():
                task.cancel()
                break
        self._arm()
