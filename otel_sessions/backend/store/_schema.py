"""The schema of the database file: made, recognised, refused where it is not ours to write."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path
from typing import Final

from otel_sessions.backend.store._connection import transaction
from otel_sessions.errors import BackendError, CorruptStoreError, NewerSchemaError

__all__ = ["SCHEMA_VERSION", "prepare"]

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4F54_5353  # "OTSS", so that `file` and we know the database
_OLDEST_SQLITE: Final = (3, 24, 0)  # upserts


def prepare(conn: sqlite3.Connection, path: Path) -> None:
    """Make the schema in an empty file, or check that it is ours and not newer than we are.

    Raises NewerSchemaError, CorruptStoreError where it is another program's database, BackendError where
    Python was built with an SQLite that is too old.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise BackendError(f"SQLite {sqlite3.sqlite_version} is too old; 3.24 or later is needed.")
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    (application,) = conn.execute("PRAGMA application_id").fetchone()
    (tables,) = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and application == 0 and tables == 0:
        _create(conn)
    elif application != _APPLICATION_ID:
        raise CorruptStoreError(
            f"{path} is no database of otel-sessions. Move it away, or choose another folder with --data."
        )
    elif version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, written by a newer otel-sessions; this one knows versions "
            f"up to {SCHEMA_VERSION}. Upgrade otel-sessions, or choose another folder with --data."
        )


def _create(conn: sqlite3.Connection) -> None:
    script = resources.files("otel_sessions.backend.store") / "schema" / f"{SCHEMA_VERSION}.sql"
    with transaction(conn):
        for statement in _statements(script.read_text(encoding="utf-8")):
            conn.execute(statement)
        conn.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


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
