"""Tasks of a session, folded from the index rows of the spans that bear their ids; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from otel_sessions.backend.records import CATEGORIES, TaskRecord

__all__ = ["TASK_COLUMNS", "tasks_of"]

TASK_COLUMNS: Final = (
    "task, task_name, task_parent, task_state, category, start, start + duration, trace_id, span_id"
)
_TASK: Final = CATEGORIES.index("task")


def tasks_of(rows: Sequence[Sequence[Any]], words: Mapping[int | None, str | None]) -> tuple[TaskRecord, ...]:
    """Return the tasks of rows of TASK_COLUMNS, which are in the order of their starts."""
    by_task: dict[int, list[Sequence[Any]]] = {}
    for row in rows:
        by_task.setdefault(row[0], []).append(row)
    return tuple(_task(words[task] or "", rows, words) for task, rows in by_task.items())


def _task(task_id: str, rows: list[Sequence[Any]], words: Mapping[int | None, str | None]) -> TaskRecord:
    """Fold one task: its own span knows best, the spans inside it tell where there is none."""
    own = next((row for row in reversed(rows) if row[4] == _TASK), None)
    ends = [row[6] for row in rows]
    end = own[6] if own is not None else None if None in ends else max(ends)
    return TaskRecord(
        id=task_id,
        name=_first(rows, 1, own, words),
        parent_id=_first(rows, 2, own, words),
        state=None if own is None else words[own[3]],
        started_at=rows[0][5] if own is None else own[5],
        ended_at=end,
        spans=len(rows),
        trace_id=(own or rows[0])[7],
        span_id=None if own is None else own[8],
    )


def _first(
    rows: list[Sequence[Any]], column: int, own: Sequence[Any] | None, words: Mapping[int | None, str | None]
) -> str | None:
    told = own[column] if own is not None and own[column] is not None else None
    return words[
        told if told is not None else next((row[column] for row in rows if row[column] is not None), None)
    ]
