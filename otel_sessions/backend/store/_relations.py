"""What spans are to each other across requests: parents that are missing, model calls told twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from otel_sessions.backend.store._names import NameWriter
from otel_sessions.backend.store._rows import NESTED, SPAN_COLUMNS, span_record
from otel_sessions.backend.store._sessions import Sessions

__all__ = ["note_model_calls", "note_parents"]

_MODEL: Final = "(3, 4)"  # places of model and embedding in records.CATEGORIES, as in the index

_ABSENT: Final = (
    "SELECT DISTINCT s.trace_id, s.parent_id, s.session FROM spans s LEFT JOIN spans p"
    " ON p.trace_id = s.trace_id AND p.span_id = s.parent_id"
    " WHERE {} AND s.parent_id <> x'' AND p.id IS NULL"
)
_FOUND: Final = (
    "SELECT m.trace_id, m.span_id, m.session FROM spans s CROSS JOIN missing_parents m"
    " ON m.trace_id = s.trace_id AND m.span_id = s.span_id WHERE s.id >= ?"
)
_NEW_BELOW: Final = (
    "SELECT c.id, p.id FROM spans c CROSS JOIN spans p ON p.trace_id = c.trace_id AND p.span_id = c.parent_id"
    f" WHERE c.id >= ? AND c.category IN {_MODEL} AND p.category IN {_MODEL}"
)
_NEW_ABOVE: Final = (
    "SELECT c.id, p.id FROM spans p CROSS JOIN spans c ON c.trace_id = p.trace_id AND c.parent_id = p.span_id"
    f" WHERE p.id >= ? AND p.category IN {_MODEL} AND c.category IN {_MODEL}"
)
_AROUND: Final = (
    f"SELECT id FROM spans WHERE trace_id = ? AND parent_id = ? AND category IN {_MODEL} UNION"
    f" SELECT id FROM spans WHERE trace_id = ? AND span_id = ? AND category IN {_MODEL}"
)
_NESTED: Final = (
    "SELECT EXISTS (SELECT 1 FROM spans c WHERE c.trace_id = s.trace_id AND c.parent_id = s.span_id"
    f" AND c.category IN {_MODEL} AND (c.input_tokens IS NOT NULL OR c.output_tokens IS NOT NULL))"
    " OR (s.input_tokens IS NULL AND s.output_tokens IS NULL AND EXISTS (SELECT 1 FROM spans p"
    f" WHERE p.trace_id = s.trace_id AND p.span_id = s.parent_id AND p.category IN {_MODEL}))"
    " FROM spans s WHERE s.id = ?"
)

SpanKey = tuple[bytes, bytes, bytes]
"""Trace id, span id, parent id."""


def note_parents(conn: sqlite3.Connection, sessions: Sessions, first: int, moved: Iterable[bytes]) -> None:
    """Note which parents of new rows (ids from `first`) and of moved traces are absent, and which came."""
    absent = conn.execute(_ABSENT.format("s.id >= ?"), (first,)).fetchall()
    for trace_id in moved:
        absent += conn.execute(_ABSENT.format("s.trace_id = ?"), (trace_id,)).fetchall()
    found = conn.execute(_FOUND, (first,)).fetchall()
    conn.executemany("INSERT OR IGNORE INTO missing_parents VALUES (?, ?, ?)", absent)
    conn.executemany("DELETE FROM missing_parents WHERE trace_id = ? AND span_id = ? AND session = ?", found)
    for no in {row[2] for row in (*absent, *found)}:
        session = sessions.by_no(no)
        if session is not None:
            session.missing_parents = sessions.count_missing_parents(session)


def note_model_calls(
    conn: sqlite3.Connection, names: NameWriter, sessions: Sessions, first: int, replaced: Iterable[SpanKey]
) -> None:
    """Count one of model calls that lie directly in each other: many frameworks tell one call twice.

    The inner one counts, for that made the call; the outer one where the inner does not know its tokens.
    """
    pairs = conn.execute(_NEW_BELOW, (first,)).fetchall() + conn.execute(_NEW_ABOVE, (first,)).fetchall()
    affected = {row_id for pair in pairs for row_id in pair}
    for trace_id, span_id, parent_id in replaced:
        around = conn.execute(_AROUND, (trace_id, span_id, trace_id, parent_id))
        affected.update(row_id for (row_id,) in around)
    for row_id in affected:
        row = conn.execute(f"SELECT {SPAN_COLUMNS} FROM spans WHERE id = ?", (row_id,)).fetchone()
        span = span_record(row, names.word)
        (nested,) = conn.execute(_NESTED, (row_id,)).fetchone()
        if bool(nested) == bool(span.flags & NESTED):
            continue
        conn.execute(
            "UPDATE spans SET flags = flags + ? WHERE id = ?", (NESTED if nested else -NESTED, row_id)
        )
        session = sessions.by_no(row[1])
        if session is not None:
            session.tally.count_call(span, -1 if nested else 1)
