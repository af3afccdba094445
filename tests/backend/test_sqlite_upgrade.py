"""A file that an older version wrote shows and adds up the same after it was brought forward."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

import pytest
from store_requests import chat, gauge, log, logs, run, span, traces

from otel_sessions.backend.filter_text import parse
from otel_sessions.backend.records import Request, SessionRecord
from otel_sessions.backend.store._schema import SCHEMA_VERSION
from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore

SCRIPTS = resources.files("otel_sessions.backend.store") / "schema"


def columns(conn: sqlite3.Connection) -> dict[str, set[str]]:
    """Return the columns of each table."""
    tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: {row[1] for row in conn.execute(f"PRAGMA table_info({table})")} for table in tables}


def indexes(conn: sqlite3.Connection) -> dict[str, str]:
    """Return the statements that made the indices."""
    made = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    return {name: sql.replace("IF NOT EXISTS ", "") for name, sql in made}


def make_older(file: Path, version: int) -> None:
    """Take from a file of today what a version did not have yet."""
    with sqlite3.connect(":memory:") as then:
        for number in range(1, version + 1):
            then.executescript((SCRIPTS / f"{number}.sql").read_text(encoding="utf-8"))
        had, indexed = columns(then), indexes(then)
    then.close()
    conn = sqlite3.connect(file)
    for index, statement in indexes(conn).items():
        if indexed.get(index) != statement:
            conn.execute(f"DROP INDEX {index}")
    for table, now in columns(conn).items():
        if table not in had:
            conn.execute(f"DROP TABLE {table}")
            continue
        for column in now - had[table]:
            conn.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    for index, statement in indexed.items():
        if index not in indexes(conn):
            conn.execute(statement)
    conn.execute(f"PRAGMA user_version = {version}")
    conn.commit()
    conn.close()


def some_requests() -> list[Request]:
    """Return what makes sessions with models, tools, errors and logs."""
    tool = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "search"}
    book = {**tool, "gen_ai__tool__name": "book"}
    return [
        traces(span(1), chat(2, tokens=7, parent=1, at=1), span(3, parent=1, at=2, **tool), span(4, at=3, **book)),
        traces(span(5, "s-2", trace=2, error=True), service="booker"),
        logs(log("s-3", at=5)),
    ]  # fmt: skip


def shown(store: SqliteStore) -> dict[str, SessionRecord]:
    """Return what the list shows of each session."""
    return {session.id: session for session in store.sessions(SessionQuery()).sessions}


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 35), reason="this SQLite can't take a column away")
@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_file_is_brought_forward(tmp_path: Path, version: int) -> None:
    """The list, its filter and its sums go on as if the newest version had written it all."""
    store = SqliteStore(tmp_path)
    store.append(
        some_requests(), [run("s-2", 5, trace_id=b"\0" * 15 + b"\2")], gauges=[gauge(9, session="s-2")]
    )
    before = shown(store)
    store.close()
    make_older(tmp_path / "sessions.db", version)

    store = SqliteStore(tmp_path)
    after = shown(store)
    assert {session.tools for session in after.values()} == {session.tools for session in before.values()}
    assert [s.session_id for s in store.sessions(SessionQuery(filter=parse("tool:book"))).sessions] == ["s-1"]
    assert after.keys() == before.keys()
    more = traces(chat(6, tokens=5, parent=1, at=4))
    store.append([more])
    store.close()

    (tmp_path / "fresh").mkdir()
    fresh = SqliteStore(tmp_path / "fresh")
    fresh.append(some_requests())
    fresh.append([more])
    upgraded = SqliteStore(tmp_path)
    ours, theirs = upgraded.session("s-1"), fresh.session("s-1")
    assert ours is not None
    assert theirs is not None
    same = ("tools", "models", "input_tokens", "spans", "tool_calls", "last_ended_at", "errors", "state")
    for name in same:
        assert getattr(ours.session, name) == getattr(theirs.session, name), name
    upgraded.close()
    fresh.close()
