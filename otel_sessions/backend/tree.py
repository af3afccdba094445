"""Spans into a tree, flattened: every span exactly once, whatever the parent ids say; pure.

Telemetry tears: parents are lost, late, themselves, each other's children. So the tree is made of what is
there: a parent that is named and missing becomes a placeholder, and a cycle is cut at the member that
started first. No recursion: ten thousand spans deep is as good as ten. Spans come by columns and are spoken
of by their places, so that two hundred thousand of them need no object each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["Planted", "Seeds", "plant"]

_NO_PARENT: Final = -1


class Seeds(NamedTuple):
    """What the tree needs to know of spans, by columns; in order of start, span id, trace id."""

    traces: Sequence[bytes]  # by number
    trace: Sequence[int]  # number of the trace
    span_id: Sequence[bytes]
    parent_id: Sequence[bytes]  # b"" for none
    start: Sequence[int]
    runs: Sequence[int]  # places of the roots of runs
    tasks: Sequence[int]  # places of the spans of tasks


class Planted(NamedTuple):
    """A tree, line by line: which span it is, how deep it lies, and in which line its parent is (-1: none).

    A place beyond the last span is a placeholder's, in the order of `missing`: number of the trace, the
    span id that its children name, and the place of the earliest of them.
    """

    order: Sequence[int]
    depth: Sequence[int]
    parent: Sequence[int]
    missing: Sequence[tuple[int, bytes, int]]


def plant(spans: Seeds) -> Planted:
    """Order spans so that each follows its parent, siblings by start, then id.

    A task that is a trace of its own stands below the run that it belongs to. Other traces of a session
    follow each other by their earliest start. Of the tops of one trace, the root of
    a run comes first. A missing parent starts with the earliest of its children.
    """
    parents, missing = _parents(spans)
    _put_tasks_below_runs(parents, spans)
    _cut_cycles(parents)
    return _flatten(parents, _tops(parents, spans, missing), missing)


def _parents(spans: Seeds) -> tuple[array[int], list[tuple[int, bytes, int]]]:
    """Return the place of each span's parent, and the parents that are missing, which are placed behind."""
    count = len(spans.span_id)
    # One bytes object a key, for the collector of cycles would look through as many tuples again and again.
    where: dict[bytes, int] = {}
    for place, key in enumerate(_keys(spans.trace, spans.span_id)):
        where.setdefault(key, place)
    parents = array("q", [_NO_PARENT]) * count
    missing: list[tuple[int, bytes, int]] = []
    for place, key in enumerate(_keys(spans.trace, spans.parent_id)):
        parent_id = spans.parent_id[place]
        if not parent_id:
            continue
        parent = where.get(key)
        if parent is None:  # spans are in order of age, so this is the first of its children
            parent = where[key] = count + len(missing)
            missing.append((spans.trace[place], parent_id, place))
        parents[place] = parent
    parents.extend([_NO_PARENT] * len(missing))
    return parents, missing


def _keys(traces: Sequence[int], ids: Sequence[bytes]) -> Iterator[bytes]:
    for trace, span_id in zip(traces, ids, strict=True):
        yield trace.to_bytes(8, "big") + span_id


def _put_tasks_below_runs(parents: array[int], spans: Seeds) -> None:
    """Put each task without a parent below the run that began last before it, else below the first.

    Not by its link, which an announced span does not tell: a live session would be drawn anew at each end.
    """
    if not spans.runs:
        return
    later = iter(spans.runs[1:])
    run, upcoming = spans.runs[0], next(later, None)
    for task in spans.tasks:
        while upcoming is not None and upcoming < task:
            run, upcoming = upcoming, next(later, None)
        if parents[task] == _NO_PARENT:
            parents[task] = run


def _cut_cycles(parents: array[int]) -> None:
    """Cut each cycle above its member that started first, which is the one of the least place."""
    walk_of = array("q", [0]) * len(parents)  # which walk has been here; 0: none
    for start in range(len(parents)):
        at = start
        while at != _NO_PARENT and not walk_of[at]:
            walk_of[at] = start + 1
            at = parents[at]
        if at != _NO_PARENT and walk_of[at] == start + 1:
            parents[min(_cycle(parents, at))] = _NO_PARENT


def _cycle(parents: Sequence[int], member: int) -> list[int]:
    members = [member]
    while (at := parents[members[-1]]) != member:
        members.append(at)
    return members


def _tops(parents: Sequence[int], spans: Seeds, missing: Sequence[tuple[int, bytes, int]]) -> list[int]:
    """Order the tops: traces by their earliest start, within a trace a run's root before all others."""
    count, runs = len(spans.span_id), set(spans.runs)
    began: dict[int, int] = {}
    tops: list[tuple[int, bool, int, bytes, int]] = []
    for place in range(len(parents)):
        if parents[place] != _NO_PARENT:
            continue
        if place < count:
            trace, span_id, start = spans.trace[place], spans.span_id[place], spans.start[place]
        else:
            trace, span_id, child = missing[place - count]
            start = spans.start[child]
        began[trace] = min(start, began.get(trace, start))
        tops.append((trace, place not in runs, start, span_id, place))
    return [place for *_, place in sorted((began[top[0]], spans.traces[top[0]], *top[1:]) for top in tops)]


def _flatten(
    parents: Sequence[int], tops: Sequence[int], missing: Sequence[tuple[int, bytes, int]]
) -> Planted:
    first = array("q", [_NO_PARENT]) * len(parents)  # child of each
    following = array("q", [_NO_PARENT]) * len(parents)  # sibling of each
    for place in range(len(parents) - 1, -1, -1):  # youngest first, each before those that came so far
        parent = parents[place]
        if parent != _NO_PARENT:
            following[place], first[parent] = first[parent], place
    order, depths, above = array("q"), array("q"), array("q")
    line_of = array("q", [_NO_PARENT]) * len(parents)
    for top in tops:
        at, depth, parent_line = top, 0, _NO_PARENT
        while True:
            line_of[at] = len(order)
            order.append(at)
            depths.append(depth)
            above.append(parent_line)
            if first[at] != _NO_PARENT:
                at, depth, parent_line = first[at], depth + 1, line_of[at]
                continue
            while at != top and following[at] == _NO_PARENT:
                at, depth = parents[at], depth - 1
            if at == top:
                break
            at = following[at]
            parent_line = line_of[parents[at]]
    return Planted(order, depths, above, missing)
