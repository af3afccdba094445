"""The write path: decoded, folded, committed together with whatever came meanwhile, then acknowledged.

One writer. Its batch is what gathered during the last commit, and of a few senders what they send right after
it: alone, a request is committed at once; under load, many share one. What waits is bounded in bytes. An
`accept` returns only when its request is durable, and fails with an error that the sender may act on:
`DecodeError` (never send this again), `BackPressureError` and `NotStoredError` (send it again later).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from otel_sessions.backend.aside import aside
from otel_sessions.backend.clock import Clock
from otel_sessions.backend.counts import WriteCounts
from otel_sessions.backend.decode import DecodeError, count_apart, decode
from otel_sessions.backend.draft import Arrival, Draft, Moment
from otel_sessions.backend.faults import Faults
from otel_sessions.backend.live import Live
from otel_sessions.backend.records import Changes, Encoding, Request, RunRecord, Signal
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.store.base import FullDiskError, Store
from otel_sessions.backend.weight import MAX_VALUES, is_too_dense
from otel_sessions.errors import BackendError

__all__ = ["BackPressureError", "Ingest", "IngestStats", "NoSpaceError", "NotStoredError", "Room"]

logger = logging.getLogger(__name__)

QUEUE_BYTES: Final = 128 * 1024 * 1024
"""Bodies that wait for a commit: two of the greatest size, about half a minute of a busy disk."""

THREAD_FROM_BYTES: Final = 16 * 1024
"""Bodies from this size on are redacted and decoded in a thread, and the loop stays responsive: JSON, or what
is nothing but secrets, is about 10 ms of work."""

TICK_SECONDS: Final = 0.25
AWAY_FROM: Final = 2_000_000_000
"""ns between two ticks from which on the process was stopped or the machine asleep."""

BEHIND_FROM: Final = 5_000_000_000
"""ns that a request waits for its commit from which on the writer is said to be behind."""

SHARED_BY: Final = 8
"""Requests that share a commit from which on it is hardly cheaper for each."""

PATIENCE: Final = 0.25
"""The part of the last commit's time that the next one waits for those who shared it, or came meanwhile."""

PATIENCE_SECONDS = 0.02
"""The most that it waits, however slow the disk."""

STOPPING: Final = "the backend is stopping"

T = TypeVar("T")


class BackPressureError(BackendError):
    """More waits than is good; send the same again a little later."""


class NotStoredError(BackendError):
    """The request could not be committed; nothing of it is stored, send it again later."""


class NoSpaceError(NotStoredError):
    """The request could not be committed, for the disk is full."""


class Room:
    """Bytes that may be held at once for one purpose."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Take room for `size` bytes. Raises BackPressureError where others hold too much of it.

        Whoever comes first may exceed it: the limit of one request is checked elsewhere.
        """
        if self.held and self.held + size > self.limit:
            raise BackPressureError("too much telemetry is waiting to be stored; send it again later")
        self.held += size

    def give(self, size: int) -> None:
        """Give room back."""
        self.held -= size


@dataclass(frozen=True, slots=True)
class IngestStats:
    """What the write path did since the start."""

    requests: int
    spans: int
    logs: int
    metric_points: int
    rejected: int
    refused: int
    commits: int
    failed_commits: int
    waiting_requests: int
    waiting_bytes: int
    room_bytes: int  # what may wait
    metrics_seen: dict[str, int]  # data points by name of the metric
    metric_sessions: dict[str, int]  # data points by session.id, of those that bear one
    redacted: dict[str, int]  # secrets by kind, in what is stored; empty where redaction is off
    pruned_sessions: int = 0  # by retention
    pruned_spans: int = 0
    pruned_logs: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A decoded request and whoever waits for its commit."""

    arrival: Arrival
    size: int
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Errand:
    """What somebody wants done in the writer's thread."""

    do: Callable[[], object]
    take: Callable[[Any], object]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Counters:
    requests: int = 0
    spans: int = 0
    logs: int = 0
    rejected: int = 0
    refused: int = 0
    commits: int = 0
    failed_commits: int = 0
    metric_points: int = 0
    metrics: dict[str, int] = field(default_factory=dict[str, int])
    metric_sessions: dict[str, int] = field(default_factory=dict[str, int])
    redacted: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, request: Request) -> None:
        self.requests += 1
        self.spans += len(request.spans)
        self.logs += len(request.logs)
        self.rejected += request.rejected
        for kind, count in request.redacted.items():
            self.redacted[kind] += count
        self.metric_points += sum(request.metrics.values())
        for name, count in request.metrics.items():
            count_apart(self.metrics, name, count)
        for session, count in request.metric_sessions.items():
            count_apart(self.metric_sessions, session, count)


class Ingest:
    """The one writer of a backend. Start it inside the event loop, stop it to have everything committed."""

    def __init__(
        self,
        store: Store,
        live: Live,
        clock: Clock,
        *,
        redactor: Redactor | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._redactor = redactor
        self._queue = Room(queue_bytes)
        self.counts = WriteCounts()
        self._waiting: list[_Waiting] = []
        self._batch: list[_Waiting] = []
        self._errands: list[_Errand] = []
        self._company = 0  # how many requests may be waited for,
        self._patience = 0.0  # and for how long, in seconds
        self._work = asyncio.Event()
        self._counters = _Counters(redacted=dict.fromkeys(redactor.kinds if redactor else (), 0))
        self._last_tick = 0
        self._next_tick = 0
        self._away = 0
        self._stopping = False
        self._closed = False
        self._failing = ""
        self._faults = Faults()
        self._writer: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._write_thread = ThreadPoolExecutor(1, "otel-sessions-write")
        self._decode_threads = ThreadPoolExecutor(2, "otel-sessions-decode")

    async def start(self) -> asyncio.Task[None]:
        """Begin to write and to tick; return the writer, whose end before `stop` is a fault of ours."""
        self._last_tick = self._next_tick = self._clock.monotonic()
        self._writer = asyncio.create_task(self._write_on(), name="otel-sessions writer")
        self._tick()
        return self._writer

    async def stop(self) -> None:
        """Commit all that was accepted, signs of life too, and end the writer."""
        self._stopping = True
        self._work.set()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._writer is not None:
            await asyncio.wait([self._writer])  # if it failed, whoever started it knows
        self._decode_threads.shutdown()
        self._write_thread.shutdown()

    async def accept(self, signal: Signal, encoding: Encoding, body: bytes) -> Request:
        """Decode and store one request; return it when it is durable.

        Raises DecodeError, BackPressureError, NotStoredError; and where storing this very request fails each
        time by a fault of ours, that.
        """
        arrived, received_at = self._clock.monotonic(), self._clock.wall()
        self._take_room(len(body))
        try:
            request = await self._decode(signal, encoding, body, received_at)
        except BaseException:
            self._queue.give(len(body))
            raise
        if self._closed:
            self._queue.give(len(body))
            raise _not_stored(STOPPING)
        done = asyncio.get_running_loop().create_future()
        # From here on the writer gives the room back: it holds the request even if the sender goes away.
        self._waiting.append(_Waiting(Arrival(request, arrived), len(body), done))
        self._work.set()
        await done
        return request

    async def between(self, errand: Callable[[], T], take: Callable[[T], object]) -> T:
        """Run an errand in the writer's thread between two commits; return what it returned.

        `take` is called with that in the event loop, before anything else is written. Raises what the
        errand raises, and NotStoredError where the writer has ended.
        """
        if self._closed:
            raise _not_stored(STOPPING)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._errands.append(_Errand(errand, take, done))
        self._work.set()
        return await done

    @property
    def fails(self) -> bool:
        """Whether the last commit failed."""
        return bool(self._failing)

    def trouble(self) -> str | None:
        """Say why requests can't be stored now, or not in time; None where all is well."""
        if self._closed:
            return STOPPING
        if self._failing:
            return f"commits fail: {self._failing}"
        waiting = (self._batch or self._waiting)[:1]
        behind = self._clock.monotonic() - waiting[0].arrival.at if waiting else 0
        if behind >= BEHIND_FROM:
            return f"the writer is {behind / 1e9:.0f} s behind"
        return None

    def note_success(self) -> None:
        """Note that what was stored just now is on the disk."""
        if self._failing:
            self._failing = ""
            logger.warning("commits succeed again")

    def stats(self) -> IngestStats:
        """Count what was done and what waits."""
        counters = self._counters
        return IngestStats(
            requests=counters.requests,
            spans=counters.spans,
            logs=counters.logs,
            metric_points=counters.metric_points,
            rejected=counters.rejected,
            refused=counters.refused,
            commits=counters.commits,
            failed_commits=counters.failed_commits,
            waiting_requests=len(self._waiting),
            waiting_bytes=self._queue.held,
            room_bytes=self._queue.limit,
            metrics_seen=dict(counters.metrics),
            metric_sessions=dict(counters.metric_sessions),
            redacted=dict(counters.redacted),
            pruned_sessions=self.counts.sessions_pruned,
            pruned_spans=self.counts.spans_pruned,
            pruned_logs=self.counts.logs_pruned,
        )

    # --- decoding --------------------------------------------------------------------------------

    def _take_room(self, size: int) -> None:
        if self._closed:
            raise _not_stored(STOPPING)
        try:
            self._queue.take(size)
        except BackPressureError:
            self._counters.refused += 1
            raise

    async def _decode(self, signal: Signal, encoding: Encoding, body: bytes, received_at: int) -> Request:
        if len(body) < THREAD_FROM_BYTES:
            return self._read(signal, encoding, body, received_at)
        return await aside(
            self._decode_threads, lambda held: self._read(signal, encoding, held, received_at), body
        )

    def _read(self, signal: Signal, encoding: Encoding, body: bytes, received_at: int) -> Request:
        """Take out the secrets, then decode; in the loop or in a thread."""
        if is_too_dense(encoding, body):
            raise DecodeError(f"the request holds more than {MAX_VALUES[encoding]} values: send less at once")
        if self._redactor is None:
            return decode(signal, encoding, body, received_at)
        try:
            clean = self._redactor.redact(signal, encoding, body)
            request = decode(signal, encoding, clean.body, received_at)
        except DecodeError as error:
            raise DecodeError(self._redactor.text(str(error))) from None  # it may quote what can't be read
        return replace(request, redacted=clean.counts) if clean.counts else request

    # --- time ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._now()
        self.counts.loop_lag.observe(max(0, now - self._next_tick) / 1e9)
        self._next_tick = now + round(TICK_SECONDS * 1e9)
        if self._away or self._live.due(now):
            self._work.set()
        self._live.tell_idle(self._clock.wall())
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _now(self) -> int:
        """Read the clock, and notice whether the process was stopped since it was last read."""
        now = self._clock.monotonic()
        gap = now - self._last_tick
        if gap >= AWAY_FROM:
            logger.warning("nothing ran here for %.1f s; leases are extended by that", gap / 1e9)
            self._away += gap
        self._last_tick = now
        return now

    # --- the writer ------------------------------------------------------------------------------

    async def _write_on(self) -> None:
        try:
            while not self._stopping or self._waiting:
                await self._work.wait()
                await self._gather()
                self._work.clear()
                self._batch, self._waiting = self._waiting, []
                if self._batch or not self._errands:
                    await self._write(self._batch)
                self._batch = []
                await self._run_errands()
        finally:
            self._closed = True  # nobody would see what is accepted from here on
            # Nobody is left waiting here, unless the writer failed.
            self._settle([*self._batch, *self._waiting], BackendError(STOPPING))
            for errand in self._errands:
                _finish(errand.done, None, _not_stored(STOPPING))
        await self._write([], flush=True)

    async def _gather(self) -> None:
        """Give those whose requests were just committed a moment to send their next, which share the commit.

        Without this, a few senders split into those that commit and those that come a moment too late, for
        ever: each commit is small, and costs each of them more. Nobody who sends alone is waited for.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        while 0 < len(self._waiting) < self._company and not self._stopping:
            self._work.clear()
            try:
                await asyncio.wait_for(self._work.wait(), until - loop.time())
            except asyncio.TimeoutError:
                return

    async def _write(self, batch: Sequence[_Waiting], *, flush: bool = False) -> None:
        moment = self._live.moment(self._now(), self._clock.wall(), away=self._away, flush=flush)
        error = await self._try(batch, moment)
        if error is None:
            self._away -= moment.away
            self._settle(batch, None)
        elif len(batch) > 1 and not isinstance(error, BackendError):
            # Not the disk but something in one of the requests: it must not take the others with it.
            for one in batch:
                await self._write([one])
        else:
            # Signs of life need no disk: whoever beats stays alive even while nothing can be stored.
            signs = [one for one in batch if not one.arrival.request.keep]
            noted = self._only_noted(signs, replace(moment, away=0, tick=False, flush=False))
            self._settle(signs, None if noted else error)
            self._settle([one for one in batch if one.arrival.request.keep], error)

    async def _run_errands(self) -> None:
        """Do what others want done, once each, before the next batch."""
        errands, self._errands = self._errands, []
        for errand in errands:
            work = asyncio.get_running_loop().run_in_executor(self._write_thread, errand.do)
            await asyncio.wait([work])  # whatever it raises must not end the writer
            error = work.exception()
            if error is None:
                errand.take(work.result())
            _finish(errand.done, None if error else work.result(), error)

    async def _try(self, batch: Sequence[_Waiting], moment: Moment) -> BaseException | None:
        self._company = 0
        if self._only_noted(batch, moment):
            return None
        loop = asyncio.get_running_loop()
        began = self._clock.monotonic()
        commit = loop.run_in_executor(self._write_thread, self._commit, batch, moment)
        await asyncio.wait([commit])  # whatever it raises must not end the writer
        error = commit.exception()
        if error is not None:
            self._note_failure(error)
            return error
        self.note_success()
        draft, changes = commit.result()
        took = self._clock.monotonic() - began
        self._live.commit(draft, changes)
        self._counters.commits += 1
        self._company = min(len(batch) + len(self._waiting), SHARED_BY)
        self._patience = min(took / 1e9 * PATIENCE, PATIENCE_SECONDS)
        kept = [one.arrival.request for one in batch if one.arrival.request.keep]
        if kept or not draft.is_empty:
            self.counts.note_commit(kept, changes, took)
        return None

    def _note_failure(self, error: BaseException) -> None:
        self._counters.failed_commits += 1
        if str(error) == self._failing:
            return  # a full disk fails every commit the same way
        self._failing = str(error)
        told = isinstance(error, BackendError)  # says what to do; all else is ours to find
        logger.error("a commit failed: %s", error, exc_info=None if told else error)

    def _only_noted(self, batch: Sequence[_Waiting], moment: Moment) -> bool:
        """Fold a batch of mere signs of life at once, where the store has nothing to learn from it."""
        if moment.tick or moment.flush or any(one.arrival.request.keep for one in batch):
            return False
        try:
            draft = self._live.fold([one.arrival for one in batch], moment, _unknown)
        except LookupError:
            return False
        if not draft.is_empty or self._live.notes(draft):
            return False
        self._live.commit(draft, Changes())
        return True

    def _commit(self, batch: Sequence[_Waiting], moment: Moment) -> tuple[Draft, Changes]:
        """Fold and store one batch; runs in the writer's thread."""
        draft = self._live.fold([one.arrival for one in batch], moment, self._store.runs)
        requests = [one.arrival.request for one in batch if one.arrival.request.keep]
        for process, base in self._live.notes(draft).items():
            self._store.note_process(process, base)
        if not requests and draft.is_empty:
            return draft, Changes()
        return draft, self._store.append(requests, draft.runs, draft.timeline, draft.gauges)

    def _note(self, request: Request) -> None:
        self._counters.add(request)
        self.counts.note_taken(request, self._clock.monotonic())

    def _settle(self, batch: Sequence[_Waiting], error: BaseException | None) -> None:
        for one in batch:
            self._queue.give(one.size)
            if error is None:
                self._note(one.arrival.request)
            if one.done.done():
                continue  # whoever sent it went away
            if error is None:
                one.done.set_result(None)
            else:
                one.done.set_exception(self._told(one.arrival.request, error))

    def _told(self, request: Request, error: BaseException) -> BaseException:
        """Return what the sender is told: to come back, or the error itself, which is one for good."""
        if self._faults.is_for_good(request.body, error):
            return error
        return _not_stored(str(error), full=isinstance(error, FullDiskError))


def _unknown(session_key: str) -> Sequence[RunRecord]:
    """Stand in for the store, which only its thread may ask."""
    raise LookupError(session_key)


def _not_stored(why: str, *, full: bool = False) -> NotStoredError:
    kind = NoSpaceError if full else NotStoredError
    return kind(f"not stored: {why}; send it again later")


def _finish(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Settle a future that may have been given up."""
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
