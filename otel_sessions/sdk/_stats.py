"""`stats()`, `flush()`, `shutdown()`: what became of everything, told as it is and in time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from otel_sessions.lifecycle import ENDINGS
from otel_sessions.losses import heard
from otel_sessions.sdk import _exit, _guard, _provider
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._ledger import ledgers
from otel_sessions.sdk._liveness import EventStats
from otel_sessions.sdk._options import patience
from otel_sessions.sdk._registry import registry
from otel_sessions.sdk._run import Counts

__all__ = ["FlushResult", "SessionStats", "Stats", "flush", "shutdown", "stats"]


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Spans of one session in this process so far, over all its runs here, the root included.

    `ended` leaves late ones out; of those that ended, `dropped` are lost, by reason (`otel_sessions.losses`).
    Late ones that are lost are in `Stats.dropped` alone.
    """

    started: int
    ended: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """What this process has done so far; a forked child begins anew.

    `sessions_open` and `spans_open` are open now. Of ended spans `sent` were acknowledged, `pending` wait,
    `dropped` are lost, by reason; after `shutdown()` `kept` ones are on disk, for a later program that sends
    there. All are 0 where a joined provider's own exporter sends. `endpoint` is where spans go, `answering`
    whether it took the last ones (None before the first try), `trouble` what it said. `events` counts the
    life cycle events. `sessions` has the counts of each session that is open here or lost a span, by its id.
    `ignored` is what came too late to be recorded, and open spans beyond the bound that are no longer looked
    after, by kind; `faults` are our own faults by place: none is expected.
    """

    sessions_open: int = 0
    spans_open: int = 0
    sent: int = 0
    pending: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    endpoint: str | None = None
    answering: bool | None = None
    trouble: str | None = None
    events: EventStats = field(default_factory=EventStats)
    sessions: Mapping[str, SessionStats] = field(default_factory=dict[str, SessionStats])
    ignored: Mapping[str, int] = field(default_factory=dict[str, int])
    faults: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class FlushResult:
    """How far a flush came. Counts are those of this process so far, as in `Stats`.

    `complete` is True if nothing was left waiting when the flush was over, and nothing was lost during it,
    spans and events alike; it speaks of what goes to `endpoint`. It is None where all was handed on in time
    but nobody can tell what arrived: spans leave by exporters of others alone, those of a joined provider or
    of `span_processors`, which say that they are done after losing everything (otel-python #4568). `reason`
    tells why it is not True.
    """

    complete: bool | None
    sent: int = 0
    pending: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    endpoint: str | None = None
    answering: bool | None = None
    trouble: str | None = None
    reason: str | None = None
    events: EventStats = field(default_factory=EventStats)


def stats() -> Stats:
    """Return what became of spans and events so far."""
    runtime = _provider.current()
    if runtime is None:
        return Stats(ignored=_guard.ignored_so_far(), faults=_guard.faults())
    state = runtime.worker.sent()
    return Stats(
        sessions_open=len(registry.roots),
        spans_open=len(registry.open),
        sent=state.sent,
        pending=state.pending,
        kept=state.kept,
        dropped=state.dropped,
        endpoint=state.target,
        answering=state.answering,
        trouble=state.trouble,
        events=runtime.liveness.stats(),
        sessions={session: _of_session(counts) for session, counts in ledgers.telling().items()},
        ignored=_guard.ignored_so_far(),
        faults=_guard.faults(),
    )


def _of_session(counts: Counts) -> SessionStats:
    return SessionStats(counts.started, counts.ended, heard(counts.losses))


def flush(timeout: float = 2.0) -> FlushResult:
    """Send everything that has ended, and tell how far that came after at most `timeout` seconds.

    Raises ConfigurationError where that is no number; one below 0 is 0.
    """
    timeout = patience(timeout)
    runtime = _provider.current()
    if runtime is None:
        return FlushResult(complete=True)
    before = _lost(runtime)
    reason: str | None = "otel_sessions is shut down"
    if not runtime.closed:
        reason = "a fault of otel_sessions, see its log line"
        with guard("flush"):
            reason = runtime.unsent(time.monotonic() + timeout)
    return _result(runtime, reason, before)


def shutdown(timeout: float = 2.0) -> FlushResult:
    """End tracing as the end of the process would: end what is open, send everything, stop the threads.

    What is left after `timeout` seconds stays on disk, where there is a spool, else it is counted as dropped.
    The exporter and the `span_processors` that were given are shut down, a joined provider only sends what it
    has. Later sessions work, but nothing is recorded, until `init()` is called again. Raises
    ConfigurationError where `timeout` is no number.
    """
    timeout = patience(timeout)
    runtime = _provider.current()
    if runtime is None:
        return FlushResult(complete=True)
    before = _lost(runtime)
    if not runtime.closed:
        deadline = time.monotonic() + timeout
        with guard("shutdown"):
            runtime.within(deadline, lambda: _exit.end_all(runtime, deadline, ENDINGS["exit_open"]))
    return _result(runtime, runtime.missed, before)


def _lost(runtime: _provider.Runtime) -> int:
    return sum(runtime.worker.sent().dropped.values())


def _spans(number: int) -> str:
    return "1 span" if number == 1 else f"{number} spans"


def _result(runtime: _provider.Runtime, reason: str | None, lost_before: int) -> FlushResult:
    state = runtime.worker.sent()
    lost = sum(state.dropped.values()) - lost_before
    if state.pending:
        reason = f"{_spans(state.pending)} not sent yet"
    elif state.kept:
        reason = f"{_spans(state.kept)} kept on disk, for a later program"
    elif lost:
        reason = f"{_spans(lost)} lost"
    complete: bool | None = reason is None
    if complete and runtime.hearsay:
        complete = None
        reason = "spans leave by exporters of others, if at all, which do not tell what arrived"
    return FlushResult(
        complete=complete,
        sent=state.sent,
        pending=state.pending,
        kept=state.kept,
        dropped=state.dropped,
        endpoint=state.target,
        answering=state.answering,
        trouble=state.trouble,
        reason=reason,
        events=runtime.liveness.stats(),
    )
