"""Rows of a session as columns, the form in which the page takes two hundred thousand of them; pure.

Texts that repeat (names, services, models) stand once in a dictionary and as an index in their column;
times are offsets in ns from a base, so that they stay exact in a JavaScript number. What is unknown is
null, or -1 in a column of indices. The JSON is written in pieces, a millisecond each: whoever writes it runs
beside an event loop, and one large piece would hold that up.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from otel_sessions.backend.records import CATEGORIES, Flag, SpanRow
from otel_sessions.backend.store.base import RowColumns
from otel_sessions.backend.tree import Planted, Seeds, plant

__all__ = ["delta", "full", "gathered"]

_AT_ONCE: Final = 4_096  # values of one piece
_LABELLED: Final = {"model": "model", "embedding": "model", "tool": "tool", "agent": "agent"}
_RUN, _TASK, _STEP = map(CATEGORIES.index, ("session", "task", "step"))


def full(session_id: str, rows: RowColumns, also: Mapping[str, Any]) -> Iterator[bytes]:
    """Write all rows of a session in tree order: the answer of `sessions/{id}/rows`, and what it `also` says.

    `parent` holds indices of rows, `depth` their depth; a missing parent is a placeholder row.
    """
    planted = plant(_seeds(rows))
    base = min(rows.start, default=0)
    _add_placeholders(rows, planted)
    lines = {"parent": planted.parent, "depth": planted.depth}
    yield from _written(session_id, rows, base, {**lines, "order": planted.order}, also)


def delta(session_id: str, rows: RowColumns, also: Mapping[str, Any] = {}) -> Iterator[bytes]:
    """Write some rows of a session, the earliest first: what changed since a revision.

    `parent_id` holds hex ids ("" for none); there are no placeholders, and the base may be another one.
    """
    yield from _written(session_id, rows, min(rows.start, default=0), {}, also)


def gathered(rows: Iterable[SpanRow]) -> RowColumns:
    """Put rows in order, and by columns."""
    ordered = sorted(rows, key=_age)
    traces: dict[bytes, int] = {}
    numbers: dict[str | None, int] = {None: 0}

    def no(word: str | None) -> int:
        return numbers.setdefault(word, len(numbers))

    columns = RowColumns(revision=max((row.revision for row in ordered), default=0))
    columns.add(
        [traces.setdefault(row.trace_id, len(traces)) for row in ordered],
        *([getattr(row, name) for row in ordered] for name in ("span_id", "parent_id")),
        [no(row.name) for row in ordered],
        [row.kind for row in ordered],
        [CATEGORIES.index(row.category) for row in ordered],
        [row.start for row in ordered],
        [None if row.end is None else row.end - row.start for row in ordered],
        *([getattr(row, name) for row in ordered] for name in ("status", "flags")),
        [no(row.service) for row in ordered],
        [no(row.task_id) for row in ordered],
        [no(_label(row)) for row in ordered],
        *([getattr(row, name) for row in ordered] for name in ("input_tokens", "output_tokens")),
    )
    columns.traces.extend(traces)
    columns.words.update({number: word for word, number in numbers.items()})
    return columns


_age: Final = attrgetter("start", "span_id", "trace_id")


def _label(row: SpanRow) -> str | None:
    """Return the model, tool or agent that a row is about, as its category says."""
    field = _LABELLED.get(row.category)
    return None if field is None else getattr(row, field)


def _seeds(rows: RowColumns) -> Seeds:
    return Seeds(
        traces=rows.traces,
        trace=rows.trace,
        span_id=rows.span_id,
        parent_id=rows.parent_id,
        start=rows.start,
        runs=[place for place, category in enumerate(rows.category) if category == _RUN],
        tasks=[place for place, category in enumerate(rows.category) if category == _TASK],
    )


def _add_placeholders(rows: RowColumns, planted: Planted) -> None:
    """Append a row for each missing parent: it starts with the earliest of its children."""
    starts = [rows.start[child] for _, _, child in planted.missing]
    count = len(planted.missing)
    nothing, unknown = [0] * count, [None] * count
    rows.add(
        [trace for trace, _, _ in planted.missing],
        [span_id for _, span_id, _ in planted.missing],
        [b""] * count,
        *(nothing, nothing, [_STEP] * count, starts, unknown),
        *(nothing, [int(Flag.PLACEHOLDER)] * count, nothing, nothing, nothing),
        *(unknown, unknown),
    )


class _Words(dict[int, int]):
    """Numbers of words and the indices that they get in the answer, each when it is first met."""

    def __init__(self, text_of: Callable[[int], str], none: Mapping[int, int] = {}) -> None:
        super().__init__(none)
        self._text_of = text_of
        self.texts: dict[str, int] = {}

    def __missing__(self, number: int) -> int:
        index = self[number] = self.texts.setdefault(self._text_of(number), len(self.texts))
        return index


def _written(
    session_id: str, rows: RowColumns, base: int, lines: Mapping[str, Sequence[int]], also: Mapping[str, Any]
) -> Iterator[bytes]:
    def text(number: int) -> str:
        return rows.words[number] or ""

    words = {
        "trace": _Words(lambda number: rows.traces[number].hex()),
        "name": _Words(text),
        "category": _Words(CATEGORIES.__getitem__),
        "service": _Words(text),
        "task": _Words(text, {0: -1}),
        "label": _Words(text, {0: -1}),
    }
    order = lines.get("order") or array("q", range(len(rows.span_id)))
    head = {"session": session_id, "base": str(base), "revision": rows.revision, "total": len(order), **also}
    yield json.dumps(head, separators=(",", ":"))[:-1].encode() + b',"columns":{'
    yield from _ids("id", rows.span_id, order)
    if lines:
        yield from _plain("parent", lines["parent"])
        yield from _plain("depth", lines["depth"])
    else:
        yield from _ids("parent_id", rows.parent_id, order)
    for name, known in words.items():
        column = getattr(rows, name)
        yield from _column(name, ([known[column[at]] for at in part] for part in _parts(order)))
    yield from _column("start", ([rows.start[at] - base for at in part] for part in _parts(order)))
    for name in ("duration", "status", "flags", "input_tokens", "output_tokens", "kind"):
        column = getattr(rows, name)
        yield from _column(name, ([column[at] for at in part] for part in _parts(order)))
    plurals = {_PLURALS[name]: list(known.texts) for name, known in words.items()}
    yield b"}" + _json(plurals).replace(b"{", b",", 1)


_PLURALS: Final = {
    "trace": "traces",
    "name": "names",
    "category": "categories",
    "service": "services",
    "task": "tasks",
    "label": "labels",
}


def _parts(order: Sequence[int]) -> Iterator[Sequence[int]]:
    for begin in range(0, len(order), _AT_ONCE):
        yield order[begin : begin + _AT_ONCE]


def _plain(name: str, column: Sequence[int]) -> Iterator[bytes]:
    yield from _column(name, (list(part) for part in _parts(column)))


def _column(name: str, parts: Iterable[list[Any]]) -> Iterator[bytes]:
    yield from _pieces(name, (_json(part)[1:-1] for part in parts))


def _ids(name: str, ids: Sequence[bytes], order: Sequence[int]) -> Iterator[bytes]:
    yield from _pieces(
        name,
        (b'"' + '","'.join([ids[at].hex() for at in part]).encode() + b'"' for part in _parts(order)),
    )


def _pieces(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield (b'"' if name in _FIRST else b',"') + name.encode() + b'":['
    for number, piece in enumerate(pieces):
        yield b"," + piece if number else piece
    yield b"]"


_FIRST: Final = frozenset({"id"})


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")
