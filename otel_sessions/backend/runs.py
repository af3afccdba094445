"""What one life cycle event does to the record of a run, and what of it belongs into the timeline; pure.

The transitions themselves are in `lifecycle`; here is what surrounds them: whose event it is, how old it
was when it came, and what is kept beside the state. Entries of the timeline are derived from the events
that tell a change, each at its own time, never from the state they were folded into: so any order of
arrival, and any repetition, leaves the same entries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from otel_sessions import losses, semconv
from otel_sessions.backend.records import Gauge, RunEvent, RunRecord, TimelineEntry
from otel_sessions.lifecycle import (
    MISSED_HEARTBEATS_UNTIL_STALE,
    Beat,
    Changed,
    Ended,
    Event,
    Phase,
    Run,
    Signal,
    Started,
    step,
)

__all__ = [
    "ROOT_EVENT",
    "RunKey",
    "apply",
    "expiry_of",
    "gauge_of",
    "is_watched",
    "key_of",
    "key_of_record",
    "noticed",
    "same_history",
    "to_this_clock",
    "told",
]

RunKey = tuple[str, bytes, str]
"""Session key, root span id, and for a child process its process id (else "")."""

MOST_SPANS: Final = 10**12
"""More than any process can have; what claims more is cut, or sums over processes outgrow every column."""

ROOT_EVENT: Final = "root"
"""Name of the event that a run's own root span stands for."""

_NEVER: Final = 2**63 - 1

_STARTS: Final = frozenset({semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_RESUMED})
_ENDS: Final = frozenset({semconv.EVENT_SESSION_END, ROOT_EVENT})


def key_of(session_key: str, event: RunEvent) -> RunKey:
    """Return which run an event is about."""
    return session_key, event.root_id, event.process if event.child else ""


def key_of_record(record: RunRecord) -> RunKey:
    """Return the key of a record."""
    return record.session_key, record.root_id, record.process if record.child else ""


def apply(
    record: RunRecord | None, key: RunKey, event: RunEvent, *, age: int | None, received_at: int, now: int
) -> RunRecord:
    """Return the record of a run after one event that came at `now`; `age` is None where nobody can tell."""
    record = record or RunRecord(key[0], key[1], event.trace_id, "", Run(), event.interval, event.lease)
    run = step(record.run, _change(event, age), now)
    if run.phase is not Phase.ENDED and run.signal is Signal.NONE:
        # Told of, but neither started nor heard as far as we know: its start is on the way, or was lost.
        run = step(run, Started(event.at, event.lease), now)
    ended = run.phase is Phase.ENDED
    newest = event.name == semconv.EVENT_SESSION_HEARTBEAT and event.seq > record.run.phase_seq
    told_by_process = event.name != ROOT_EVENT
    return replace(
        record,
        run=run,
        trace_id=record.trace_id or event.trace_id,
        process=record.process or event.process,
        interval=event.interval if told_by_process else record.interval,
        lease=event.lease if told_by_process else record.lease,
        previous_id=record.previous_id or event.previous_id,
        session_name=record.session_name or event.session_name,
        title=record.title or event.title,
        last_heard_at=_latest(record.last_heard_at, event, age, received_at),
        child=event.child,
        open_spans=() if ended else event.open_spans if newest else record.open_spans,
    )


def _change(event: RunEvent, age: int | None) -> Event:
    if event.name in _STARTS:
        return Started(event.at, event.lease, resumed=event.name == semconv.EVENT_SESSION_RESUMED)
    if event.name in _ENDS:
        return Ended(event.at, event.outcome, event.end_reason, event.started_at)
    phase = Phase.WAITING if event.phase == Phase.WAITING.value else Phase.RUNNING
    if event.name == semconv.EVENT_SESSION_HEARTBEAT and age is not None:
        return Beat(event.seq, age, event.interval, event.lease, phase, event.waiting_for)
    return Changed(event.seq, phase, event.waiting_for)


def _latest(known: int | None, event: RunEvent, age: int | None, received_at: int) -> int | None:
    heard = min(event.at, received_at) if age is None else received_at - age
    return max(known or 0, heard) or None


def told(key: RunKey, event: RunEvent) -> TimelineEntry | None:
    """Return the entry that an event makes by itself; a child process makes none in its parent's timeline."""
    if event.child:
        return None
    if event.name == semconv.EVENT_SESSION_START:
        return TimelineEntry(key[0], key[1], event.at, "running")
    if event.name == semconv.EVENT_SESSION_RESUMED:
        return TimelineEntry(key[0], key[1], event.at, "resumed")
    if event.name in _ENDS:
        return TimelineEntry(key[0], key[1], event.at, "ended", event.end_reason)
    if event.name == semconv.EVENT_SESSION_STATE and event.phase is not None:
        return TimelineEntry(key[0], key[1], event.at, event.phase, event.waiting_for)
    return None


def noticed(before: RunRecord | None, after: RunRecord, wall: int) -> TimelineEntry | None:
    """Return the entry for a change of signal that the listener noticed at `wall`.

    A run that has not been heard yet is no news, nor is one that ended: the end speaks for itself.
    """
    if before is None or after.child or after.run.phase is Phase.ENDED:
        return None
    was, now = before.run.signal, after.run.signal
    if was is now:
        return None
    if now is Signal.LIVE:
        silent_before = was is Signal.LOST or (was is Signal.STALE and before.run.beat_seq > 0)
        return _entry(after, wall, "revived") if silent_before else None
    if now is Signal.LOST or (now is Signal.STALE and was is Signal.LIVE):
        return _entry(after, wall, now.value)
    return None


def _entry(record: RunRecord, at: int, state: str) -> TimelineEntry:
    return TimelineEntry(record.session_key, record.root_id, at, state)


def gauge_of(session_key: str, event: RunEvent) -> Gauge | None:
    """Return the counts that an event bears, where it bears them all and says whose they are."""
    if not event.process or event.started is None or event.ended is None or event.dropped is None:
        return None
    return Gauge(
        session_key,
        event.process,
        event.seq,
        started=min(event.started, MOST_SPANS),
        ended=min(event.ended, MOST_SPANS),
        dropped=min(event.dropped, MOST_SPANS),
        losses=losses.told(losses.heard(event.losses)),
    )


def is_watched(record: RunRecord) -> bool:
    """Tell whether time alone can change this run."""
    return record.run.signal in (Signal.LIVE, Signal.STALE)


def expiry_of(record: RunRecord) -> int:
    """Return when time changes a watched run next, on the monotonic clock."""
    run = record.run
    expiry = run.live_until if run.signal is Signal.LIVE else run.lease_until
    return _NEVER if expiry is None else expiry


def same_history(before: RunRecord, after: RunRecord) -> bool:
    """Tell whether two records differ in signs of life only, which are worth no commit of their own."""
    return _history(before) == _history(after)


def _history(record: RunRecord) -> RunRecord:
    run = replace(record.run, beat_seq=0, phase_seq=0, live_until=None, lease_until=None)
    return replace(record, run=run, last_heard_at=None, open_spans=())


def to_this_clock(record: RunRecord, now: int) -> RunRecord:
    """Give a run that was read back from the store its full lease from now.

    Its expiries were on the monotonic clock of another process. The time nobody listened counts against
    nobody; what was lost by then stays lost until it speaks.
    """
    run = replace(record.run, live_until=None, lease_until=None)
    if is_watched(record):
        run = replace(
            run,
            live_until=now + MISSED_HEARTBEATS_UNTIL_STALE * record.interval,
            lease_until=now + record.lease,
        )
    return replace(record, run=run)
