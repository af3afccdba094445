"""The description of the API, built from one table of operations and the schemas beside it.

A test compares the table with the routes, both ways, and real answers with the schemas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from otel_sessions._version import __version__
from otel_sessions.backend.api.parameters import LIMIT_DEFAULT, LIMIT_MAX, NUMBER, SORTS, STATES
from otel_sessions.backend.api.schemas import SCHEMAS, Schema, ref
from otel_sessions.backend.filter_text import LONGEST

__all__ = ["OPERATIONS", "Operation", "Parameter", "openapi_json"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a path or a query."""

    name: str
    description: str
    schema: Schema
    where: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked, and what it answers."""

    path: str
    id: str
    summary: str
    answer: Schema
    parameters: tuple[Parameter, ...] = ()
    media_type: str = "application/json"
    problems: tuple[int, ...] = ()
    description: str = ""
    method: str = "get"


_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "string", "pattern": f"^({NUMBER})?$"}
_STATE: Final = f"({'|'.join(STATES)})"
_STATES: Final[Schema] = {"type": "string", "pattern": f"^,*({_STATE}(,+{_STATE})*,*)?$"}
_SESSION: Final = Parameter(
    "id",
    "the session's `id`, or its `session_id` where that is unique; percent-encoded",
    _TEXT,
    "path",
    required=True,
)
_LIMIT: Final = Parameter(
    "limit",
    "items on a page",
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
)


def _query(name: str, description: str, schema: Schema = _TEXT) -> Parameter:
    return Parameter(name, description, schema)


def _in_path(name: str, description: str, digits: int) -> Parameter:
    return Parameter(
        name, description, {"type": "string", "pattern": f"^[0-9a-fA-F]{{{digits}}}$"}, "path", required=True
    )


_CSRF: Final = Parameter(
    "X-CSRF-Token",
    "of /api/v1/csrf; asked of whatever bears Origin, Sec-Fetch-Site or a cookie",
    _TEXT,
    "header",
)
_FILTER: Final = (
    "a filter: words that occur in id, name, title, service, user, agents or models, in any case, and "
    'conditions such as `state:lost tool:search tokens>10000 "two words"`; docs/filters.md tells the language'
)
_FILTERS: Final[Schema] = {"type": "string", "maxLength": LONGEST}
_SEARCH: Final = (
    Parameter(
        "q",
        "words that all have to occur in a span or log, and conditions on its session as the list has them",
        {**_FILTERS, "pattern": r"\S"},
        required=True,
    ),
    _query("before", "`next` of the page before", _NUMBER),
    _LIMIT,
)

OPERATIONS: Final = (
    Operation(
        "/api/v1/sessions",
        "listSessions",
        "List sessions, newest first",
        ref("SessionList"),
        (
            _query("state", f"only these, comma-separated: {', '.join(STATES)}", _STATES),
            _query("q", _FILTER, _FILTERS),
            _query("service", "only of this service.name"),
            _query("user", "only of this user.id"),
            _query("since", "started at or after, Unix ns", _NUMBER),
            _query("until", "started before, Unix ns", _NUMBER),
            _query(
                "sort",
                "column to sort by; descending with a minus sign before it",
                {"type": "string", "enum": [f"{sign}{name}" for name in SORTS for sign in ("-", "")]},
            ),
            _LIMIT,
            _query("after", "`next` of the page before"),
        ),
        problems=(400,),
    ),
    Operation(
        "/api/v1/filters",
        "listFilters",
        "The fields of a filter, what they are compared with, and values that sessions have",
        ref("Filters"),
    ),
    Operation(
        "/api/v1/sessions/{id}",
        "getSession",
        "One session with its runs, tasks, timeline and open spans",
        ref("SessionDetail"),
        (_SESSION,),
        problems=(404,),
    ),
    Operation(
        "/api/v1/sessions/{id}/rows",
        "getRows",
        "The structure of a session, by columns and without payloads",
        {"oneOf": [ref("Rows"), ref("RowsDelta")]},
        (
            _SESSION,
            _query("after", "`revision` of an earlier answer: only what changed since (RowsDelta)", _NUMBER),
        ),
        problems=(400, 404),
    ),
    Operation(
        "/api/v1/sessions/{id}/transcript",
        "getTranscript",
        "What was said and done in a session, in order",
        ref("Transcript"),
        (_SESSION, _query("after", "`next` of the page before", _NUMBER), _LIMIT),
        problems=(400, 404),
    ),
    *(
        Operation(
            "/api/v1/sessions/{id}/pin",
            name,
            summary,
            ref("Pin"),
            (_SESSION, _CSRF),
            problems=(403, 404, 503),
            method=method,
        )
        for method, name, summary in (
            ("put", "pinSession", "Keep a session whatever the retention is"),
            ("delete", "unpinSession", "Keep it no longer than the retention says"),
        )
    ),
    Operation(
        "/api/v1/csrf",
        "getCsrfToken",
        "What a page has to send as X-CSRF-Token when it writes; programs need none",
        ref("Csrf"),
    ),
    Operation(
        "/api/v1/sessions/{id}/otlp",
        "exportSession",
        "All spans and logs of a session as OTLP JSON, streamed as an attachment",
        ref("Otlp"),
        (_SESSION,),
        problems=(404,),
    ),
    Operation(
        "/api/v1/spans/{trace_id}/{span_id}",
        "getSpan",
        "One span in full",
        ref("SpanDetail"),
        (_in_path("trace_id", "in hex", 32), _in_path("span_id", "in hex", 16)),
        problems=(400, 404),
    ),
    Operation(
        "/api/v1/search",
        "search",
        "Find words, in any script, in names and contents of spans and logs",
        ref("SearchAnswer"),
        _SEARCH,
        problems=(400, 503),
        description=(
            "Reads from the newest to the oldest for one second at most: an answer with `next` may hold few "
            "hits or none, and the search goes on from there."
        ),
    ),
    Operation(
        "/api/v1/search/stream",
        "streamSearch",
        "The same, streamed: hits when they are found, and how far the search came",
        ref("SearchLine"),
        _SEARCH,
        media_type="application/x-ndjson",
        problems=(400, 503),
        description="One JSON object a line, each a SearchLine. Ends with an `end` after `limit` hits.",
    ),
    Operation(
        "/api/v1/stream",
        "stream",
        "Follow what changes, as server-sent events",
        _TEXT,
        (
            _query("after", "`event_id` of an earlier answer; the header Last-Event-ID wins over it"),
            _query("session", "also the rows of this session (its `id` or unique `session_id`)"),
            _query("q", "only sessions that meet this filter, as in the list", _FILTERS),
            _query("state", "only sessions in these states, comma-separated", _STATES),
        ),
        media_type="text/event-stream",
        problems=(400, 404, 503),
        description=(
            "Each event has an `id` to resume from. `session`: a SessionEvent. `rows`: a RowsEvent, only "
            'with `session`. `gone`: `{"id"}` of a session that was merged into another or pruned. '
            '`unmatched`: `{"id"}` of one that does not meet the filter, or no more; told once. `reset`: '
            "the position is unknown or too old, or the reader too slow: load afresh, then go on from the "
            "id of this event. Without `after` the stream begins now. A comment comes when nothing else did "
            "for 15 s."
        ),
    ),
    Operation(
        "/api/v1/status",
        "getStatus",
        "Version, counters and totals of the server",
        ref("Status"),
    ),
    Operation(
        "/api/v1/openapi.json",
        "getDescription",
        "This description",
        {"type": "object"},
    ),
    Operation("/healthz", "healthz", "Whether the process answers", _TEXT, media_type="text/plain"),
    Operation(
        "/readyz",
        "readyz",
        "Whether the server takes telemetry and reads its store",
        _TEXT,
        media_type="text/plain",
        problems=(503,),
    ),
    Operation("/metrics", "metrics", "Counters for Prometheus", _TEXT, media_type="text/plain"),
)


def openapi_json() -> dict[str, Any]:
    """Build the whole description, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "otel-sessions",
            "version": __version__,
            "description": (
                "Sessions of AI agents, from OpenTelemetry. Times and durations are Unix nanoseconds as "
                "strings, ids are lower-case hex, unknown values are null. Every error is a Problem."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths_json(),
        "components": {"schemas": SCHEMAS},
    }


def _paths_json() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation_json(operation)
    return paths


def _operation_json(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [_parameter_json(parameter) for parameter in operation.parameters],
        "responses": {
            "200": {"description": "OK", "content": {operation.media_type: {"schema": operation.answer}}},
            **{str(status): _problem_json(status) for status in operation.problems},
            "default": _problem_json(None),
        },
    }
    if operation.description:
        described["description"] = operation.description
    return described


def _parameter_json(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


_MEANINGS: Final = {
    400: "A parameter has no meaning; the problem names it and what it may be",
    403: "A write from a page that is not this server's, or without its token",
    404: "Not stored here",
    503: "Not now: too much is going on, or the store can't be read",
}


def _problem_json(status: int | None) -> dict[str, Any]:
    return {
        "description": "The request failed" if status is None else _MEANINGS[status],
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }
