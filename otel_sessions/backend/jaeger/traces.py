"""Services, searches and traces, read from the store; the traces as documents made piece by piece.

Of a trace no more is held than its index rows and what tells its spans' places; the spans themselves are
read twice, and written as they come. Everything here blocks, and runs in worker threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.attributes import word
from otel_sessions.backend.jaeger.adjust import adjusted, node_of, trace_warnings
from otel_sessions.backend.jaeger.lost import WARNING, made_up
from otel_sessions.backend.jaeger.model import (
    EMPTY_SERVICE,
    NO_RESOURCE,
    Process,
    Span,
    process_of,
    span_of,
    tag_text,
)
from otel_sessions.backend.jaeger.parameters import Range, TraceSearch
from otel_sessions.backend.jaeger.v1 import JsonObject, error_json, id_text, processes_json, span_json
from otel_sessions.backend.jaeger.v3 import resource_spans
from otel_sessions.backend.records import SpanRow
from otel_sessions.backend.replies import encode, merged, separated
from otel_sessions.backend.store.base import SpanQuery, Store

__all__ = [
    "ENDED_EARLY",
    "NOT_FOUND",
    "Found",
    "calls",
    "found",
    "operations",
    "pieces_v1",
    "pieces_v3",
    "services",
]

NOT_FOUND: Final = "trace not found"
SECONDS: Final = 5.0
"""How long one search goes on; it ends with what it has, and says so."""

ENDED_EARLY: Final = (
    f"The search was ended after {SECONDS:g} s: older traces may match too. Narrow the stretch of time."
)
_NAMELESS: Final = (NO_RESOURCE, EMPTY_SERVICE)


class Found(NamedTuple):
    """The traces of one answer, newest first, and the errors it has to tell of."""

    traces: tuple[bytes, ...]
    errors: tuple[JsonObject, ...] = ()
    complete: bool = True


# --- Services ---------------------------------------------------------------------------------------------


def services(store: Store) -> list[str]:
    """Return the names of all services."""
    known = store.services()
    return sorted({_shown_name(store) if service == "" else service for service in known})


def operations(store: Store, service: str) -> Sequence[tuple[str, int]]:
    """Return the names of a service's spans with their kinds, by OTLP's numbers."""
    return store.operations(_stored_name(service))


def calls(store: Store, between: Range, service: str) -> tuple[list[JsonObject], bool]:
    """Count calls between services, or those from and to one; tell also whether all were counted."""
    counted = store.calls(between.since, between.until)
    links = [
        {"parent": parent or EMPTY_SERVICE, "child": child or EMPTY_SERVICE, "callCount": times}
        for (parent, child), times in sorted(counted.counts.items())
    ]
    wanted = [link for link in links if not service or service in (link["parent"], link["child"])]
    return wanted, counted.complete


def _shown_name(store: Store) -> str:
    """Return by which of its two names for spans without a service Jaeger would list the newest one."""
    page = store.find(SpanQuery("", visit=1))
    newest = next(store.full(page.rows), None)
    return NO_RESOURCE if newest is None or newest.resource is None else process_of(newest.resource).service


def _stored_name(service: str) -> str:
    return "" if service in _NAMELESS else word(service)


# --- Searching --------------------------------------------------------------------------------------------


def found(store: Store, search: TraceSearch, now: Callable[[], float]) -> Found:
    """Find traces; `now` is a clock in seconds that bounds the search."""
    if search.trace_ids:
        return _asked_for(store, search.trace_ids)
    deadline = now() + SECONDS
    traces: dict[bytes, None] = {}
    after: str | None = None
    while True:
        page = store.find(_query(search, after))
        fresh = [row for row in page.rows if row.trace_id not in traces]
        for row in _matching(store, fresh, search):
            if len(traces) < search.limit:
                traces[row.trace_id] = None
        after = page.next
        if after is None or len(traces) >= search.limit:
            return Found(tuple(traces))
        if now() >= deadline:
            return Found(tuple(traces), (error_json(ENDED_EARLY),), complete=False)


def _asked_for(store: Store, trace_ids: Sequence[bytes]) -> Found:
    stored = {trace_id: bool(store.trace(trace_id)) for trace_id in trace_ids}
    errors = [error_json(NOT_FOUND, trace_id=id_text(one)) for one, known in stored.items() if not known]
    return Found(tuple(trace_id for trace_id, known in stored.items() if known), tuple(errors))


def _query(search: TraceSearch, after: str | None) -> SpanQuery:
    return SpanQuery(
        service=_stored_name(search.service),
        name=word(search.operation) or None,
        since=search.since,
        until=search.until,
        shortest=search.shortest,
        longest=search.longest or None,
        after=after,
    )


def _matching(store: Store, rows: Sequence[SpanRow], search: TraceSearch) -> list[SpanRow]:
    """Return the rows whose spans meet what index rows do not tell, in their order."""
    if not search.tags and search.service not in _NAMELESS:
        return list(rows)
    keys = {(told.row.trace_id, told.row.span_id) for told in _told(store, rows) if _meets(told, search)}
    return [row for row in rows if (row.trace_id, row.span_id) in keys]


def _meets(told: _Told, search: TraceSearch) -> bool:
    if told.process.service != search.service:
        return False
    wanted = set(search.tags)
    names = {name for name, _ in wanted}
    span = told.span
    fields = (field for log in span.logs for field in log.fields)
    for tag in chain(span.tags, told.process.tags, fields):
        if tag.key in names:
            wanted.discard((tag.key, tag_text(tag)))
    return not wanted


# --- Traces in API v1 -------------------------------------------------------------------------------------


def pieces_v1(
    store: Store, traces: Iterable[Sequence[SpanRow]], errors: Sequence[JsonObject] = (), *, raw: bool = False
) -> Iterator[bytes]:
    """Make an answer of API v1 of traces, by their rows; `raw` ones come unsorted and without warnings."""
    return merged(_texts_v1(store, traces, errors, raw=raw))


def _texts_v1(
    store: Store, traces: Iterable[Sequence[SpanRow]], errors: Sequence[JsonObject], *, raw: bool
) -> Iterator[bytes]:
    yield b'{"data":['
    begun = False
    for rows in traces:
        if rows:  # none where the trace is gone meanwhile
            yield b"," if begun else b""
            yield from _trace_v1(store, rows, raw=raw)
            begun = True
    rest = encode({"total": 0, "limit": 0, "offset": 0, "errors": list(errors) or None})
    yield b"]," + rest[1:]


def _trace_v1(store: Store, rows: Sequence[SpanRow], *, raw: bool) -> Iterator[bytes]:
    yield b'{"traceID":' + encode(id_text(rows[0].trace_id)) + b',"spans":['
    processes: dict[Process, str] = {}
    yield from separated(_spans_v1(store, rows, processes, raw=raw))
    yield b'],"processes":' + encode(processes_json(processes)) + b',"warnings":null}'


def _spans_v1(
    store: Store, rows: Sequence[SpanRow], processes: dict[Process, str], *, raw: bool
) -> Iterator[bytes]:
    noticed = (
        {} if raw else trace_warnings(node_of(told.message, told.process) for told in _told(store, rows))
    )
    for told in _told(store, rows):
        shown = span = told.span
        warnings = [WARNING] if told.is_made_up else []
        warnings += noticed.get(span.span_id, [])
        if not raw:
            shown, about_references = adjusted(span)
            warnings += about_references
        process_id = processes.setdefault(shown.process, f"p{len(processes) + 1}")
        yield encode(span_json(shown, process_id, warnings))


# --- Traces in API v3 -------------------------------------------------------------------------------------


def pieces_v3(store: Store, traces: Iterable[Sequence[SpanRow]]) -> Iterator[bytes]:
    """Make an answer of API v3 of traces, by their rows: OTLP, each trace grouped by resource and scope."""
    return merged(_texts_v3(store, traces))


def _texts_v3(store: Store, traces: Iterable[Sequence[SpanRow]]) -> Iterator[bytes]:
    yield b'{"result":{"resourceSpans":['
    groups = (group for rows in traces for group in resource_spans(told.span for told in _told(store, rows)))
    yield from separated(map(encode, groups))
    yield b"]}}"


# --- Spans ------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What is stored of a span, or told of a lost run's root."""

    row: SpanRow
    message: SpanMessage
    process: Process
    scope: InstrumentationScope
    is_made_up: bool

    @property
    def span(self) -> Span:
        """The whole of it as Jaeger's."""
        return span_of(self.message, self.process, self.scope)


def _told(store: Store, rows: Sequence[SpanRow]) -> Iterator[_Told]:
    last_end = max((row.end or 0 for row in rows), default=0)
    resource, process = None, process_of(Resource())
    for stored in store.full(rows):
        assert stored.resource is not None  # noqa: S101 - a store gives both to every span in full
        assert stored.scope is not None  # noqa: S101
        if stored.resource is not resource:  # one for all the spans of it in a request
            resource, process = stored.resource, process_of(stored.resource)
        message = made_up(stored, last_end) if stored.span is None else stored.span
        yield _Told(stored.row, message, process, stored.scope, stored.span is None)
