"""Who may send a gRPC message now: few at a time, for its size is known only when it is here.

Until its turn has come, a call holds what fits HTTP/2's window. A turn that lasts is taken away when others
wait, so that senders that trickle never keep out those that don't; and of those that wait the newest comes
first, since the oldest is the nearest to giving up.
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

WAIT_SECONDS: Final = 5.0
"""How long a call waits for its turn before it is told to come back."""

MOST_WAITING: Final = 4096


class Turns:
    """Hands out turns to read a message each."""

    def __init__(self, most: int = MOST_TURNS) -> None:
        self._free = most
        self._waiting: list[asyncio.Future[None]] = []  # the newest at the end
        self._reading: dict[asyncio.Task[bytes], float] = {}  # since when; the oldest first

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, and hold it in the block. Raises BackPressureError."""
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def read(self, message: Coroutine[Any, Any, bytes]) -> bytes:
        """Read a message within a turn. Raises what reading it raises, and StalledError."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(message)
        self._reading[task] = loop.time()
        try:
            await asyncio.wait({task}, timeout=READ_SECONDS)
            if not task.done() or task.cancelled():
                raise StalledError("the message came too slowly while others waited; send it again")
            return task.result()
        finally:
            del self._reading[task]
            task.cancel()

    async def _enter(self) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= MOST_WAITING:
            raise BackPressureError("too many messages are being sent at once; send it again later")
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        push = loop.call_later(self._until_pushed(loop.time()), self._push)
        try:
            await asyncio.wait_for(mine, WAIT_SECONDS)
        except asyncio.TimeoutError as error:
            raise BackPressureError(
                "too many messages are being sent at once; send it again later"
            ) from error
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._leave()  # the turn came in the moment in which the sender went
            raise
        finally:
            push.cancel()
            if mine in self._waiting:
                self._waiting.remove(mine)

    def _leave(self) -> None:
        while self._waiting:
            next_one = self._waiting.pop()
            if not next_one.done():
                next_one.set_result(None)
                return
        self._free += 1

    def _until_pushed(self, now: float) -> float:
        oldest = next(iter(self._reading.values()), now)
        return max(0.0, oldest + SAFE_SECONDS - now)

    def _push(self) -> None:
        """Take the turn of whoever has read for the longest, once that is long enough."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, since in self._reading.items():
            if now - since >= SAFE_SECONDS and not task.done():
                task.cancel()
                return
