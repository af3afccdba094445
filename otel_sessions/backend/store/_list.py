"""The list of sessions: index walks over roll-up rows, page by page by the place of the last row."""

from __future__ import annotations

import base64
import binascii
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from otel_sessions.backend.records import SessionRecord
from otel_sessions.backend.store._rollups import RECORD_COLUMNS, session_record
from otel_sessions.backend.store.base import SessionPage, SessionQuery
from otel_sessions.lifecycle import State

__all__ = ["count_states", "list_sessions"]

_NULLABLE: Final = frozenset(
    {
        "session_id", "name", "title", "service", "user_id", "conversation_id", "waiting_for", "outcome",
        "end_reason", "ended_at", "turns", "input_tokens", "output_tokens", "cached_tokens", "cost",
        "missing_spans",
    }
)  # fmt: skip
_SORTABLE: Final = frozenset(SessionRecord.__slots__) - {"agents", "models", "state"}
_STATES: Final = frozenset(state.value for state in State)


@dataclass(slots=True)
class _Where:
    """Conditions of one statement, their values, and what they are put to."""

    conditions: list[str] = field(default_factory=list[str])
    values: list[Any] = field(default_factory=list[Any])
    source: str = "sessions"

    def add(self, condition: str, *values: object) -> None:
        self.conditions.append(condition)
        self.values.extend(values)


@dataclass(frozen=True, slots=True)
class _Order:
    """A column to sort by; unknown values come last, ties go by id."""

    column: str
    descending: bool

    @property
    def clause(self) -> str:
        way = "DESC" if self.descending else "ASC"
        unknown_last = f"{self.column} IS NULL, " if self.column in _NULLABLE else ""
        return f"{unknown_last}{self.column} {way}, id {way}"

    def beyond(self, where: _Where, value: object, session_id: str) -> None:
        """Ask for what comes after a row."""
        sign = "<" if self.descending else ">"
        if value is None:
            where.add(f"{self.column} IS NULL AND id {sign} ?", session_id)
        elif self.column in _NULLABLE:
            where.add(f"(({self.column}, id) {sign} (?, ?) OR {self.column} IS NULL)", value, session_id)
        else:
            where.add(f"({self.column}, id) {sign} (?, ?)", value, session_id)


def list_sessions(conn: sqlite3.Connection, query: SessionQuery) -> SessionPage:
    """Return one page of the list. Raises ValueError for an unknown sort, state or cursor."""
    order = _order_of(query.sort)
    shared = _shared(query, order)
    branches = list(_branches(dict.fromkeys(query.states), query.idle_before)) or [_Where()]
    limit = max(1, query.limit) + 1
    selects: list[str] = []
    values: list[Any] = []
    for branch in branches:
        conditions = " AND ".join([*branch.conditions, *shared.conditions]) or "1"
        selects.append(
            f"SELECT * FROM (SELECT {RECORD_COLUMNS} FROM {branch.source} WHERE {conditions}"
            f" ORDER BY {order.clause} LIMIT {limit})"
        )
        values += [*branch.values, *shared.values]
    statement = " UNION ALL ".join(selects) + f" ORDER BY {order.clause} LIMIT {limit}"
    if order.column in _NULLABLE:  # a compound SELECT sorts by its own columns only
        statement = f"SELECT * FROM ({' UNION ALL '.join(selects)}) ORDER BY {order.clause} LIMIT {limit}"
    rows = conn.execute(statement, values).fetchall()
    records = tuple(session_record(row, query.idle_before) for row in rows[: limit - 1])
    more = len(rows) == limit
    return SessionPage(
        records, _cursor(query.sort, getattr(records[-1], order.column), records[-1].id) if more else None
    )


def count_states(conn: sqlite3.Connection, idle_before: int) -> dict[str, int]:
    """Count the sessions by shown state; of those without a run only the lately seen are visited."""
    stored = dict(conn.execute("SELECT state, n FROM session_counts WHERE n > 0"))
    without_run = stored.pop("", 0)
    active = without_run
    if idle_before > 0:
        (active,) = conn.execute(
            "SELECT count(*) FROM sessions INDEXED BY sessions_without_run"
            " WHERE state = '' AND last_seen_at >= ?",
            (idle_before,),
        ).fetchone()
    counts = {state.value: stored.get(state.value, 0) for state in State}
    counts[State.RUNNING.value] += active
    counts[State.IDLE.value] += without_run - active
    return counts


def _order_of(sort: str) -> _Order:
    column = sort.removeprefix("-")
    if column not in _SORTABLE:
        raise ValueError(
            f"Sessions can't be sorted by {column!r}; one of {', '.join(sorted(_SORTABLE))} would do."
        )
    return _Order(column, sort.startswith("-"))


def _branches(states: Iterable[str], idle_before: int) -> Iterator[_Where]:
    """Ask for shown states, each by an index walk of its own."""
    for state in states:
        if state not in _STATES:
            raise ValueError(f"There is no state {state!r}; one of {', '.join(sorted(_STATES))} would do.")
        if state == State.IDLE.value:
            yield _Where(["state = '' AND last_seen_at < ?"], [idle_before])
            continue
        yield _Where([f"state = '{state}'"])
        if state == State.RUNNING.value:
            yield _active(idle_before)


def _active(idle_before: int) -> _Where:
    """Ask for the sessions without any run that are not idle.

    They are few, those seen lately, so they are found by that and then sorted: a walk in the list's
    order would visit all the idle ones in between.
    """
    if idle_before <= 0:
        return _Where(["state = ''"])
    return _Where(
        ["state = '' AND last_seen_at >= ?"], [idle_before], "sessions INDEXED BY sessions_without_run"
    )


def _shared(query: SessionQuery, order: _Order) -> _Where:
    where = _Where()
    if query.service is not None:
        where.add("service = ?", query.service)
    if query.user is not None:
        where.add("user_id = ?", query.user)
    if query.since is not None:
        where.add("started_at >= ?", query.since)
    if query.until is not None:
        where.add("started_at < ?", query.until)
    if query.text:
        where.add("instr(words, ?) > 0", query.text.casefold())
    if query.after is not None:
        order.beyond(where, *_place(query.sort, query.after))
    return where


def _cursor(sort: str, value: object, session_id: str) -> str:
    text = json.dumps([sort, value, session_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _is_storable(value: object) -> bool:
    """Tell whether a column of the list could hold a value: cursors come back from anybody."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _place(sort: str, cursor: str) -> tuple[Any, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        sorted_by, value, session_id = json.loads(text)
    except (binascii.Error, ValueError, TypeError) as exc:
        raise ValueError(f"{cursor!r} is no cursor of this list; start again without it.") from exc
    if not (_is_storable(value) and isinstance(session_id, str)):
        raise ValueError(f"{cursor!r} is no cursor of this list; start again without it.")
    if sorted_by != sort:
        raise ValueError(
            f"The cursor belongs to the order {sorted_by!r}, not {sort!r}; start again without it."
        )
    return value, session_id
