"""Life cycle events as values: what a run tells of itself, ready to be encoded.

Pure: a run (read once), a stamp and a sender in, a frozen `Event` out. Names come from `semconv`, the
table of events from the design. Nothing here knows protobuf, which only the sender's thread loads
(`_encode.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from otel_sessions import semconv
from otel_sessions.lifecycle import EndReason, Outcome, Phase
from otel_sessions.sdk._run import Counts, OpenSpan, Run

__all__ = [
    "Event",
    "Origin",
    "Stamp",
    "heartbeat",
    "session_end",
    "session_start",
    "session_state",
    "span_start",
]

OPEN_SPANS_LIMIT: Final = 64
"""Span ids in one heartbeat: 64 are 1.3 kB on the wire; more would tell a reader little."""

Attribute = str | bool | int | float | Sequence[str]


class Stamp(NamedTuple):
    """When an event was made: its number in the process, the process's age (ns) and Unix time (ns)."""

    seq: int
    elapsed: int
    at: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What all events of a process share; `heartbeat` and `lease` are in seconds."""

    process_id: str
    heartbeat: float
    lease: float


@dataclass(frozen=True, slots=True)
class Event:
    """One life cycle event. `at` is when it happened, `stamp.at` when it was told, both Unix ns."""

    name: str
    at: int
    stamp: Stamp
    session_id: str
    trace_id: int
    span_id: int
    child: bool = False
    attributes: dict[str, Attribute] = field(default_factory=dict[str, Attribute])


def session_start(run: Run, stamp: Stamp) -> Event:
    """Tell that a run began, or that it takes an earlier session up again."""
    name = semconv.EVENT_SESSION_RESUMED if run.resumed else semconv.EVENT_SESSION_START
    return _event(
        run,
        name,
        stamp,
        run.started_at,
        {
            semconv.SESSION_NAME: run.name or None,
            semconv.SESSION_TITLE: run.title,
            semconv.SESSION_PREVIOUS_ID: run.previous_id if run.previous_id != run.session_id else None,
        },
    )


def heartbeat(run: Run, stamp: Stamp) -> Event:
    """Tell that a run is alive, what it does, and what is open in it.

    The stamp is taken before the call: a phase that is read after its number is never older than it.
    """
    open_spans = run.open_spans(OPEN_SPANS_LIMIT)[:OPEN_SPANS_LIMIT]
    return _event(
        run,
        semconv.EVENT_SESSION_HEARTBEAT,
        stamp,
        stamp.at,
        {
            **_phase(run),
            **_counts(run.counts()),
            semconv.OPEN_SPANS: tuple(f"{span.span_id:016x}" for span in open_spans),
        },
    )


def session_state(run: Run, stamp: Stamp) -> Event:
    """Tell that a run began to wait, or goes on; the stamp is taken before the call."""
    return _event(run, semconv.EVENT_SESSION_STATE, stamp, stamp.at, _phase(run))


def span_start(run: Run, span: OpenSpan, stamp: Stamp) -> Event:
    """Tell of a span that is still open, under its own ids."""
    event = _event(
        run,
        semconv.EVENT_SPAN_START,
        stamp,
        stamp.at,
        {
            semconv.SPAN_NAME: span.name,
            semconv.SPAN_KIND: span.kind,
            semconv.SPAN_PARENT_ID: None if span.parent_id is None else f"{span.parent_id:016x}",
            semconv.SPAN_START: span.start,
        },
    )
    return replace(event, trace_id=span.trace_id, span_id=span.span_id)


def session_end(run: Run, stamp: Stamp, outcome: Outcome | None, reason: EndReason | None, at: int) -> Event:
    """Tell that a run ended at `at` (Unix ns); an unknown outcome is left out."""
    return _event(
        run,
        semconv.EVENT_SESSION_END,
        stamp,
        at,
        {
            semconv.SESSION_OUTCOME: None if outcome is None else outcome.value,
            semconv.SESSION_END_REASON: None if reason is None else reason.value,
            **_counts(run.counts()),
        },
    )


def _event(run: Run, name: str, stamp: Stamp, at: int, attributes: dict[str, Attribute | None]) -> Event:
    known = {key: value for key, value in attributes.items() if value is not None}
    return Event(name, at, stamp, run.session_id, run.trace_id, run.span_id, run.child, known)


def _phase(run: Run) -> dict[str, Attribute | None]:
    phase = run.phase
    waits = phase is Phase.WAITING
    return {semconv.PHASE: phase.value, semconv.WAITING_FOR: run.waiting_for if waits else None}


def _counts(counts: Counts) -> dict[str, Attribute | None]:
    return {
        semconv.SPANS_STARTED: counts.started,
        semconv.SPANS_ENDED: counts.ended,
        semconv.SPANS_DROPPED: counts.dropped,
        semconv.SPANS_LOSSES: counts.losses or None,
    }
