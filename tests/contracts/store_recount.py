"""Counts every number of a store's file anew, and compares."""

# ruff: noqa: S608 - the names of tables are ours
from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from otel_sessions.backend.store._connection import transaction
from otel_sessions.backend.store._relations import note_model_calls, note_parents
from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore

__all__ = ["assert_counted_right"]

PARTS = (
    *("spans", "logs", "runs", "gauges", "timeline", "session_traces", "session_tasks", "missing_parents"),
    "loose_traces",
)


def assert_counted_right(folder: Path) -> None:
    """Compare counters, chunks, relations and roll-ups of a closed store with a recount."""
    with closing(sqlite3.connect(folder / "sessions.db")) as conn:
        _check_counters(conn)
    _check_rollups(folder)


def _check_counters(conn: sqlite3.Connection) -> None:
    def rows(sql: str) -> list[Any]:
        return conn.execute(sql).fetchall()

    counted = tuple(rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("spans", "logs", "chunks"))
    assert rows("SELECT spans, logs, chunks FROM meta") == [counted]
    assert rows("SELECT id FROM bodies ORDER BY id") == rows("SELECT id FROM chunks ORDER BY id")
    pointing = "SELECT id >> 24 AS chunk FROM spans UNION ALL SELECT id >> 24 FROM logs"
    assert rows("SELECT id, live FROM chunks ORDER BY id") == rows(
        f"SELECT chunk, count(*) FROM ({pointing}) GROUP BY chunk ORDER BY chunk"
    )
    assert rows("SELECT state, n FROM session_counts WHERE n ORDER BY state") == rows(
        "SELECT state, count(*) FROM sessions GROUP BY state ORDER BY state"
    )
    for table in PARTS:
        lost = "session IS NOT NULL AND session NOT IN (SELECT no FROM sessions)"
        assert rows(f"SELECT * FROM {table} WHERE {lost}") == []
    assert rows("SELECT * FROM removals") == []


def _check_rollups(folder: Path) -> None:
    store = SqliteStore(folder)
    before = _shown(store)
    writer, conn = store._writer, store._conn
    with transaction(conn):
        conn.execute("DELETE FROM missing_parents")
        note_parents(conn, writer._sessions, 0, ())
        each = conn.execute("SELECT trace_id, x'', span_id FROM spans").fetchall()
        note_model_calls(conn, writer._names, writer._sessions, 0, each)
        for (no,) in conn.execute("SELECT no FROM sessions").fetchall():
            writer._sessions.count_anew(no)
        writer._sessions.save(0, ())
    after = _shown(store)
    store.close()
    assert after == before


def _shown(store: SqliteStore) -> dict[str, Any]:
    sessions = store.sessions(SessionQuery(limit=1000)).sessions
    return {session.id: replace(session, revision=0) for session in sessions}
