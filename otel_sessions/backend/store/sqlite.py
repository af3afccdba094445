"""The store in one SQLite file: index rows and roll-ups beside the request bodies as they came.

Reasons and figures: docs/adr/0001-chunk-layout.md.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from otel_sessions.backend.records import (
    Changes,
    Gauge,
    Request,
    RunRecord,
    SessionDetail,
    SessionRecord,
    SpanRow,
    TimelineEntry,
)
from otel_sessions.backend.retention import Retention
from otel_sessions.backend.store._connection import Readers, connect, translated, tune
from otel_sessions.backend.store._folder import FolderLock
from otel_sessions.backend.store._list import count_states, list_sessions
from otel_sessions.backend.store._pins import set_pinned
from otel_sessions.backend.store._read import Reader
from otel_sessions.backend.store._schema import SCHEMA_VERSION, prepare
from otel_sessions.backend.store._search import search
from otel_sessions.backend.store._traces import TraceReader
from otel_sessions.backend.store._upkeep import free_bytes, prunable
from otel_sessions.backend.store._writer import Writer
from otel_sessions.backend.store.base import (
    Calls,
    Prunable,
    Pruned,
    RowColumns,
    SearchPage,
    SearchQuery,
    SessionPage,
    SessionQuery,
    SpanPage,
    SpanQuery,
    StoredLog,
    StoredSpan,
    Totals,
)
from otel_sessions.errors import BackendError

__all__ = ["SqliteStore"]

_FILE: Final = "sessions.db"
_GIVEN_WAY: Final = 0.002  # s: a chunk is scanned in a tenth of it


_PROBE: Final = (  # no chunk has the number 0
    "INSERT OR REPLACE INTO bodies VALUES (0, zeroblob(1 << 20))",
    "DELETE FROM bodies WHERE id = 0",
)


class SqliteStore:
    """A store in a folder, which one process holds at a time. See `base.Store` for the methods."""

    def __init__(self, folder: Path) -> None:
        """Open the store of a folder, new if there is none.

        Raises DataFolderError where the folder can't be written or is in use, CorruptStoreError and
        NewerSchemaError where the file in it can't be used.
        """
        self._path = folder / _FILE
        with contextlib.ExitStack() as undo:
            self._lock = FolderLock(folder)
            undo.callback(self._lock.release)
            self._conn = connect(self._path, writable=True)
            undo.callback(self._conn.close)
            with translated(self._path):
                prepare(self._conn, self._path)
                tune(self._conn)
                self._writer = Writer(self._conn)
            undo.pop_all()
        self._file = self._path.stat()
        self._readers = Readers(self._path)
        self._reader = Reader(self._readers)
        self._traces = TraceReader(self._readers, self._reader.names, self._reader.chunks)
        self._bases: dict[str, int] = {}
        self._writing = threading.Lock()
        self._closed = False

    # --- writing -----------------------------------------------------------------------------------------

    def append(
        self,
        requests: Sequence[Request],
        runs: Sequence[RunRecord] = (),
        timeline: Sequence[TimelineEntry] = (),
        gauges: Sequence[Gauge] = (),
    ) -> Changes:
        """Store a batch in one transaction and return what changed."""
        with self._writing, translated(self._path):
            if self._closed:
                raise BackendError("The store is closed.")
            self._insist_on_the_file()
            bases = dict(self._bases)
            changes = self._writer.append(requests, runs, timeline, gauges, bases)
            for process, base in bases.items():
                if self._bases[process] == base:
                    del self._bases[process]
            return changes

    def prune(self, retention: Retention, now: int, idle_before: int) -> Pruned:
        """Remove sessions beyond a retention, in one small transaction."""
        with self._writing, translated(self._path):
            if self._closed:
                raise BackendError("The store is closed.")
            self._insist_on_the_file()
            return self._writer.prune(retention, now, idle_before)

    def probe(self) -> None:
        """Store as much as a large request takes, and remove it again."""
        with self._writing, translated(self._path):
            if self._closed:
                raise BackendError("The store is closed.")
            self._insist_on_the_file()
            for statement in _PROBE:
                self._conn.execute(statement)  # a transaction each, or nothing would reach the disk

    def pin(self, session_id: str, *, pinned: bool) -> bool:
        """Keep a session from retention, or no longer; return whether it is there."""
        with self._writing, translated(self._path):
            if self._closed:
                raise BackendError("The store is closed.")
            self._insist_on_the_file()
            return set_pinned(self._conn, session_id, pinned=pinned)

    def prunable(self, retention: Retention, now: int, idle_before: int) -> Prunable:
        """Say what `prune` would remove."""
        with self._readers.snapshot() as conn:
            return prunable(conn, retention, now, idle_before)

    def _insist_on_the_file(self) -> None:
        """Refuse to write into a file that was deleted or replaced: nobody could ever read it again."""
        try:
            there = os.path.samestat(self._path.stat(), self._file)
        except FileNotFoundError:
            there = False
        if not there:
            raise BackendError(
                f"{self._path} was removed or replaced while it was in use. Stop this backend, put the file "
                "back or start with an empty folder."
            )

    def note_process(self, process: str, base: int) -> None:
        """Keep the smallest (arrival - elapsed) of a process with the next append."""
        known = self._bases.get(process)
        self._bases[process] = base if known is None else min(base, known)

    def close(self) -> None:
        """Release the files; idempotent."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            self._readers.close()
            self._conn.close()
            self._lock.release()

    # --- reading -----------------------------------------------------------------------------------------

    def open_runs(self) -> Sequence[RunRecord]:
        """Return all runs that have not ended."""
        return self._reader.open_runs()

    def runs(self, session_key: str) -> Sequence[RunRecord]:
        """Return all runs of one session."""
        return self._reader.runs(session_key)

    def process_bases(self) -> dict[str, int]:
        """Return the base of each process with an open run."""
        return self._reader.process_bases()

    def sessions(self, query: SessionQuery) -> SessionPage:
        """List sessions from their roll-up rows."""
        with self._readers.snapshot() as conn:
            return list_sessions(conn, query, time.monotonic)

    def session(self, ref: str, *, idle_before: int = 0) -> SessionDetail | None:
        """Return one session by our id, or by the emitter's where that is unique."""
        return self._reader.session(ref, idle_before)

    def record(self, ref: str, *, idle_before: int = 0) -> SessionRecord | None:
        """Return the roll-up row alone of what `session` finds."""
        return self._reader.record(ref, idle_before)

    def columns(self, session_id: str, after: int | None = None) -> RowColumns:
        """Return the index rows of one session by columns."""
        return self._reader.columns(session_id, after)

    def span(self, trace_id: bytes, span_id: bytes) -> StoredSpan | None:
        """Return one span in full."""
        return self._reader.span(trace_id, span_id)

    def spans(self, session_id: str) -> Iterator[StoredSpan]:
        """Iterate over all ended spans of a session in full, without their `events`."""
        return self._reader.spans(session_id)

    def logs(self, session_id: str) -> Iterator[StoredLog]:
        """Iterate over all logs of a session in full."""
        return self._reader.logs(session_id)

    def search(self, query: SearchQuery, stopped: Callable[[], bool] = lambda: False) -> SearchPage:
        """Find words in names and contents, newest first."""
        with self._readers.snapshot() as conn:
            return search(conn, query, time.monotonic, stopped, self._give_way)

    def _give_way(self) -> None:
        """Let a commit have Python's lock, which it asks for at each row and else waits for at each."""
        if self._writing.locked():
            time.sleep(_GIVEN_WAY)

    def services(self) -> Sequence[str]:
        """Return all services with an ended span or a lost run."""
        return self._traces.services()

    def operations(self, service: str) -> Sequence[tuple[str, int]]:
        """Return all names of spans of a service with their kinds."""
        return self._traces.operations(service)

    def find(self, query: SpanQuery) -> SpanPage:
        """Find spans by their index rows, newest start first."""
        return self._traces.find(query)

    def trace(self, trace_id: bytes) -> Sequence[SpanRow]:
        """Return the index rows of one trace, by start."""
        return self._traces.trace(trace_id)

    def full(self, rows: Sequence[SpanRow]) -> Iterator[StoredSpan]:
        """Iterate over spans in full, in the order in which they lie."""
        return self._traces.full(rows)

    def calls(self, since: int, until: int) -> Calls:
        """Count calls between services."""
        return self._traces.calls(since, until)

    def totals(self, *, idle_before: int = 0) -> Totals:
        """Count what is stored, from counters."""
        with self._readers.snapshot() as conn:
            spans, logs, chunks = conn.execute("SELECT spans, logs, chunks FROM meta").fetchone()
            by_state = count_states(conn, idle_before)
            incomplete, missing = conn.execute(
                "SELECT count(*), ifnull(sum(missing_spans), 0) FROM sessions WHERE missing_spans > 0"
            ).fetchone()
            free = free_bytes(conn)
        sizes = [path.stat().st_size if path.exists() else 0 for path in self._files()]
        return Totals(
            sum(by_state.values()),
            spans,
            logs,
            chunks,
            sum(sizes),
            by_state,
            incomplete,
            missing,
            free,
            wal_bytes=sizes[1],
            schema_version=SCHEMA_VERSION,
            engine=f"SQLite {sqlite3.sqlite_version}",
        )

    def _files(self) -> tuple[Path, ...]:
        """Return the database, its write-ahead log, and what is shared of that."""
        return (self._path, self._path.with_name(f"{_FILE}-wal"), self._path.with_name(f"{_FILE}-shm"))
