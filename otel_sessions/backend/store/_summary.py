"""What is known of one session while it is written, and the roll-up row that follows from it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final

from otel_sessions.backend.habits import WAITING
from otel_sessions.backend.records import (
    Gauge,
    LogRecord,
    RunRecord,
    SessionRecord,
    SpanRecord,
    Sums,
    Used,
)
from otel_sessions.backend.store._tally import LISTED, TOOLS_LISTED, Tally, Usage
from otel_sessions.lifecycle import Outcome, Pace, Phase, Shown, Signal, State, last_alive, paced, shown

__all__ = ["SessionState", "missing_spans", "summary", "used_by_model"]

RunKey = tuple[bytes, str]  # root id, and the process where it is a child's


@dataclass(slots=True)
class SessionState:
    """One session as the writer knows it. `no` is its number in the database."""

    no: int
    id: str
    key: str
    session_id: str | None
    tally: Tally = field(default_factory=Tally)
    runs: dict[RunKey, RunRecord] = field(default_factory=dict[RunKey, RunRecord])
    gauges: dict[str, Gauge] = field(default_factory=dict[str, Gauge])
    traces: int = 0
    tasks: int = 0
    missing_parents: int = 0
    own_seen: int = 0  # latest arrival of what told this session itself
    loose_seen: int = 0  # latest arrival of what is here by its trace
    paces: tuple[Pace, ...] = ()  # of a session without any run
    row: tuple[Any, ...] | None = None  # the roll-up row as it is in the database
    sums: Sums | None = None  # what it added to the sums over all sessions by the last commit
    known_traces: set[bytes] = field(default_factory=set[bytes])
    known_tasks: set[str] = field(default_factory=set[str])

    @property
    def last_seen(self) -> int:
        """Latest arrival of anything of this session."""
        return max(self.own_seen, self.loose_seen)

    def keep_pace(self, spans: Sequence[SpanRecord], logs: Sequence[LogRecord]) -> None:
        """Compare the times that what just came tells with when it came; runs tell of life better."""
        told = max([span.end or 0 for span in spans] + [log.time for log in logs], default=0)
        if self.runs:
            self.paces = ()
        elif told:
            self.paces = paced(self.paces, self.last_seen, told)

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of the session any more."""
        return not (self.tally.spans or self.tally.logs or self.runs or self.gauges)


def summary(session: SessionState, revision: int) -> SessionRecord:
    """Return the roll-up row of a session; without any run its state is "running", for it was just seen."""
    tally = session.tally
    runs = sorted(
        (record for (_, child), record in session.runs.items() if not child),
        key=lambda record: (record.run.started_at or 0, record.root_id),
    )
    view = _view(session, runs)
    return SessionRecord(
        id=session.id,
        session_id=session.session_id,
        name=_name(tally, runs),
        title=_title(tally, runs),
        service=_text(tally.service),
        user_id=_text(tally.user),
        conversation_id=_text(tally.conversation),
        state=view.state.value,
        phase=view.phase.value,
        signal=view.signal.value,
        waiting_for=view.waiting_for,
        outcome=view.outcome,
        end_reason=view.end_reason,
        started_at=_started_at(session, runs),
        ended_at=_ended_at(view, runs),
        last_seen_at=session.last_seen,
        runs_count=len(runs),
        spans=tally.spans,
        errors=tally.errors,
        traces_count=session.traces,
        tasks_count=session.tasks,
        # Spans and logs tell of the same: as many as who saw most.
        turns=max(tally.turns, tally.log_turns) or None,
        model_calls=max(tally.model_calls, tally.log_model_calls),
        tool_calls=max(tally.tool_calls, tally.log_tool_calls),
        agents=_listed(tally.agents),
        models=_listed(tally.models),
        tools=_listed(tally.tools, TOOLS_LISTED),
        input_tokens=_known(tally, "input_tokens", "input_known"),
        output_tokens=_known(tally, "output_tokens", "output_known"),
        cached_tokens=_known(tally, "cached_tokens", "cached_known"),
        cost=_cost(tally),
        missing_spans=missing_spans(session),
        inferred=not session.runs,
        revision=revision,
        error=_told(tally)[1] or None if view.outcome == Outcome.ERROR.value else None,
        last_ended_at=tally.last_ended if tally.spans else tally.last_logged,
        last_alive_at=session.last_seen
        if session.runs
        else last_alive(session.last_seen, tally.last_told, session.paces),
    )


def missing_spans(session: SessionState) -> int | None:
    """Tell how many spans are known to exist and are not stored; None where nothing tells.

    The senders' own counts say it best. Without any, parents that are named and not stored are known;
    that all named parents are there proves nothing.
    """
    if session.gauges and any(record.run.signal is Signal.LIVE for record in session.runs.values()):
        # A heartbeat counts spans that are still on their way: only what the sender gave up is missing.
        return sum(gauge.dropped for gauge in session.gauges.values())
    if session.gauges:
        return max(0, sum(gauge.ended for gauge in session.gauges.values()) - session.tally.ended)
    return session.missing_parents or None


def _view(session: SessionState, runs: list[RunRecord]) -> Shown:
    told = _told(session.tally)[0]
    view = shown([record.run for record in runs], silence=0, idle_after=1, data_outcome=told or None)
    if view.outcome == WAITING:
        return replace(view, phase=Phase.WAITING, waiting_for=_APPROVAL, outcome=None)
    return view


_APPROVAL: Final = "approval"  # what `Session.waiting` of the SDK calls it


def _told(tally: Tally) -> tuple[str, str]:
    """Return what the data says of how the turn ended that ended last, and why: its root, else its calls."""
    if tally.outcome is None:
        return "", ""
    _, outcome, why, trace = tally.outcome
    _, sign, reason = tally.signs.get(trace, (0, "", ""))
    return (outcome, why or reason) if outcome else (sign, reason)


def _name(tally: Tally, runs: list[RunRecord]) -> str | None:
    named = [record.session_name for record in runs if record.session_name]
    return named[0] if named else _text(tally.session_name) or _text(tally.root_name)


def _title(tally: Tally, runs: list[RunRecord]) -> str | None:
    titled = [record.title for record in runs if record.title]
    return titled[-1] if titled else _text(tally.title)


def _started_at(session: SessionState, runs: list[RunRecord]) -> int:
    starts = [record.run.started_at for record in runs if record.run.started_at]
    if session.tally.started is not None:
        starts.append(session.tally.started)
    return min(starts) if starts else session.tally.logged or session.last_seen


def _ended_at(view: Shown, runs: list[RunRecord]) -> int | None:
    ends = [record.run.ended_at for record in runs if record.run.ended_at is not None]
    return max(ends, default=None) if view.state is State.ENDED else None


def _listed(firsts: dict[str, int], most: int = LISTED) -> tuple[str, ...]:
    """Return names by when they were first told; SQLite takes a NUL for the end of a text in JSON."""
    names = sorted(firsts, key=lambda name: (firsts[name], name))[:most]
    return tuple(name.replace("\0", "\N{REPLACEMENT CHARACTER}") for name in names)


def _known(tally: Tally, value: str, known: str) -> int | None:
    usage = _source(tally, value, known)
    return getattr(usage, value) if getattr(usage, known) else None


def _source(tally: Tally, value: str, known: str) -> Usage:
    """Choose between what spans and what logs know: many emitters send each call as both.

    Who knows more calls has seen more. Of two that know as many, the greater leaves less out: Gemini CLI's
    spans do not tell what the model thought.
    """
    if not tally.logs:
        return tally.span_usage
    return max((tally.span_usage, tally.log_usage), key=attrgetter(known, value))


def used_by_model(tally: Tally) -> dict[tuple[str, str], Used]:
    """Return what each model used; of each kind, from where the session's own sum is (`_source`)."""
    if not tally.log_usage_by_model:
        by_model = tally.span_usage_by_model
        return {model: Used(*used) for model, usage in by_model.items() if any(used := _amounts(usage))}
    sources = [
        tally.span_usage_by_model
        if _source(tally, value, known) is tally.span_usage
        else tally.log_usage_by_model
        for value, known in _KINDS
    ]
    models = dict.fromkeys((*tally.span_usage_by_model, *tally.log_usage_by_model))
    used = {
        model: Used(*(_amounts(by_model.get(model, _NOTHING))[no] for no, by_model in enumerate(sources)))
        for model in models
    }
    return {model: amounts for model, amounts in used.items() if any(amounts)}


_KINDS: Final = (
    ("input_tokens", "input_known"),
    ("output_tokens", "output_known"),
    ("cached_tokens", "cached_known"),
    ("cost", "cost_known"),
)
_amounts = attrgetter(*(value for value, _ in _KINDS))
_NOTHING: Final = Usage()


def _cost(tally: Tally) -> float | None:
    nano = _known(tally, "cost", "cost_known")
    return None if nano is None else nano / 1e9


def _text(dated: tuple[int, str] | tuple[int, int, str] | None) -> str | None:
    return None if dated is None else dated[-1]
