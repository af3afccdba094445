"""The tree of a session: whatever the parent ids say, every span is shown once, under its parent."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from planting import Line, planted
from telemetry import BEGAN, OTHER_TRACE, TRACE, sid

from otel_sessions.backend.records import SpanRow


def row(
    number: int, parent: int = 0, start: int = 0, *, trace: bytes = TRACE, category: str = "step"
) -> SpanRow:
    """Make a row by number."""
    return SpanRow(
        trace, sid(number), sid(parent) if parent else b"", f"span {number}", 1, category, BEGAN + start,
        BEGAN + start + 1, 0, 0, "agent", None, None, None, None, None, None, 1,
    )  # fmt: skip


def drawn(lines: list[Line]) -> str:
    """Draw a tree: a dot for each level, the number of the span, "?" after a placeholder's."""
    return " ".join("." * line.depth + str(line.span_id[-1]) + ("" if line.row else "?") for line in lines)


_ids = st.integers(min_value=1, max_value=12)
_rows = st.lists(
    st.builds(
        row,
        _ids,
        st.integers(min_value=0, max_value=14),
        st.integers(min_value=0, max_value=5),
        trace=st.sampled_from([TRACE, OTHER_TRACE]),
        category=st.sampled_from(["step", "session", "task"]),
    ),
    max_size=30,
)


@given(_rows)
def test_every_span_is_shown_exactly_once_whatever_the_parent_ids(rows: list[SpanRow]) -> None:
    """Orphans, cycles, self-parents, repeated ids: the rows that come out are those that went in."""
    lines = planted(rows)
    shown = [line.row for line in lines if line.row]
    assert Counter(shown) == Counter(rows)


@given(_rows)
def test_each_row_follows_its_parent_one_level_deeper(rows: list[SpanRow]) -> None:
    """`parent` names an earlier line, one level up: the row's parent by id, or of a task without one its run."""
    lines = planted(rows)
    for index, line in enumerate(lines):
        if line.parent == -1:
            assert line.depth == 0
            continue
        parent = lines[line.parent]
        assert line.parent < index
        assert line.depth == parent.depth + 1
        assert line.row
        of = (parent.row or parent.child).trace_id  # type: ignore[union-attr]
        told = (of, parent.span_id) == (line.row.trace_id, line.row.parent_id)
        adopted = line.row.category == "task" and parent.row and parent.row.category == "session"
        assert told or (adopted and not line.row.parent_id)


@given(_rows.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_the_order_of_arrival_does_not_change_the_tree(both: tuple[list[SpanRow], list[SpanRow]]) -> None:
    """The same spans in any order give the same lines (spans that share an id are told apart by nothing)."""
    rows, shuffled = both
    if len({(one.trace_id, one.span_id) for one in rows}) == len(rows):
        assert planted(rows) == planted(shuffled)


def test_children_that_came_before_their_parents_lie_below_them() -> None:
    """Siblings stand in order of their start, then of their id."""
    rows = [row(5, 2, 3), row(4, 2, 3), row(3, 1, 9), row(2, 1, 1), row(1)]
    assert drawn(planted(rows)) == "1 .2 ..4 ..5 .3"


def test_a_missing_parent_becomes_a_placeholder_that_starts_with_its_first_child() -> None:
    """Its children stay together."""
    lines = planted([row(1), row(2, 9, 7), row(3, 9, 5)])
    assert drawn(lines) == "1 9? .3 .2"
    assert (lines[1].row, lines[1].child) == (None, row(3, 9, 5))


def test_a_cycle_is_cut_above_the_member_that_started_first() -> None:
    """Whoever hangs below the cycle stays below it, even if a wrong clock says that it came first."""
    assert drawn(planted([row(1, 3, 5), row(2, 1, 4), row(3, 2, 6), row(4, 2, 0)])) == "2 .4 .3 ..1"


def test_a_span_that_is_its_own_parent_is_a_top() -> None:
    """It is shown once, with its children."""
    assert drawn(planted([row(1, 1), row(2, 1)])) == "1 .2"


def test_the_same_span_id_in_two_traces_is_two_spans() -> None:
    """A parent is looked for in its own trace only; traces follow each other by their start."""
    lines = planted(
        [row(1, trace=OTHER_TRACE, start=5), row(2, 1, 6, trace=OTHER_TRACE), row(1), row(2, 1, 9)]
    )
    assert drawn(lines) == "1 .2 1 .2"
    assert [line.row and line.row.trace_id for line in lines] == [TRACE, TRACE, OTHER_TRACE, OTHER_TRACE]


def test_the_root_of_a_run_comes_first_in_its_trace() -> None:
    """Even where an orphan of the same trace seems to have started before it."""
    assert drawn(planted([row(1, start=5, category="session"), row(2, 9, 1), row(3, 1, 6)])) == "1 .3 9? .2"


def test_a_task_that_is_a_trace_of_its_own_stands_below_its_run() -> None:
    """With all below it, in order of time; other traces stay beside the session's."""
    rows = [
        row(1, category="session"),
        row(2, 1, 1),
        row(3, start=2, category="task", trace=OTHER_TRACE),
        row(4, 3, 3, trace=OTHER_TRACE),
        row(5, 1, 4),
        row(6, start=5, trace=OTHER_TRACE),
    ]
    assert drawn(planted(rows)) == "1 .2 .3 ..4 .5 6"


def test_of_several_runs_the_last_before_a_task_has_it() -> None:
    """A clock that is behind puts a task before any run: then the first has it."""
    rows = [
        row(1, start=5, category="session"),
        row(2, start=9, category="session", trace=OTHER_TRACE),
        *(row(number, start=number, category="task", trace=OTHER_TRACE) for number in (3, 7)),
        row(8, start=20, category="task", trace=OTHER_TRACE),
    ]
    assert drawn(planted(rows)) == "1 .3 .7 2 .8"


def test_a_task_without_a_run_is_a_top() -> None:
    """There is nothing that it could stand below."""
    assert drawn(planted([row(1), row(2, start=1, category="task")])) == "1 2"


def test_ten_thousand_levels_are_as_good_as_ten() -> None:
    """Nothing recurses."""
    lines = planted([SpanRow(TRACE, sid(n), sid(n - 1) if n > 1 else b"", "", 1, "step", n, n, 0, 0, "", None, None, None, None, None, None, 1) for n in range(10_000, 0, -1)])  # fmt: skip
    assert lines[-1].depth == 9_999
