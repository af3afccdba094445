"""Search: newest chunks first, their bytes scanned, the messages behind a match located.

No index: reading compressed bodies passes 100,000 to 300,000 spans a second, in any script; a trigram index
costs more time and space than storing the spans (docs/adr/0001-chunk-layout.md). Each page is bounded in
time, can be broken off at any chunk, and ends with a cursor and how far it came.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.filters import matches
from otel_sessions.backend.store._chunks import ENCODINGS, SIGNALS, Message, inflate, parse
from otel_sessions.backend.store._needle import Needles
from otel_sessions.backend.store._rollups import RECORD_COLUMNS, session_record
from otel_sessions.backend.store._rows import position_of, row_id
from otel_sessions.backend.store.base import Hit, SearchPage, SearchQuery

__all__ = ["search"]

_LAST: Final = (1 << 63) - 1

_SPAN: Final = (
    "SELECT p.session, s.id, s.name, p.trace_id, p.span_id, n.text, p.start FROM spans p"
    " JOIN sessions s ON s.no = p.session JOIN names n ON n.id = p.name WHERE p.id = ?"
)
_LOG: Final = (
    "SELECT l.session, s.id, s.name, l.trace_id, l.span_id, ifnull(n.text, ''), l.time FROM logs l"
    " JOIN sessions s ON s.no = l.session LEFT JOIN names n ON n.id = l.event_name WHERE l.id = ?"
)
_CHUNKS: Final = "SELECT id, received_at, signal, encoding, size FROM chunks WHERE id <= ? ORDER BY id DESC"


@dataclass(slots=True)
class _Page:
    """A page in the making: hits before the position `upper`."""

    conn: sqlite3.Connection
    query: SearchQuery
    needles: Needles
    upper: int
    hits: list[Hit] = field(default_factory=list[Hit])
    verdicts: dict[int, bool] = field(default_factory=dict[int, bool])  # by number of the session
    cursor: str | None = None
    chunks: int = 0
    bytes: int = 0
    reached: int | None = None

    @property
    def full(self) -> bool:
        return len(self.hits) >= self.query.limit


def search(
    conn: sqlite3.Connection,
    query: SearchQuery,
    now: Callable[[], float],
    stopped: Callable[[], bool],
    give_way: Callable[[], object] = lambda: None,
) -> SearchPage:
    """Return a page of hits and how far it came; `now` is a clock in seconds.

    `give_way` is called after each chunk, for those who need Python's lock more. The page ends where it is
    full, its time is over, or `stopped` says so. Raises ValueError for an unknown cursor.
    """
    page = _Page(conn, query, Needles(query.words), _upper(query.before))
    deadline = now() + query.seconds
    first, last = conn.execute("SELECT min(id), max(id) FROM chunks").fetchone()
    number = last
    for number, received_at, signal, encoding, size in conn.execute(
        _CHUNKS, (position_of(page.upper - 1).chunk,)
    ):
        page.chunks += 1
        page.reached = received_at
        if not query.filter or _may_concern(page, number):
            page.bytes += size
            _search_chunk(page, number, SIGNALS[signal], ENCODINGS[encoding])
        if page.full or now() >= deadline or stopped():
            page.cursor = page.cursor or str(row_id(number, 0))
            break
        give_way()
    if last is not None and page.cursor == str(row_id(first, 0)):
        page.cursor = None  # nothing lies before the first
    share = 1.0 if page.cursor is None else (last - number + 1) / (last - first + 1)
    return SearchPage(tuple(page.hits), page.cursor, page.reached, share, page.chunks, page.bytes)


def _may_concern(page: _Page, number: int) -> bool:
    """Tell whether a chunk has anything of a session that the filter leaves: else it need not be inflated."""
    values = (row_id(number, 0), row_id(number + 1, 0))
    sessions = page.conn.execute(
        "SELECT session FROM spans WHERE id >= ? AND id < ? UNION"
        " SELECT session FROM logs WHERE id >= ? AND id < ? AND session IS NOT NULL",
        (*values, *values),
    ).fetchall()
    return any(_is_wanted(page, session) for (session,) in sessions)


def _is_wanted(page: _Page, session: int) -> bool:
    query = page.query
    if not query.filter:
        return True
    if session not in page.verdicts:
        row = page.conn.execute(f"SELECT {RECORD_COLUMNS} FROM sessions WHERE no = ?", (session,)).fetchone()
        page.verdicts[session] = matches(query.filter, session_record(row, query.idle_before))
    return page.verdicts[session]


def _search_chunk(page: _Page, number: int, signal: Any, encoding: Any) -> None:
    (zstd,) = page.conn.execute("SELECT zstd FROM bodies WHERE id = ?", (number,)).fetchone()
    body = inflate(zstd)
    if not page.needles.may_hold(body):
        return
    messages: Sequence[Message] = [at.message for at in parse(signal, encoding, body)]
    for ordinal in range(len(messages) - 1, -1, -1):
        position = row_id(number, ordinal)
        hit = None if position >= page.upper else _hit(page, position, messages[ordinal])
        if hit is not None:
            page.hits.append(hit)
            if page.full:
                page.cursor = str(position)
                return


def _hit(page: _Page, position: int, message: Message) -> Hit | None:
    """Return the hit of the message at a position; None for a copy that is not the kept one, too."""
    if not page.needles.may_hold(message.SerializeToString()):
        return None
    row = _row(page.conn, position)
    found = page.needles.find(_texts(message)) if row is not None and _is_wanted(page, row[0]) else None
    if row is None or found is None:
        return None
    _, session_id, session_name, trace_id, span_id, name, start = row
    place, (snippet, marks) = found
    return Hit(session_id, session_name, trace_id, span_id, name, start, snippet, marks, place)


def _row(conn: sqlite3.Connection, position: int) -> tuple[Any, ...] | None:
    return conn.execute(_SPAN, (position,)).fetchone() or conn.execute(_LOG, (position,)).fetchone()


# --- what is searched of a message: names and texts; not keys, ids, resources --------------------------


def _texts(message: Message) -> Iterator[tuple[str, str]]:
    """Yield a message's texts, each with its place in OTLP's words."""
    if isinstance(message, SpanMessage):
        yield "name", message.name
        yield "status.message", message.status.message
        yield from _values("attributes", message.attributes)
        for event in message.events:
            yield "events.name", event.name
            yield from _values("events.attributes", event.attributes)
    else:
        yield "event_name", message.event_name
        yield from _value("body", message.body)
        yield from _values("attributes", message.attributes)


def _values(of: str, attributes: Iterable[KeyValue]) -> Iterator[tuple[str, str]]:
    for attribute in attributes:
        yield from _value(f"{of}.{attribute.key}", attribute.value)


def _value(name: str, value: AnyValue) -> Iterator[tuple[str, str]]:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        yield name, value.string_value
    elif kind == "array_value":
        for inner in value.array_value.values:
            yield from _value(name, inner)
    elif kind == "kvlist_value":
        yield from _values(name, value.kvlist_value.values)


def _upper(before: str | None) -> int:
    """Return the position before which to search."""
    if before is None:
        return _LAST
    if not before.isascii() or not before.isdigit() or int(before) > _LAST:
        raise ValueError(f"{before!r} is no cursor of a search; start again without it.")
    return int(before)
