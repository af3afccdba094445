"""What stands in a query or a path, read strictly: a value that means nothing is a 400 that names what does.

Parameters nobody knows are ignored: a page and its JSON twin share one query string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Final

from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.filter_text import FilterError, parse
from otel_sessions.backend.filters import Filter
from otel_sessions.backend.records import SessionRecord
from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.lifecycle import State

__all__ = [
    "LIMIT_DEFAULT",
    "LIMIT_MAX",
    "NUMBER",
    "SORTS",
    "STATES",
    "filter_of",
    "item_of",
    "limit_of",
    "revision_of",
    "session_query",
    "span_ids",
    "states_of",
    "time_of",
]

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 500
NUMBER: Final = "[0-8]?[0-9]{1,18}"  # what fits 64 bits; as a time in ns, until the year 2255

STATES: Final = tuple(state.value for state in State)

SORTS: Final = tuple(
    column.name
    for column in fields(SessionRecord)
    if column.name not in ("agents", "models", "tools", "state")
)
"""Columns to sort by, ascending; with "-" before, descending."""

_NUMBER = re.compile(NUMBER)
_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")
_SPAN_ID = re.compile(r"[0-9a-fA-F]{16}")


def session_query(query: Mapping[str, str], *, now: int, idle_before: int) -> SessionQuery:
    """Read the filter of the list of sessions. Raises ProblemError (400) for a value without meaning."""
    return SessionQuery(
        states=states_of(query),
        filter=filter_of(query).at(now),
        service=query.get("service") or None,
        user=query.get("user") or None,
        since=time_of(query, "since"),
        until=time_of(query, "until"),
        sort=_choice("sort", query.get("sort") or "-started_at", [*SORTS, *(f"-{name}" for name in SORTS)]),
        limit=limit_of(query),
        after=query.get("after") or None,
        idle_before=idle_before,
    )


def filter_of(query: Mapping[str, str], *, search: bool = False) -> Filter:
    """Read `q` as a filter; for a search, what names no field is text.

    The problem (400) names the first character at fault, counted in code points, the word and what would do.
    """
    try:
        return parse(query.get("q", ""), unknown_fields_are_text=search)
    except FilterError as exc:
        allowed = exc.allowed if isinstance(exc.allowed, str) else list(exc.allowed)
        raise ProblemError(
            400, exc.detail, parameter="q", position=exc.position, word=exc.word, allowed=allowed
        ) from exc


def states_of(query: Mapping[str, str]) -> tuple[str, ...]:
    """Read `state`: a list of states with commas between; none means all."""
    names = [name for name in (part.strip() for part in query.get("state", "").split(",")) if name]
    return tuple(_choice("state", name, STATES) for name in dict.fromkeys(names))


def limit_of(query: Mapping[str, str]) -> int:
    """Read `limit`: how many items a page holds."""
    limit = _integer(query, "limit", f"a whole number from 1 to {LIMIT_MAX}")
    if limit is None:
        return LIMIT_DEFAULT
    if not 1 <= limit <= LIMIT_MAX:
        raise _unreadable("limit", str(limit), f"a whole number from 1 to {LIMIT_MAX}")
    return limit


def time_of(query: Mapping[str, str], name: str) -> int | None:
    """Read a time in Unix nanoseconds."""
    return _integer(query, name, "a time in Unix nanoseconds")


def revision_of(query: Mapping[str, str]) -> int | None:
    """Read `after` as a revision: the `revision` of an earlier answer."""
    return _integer(query, "after", "the `revision` of an earlier answer")


def item_of(query: Mapping[str, str]) -> int:
    """Read `after` as the number of an item: the `next` of the page before."""
    return _integer(query, "after", "the `next` of an earlier answer") or 0


def span_ids(path: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Read the two ids of a span from the path."""
    trace_id, span_id = path["trace_id"], path["span_id"]
    if not _TRACE_ID.fullmatch(trace_id):
        raise _unreadable("trace_id", trace_id, "32 hexadecimal digits")
    if not _SPAN_ID.fullmatch(span_id):
        raise _unreadable("span_id", span_id, "16 hexadecimal digits")
    return bytes.fromhex(trace_id), bytes.fromhex(span_id)


def _choice(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ProblemError(
            400,
            f"{name}={value} is unknown; allowed: {', '.join(allowed)}.",
            parameter=name,
            allowed=list(allowed),
        )
    return value


def _integer(query: Mapping[str, str], name: str, meaning: str) -> int | None:
    value = query.get(name, "")
    if not value:
        return None
    if not _NUMBER.fullmatch(value):
        raise _unreadable(name, value, meaning)
    return int(value)


def _unreadable(name: str, value: str, meaning: str) -> ProblemError:
    return ProblemError(400, f"{name}={value} is not {meaning}.", parameter=name, allowed=meaning)
