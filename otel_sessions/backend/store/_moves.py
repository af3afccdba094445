"""Rows that change their session, because something that arrived late told where they belong."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from otel_sessions.backend.records import LogRecord, SpanRecord
from otel_sessions.backend.store._names import NameWriter
from otel_sessions.backend.store._rows import LOG_COLUMNS, OWN, SPAN_COLUMNS, log_record, span_record
from otel_sessions.backend.store._sessions import Sessions
from otel_sessions.backend.store._summary import SessionState

__all__ = ["Moves"]

_LOOSE: Final = f"session = ? AND trace_id = ? AND NOT flags & {OWN}"
_ALL: Final = "session = ?"
_OWNED_ONCE: Final = ("runs", "timeline", "gauges")  # a row that both sessions have is the same row


class Moves:
    """Carries rows, and what they add to the roll-ups, from session to session in the open transaction."""

    def __init__(self, conn: sqlite3.Connection, names: NameWriter, sessions: Sessions) -> None:
        self._conn = conn
        self._names = names
        self._sessions = sessions
        self.begin(0)

    def begin(self, revision: int) -> None:
        """Begin a transaction; the rows that it moves get this revision."""
        self._revision = revision
        self.spans: dict[int, list[SpanRecord]] = {}  # session -> spans that came to it
        self.logs: dict[int, list[LogRecord]] = {}
        self.left: set[int] = set()  # sessions that spans went from
        self.traces: set[bytes] = set()

    def carry(self, trace_id: bytes, before: int | None, to: SessionState, seen: int) -> None:
        """Move a trace's members that do not tell their session; `seen` is the latest arrival of one."""
        to.loose_seen = max(to.loose_seen, seen)
        old = None if before is None or before == to.no else self._sessions.by_no(before)
        if old is None:
            return
        self._carry(_LOOSE, (old.no, trace_id), old, to)
        (old.loose_seen,) = self._conn.execute(
            "SELECT ifnull(max(seen), 0) FROM loose_traces WHERE session = ? AND trace_id <> ?",
            (old.no, trace_id),
        ).fetchone()
        self._sessions.count_anew(old.no)

    def merge(self, old: SessionState, new: SessionState) -> None:
        """Make all of one session part of another."""
        self._carry(_ALL, (old.no,), old, new)
        for table in _OWNED_ONCE:
            self._conn.execute(
                f"UPDATE OR IGNORE {table} SET session = ? WHERE session = ?", (new.no, old.no)
            )
            self._conn.execute(f"DELETE FROM {table} WHERE session = ?", (old.no,))
        self._conn.execute("UPDATE OR REPLACE pins SET id = ? WHERE id = ?", (new.id, old.id))
        self._conn.execute("UPDATE loose_traces SET session = ? WHERE session = ?", (new.no, old.no))
        new.own_seen = max(new.own_seen, old.own_seen)
        new.loose_seen = max(new.loose_seen, old.loose_seen)
        new.paces = new.paces or old.paces
        new.runs = {**old.runs, **new.runs}
        new.gauges = {**old.gauges, **new.gauges}
        old.runs, old.gauges = {}, {}
        self._sessions.count_anew(old.no)

    def _carry(self, where: str, values: tuple[Any, ...], old: SessionState, to: SessionState) -> None:
        conn, word = self._conn, self._names.word
        spans = conn.execute(f"SELECT {SPAN_COLUMNS} FROM spans WHERE {where}", values)
        came = [span_record(row, word) for row in spans]
        logs = conn.execute(f"SELECT {LOG_COLUMNS} FROM logs WHERE {where}", values)
        self.logs.setdefault(to.no, []).extend(log_record(row, word) for row in logs)
        self.spans.setdefault(to.no, []).extend(came)
        if came:
            self.left.add(old.no)
        self.traces.update(span.trace_id for span in came)
        conn.execute(
            f"UPDATE spans SET session = ?, revision = ? WHERE {where}",
            (to.no, self._revision, *values),
        )
        conn.execute(f"UPDATE logs SET session = ? WHERE {where}", (to.no, *values))
