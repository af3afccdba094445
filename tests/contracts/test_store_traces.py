"""Spans by service and by trace, as Jaeger's API asks for them: the same over every store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_requests import SECOND, START, announced, announcing, log, run, span, span_id, trace_id, traces

from otel_sessions.backend.records import Flag, SpanRow
from otel_sessions.backend.store.base import SpanQuery, Store
from otel_sessions.lifecycle import Phase
from otel_sessions.lifecycle import Signal as Heard


def found(store: Store, service: str = "planner", **query: object) -> list[SpanRow]:
    """Return all spans of a search, page by page."""
    rows: list[SpanRow] = []
    after: str | None = None
    while True:
        page = store.find(SpanQuery(service, after=after, **query))  # pyright: ignore[reportArgumentType]
        rows.extend(page.rows)
        if (after := page.next) is None:
            return rows


def numbers(rows: list[SpanRow]) -> list[int]:
    """Return span ids as numbers."""
    return [int.from_bytes(row.span_id, "big") for row in rows]


def start_of_run(no: int = 1, session: str = "s-1", *, trace: int = 1) -> object:
    """Make the request that announces a run's root."""
    return announcing(
        log(session, trace=trace, of=no, name="session.start", otel_sessions__session__name="plan")
    )


# --- services and operations ----------------------------------------------------------------------------


def test_services_and_operations_are_those_of_ended_spans(store: Store) -> None:
    """Each once, sorted; an open span counts for nothing; "" stands for spans without a service."""
    assert list(store.services()) == []
    assert list(store.operations("planner")) == []
    store.append([traces(span(1, name="b"), span(2, name="b"), span(3, name="a"))])
    store.append([traces(span(4, name="c"), service="booker"), traces(span(5, name="x"), service="")])
    store.append([announcing(announced(6, name="open")), start_of_run(7)])
    assert list(store.services()) == ["", "booker", "planner"]
    assert list(store.operations("planner")) == [("a", 1), ("b", 1)]
    assert list(store.operations("")) == [("x", 1)]
    assert list(store.operations("nobody")) == []


def test_operations_are_told_apart_by_kind(store: Store) -> None:
    """One name with two kinds is two operations."""
    client = span(1, name="call")
    client.kind = client.SPAN_KIND_CLIENT
    store.append([traces(client, span(2, name="call"))])
    assert list(store.operations("planner")) == [("call", 1), ("call", 3)]
    assert numbers(found(store, name="call")) == [2, 1] or numbers(found(store, name="call")) == [1, 2]


# --- find -----------------------------------------------------------------------------------------------


def test_spans_are_found_newest_first_by_every_condition(store: Store) -> None:
    """Service, name, start and duration; both ends of a stretch of time belong to it."""
    store.append([traces(*(span(no, name=f"n{no % 2}", at=no, lasting=no) for no in range(1, 6)))])
    store.append([traces(span(9, at=3), service="booker")])
    assert numbers(found(store)) == [5, 4, 3, 2, 1]
    assert numbers(found(store, "booker")) == [9]
    assert numbers(found(store, "nobody")) == []
    assert numbers(found(store, name="n1")) == [5, 3, 1]
    assert numbers(found(store, name="nothing")) == []
    assert numbers(found(store, since=START + 2 * SECOND, until=START + 4 * SECOND)) == [4, 3, 2]
    assert numbers(found(store, shortest=2 * SECOND, longest=4 * SECOND)) == [4, 3, 2]
    assert numbers(found(store, name="n1", since=START + 2 * SECOND, shortest=4 * SECOND)) == [5]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    starts=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    visit=st.integers(1, 5),
    name=st.sampled_from([None, "n0", "n1"]),
)
def test_pages_find_every_span_once(
    open_store: object,
    tmp_path_factory: pytest.TempPathFactory,
    starts: list[int],
    visit: int,
    name: str | None,
) -> None:
    """However many rows a page looks at, also among equal starts."""
    store = open_store(tmp_path_factory.mktemp("data"))
    store.append([traces(*(span(no, name=f"n{no % 2}", at=at) for no, at in enumerate(starts, 1)))])
    rows = found(store, name=name, visit=visit)
    wanted = {no for no in range(1, len(starts) + 1) if name in (None, f"n{no % 2}")}
    assert sorted(numbers(rows)) == sorted(wanted)
    assert [row.start for row in rows] == sorted((row.start for row in rows), reverse=True)


def test_a_page_looks_at_a_bounded_number_of_rows(store: Store) -> None:
    """What does not match costs a page too, and an empty page leads on."""
    store.append([traces(*(span(no, at=no, lasting=no) for no in range(1, 8)))])
    page = store.find(SpanQuery("planner", longest=SECOND, visit=3))
    assert page.rows == ()
    assert page.next is not None
    assert numbers(found(store, longest=SECOND, visit=3)) == [1]


@pytest.mark.parametrize("cursor", ["x", "1", "1.x", "-1.2", "1.99999999999999999999", ""])
def test_an_unknown_cursor_is_refused(store: Store, cursor: str) -> None:
    """It says so, and does not begin anew."""
    with pytest.raises(ValueError, match="cursor"):
        store.find(SpanQuery("planner", after=cursor))


# --- traces ---------------------------------------------------------------------------------------------


def test_a_trace_is_all_its_ended_spans_whatever_their_session(store: Store) -> None:
    """By start, each in full with its resource and scope."""
    store.append([traces(span(2, "s-2", at=2), span(3, "s-1", trace=2))])
    store.append([traces(span(1, "s-1", at=1), service="booker", scope="other")])
    store.append([announcing(announced(4))])
    rows = store.trace(trace_id(1))
    assert numbers(list(rows)) == [1, 2]
    full = {one.row.span_id: one for one in store.full(rows)}
    assert {no: one.span.span_id for no, one in full.items()} == {span_id(no): span_id(no) for no in (1, 2)}
    assert [full[span_id(no)].scope.name for no in (1, 2)] == ["other", "tests"]
    assert full[span_id(1)].resource.attributes[0].value.string_value == "booker"
    assert list(store.trace(trace_id(9))) == []
    assert list(store.full([replace(rows[0], span_id=span_id(99))])) == []


def test_a_better_copy_takes_the_place_of_a_span_that_is_being_read(store: Store) -> None:
    """Rows may be older than what they lead to; nothing is skipped."""
    store.append([traces(span(1, lasting=1)), traces(span(2, at=9))])
    rows = store.trace(trace_id(1))
    store.append([traces(span(1, lasting=5, note="better"))])
    ends = {one.row.span_id: one.span.end_time_unix_nano for one in store.full(rows)}
    assert ends == {span_id(1): START + 5 * SECOND, span_id(2): START + 10 * SECOND}


# --- lost runs ------------------------------------------------------------------------------------------


def lost(no: int = 1, session: str = "s-1", *, trace: int = 1, heard: int = 7) -> object:
    """Make the record of a lost run that was last heard after so many seconds."""
    record = run(session, no, heard=Heard.LOST, last_heard_at=START + heard * SECOND)
    return replace(record, trace_id=trace_id(trace))


def test_the_root_of_a_lost_run_is_a_span_that_ends_with_the_last_sign_of_life(store: Store) -> None:
    """It is found, listed and in its trace, marked as made up, with its announcement in full."""
    store.append([start_of_run(), traces(span(2, parent=1, at=1))], runs=[lost()])
    (root,) = found(store, name="session plan")
    assert root.flags & Flag.SYNTHETIC
    assert not root.flags & Flag.OPEN
    assert (root.start, root.end) == (START, START + 7 * SECOND)
    assert list(store.operations("planner")) == [("session plan", 1), ("step", 1)]
    assert numbers(list(store.trace(trace_id(1)))) == [1, 2]
    (full,) = store.full([root])
    assert full.span is None
    assert [event.event_name for event in full.events] == ["session.start"]
    assert full.resource.attributes[0].value.string_value == "planner"
    assert found(store, name="session plan", longest=6 * SECOND) == []


def test_only_the_root_of_a_lost_run_is_made_up(store: Store) -> None:
    """Not while the run is alive or stale, not for what else was open, not for a child process."""
    others = [announcing(announced(5, parent=1, name="open"))]
    for heard in (Heard.LIVE, Heard.STALE):
        store.append([start_of_run(), *others], runs=[replace(lost(), run=run(heard=heard).run)])
        assert list(store.trace(trace_id(1))) == []
        assert list(store.services()) == []
    child = replace(lost(), child=True, process="child")
    store.append([], runs=[child])
    assert list(store.trace(trace_id(1))) == []
    store.append([], runs=[lost()])
    assert numbers(list(store.trace(trace_id(1)))) == [1]
    ended = run(phase=Phase.ENDED, ended_at=9)
    store.append([], runs=[replace(ended, trace_id=trace_id(1))])
    assert list(store.trace(trace_id(1))) == []


def test_a_real_root_takes_the_place_of_a_made_up_one(store: Store) -> None:
    """Whatever the run is thought to be."""
    store.append([start_of_run()], runs=[lost()])
    store.append([traces(span(1, lasting=2, name="session plan", otel_sessions__session__name="plan"))])
    (root,) = store.trace(trace_id(1))
    assert not root.flags & Flag.SYNTHETIC
    assert root.end == START + 2 * SECOND


# --- calls ----------------------------------------------------------------------------------------------


def test_calls_between_services_are_counted(store: Store) -> None:
    """Parent and child of different services, whose child started in between."""
    store.append([traces(span(1), span(2, trace=2), span(7, parent=1))])
    children = [span(3, parent=1, at=1), span(4, parent=1, at=2), span(5, trace=2, parent=2, at=9)]
    store.append([traces(*children, span(6, parent=99, at=1), service="booker")])
    calls = store.calls(START, START + 5 * SECOND)
    assert calls.counts == {("planner", "booker"): 2}
    assert calls.complete
    assert store.calls(START, START + 20 * SECOND).counts == {("planner", "booker"): 3}
    assert store.calls(START + 2 * SECOND, START + 9 * SECOND).counts == {}
