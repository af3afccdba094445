"""Spans by service and by trace, for those who know no sessions: ended ones, and the roots of lost runs.

A lost run's root is known by its announcement alone. It is read as a span that ends when the run was last
heard, with `Flag.SYNTHETIC`; the row in the database stays an announced one, which any real root replaces.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final, cast

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.records import Flag, SpanRow
from otel_sessions.backend.store._chunks import Chunk, ChunkReader
from otel_sessions.backend.store._connection import Readers
from otel_sessions.backend.store._names import NameReader
from otel_sessions.backend.store._rows import ROW_COLUMNS, position_of, row_words, stored_row
from otel_sessions.backend.store.base import Calls, SpanPage, SpanQuery, StoredSpan

__all__ = ["TraceReader"]

MOST_CALLED: Final = 200_000
"""Spans of one service that are looked at to count its calls."""

_OTHER_COLUMNS: Final = {
    "duration": "ifnull(p.duration, max(0, r.last_heard_at - p.start))",
    "flags": f"CASE WHEN p.duration IS NULL THEN p.flags & ~{int(Flag.OPEN)} | {int(Flag.SYNTHETIC)}"
    " ELSE p.flags END",
}
_COLUMNS: Final = ", ".join(_OTHER_COLUMNS.get(name, f"p.{name}") for name in ROW_COLUMNS.split(", "))
_JOIN_LOST: Final = (
    "LEFT JOIN runs r ON p.duration IS NULL AND r.session = p.session AND r.root_id = p.span_id"
    " AND r.child_process = '' AND r.trace_id = p.trace_id AND r.phase <> 'ended' AND r.signal = 'lost'"
)
_VISIBLE: Final = "(p.duration IS NOT NULL OR r.root_id IS NOT NULL)"

_SERVICES: Final = (
    "WITH RECURSIVE known(service) AS (SELECT min(service) FROM spans UNION ALL"
    " SELECT (SELECT min(service) FROM spans WHERE service > known.service) FROM known"
    " WHERE known.service IS NOT NULL) SELECT service FROM known"  # the NULL at its end: spans without one
)
_NAMES: Final = (
    "WITH RECURSIVE known(name) AS (SELECT min(name) FROM spans WHERE service IS :service UNION ALL"
    " SELECT (SELECT min(name) FROM spans WHERE service IS :service AND name > known.name)"
    " FROM known WHERE known.name IS NOT NULL"
    ") SELECT name FROM known WHERE name IS NOT NULL"
)
_KINDS: Final = (
    "WITH RECURSIVE known(kind) AS ("
    " SELECT min(kind) FROM spans WHERE service IS :service AND name = :name UNION ALL"
    " SELECT (SELECT min(kind) FROM spans WHERE service IS :service AND name = :name AND kind > known.kind)"
    " FROM known WHERE known.kind IS NOT NULL"
    ") SELECT kind FROM known WHERE kind IS NOT NULL"
)
_ANY_OF_SERVICE: Final = (
    f"SELECT 1 FROM spans p INDEXED BY spans_by_service {_JOIN_LOST}"
    f" WHERE p.service IS ? AND {_VISIBLE} LIMIT 1"
)
_ANY_OF_OPERATION: Final = (
    f"SELECT 1 FROM spans p INDEXED BY spans_by_operation {_JOIN_LOST}"
    f" WHERE p.service IS ? AND p.name = ? AND p.kind = ? AND {_VISIBLE} LIMIT 1"
)
_CALLS: Final = (
    "SELECT p.service, count(*) FROM ("
    " SELECT trace_id, parent_id FROM spans WHERE service IS ? AND start > ? AND start < ?"
    f" AND duration IS NOT NULL ORDER BY start DESC LIMIT {MOST_CALLED}"
    ") c JOIN spans p ON p.trace_id = c.trace_id AND p.span_id = c.parent_id"
    " WHERE p.service IS NOT ? AND p.duration IS NOT NULL GROUP BY p.service"
)
_CALLS_SECONDS: Final = 3.0  # a service with as many calls as are counted takes a fraction of it
_MORE_CALLED: Final = (
    "SELECT 1 FROM spans WHERE service IS ? AND start > ? AND start < ? AND duration IS NOT NULL"
    f" ORDER BY start DESC LIMIT 1 OFFSET {MOST_CALLED}"
)
_PLACES: Final = (
    "SELECT p.id, s.id, p.trace_id, p.span_id FROM (VALUES {pairs}) w CROSS JOIN spans p"
    " ON p.trace_id = w.column1 AND p.span_id = w.column2 JOIN sessions s ON s.no = p.session"
)
_PLACED_AT_ONCE: Final = 400  # two values each; SQLite took 999 before 3.32

_Place = tuple[int, str, SpanRow]
"""The id of a row, our id of its session, and the row as it was read."""


class TraceReader:
    """Reads for any thread; every page sees whole commits."""

    def __init__(self, readers: Readers, names: NameReader, chunks: ChunkReader) -> None:
        self._readers = readers
        self._names = names
        self._chunks = chunks

    # --- services ----------------------------------------------------------------------------------------

    def services(self) -> list[str]:
        """Return all services with a span to be seen."""
        with self._readers.snapshot() as conn:
            numbers = [number for (number,) in conn.execute(_SERVICES).fetchall()]
            seen = [number for number in numbers if conn.execute(_ANY_OF_SERVICE, (number,)).fetchone()]
            words = self._names.words(conn, seen)
        return sorted(words[number] or "" for number in seen)

    def operations(self, service: str) -> list[tuple[str, int]]:
        """Return all names of a service's spans with their kinds."""
        with self._readers.snapshot() as conn:
            number = _number(conn, service)
            names = [name for (name,) in conn.execute(_NAMES, {"service": number}).fetchall()]
            known = [(name, kind) for name in names for kind in _kinds(conn, number, name)]
            seen = [row for row in known if conn.execute(_ANY_OF_OPERATION, (number, *row)).fetchone()]
            words = self._names.words(conn, (name for name, _ in seen))
        return sorted((words[name] or "", kind) for name, kind in seen)

    def calls(self, since: int, until: int, now: Callable[[], float] = time.monotonic) -> Calls:
        """Count calls between services, of as many as there is time for by `now`, a clock in seconds."""
        deadline = now() + _CALLS_SECONDS
        counts: Counter[tuple[int | None, int | None]] = Counter()
        complete = True
        with self._readers.snapshot() as conn:
            services = [number for (number,) in conn.execute(_SERVICES).fetchall()]
            for child in services if len(services) > 1 else ():
                if now() >= deadline:
                    complete = False
                    break
                for parent, times in conn.execute(_CALLS, (child, since, until, child)):
                    counts[parent, child] = times
                complete &= conn.execute(_MORE_CALLED, (child, since, until)).fetchone() is None
            words = self._names.words(conn, (number for pair in counts for number in pair))
        named = {(words[a] or "", words[b] or ""): times for (a, b), times in counts.items()}
        return Calls(named, complete)

    # --- spans -------------------------------------------------------------------------------------------

    def find(self, query: SpanQuery) -> SpanPage:
        """Look at the next index rows of a service, newest first, and return those that match."""
        start, row_id = _place(query.after)
        with self._readers.snapshot() as conn:
            service, walks = _walks(conn, query)
            # The first two bounds are those of the index; the third is only for starts that are equal.
            conditions = "service IS ? AND start >= ? AND start <= ? AND (start, id) < (?, ?)"
            values = (service, query.since, min(query.until, start), start, row_id)
            order = f"ORDER BY start DESC, id DESC LIMIT {query.visit}"
            selects = [
                f"SELECT * FROM (SELECT id, start FROM spans {index} WHERE {conditions}{and_more} {order})"
                for index, and_more, _ in walks
            ]
            if not selects:
                return SpanPage((), None)
            rows = conn.execute(
                f"SELECT p.id, p.start, {_VISIBLE}, {_COLUMNS} FROM ({' UNION ALL '.join(selects)} {order}) w"
                f" JOIN spans p ON p.id = w.id {_JOIN_LOST} ORDER BY p.start DESC, p.id DESC",
                [value for _, _, more in walks for value in (*values, *more)],
            ).fetchall()
            found = [row[3:] for row in rows if row[2] and _lasts(row[3:], query)]
            words = self._words(conn, found)
        more = f"{rows[-1][1]}.{rows[-1][0]}" if len(rows) == query.visit else None
        return SpanPage(tuple(stored_row(row, words) for row in found), more)

    def trace(self, trace_id: bytes) -> list[SpanRow]:
        """Return the index rows of one trace, by start."""
        with self._readers.snapshot() as conn:
            rows = conn.execute(
                f"SELECT {_COLUMNS} FROM spans p {_JOIN_LOST} WHERE p.trace_id = ? AND {_VISIBLE}"
                " ORDER BY p.start, p.span_id",
                (trace_id,),
            ).fetchall()
            words = self._words(conn, rows)
        return [stored_row(row, words) for row in rows]

    def full(self, rows: Sequence[SpanRow]) -> Iterator[StoredSpan]:
        """Iterate over spans in full, chunk by chunk."""
        with self._readers.snapshot() as conn:
            placed = sorted(_places(conn, rows), key=itemgetter(0))
        for number, of_chunk in groupby(placed, key=lambda one: position_of(one[0]).chunk):
            with self._readers.snapshot() as conn:
                chunk = self._chunks.chunk(conn, number)
            if chunk is not None:
                yield from (_stored(chunk, *one) for one in of_chunk)
                continue
            for _, _, row in of_chunk:  # better copies came meanwhile, or the spans were dropped
                yield from self._again(row)

    def _again(self, row: SpanRow) -> Iterator[StoredSpan]:
        with self._readers.snapshot() as conn:
            found = [
                (self._chunks.chunk(conn, position_of(place[0]).chunk), place)
                for place in _places(conn, [row])
            ]
        yield from (_stored(chunk, *place) for chunk, place in found if chunk is not None)

    def _words(self, conn: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> dict[int | None, str | None]:
        return self._names.words(conn, (number for row in rows for number in row_words(row)))


def _places(conn: sqlite3.Connection, rows: Sequence[SpanRow]) -> Iterator[_Place]:
    """Find where spans lie; those that are gone are left out."""
    for begin in range(0, len(rows), _PLACED_AT_ONCE):
        by_key = {(row.trace_id, row.span_id): row for row in rows[begin : begin + _PLACED_AT_ONCE]}
        statement = _PLACES.format(pairs=",".join(["(?, ?)"] * len(by_key)))
        for row_id, session_id, trace_id, span_id in conn.execute(statement, [*chain(*by_key)]):
            yield row_id, session_id, by_key[trace_id, span_id]


_NOBODY: Final = -1


def _number(conn: sqlite3.Connection, word: str) -> int | None:
    """Return the number of a service or a name: NULL for "", one that nobody has for an unknown word."""
    if not word:
        return None
    row = conn.execute("SELECT id FROM names WHERE text = ?", (word,)).fetchone()
    return _NOBODY if row is None else row[0]


def _walks(conn: sqlite3.Connection, query: SpanQuery) -> tuple[int | None, list[tuple[str, str, list[Any]]]]:
    """Return the service's number and the walks along an index: one, or for a name one for each kind."""
    service = _number(conn, query.service)
    if query.name is None:
        return service, [("INDEXED BY spans_by_service", "", [])]
    row = conn.execute("SELECT id FROM names WHERE text = ?", (query.name,)).fetchone()
    if row is None:
        return service, []
    more = " AND name = ? AND kind = ?"
    return service, [
        ("INDEXED BY spans_by_operation", more, [row[0], kind]) for kind in _kinds(conn, service, row[0])
    ]


def _kinds(conn: sqlite3.Connection, service: int | None, name: int) -> list[int]:
    """Return the kinds of a service's spans of one name."""
    rows = conn.execute(_KINDS, {"service": service, "name": name}).fetchall()
    return [kind for (kind,) in rows]


def _lasts(row: Sequence[Any], query: SpanQuery) -> bool:
    duration = row[7]
    return duration >= query.shortest and (query.longest is None or duration <= query.longest)


def _place(cursor: str | None) -> tuple[int, int]:
    """Return before which start and row to go on."""
    last = (1 << 63) - 1
    if cursor is None:
        return last, last
    parts = cursor.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) <= last for part in parts):  # noqa: PLR2004
        raise ValueError(f"{cursor!r} is no cursor of found spans; start again without it.")
    return int(parts[0]), int(parts[1])


def _stored(chunk: Chunk, row_id: int, session_id: str, row: SpanRow) -> StoredSpan:
    at = chunk.placed[position_of(row_id).ordinal]
    is_span = isinstance(at.message, SpanMessage)
    return StoredSpan(
        session_id=session_id,
        row=row,
        span=cast("SpanMessage", at.message) if is_span else None,
        resource=at.resource,
        scope=at.scope,
        schema_url=at.schema_url,
        received_at=chunk.received_at,
        events=() if is_span else (cast("LogMessage", at.message),),
    )
