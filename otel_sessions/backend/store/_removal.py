"""Sessions that are removed: whole ones, a bounded number of rows in each transaction.

A session with more rows than fit leaves the list at once; its rows follow in the next transactions. Should
anything of it arrive meanwhile, the rest goes first, so that what comes is the beginning of a new session.
A chunk goes with the last row that points at it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from otel_sessions.backend.records import LogRecord, Request, SpanRecord
from otel_sessions.backend.store._chunks import lessen
from otel_sessions.backend.store._names import NameWriter
from otel_sessions.backend.store._relations import SpanKey, note_model_calls
from otel_sessions.backend.store._rows import position_of, row_id
from otel_sessions.backend.store._sessions import Sessions
from otel_sessions.backend.store._summary import SessionState

__all__ = ["AtRest", "Removal", "Remover", "at_rest"]

ROWS: Final = 500
"""Index rows that one transaction deletes, about 20 ms of work; what waits for a commit waits as long."""

_SESSION_ROWS: Final = 8  # what removing a session costs beside its rows, in rows
_NONE_NEW: Final = row_id(2**38, 0)

_AT_REST: Final = (
    "SELECT no, spans, last_seen_at FROM sessions WHERE state IN ('ended', 'lost')"
    " AND last_seen_at < ? AND id NOT IN (SELECT id FROM pins)"
    " UNION ALL SELECT no, spans, last_seen_at FROM sessions WHERE state = ''"
    " AND last_seen_at < ? AND last_alive_at <= ? AND id NOT IN (SELECT id FROM pins)"
    " ORDER BY last_seen_at LIMIT ?"
)
_SHARED: Final = (
    "SELECT DISTINCT a.trace_id FROM session_traces a JOIN session_traces b"
    " ON b.trace_id = a.trace_id AND b.session <> a.session WHERE a.session = ?"
)
_ORPHANS: Final = (
    "SELECT DISTINCT c.trace_id, c.parent_id, c.session FROM spans c JOIN spans p"
    " ON p.trace_id = c.trace_id AND p.span_id = c.parent_id"
    " WHERE c.trace_id = ? AND c.session <> ? AND p.session = ?"
)
_CALLS: Final = (
    "SELECT trace_id, span_id, parent_id FROM spans WHERE trace_id = ? AND session = ?"
    " AND category IN (3, 4)"  # model and embedding, as in _relations
)
_OF_RUNS: Final = (
    "DELETE FROM process_bases WHERE process = ? AND NOT EXISTS"
    " (SELECT 1 FROM runs WHERE runs.process = process_bases.process AND phase <> 'ended')"
)


@dataclass(frozen=True, slots=True)
class AtRest:
    """A session that may be removed."""

    no: int
    spans: int
    last_seen: int


def at_rest(conn: sqlite3.Connection, seen_before: int, idle_before: int, limit: int) -> list[AtRest]:
    """Return sessions that ended, are lost or idle, and are not pinned; the longest unseen first.

    Without any run a session is idle if it was last alive by `idle_before`. A negative limit is none.
    """
    return [AtRest(*row) for row in conn.execute(_AT_REST, (seen_before, seen_before, idle_before, limit))]


@dataclass(slots=True)
class Removal:
    """What one transaction removed."""

    ids: list[str] = field(default_factory=list[str])
    keys: set[str] = field(default_factory=set[str])
    spans: int = 0
    logs: int = 0
    chunks: int = 0

    @property
    def cost(self) -> int:
        """Say how much work it was, in rows."""
        return self.spans + self.logs + _SESSION_ROWS * len(self.ids)


class Remover:
    """Removes sessions in the open transaction; who calls it brings the counters in step."""

    def __init__(self, conn: sqlite3.Connection, names: NameWriter, sessions: Sessions) -> None:
        self._conn = conn
        self._names = names
        self._sessions = sessions
        self._pending = self._read_pending()

    @property
    def pending(self) -> bool:
        """Whether rows of sessions that are gone are still there."""
        return bool(self._pending)

    def forget(self) -> None:
        """Read again what is pending, after a transaction was rolled back."""
        self._pending = self._read_pending()

    def remove(self, chosen: Iterable[AtRest]) -> Removal:
        """Remove what is pending, then as many of the chosen sessions as fit, and at least one."""
        removal = Removal()
        for no in self._pending[:1]:
            self._delete_rest(no, ROWS, removal)
        for session in chosen:
            if removal.cost and removal.cost + session.spans + _SESSION_ROWS > ROWS:
                break
            self._take_out(session.no, removal)
        return removal

    def nobodys(self, before: int) -> list[int]:
        """Return the next logs without any session from chunks that arrived before."""
        rows = self._conn.execute(
            "SELECT l.id, c.received_at FROM logs l CROSS JOIN chunks c ON c.id = l.id >> 24"
            " WHERE l.session IS NULL ORDER BY l.id LIMIT ?",
            (ROWS,),
        )
        return [number for number, _ in takewhile(lambda row: row[1] < before, rows)]

    def remove_nobodys(self, ids: Sequence[int], removal: Removal) -> None:
        """Delete logs without any session."""
        removal.logs += self._delete("logs", ids, removal)

    def clear_way(self, requests: Sequence[Request]) -> Removal:
        """Delete the rest of sessions that are gone and of which something arrives now."""
        removal = Removal()
        for no in set(self._met(requests)):
            self._delete_rest(no, -1, removal)
        return removal

    # --- inside ------------------------------------------------------------------------------------------

    def _read_pending(self) -> list[int]:
        rows = self._conn.execute("SELECT session FROM removals ORDER BY session")
        return [no for (no,) in rows]

    def _take_out(self, no: int, removal: Removal) -> None:
        """Take a session out of sight, and as many of its rows as fit."""
        session = self._sessions.by_no(no)
        if session is None:
            return
        self._leave_traces(session, removal)
        self._conn.execute("DELETE FROM gauges WHERE session = ?", (no,))
        self._conn.execute("DELETE FROM runs WHERE session = ?", (no,))
        for process in {run.process for run in session.runs.values()}:
            self._conn.execute(_OF_RUNS, (process,))
        self._sessions.drop(session)
        removal.ids.append(session.id)
        removal.keys.add(session.key)
        self._conn.execute("INSERT INTO removals VALUES (?)", (no,))
        self._pending.append(no)
        self._delete_rest(no, ROWS, removal)

    def _leave_traces(self, session: SessionState, removal: Removal) -> None:
        """Delete the rows that lie in a trace with other sessions, and tell those what they lack now.

        They are few as a rule, so they all go at once.
        """
        orphans: list[tuple[bytes, bytes, int]] = []
        calls: list[SpanKey] = []
        for (trace_id,) in self._conn.execute(_SHARED, (session.no,)).fetchall():
            orphans += self._conn.execute(_ORPHANS, (trace_id, session.no, session.no))
            calls += self._conn.execute(_CALLS, (trace_id, session.no))
            rows = self._conn.execute(
                "SELECT id FROM spans WHERE trace_id = ? AND session = ?", (trace_id, session.no)
            )
            removal.spans += self._delete("spans", [number for (number,) in rows], removal)
        self._conn.executemany("INSERT OR IGNORE INTO missing_parents VALUES (?, ?, ?)", orphans)
        for no in {no for _, _, no in orphans}:
            other = self._sessions.by_no(no)
            if other is not None:
                other.missing_parents = self._sessions.count_missing_parents(other)
        note_model_calls(self._conn, self._names, self._sessions, _NONE_NEW, calls)

    def _delete_rest(self, no: int, limit: int, removal: Removal) -> None:
        """Delete up to `limit` spans, then logs, of a session that is gone; all of them where negative."""
        left = limit
        for table in ("spans", "logs"):
            rows = self._conn.execute(f"SELECT id FROM {table} WHERE session = ? LIMIT ?", (no, left))
            deleted = self._delete(table, [number for (number,) in rows], removal)
            setattr(removal, table, getattr(removal, table) + deleted)
            left -= deleted if limit >= 0 else 0
        if left:
            self._conn.execute("DELETE FROM removals WHERE session = ?", (no,))
            self._pending.remove(no)

    def _delete(self, table: str, ids: Sequence[int], removal: Removal) -> int:
        self._conn.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in ids])
        for chunk, rows in Counter(position_of(number).chunk for number in ids).items():
            removal.chunks += lessen(self._conn, chunk, -rows)
        return len(ids)

    def _met(self, requests: Sequence[Request]) -> Iterator[int]:
        """Find the sessions that are gone and still have rows in a trace, or a log, of what arrives."""
        records: list[SpanRecord | LogRecord] = []
        for request in requests:
            records += (*request.spans, *request.logs)
        gone = "session IN (SELECT session FROM removals)"
        for trace_id in {record.trace_id for record in records if record.trace_id}:
            for table in ("spans", "logs"):
                named = "trace_id = ? AND trace_id <> x''"  # the partial index asks to be named
                yield from self._sessions_of(f"{table} WHERE {named} AND {gone}", trace_id)
        for digest in {log.digest for request in requests for log in request.logs}:
            yield from self._sessions_of(f"logs WHERE digest = ? AND {gone}", digest)

    def _sessions_of(self, where: str, value: bytes) -> Iterator[int]:
        for (no,) in self._conn.execute(f"SELECT DISTINCT session FROM {where}", (value,)).fetchall():
            yield no
