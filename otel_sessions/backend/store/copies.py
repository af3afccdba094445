"""What is done to a data folder beside a backend: a verified copy, pins, a look at what would be pruned."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.retention import Retention
from otel_sessions.backend.store._connection import connect, translated
from otel_sessions.backend.store._pins import set_pinned
from otel_sessions.backend.store._schema import check
from otel_sessions.backend.store._upkeep import prunable
from otel_sessions.backend.store.base import Prunable
from otel_sessions.errors import BackendError, DataFolderError

__all__ = ["FILE", "back_up", "look_for_prunable", "pin"]

FILE: Final = "sessions.db"
_PAGES_AT_ONCE: Final = 1_024
_COUNTS: Final = (
    "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM spans), (SELECT count(*) FROM logs),"
    " (SELECT count(*) FROM bodies)"
)
Counts = tuple[int, int, int, int]


def back_up(folder: Path, target: Path, progress: Callable[[int, int], object]) -> Counts:
    """Copy the database of a folder as it is at one moment, while a backend may go on writing.

    Calls `progress` with pages done and pages in all. Returns how many sessions, spans, logs and bodies
    the copy was found to hold. Raises BackendError where `target` exists or the copy is not whole; then
    there is no `target`.
    """
    part = target.with_name(f"{target.name}.part")
    for path in (target, part):
        if path.exists():
            raise BackendError(f"{path} exists; a backup overwrites nothing. Choose another name.")
    try:
        with _opened(folder, writable=False) as source, translated(part):
            source.execute("BEGIN")  # from the first read on, one moment
            held = source.execute(_COUNTS).fetchone()
            _copy(source, part, progress)
        _verify(part, held)
        if target.exists():
            raise BackendError(f"{target} was made meanwhile; a backup overwrites nothing.")
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return held


def pin(folder: Path, session: str, *, pinned: bool) -> str:
    """Keep a session whatever the retention is, or no longer; return our id of it.

    By our id or the emitter's. Raises BackendError where the folder holds no such session.
    """
    with _opened(folder, writable=True) as conn:
        ids = (session, session_id(global_key(session)))
        row = conn.execute("SELECT id FROM sessions WHERE id IN (?, ?)", ids).fetchone()
        if row is None:
            found = conn.execute(
                "SELECT id FROM sessions WHERE session_id = ? LIMIT 2", (session,)
            ).fetchall()
            if len(found) != 1:
                many = "more than one session" if found else "no session"
                raise BackendError(f"{folder} holds {many} {session}; its id is on its page.")
            row = found[0]
        if not set_pinned(conn, row[0], pinned=pinned):
            raise BackendError(f"{folder} holds no session {session} any more: it was removed just now.")
    return row[0]


def look_for_prunable(folder: Path, retention: Retention, now: int, idle_before: int) -> Prunable:
    """Say what a retention would remove from a folder, which a backend may use meanwhile."""
    with _opened(folder, writable=False) as conn:
        conn.execute("BEGIN")
        return prunable(conn, retention, now, idle_before)


@contextlib.contextmanager
def _opened(folder: Path, *, writable: bool) -> Generator[sqlite3.Connection]:
    """Open the database of a folder, as beside a backend that uses it. Raises BackendError."""
    path = folder / FILE
    if not path.is_file():
        raise DataFolderError(f"{folder} holds no {FILE}; name the folder of a backend with --data.")
    conn = connect(path, writable=writable)
    try:
        with translated(path):
            check(conn, path)
            yield conn
    finally:
        conn.close()


def _copy(source: sqlite3.Connection, part: Path, progress: Callable[[int, int], object]) -> None:
    with contextlib.closing(connect(part, writable=True)) as copy:
        # The transaction of `source` is open: what is written meanwhile does not make it begin again.
        source.backup(
            copy,
            pages=_PAGES_AT_ONCE,
            progress=lambda _, remaining, pages: progress(pages - remaining, pages),
            sleep=0,
        )
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it


def _verify(part: Path, held: Counts) -> None:
    with contextlib.closing(connect(part, writable=False)) as copy, translated(part):
        (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        counted = copy.execute(_COUNTS).fetchone()
    if found != "ok" or counted != held:
        raise BackendError(
            f"The copy is not whole ({found}; {counted} of {held} sessions, spans, logs, bodies) and was "
            "removed. Check both disks, and try again."
        )
