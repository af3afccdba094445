"""The plainest possible reckoning of what a store must show, from everything that was ever sent.

It knows all at once, so it needs no order, no increments and no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from otel_sessions.backend.records import Flag, Gauge, LogRecord, Request, SessionHint, SpanRecord
from otel_sessions.backend.resolve import global_key, home_rank, session_id, session_key, trace_key

__all__ = ["reckon"]

Key = tuple[bytes, bytes]
Record = SpanRecord | LogRecord
USAGE = ("model", "embedding")


@dataclass(frozen=True)
class _World:
    spans: dict[Key, SpanRecord]  # the kept copies
    logs: dict[bytes, LogRecord]
    homes: dict[bytes, str]  # trace -> session key
    seen: dict[str, int]  # session key -> latest arrival

    def key_of(self, record: Record, alias: Any) -> str | None:
        if record.hint is not None:
            return alias(record.hint)
        return self.homes[record.trace_id] if record.trace_id else None


def reckon(requests: Sequence[Request], gauges: Sequence[Gauge] = ()) -> dict[str, dict[str, Any]]:
    """Return what is to be seen of each session, by our id."""
    sent: list[tuple[Record, int]] = [(r, q.received_at) for q in requests for r in (*q.spans, *q.logs)]
    hints = [record.hint for record, _ in sent if record.hint is not None]
    told = {(hint.service, hint.value) for hint in hints if not hint.scope}

    def alias(hint: SessionHint) -> str:
        return global_key(hint.value) if (hint.scope, hint.value) in told else session_key(hint)

    spans = _kept([span for q in requests for span in q.spans])
    logs = {log.digest: log for q in requests for log in q.logs}
    homes = _homes([*spans.values(), *logs.values()], {record.trace_id for record, _ in sent}, alias)
    world = _World(spans, logs, homes, {})
    for record, at in sent:
        key = world.key_of(record, alias)
        if key is not None:
            world.seen[key] = max(at, world.seen.get(key, 0))
    keys = {world.key_of(record, alias) for record in (*spans.values(), *logs.values())}
    keys |= {gauge.session_key for gauge in gauges}
    return {session_id(key): _session(key, world, alias, gauges) for key in keys if key is not None}


def _kept(copies: Iterable[SpanRecord]) -> dict[Key, SpanRecord]:
    kept: dict[Key, SpanRecord] = {}
    for span in copies:
        known = kept.get((span.trace_id, span.span_id))
        if known is None or _rank(span) > _rank(known):
            kept[span.trace_id, span.span_id] = span
    return kept


def _rank(span: SpanRecord) -> tuple[Any, ...]:
    return (not span.flags & Flag.SYNTHETIC, span.end is not None, span.end or 0, span.size)


def _homes(records: Iterable[Record], traces: Iterable[bytes], alias: Any) -> dict[bytes, str]:
    homes = {trace: trace_key(trace) for trace in traces}
    ranks: dict[bytes, Any] = {}
    for record in records:
        if record.hint is not None and record.trace_id:
            rank = home_rank(record)
            if record.trace_id not in ranks or rank < ranks[record.trace_id]:
                ranks[record.trace_id] = rank
                homes[record.trace_id] = alias(record.hint)
    return homes


def _session(key: str, world: _World, alias: Any, gauges: Sequence[Gauge]) -> dict[str, Any]:
    spans = [span for span in world.spans.values() if world.key_of(span, alias) == key]
    logs = [log for log in world.logs.values() if world.key_of(log, alias) == key]
    calls = [span for span in spans if span.category in USAGE and not _told_twice(span, world)]
    roots = [span for span in spans if not span.parent_id]
    model_logs = [log for log in logs if log.category == "model"]
    tool_logs = [log for log in logs if log.category == "tool"]
    usage = {
        name: _sum_of_who_knows_more(name, calls, logs)
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cost")
    }
    outcome, why = _ending(spans)
    return {
        **usage,
        "spans": len(spans),
        "errors": sum(span.status == 2 for span in spans),
        "turns": max(sum(span.turn for span in spans), sum(log.turn for log in logs)) or None,
        "model_calls": max(sum(span.category == "model" for span in calls), len(model_logs)),
        "tool_calls": max(sum(span.category == "tool" for span in spans), len(tool_logs)),
        "traces": {record.trace_id for record in (*spans, *logs) if record.trace_id},
        "tasks": {span.task_id for span in spans if span.task_id is not None},
        "agents": _firsts((span.start, span.agent) for span in spans),
        "models": _firsts([(s.start, s.model) for s in spans if s.category in USAGE]
                          + [(log.time, log.model) for log in model_logs]),
        "tools": _firsts([(s.start, s.tool) for s in spans if s.category == "tool"]
                         + [(log.time, log.tool) for log in logs]),
        "started_at": min((span.start for span in spans), default=None)
        or min((log.time for log in logs), default=None)
        or world.seen.get(key, 0),
        "last_seen_at": world.seen.get(key, 0),
        "service": min(
            [(bool(span.parent_id), span.start, span.service) for span in spans]
            + [(2, log.time, log.service) for log in logs],
            default=(0, 0, None),
        )[2],
        "name": min(((root.start, root.name) for root in roots), default=(0, None))[1],
        "user_id": min(((r.start if isinstance(r, SpanRecord) else r.time, r.user_id)
                        for r in (*spans, *logs) if r.user_id), default=(0, None))[1],
        "outcome": None if outcome == "waiting" else outcome or None,
        "waiting_for": "approval" if outcome == "waiting" else None,
        "error": why or None if outcome == "error" else None,
        "last_ended_at": max((span.end for span in spans if span.end is not None), default=None)
        if spans
        else max((log.time for log in logs), default=None),
        "missing_spans": _missing(key, spans, world, gauges),
        "rows": {span._replace(ordinal=0, size=0, hint=None) for span in spans},
        "logs": len(logs),
    }  # fmt: skip


def _ending(spans: list[SpanRecord]) -> tuple[str, str]:
    """Return how the turn of the root that ended last went, and why: as it says, else as its calls say."""
    ended = [span for span in spans if span.end is not None]
    roots = [(s.end, s.outcome or "", s.failure or "", s.trace_id) for s in ended if not s.parent_id]
    if not roots:
        return "", ""
    _, outcome, why, trace = max(roots)
    calls = [s for s in ended if s.parent_id and s.outcome is not None and s.trace_id == trace]
    # A call that went wrong counts from when it began, whatever was answered, or an agent, when it ended.
    signs = [
        (s.start if s.outcome and s.category == "model" else s.end, s.outcome, s.failure or "") for s in calls
    ]
    _, sign, reason = max(signs, default=(0, "", ""))
    return (outcome, why or reason) if outcome else (sign, reason)


def _told_twice(span: SpanRecord, world: _World) -> bool:
    """Tell whether a model call directly around or below this one counts instead of it."""
    children = [other for other in world.spans.values()
                if (other.trace_id, other.parent_id) == (span.trace_id, span.span_id) and other.category in USAGE]  # fmt: skip
    parent = world.spans.get((span.trace_id, span.parent_id))
    return any(map(_knows, children)) or (
        not _knows(span) and parent is not None and parent.category in USAGE
    )


def _knows(span: SpanRecord) -> bool:
    return span.input_tokens is not None or span.output_tokens is not None


def _missing(key: str, spans: list[SpanRecord], world: _World, gauges: Sequence[Gauge]) -> int | None:
    newest: dict[str, Gauge] = {}
    for gauge in gauges:
        known = newest.get(gauge.process)
        if gauge.session_key == key:
            newest[gauge.process] = gauge if known is None or gauge.ended > known.ended else known
    if newest:
        ended = sum(span.end is not None and not span.flags & Flag.LATE for span in spans)
        return max(0, sum(gauge.ended for gauge in newest.values()) - ended)
    absent = {(span.trace_id, span.parent_id) for span in spans if span.parent_id} - world.spans.keys()
    return len(absent) or None


def _sum_of_who_knows_more(name: str, calls: list[SpanRecord], logs: list[LogRecord]) -> Any:
    """Sum what spans or logs know: who knows of more calls; of two that know as many, the greater sum."""
    known = [[value for one in of if (value := getattr(one, name)) is not None] for of in (calls, logs)]
    count, total = max((len(values), sum(values)) for values in known)
    return total if count else None


def _firsts(dated: Iterable[tuple[int, str | None]]) -> tuple[str, ...]:
    firsts: dict[str, int] = {}
    for at, name in dated:
        if name:
            firsts[name] = min(at, firsts.get(name, at))
    return tuple(sorted(firsts, key=lambda name: (firsts[name], name)))
