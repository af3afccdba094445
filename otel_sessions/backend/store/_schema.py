"""The schema of the database file: made, recognised, refused where it is not ours to write."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from importlib import resources
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from otel_sessions.backend.records import CATEGORIES
from otel_sessions.backend.store._connection import transaction
from otel_sessions.backend.store._tally import TOOLS_LISTED
from otel_sessions.errors import BackendError, CorruptStoreError, NewerSchemaError

__all__ = ["SCHEMA_VERSION", "check", "prepare"]

SCHEMA_VERSION: Final = 6
_APPLICATION_ID: Final = 0x4F54_5353  # "OTSS", so that `file` and we know the database
_OLDEST_SQLITE: Final = (3, 24, 0)  # upserts


def prepare(conn: sqlite3.Connection, path: Path) -> None:
    """Make the schema in an empty file, or check that it is ours and bring it up to date.

    Raises NewerSchemaError, CorruptStoreError where it is another program's database, BackendError where
    Python was built with an SQLite that is too old.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise BackendError(f"SQLite {sqlite3.sqlite_version} is too old; 3.24 or later is needed.")
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    (application,) = conn.execute("PRAGMA application_id").fetchone()
    (tables,) = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and application == 0 and tables == 0:
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only an empty file takes it
        _bring_forward(conn, 0)
    elif application != _APPLICATION_ID:
        raise CorruptStoreError(
            f"{path} is no database of otel-sessions. Move it away, or choose another folder with --data."
        )
    elif version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, written by a newer otel-sessions; this one knows versions "
            f"up to {SCHEMA_VERSION}. Upgrade otel-sessions, or choose another folder with --data."
        )
    elif version < SCHEMA_VERSION:
        _bring_forward(conn, version)


def check(conn: sqlite3.Connection, path: Path) -> None:
    """Check that a file is ours and of this version, which is not changed here.

    Raises NewerSchemaError, CorruptStoreError, and BackendError where it is older.
    """
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION or version > SCHEMA_VERSION:
        prepare(conn, path)
        return
    raise BackendError(
        f"{path} is of an older version. Start `otel-sessions serve` on it once, which brings it forward."
    )


def _bring_forward(conn: sqlite3.Connection, version: int) -> None:
    """Run the scripts of all later versions, each after the one before, in one transaction."""
    folder = resources.files("otel_sessions.backend.store") / "schema"
    with transaction(conn):
        for later in range(version + 1, SCHEMA_VERSION + 1):
            for statement in _statements((folder / f"{later}.sql").read_text(encoding="utf-8")):
                conn.execute(statement)
            if later in _FILL:
                _FILL[later](conn)
        conn.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _fill_tools(conn: sqlite3.Connection) -> None:
    """Add the tools of the spans that are already stored to the roll-ups."""
    called = conn.execute(
        "SELECT p.session, n.text FROM spans p JOIN names n ON n.id = p.tool"
        " WHERE p.category = ? GROUP BY p.session, n.text ORDER BY p.session, min(p.start), n.text",
        (CATEGORIES.index("tool"),),
    ).fetchall()
    for session, of_session in groupby(called, key=itemgetter(0)):
        tools = json.dumps([tool for _, tool in of_session][:TOOLS_LISTED])
        conn.execute("UPDATE sessions SET tools = ? WHERE no = ?", (tools, session))


_FILL: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {2: _fill_tools}


def _statements(text: str) -> list[str]:
    """Cut a script into statements; `executescript` would commit in between."""
    statements: list[str] = []
    begun = ""
    for line in text.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements
