"""One OTLP span into its index row, and a run's root into what it tells of the run; pure."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.attributes import (
    MAX_TIME,
    Slots,
    Source,
    Usage,
    entries,
    fill,
    hint,
    span_id,
    trace_id,
    usage,
    word,
)
from otel_sessions.backend.habits import ANSWERED, HABITS, WAITING
from otel_sessions.backend.records import Flag, RunEvent, SpanRecord
from otel_sessions.backend.vocabulary import (
    CONTENT_EVENTS,
    NAMED_SPANS,
    TURN_SPANS,
    plain_model,
)
from otel_sessions.semconv import EXCEPTION_EVENT, EXCEPTION_MESSAGE, EXCEPTION_TYPE

__all__ = ["ROOT_EVENT", "decode_span", "root_event"]

ROOT_EVENT: Final = "root"
"""Name of the RunEvent that a run's own root span stands for."""

_OK, _ERROR = 1, 2
_CANCELLED_EVENT: Final = "span.cancelled"  # LlamaIndex workflows
_END_STATES: Final = {"Success": "ok", "Fail": "error"}  # AgentOps; "Indeterminate" says nothing
_USED: Final = frozenset({"model", "embedding"})
_TURNS: Final = frozenset({"agent", "workflow"})
_PLAIN_TOOL_RANKS: Final = 3  # names of tools that mean a tool in any scope
_NO_USAGE: Final = Usage()

# Plain ints: an operation of IntFlag costs more than reading an attribute.
_OPEN, _LINKED, _SYNTHETIC = int(Flag.OPEN), int(Flag.LINKED), int(Flag.SYNTHETIC)
_EXCEPTION, _CONTENT = int(Flag.EXCEPTION), int(Flag.CONTENT)
_MARKS: Final = (
    ("content", _CONTENT),
    ("late", int(Flag.LATE)),
    ("forced", int(Flag.FORCED)),
    ("synthetic", _SYNTHETIC),
)


def decode_span(
    span: SpanMessage, emitter: str, source: Source, ordinal: int
) -> tuple[SpanRecord, Slots] | None:
    """Return the index row of a span and what its attributes filled; None without a valid id."""
    trace, own_id = trace_id(span.trace_id), span_id(span.span_id)
    if not trace or not own_id:
        return None
    slots = fill(span.attributes, entries(emitter))
    values = slots.values
    parent, name, status = span_id(span.parent_span_id), span.name, span.status.code
    category = _category(slots, emitter, name, is_root=not parent)
    used = usage(slots, emitter) if category in _USED else _NO_USAGE
    flags, cancelled = _flags(span, values)
    end = span.end_time_unix_nano
    record = SpanRecord(
        trace_id=trace,
        span_id=own_id,
        parent_id=parent,
        name=word(name),
        kind=span.kind,
        start=span.start_time_unix_nano,
        end=end or None,
        status=status if status in (_OK, _ERROR) else 0,
        category=category,
        ordinal=ordinal,
        size=span.ByteSize(),
        flags=flags if end else flags | _OPEN,
        service=source.service,
        hint=hint(slots, source),
        session_name=values.get("session_name"),
        title=values.get("title"),
        user_id=values.get("user") or source.user,
        conversation_id=values.get("conversation"),
        task_id=values.get("task"),
        task_name=values.get("task_name"),
        task_parent_id=values.get("task_parent"),
        task_state=values.get("task_state"),
        agent=_agent(values, category),
        model=_model(values, category),
        provider=_provider(values) if category in _USED else None,
        tool=values.get("tool") or (values.get("entity") if category == "tool" else None),
        input_tokens=used.input,
        output_tokens=used.output,
        cached_tokens=used.cached,
        cost=values.get("cost") if category in _USED else None,
        turn=(emitter, name) in TURN_SPANS or (not parent and category in _TURNS),
        outcome=_outcome(values, emitter, category, status, cancelled=cancelled, is_root=not parent)
        if end
        else None,
        failure=_failure(span, values) if status == _ERROR else None,
    )
    return record, slots


def root_event(record: SpanRecord, slots: Slots) -> RunEvent | None:
    """Return what a run's root tells of the run; None for any other span, and for a root somebody made up."""
    values = slots.values
    if "end_reason" not in values or record.end is None or record.hint is None or record.flags & _SYNTHETIC:
        return None
    return RunEvent(
        name=ROOT_EVENT,
        session_id=record.hint.value,
        trace_id=record.trace_id,
        root_id=record.span_id,
        at=min(record.end, MAX_TIME),
        process=values.get("process", ""),
        session_name=record.session_name,
        title=record.title,
        outcome=values.get("outcome"),
        end_reason=values["end_reason"],
        started_at=min(record.start, MAX_TIME),
        started=values.get("spans_started"),
        ended=values.get("spans_ended"),
        dropped=values.get("spans_dropped"),
        losses=values.get("spans_losses", ""),
    )


def _category(slots: Slots, emitter: str, name: str, *, is_root: bool) -> str:
    values = slots.values
    if "session_name" in values:
        return "session"
    if "task_state" in values:
        return "task"
    kind = values.get("kind") or NAMED_SPANS.get((emitter, name))
    if kind == "chain":
        return "workflow" if is_root else "step"
    if kind is not None:
        return kind
    if "input" in values or "output" in values:
        return "model"  # usage of its own, and nobody says that it sums up others'
    return "tool" if slots.ranks.get("tool", _PLAIN_TOOL_RANKS) < _PLAIN_TOOL_RANKS else "step"


def _agent(values: dict[str, Any], category: str) -> str | None:
    return values.get("agent") or (values.get("entity") if category == "agent" else None)


def _provider(values: dict[str, Any]) -> str | None:
    # Conventions and their elders differ in the case of the same names.
    return str(values.get("provider") or "").lower() or None


def _model(values: dict[str, Any], category: str) -> str | None:
    model = values.get("request_model") or values.get("response_model")
    return plain_model(model) if model and category in _USED else None


def _flags(span: SpanMessage, values: dict[str, Any]) -> tuple[int, bool]:
    """Return the flags of a span, and whether an event marks it as cancelled."""
    cancelled = False
    flags = _LINKED if span.links else 0
    for slot, flag in _MARKS:
        if slot in values:
            flags |= flag
    for event in span.events:
        name = event.name
        if name == EXCEPTION_EVENT:
            flags |= _EXCEPTION
        elif name in CONTENT_EVENTS:
            flags |= _CONTENT
        elif name == _CANCELLED_EVENT:
            cancelled = True
    return flags, cancelled


def _failure(span: SpanMessage, values: dict[str, Any]) -> str | None:
    """Return why a span failed: its status' message, else its last exception's, else the error's type."""
    if span.status.message:
        return word(span.status.message)
    for event in reversed(span.events):
        if event.name == EXCEPTION_EVENT:
            said = {item.key: item.value.string_value for item in event.attributes}
            told = said.get(EXCEPTION_MESSAGE) or said.get(EXCEPTION_TYPE)
            if told:
                return word(told)
    return values.get("error_type")


def _outcome(
    values: dict[str, Any], emitter: str, category: str, status: int, *, cancelled: bool, is_root: bool
) -> str | None:
    """Return what a span says of how its turn ended: a root for itself, any other by its emitter's habit.

    OK says nothing: cancelled runs have it too.
    """
    sign = _sign(values, emitter, category, status)
    if not is_root:
        return sign
    told = values.get("outcome") or _END_STATES.get(values.get("end_state", ""))
    if told is not None:
        return told
    if cancelled:
        return "cancelled"
    if status == _ERROR:
        return "error"
    return WAITING if "pending" in values else sign or None


def _sign(values: dict[str, Any], emitter: str, category: str, status: int) -> str | None:
    """Return what a call says of the turn around it (see `habits`); None where it says nothing."""
    habit = HABITS[emitter]
    if status == _ERROR:
        return "error" if category == habit.failing else None
    if category == "tool" and habit.broken_off:
        return ANSWERED
    if category != "model" or not (habit.answers or habit.broken_off):
        return None
    if values.get("finish") in habit.broken_off:
        return "cancelled"
    if "finish" in values or "answered" in values:
        return ANSWERED
    is_silent = habit.answers and ("asked" in values or not habit.questions)
    return "cancelled" if is_silent else None
