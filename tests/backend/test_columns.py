"""The rows answer: what stands in the columns is what the rows say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from telemetry import BEGAN, TRACE, sid

from otel_sessions.backend import columns
from otel_sessions.backend.records import Flag, SpanRow

ROOT = SpanRow(TRACE, sid(1), b"", "session trip", 1, "session", BEGAN, None, 0, 1, "agent", None, None, None, None, None, None, 7)  # fmt: skip
CHAT = replace(ROOT, span_id=sid(2), parent_id=sid(1), name="chat m", kind=3, category="model", start=BEGAN + 5,
               end=BEGAN + 9, flags=64, task_id="t1", agent="planner", model="m", input_tokens=10, output_tokens=0,
               revision=9)  # fmt: skip
TOOL = replace(ROOT, span_id=sid(3), parent_id=sid(9), name="chat m", category="tool", start=BEGAN + 2,
               end=BEGAN + 3, status=2, tool="search", task_id="t1", revision=8)  # fmt: skip


def full(*rows: SpanRow) -> dict[str, Any]:
    """Return the whole answer, joined and read."""
    return json.loads(b"".join(columns.full("s1", columns.gathered(rows), {})))


def test_full_rows_come_in_tree_order_with_a_dictionary_for_what_repeats() -> None:
    """Offsets are from the earliest start; unknown is null, or -1 where a column holds indices."""
    answer = full(TOOL, CHAT, ROOT)
    assert answer == {
        "session": "s1",
        "base": str(BEGAN),
        "revision": 9,
        "total": 4,
        "traces": [TRACE.hex()],
        "names": ["session trip", "chat m", ""],
        "categories": ["session", "model", "step", "tool"],
        "services": ["agent", ""],
        "tasks": ["t1"],
        "labels": ["m", "search"],
        "columns": {
            "trace": [0, 0, 0, 0],
            "id": [sid(1).hex(), sid(2).hex(), sid(9).hex(), sid(3).hex()],
            "parent": [-1, 0, -1, 2],
            "depth": [0, 1, 0, 1],
            "name": [0, 1, 2, 1],
            "category": [0, 1, 2, 3],
            "service": [0, 0, 1, 0],
            "start": [0, 5, 2, 2],
            "duration": [None, 4, None, 1],
            "status": [0, 0, 0, 2],
            "flags": [1, 64, Flag.PLACEHOLDER, 1],
            "task": [-1, 0, -1, 0],
            "input_tokens": [None, 10, None, None],
            "output_tokens": [None, 0, None, None],
            "label": [-1, 0, -1, 1],
            "kind": [1, 3, 0, 1],
        },
    }


def test_a_delta_names_parents_by_id_and_invents_no_rows() -> None:
    """A reader merges it into what it has: no placeholder, no depth, a base of its own."""
    answer = json.loads(b"".join(columns.delta("s1", columns.gathered([CHAT, TOOL]))))
    assert answer["base"] == str(BEGAN + 2)
    assert answer["total"] == 2
    assert answer["columns"]["parent_id"] == [sid(9).hex(), sid(1).hex()]
    assert answer["columns"]["start"] == [0, 3]
    assert not {"parent", "depth"} & set(answer["columns"])


def test_no_rows_are_an_answer_too() -> None:
    """A session of logs alone has rows to show all the same: none."""
    answer = full()
    assert (answer["base"], answer["total"], answer["revision"]) == ("0", 0, 0)
    assert all(column == [] for column in answer["columns"].values())


def test_the_largest_session_is_written_in_small_pieces() -> None:
    """Whoever writes it runs beside an event loop, which waits for each piece."""
    rows = [
        replace(ROOT, span_id=sid(n), parent_id=sid(n // 9), name=f"step {n % 50}", start=BEGAN + n)
        for n in range(1, 30_000)
    ]
    pieces = list(columns.full("s1", columns.gathered(rows), {"event_id": "e-1"}))
    assert max(map(len, pieces)) < 128 * 1024
    answer = json.loads(b"".join(pieces))
    assert (answer["total"], answer["event_id"]) == (30_000, "e-1")  # the parent of the first is not there
    assert {len(column) for column in answer["columns"].values()} == {30_000}
