"""Sessions that no retention removes: by our ids, in a table of their own."""

from __future__ import annotations

import sqlite3

__all__ = ["is_pinned", "set_pinned"]


def set_pinned(conn: sqlite3.Connection, session_id: str, *, pinned: bool) -> None:
    """Keep a session whatever the retention is, or no longer; idempotent."""
    statement = "INSERT OR IGNORE INTO pins VALUES (?)" if pinned else "DELETE FROM pins WHERE id = ?"
    conn.execute(statement, (session_id,))


def is_pinned(conn: sqlite3.Connection, session_id: str) -> bool:
    """Tell whether a session is kept whatever the retention is."""
    return conn.execute("SELECT 1 FROM pins WHERE id = ?", (session_id,)).fetchone() is not None
