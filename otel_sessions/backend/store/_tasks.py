"""Tasks of a session, folded from the index rows of the spans that bear their ids; pure.

A row is read and let go: a session may have two hundred thousand that bear the id of a task, and few tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from otel_sessions.backend.records import CATEGORIES, TaskRecord

__all__ = ["TASK_COLUMNS", "Folded", "folded", "task_record"]

TASK_COLUMNS: Final = (
    "task, task_name, task_parent, task_state, category, start, start + duration, trace_id, span_id"
)
_TASK: Final = CATEGORIES.index("task")


@dataclass(slots=True)
class Folded:
    """One task while its rows go by, in the order of their starts; words are numbers."""

    id: int
    first: Sequence[Any]
    own: Sequence[Any] | None = None  # the task's own span, the last of them
    spans: int = 0
    end: int | None = 0  # of the span that ended last; None where one is open
    name: int | None = None  # the first that is told
    parent: int | None = None

    def add(self, row: Sequence[Any]) -> None:
        """Add one row of TASK_COLUMNS."""
        _, name, parent, _, category, _, end, _, _ = row
        self.spans += 1
        self.end = None if self.end is None or end is None else max(self.end, end)
        self.name = name if self.name is None else self.name
        self.parent = parent if self.parent is None else self.parent
        if category == _TASK:
            self.own = row

    def numbers(self) -> Iterator[int | None]:
        """Return the numbers of all its words."""
        yield from (self.id, self.name, self.parent)
        if self.own is not None:
            yield from self.own[1:4]


def folded(rows: Iterable[Sequence[Any]]) -> list[Folded]:
    """Fold rows of TASK_COLUMNS, in the order of their starts, into their tasks, in the order of theirs."""
    tasks: dict[int, Folded] = {}
    for row in rows:
        task = tasks.get(row[0])
        if task is None:
            task = tasks[row[0]] = Folded(row[0], row)
        task.add(row)
    return list(tasks.values())


def task_record(task: Folded, words: Mapping[int | None, str | None]) -> TaskRecord:
    """Return a task: its own span knows best, the spans inside it tell where there is none."""
    own = task.own
    name = task.name if own is None or own[1] is None else own[1]
    parent = task.parent if own is None or own[2] is None else own[2]
    return TaskRecord(
        id=words[task.id] or "",
        name=words[name],
        parent_id=words[parent],
        state=None if own is None else words[own[3]],
        started_at=task.first[5] if own is None else own[5],
        ended_at=task.end if own is None else own[6],
        spans=task.spans,
        trace_id=(own or task.first)[7],
        span_id=None if own is None else own[8],
    )
