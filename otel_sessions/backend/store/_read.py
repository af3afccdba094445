"""One session as its own page needs it, one span in full, and all that a session holds in full."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, cast

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.records import (
    CATEGORIES,
    OpenSpan,
    RunRecord,
    SessionDetail,
    SessionRecord,
    TaskRecord,
    TimelineEntry,
)
from otel_sessions.backend.resolve import session_id
from otel_sessions.backend.store._chunks import Chunk, ChunkReader
from otel_sessions.backend.store._columns import read_columns
from otel_sessions.backend.store._connection import Readers
from otel_sessions.backend.store._losses import read_losses
from otel_sessions.backend.store._names import NameReader
from otel_sessions.backend.store._pins import is_pinned
from otel_sessions.backend.store._rollups import RECORD_COLUMNS, session_record
from otel_sessions.backend.store._rows import ROW_COLUMNS, position_of, row_words, stored_row
from otel_sessions.backend.store._runs import RUN_COLUMNS, run_of
from otel_sessions.backend.store._tasks import TASK_COLUMNS, folded, task_record
from otel_sessions.backend.store.base import RowColumns, StoredLog, StoredSpan

__all__ = ["Reader"]

_SESSION_NO: Final = "SELECT no FROM sessions WHERE id = ?"


class Reader:
    """Reads for any thread; every method sees whole commits."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self.names = NameReader()
        self.chunks = ChunkReader()

    # --- runs ----------------------------------------------------------------------------------------

    def open_runs(self) -> Sequence[RunRecord]:
        """Return all runs that have not ended."""
        with self._readers.snapshot() as conn:
            return [run for _, run in _runs(conn, "r.phase <> 'ended'", ())]

    def runs(self, session_key: str) -> Sequence[RunRecord]:
        """Return all runs of one session."""
        with self._readers.snapshot() as conn:
            return [run for _, run in _runs(conn, "s.id = ?", (session_id(session_key),))]

    def process_bases(self) -> dict[str, int]:
        """Return the base of each process with an open run."""
        with self._readers.snapshot() as conn:
            return dict(
                conn.execute(
                    "SELECT process, base FROM process_bases"
                    " WHERE process IN (SELECT process FROM runs WHERE phase <> 'ended')"
                )
            )

    # --- one session ------------------------------------------------------------------------------------

    def session(self, ref: str, idle_before: int) -> SessionDetail | None:
        """Return one session with what its page needs beside the rows."""
        with self._readers.snapshot() as conn:
            row = _find(conn, ref)
            if row is None:
                return None
            (key, no), record = row[-2:], session_record(row[:-2], idle_before)
            runs = tuple(run for _, run in _runs(conn, "s.no = ?", (no,)))
            return SessionDetail(
                session=record,
                runs=runs,
                traces=_traces(conn, no),
                tasks=self._tasks(conn, no),
                timeline=_timeline(conn, no, key),
                open_spans=self._open_spans(conn, no),
                losses=read_losses(conn, no, record),
                pinned=is_pinned(conn, record.id),
            )

    def record(self, ref: str, idle_before: int) -> SessionRecord | None:
        """Return one session's roll-up row."""
        with self._readers.snapshot() as conn:
            row = _find(conn, ref)
        return None if row is None else session_record(row[:-2], idle_before)

    def columns(self, session_id: str, after: int | None) -> RowColumns:
        """Return the index rows of one session by columns."""
        with self._readers.snapshot() as conn:
            return read_columns(conn, self.names, session_id, after)

    def _tasks(self, conn: sqlite3.Connection, no: int) -> tuple[TaskRecord, ...]:
        rows = conn.execute(
            f"SELECT {TASK_COLUMNS} FROM spans WHERE session = ? AND task IS NOT NULL"
            " ORDER BY start, span_id",
            (no,),
        )
        tasks = folded(rows)
        words = self.names.words(conn, (number for task in tasks for number in task.numbers()))
        return tuple(task_record(task, words) for task in tasks)

    def _open_spans(self, conn: sqlite3.Connection, no: int) -> tuple[OpenSpan, ...]:
        rows = conn.execute(
            "SELECT trace_id, span_id, name, start, category FROM spans"
            " WHERE session = ? AND duration IS NULL ORDER BY start, span_id",
            (no,),
        ).fetchall()
        words = self.names.words(conn, (row[2] for row in rows))
        return tuple(
            OpenSpan(row[0], row[1], words[row[2]] or "", row[3], CATEGORIES[row[4]]) for row in rows
        )

    # --- messages in full ----------------------------------------------------------------------------------

    def span(self, trace_id: bytes, span_id: bytes) -> StoredSpan | None:
        """Return one span in full, with the logs that bear its ids."""
        with self._readers.snapshot() as conn:
            row = conn.execute(
                f"SELECT p.id, s.id, {_qualified(ROW_COLUMNS)} FROM spans p"
                " JOIN sessions s ON s.no = p.session WHERE trace_id = ? AND span_id = ?",
                (trace_id, span_id),
            ).fetchone()
            if row is None:
                return None
            chunk = self.chunks.chunk(conn, position_of(row[0]).chunk)
            words = self.names.words(conn, row_words(row[2:]))
            logs = conn.execute(
                "SELECT id FROM logs WHERE trace_id = ? AND span_id = ? AND trace_id <> x''"
                " ORDER BY time, id",
                (trace_id, span_id),
            )
            events = tuple(self._log_message(conn, log_id) for (log_id,) in logs)
        return _stored_span(row, words, chunk, events)

    def spans(self, session_id: str) -> Iterator[StoredSpan]:
        """Iterate over all ended spans of a session, chunk by chunk; their `events` are left out."""
        with self._readers.snapshot() as conn:
            rows = conn.execute(
                f"SELECT p.id, NULL, {_qualified(ROW_COLUMNS)} FROM spans p WHERE p.session = ({_SESSION_NO})"
                " AND duration IS NOT NULL ORDER BY p.id >> 24, start, p.id",
                (session_id,),
            ).fetchall()
            words = dict(self.names.words(conn, (number for row in rows for number in row_words(row[2:]))))
        for number, of_chunk in groupby(rows, key=lambda row: position_of(row[0]).chunk):
            with self._readers.snapshot() as conn:
                chunk = self.chunks.chunk(conn, number)
            for row in of_chunk:
                if chunk is not None:
                    yield _stored_span((row[0], session_id, *row[2:]), words, chunk, ())
                elif (moved := self.span(row[2], row[3])) is not None:  # a better copy came meanwhile
                    yield moved

    def logs(self, session_id: str) -> Iterator[StoredLog]:
        """Iterate over all logs of a session, in the order in which they came."""
        with self._readers.snapshot() as conn:
            rows = conn.execute(
                f"SELECT id FROM logs WHERE session = ({_SESSION_NO}) ORDER BY id",
                (session_id,),
            ).fetchall()
        for number, of_chunk in groupby((position_of(row_id) for (row_id,) in rows), key=lambda at: at.chunk):
            with self._readers.snapshot() as conn:
                chunk = self.chunks.chunk(conn, number)
            if chunk is None:
                continue
            for position in of_chunk:
                at = chunk.placed[position.ordinal]
                message = cast("LogMessage", at.message)
                yield StoredLog(session_id, message, at.resource, at.scope, at.schema_url, chunk.received_at)

    def _log_message(self, conn: sqlite3.Connection, row_id: int) -> LogMessage:
        position = position_of(row_id)
        chunk = self.chunks.chunk(conn, position.chunk)
        assert chunk is not None  # noqa: S101 - the snapshot that holds the row holds its chunk
        return cast("LogMessage", chunk.placed[position.ordinal].message)


def _find(conn: sqlite3.Connection, ref: str) -> tuple[Any, ...] | None:
    """Find a session by our id, else by the emitter's where one alone has that; key and number come last."""
    select = f"SELECT {RECORD_COLUMNS}, key, no FROM sessions WHERE"
    row = conn.execute(f"{select} id = ?", (ref,)).fetchone()
    if row is None:
        rows = conn.execute(f"{select} session_id = ? LIMIT 2", (ref,)).fetchall()
        row = rows[0] if len(rows) == 1 else None
    return row


def _runs(
    conn: sqlite3.Connection, where: str, values: tuple[Any, ...]
) -> list[tuple[tuple[bytes, str], RunRecord]]:
    columns = ", ".join(f"r.{name.strip()}" for name in RUN_COLUMNS.split(","))
    rows = conn.execute(
        f"SELECT s.key, {columns} FROM runs r JOIN sessions s ON s.no = r.session"
        f" WHERE {where} ORDER BY r.started_at, r.root_id, r.child_process",
        values,
    )
    return [run_of(row[1:], row[0]) for row in rows]


def _traces(conn: sqlite3.Connection, no: int) -> tuple[bytes, ...]:
    """Return a session's traces by their earliest span; those of which only logs came are last."""
    rows = conn.execute(
        "SELECT t.trace_id, min(p.start) AS start FROM session_traces t"
        # The plus keeps SQLite from the index by session, which would be walked once for each trace.
        " LEFT JOIN spans p ON p.trace_id = t.trace_id AND +p.session = t.session"
        " WHERE t.session = ? GROUP BY t.trace_id ORDER BY start IS NULL, start, t.trace_id",
        (no,),
    )
    return tuple(trace_id for trace_id, _ in rows)


def _timeline(conn: sqlite3.Connection, no: int, key: str) -> tuple[TimelineEntry, ...]:
    rows = conn.execute(
        "SELECT root_id, at, state, detail FROM timeline WHERE session = ?"
        " ORDER BY at, root_id, state, detail",
        (no,),
    )
    return tuple(
        TimelineEntry(key, root_id, at, state, detail or None) for root_id, at, state, detail in rows
    )


def _stored_span(
    row: Sequence[Any],
    words: Mapping[int | None, str | None],
    chunk: Chunk | None,
    events: tuple[LogMessage, ...],
) -> StoredSpan:
    index_row = stored_row(row[2:], words)
    at = None if chunk is None else chunk.placed[position_of(row[0]).ordinal]
    return StoredSpan(
        session_id=row[1],
        row=index_row,
        span=at.message if at is not None and isinstance(at.message, SpanMessage) else None,
        resource=None if at is None else at.resource,
        scope=None if at is None else at.scope,
        schema_url="" if at is None else at.schema_url,
        received_at=0 if chunk is None else chunk.received_at,
        events=events,
    )


def _qualified(columns: str) -> str:
    return ", ".join(f"p.{name.strip()}" for name in columns.split(","))
