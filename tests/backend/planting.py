"""The tree of spans as a page draws it, for tests: the lines of `tree.plant`, each with its span."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otel_sessions.backend.records import SpanRow
from otel_sessions.backend.tree import Seeds, plant

__all__ = ["Line", "planted"]


class Line(NamedTuple):
    """One line: a span, or the id of one that is missing and its earliest child; its depth, its parent's line."""

    span_id: bytes
    row: SpanRow | None
    child: SpanRow | None
    depth: int
    parent: int


def planted(rows: Sequence[SpanRow]) -> list[Line]:
    """Plant rows in any order."""
    nodes = sorted(rows, key=lambda node: (node.start, node.span_id, node.trace_id))
    numbers: dict[bytes, int] = {}
    trace = [numbers.setdefault(node.trace_id, len(numbers)) for node in nodes]
    found = plant(
        Seeds(
            list(numbers),
            trace,
            [node.span_id for node in nodes],
            [node.parent_id for node in nodes],
            [node.start for node in nodes],
            [place for place, node in enumerate(nodes) if node.category == "session"],
            [place for place, node in enumerate(nodes) if node.category == "task"],
        )
    )
    spans: list[tuple[bytes, SpanRow | None, SpanRow | None]] = [
        *((node.span_id, node, None) for node in nodes),
        *((span_id, None, nodes[child]) for _, span_id, child in found.missing),
    ]
    lines = zip(found.order, found.depth, found.parent, strict=True)
    return [Line(*spans[place], depth, parent) for place, depth, parent in lines]
