"""The live view: which runs are alive, and what is told of them to whoever listens.

Nothing is shown before it is stored: `fold` draws what a batch would change and leaves the view as it
is, the writer commits that draft to the store, and only then `commit` takes it over and tells it. A
commit that fails leaves no trace here.

`fold` runs in the writer's thread, everything else in the event loop; they never overlap, since the
writer awaits its thread before it commits.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from otel_sessions.backend.draft import Arrival, Draft, Moment, View, draw
from otel_sessions.backend.feed import Feed, News, StreamEvent
from otel_sessions.backend.records import Changes, Gauge, RunRecord, SessionRecord
from otel_sessions.backend.runs import RunKey, expiry_of, is_watched, key_of_record, to_this_clock
from otel_sessions.lifecycle import State, is_idle

__all__ = ["Live", "LiveStats", "StreamEvent"]

FLUSH_EVERY: Final = 10_000_000_000
"""ns: signs of life of runs that did nothing else are stored this often."""

BASE_WORTH_NOTING: Final = 50_000_000
"""ns: a base that fell by less is not stored again; ages after a restart are off by that at most."""

PROCESSES: Final = 100_000
"""Processes whose base is kept in memory; beyond, the one heard longest ago is forgotten."""

_SESSION_BYTES: Final = 1_500
_ROW_BYTES: Final = 400
_NEVER: Final = 2**63 - 1  # on the monotonic clock


@dataclass(frozen=True, slots=True)
class LiveStats:
    """What the live view holds, for the status page."""

    watched_runs: int
    readers: int
    events: int


class Live:
    """Open runs with their leases, and the feed of what changes; one for each backend."""

    def __init__(self, boot: str, *, idle_after: int) -> None:
        self._feed = Feed(boot)
        self._idle_after = idle_after
        self._runs: dict[RunKey, RunRecord] = {}
        self._unstored: dict[RunKey, None] = {}
        self._gauges: dict[str, dict[str, Gauge]] = {}
        self._bases: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self._silent: dict[str, SessionRecord] = {}  # sessions without a run that are not idle
        self._alive: list[tuple[int, str]] = []  # a heap of these by when they were last alive, or earlier
        self._next_expiry = _NEVER
        self._last_flush = 0

    # --- the write path ------------------------------------------------------------------------------

    def load(
        self,
        runs: Iterable[RunRecord],
        bases: Mapping[str, int],
        silent: Iterable[SessionRecord],
        *,
        now: int,
        wall: int,
    ) -> None:
        """Take over what the store knows at the start.

        `runs` are those that have not ended, `bases` in Unix ns, `silent` the sessions without a run that
        are not idle yet. Every run that was not lost gets its full lease from now.
        """
        for record in runs:
            if is_watched(record):
                self._runs[key_of_record(record)] = to_this_clock(record, now)
        self._bases = {process: base - (wall - now) for process, base in bases.items()}
        self._noted = dict(self._bases)
        self._watch_silence(silent, wall)
        self._next_expiry = min(map(expiry_of, self._runs.values()), default=_NEVER)
        self._last_flush = now

    def due(self, now: int) -> bool:
        """Tell whether a tick at `now` may change any run, or signs of life wait to be stored."""
        return now >= self._next_expiry or self._flush_due(now)

    def moment(self, now: int, wall: int, *, away: int = 0, flush: bool = False) -> Moment:
        """Say what is to be done with time in the batch that is folded next."""
        tick = now >= self._next_expiry or bool(away)
        return Moment(now, wall, away, tick=tick, flush=flush or self._flush_due(now))

    def fold(
        self, arrivals: Iterable[Arrival], moment: Moment, lookup: Callable[[str], Sequence[RunRecord]]
    ) -> Draft:
        """Draw what a batch would change; changes nothing. Raises what `lookup` raises."""
        view = View(self._runs, self._unstored, self._gauges, self._bases)
        return draw(view, arrivals, moment, lookup)

    def notes(self, draft: Draft) -> dict[str, int]:
        """Return the bases of a draft that are worth keeping durably, in Unix ns."""
        to_wall = draft.moment.wall - draft.moment.monotonic
        return {
            process: base + to_wall
            for process, base in draft.bases.items()
            if base + BASE_WORTH_NOTING <= self._noted.get(process, _NEVER)
        }

    def commit(self, draft: Draft, changes: Changes) -> None:
        """Take over a draft that was stored, and tell what changed."""
        self._take_runs(draft)
        self._take_bases(draft)
        self._tell(changes, draft.moment.wall)

    def forget(self, keys: Collection[str], changes: Changes) -> None:
        """Let go of sessions (by their keys) that were removed from the store, and tell what changed."""
        for run in [run for run in self._runs if run[0] in keys]:
            del self._runs[run]
        for run in [run for run in self._unstored if run[0] in keys]:
            del self._unstored[run]
        for key in keys:
            self._gauges.pop(key, None)
        self._tell(changes, 0)

    def tell_idle(self, wall: int) -> None:
        """Publish the sessions without a run that have been silent long enough by `wall`."""
        idle: list[SessionRecord] = []
        while self._alive and is_idle(self._alive[0][0], wall - self._idle_after):
            _, session_id = heapq.heappop(self._alive)
            session = self._silent.get(session_id)
            if session is None:
                continue
            if is_idle(session.last_alive_at, wall - self._idle_after):
                idle.append(self._silent.pop(session_id))
            else:
                heapq.heappush(self._alive, (session.last_alive_at, session_id))
        if idle:
            self._feed.publish(_session_news(replace(s, state=State.IDLE.value)) for s in idle)

    # --- for readers ---------------------------------------------------------------------------------

    def last_event_id(self) -> str:
        """Return the id of the newest event; take it before reading the store, then `subscribe` from it."""
        return self._feed.last_event_id()

    def subscribe(self, after: str | None = None, session: str | None = None) -> AsyncIterator[StreamEvent]:
        """Iterate over what changes after the event `after`, or from this moment on.

        Events of all sessions, but rows only of `session` (our id).
        Yields `reset` where `after` is unknown or the reader is too slow; ends when the backend stops.
        """
        return self._feed.subscribe(after, session)

    def close(self) -> None:
        """End every subscription."""
        self._feed.close()

    def stats(self) -> LiveStats:
        """Count what is watched and told."""
        return LiveStats(len(self._runs), self._feed.readers, self._feed.published)

    # --- inside --------------------------------------------------------------------------------------

    def _tell(self, changes: Changes, wall: int) -> None:
        self._feed.publish(_news(changes))
        for gone in changes.gone:
            self._silent.pop(gone, None)
        self._watch_silence(changes.sessions, wall)

    def _flush_due(self, now: int) -> bool:
        return bool(self._unstored) and now >= self._last_flush + FLUSH_EVERY

    def _take_runs(self, draft: Draft) -> None:
        for key, record in draft.changed.items():
            self._unstored[key] = None
            if is_watched(record):
                self._runs[key] = record
                self._next_expiry = min(self._next_expiry, expiry_of(record))
            else:
                self._runs.pop(key, None)
        for record in draft.runs:
            self._unstored.pop(key_of_record(record), None)
        for gauge in draft.counted:
            self._gauges.setdefault(gauge.session_key, {})[gauge.process] = gauge
        for gauge in draft.gauges:
            self._gauges.pop(gauge.session_key, None)  # whenever one is stored, all of its session are
        if draft.moment.tick:
            self._next_expiry = min(map(expiry_of, self._runs.values()), default=_NEVER)
        if draft.moment.flush:
            self._last_flush = draft.moment.monotonic

    def _take_bases(self, draft: Draft) -> None:
        to_wall = draft.moment.wall - draft.moment.monotonic
        for process, base in self.notes(draft).items():
            self._noted[process] = base - to_wall
        for process, base in draft.bases.items():
            self._bases.pop(process, None)
            self._bases[process] = base
        while len(self._bases) > PROCESSES:
            oldest = next(iter(self._bases))
            del self._bases[oldest]
            self._noted.pop(oldest, None)

    def _watch_silence(self, sessions: Iterable[SessionRecord], wall: int) -> None:
        """Watch those that are to be told idle one day; who is idle by now is shown so at once."""
        for session in sessions:
            known = self._silent.pop(session.id, None)
            if session.runs_count or is_idle(session.last_alive_at, wall - self._idle_after):
                continue
            self._silent[session.id] = session
            if known is None or session.last_alive_at < known.last_alive_at:
                heapq.heappush(self._alive, (session.last_alive_at, session.id))


def _news(changes: Changes) -> Iterable[News]:
    for gone in changes.gone:
        yield News("gone", gone, gone, len(gone))
    for session in changes.sessions:
        yield _session_news(session)
    for shrunk in changes.shrunk:
        yield News("reset", shrunk, None, len(shrunk))
    for session_id, rows in changes.rows.items():
        yield News("rows", session_id, (session_id, rows), _ROW_BYTES * len(rows))


def _session_news(session: SessionRecord) -> News:
    return News("session", session.id, session, _SESSION_BYTES)
