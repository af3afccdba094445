"""Connections to the database file, transactions, and what SQLite's errors mean to a user."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

from otel_sessions.backend.store.base import FullDiskError
from otel_sessions.errors import BackendError, CorruptStoreError

__all__ = ["FOLD", "Readers", "connect", "execute", "transaction", "translated", "tune"]

_PRAGMAS: Final = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA cache_size=-65536;
PRAGMA temp_store=MEMORY;
PRAGMA wal_autocheckpoint=4000;
PRAGMA journal_size_limit=67108864;
"""
FOLD: Final = "casefold"
"""The function of SQL that readers' connections have: text without case, in any script; NULL for NULL."""

_GREATEST: Final = 2**63 - 1
_FULL: Final = "database or disk is full"
_CORRUPT: Final = ("malformed", "not a database", "unsupported file format", "disk image")


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open the database file; transactions are begun and ended by hand."""
    uri = path.resolve().as_uri() + ("?mode=rwc" if writable else "?mode=ro")
    with translated(path):
        conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
        if not writable:
            conn.execute("PRAGMA cache_size=-16384")
            conn.create_function(FOLD, 1, _folded, deterministic=True)
    return conn


def _folded(text: str | None) -> str | None:
    return None if text is None else text.casefold()


def tune(conn: sqlite3.Connection) -> None:
    """Set what the one write connection needs: a commit is on the disk before it returns."""
    conn.executescript(_PRAGMAS)


@contextlib.contextmanager
def transaction(conn: sqlite3.Connection) -> Generator[None]:
    """Commit what the block does, all or nothing."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:  # a full disk makes SQLite roll back by itself
            conn.execute("ROLLBACK")
        raise


def execute(conn: sqlite3.Connection, statement: str, values: Sequence[Any]) -> None:
    """Execute with values that strangers may have set: numbers are cut to what a column can hold."""
    try:
        conn.execute(statement, values)
    except OverflowError:
        conn.execute(statement, [_cut(value) for value in values])


def _cut(value: Any) -> Any:
    return max(-_GREATEST, min(value, _GREATEST)) if isinstance(value, int) else value


@contextlib.contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise what the disk or the file is to blame for as ours, with what to do; our own bugs stay."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise
    except sqlite3.DatabaseError as exc:
        if any(word in str(exc) for word in _CORRUPT):
            raise CorruptStoreError(
                f"{path} is damaged or no database ({exc}). Move it and its -wal and -shm files away, or put "
                "a backup in its place, and start again."
            ) from exc
        kind = FullDiskError if _FULL in str(exc) else BackendError
        raise kind(f"{path} can't be used now: {exc}. Check the disk's space and permissions.") from exc


class Readers:
    """Read-only connections, each lent to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False

    @contextlib.contextmanager
    def snapshot(self) -> Generator[sqlite3.Connection]:
        """Lend a connection that sees the same whole commits for as long as the block lasts."""
        conn = self._take()
        try:
            with translated(self._path):
                conn.execute("BEGIN")
                yield conn
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            self._give_back(conn)

    def close(self) -> None:
        """Close what is idle now, and the rest when it is given back."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _take(self) -> sqlite3.Connection:
        if self._closed:
            raise BackendError("The store is closed.")
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return connect(self._path, writable=False)

    def _give_back(self, conn: sqlite3.Connection) -> None:
        self._idle.put(conn)
        if self._closed:
            self.close()
