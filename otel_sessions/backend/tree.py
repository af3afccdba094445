"""Spans into a tree, flattened: every span exactly once, whatever the parent ids say; pure.

Telemetry tears: parents are lost, late, themselves, each other's children. So the tree is made of what is
there: a parent that is named and missing becomes a placeholder, and a cycle is cut at the member that
started first. No recursion: ten thousand spans deep is as good as ten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from otel_sessions.backend.records import Flag, SpanRow

__all__ = ["TreeRow", "tree"]

_NO_PARENT: Final = -1


class TreeRow(NamedTuple):
    """One line of the tree: a span, how deep it lies, and where in the list its parent is (-1: none)."""

    row: SpanRow
    depth: int
    parent: int


def tree(rows: Sequence[SpanRow]) -> list[TreeRow]:
    """Order spans so that each follows its parent, siblings by start, then id.

    A task that is a trace of its own stands below the run that it belongs to. Other traces of a session
    follow each other by their earliest start. Of the tops of one trace, the root of
    a run comes first. A missing parent becomes a row of its own (Flag.PLACEHOLDER) that starts with the
    earliest of its children.
    """
    nodes = sorted(rows, key=_age)
    parents = _parents(nodes)
    nodes, parents = _with_placeholders(nodes, parents)
    parents = _without_cycles(_with_tasks_below_runs(nodes, parents))
    tops = [index for index, parent in enumerate(parents) if parent == _NO_PARENT]
    return _flatten(nodes, parents, _ordered(nodes, tops))


_age: Final = attrgetter("start", "span_id", "trace_id")


_Key = tuple[bytes, bytes]


def _parents(nodes: Sequence[SpanRow]) -> list[int | _Key]:
    """Return for each span the index of its parent; the parent's key where it is missing."""
    where: dict[_Key, int] = {}
    for index, node in enumerate(nodes):
        where.setdefault((node.trace_id, node.span_id), index)
    parents: list[int | _Key] = []
    for node in nodes:
        key = node.trace_id, node.parent_id
        parents.append(where.get(key, key) if node.parent_id else _NO_PARENT)
    return parents


def _with_placeholders(
    nodes: list[SpanRow], parents: Sequence[int | _Key]
) -> tuple[list[SpanRow], list[int]]:
    """Add a row for each missing parent; spans are sorted by age, so its first child is its earliest."""
    missing: dict[_Key, int] = {}
    found: list[int] = []
    added: list[SpanRow] = []
    for node, parent in zip(nodes, parents, strict=True):
        if not isinstance(parent, int):
            if parent not in missing:
                missing[parent] = len(nodes) + len(added)
                added.append(_placeholder(parent, node))
            parent = missing[parent]  # noqa: PLW2901 - the same parent, by its index
        found.append(parent)
    return nodes + added, found + [_NO_PARENT] * len(added)


def _placeholder(key: _Key, child: SpanRow) -> SpanRow:
    return SpanRow(
        trace_id=key[0],
        span_id=key[1],
        parent_id=b"",
        name="",
        kind=0,
        category="step",
        start=child.start,
        end=None,
        status=0,
        flags=int(Flag.PLACEHOLDER),
        service="",
        task_id=None,
        agent=None,
        model=None,
        tool=None,
        input_tokens=None,
        output_tokens=None,
        revision=0,
    )


def _with_tasks_below_runs(nodes: Sequence[SpanRow], parents: Sequence[int]) -> list[int]:
    """Put each task without a parent below the run that began last before it, else below the first.

    Not by its link, which an announced span does not tell: a live session would be drawn anew at each end.
    """
    runs = [index for index, node in enumerate(nodes) if node.category == "session"]
    found = list(parents)
    run = runs[0] if runs else _NO_PARENT
    for index, node in enumerate(nodes):
        if node.category == "session":
            run = index
        elif node.category == "task" and found[index] == _NO_PARENT:
            found[index] = run
    return found


def _without_cycles(parents: Sequence[int]) -> list[int]:
    """Cut each cycle above its member that started first, which is the one of the least index."""
    cut = list(parents)
    walk_of = [0] * len(parents)  # which walk has been here; 0: none
    for start in range(len(parents)):
        at = start
        while at != _NO_PARENT and not walk_of[at]:
            walk_of[at] = start + 1
            at = cut[at]
        if at != _NO_PARENT and walk_of[at] == start + 1:
            cut[min(_cycle(cut, at))] = _NO_PARENT
    return cut


def _cycle(parents: Sequence[int], member: int) -> list[int]:
    members = [member]
    while (at := parents[members[-1]]) != member:
        members.append(at)
    return members


def _ordered(nodes: Sequence[SpanRow], tops: Sequence[int]) -> list[int]:
    """Order the tops: traces by their earliest start, within a trace a run's root before all others."""
    began: dict[bytes, int] = {}
    for top in tops:
        node = nodes[top]
        began[node.trace_id] = min(node.start, began.get(node.trace_id, node.start))

    def place(top: int) -> tuple[int, bytes, bool, int, bytes]:
        node = nodes[top]
        return began[node.trace_id], node.trace_id, node.category != "session", node.start, node.span_id

    return sorted(tops, key=place)


def _flatten(nodes: Sequence[SpanRow], parents: Sequence[int], tops: Sequence[int]) -> list[TreeRow]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(nodes) - 1, -1, -1):  # youngest first, as a stack wants them
        children[parents[index]].append(index)
    flat: list[TreeRow] = []
    place = [_NO_PARENT] * (len(nodes) + 1)  # where a node stands in the list; the last one stands for none
    depth = [0] * len(nodes) + [-1]
    waiting = list(reversed(tops))
    while waiting:
        index = waiting.pop()
        parent = parents[index]
        place[index] = len(flat)
        depth[index] = depth[parent] + 1
        flat.append(TreeRow(nodes[index], depth[index], place[parent]))
        if index in children:
            waiting += children[index]
    return flat
