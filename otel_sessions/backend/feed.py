"""What changed, for whoever listens: a ring of numbered events that can be read from any point on.

One publisher and its readers live in one event loop. A reader owns nothing but its place in the ring,
so a slow one costs no memory: when the ring has passed it by, it is told to load afresh (`reset`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_sessions.backend.records import SessionRecord, SpanRow

__all__ = ["Feed", "News", "StreamEvent"]

RING_EVENTS: Final = 5_000
RING_BYTES: Final = 16 * 1024 * 1024
_DIGITS: Final = 19
_OF_ONE_SESSION: Final = frozenset({"rows", "reset"})  # told to those who follow that session

EventData = SessionRecord | tuple[str, Collection[SpanRow]] | str | None


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of the stream.

    `data` by `name`: `session` a SessionRecord, `rows` (session id, its changed rows), `gone` a session
    id, `reset` None: the reader missed something, or holds rows that moved away, and must load afresh.
    """

    id: str
    name: str
    data: EventData


class News(NamedTuple):
    """One thing to publish: the session it is about, and what it weighs in the ring, in bytes."""

    name: str
    session: str
    data: EventData
    size: int


class _Entry(NamedTuple):
    event: StreamEvent
    session: str
    size: int


class Feed:
    """A ring of events, bounded by count and bytes, and those who wait for the next."""

    def __init__(self, boot: str, *, max_events: int = RING_EVENTS, max_bytes: int = RING_BYTES) -> None:
        self._boot = boot
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: dict[int, _Entry] = {}  # by number, without gaps
        self._last = 0
        self._bytes = 0
        self._readers = 0
        self._closed = False
        self._more = asyncio.Event()

    @property
    def readers(self) -> int:
        """How many listen now."""
        return self._readers

    @property
    def published(self) -> int:
        """How many events were published since the start."""
        return self._last

    def last_event_id(self) -> str:
        """Return the id of the newest event: where a reader starts who reads the store now."""
        return self._id(self._last)

    def publish(self, news: Iterable[News]) -> None:
        """Append events, forget the oldest beyond the bounds, wake every reader."""
        for item in news:
            self._last += 1
            event = StreamEvent(self._id(self._last), item.name, item.data)
            self._entries[self._last] = _Entry(event, item.session, item.size)
            self._bytes += item.size
        self._trim()
        self._wake()

    def subscribe(self, after: str | None, session: str | None) -> AsyncIterator[StreamEvent]:
        """Iterate over events after the id `after`, or from this moment on; ends when the feed closes.

        Events of all sessions, but rows only of `session`.
        """
        return self._read(self._place(after), session)

    def close(self) -> None:
        """End every reader."""
        self._closed = True
        self._wake()

    async def _read(self, place: int | None, session: str | None) -> AsyncIterator[StreamEvent]:
        self._readers += 1
        try:
            while True:
                more = self._more
                if place is None or place < self._last - len(self._entries):
                    place = self._last
                    yield StreamEvent(self._id(place), "reset", None)
                    continue
                while place < self._last and (entry := self._entries.get(place + 1)) is not None:
                    place += 1
                    if _concerns(entry, session):
                        yield entry.event
                if place < self._last:
                    continue  # the ring moved on while the reader was busy
                if self._closed:
                    return
                await more.wait()
        finally:
            self._readers -= 1

    def _place(self, after: str | None) -> int | None:
        if after is None:
            return self._last
        boot, _, number = after.rpartition("-")
        if boot != self._boot or not (number.isascii() and number.isdigit()) or len(number) > _DIGITS:
            return None
        return int(number) if int(number) <= self._last else None

    def _id(self, number: int) -> str:
        return f"{self._boot}-{number}"

    def _trim(self) -> None:
        oldest = itertools.count(self._last - len(self._entries) + 1)
        while len(self._entries) > self._max_events or self._bytes > self._max_bytes:
            self._bytes -= self._entries.pop(next(oldest)).size

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()


def _concerns(entry: _Entry, session: str | None) -> bool:
    return entry.event.name not in _OF_ONE_SESSION or entry.session == session
