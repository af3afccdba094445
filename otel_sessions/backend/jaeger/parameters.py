"""What stands in a query, read as Jaeger reads it; pure.

A value that means nothing is a `ParameterError` with Jaeger's message. Parameters that nobody knows are
ignored, as is `lookback` of a search: Jaeger's page says the same by `start` and `end`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from otel_sessions.backend.jaeger.golang import MAX_INT64, GoError, parse_duration, parse_int
from otel_sessions.backend.json_values import loads

__all__ = [
    "MAX_TRACES",
    "ParameterError",
    "Range",
    "TraceSearch",
    "dependencies_range",
    "malformed",
    "operations_v1",
    "operations_v3",
    "trace_id_of",
    "traces_v1",
    "traces_v3",
]

Query = Mapping[str, Sequence[str]]
"""All values of each parameter, in order."""

LIMIT: Final = 100
MAX_TRACES: Final = 1500
"""Most traces in one answer, as in Jaeger's page; what asks for more, or for all by 0, gets these."""

_LOOKBACK: Final = 48 * 3600 * 10**9
_DEPENDENCIES_LOOKBACK: Final = 24 * 3600 * 10**9
_US, _MS = 1_000, 1_000_000
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{1,32}")
_MAX_DIGITS: Final = 32
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_RFC3339_LAYOUT: Final = "2006-01-02T15:04:05.999999999Z07:00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class ParameterError(ValueError):
    """A parameter can't be read, or is missing."""


@dataclass(frozen=True, slots=True)
class TraceSearch:
    """Which traces to find: those with a span that meets every condition; Unix ns, and durations in ns.

    `trace_ids` alone decide where they are given.
    """

    service: str
    operation: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    since: int = 0
    until: int = MAX_INT64
    shortest: int = 0
    longest: int = 0  # 0: any
    limit: int = LIMIT
    trace_ids: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of time, in Unix ns."""

    since: int
    until: int


# --- API v1 -----------------------------------------------------------------------------------------------


def traces_v1(query: Query, now: int) -> TraceSearch:
    """Read a search of API v1; `now` is Unix ns. Raises ParameterError."""
    since = _unix_time(query, "start", _US, now - _LOOKBACK)
    until = _unix_time(query, "end", _US, now)
    tags = _tags_v1(query.get("tag", ()), query.get("tags", ()))
    limit = _limit(_first(query, "limit"))
    search = TraceSearch(
        service=_first(query, "service"),
        operation=_first(query, "operation"),
        tags=tuple(tags.items()),
        since=since,
        until=until,
        shortest=_duration(query, "minDuration"),
        longest=_duration(query, "maxDuration"),
        limit=LIMIT if limit is None else limit,
        trace_ids=tuple(map(_trace_id_in_search, query.get("traceID", ()))),
    )
    if not search.trace_ids and not search.service:
        raise ParameterError("parameter 'service' is required")
    if search.shortest and search.longest and search.longest < search.shortest:
        raise ParameterError("'maxDuration' should be greater than 'minDuration'")
    return search


def operations_v1(query: Query) -> tuple[str, str]:
    """Read service and kind of a list of operations. Raises ParameterError."""
    service = _first(query, "service")
    if not service:
        raise ParameterError("parameter 'service' is required")
    return service, _first(query, "spanKind")


def dependencies_range(query: Query, now: int) -> Range:
    """Read between when calls are to be counted. Raises ParameterError."""
    until = _unix_time(query, "endTs", _MS, now)
    text = _first(query, "lookback")
    try:
        lookback = parse_int(text) * _MS if text else _DEPENDENCIES_LOOKBACK
    except GoError as exc:
        raise ParameterError(f"unable to parse param 'lookback': {exc}") from exc
    return Range(_storable(until - lookback), until)


def trace_id_of(text: str) -> bytes:
    """Read a trace id of up to 32 hex digits, 64-bit ones included. Raises ParameterError."""
    if len(text) > _MAX_DIGITS:
        raise ParameterError(f"TraceID cannot be longer than 32 hex characters: {text}")
    if not _TRACE_ID.fullmatch(text):
        head, tail = text[:-16], text[-16:]
        part = head if head and not _TRACE_ID.fullmatch(head) else tail
        raise ParameterError(f"strconv.ParseUint: parsing {json.dumps(part)}: invalid syntax")
    return bytes.fromhex(text.rjust(_MAX_DIGITS, "0"))


def _trace_id_in_search(text: str) -> bytes:
    try:
        return trace_id_of(text)
    except ParameterError as exc:
        raise ParameterError(f"cannot parse traceID param: {exc}") from exc


def _unix_time(query: Query, name: str, unit: int, default: int) -> int:
    text = _first(query, name)
    try:
        return _storable(parse_int(text) * unit if text else default)
    except GoError as exc:
        raise ParameterError(f"unable to parse param '{name}': {exc}") from exc


def _duration(query: Query, name: str) -> int:
    text = _first(query, name)
    try:
        return parse_duration(text) if text else 0
    except GoError as exc:
        raise ParameterError(f"unable to parse param '{name}': {exc}") from exc


def _limit(text: str) -> int | None:
    """Read a number of traces; all of them are as many as we give."""
    if not text:
        return None
    try:
        limit = parse_int(text, bits=32)
    except GoError as exc:
        raise ParameterError(str(exc)) from exc
    return min(limit, MAX_TRACES) if limit > 0 else MAX_TRACES


def _tags_v1(simple: Sequence[str], in_json: Sequence[str]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag in simple:
        key, colon, value = tag.partition(":")
        if not colon:
            raise ParameterError(f"malformed 'tag' parameter, expecting key:value, received: {tag}")
        tags[key] = value
    for text in in_json:
        tags.update(_tags_in_json(text))
    return tags


def _tags_in_json(text: str) -> dict[str, str]:
    try:
        return _texts(text)
    except ValueError as exc:
        raise ParameterError(f"malformed 'tags' parameter, cannot unmarshal JSON: {exc}") from exc


# --- API v3 -----------------------------------------------------------------------------------------------


def traces_v3(query: Query) -> TraceSearch:
    """Read a search of API v3, its parameters in snake_case or in lowerCamelCase. Raises ParameterError."""
    named = _snake_case(query)
    times = [_first(named, f"query.start_time_{edge}") for edge in ("min", "max")]
    if not all(times):
        raise ParameterError("query.start_time_min and query.start_time_max are required")
    limit = _limit_v3(named)
    return TraceSearch(
        service=_first(named, "query.service_name"),
        operation=_first(named, "query.operation_name"),
        tags=tuple(_attributes(named).items()),
        since=_timestamp("query.start_time_min", times[0]),
        until=_timestamp("query.start_time_max", times[1]),
        shortest=_duration_v3(named, "query.duration_min"),
        longest=_duration_v3(named, "query.duration_max"),
        limit=MAX_TRACES if limit is None else limit,
    )


def operations_v3(query: Query) -> tuple[str, str]:
    """Read service and kind of a list of operations."""
    named = _snake_case(query)
    return _first(named, "service"), _first(named, "span_kind")


def malformed(name: str, reason: object) -> ParameterError:
    """Say which parameter of API v3 can't be read."""
    return ParameterError(f"malformed parameter {name}: {reason}")


def _snake_case(query: Query) -> dict[str, Sequence[str]]:
    return {re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", name): query[name] for name in query}


def _attributes(query: Query) -> dict[str, str]:
    text = _first(query, "query.attributes")
    try:
        return _texts(text) if text else {}
    except ValueError as exc:
        raise malformed("query.attributes", exc) from exc


def _timestamp(name: str, text: str) -> int:
    found = _RFC3339.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)  # noqa: TRY301 - told as a date that does not exist
        seconds = datetime.strptime(f"{found[1]}+0000", "%Y-%m-%dT%H:%M:%S%z") - _EPOCH
    except ValueError as exc:
        raise malformed(name, f"parsing time {json.dumps(text)} as {json.dumps(_RFC3339_LAYOUT)}") from exc
    east = timedelta(hours=int(found[4] or 0), minutes=int(found[5] or 0)) * (-1 if found[3] == "-" else 1)
    return _storable(
        (seconds - east) // timedelta(seconds=1) * 10**9 + int((found[2] or "0")[:9].ljust(9, "0"))
    )


def _duration_v3(query: Query, name: str) -> int:
    text = _first(query, name)
    try:
        return parse_duration(text) if text else 0
    except GoError as exc:
        raise malformed(name, exc) from exc


def _limit_v3(query: Query) -> int | None:
    """Read how many traces are asked for, under the name of Jaeger 1 or of Jaeger 2."""
    for name in ("query.num_traces", "query.search_depth"):
        try:
            limit = _limit(_first(query, name))
        except ParameterError as exc:
            raise malformed(name, str(exc).replace("ParseInt", "Atoi")) from exc
        if limit is not None:
            return limit
    return None


# --- Both -------------------------------------------------------------------------------------------------


def _first(query: Query, name: str) -> str:
    values = query.get(name, ())
    return values[0] if values else ""


def _storable(at: int) -> int:
    return max(0, min(at, MAX_INT64))


def _texts(text: str) -> dict[str, str]:
    """Read a JSON object of strings, or null. Raises ValueError."""
    members: Any = loads(text)
    if members is None:
        return {}
    if not isinstance(members, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - what was sent is wrong, no call of ours
    for key, value in members.items():
        if not isinstance(value, str):
            raise ValueError(f"the value of {key!r} is no string")  # noqa: TRY004 - the same
    return members
