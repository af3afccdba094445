"""The list of sessions: index walks over roll-up rows, page by page by the place of the last row."""

from __future__ import annotations

import base64
import binascii
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from otel_sessions.backend.filters import states_of
from otel_sessions.backend.records import SessionRecord
from otel_sessions.backend.store._filter import Clause, clauses, starts_of
from otel_sessions.backend.store._rollups import RECORD_COLUMNS, session_record
from otel_sessions.backend.store.base import SessionPage, SessionQuery
from otel_sessions.lifecycle import State

__all__ = ["count_states", "list_sessions"]

_NULLABLE: Final = frozenset(
    {
        "session_id", "name", "title", "service", "user_id", "conversation_id", "waiting_for", "outcome",
        "end_reason", "ended_at", "turns", "input_tokens", "output_tokens", "cached_tokens", "cost",
        "missing_spans", "error", "last_ended_at",
    }
)  # fmt: skip
_SORTABLE: Final = frozenset(SessionRecord.__slots__) - {"agents", "models", "tools", "state"}
_INDEXED: Final = "started_at"
"""The order that indices have: here a rare filter is looked for in stretches, elsewhere all is sorted."""
_SECONDS: Final = 0.5
_FIRST_STRETCH: Final = 500  # sessions
_LONGEST_STRETCH: Final = 8_000  # put to a costly test in less than 0.2 s
_STATES: Final = frozenset(state.value for state in State)


Place = tuple[Any, str]  # the value of the order's column, and the id, of the last row seen


@dataclass(slots=True)
class _Where:
    """Conditions of one statement, their values, and what they are put to."""

    conditions: list[str] = field(default_factory=list[str])
    values: list[Any] = field(default_factory=list[Any])
    source: str = "sessions"

    @property
    def text(self) -> str:
        return " AND ".join(self.conditions) or "1"

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


class _Walk:
    """The sessions that a query's states and times leave, in its order, from any place on."""

    def __init__(self, query: SessionQuery, order: _Order) -> None:
        self.query = query
        self.order = order
        self.limit = max(1, query.limit)
        self._branches = _branches_of(query)
        self._shared = _shared(query)

    def statement(
        self, columns: str, place: Place | None, limit: int, tests: Sequence[Clause] = ()
    ) -> tuple[str, list[Any]]:
        """Return the statement that reads the next rows after a place, and its values."""
        selects: list[str] = []
        values: list[Any] = []
        for branch in self._branches:
            where = _Where([*branch.conditions], [*branch.values], branch.source)
            for clause in (*self._shared, *tests):
                where.add(clause.sql, *clause.values)
            if place is not None:
                self.order.beyond(where, *place)
            selects.append(
                f"SELECT * FROM (SELECT {columns} FROM {where.source} WHERE {where.text}"
                f" ORDER BY {self.order.clause} LIMIT {limit})"
            )
            values += where.values
        merged = f"SELECT * FROM ({' UNION ALL '.join(selects)}) ORDER BY {self.order.clause} LIMIT {limit}"
        return (merged if len(selects) > 1 else selects[0]), values

    def page(self, rows: Sequence[tuple[Any, ...]]) -> SessionPage:
        """Return the page that rows make, which are one more than fit if there is a next page."""
        records = self.records(rows[: self.limit])
        if len(rows) <= self.limit:
            return SessionPage(records, None)
        last = records[-1]
        return SessionPage(records, _cursor(self.query.sort, getattr(last, self.order.column), last.id))

    def records(self, rows: Iterable[tuple[Any, ...]]) -> tuple[SessionRecord, ...]:
        """Return the records of rows, with the states that are shown of them."""
        return tuple(session_record(row, self.query.idle_before) for row in rows)


def list_sessions(conn: sqlite3.Connection, query: SessionQuery, now: Callable[[], float]) -> SessionPage:
    """Return one page of the list; `now` is a clock in seconds that bounds the search for what is rare.

    A page that is not full and has a cursor is one whose time was over. Raises ValueError for an unknown
    sort, state or cursor.
    """
    order = _order_of(query.sort)
    place = None if query.after is None else _place(query.sort, query.after)
    if states_of(query.filter) == frozenset():
        return SessionPage((), None)
    walk = _Walk(query, order)
    tests = clauses(query.filter, query.idle_before)
    if tests and order.column == _INDEXED:
        return _search(conn, walk, tests, place, now)
    statement, values = walk.statement(RECORD_COLUMNS, place, walk.limit + 1, tests)
    return walk.page(conn.execute(statement, values).fetchall())


def _search(
    conn: sqlite3.Connection,
    walk: _Walk,
    tests: Sequence[Clause],
    place: Place | None,
    now: Callable[[], float],
) -> SessionPage:
    """Put stretch after stretch of the walk to the test, until the page is full or its time is over."""
    deadline = now() + _SECONDS
    conditions = " AND ".join(test.sql for test in tests)
    tested = [value for test in tests for value in test.values]
    rows: list[tuple[Any, ...]] = []
    stretch = _FIRST_STRETCH
    while True:
        numbers, values = walk.statement(f"no, {_INDEXED}, id", place, stretch)
        rows += conn.execute(
            f"SELECT {RECORD_COLUMNS} FROM sessions WHERE no IN (SELECT no FROM ({numbers})) AND {conditions}"
            f" ORDER BY {walk.order.clause} LIMIT {walk.limit + 1 - len(rows)}",
            [*values, *tested],
        )
        if len(rows) > walk.limit:
            return walk.page(rows)
        last = f"{walk.order.clause} LIMIT 1 OFFSET {stretch - 1}"
        place = conn.execute(f"SELECT {_INDEXED}, id FROM ({numbers}) ORDER BY {last}", values).fetchone()
        if place is None:
            return walk.page(rows)
        if now() >= deadline:
            return SessionPage(walk.records(rows), _cursor(walk.query.sort, *place))
        stretch = min(stretch * 4, _LONGEST_STRETCH)


def count_states(conn: sqlite3.Connection, idle_before: int) -> dict[str, int]:
    """Count the sessions by shown state; of those without a run only the lately seen are visited."""
    stored = dict(conn.execute("SELECT state, n FROM session_counts WHERE n > 0"))
    without_run = stored.pop("", 0)
    active = without_run
    if idle_before > 0:
        (active,) = conn.execute(
            "SELECT count(*) FROM sessions INDEXED BY sessions_without_run"
            " WHERE state = '' AND last_seen_at > ? AND last_alive_at > ?",
            (idle_before, idle_before),
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
            yield _Where(["state = '' AND last_alive_at <= ?"], [idle_before])
            continue
        yield _Where([f"state = '{state}'"])
        if state == State.RUNNING.value:
            yield _active(idle_before)


def _branches_of(query: SessionQuery) -> list[_Where]:
    """Ask for the states that the query and its filter leave; for all of them in one walk."""
    only = states_of(query.filter)
    if not query.states and only is None:
        return [_Where()]
    named = query.states or tuple(state.value for state in State)
    left = [state for state in dict.fromkeys(named) if only is None or state in only]
    return list(_branches(left, query.idle_before)) or [_Where(["0"])]


def _active(idle_before: int) -> _Where:
    """Ask for the sessions without any run that are not idle.

    They are few, among those seen lately, so they are found by that and then sorted: a walk in the list's
    order would visit all the idle ones in between.
    """
    if idle_before <= 0:
        return _Where(["state = ''"])
    return _Where(
        ["state = '' AND last_seen_at > ? AND last_alive_at > ?"],
        [idle_before, idle_before],
        "sessions INDEXED BY sessions_without_run",
    )


def _shared(query: SessionQuery) -> list[Clause]:
    """Return what an index or a glance at the row answers: before a filter is put to the test."""
    wanted = (
        ("service = ?", query.service),
        ("user_id = ?", query.user),
        ("started_at >= ?", query.since),
        ("started_at < ?", query.until),
    )
    return [*(Clause(sql, (value,)) for sql, value in wanted if value is not None), *starts_of(query.filter)]


def _cursor(sort: str, value: object, session_id: str) -> str:
    text = json.dumps([sort, value, session_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _is_storable(value: object) -> bool:
    """Tell whether a column of the list could hold a value: cursors come back from anybody."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _place(sort: str, cursor: str) -> Place:
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
