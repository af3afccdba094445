"""Search: newest chunks first, their bytes scanned, the messages behind a match located.

No index: reading compressed bodies passes 300,000 spans a second, in any script; a trigram index costs
more time and space than storing the spans (docs/adr/0001-chunk-layout.md). Each page is bounded in time
and ends with a cursor.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions.backend.store._chunks import ENCODINGS, SIGNALS, Message, inflate, parse
from otel_sessions.backend.store._rows import position_of, row_id
from otel_sessions.backend.store.base import Hit

__all__ = ["Needle", "search"]

_SECONDS: Final = 0.5
_AROUND: Final = 80  # bytes of a snippet on either side of the match
_LEVELS: Final = 2  # JSON inside a JSON body: a character may be escaped twice

_SPAN: Final = (
    "SELECT s.id, s.name, p.trace_id, p.span_id, n.text, p.start FROM spans p"
    " JOIN sessions s ON s.no = p.session JOIN names n ON n.id = p.name WHERE p.id = ?"
)
_LOG: Final = (
    "SELECT s.id, s.name, l.trace_id, l.span_id, ifnull(n.text, ''), l.time FROM logs l"
    " JOIN sessions s ON s.no = l.session LEFT JOIN names n ON n.id = l.event_name WHERE l.id = ?"
)


class Needle:
    """A text to find in bytes, whatever its case and however JSON escaped it.

    ASCII letters match in either case; other letters as typed, and all in lower, upper or title case.
    """

    def __init__(self, text: str) -> None:
        cases = dict.fromkeys((text, text.lower(), text.upper(), text.title(), text.casefold()))
        self._forms = tuple(dict.fromkeys(form for case in cases for form in _escaped(case)))

    def find(self, body: bytes) -> tuple[int, int] | None:
        """Return where the text begins and ends in some bytes, None where it does not occur."""
        folded = body.lower()
        for form in self._forms:
            begin = folded.find(form)
            if begin >= 0:
                return begin, begin + len(form)
        return None

    def snippet(self, text: str) -> str | None:
        """Return the surroundings of the match in a text, None where there is none."""
        body = text.encode()
        found = self.find(body)
        if found is None:
            return None
        begin, end = max(0, found[0] - _AROUND), min(len(body), found[1] + _AROUND)
        inner = " ".join(body[begin:end].decode(errors="ignore").split())
        return ("…" if begin else "") + inner + ("…" if end < len(body) else "")


def _escaped(text: str) -> Iterator[bytes]:
    """Spell a text as it may stand in a body: as it is, or escaped by one or more JSON writers."""
    yield text.encode().lower()
    for ascii_only in (True, False):
        spelled = text
        for _ in range(_LEVELS):
            spelled = json.dumps(spelled, ensure_ascii=ascii_only)[1:-1]
            yield spelled.encode().lower()


@dataclass(slots=True)
class _Page:
    """A page in the making: hits before the position `upper`, at most `limit`."""

    needle: Needle
    upper: int
    limit: int
    hits: list[Hit] = field(default_factory=list[Hit])
    cursor: str | None = None

    @property
    def full(self) -> bool:
        return len(self.hits) >= self.limit


def search(
    conn: sqlite3.Connection, text: str, *, limit: int, before: str | None, now: Callable[[], float]
) -> tuple[Sequence[Hit], str | None]:
    """Return a page of hits and the cursor of the next; `now` is a clock in seconds that bounds the page.

    Raises ValueError for an unknown cursor.
    """
    page = _Page(Needle(text), _upper(before), limit)
    deadline = now() + _SECONDS
    chunks = conn.execute(
        "SELECT id, signal, encoding, zstd FROM chunks JOIN bodies USING (id) WHERE id <= ? ORDER BY id DESC",
        (position_of(page.upper - 1).chunk,),
    )
    for number, signal, encoding, zstd in chunks:
        body = inflate(zstd)
        if page.needle.find(body) is not None:
            messages = [at.message for at in parse(SIGNALS[signal], ENCODINGS[encoding], body)]
            _search_chunk(conn, number, messages, page)
        if page.full or now() >= deadline:
            page.cursor = page.cursor or str(row_id(number, 0))
            break
    return page.hits, page.cursor


def _search_chunk(conn: sqlite3.Connection, number: int, messages: Sequence[Message], page: _Page) -> None:
    for ordinal in range(len(messages) - 1, -1, -1):
        position = row_id(number, ordinal)
        if position >= page.upper:
            continue
        snippet = _snippet(page.needle, messages[ordinal])
        row = None if snippet is None else _row(conn, position)
        if row is not None and snippet is not None:
            session_id, session_name, trace_id, span_id, name, start = row
            page.hits.append(Hit(session_id, session_name, trace_id, span_id, name, start, snippet))
            if page.full:
                page.cursor = str(position)
                return


def _row(conn: sqlite3.Connection, position: int) -> tuple[Any, ...] | None:
    """Return what a hit tells of the message at a position; None for a copy that is not the kept one."""
    return conn.execute(_SPAN, (position,)).fetchone() or conn.execute(_LOG, (position,)).fetchone()


def _snippet(needle: Needle, message: Message) -> str | None:
    """Find the match in a message's texts; keys, ids and resources are not searched."""
    if needle.find(message.SerializeToString()) is None:
        return None
    return next((found for text in _texts(message) if (found := needle.snippet(text)) is not None), None)


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message, SpanMessage):
        yield message.name
        yield message.status.message
        yield from _values(message.attributes)
        for event in message.events:
            yield event.name
            yield from _values(event.attributes)
    else:
        yield message.event_name
        yield from _value(message.body)
        yield from _values(message.attributes)


def _values(attributes: Iterable[KeyValue]) -> Iterator[str]:
    for attribute in attributes:
        yield from _value(attribute.value)


def _value(value: AnyValue) -> Iterator[str]:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        yield value.string_value
    elif kind == "array_value":
        for inner in value.array_value.values:
            yield from _value(inner)
    elif kind == "kvlist_value":
        yield from _values(value.kvlist_value.values)


def _upper(before: str | None) -> int:
    """Return the position before which to search."""
    if before is None:
        return (1 << 63) - 1
    if not before.isascii() or not before.isdigit() or int(before) >= 1 << 63:
        raise ValueError(f"{before!r} is no cursor of a search; start again without it.")
    return int(before)
