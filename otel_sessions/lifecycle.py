"""The life cycle of a run and of a session, as pure functions of values and `now`.

Both sides use this file: the SDK takes from it how a run ends (`ENDINGS`, `ending_for`), the backend
folds what arrives (`step`) and derives what is shown (`shown`). It imports nothing of ours, reads no
clock, and every transition lives here.

Two axes for each run:

    phase   running <-> waiting -> ended                  what the run said of itself
    signal  none -> live -> stale -> lost -> live ...     whether anybody still hears it

Phase is a matter of history: it is ordered by the sender's own sequence numbers, so any order of
arrival, and any repetition, gives the same phase. Signal is a matter of the listener's clock: only a
fresh heartbeat opens or renews a lease, so replayed telemetry never revives the dead. `ended` is final;
an ended run has no signal.

Two clocks, never mixed: `at` is Unix time in ns as the sender wrote it; `now` is the listener's
monotonic clock in ns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NamedTuple

__all__ = [
    "ENDINGS",
    "Beat",
    "Changed",
    "EndReason",
    "Ended",
    "Ending",
    "Event",
    "Extended",
    "Outcome",
    "Pace",
    "Phase",
    "Run",
    "Shown",
    "Signal",
    "Started",
    "State",
    "TaskState",
    "Tick",
    "age_of",
    "ending_for",
    "is_idle",
    "last_alive",
    "paced",
    "shown",
    "step",
    "task_state_for",
]

MISSED_HEARTBEATS_UNTIL_STALE: Final = 3

_UNEVEN: Final = 60_000_000_000
"""ns by which what a sender sends may come earlier or later than at its pace: batches, retries."""
_PROVEN: Final = 60_000_000_000
"""ns that a sender's times must advance, beside ours, before its pace is believed; late batches have one."""
_PACES: Final = 8
"""Senders of one session whose clocks differ that are told apart; the one heard longest ago is forgotten."""


class Phase(str, Enum):
    """What a run last said of itself."""

    RUNNING = "running"
    WAITING = "waiting"
    ENDED = "ended"


class Signal(str, Enum):
    """Whether a run is still heard; NONE where no event was ever seen, or none is expected any more."""

    NONE = "none"
    LIVE = "live"
    STALE = "stale"
    LOST = "lost"


class State(str, Enum):
    """What is shown of a session."""

    RUNNING = "running"
    WAITING = "waiting"
    STALE = "stale"
    LOST = "lost"
    IDLE = "idle"
    ENDED = "ended"


class Outcome(str, Enum):
    """How a run turned out; unknown is None."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"


class EndReason(str, Enum):
    """Why a run ended."""

    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    PROCESS_EXIT = "process_exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    SUPERSEDED = "superseded"
    GARBAGE_COLLECTED = "garbage_collected"
    STOPPED = "stopped"


class TaskState(str, Enum):
    """The state of one task."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"


# --- How a run ends (the sender's side) ----------------------------------------------------------


class Ending(NamedTuple):
    """One way for a run to end: its reason, its outcome, and whether the root's status is ERROR."""

    reason: EndReason
    outcome: Outcome | None
    error: bool = False


ENDINGS: Final[dict[str, Ending]] = {
    "left": Ending(EndReason.COMPLETED, Outcome.OK),
    "exception": Ending(EndReason.ERROR, Outcome.ERROR, error=True),
    "cancelled": Ending(EndReason.CANCELLED, Outcome.CANCELLED),
    "interrupted": Ending(EndReason.INTERRUPTED, Outcome.CANCELLED),
    "exit_ok": Ending(EndReason.PROCESS_EXIT, Outcome.OK),
    "exit_error": Ending(EndReason.PROCESS_EXIT, Outcome.ERROR, error=True),
    "exit_open": Ending(EndReason.PROCESS_EXIT, None),
    "signal": Ending(EndReason.SIGNAL, Outcome.CANCELLED),
    "timeout": Ending(EndReason.TIMEOUT, Outcome.ERROR, error=True),
    "idle_timeout": Ending(EndReason.IDLE_TIMEOUT, None),
    "superseded": Ending(EndReason.SUPERSEDED, None),
    "garbage_collected": Ending(EndReason.GARBAGE_COLLECTED, None),
    "stopped": Ending(EndReason.STOPPED, Outcome.CANCELLED),
}

_WORST_FIRST: Final = ("exception", "exit_error", "interrupted", "cancelled", "exit_ok", "left")

# By name, because naming the classes would import asyncio, trio and greenlet into every program.
_CANCELLATIONS: Final = frozenset(
    {
        ("asyncio.exceptions", "CancelledError"),
        ("concurrent.futures._base", "CancelledError"),
        ("trio", "Cancelled"),
        ("trio._core._exceptions", "Cancelled"),
        ("greenlet", "GreenletExit"),
    }
)


def ending_for(exc: BaseException | None) -> Ending:
    """Tell how a run ends whose block was left by `exc`; a group of exceptions takes its worst leaf."""
    return ENDINGS[_ending_key(exc)]


def task_state_for(exc: BaseException | None) -> TaskState:
    """Tell the state of a task whose block was left by `exc`."""
    errors = [leaf for leaf in _leaves(exc) if _leaf_key(leaf) == "exception"] if exc is not None else []
    if errors and all(_is_timeout(leaf) for leaf in errors):
        return TaskState.TIMED_OUT
    outcome = ending_for(exc).outcome
    return {Outcome.ERROR: TaskState.FAILED, Outcome.CANCELLED: TaskState.CANCELLED}.get(
        outcome or Outcome.OK, TaskState.DONE
    )


def _ending_key(exc: BaseException | None) -> str:
    if exc is None:
        return "left"
    return min((_leaf_key(leaf) for leaf in _leaves(exc)), key=_WORST_FIRST.index, default="exception")


def _leaves(exc: BaseException) -> Iterable[BaseException]:
    # By class first: anybody's exception may have a property of that name, which may do anything.
    nested: Any = getattr(exc, "exceptions", None) if "ExceptionGroup" in _class_names(exc) else None
    if isinstance(nested, (tuple, list)) and nested:
        for inner in nested:  # pyright: ignore[reportUnknownVariableType]
            yield from _leaves(inner)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield exc


def _leaf_key(exc: BaseException) -> str:
    if isinstance(exc, GeneratorExit):
        return "left"
    if any((c.__module__, c.__qualname__) in _CANCELLATIONS for c in type(exc).__mro__):
        return "cancelled"
    if isinstance(exc, KeyboardInterrupt):
        return "interrupted"
    if isinstance(exc, SystemExit):
        good = exc.code is None or (isinstance(exc.code, int) and exc.code == 0)
        return "exit_ok" if good else "exit_error"
    return "exception"


def _is_timeout(exc: BaseException) -> bool:
    return isinstance(exc, TimeoutError) or ("asyncio.exceptions", "TimeoutError") in {
        (c.__module__, c.__qualname__) for c in type(exc).__mro__
    }


def _class_names(exc: BaseException) -> set[str]:
    return {c.__qualname__.removeprefix("Base") for c in type(exc).__mro__}


# --- What is known of a run (the listener's side) --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of one run. All `*_until` are on the listener's monotonic clock, in ns."""

    phase: Phase = Phase.RUNNING
    waiting_for: str | None = None
    signal: Signal = Signal.NONE
    outcome: str | None = None
    end_reason: str | None = None
    started_at: int | None = None
    ended_at: int | None = None
    resumed: bool = False
    phase_seq: int = 0
    beat_seq: int = 0
    live_until: int | None = None
    lease_until: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The run was announced; without a heartbeat it is stale, and lost one `lease` (ns) after arrival."""

    at: int
    lease: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: `age` (ns) is how long it travelled, by `age_of`; `interval` and `lease` are in ns."""

    seq: int
    age: int
    interval: int
    lease: int
    phase: Phase = Phase.RUNNING
    waiting_for: str | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """The run went to waiting, or back to running."""

    seq: int
    phase: Phase
    waiting_for: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The run ended, by its end event or by a root span that bears an end reason."""

    at: int
    outcome: str | None
    reason: str | None
    started_at: int | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Extended:
    """The listener was away for `by` ns; that time counts against nobody."""

    by: int


Event = Started | Beat | Changed | Ended | Tick | Extended


def age_of(base: int | None, arrival: int, elapsed: int) -> tuple[int, int]:
    """Return the new base of a process and the age of what just arrived, both in ns.

    `elapsed` is the process's own age when it made the message. The smallest `arrival - elapsed` ever
    seen is the base; whatever exceeds it was spent on the way. Clocks of sender and listener never meet.
    """
    offset = arrival - elapsed
    base = offset if base is None else min(base, offset)
    return base, offset - base


def step(run: Run, event: Event, now: int) -> Run:
    """Return the run after `event`, seen at `now`."""
    return _TRANSITIONS[type(event)](run, event, now)


def _started(run: Run, event: Started, now: int) -> Run:
    first = event.at if run.started_at is None else min(run.started_at, event.at)
    run = replace(run, started_at=first, resumed=run.resumed or event.resumed)
    if run.phase is Phase.ENDED or run.signal is not Signal.NONE:
        return run
    return replace(run, signal=Signal.STALE, live_until=now, lease_until=now + event.lease)


def _beat(run: Run, event: Beat, now: int) -> Run:
    fresh = event.seq > run.beat_seq and event.age < event.lease
    run = _phase(run, event.seq, event.phase, event.waiting_for)
    if run.phase is Phase.ENDED or not fresh:
        return run
    sent = now - event.age
    run = replace(
        run,
        beat_seq=event.seq,
        live_until=max(run.live_until or sent, sent + MISSED_HEARTBEATS_UNTIL_STALE * event.interval),
        lease_until=max(run.lease_until or sent, sent + event.lease),
        signal=Signal.LIVE,
    )
    return _tick(run, Tick(), now)


def _changed(run: Run, event: Changed, _now: int) -> Run:
    return _phase(run, event.seq, event.phase, event.waiting_for)


def _phase(run: Run, seq: int, phase: Phase, waiting_for: str | None) -> Run:
    if run.phase is Phase.ENDED or seq <= run.phase_seq:
        return run
    return replace(run, phase=phase, waiting_for=waiting_for, phase_seq=seq)


def _ended(run: Run, event: Ended, _now: int) -> Run:
    starts = [at for at in (run.started_at, event.started_at) if at is not None]
    new = (event.at, event.outcome or "", event.reason or "")
    if run.phase is Phase.ENDED:
        new = min(new, (run.ended_at or 0, run.outcome or "", run.end_reason or ""))
    at, outcome, reason = new
    return Run(
        phase=Phase.ENDED,
        outcome=outcome or None,
        end_reason=reason or None,
        started_at=min(starts, default=None),
        ended_at=at,
        resumed=run.resumed,
    )


def _tick(run: Run, _event: Tick, now: int) -> Run:
    if run.signal in (Signal.NONE, Signal.LOST):
        return run
    if run.lease_until is not None and now >= run.lease_until:
        return replace(run, signal=Signal.LOST)
    if run.signal is Signal.LIVE and run.live_until is not None and now >= run.live_until:
        return replace(run, signal=Signal.STALE)
    return run


def _extended(run: Run, event: Extended, _now: int) -> Run:
    if run.signal in (Signal.NONE, Signal.LOST) or run.live_until is None or run.lease_until is None:
        return run
    return replace(run, live_until=run.live_until + event.by, lease_until=run.lease_until + event.by)


_TRANSITIONS: Final[dict[type, Callable[[Run, Any, int], Run]]] = {
    Started: _started,
    Beat: _beat,
    Changed: _changed,
    Ended: _ended,
    Tick: _tick,
    Extended: _extended,
}


# --- Who tells no life cycle: silence -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """How the times that one sender tells advance beside ours, in Unix ns; no clock is taken to be right.

    `since` and `from_` are our time and the sender's where this pace began, `told` the newest it told, `lag`
    the least by which ours was ahead of it. `steady`: both advanced alike for long enough to be alive.
    """

    since: int
    from_: int
    told: int
    lag: int
    steady: bool = False


def paced(paces: Sequence[Pace], arrival: int, told: int) -> tuple[Pace, ...]:
    """Return the paces of a session's senders after something came at `arrival`, the newest of it of `told`.

    What comes goes on with the pace that it keeps to within a minute, or begins one: another sender, a clock
    that was set, a backlog. A backlog advances far faster than we do, so it is never steady; what was told
    before tells no progress.
    """
    lag = arrival - told
    for pace in paces:
        if abs(lag - (pace.since - pace.from_)) <= _UNEVEN:
            return (_advanced(pace, arrival, told), *(other for other in paces if other is not pace))
    return (Pace(arrival, told, told, lag), *paces[: _PACES - 1])


def _advanced(pace: Pace, arrival: int, told: int) -> Pace:
    if told <= pace.told:
        return pace
    ours, theirs = arrival - pace.since, told - pace.from_
    steady = pace.steady or (theirs >= _PROVEN and 2 * ours >= theirs)
    return Pace(pace.since, pace.from_, told, min(pace.lag, arrival - told), steady)


def last_alive(seen: int, told: int | None, paces: Iterable[Pace]) -> int:
    """Tell when a session without life cycle events was last alive, by our clock, in Unix ns.

    `seen` is when anything of it last arrived, `told` the newest end of a span, or time of a log, in it.
    What lies in the past is history, unless a steady pace shows that its sender's clock is behind by so
    much. Nobody is alive later than seen: a clock that is ahead keeps no session running.
    """
    if told is None:
        return seen
    return min(seen, max([told, *(pace.told + pace.lag for pace in paces if pace.steady)]))


def is_idle(alive_at: int, idle_before: int) -> bool:
    """Tell whether a session without any known run, last alive at a time, is idle; both are Unix ns."""
    return alive_at <= idle_before


# --- What is shown of a session -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a session: the derived state, and the axes behind it."""

    state: State
    phase: Phase
    signal: Signal
    waiting_for: str | None = None
    outcome: str | None = None
    end_reason: str | None = None


def shown(runs: Sequence[Run], *, silence: int, idle_after: int, data_outcome: str | None = None) -> Shown:
    """Derive what is shown of a session from its runs.

    `silence` (ns) is how long ago it was `last_alive`, `data_outcome` what the spans of a session without
    any known run say of its outcome.
    """
    if not runs:
        state = State.IDLE if silence >= idle_after else State.RUNNING
        return Shown(state, Phase.RUNNING, Signal.NONE, outcome=data_outcome)
    live = [run for run in runs if run.phase is not Phase.ENDED and run.signal in (Signal.LIVE, Signal.NONE)]
    waiting = [run for run in live if run.phase is Phase.WAITING]
    if waiting:
        return Shown(State.WAITING, Phase.WAITING, waiting[-1].signal, waiting_for=waiting[-1].waiting_for)
    if live:
        return Shown(State.RUNNING, Phase.RUNNING, live[-1].signal)
    for signal, state in ((Signal.STALE, State.STALE), (Signal.LOST, State.LOST)):
        for run in runs:
            if run.phase is not Phase.ENDED and run.signal is signal and not _continued(run, runs):
                return Shown(state, run.phase, signal, waiting_for=run.waiting_for)
    ended = [run for run in runs if run.phase is Phase.ENDED]
    last = max(ended, key=lambda run: (run.ended_at or 0, run.started_at or 0))
    return Shown(State.ENDED, Phase.ENDED, Signal.NONE, outcome=last.outcome, end_reason=last.end_reason)


def _continued(run: Run, runs: Sequence[Run]) -> bool:
    return run.signal is Signal.LOST and any(
        other.resumed and (other.started_at or 0) > (run.started_at or 0) for other in runs
    )
