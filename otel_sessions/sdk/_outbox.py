"""What waits to be sent, what goes into the next request, and what follows from its answer.

Used by the sender's thread alone; no thread, socket or clock in here (`now` is monotonic time in ns).
Events leave in the order in which they came and stay until the target took or refused them. Heartbeats
are made for the request they travel in and forgotten with it: the next one says more than an old one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from otel_sessions import semconv
from otel_sessions.sdk._answer import Answer, Verdict
from otel_sessions.sdk._events import Event

__all__ = ["Batch", "Outbox", "Pacing", "Tally", "Work"]

SECOND: Final = 1_000_000_000
_FRAME: Final = 8
"""Bytes around each record in a request, at most."""


class Work(Protocol):
    """What the sender's thread does for the runs, beside sending."""

    def tick(self, now: int) -> int:
        """Do what is due at `now`; return when something is due again."""
        ...

    def accompany(self, event: Event) -> Event | None:
        """Return the first heartbeat of the run that `event` announces; from now on it may have others."""
        ...

    def beats(self) -> Iterator[Event]:
        """Make the heartbeats that are due, one by one."""
        ...

    def beat_again(self, at: int) -> None:
        """Make all heartbeats anew at `at`: the last ones were not taken."""
        ...


@dataclass(frozen=True, slots=True)
class Pacing:
    """How long to wait after a failure, in seconds: from `first`, doubled each time, up to `longest`.

    `obeyed` bounds what a target may ask for with Retry-After: who waits longer than his lease is taken
    for lost.
    """

    first: float = 0.25
    longest: float = 5.0
    obeyed: float = 60.0

    def pause(self, failures: int, retry_after: float | None, jitter: float) -> float:
        """Return the pause after the n-th failure in a row; `jitter` is from [0, 1)."""
        if retry_after is not None:
            return min(retry_after, self.obeyed)
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 16)) * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class Batch:
    """One request: `events` from the head of the queue and `beats` heartbeats, as encoded `records`.

    `unfit` of the events could not be encoded and are lost when the others have left.
    """

    events: int
    beats: int
    unfit: int
    records: tuple[Any, ...]


@dataclass(slots=True)
class _Cargo:
    """A request in the making; it is full a little beyond `limit` bytes, for a record is never split."""

    limit: int
    events: int = 0
    beats: int = 0
    unfit: int = 0
    size: int = 0
    records: list[Any] = field(default_factory=list[Any])

    @property
    def full(self) -> bool:
        return self.size >= self.limit

    def load(self, record: Any) -> bool:
        """Take a record; False if there is none."""
        if record is None:
            return False
        self.records.append(record)
        self.size += record.ByteSize() + _FRAME
        return True


@dataclass(slots=True)
class Tally:
    """What became of the records so far; written by the sender's thread, read by any."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    unsent_beats: int = 0
    answering: bool | None = None
    stopped: str | None = None
    last_error: str | None = None


class Outbox:
    """The queue of events, with the rules of retrying."""

    def __init__(
        self,
        work: Work,
        encode: Callable[[Event], Any],
        *,
        limit: int,
        request_bytes: int,
        pacing: Pacing,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`encode` returns a protobuf message, or None for an event that can't be encoded."""
        self.work = work
        self._encode = encode
        self._limit = limit
        self._request_bytes = request_bytes
        self._pacing = pacing
        self._jitter = jitter
        self._pending: deque[tuple[int, Event]] = deque()
        self._added = 0
        self._failures = 0
        self._told_to_wait = False
        self.not_before = 0
        self.tally = Tally()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def added(self) -> int:
        """How many events came so far: the mark that `passed` takes."""
        return self._added

    def passed(self, mark: int) -> bool:
        """Tell whether the first `mark` events have left, for better or worse."""
        return not self._pending or self._pending[0][0] > mark

    def add(self, event: Event) -> None:
        """Take an event; over the limit the oldest goes, for the younger tell of what is still open."""
        self._added += 1
        if self.tally.stopped is not None:
            self.tally.dropped += 1
            return
        self._pending.append((self._added, event))
        if len(self._pending) > self._limit:
            self.tally.dropped += 1
            self.work.accompany(self._pending.popleft()[1])

    def ready(self, now: int) -> bool:
        """Tell whether a request may be sent at `now`."""
        return self.tally.stopped is None and now >= self.not_before

    def hurry(self, now: int) -> None:
        """Forget a pause of our own, for somebody waits; one that the target asked for is kept."""
        if not self._told_to_wait:
            self.not_before = min(self.not_before, now)

    def next_batch(self) -> Batch | None:
        """Put the next request together; None if there is nothing to say.

        The first heartbeat of a run goes with its start. Other heartbeats follow when no event is left:
        none precedes the start of its run.
        """
        while True:
            cargo = _Cargo(self._request_bytes)
            self._load_events(cargo)
            self._load_beats(cargo)
            if cargo.records:
                return Batch(cargo.events, cargo.beats, cargo.unfit, tuple(cargo.records))
            if not cargo.events:
                return None
            self._leave(cargo.events)
            self.tally.failed += cargo.unfit

    def settle(self, batch: Batch, answer: Answer, now: int) -> bool:
        """Draw the consequences of an answer; tell whether to go on with the next request at once."""
        self.tally.answering = answer.reached
        if answer.verdict is not Verdict.ACCEPTED:
            self.tally.last_error = answer.detail
            self.tally.unsent_beats += batch.beats
        if answer.verdict is Verdict.AGAIN:
            self._wait(answer, now)
            return False
        self._failures, self._told_to_wait, self.not_before = 0, False, 0
        if answer.verdict is Verdict.UNSUPPORTED:
            self.stop(answer.detail)
            return False
        self._leave(batch.events)
        if answer.verdict is Verdict.REFUSED:
            self.tally.failed += batch.events
            return True
        rejected = min(answer.rejected, len(batch.records))
        self.tally.sent += len(batch.records) - rejected
        self.tally.failed += rejected + batch.unfit
        if answer.rejected or answer.detail:
            self.tally.last_error = f"{answer.rejected} of {len(batch.records)} refused: {answer.detail}"
        return True

    def take_waiting(self) -> list[Event]:
        """Give away what waits, to whoever keeps it."""
        waiting = [event for _, event in self._pending]
        self._pending.clear()
        return waiting

    def stop(self, why: str) -> None:
        """Send no event any more; what waits is lost, and counted."""
        self.tally.stopped = why
        self.tally.failed += len(self._pending)
        self._pending.clear()

    def _load_events(self, cargo: _Cargo) -> None:
        for _, event in self._pending:
            if cargo.full:
                return
            cargo.events += 1
            cargo.unfit += not cargo.load(self._encode(event))
            beat = self.work.accompany(event)
            if beat is not None:
                cargo.beats += cargo.load(self._encode(beat))

    def _load_beats(self, cargo: _Cargo) -> None:
        if cargo.full:  # perhaps of events, and others wait
            return
        for beat in self.work.beats():
            cargo.beats += cargo.load(self._encode(beat))
            if cargo.full:
                return

    def _wait(self, answer: Answer, now: int) -> None:
        self._failures += 1
        self._told_to_wait = answer.retry_after is not None
        pause = self._pacing.pause(self._failures, answer.retry_after, self._jitter())
        self.not_before = now + int(pause * SECOND)
        kept = [item for item in self._pending if item[1].name != semconv.EVENT_SESSION_HEARTBEAT]
        self.tally.unsent_beats += len(self._pending) - len(kept)
        self._pending = deque(kept)
        self.work.beat_again(self.not_before)

    def _leave(self, events: int) -> None:
        for _ in range(events):
            self._pending.popleft()
