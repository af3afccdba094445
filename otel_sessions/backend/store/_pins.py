"""Sessions that no retention removes: by our ids, in a table of their own."""

from __future__ import annotations

import sqlite3

__all__ = ["is_pinned", "set_pinned"]


def set_pinned(conn: sqlite3.Connection, session_id: str, *, pinned: bool) -> bool:
    """Keep a session whatever the retention is, or no longer; return whether there is such a session."""
    if pinned:  # in one statement with the look at it, which no removal comes between
        conn.execute("INSERT OR IGNORE INTO pins SELECT id FROM sessions WHERE id = ?", (session_id,))
        return is_pinned(conn, session_id)
    conn.execute("DELETE FROM pins WHERE id = ?", (session_id,))
    return conn.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone() is not None


def is_pinned(conn: sqlite3.Connection, session_id: str) -> bool:
    """Tell whether a session is kept whatever the retention is."""
    return conn.execute("SELECT 1 FROM pins WHERE id = ?", (session_id,)).fetchone() is not None
