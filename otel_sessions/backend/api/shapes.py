"""Records as the API shows them: pure functions from frozen values to what JSON can hold.

Absolute times and durations are Unix nanoseconds as strings, for a JavaScript number holds them only to
the microsecond; ids are lower-case hex; counts are numbers; what is unknown is null, never 0 or "".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from otel_sessions.backend.filters import duration_of
from otel_sessions.backend.records import (
    OpenSpan,
    RunRecord,
    SessionDetail,
    SessionRecord,
    SpanRow,
    TaskRecord,
    TimelineEntry,
)
from otel_sessions.backend.store.base import Hit, SearchPage
from otel_sessions.lifecycle import State, is_idle

__all__ = [
    "JsonObject",
    "detail_json",
    "hex_ids",
    "hit_json",
    "ns",
    "open_span_json",
    "progress_json",
    "run_json",
    "session_json",
    "shown_state",
    "span_row_json",
    "task_json",
    "timeline_json",
]

JsonObject = dict[str, Any]


def ns(value: int | None) -> str | None:
    """Write a time or duration in nanoseconds as a string."""
    return None if value is None else str(value)


def hex_ids(ids: Iterable[bytes]) -> list[str]:
    """Write ids as lower-case hex."""
    return [id_.hex() for id_ in ids]


def shown_state(session: SessionRecord, *, idle_before: int) -> str:
    """Tell the state to show.

    A session without any known run is idle if it was last alive by `idle_before` (Unix ns). No message
    tells of silence, so this one state is derived when it is read.
    """
    silent = is_idle(session.last_alive_at, idle_before)
    if session.runs_count == 0 and session.state == State.RUNNING.value and silent:
        return State.IDLE.value
    return session.state


def session_json(session: SessionRecord, *, idle_before: int) -> JsonObject:
    """Shape a session as S, the form in which list, detail and stream show it."""
    return {
        "id": session.id,
        "session_id": session.session_id,
        "name": session.name,
        "title": session.title,
        "service": session.service,
        "user_id": session.user_id,
        "conversation_id": session.conversation_id,
        "state": shown_state(session, idle_before=idle_before),
        "phase": session.phase,
        "signal": session.signal,
        "waiting_for": session.waiting_for,
        "outcome": session.outcome,
        "end_reason": session.end_reason,
        "error": session.error,
        "started_at": ns(session.started_at),
        "ended_at": ns(session.ended_at),
        "last_seen_at": ns(session.last_seen_at),
        "last_ended_at": ns(session.last_ended_at),
        "last_alive_at": ns(session.last_alive_at),
        "duration": ns(duration_of(session)),
        **_counts_json(session),
        "missing_spans": session.missing_spans,
        "inferred": session.inferred,
        "revision": session.revision,
    }


def _counts_json(session: SessionRecord) -> JsonObject:
    return {
        "runs_count": session.runs_count,
        "spans": session.spans,
        "errors": session.errors,
        "traces_count": session.traces_count,
        "tasks_count": session.tasks_count,
        "turns": session.turns,
        "model_calls": session.model_calls,
        "tool_calls": session.tool_calls,
        "agents": list(session.agents),
        "models": list(session.models),
        "tools": list(session.tools),
        "input_tokens": session.input_tokens,
        "output_tokens": session.output_tokens,
        "cached_tokens": session.cached_tokens,
        "cost": _finite(session.cost),
    }


def run_json(record: RunRecord) -> JsonObject:
    """Shape one run of a session."""
    run = record.run
    return {
        "root_id": record.root_id.hex(),
        "trace_id": record.trace_id.hex(),
        "process": record.process,
        "phase": run.phase.value,
        "signal": run.signal.value,
        "waiting_for": run.waiting_for,
        "outcome": run.outcome,
        "end_reason": run.end_reason,
        "started_at": ns(run.started_at),
        "ended_at": ns(run.ended_at),
        "last_heard_at": ns(record.last_heard_at),
        "resumed": run.resumed,
        "child": record.child,
        "interval": ns(record.interval),
        "lease": ns(record.lease),
        "previous_id": record.previous_id,
        "open_spans": hex_ids(record.open_spans),
    }


def task_json(task: TaskRecord) -> JsonObject:
    """Shape one task of a session."""
    return {
        "id": task.id,
        "name": task.name,
        "parent_id": task.parent_id,
        "state": task.state,
        "started_at": ns(task.started_at),
        "ended_at": ns(task.ended_at),
        "duration": ns(_between(task.started_at, task.ended_at)),
        "spans": task.spans,
        "trace_id": task.trace_id.hex(),
        "span_id": None if task.span_id is None else task.span_id.hex(),
    }


def timeline_json(entry: TimelineEntry) -> JsonObject:
    """Shape one change of state."""
    return {
        "at": ns(entry.at),
        "state": entry.state,
        "detail": entry.detail,
        "root_id": entry.root_id.hex() or None,
    }


def open_span_json(span: OpenSpan) -> JsonObject:
    """Shape one announced span that has not ended."""
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "name": span.name,
        "start": ns(span.start),
        "category": span.category,
    }


def detail_json(detail: SessionDetail, *, idle_before: int) -> JsonObject:
    """Shape a session with all that its own page shows beside the rows."""
    return {
        **session_json(detail.session, idle_before=idle_before),
        "runs": [run_json(run) for run in detail.runs],
        "traces": hex_ids(detail.traces),
        "tasks": [task_json(task) for task in detail.tasks],
        "timeline": [timeline_json(entry) for entry in detail.timeline],
        "open_spans": [open_span_json(span) for span in detail.open_spans],
        "losses": dict(detail.losses),
        "pinned": detail.pinned,
    }


def hit_json(hit: Hit) -> JsonObject:
    """Shape one hit of a search."""
    return {
        "session": hit.session_id,
        "session_name": hit.session_name,
        "trace_id": hit.trace_id.hex(),
        "span_id": hit.span_id.hex(),
        "name": hit.name,
        "start": ns(hit.start),
        "snippet": hit.snippet,
        "marks": [list(mark) for mark in hit.marks],
        "field": hit.field,
    }


def progress_json(page: SearchPage) -> JsonObject:
    """Shape how far a page of a search came."""
    return {"reached": ns(page.reached), "share": page.share, "chunks": page.chunks, "bytes": page.bytes}


def span_row_json(row: SpanRow) -> JsonObject:
    """Shape the index row of one span, for the span's own answer."""
    return {
        "name": row.name,
        "kind": row.kind,
        "category": row.category,
        "start": ns(row.start),
        "end": ns(row.end),
        "status": row.status,
        "flags": row.flags,
        "parent_id": row.parent_id.hex() or None,
        "service": row.service or None,
        "task_id": row.task_id,
        "agent": row.agent,
        "model": row.model,
        "tool": row.tool,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
    }


def _between(start: int | None, end: int | None) -> int | None:
    """Measure from start to end; None where a clock was set back and the figure would mean nothing."""
    return None if start is None or end is None or end < start else end - start


def _finite(value: float | None) -> float | None:
    """Drop what JSON has no word for: a sender may claim a cost of NaN."""
    return value if value is not None and math.isfinite(value) else None
