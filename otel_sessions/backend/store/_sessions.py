"""The roll-up rows: loaded, kept in step with what is written, saved in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from otel_sessions.backend import resolve
from otel_sessions.backend.records import LogRecord, SessionRecord, SpanRecord, SumsChange
from otel_sessions.backend.store._connection import execute
from otel_sessions.backend.store._names import NameWriter
from otel_sessions.backend.store._rollups import (
    INSERT,
    RECORD_COLUMNS,
    STATE_COLUMNS,
    TALLY,
    UPDATE,
    UPDATE_PLACE,
    UPDATE_TALLY,
    content,
    place,
    rollup_row,
    state_of,
    sums_of,
    update_row,
)
from otel_sessions.backend.store._rows import LOG_COLUMNS, SPAN_COLUMNS, log_record, span_record
from otel_sessions.backend.store._runs import GAUGE_COLUMNS, RUN_COLUMNS, gauge_of, run_of
from otel_sessions.backend.store._summary import SessionState, summary
from otel_sessions.backend.store._tally import Tally

__all__ = ["Saved", "Sessions"]

_REMEMBERED: Final = 2_000

T = TypeVar("T")
_PARTS: Final = (
    ("sessions", "no"),
    ("session_traces", "session"),
    ("session_tasks", "session"),
    ("missing_parents", "session"),
    ("loose_traces", "session"),
    ("timeline", "session"),
)


class Saved(NamedTuple):
    """What became of the sessions that a transaction touched."""

    changed: tuple[SessionRecord, ...]
    gone: tuple[str, ...]  # ids of those that were emptied
    sums: tuple[SumsChange, ...]


class Sessions:
    """The sessions that the open transaction touches, and those it may touch next."""

    def __init__(self, conn: sqlite3.Connection, names: NameWriter) -> None:
        self._conn = conn
        self._names = names
        self._by_no: dict[int, SessionState] = {}
        self._no_of: dict[str, int] = {}
        self._touched: dict[int, SessionState] = {}
        self._recount: set[int] = set()
        self._last_no: int | None = None

    def by_key(self, key: str, session_id: str | None) -> SessionState:
        """Return the session of a key, new if it was unknown; it counts as touched."""
        no = self._no_of.get(key)
        session = self._by_no[no] if no is not None else self._find(key) or self._create(key, session_id)
        self._touched[session.no] = session
        return session

    def known(self, key: str) -> SessionState | None:
        """Return the session of a key, if there is one."""
        no = self._no_of.get(key)
        return self._by_no[no] if no is not None else self._find(key)

    def by_no(self, no: int) -> SessionState | None:
        """Return a session by its number, if it still exists; it counts as touched."""
        session = self._by_no.get(no) or self._load("no = ?", no)
        if session is not None:
            self._touched[no] = session
        return session

    def count_anew(self, no: int) -> None:
        """Have a session counted from its index rows before the transaction ends."""
        self.by_no(no)
        self._recount.add(no)

    def remaining(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of those sessions that still exist."""
        rows = (
            self._conn.execute("SELECT id FROM sessions WHERE no = ?", (no,)).fetchone() for no in numbers
        )
        return tuple(row[0] for row in rows if row is not None)

    def counted_anew(self) -> set[int]:
        """Return which sessions are counted anew in this transaction."""
        return set(self._recount)

    def drop(self, session: SessionState) -> None:
        """Forget a session that became part of another."""
        for table, column in _PARTS:
            self._conn.execute(f"DELETE FROM {table} WHERE {column} = ?", (session.no,))
        if session.row is not None:
            self._count_states({place(session.row)[0]: -1})
        for cache in (self._by_no, self._touched):
            cache.pop(session.no, None)
        self._no_of.pop(session.key, None)

    def save(self, revision: int, with_rows: Collection[str]) -> Saved:
        """Write the roll-ups of all touched sessions.

        `with_rows` are the ids of sessions of which index rows changed: they count as changed.
        """
        changed: list[SessionRecord] = []
        gone: list[str] = []
        sums: list[SumsChange] = []
        for session in list(self._touched.values()):
            if session.no in self._recount:
                self._recount_rows(session)
            if session.empty:
                if session.row is not None:
                    gone.append(session.id)
                    sums.append(SumsChange(session.sums, None))
                self.drop(session)
                continue
            record = summary(session, revision)
            row = rollup_row(record, session)
            added = sums_of(row, session)
            if added != session.sums:
                sums.append(SumsChange(session.sums, added))
                session.sums = added
            if session.id in with_rows or session.row is None or content(row) != content(session.row):
                self._save_row(session, row)
                changed.append(record)
        self._touched.clear()
        self._recount.clear()
        self._trim()
        return Saved(tuple(changed), tuple(gone), tuple(sums))

    def _save_row(self, session: SessionState, row: tuple[Any, ...]) -> None:
        before, session.row = session.row, row
        if before is None:
            execute(self._conn, INSERT, row)
            self._count_states({place(row)[0]: 1})
            return
        execute(self._conn, UPDATE, update_row(row))
        if place(row) != place(before):
            execute(self._conn, UPDATE_PLACE, place(row))
            if place(row)[0] != place(before)[0]:
                self._count_states({place(before)[0]: -1, place(row)[0]: 1})

    def count_missing_parents(self, session: SessionState) -> int:
        """Return how many parents its spans name that are not stored."""
        return self._rows_in("missing_parents", session)

    def note_members(
        self, session: SessionState, spans: Sequence[SpanRecord], logs: Sequence[LogRecord]
    ) -> None:
        """Add spans and logs that were placed in a session to its roll-up."""
        session.tally.add_spans(spans)
        session.tally.add_logs(logs)
        session.keep_pace(spans, logs)
        traces = {span.trace_id for span in spans}
        traces.update(log.trace_id for log in logs if log.trace_id)
        tasks = {span.task_id for span in spans if span.task_id is not None}
        session.traces += self._note(session, "session_traces", traces - session.known_traces)
        session.tasks += self._note(
            session, "session_tasks", map(self._names.numbers.__getitem__, tasks - session.known_tasks)
        )
        _learn(session.known_traces, traces)
        _learn(session.known_tasks, tasks)

    def _note(self, session: SessionState, table: str, values: Iterable[bytes | int | None]) -> int:
        insert = f"INSERT OR IGNORE INTO {table} VALUES (?, ?)"
        return sum(self._conn.execute(insert, (session.no, value)).rowcount for value in values)

    def forget(self) -> None:
        """Forget all that is remembered, after a transaction was rolled back."""
        for cache in (self._by_no, self._no_of, self._touched, self._recount):
            cache.clear()
        self._last_no = None

    # --- loading ---------------------------------------------------------------------------------------

    def _find(self, key: str) -> SessionState | None:
        return self._load("id = ?", resolve.session_id(key))

    def _load(self, where: str, value: object) -> SessionState | None:
        row = self._conn.execute(
            f"SELECT {RECORD_COLUMNS}, {STATE_COLUMNS} FROM sessions WHERE {where}", (value,)
        ).fetchone()
        if row is None:
            return None
        session = state_of(row)
        if not row[TALLY]:
            self._recount.add(session.no)
            session.tally = self._counted(session.no)
        self._load_parts(session)
        session.sums = sums_of(row, session)
        return self._remember(session)

    def _load_parts(self, session: SessionState) -> None:
        """Load what has tables of its own."""
        no = (session.no,)
        runs = self._conn.execute(f"SELECT {RUN_COLUMNS} FROM runs WHERE session = ?", no)
        session.runs = dict(run_of(row, session.key) for row in runs)
        gauges = self._conn.execute(f"SELECT {GAUGE_COLUMNS} FROM gauges WHERE session = ?", no)
        session.gauges = {row[0]: gauge_of(row, session.key) for row in gauges}
        session.missing_parents = self._rows_in("missing_parents", session)

    def _create(self, key: str, session_id: str | None) -> SessionState:
        no = self._last_no
        if no is None:
            (no,) = self._conn.execute(
                "SELECT max((SELECT ifnull(max(no), 0) FROM sessions),"
                " (SELECT ifnull(max(session), 0) FROM removals))"
            ).fetchone()
        self._last_no = no = no + 1
        return self._remember(SessionState(no, resolve.session_id(key), key, session_id))

    def _remember(self, session: SessionState) -> SessionState:
        self._by_no[session.no] = session
        self._no_of[session.key] = session.no
        return session

    def _trim(self) -> None:
        """Forget the sessions that were remembered first, if there are too many; their tallies are kept."""
        for no in list(self._by_no)[: max(0, len(self._by_no) - _REMEMBERED)]:
            session = self._by_no.pop(no)
            del self._no_of[session.key]
            self._conn.execute(UPDATE_TALLY, (session.tally.to_json(), no))

    # --- counting anew -----------------------------------------------------------------------------------

    def _recount_rows(self, session: SessionState) -> None:
        """Count a session from its index rows, as if they had just arrived."""
        no, conn = (session.no,), self._conn
        session.tally = self._counted(session.no)
        for table, column in (("session_traces", "trace_id"), ("session_tasks", "task")):
            conn.execute(f"DELETE FROM {table} WHERE session = ?", no)
            conn.execute(
                f"INSERT INTO {table} SELECT DISTINCT session, {column} FROM spans"
                f" WHERE session = ? AND {column} IS NOT NULL",
                no,
            )
        conn.execute(
            "INSERT OR IGNORE INTO session_traces"
            " SELECT DISTINCT session, trace_id FROM logs WHERE session = ? AND trace_id <> x''",
            no,
        )
        conn.execute("DELETE FROM missing_parents WHERE session = ?", no)
        conn.execute(
            "INSERT INTO missing_parents SELECT DISTINCT s.trace_id, s.parent_id, s.session FROM spans s"
            " WHERE s.session = ? AND s.parent_id <> x'' AND NOT EXISTS"
            " (SELECT 1 FROM spans p WHERE p.trace_id = s.trace_id AND p.span_id = s.parent_id)",
            no,
        )
        session.known_traces.clear()
        session.known_tasks.clear()
        session.traces = self._rows_in("session_traces", session)
        session.tasks = self._rows_in("session_tasks", session)
        session.missing_parents = self._rows_in("missing_parents", session)

    def _counted(self, no: int) -> Tally:
        """Return the tally of all index rows of a session."""
        tally, word = Tally(), self._names.word
        spans = self._conn.execute(f"SELECT {SPAN_COLUMNS} FROM spans WHERE session = ?", (no,))
        tally.add_spans(span_record(row, word) for row in spans)
        logs = self._conn.execute(f"SELECT {LOG_COLUMNS} FROM logs WHERE session = ?", (no,))
        tally.add_logs(log_record(row, word) for row in logs)
        return tally

    def _rows_in(self, table: str, session: SessionState) -> int:
        sql = f"SELECT count(*) FROM {table} WHERE session = ?"
        return self._conn.execute(sql, (session.no,)).fetchone()[0]

    def _count_states(self, changes: dict[str, int]) -> None:
        self._conn.executemany(
            "INSERT INTO session_counts VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET n = n + excluded.n",
            [(state, n) for state, n in changes.items() if n],
        )


def _learn(known: set[T], new: set[T]) -> None:
    if len(known) > _REMEMBERED:
        known.clear()
    known.update(new)
