"""What a retention asks to be removed, and the space that is given back to the disk.

The size of a store is that of its file without the pages that are free. A sixteenth of the file may be free
pages, which the next spans take; more is given back, a few pages at a time. Files that an older version made
keep their size, and all of their free pages are used again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from otel_sessions.backend.retention import Retention
from otel_sessions.backend.store._removal import AtRest, at_rest
from otel_sessions.backend.store.base import Prunable

__all__ = ["Due", "due", "free_bytes", "give_back", "prunable", "shrinks"]

_AT_ONCE: Final = 64  # sessions that are looked at for one transaction
_SLACK: Final = 16  # one of so many parts of a file may be free
_PAGES_AT_ONCE: Final = 256
_INCREMENTAL: Final = 2
_ALWAYS: Final = 2**63 - 1  # as a time: later than all


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be removed next, and before when logs of no session have to have come to go too."""

    sessions: Sequence[AtRest]
    nobodys_before: int


def due(conn: sqlite3.Connection, retention: Retention, now: int, idle_before: int) -> Due:
    """Return what goes next: what is too old, then, where the file is too large, the oldest there is."""
    seen_before = 0 if retention.age is None else now - retention.age
    if retention.age is not None:
        old = at_rest(conn, seen_before, idle_before, _AT_ONCE)
        if old:
            return Due(old, seen_before)
    if _excess(conn, retention) > 0:
        oldest = at_rest(conn, _ALWAYS, idle_before, _AT_ONCE)
        return Due(oldest, max(seen_before, oldest[0].last_seen if oldest else now))
    return Due((), seen_before)


def prunable(conn: sqlite3.Connection, retention: Retention, now: int, idle_before: int) -> Prunable:
    """Say what would be removed; for a size from what a row takes on average."""
    seen_before = 0 if retention.age is None else now - retention.age
    spans, logs = conn.execute("SELECT spans, logs FROM meta").fetchone()
    of_row = _used(conn) / max(1, spans + logs)
    excess = _excess(conn, retention)
    found: list[AtRest] = []
    for session in at_rest(conn, _ALWAYS if excess > 0 else seen_before, idle_before, -1):
        if session.last_seen >= seen_before and excess <= 0:
            break
        found.append(session)
        excess -= session.spans * of_row
    return Prunable(len(found), sum(session.spans for session in found), exact=_excess(conn, retention) <= 0)


def free_bytes(conn: sqlite3.Connection) -> int:
    """Return how much of the file holds nothing."""
    return _pragma(conn, "freelist_count") * _pragma(conn, "page_size")


def shrinks(conn: sqlite3.Connection) -> bool:
    """Tell whether the file can give back free pages; those that an older version made can't."""
    return _pragma(conn, "auto_vacuum") == _INCREMENTAL


def give_back(conn: sqlite3.Connection) -> bool:
    """Give some free pages back to the disk; return whether there were enough of them to do so."""
    free, pages = _pragma(conn, "freelist_count"), _pragma(conn, "page_count")
    if not free or free * _SLACK < pages or not shrinks(conn):
        return False
    conn.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()  # a page for each step
    return True


def _excess(conn: sqlite3.Connection, retention: Retention) -> float:
    """Return how many bytes are to go, so that the file with its free pages keeps within the size."""
    return 0 if retention.size is None else _used(conn) - retention.size * (_SLACK - 1) / _SLACK


def _used(conn: sqlite3.Connection) -> int:
    return (_pragma(conn, "page_count") - _pragma(conn, "freelist_count")) * _pragma(conn, "page_size")


def _pragma(conn: sqlite3.Connection, name: str) -> int:
    return conn.execute(f"PRAGMA {name}").fetchone()[0]
