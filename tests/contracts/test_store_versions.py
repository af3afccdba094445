"""A database of an earlier version is brought forward when it is opened, with all that it held."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_requests import START, chat, log, logs, span, traces

from otel_sessions.backend.records import SessionRecord
from otel_sessions.backend.store.base import SessionQuery, SpanQuery
from otel_sessions.backend.store.sqlite import SqliteStore

LATER = (
    *(("sessions", "tools"), ("sessions", "error"), ("sessions", "last_ended_at"), ("spans", "failure")),
    *(("logs", "tool"), ("spans", "provider"), ("logs", "provider")),
    *(("sessions", "last_alive_at"), ("sessions", "paces"), ("gauges", "losses")),
)
LATER_INDEXES = ("spans_by_service", "spans_by_operation", "sessions_without_run")  # lacking, or of less

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 35), reason="this SQLite can't drop a column, to make an old file"
)


def aged(file: Path) -> None:
    """Take from a database what version 1 did not have."""
    with closing(sqlite3.connect(file)) as conn:
        for index in LATER_INDEXES:
            conn.execute(f"DROP INDEX {index}")
        for table, column in LATER:
            conn.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        conn.execute("UPDATE sessions SET tally = '[1,2,3]'")  # what only that version can read
        conn.execute("PRAGMA user_version = 1")
        conn.commit()


def only(store: SqliteStore) -> SessionRecord:
    """Return the one session there is."""
    [session] = store.sessions(SessionQuery()).sessions
    return session


def test_an_older_database_shows_what_it_held_and_goes_on_counting(tmp_path: Path) -> None:
    """Sums are right after the next span, though the old file's sums can't be read any more."""
    store = SqliteStore(tmp_path)
    tool = span(3, parent=1, at=2, gen_ai__operation__name="execute_tool", gen_ai__tool__name="ls")
    store.append([traces(span(1, lasting=9), chat(2, parent=1, tokens=40), tool), logs(log(at=3))])
    before = only(store)
    store.close()
    aged(tmp_path / "sessions.db")

    store = SqliteStore(tmp_path)
    opened = only(store)
    assert (opened.tools, opened.last_ended_at, opened.error) == (("ls",), START + 9 * 10**9, None)
    assert (opened.input_tokens, opened.model_calls, opened.tool_calls) == (40, 1, 1)
    store.append([traces(chat(4, parent=1, tokens=2, at=20))])
    after = only(store)
    assert (after.input_tokens, after.model_calls, after.spans) == (42, 2, before.spans + 1)
    assert (after.tools, after.turns, after.started_at) == (before.tools, before.turns, before.started_at)
    assert after.last_ended_at == START + 21 * 10**9
    assert len(list(store.spans(after.id))) == after.spans
    assert (store.services(), len(store.find(SpanQuery("planner")).rows)) == (["planner"], after.spans)
    store.close()
    SqliteStore(tmp_path).close()  # it is of this version now


def test_a_session_of_logs_alone_ends_with_its_last_log(tmp_path: Path) -> None:
    """Also where an older version stored it."""
    store = SqliteStore(tmp_path)
    store.append([logs(log(at=3), log(at=8, name="later"))])
    store.close()
    aged(tmp_path / "sessions.db")
    store = SqliteStore(tmp_path)
    assert only(store).last_ended_at == START + 8 * 10**9
    store.close()
