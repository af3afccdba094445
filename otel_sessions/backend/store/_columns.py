"""Index rows of one session by columns, sorted and narrowed by SQLite, which leaves Python to others."""

from __future__ import annotations

import sqlite3
from typing import Final

from otel_sessions.backend.records import CATEGORIES
from otel_sessions.backend.store._names import NameReader
from otel_sessions.backend.store._rows import PUBLIC_FLAGS
from otel_sessions.backend.store.base import RowColumns

__all__ = ["read_columns"]

_MODEL, _EMBEDDING, _TOOL, _AGENT = map(CATEGORIES.index, ("model", "embedding", "tool", "agent"))
_READ: Final = (
    "SELECT trace_id, span_id, parent_id, name, kind, category, start, duration, status,"
    f" flags & {PUBLIC_FLAGS}, ifnull(service, 0), ifnull(task, 0), ifnull(CASE category"
    f" WHEN {_MODEL} THEN model WHEN {_EMBEDDING} THEN model WHEN {_TOOL} THEN tool WHEN {_AGENT} THEN agent"
    " END, 0), input_tokens, output_tokens, revision FROM spans"
    " WHERE session = (SELECT no FROM sessions WHERE id = ?) AND revision > ?"
    " ORDER BY start, span_id, trace_id"
)
_NO_WORD: Final = 0
_AT_ONCE: Final = 1_000  # rows: a millisecond in which nobody else runs Python


def read_columns(
    conn: sqlite3.Connection, names: NameReader, session_id: str, after: int | None
) -> RowColumns:
    """Return the index rows of a session, with `after` those of a greater revision, the earliest first."""
    cursor = conn.execute(_READ, (session_id, -1 if after is None else after))
    traces: dict[bytes, int] = {}
    rows = RowColumns()
    while part := cursor.fetchmany(_AT_ONCE):
        trace_ids, *columns, revisions = zip(*part, strict=True)
        rows.add([traces.setdefault(trace_id, len(traces)) for trace_id in trace_ids], *columns)
        rows.revision = max(rows.revision, *revisions)
    rows.traces.extend(traces)
    numbers = {*rows.name, *rows.service, *rows.task, *rows.label} - {_NO_WORD}
    rows.words.update(names.words(conn, numbers))
    rows.words[_NO_WORD] = None
    return rows
