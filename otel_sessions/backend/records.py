"""The values that travel through the backend, frozen; every other module there speaks in them.

Times are Unix nanoseconds (int), ids raw bytes, unknown is None: never 0 or "".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from typing import Final, NamedTuple

from otel_sessions.lifecycle import Run
from otel_sessions.losses import merged

__all__ = [
    "CATEGORIES",
    "Changes",
    "Emitted",
    "Emitter",
    "Encoding",
    "Flag",
    "Gauge",
    "LogRecord",
    "OpenSpan",
    "Position",
    "Request",
    "RunEvent",
    "RunRecord",
    "SessionDetail",
    "SessionHint",
    "SessionRecord",
    "Signal",
    "SpanRecord",
    "SpanRow",
    "Sums",
    "SumsChange",
    "TaskRecord",
    "TimelineEntry",
    "Used",
]


class Signal(str, Enum):
    """The three signals of OTLP."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


class Encoding(str, Enum):
    """How a request body is encoded, and so how it is kept."""

    PROTOBUF = "protobuf"
    JSON = "json"


CATEGORIES: Final = (
    "session",  # a run's root span
    "task",
    "agent",
    "model",  # inference: usage is summed from these and from embedding
    "embedding",
    "tool",
    "retrieval",
    "workflow",
    "step",  # everything else
)
"""What kind of work a span is, as the page colours it and the roll-up counts it."""


class Flag(IntFlag):
    """Facts about a span that the page draws; the numbers are part of the rows API."""

    OPEN = 1  # announced, its end has not arrived
    LATE = 2  # ended after its run had ended
    FORCED = 4  # ended by the SDK because its process was ending
    PLACEHOLDER = 8  # known only as the parent of others
    SYNTHETIC = 16  # a root that a backend made up
    EXCEPTION = 32  # bears an exception event
    CONTENT = 64  # bears messages, tool arguments or results
    LINKED = 128  # bears span links


class SessionHint(NamedTuple):
    """Which session a span or log says it belongs to.

    `scope` is "" for `session.id`, which is global. An id found under another key belongs to its
    service, and `scope` is then "namespace/name" of that service ("/name" without a namespace).
    """

    value: str
    scope: str = ""
    service: str = ""  # "namespace/name" of whoever sent it, for a global id too


@dataclass(frozen=True, slots=True)
class Position:
    """Where a span or log lies in its request: the ordinal, counted over all resources and scopes."""

    chunk: int
    ordinal: int


class SpanRecord(NamedTuple):  # one for each span, and made five times as fast as a frozen dataclass
    """One span as decoded: its index row, without the payload. `end` is None for an announced span."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes  # b"" for a root
    name: str
    kind: int  # OTLP's SpanKind
    start: int
    end: int | None
    status: int  # 0 unset, 1 ok, 2 error
    category: str
    ordinal: int
    size: int  # encoded bytes; breaks ties between two copies
    flags: int = 0
    service: str = ""
    hint: SessionHint | None = None
    session_name: str | None = None  # on a run's root
    title: str | None = None  # on a run's root
    user_id: str | None = None
    conversation_id: str | None = None
    task_id: str | None = None
    task_name: str | None = None
    task_parent_id: str | None = None
    task_state: str | None = None  # on task spans only
    agent: str | None = None
    model: str | None = None
    provider: str | None = None  # who serves the model, in lower case
    tool: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: float | None = None  # USD
    turn: bool = False  # this span is one turn of a conversation
    outcome: str | None = None  # how its turn ended: on a root what it says, on others a sign (habits.py)
    failure: str | None = None  # why, where its status is ERROR and it says so


class LogRecord(NamedTuple):
    """One log record as decoded: its index row, without the payload.

    Usage, category and turn are set on exactly one log for each call or turn. Many emitters tell the same
    in spans: they count only for a session whose spans do not tell.
    """

    trace_id: bytes  # b"" where absent
    span_id: bytes
    time: int  # its own time, else observed, else 0
    event_name: str  # field event_name, else attribute event.name, else ""
    severity: int
    ordinal: int
    digest: bytes  # 16 bytes over the record, its resource and scope: the same log twice is stored once
    service: str = ""
    hint: SessionHint | None = None
    model: str | None = None
    provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: float | None = None
    user_id: str | None = None
    category: str = ""  # "model" or "tool" where this log tells of one such call
    tool: str | None = None
    turn: bool = False  # this log tells of one turn of a conversation


@dataclass(frozen=True, slots=True)
class RunEvent:
    """What a life cycle event, or a run's root span, tells of a run.

    `name` is the event's name in semconv, or "root" for a root span that bears an end reason. Durations
    are in ns. `started`, `ended`, `dropped` are the sender's counts of spans, None where not told.
    """

    name: str
    session_id: str
    trace_id: bytes
    root_id: bytes
    at: int
    process: str = ""
    seq: int = 0
    elapsed: int | None = None
    interval: int = 5_000_000_000
    lease: int = 120_000_000_000
    child: bool = False
    phase: str | None = None
    waiting_for: str | None = None
    previous_id: str | None = None
    session_name: str | None = None
    title: str | None = None
    outcome: str | None = None
    end_reason: str | None = None
    started_at: int | None = None
    started: int | None = None
    ended: int | None = None
    dropped: int | None = None
    losses: str = ""  # why, as losses.told writes it
    open_spans: tuple[bytes, ...] = ()


class Emitter(NamedTuple):
    """Who sends, by its resource; "" is what that does not say."""

    service: str
    sdk: str = ""  # telemetry.sdk.name and .language: "opentelemetry, python"
    version: str = ""  # telemetry.sdk.version


class Emitted(NamedTuple):
    """What one resource of a request holds; `sessions` are ids as they were sent."""

    emitter: Emitter
    spans: int
    logs: int
    sessions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """One export request, decoded. `body` is what came, decompressed and, but for secrets, untouched.

    `keep` is False where nothing of the body needs to be stored (heartbeats alone, metrics).
    """

    signal: Signal
    encoding: Encoding
    body: bytes
    received_at: int
    spans: tuple[SpanRecord, ...] = ()
    logs: tuple[LogRecord, ...] = ()
    events: tuple[RunEvent, ...] = ()
    metrics: Mapping[str, int] = field(default_factory=dict[str, int])  # data points by metric name
    metric_sessions: Mapping[str, int] = field(default_factory=dict[str, int])  # the same by session.id
    rejected: int = 0  # spans, records or points that can't be stored (no valid id); the rest is kept
    message: str = ""  # why, for partial_success
    keep: bool = True
    redacted: Mapping[str, int] = field(default_factory=dict[str, int])  # secrets that were in it, by kind
    emitted: tuple[Emitted, ...] = ()  # who sent what of it


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as stored: its key, who sent it, and its life cycle state."""

    session_key: str
    root_id: bytes
    trace_id: bytes
    process: str
    run: Run
    interval: int
    lease: int
    previous_id: str | None = None
    session_name: str | None = None
    title: str | None = None
    last_heard_at: int | None = None  # Unix ns of the last sign of life
    child: bool = False  # a child process's signal, shown with its open spans; never keeps a run alive
    open_spans: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Gauge:
    """The sender's own counts of a session's spans, cumulative for one process.

    They only grow, so the greater of two tellings is the newer, whatever brought it and when.
    """

    session_key: str
    process: str
    seq: int
    started: int
    ended: int
    dropped: int
    losses: str = ""  # why, as losses.told writes it

    def joined(self, other: Gauge) -> Gauge:
        """Return the greatest of what both tell."""
        return Gauge(
            self.session_key,
            self.process,
            max(self.seq, other.seq),
            max(self.started, other.started),
            max(self.ended, other.ended),
            max(self.dropped, other.dropped),
            merged(self.losses, other.losses),
        )


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One change of a session's life: what a run said, or what the listener noticed, at Unix ns."""

    session_key: str
    root_id: bytes
    at: int
    state: str  # running, waiting, ended, stale, lost, revived, resumed
    detail: str | None = None  # waiting for what; why it ended


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """A span that was announced and has not ended."""

    trace_id: bytes
    span_id: bytes
    name: str
    start: int
    category: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task of a session, from its task span or from the spans that bear its id."""

    id: str
    name: str | None
    parent_id: str | None
    state: str | None
    started_at: int
    ended_at: int | None
    spans: int
    trace_id: bytes
    span_id: bytes | None  # the task span itself, where there is one


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One index row of a stored span, as rows, stream and tree use it."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: int
    category: str
    start: int
    end: int | None
    status: int
    flags: int
    service: str
    task_id: str | None
    agent: str | None
    model: str | None
    tool: str | None
    input_tokens: int | None
    output_tokens: int | None
    revision: int  # grows with every change of any row of the store


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The roll-up row of one session, kept at write time: S of the API, field by field."""

    id: str
    session_id: str | None
    name: str | None
    title: str | None
    service: str | None
    user_id: str | None
    conversation_id: str | None
    state: str
    phase: str
    signal: str
    waiting_for: str | None
    outcome: str | None
    end_reason: str | None
    started_at: int
    ended_at: int | None
    last_seen_at: int
    runs_count: int
    spans: int
    errors: int
    traces_count: int
    tasks_count: int
    turns: int | None
    model_calls: int
    tool_calls: int
    agents: tuple[str, ...]
    models: tuple[str, ...]
    tools: tuple[str, ...]
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost: float | None
    missing_spans: int | None
    inferred: bool
    revision: int
    error: str | None = None  # why it failed, where its outcome is "error" and something says so
    last_ended_at: int | None = None  # end of the span that ended last, else time of the last log
    last_alive_at: int = 0  # as last_seen_at; without any run as lifecycle.last_alive tells


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """A session with what its own page needs beside the rows."""

    session: SessionRecord
    runs: tuple[RunRecord, ...]
    traces: tuple[bytes, ...]
    tasks: tuple[TaskRecord, ...]
    timeline: tuple[TimelineEntry, ...]
    open_spans: tuple[OpenSpan, ...]
    losses: Mapping[str, int]  # reason -> spans
    pinned: bool = False  # no retention removes it


class Used(NamedTuple):
    """What calls of one model used: tokens, and the cost in 1e-9 USD."""

    input: int
    output: int
    cached: int
    cost: int


class Sums(NamedTuple):  # one for each session that a commit touches, so it is made fast
    """What one session adds to the sums over all sessions."""

    state: str  # as stored: "" without any run
    outcome: str | None
    end_reason: str | None
    duration: int | None  # ns, where the session has ended
    errors: int
    model_calls: int
    tool_calls: int
    dropped: int  # spans that the senders say they gave up
    used: Mapping[tuple[str, str], Used]  # by provider and model; "" is one that nobody names


class SumsChange(NamedTuple):
    """A session's sums before and after a commit; None where there was, or is, no such session."""

    before: Sums | None
    after: Sums | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What one commit changed, for whoever publishes or counts it."""

    sessions: tuple[SessionRecord, ...] = ()
    rows: Mapping[str, Collection[SpanRow]] = field(
        default_factory=dict[str, "Collection[SpanRow]"]
    )  # by session id; perhaps made only when they are read
    gone: tuple[str, ...] = ()  # ids of sessions that were merged into another or pruned
    shrunk: tuple[str, ...] = ()  # ids of sessions that stay, but of which rows moved to another
    sums: tuple[SumsChange, ...] = ()  # by session, without those that nothing was added to
    new_spans: int = 0  # ended spans that were not stored before
    new_logs: int = 0
