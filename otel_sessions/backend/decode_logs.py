"""One OTLP log record into its index row, and a life cycle event into what it tells of a run; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage

from otel_sessions import semconv
from otel_sessions.backend.attributes import (
    MAX_TIME,
    Slots,
    Source,
    Usage,
    entries,
    fill,
    hint,
    identity,
    plain,
    span_id,
    trace_id,
    usage,
    word,
)
from otel_sessions.backend.records import Flag, LogRecord, RunEvent, SessionHint, SpanRecord
from otel_sessions.backend.vocabulary import (
    ALLOWED,
    CALL_LOGS,
    TURN_LOGS,
    category_of_name,
    plain_model,
)

__all__ = ["announced_root", "announced_span", "decode_log", "event_name", "is_life_cycle", "run_event"]

_SOURCE_POSITION: Final = re.compile(r"event \S+:\d+")  # what Codex writes into event_name
_NS: Final = 1_000_000_000
_YEAR: Final = 366 * 86_400.0
_INTERVAL: Final = 5 * _NS  # what an event that does not say is taken to mean
_LEASE: Final = 120 * _NS
_MOST_OPEN_SPANS: Final = 64
_PHASES: Final = frozenset({"running", "waiting"})

Attributes = Mapping[str, Any]


def decode_log(log: LogMessage, emitter: str, source: Source, ordinal: int, digest: bytes) -> LogRecord:
    """Return the index row of a log record."""
    slots = fill(log.attributes, entries(emitter))
    values = slots.values
    name = word(event_name(log.event_name, values.get("event_name")))
    category = _counted(slots, emitter, name)
    used = usage(slots, emitter) if category == "model" else Usage()
    model = values.get("request_model") if category == "model" else None
    return LogRecord(
        trace_id=trace_id(log.trace_id),
        span_id=span_id(log.span_id),
        time=log.time_unix_nano or log.observed_time_unix_nano,
        event_name=name,
        severity=log.severity_number,
        ordinal=ordinal,
        digest=digest,
        service=source.service,
        hint=hint(slots, source),
        model=plain_model(model) if model else None,
        provider=(values.get("provider") or "").lower() or None if category == "model" else None,
        input_tokens=used.input,
        output_tokens=used.output,
        cached_tokens=used.cached,
        cost=values.get("cost") if category == "model" else None,
        user_id=values.get("user") or source.user,
        category=category,
        tool=values.get("tool") if category == "tool" else None,
        turn=(emitter, name) in TURN_LOGS,
    )


def event_name(name: str, attribute: str | None) -> str:
    """Return an event's name from the record's field, else from its attribute `event.name`, else ""."""
    return name if name and not _SOURCE_POSITION.fullmatch(name) else attribute or ""


def _counted(slots: Slots, emitter: str, name: str) -> str:
    """Tell which kind of call this log stands for, "" where it stands for none."""
    known = any(owner == emitter for owner, _ in CALL_LOGS)
    category = CALL_LOGS.get((emitter if known else "", name), "")
    values = slots.values
    if category == "model" and not ("input" in values or "output" in values):
        return ""
    if category == "tool" and values.get("decision", ALLOWED[0]) not in ALLOWED:
        return ""
    return category


# --- Life cycle events ----------------------------------------------------------------------------------


def is_life_cycle(log: LogMessage, scope: str) -> bool:
    """Tell whether a log record is a life cycle event of ours."""
    return scope == semconv.SCOPE_NAME and log.event_name in semconv.EVENTS


def attributes_of(log: LogMessage) -> Attributes:
    """Return a log record's attributes as plain values."""
    return {attribute.key: plain(attribute.value) for attribute in log.attributes}


def run_event(log: LogMessage) -> RunEvent | None:
    """Return what a life cycle event tells of its run; None where it names none."""
    given = attributes_of(log)
    session, root = _id(given, semconv.SESSION_ID), span_id(log.span_id)
    if session is None or not root or log.event_name == semconv.EVENT_SPAN_START:
        return None
    at = min(log.time_unix_nano or log.observed_time_unix_nano, MAX_TIME)
    phase, previous = _text(given, semconv.PHASE), _id(given, semconv.SESSION_PREVIOUS_ID)
    starts = log.event_name in (semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_RESUMED)
    return RunEvent(
        name=log.event_name,
        session_id=session,
        trace_id=trace_id(log.trace_id),
        root_id=root,
        at=at,
        process=_id(given, semconv.PROCESS_ID) or "",
        seq=_count(given, semconv.SEQ) or 0,
        elapsed=_count(given, semconv.ELAPSED),
        interval=_seconds(given, semconv.HEARTBEAT_INTERVAL, _INTERVAL),
        lease=_seconds(given, semconv.LEASE, _LEASE),
        child=given.get(semconv.CHILD) is True,
        phase=phase if phase in _PHASES else None,
        waiting_for=_text(given, semconv.WAITING_FOR),
        previous_id=previous if previous != session else None,
        session_name=_text(given, semconv.SESSION_NAME),
        title=_text(given, semconv.SESSION_TITLE),
        outcome=_text(given, semconv.SESSION_OUTCOME),
        end_reason=_text(given, semconv.SESSION_END_REASON),
        started_at=at if starts else None,
        started=_count(given, semconv.SPANS_STARTED),
        ended=_count(given, semconv.SPANS_ENDED),
        dropped=_count(given, semconv.SPANS_DROPPED),
        losses=_text(given, semconv.SPANS_LOSSES) or "",
        open_spans=_open_spans(given.get(semconv.OPEN_SPANS)),
    )


def announced_root(event: RunEvent, log: LogMessage, source: Source, ordinal: int) -> SpanRecord | None:
    """Return the root span that a run's start announces; None where a child process speaks."""
    if not event.trace_id or event.child:
        return None
    return SpanRecord(
        trace_id=event.trace_id,
        span_id=event.root_id,
        parent_id=b"",
        name=word(f"session {event.session_name}") if event.session_name else "session",
        kind=_INTERNAL,
        start=event.at,
        end=None,
        status=0,
        category="session",
        ordinal=ordinal,
        size=log.ByteSize(),
        flags=int(Flag.OPEN),
        service=source.service,
        hint=SessionHint(event.session_id, "", source.scope),
        session_name=event.session_name,
        title=event.title,
        user_id=_id(attributes_of(log), semconv.USER_ID) or source.user,
    )


_INTERNAL: Final = 1


def announced_span(log: LogMessage, source: Source, ordinal: int) -> SpanRecord | None:
    """Return the span that an `otel_sessions.span.start` announces; None without a valid id."""
    trace, own_id = trace_id(log.trace_id), span_id(log.span_id)
    if not trace or not own_id:
        return None
    given = attributes_of(log)
    name = _text(given, semconv.SPAN_NAME) or ""
    category, slot, label = category_of_name(name)
    session = _id(given, semconv.SESSION_ID)
    return SpanRecord(
        trace_id=trace,
        span_id=own_id,
        parent_id=span_id(_bytes(given.get(semconv.SPAN_PARENT_ID))),
        name=name,
        kind=_count(given, semconv.SPAN_KIND) or 0,
        start=_count(given, semconv.SPAN_START) or log.time_unix_nano or log.observed_time_unix_nano,
        end=None,
        status=0,
        category=category,
        ordinal=ordinal,
        size=log.ByteSize(),
        flags=int(Flag.OPEN),
        service=source.service,
        hint=SessionHint(session or source.session or "", "", source.scope)
        if session or source.session
        else None,
        user_id=_id(given, semconv.USER_ID) or source.user,
        task_id=_id(given, semconv.TASK_ID),
        task_name=_text(given, semconv.TASK_NAME),
        task_parent_id=_id(given, semconv.TASK_PARENT_ID),
        task_state="running" if category == "task" else None,
        agent=label if slot == "agent" else None,
        model=label if slot == "model" else None,
        tool=label if slot == "tool" else None,
    )


def _text(given: Attributes, key: str) -> str | None:
    value = given.get(key)
    return word(value) if isinstance(value, str) and value else None


def _id(given: Attributes, key: str) -> str | None:
    value = given.get(key)
    return identity(value) if isinstance(value, str) and value else None


def _count(given: Attributes, key: str) -> int | None:
    value = given.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _seconds(given: Attributes, key: str, default: int) -> int:
    """Return a number of seconds in ns; what no clock could wait for counts as not said."""
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return default
    return int(value * _NS) if 0 < value <= _YEAR else default


def _open_spans(value: Any) -> tuple[bytes, ...]:
    ids = [span_id(_bytes(item)) for item in value[:_MOST_OPEN_SPANS]] if isinstance(value, list) else []
    return tuple(id_ for id_ in ids if id_)


def _bytes(value: Any) -> bytes:
    """Return the bytes of hex digits, b"" for anything else."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""
