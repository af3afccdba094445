"""Rows of a session as columns, the form in which the page takes a hundred thousand of them; pure.

Texts that repeat (names, services, models) stand once in a dictionary and as an index in their column;
times are offsets in ns from a base, so that they stay exact in a JavaScript number. What is unknown is
None, or -1 in a column of indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from otel_sessions.backend.records import SpanRow
from otel_sessions.backend.tree import tree

__all__ = ["delta", "full"]

_LABELLED: Final = {"model": "model", "embedding": "model", "tool": "tool", "agent": "agent"}


class _Words(dict[Any, int]):
    """A dictionary in the making: each text gets the next index when it is first asked for."""

    def __missing__(self, word: Any) -> int:
        self[word] = len(self)
        return self[word]


def full(session_id: str, rows: Sequence[SpanRow]) -> dict[str, Any]:
    """Return all rows of a session in tree order: the answer of `sessions/{id}/rows`, without its event id.

    `parent` holds indices of rows, `depth` their depth; a missing parent is a placeholder row.
    """
    lines = tree(rows)
    answer = _answer(session_id, [line.row for line in lines])
    answer["columns"] |= {"parent": [line.parent for line in lines], "depth": [line.depth for line in lines]}
    return answer


def delta(session_id: str, rows: Sequence[SpanRow]) -> dict[str, Any]:
    """Return some rows of a session, in no order: what changed since a revision.

    `parent_id` holds hex ids ("" for none); there are no placeholders, and the base may be another one.
    """
    answer = _answer(session_id, rows)
    answer["columns"]["parent_id"] = [row.parent_id.hex() for row in rows]
    return answer


def _answer(session_id: str, rows: Sequence[SpanRow]) -> dict[str, Any]:
    traces, names, categories, services, tasks, labels = (_Words() for _ in range(6))
    base = min((row.start for row in rows), default=0)
    columns = {
        "trace": [traces[row.trace_id] for row in rows],
        "id": [row.span_id.hex() for row in rows],
        "name": [names[row.name] for row in rows],
        "category": [categories[row.category] for row in rows],
        "service": [services[row.service] for row in rows],
        "start": [row.start - base for row in rows],
        "duration": [None if row.end is None else row.end - row.start for row in rows],
        "status": [row.status for row in rows],
        "flags": [row.flags for row in rows],
        "task": _indices(tasks, (row.task_id for row in rows)),
        "input_tokens": [row.input_tokens for row in rows],
        "output_tokens": [row.output_tokens for row in rows],
        "label": _indices(labels, map(_label, rows)),
        "kind": [row.kind for row in rows],
    }
    return {
        "session": session_id,
        "base": str(base),
        "revision": max((row.revision for row in rows), default=0),
        "total": len(rows),
        "traces": [trace_id.hex() for trace_id in traces],
        "names": list(names),
        "categories": list(categories),
        "services": list(services),
        "tasks": list(tasks),
        "labels": list(labels),
        "columns": columns,
    }


def _indices(words: _Words, texts: Iterable[str | None]) -> list[int]:
    return [-1 if text is None else words[text] for text in texts]


def _label(row: SpanRow) -> str | None:
    """Return the model, tool or agent that a row is about, as its category says."""
    field = _LABELLED.get(row.category)
    return None if field is None else getattr(row, field)
