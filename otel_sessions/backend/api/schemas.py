"""What the answers look like, as JSON Schema 2020-12: the `components` of the description in openapi.py.

Every object is closed: a field that is sent and not written here fails the tests, and so does the reverse.
"""

from __future__ import annotations

from typing import Any, Final

from otel_sessions.backend.filters import Kind
from otel_sessions.backend.records import CATEGORIES
from otel_sessions.lifecycle import EndReason, Outcome, Phase, Signal, State, TaskState

__all__ = ["SCHEMAS", "Schema", "ref"]

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Point to a schema of this file."""
    return {"$ref": f"#/components/schemas/{name}"}


def _closed(description: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _with(base: Schema, description: str, **properties: Schema) -> Schema:
    return _closed(description, **base["properties"], **properties)


def _list(items: Schema, description: str = "") -> Schema:
    return _say({"type": "array", "items": items}, description)


def _say(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema


def _or_null(schema: Schema, description: str = "") -> Schema:
    if "type" in schema and isinstance(schema["type"], str) and "enum" not in schema:
        return _say(
            {**schema, "type": [schema["type"], "null"]}, description or schema.get("description", "")
        )
    return _say({"anyOf": [schema, {"type": "null"}]}, description)


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _text(description: str = "") -> Schema:
    return _say({"type": "string"}, description)


def _count(description: str = "") -> Schema:
    return _say({"type": "integer", "minimum": 0}, description)


def _rate() -> Schema:
    return {"type": "number", "minimum": 0}


def _ns(description: str) -> Schema:
    return {"type": "string", "pattern": "^-?[0-9]+$", "description": f"{description}; ns as a string"}


def _hex(digits: int, description: str = "") -> Schema:
    return _say({"type": "string", "pattern": f"^[0-9a-f]{{{digits}}}$"}, description)


def _index(description: str) -> Schema:
    return _list({"type": "integer", "minimum": -1}, description)


def _counts(description: str) -> Schema:
    return _say({"type": "object", "additionalProperties": _count()}, description)


_ANY: Final[Schema] = {"description": "any JSON value"}
_FLAG: Final[Schema] = {"type": "boolean"}
_TRACE: Final = _hex(32, "trace id")
_SPAN: Final = _hex(16, "span id")
_MAYBE_SPAN: Final = _or_null(_hex(16), "span id")
_EVENT_ID: Final = _text("position in the stream, taken before the read: `stream?after=` goes on from here")
_NOW: Final = _ns("the server's time at the answer, Unix")
_CURSOR: Final = _or_null(_text(), "cursor of the next page; null at the end")
_OTLP: Final[Schema] = {
    "type": "object",
    "description": "as OTLP JSON has it: ids in hex, 64-bit integers as strings",
}
_STATE: Final = _one_of(*(state.value for state in State))
_OUTCOME: Final = _or_null(_text(f"{', '.join(o.value for o in Outcome)}; null where nobody knows"))
_REASON: Final = _or_null(_text(f"why it ended: {', '.join(r.value for r in EndReason)}"))
_PHASE: Final = _one_of(*(phase.value for phase in Phase))
_SIGNAL: Final = _one_of(*(signal.value for signal in Signal))

_SESSION: Final = _closed(
    "One session",
    id=_text("ours: unique, URL-safe"),
    session_id=_or_null(_text(), "as the emitter sent it; null where the trace is the session"),
    name=_or_null(_text()),
    title=_or_null(_text()),
    service=_or_null(_text()),
    user_id=_or_null(_text()),
    conversation_id=_or_null(_text()),
    state=_say(_STATE, "what is shown, derived from phase and signal of its runs"),
    phase=_say(_PHASE, "what the session last said of itself"),
    signal=_say(_SIGNAL, "whether it is still heard; none where no life cycle event was ever seen"),
    waiting_for=_or_null(_text()),
    outcome=_OUTCOME,
    end_reason=_REASON,
    error=_or_null(_text(), "why it failed, as its root or what failed in it says"),
    started_at=_ns("start, Unix"),
    ended_at=_or_null(_ns("end, Unix")),
    last_seen_at=_ns("when anything of it last arrived, Unix"),
    last_ended_at=_or_null(_ns("end of the span that ended last, or time of the last log, Unix")),
    last_alive_at=_ns(
        "when it was last alive by this machine's clock, Unix: without any run the newest time that it told, "
        "or its arrival where a steady pace shows that its clock is wrong"
    ),
    duration=_or_null(_ns("start to end, or without any run to `last_ended_at`; null while open or unknown")),
    runs_count=_count(),
    spans=_count("spans stored"),
    errors=_count("spans with status ERROR"),
    traces_count=_count(),
    tasks_count=_count(),
    turns=_or_null(_count()),
    model_calls=_count(),
    tool_calls=_count(),
    agents=_list(_text()),
    models=_list(_text()),
    tools=_list(_text(), "that it called, by first use"),
    input_tokens=_or_null(_count()),
    output_tokens=_or_null(_count()),
    cached_tokens=_or_null(_count()),
    cost=_or_null({"type": "number"}, "USD, as the sender said"),
    missing_spans=_or_null(_count(), "known to exist and not stored; null where nothing tells"),
    inferred=_say(_FLAG, "no life cycle event was ever seen"),
    revision=_count("grows with every change"),
)

_RUN: Final = _closed(
    "One root span of a session",
    root_id=_SPAN,
    trace_id=_TRACE,
    process=_text("random id of the sending process"),
    phase=_PHASE,
    signal=_SIGNAL,
    waiting_for=_or_null(_text()),
    outcome=_OUTCOME,
    end_reason=_REASON,
    started_at=_or_null(_ns("start, Unix")),
    ended_at=_or_null(_ns("end, Unix")),
    last_heard_at=_or_null(_ns("last sign of life, Unix")),
    resumed=_FLAG,
    child=_say(_FLAG, "the signal of a child process, which never keeps the run alive"),
    interval=_ns("between two heartbeats"),
    lease=_ns("how long the run is believed without news"),
    previous_id=_or_null(_text(), "the other session that it continues"),
    open_spans=_list(_SPAN),
)

_TASK: Final = _closed(
    "One unit of work in a session",
    id=_text(),
    name=_or_null(_text()),
    parent_id=_or_null(_text()),
    state=_or_null(_text(", ".join(state.value for state in TaskState))),
    started_at=_ns("start, Unix"),
    ended_at=_or_null(_ns("end, Unix")),
    duration=_or_null(_ns("from start to end")),
    spans=_count(),
    trace_id=_TRACE,
    span_id=_MAYBE_SPAN,
)

_TIMELINE_ENTRY: Final = _closed(
    "One change of a session's life",
    at=_ns("Unix"),
    state=_text("running, waiting, ended, stale, lost, revived, resumed"),
    detail=_or_null(_text(), "waiting for what; why it ended"),
    root_id=_MAYBE_SPAN,
)

_OPEN_SPAN: Final = _closed(
    "A span that was announced and has not ended",
    trace_id=_TRACE,
    span_id=_SPAN,
    name=_text(),
    start=_ns("start, Unix"),
    category=_one_of(*CATEGORIES),
)

_COLUMNS: Final = {
    "trace": _index("index into `traces`"),
    "id": _list(_SPAN),
    "name": _index("index into `names`"),
    "category": _index("index into `categories`"),
    "service": _index("index into `services`"),
    "start": _list({"type": "integer"}, "offset from `base` in ns"),
    "duration": _list({"type": ["integer", "null"]}, "ns; null while open"),
    "status": _list({"type": "integer", "enum": [0, 1, 2]}, "0 unset, 1 ok, 2 error"),
    "flags": _list(
        _count(),
        "bits: 1 open, 2 late, 4 forced, 8 placeholder, 16 synthetic, 32 exception, 64 content, 128 linked",
    ),
    "task": _index("index into `tasks`, or -1"),
    "input_tokens": _list(_or_null(_count())),
    "output_tokens": _list(_or_null(_count())),
    "label": _index("index into `labels` (model, tool or agent), or -1"),
    "kind": _list(_count(), "OTLP's SpanKind"),
}

_ROWS_HEAD: Final = _closed(
    "",
    session=_text("id of the session"),
    base=_ns("what the offsets of this answer count from, Unix"),
    revision=_count("`rows?after=` goes on from here"),
    traces=_list(_TRACE),
    names=_list(_text()),
    categories=_list(_one_of(*CATEGORIES)),
    services=_list(_text()),
    tasks=_list(_text("task id")),
    labels=_list(_text()),
)

_ROWS: Final = _with(
    _ROWS_HEAD,
    "Every span of a session exactly once, in the order of the tree, by columns and without payloads. "
    "A parent that is not stored has a placeholder row",
    event_id=_EVENT_ID,
    total=_count("rows, placeholders included"),
    columns=_closed(
        "Arrays of equal length",
        **_COLUMNS,
        parent=_index("row number of the parent, or -1"),
        depth=_list(_count()),
    ),
)

_ROWS_EVENT: Final = _with(
    _ROWS_HEAD,
    "Rows that changed, in no order, without placeholders",
    total=_count("rows in this answer"),
    columns=_closed(
        "Arrays of equal length",
        **_COLUMNS,
        parent_id=_list({"type": "string", "pattern": "^([0-9a-f]{16})?$"}, "span id, or empty"),
    ),
)

_TRANSCRIPT_ITEM: Final = _closed(
    "One thing that was said or done",
    kind=_one_of("system", "user", "assistant", "tool_call", "tool_result", "event"),
    at=_or_null(_ns("Unix")),
    agent=_or_null(_text()),
    model=_or_null(_text()),
    text=_or_null(_text()),
    name=_or_null(_text(), "the tool, or the event"),
    call_id=_or_null(_text()),
    arguments=_ANY,
    result=_ANY,
    ok=_or_null(_FLAG, "null where nobody knows"),
    span=_or_null(_closed("Where it was recorded", trace_id=_TRACE, span_id=_SPAN)),
)

_SPAN_ROW: Final = _closed(
    "The index row of a span",
    name=_text(),
    kind=_count("OTLP's SpanKind"),
    category=_one_of(*CATEGORIES),
    start=_ns("start, Unix"),
    end=_or_null(_ns("end, Unix; null while open")),
    status={"type": "integer", "enum": [0, 1, 2]},
    flags=_count(),
    parent_id=_MAYBE_SPAN,
    service=_or_null(_text()),
    task_id=_or_null(_text()),
    agent=_or_null(_text()),
    model=_or_null(_text()),
    tool=_or_null(_text()),
    input_tokens=_or_null(_count()),
    output_tokens=_or_null(_count()),
)

SCHEMAS: Final[dict[str, Schema]] = {
    "Session": _SESSION,
    "SessionList": _closed(
        "One page of sessions",
        sessions=_list(ref("Session")),
        next=_CURSOR,
        event_id=_EVENT_ID,
        now=_NOW,
        counts=_closed("All stored sessions by state", **{state.value: _count() for state in State}),
    ),
    "SessionDetail": _with(
        _SESSION,
        "One session with all that its page shows beside the rows",
        runs=_list(ref("Run")),
        traces=_list(_TRACE),
        tasks=_list(ref("Task")),
        timeline=_list(ref("TimelineEntry")),
        open_spans=_list(ref("OpenSpan")),
        losses=_counts("spans that are missing, by reason"),
        pinned=_say(_FLAG, "no retention removes it"),
        event_id=_EVENT_ID,
        now=_NOW,
    ),
    "Pin": _closed(
        "Whether retention leaves a session alone", id=_text("ours"), pinned=_say(_FLAG, "it does")
    ),
    "Csrf": _closed("The token of this server's own pages", token=_text("new with each start")),
    "Run": _RUN,
    "Task": _TASK,
    "TimelineEntry": _TIMELINE_ENTRY,
    "OpenSpan": _OPEN_SPAN,
    "Rows": _ROWS,
    "RowsDelta": _with(_ROWS_EVENT, "Rows that changed after a revision", event_id=_EVENT_ID),
    "RowsEvent": _ROWS_EVENT,
    "SessionEvent": _with(_SESSION, "One session, in the stream", now=_NOW),
    "TranscriptItem": _TRANSCRIPT_ITEM,
    "Transcript": _closed(
        "What was said and done, in order",
        items=_list(ref("TranscriptItem")),
        next=_CURSOR,
        event_id=_EVENT_ID,
    ),
    "Otlp": _closed("All of a session", resourceSpans=_list(_OTLP), resourceLogs=_list(_OTLP)),
    "SpanDetail": _closed(
        "One span in full",
        event_id=_EVENT_ID,
        session=_text("id of its session"),
        span=_or_null(_OTLP, "null while the span is only announced"),
        resource=_or_null(_OTLP),
        scope=_or_null(_OTLP),
        schema_url=_or_null(_text()),
        row=_SPAN_ROW,
        messages=_list(ref("TranscriptItem"), "of this span, repeated history included"),
        logs=_list(_OTLP, "log records that bear this span's ids"),
        received_at=_ns("arrival, Unix"),
    ),
    "SearchAnswer": _closed(
        "Hits, newest first",
        hits=_list(ref("Hit")),
        next=_CURSOR,
        progress=ref("SearchProgress"),
        event_id=_EVENT_ID,
    ),
    "Filters": _closed(
        "What a filter can say",
        fields=_list(
            _closed(
                "One field",
                name=_text(),
                kind=_one_of(*(kind.value for kind in Kind)),
                about=_text(),
                operators=_list(_text(), "the likeliest first"),
                values=_list(_text(), "all of a choice; else the most frequent of the newest sessions"),
                nullable=_say(_FLAG, "may be compared with `unknown`"),
            )
        ),
        event_id=_EVENT_ID,
    ),
    "SearchProgress": _closed(
        "How far a search came; it reads from the newest to the oldest",
        reached=_or_null(_ns("when what was read last had arrived, Unix")),
        share={"type": "number", "minimum": 0, "maximum": 1, "description": "of all that is stored"},
        chunks=_count("request bodies read for this answer"),
        bytes=_count("of these, as they were sent"),
    ),
    "SearchLine": {
        "description": "One line of a streamed search",
        "oneOf": [
            _closed("A hit, as soon as it is found", hit=ref("Hit")),
            _closed("How far it came, twice a second or so", progress=ref("SearchProgress")),
            _closed("The last line", end=_closed("", next=_CURSOR, event_id=_EVENT_ID)),
        ],
    },
    "Hit": _closed(
        "One span or log in which all words occur",
        session=_text("id of its session"),
        session_name=_or_null(_text()),
        trace_id=_TRACE,
        span_id=_SPAN,
        name=_text(),
        start=_ns("start, Unix"),
        snippet=_text("what stands around the first match, on one line; text, never markup"),
        marks=_list(
            {"type": "array", "items": _count(), "minItems": 2, "maxItems": 2},
            "where in the snippet words begin and end, in code points",
        ),
        field=_text("where in the message: name, status.message, attributes.KEY, body, …"),
    ),
    "Status": _closed(
        "The server itself; counters count since its start",
        version=_text(),
        started_at=_ns("start of the server, Unix"),
        now=_NOW,
        event_id=_EVENT_ID,
        idle_after=_ns("silence after which a session without any known run is idle"),
        store=_closed(
            "What is stored",
            sessions=_count(),
            spans=_count(),
            logs=_count(),
            chunks=_count("request bodies"),
            bytes_on_disk=_count(),
            sessions_by_state=_counts("by state"),
            incomplete_sessions=_count("sessions of which spans are missing"),
            missing_spans=_count("known to exist, but not stored; over all sessions"),
            bytes_free=_count("of those on disk: used again by what comes"),
            wal_bytes=_count("of those on disk: the write-ahead log"),
            schema_version=_count(),
            engine=_text("what it is stored with, and its version"),
        ),
        python=_text("version"),
        install=_text("the command that installs what runs here"),
        disk=_closed(
            "Where it is stored",
            folder=_text(),
            size=_or_null(_count("bytes")),
            free=_or_null(_count("bytes")),
        ),
        trouble=_or_null(_text("why nothing can be stored now, as /readyz says it; null where all is well")),
        rates=_closed(
            "What came a second, over the last `seconds`",
            seconds=_count(),
            requests=_rate(),
            spans=_rate(),
            logs=_rate(),
        ),
        commits=_closed(
            "How long the last `count` commits took; null where there was none",
            count=_count(),
            p50=_or_null(_ns("median")),
            p99=_or_null(_ns("99th percentile")),
            max=_or_null(_ns("the longest")),
        ),
        retention=_closed(
            "What is removed; null where there is no such bound, or it has not happened since the start",
            age=_or_null(_ns("since a session was last seen")),
            size=_or_null(_count("bytes of the database")),
            looked_at=_or_null(_ns("when it last looked, Unix")),
            removed_at=_or_null(_ns("when it last removed something, Unix")),
            trouble=_or_null(_text("why nothing can be removed")),
        ),
        emitters=_list(
            _closed(
                "Who sent something since the start, by its resource",
                service=_or_null(_text("service.name")),
                sdk=_or_null(_text("telemetry.sdk.name and telemetry.sdk.language")),
                sdk_version=_or_null(_text("telemetry.sdk.version")),
                others=_say(_FLAG, "all beyond the first hundred, together"),
                spans=_count(),
                logs=_count(),
                sessions=_count("different ids of sessions that it sent; 0 where it sends none"),
                sessions_exact=_say(_FLAG, "false where there may be more"),
                last_seen_at=_ns("Unix"),
            ),
            "who was seen last first",
        ),
        ingest=_counts("the write path"),
        receivers={
            "type": "object",
            "description": "requests by receiver and by what became of them",
            "additionalProperties": _counts(""),
        },
        stream=_counts("the live view"),
        metrics_seen=_counts("data points by name of the metric; they are not stored"),
        metric_sessions=_counts("data points by session.id, of those that bear one; they are not stored"),
        redacted=_counts("secrets replaced in what was stored, by kind; empty where redaction is off"),
    ),
    "Problem": {
        "type": "object",
        "description": "Why a request failed (RFC 9457)",
        "properties": {
            "type": _text(),
            "title": _text(),
            "status": _count(),
            "detail": _text("what failed and what to do"),
            "instance": _text("the address that failed"),
            "request_id": _text("the same as in the header X-Request-Id and in the server's log"),
            "parameter": _text("the parameter at fault"),
            "allowed": _say({}, "what it may be"),
            "position": _count("of a wrong filter: the first character at fault, in code points"),
            "word": _text("of a wrong filter: the word at fault"),
        },
        "required": ["type", "title", "status", "detail", "instance", "request_id"],
    },
}
