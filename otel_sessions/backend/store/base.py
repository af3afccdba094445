"""What a store does, by intent: the seam between the write path, the API and a database.

One writer calls the writing methods, one call at a time; the reading methods may be called from any
thread at any moment and see whole commits only. All methods block: callers use threads.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.filters import EVERYTHING, Filter
from otel_sessions.backend.records import (
    Changes,
    Gauge,
    Request,
    RunRecord,
    SessionDetail,
    SessionRecord,
    SpanRow,
    TimelineEntry,
)
from otel_sessions.backend.retention import Retention
from otel_sessions.errors import BackendError

__all__ = [
    "Calls",
    "FullDiskError",
    "Hit",
    "Prunable",
    "Pruned",
    "RowColumns",
    "SearchPage",
    "SearchQuery",
    "SessionPage",
    "SessionQuery",
    "SpanPage",
    "SpanQuery",
    "Store",
    "StoredLog",
    "StoredSpan",
    "Totals",
]


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which sessions to list, newest first unless `sort` says otherwise; times are Unix ns."""

    states: tuple[str, ...] = ()
    filter: Filter = EVERYTHING  # without any "ago": Filter.at
    service: str | None = None
    user: str | None = None
    since: int | None = None
    until: int | None = None
    sort: str = "-started_at"  # a column of S, "-" for descending
    limit: int = 50
    after: str | None = None  # cursor of the page before
    idle_before: int = 0  # sessions without any run that were last alive by then are idle


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of the list, and the cursor of the next; a filter that fits few may leave it short of full."""

    sessions: tuple[SessionRecord, ...]
    next: str | None


def _numbers() -> array[int]:
    return array("q")


@dataclass(slots=True)
class RowColumns:
    """Index rows of one session by columns, in order of start, span id and trace id; its reader owns it.

    Traces and words are numbers, 0 is no word; `words` holds None for it. Two hundred thousand rows are a few
    dozen objects for the collector of cycles, which would hold up everybody to look through one for each row.
    """

    traces: list[bytes] = field(default_factory=list[bytes])
    trace: array[int] = field(default_factory=_numbers)  # which of them
    span_id: list[bytes] = field(default_factory=list[bytes])
    parent_id: list[bytes] = field(default_factory=list[bytes])
    name: array[int] = field(default_factory=_numbers)
    kind: array[int] = field(default_factory=_numbers)
    category: array[int] = field(default_factory=_numbers)  # place in records.CATEGORIES
    start: array[int] = field(default_factory=_numbers)
    duration: list[int | None] = field(default_factory=list["int | None"])
    status: array[int] = field(default_factory=_numbers)
    flags: array[int] = field(default_factory=_numbers)
    service: array[int] = field(default_factory=_numbers)
    task: array[int] = field(default_factory=_numbers)
    label: array[int] = field(default_factory=_numbers)  # model, tool or agent, as the category says
    input_tokens: list[int | None] = field(default_factory=list["int | None"])
    output_tokens: list[int | None] = field(default_factory=list["int | None"])
    revision: int = 0  # the greatest of all rows
    words: dict[int | None, str | None] = field(default_factory=dict["int | None", "str | None"])

    def add(self, trace: Sequence[int], *columns: Sequence[Any]) -> None:
        """Append rows: numbers of their traces, then all columns from `span_id` to `output_tokens`."""
        self.trace.extend(trace)
        for column, values in zip(self._filled(), columns, strict=True):
            column.extend(values)

    def _filled(self) -> tuple[Any, ...]:
        return (
            *(self.span_id, self.parent_id, self.name, self.kind, self.category, self.start, self.duration),
            *(self.status, self.flags, self.service, self.task, self.label),
            *(self.input_tokens, self.output_tokens),
        )


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """One stored span in full: the message as it came, with what it belongs to."""

    session_id: str  # ours
    row: SpanRow
    span: SpanMessage | None  # None while it is only announced
    resource: Resource | None
    scope: InstrumentationScope | None
    schema_url: str
    received_at: int
    events: tuple[LogMessage, ...] = ()  # logs that bear this span's ids (its announcement among them)


@dataclass(frozen=True, slots=True)
class StoredLog:
    """One stored log record in full."""

    session_id: str
    log: LogMessage
    resource: Resource
    scope: InstrumentationScope
    schema_url: str
    received_at: int


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to find: all words, in any script and case, in messages of the sessions that a filter leaves."""

    words: tuple[str, ...]
    filter: Filter = EVERYTHING  # without words of its own, and without any "ago"
    limit: int = 50
    before: str | None = None  # cursor of the page before
    idle_before: int = 0  # as in SessionQuery
    seconds: float = 0.5  # after which a page ends with what it has


@dataclass(frozen=True, slots=True)
class Hit:
    """One message in which all words occur. `marks` are where they begin and end in the snippet."""

    session_id: str
    session_name: str | None
    trace_id: bytes
    span_id: bytes
    name: str
    start: int
    snippet: str
    marks: tuple[tuple[int, int], ...]
    field: str  # where in the message, in OTLP's words: "attributes.gen_ai.input.messages"


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of hits, newest first, with the cursor of the next, and how far it came."""

    hits: tuple[Hit, ...]
    next: str | None
    reached: int | None  # when what was looked at last had arrived, Unix ns
    share: float  # of all request bodies, those that are behind this page
    chunks: int  # request bodies of this page
    bytes: int  # of these, as they were sent


@dataclass(frozen=True, slots=True)
class SpanQuery:
    """Which spans of one service to find, newest start first; Unix ns, and durations in ns."""

    service: str  # "" for spans whose resource names none
    name: str | None = None
    since: int = 0  # started then or later
    until: int = 2**63 - 1  # started then or earlier
    shortest: int = 0
    longest: int | None = None
    visit: int = 500  # index rows to look at for one page
    after: str | None = None  # cursor of the page before


@dataclass(frozen=True, slots=True)
class SpanPage:
    """The spans found among the rows that were looked at, maybe none, and the cursor to go on."""

    rows: tuple[SpanRow, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Calls:
    """How often spans of one service are children of spans of another: (parent, child) -> times."""

    counts: dict[tuple[str, str], int]
    complete: bool  # False where there were too many spans to look at them all


@dataclass(frozen=True, slots=True)
class Totals:
    """What the store holds."""

    sessions: int
    spans: int
    logs: int
    chunks: int
    bytes_on_disk: int
    sessions_by_state: dict[str, int]
    incomplete_sessions: int  # of which spans are missing
    missing_spans: int
    bytes_free: int = 0  # of those on disk: used again by what comes
    wal_bytes: int = 0  # of those on disk: the write-ahead log
    schema_version: int = 0
    engine: str = ""  # what it is stored with, and its version


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one small transaction removed."""

    changes: Changes = field(default_factory=Changes)  # who is gone, and what that changed in others
    keys: frozenset[str] = frozenset()  # of the sessions that are gone
    spans: int = 0
    logs: int = 0
    more: bool = False  # call again


@dataclass(frozen=True, slots=True)
class Prunable:
    """What a retention would remove now."""

    sessions: int
    spans: int
    exact: bool  # False where a size is to be reached, and what sessions take is reckoned


class FullDiskError(BackendError):
    """The disk is full: nothing of the batch was stored."""


class Store(Protocol):
    """A durable store of sessions, spans and logs."""

    # --- writing: one writer -------------------------------------------------------------------

    def append(
        self,
        requests: Sequence[Request],
        runs: Sequence[RunRecord] = (),
        timeline: Sequence[TimelineEntry] = (),
        gauges: Sequence[Gauge] = (),
    ) -> Changes:
        """Store a batch in one transaction and return what changed; durable when it returns.

        Idempotent: the same span, log, run, entry or gauge again changes nothing. Of two copies of a
        span the ended one wins over the announced one, then the greater end, then the greater size.
        Raises BackendError where the disk refuses; then nothing of the batch was stored.
        """
        ...

    def prune(self, retention: Retention, now: int, idle_before: int) -> Pruned:
        """Remove sessions beyond a retention, in one small transaction; call it again while there is more.

        Whole sessions that ended, are lost or idle, and are not pinned; the longest unseen first, and with
        them logs of no session that came before. `now` in Unix ns; sessions without any run, last seen
        before `idle_before`, are idle. Raises BackendError where the disk refuses.
        """
        ...

    def pin(self, session_id: str, *, pinned: bool) -> bool:
        """Keep a session from retention, or no longer; by our id, idempotent. Raises BackendError.

        Return whether it is there: nothing is kept for one that is not.
        """
        ...

    def prunable(self, retention: Retention, now: int, idle_before: int) -> Prunable:
        """Say what `prune` would remove, called until there is no more; removes nothing."""
        ...

    def probe(self) -> None:
        """Store something and remove it again. Raises BackendError where that fails, as `append` would."""
        ...

    def note_process(self, process: str, base: int) -> None:
        """Keep the smallest (arrival - elapsed) of a process, in Unix ns; durable with the next append."""
        ...

    def close(self) -> None:
        """Finish what was begun and release the files; idempotent."""
        ...

    # --- reading: any thread -----------------------------------------------------------------------

    def open_runs(self) -> Sequence[RunRecord]:
        """Return all runs that have not ended, for the start of the live view."""
        ...

    def runs(self, session_key: str) -> Sequence[RunRecord]:
        """Return all runs of one session."""
        ...

    def process_bases(self) -> dict[str, int]:
        """Return the smallest (arrival - elapsed), in Unix ns, of each process with an open run."""
        ...

    def sessions(self, query: SessionQuery) -> SessionPage:
        """List sessions from their roll-up rows. Raises ValueError for an unknown sort or cursor."""
        ...

    def session(self, ref: str, *, idle_before: int = 0) -> SessionDetail | None:
        """Return one session by our id, or by the emitter's session id where that is unique.

        Without any run, and last seen before `idle_before`, it is idle.
        """
        ...

    def record(self, ref: str, *, idle_before: int = 0) -> SessionRecord | None:
        """Return the roll-up row alone of what `session` finds, whatever the size of the session."""
        ...

    def columns(self, session_id: str, after: int | None = None) -> RowColumns:
        """Return the index rows of one session by our id; with `after` only rows of a greater revision.

        By columns: any number of them, without holding up other threads.
        """
        ...

    def span(self, trace_id: bytes, span_id: bytes) -> StoredSpan | None:
        """Return one span in full."""
        ...

    def spans(self, session_id: str) -> Iterator[StoredSpan]:
        """Iterate over all ended spans of a session in full, oldest start first within a chunk."""
        ...

    def logs(self, session_id: str) -> Iterator[StoredLog]:
        """Iterate over all logs of a session in full."""
        ...

    def search(self, query: SearchQuery, stopped: Callable[[], bool] = lambda: False) -> SearchPage:
        """Find words in names and contents, newest first; ends early with a cursor when `stopped` says so.

        Raises ValueError for an unknown cursor.
        """
        ...

    # --- by service and trace: ended spans, and the roots of lost runs -----------------------------------
    # The root of a lost run never came, only its announcement. Its row bears Flag.SYNTHETIC and ends when
    # the run was last heard. A real root takes its place as soon as it comes. Other announced spans are out.

    def services(self) -> Sequence[str]:
        """Return all services, sorted; "" stands for spans whose resource names none."""
        ...

    def operations(self, service: str) -> Sequence[tuple[str, int]]:
        """Return all names of spans of a service with their kinds, sorted."""
        ...

    def find(self, query: SpanQuery) -> SpanPage:
        """Find spans by their index rows, a bounded number of them at a time.

        Raises ValueError for an unknown cursor.
        """
        ...

    def trace(self, trace_id: bytes) -> Sequence[SpanRow]:
        """Return the index rows of one trace, by start; none where nothing of it is stored."""
        ...

    def full(self, rows: Sequence[SpanRow]) -> Iterator[StoredSpan]:
        """Iterate over spans in full, each once, in the order in which they lie.

        Of a root that never came, `events` holds its announcement. What is gone meanwhile is left out.
        """
        ...

    def calls(self, since: int, until: int) -> Calls:
        """Count calls between services among spans that started between two times, both excluded."""
        ...

    def totals(self, *, idle_before: int = 0) -> Totals:
        """Count what is stored; sessions without any run, last seen before `idle_before`, are idle."""
        ...
