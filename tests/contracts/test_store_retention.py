"""What retention removes is gone whole; what stays is counted as if the rest had never been."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_oracle import reckon
from store_recount import assert_counted_right
from store_requests import chat, gauge, log, logs, rows_of, run, span, timeline, traces
from test_store_order import arrivals, as_rows, differences, gauges, shown

from otel_sessions.backend.records import Gauge, Request, RunRecord
from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.retention import KEEP_ALL, Retention
from otel_sessions.backend.store import _removal, _unused
from otel_sessions.backend.store.base import Pruned, SessionQuery, SpanQuery, Store
from otel_sessions.lifecycle import Phase, Signal

Opener = Callable[[Path], Store]
ALL = Retention(age=1)
LATER = 2**62  # by then every session without a run is idle
S1, S2 = (session_id(global_key(name)) for name in ("s-1", "s-2"))


def prune(store: Store, retention: Retention = ALL, now: int = LATER) -> list[Pruned]:
    """Remove until there is no more; return the steps."""
    steps = [store.prune(retention, now, LATER)]
    while steps[-1].more:
        steps.append(store.prune(retention, now, LATER))
    return steps


def ids(store: Store) -> set[str]:
    """Return the ids of the sessions in the list."""
    return {session.id for session in store.sessions(SessionQuery(limit=1000)).sessions}


@st.composite
def intertwined(draw: st.DrawFn) -> list[list[Request]]:
    """Draw one trace of three sessions whose spans are each other's parents, a request for each span."""
    calls = st.tuples(
        st.sampled_from(("one", "two", "three")), st.integers(1, 5), st.integers(0, 5), st.booleans()
    )
    drawn = draw(st.lists(calls, min_size=3, max_size=8))
    sent = [
        traces(chat(no, session, 7 if knows else None, parent=0 if parent == no else parent, lasting=lasting))
        for lasting, (session, no, parent, knows) in enumerate(drawn, 1)
    ]
    return [[replace(request, received_at=at)] for at, request in enumerate(sent, 1)]


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    batches=arrivals() | intertwined(),
    counted=st.just([]) | gauges,
    cutoffs=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    rows=st.sampled_from((1, 3, 500)),
)
def test_counts_equal_a_recount_whatever_is_removed_between_what_arrives(
    open_store: Opener, batches: list[list[Request]], counted: list[Gauge], cutoffs: list[int], rows: int
) -> None:
    """Traces of several sessions, chunks of several, calls told twice, and removals that are half done."""
    with TemporaryDirectory() as folder, mock.patch.object(_removal, "ROWS", rows):
        store = open_store(Path(folder))
        for no, batch in enumerate(batches):
            store.append(batch, gauges=counted)
            store.prune(ALL, cutoffs[no % len(cutoffs)] + 1, LATER)
        prune(store, ALL, cutoffs[-1] + 1)
        store.close()
        assert_counted_right(Path(folder))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    batches=arrivals(),
    cutoffs=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    steps=st.integers(0, 6),
)
def test_only_words_that_nobody_uses_go(
    open_store: Opener, batches: list[list[Request]], cutoffs: list[int], steps: int
) -> None:
    """They are looked for while more arrives; every row of what stays can still be read."""
    sent = [request for batch in batches for request in batch]
    with TemporaryDirectory() as folder, mock.patch.multiple(_unused, _LOOKED_AT=1, _DELETED=1, _WORTH=10**6):
        store = open_store(Path(folder))
        for no, batch in enumerate(batches):
            store.append(batch)
            for _ in range(steps):
                store.prune(ALL, cutoffs[no % len(cutoffs)] + 1, LATER)
        store.append(sent)
        prune(store, ALL, 1)
        seen = shown(store)
        found = differences(seen, as_rows(reckon(sent)))
        store.close()
        assert_counted_right(Path(folder))
        with closing(sqlite3.connect(Path(folder) / "sessions.db")) as conn:
            words = {word for (word,) in conn.execute("SELECT text FROM names")}
    assert found == {}
    assert {row.name for session in seen.values() for row in session["rows"]} <= words


def test_the_words_and_ids_of_removed_sessions_go_with_them(open_store: Opener, tmp_path: Path) -> None:
    """Titles, users and names are content too; what others use stays."""
    store = open_store(tmp_path)
    private = {"user__id": "ann@example.org", "otel_sessions__session__title": "my divorce"}
    store.append(
        [traces(span(1, "s-1", name="shared")), traces(span(2, "s-2", trace=2, name="shared", **private))]
    )
    store.append([], [run("s-1")])  # it may still live
    prune(store, Retention(age=1))
    assert ids(store) == {S1}
    store.close()
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as conn:
        words = {word for (word,) in conn.execute("SELECT text FROM names")}
        known = {value for (value,) in conn.execute("SELECT value FROM global_ids")}
    assert {"shared"} <= words
    assert not {"ann@example.org", "my divorce"} & words
    assert "s-2" not in known
    again = open_store(tmp_path)
    (row,) = rows_of(again, S1)
    assert row.name == "shared"


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    batches=arrivals() | intertwined(),
    counted=st.just([]) | gauges,
    cutoffs=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    rows=st.sampled_from((1, 500)),
)
def test_what_comes_back_after_its_removal_is_new_and_counted_right(
    open_store: Opener, batches: list[list[Request]], counted: list[Gauge], cutoffs: list[int], rows: int
) -> None:
    """Some is removed, or begun to be, and all is sent once more: as if nothing had ever been there."""
    sent = [request for batch in batches for request in batch]
    with TemporaryDirectory() as folder, mock.patch.object(_removal, "ROWS", rows):
        store = open_store(Path(folder))
        for batch in batches:
            store.append(batch, gauges=counted)
        for cutoff in cutoffs:
            store.prune(ALL, cutoff + 1, LATER)
        store.append(sent, gauges=counted)
        prune(store, KEEP_ALL)
        found = differences(shown(store), as_rows(reckon(sent, counted)))
        store.close()
    assert found == {}


def test_what_arrives_for_a_half_removed_session_begins_a_whole_one(store: Store) -> None:
    """The rest goes first: a copy of a span or log that is about to go would be lost with it."""
    sent = [traces(span(1), span(2)), logs(log(at=1), log(at=2))]
    store.append(sent)
    with mock.patch.object(_removal, "ROWS", 1):
        assert store.prune(ALL, LATER, LATER).changes.gone == (S1,)
        assert store.totals().spans == 1  # removed, and not all of its rows are
        assert ids(store) == set()
        store.append(sent)
        prune(store, KEEP_ALL)
    assert [session.spans for session in store.sessions(SessionQuery()).sessions] == [2]
    assert len(list(store.logs(S1))) == 2
    assert (store.totals().spans, store.totals().logs) == (2, 2)


def test_everything_can_go(store: Store) -> None:
    """Then there is nothing, and no space is taken by it."""
    store.append([traces(span(1), chat(2, "s-2", trace=2)), logs(log("s-3"), log(None))])
    prune(store)
    totals = store.totals()
    assert (totals.sessions, totals.spans, totals.logs, totals.chunks) == (0, 0, 0, 0)
    assert totals.bytes_free == 0


@pytest.mark.parametrize(
    "living",
    [run(), run(phase=Phase.WAITING), run(heard=Signal.STALE)],
    ids=["running", "waiting", "stale"],
)
def test_a_session_that_may_still_live_is_never_removed(store: Store, living: RunRecord) -> None:
    """However old and whatever the size."""
    store.append([traces(span(1))], [living])
    steps = prune(store, Retention(age=1, size=1))
    assert {step.changes.gone for step in steps} == {()}
    assert ids(store) == {S1}


@pytest.mark.parametrize("over", [run(phase=Phase.ENDED, ended_at=9), run(heard=Signal.LOST)])
def test_a_session_that_is_over_is_removed_with_all_that_is_its(store: Store, over: RunRecord) -> None:
    """Spans, logs, runs, gauges, timeline; told as gone, with its key for whoever watches its runs."""
    store.append(
        [traces(span(1), chat(2, tokens=3)), logs(log())],
        [over],
        [timeline("running", 0)],
        [gauge(2)],
    )
    first = prune(store)[0]
    assert (first.changes.gone, first.keys, first.spans, first.logs) == ((S1,), {global_key("s-1")}, 2, 1)
    assert first.changes.sums == ()  # what it cost was spent
    assert store.session(S1) is None
    assert list(store.runs(global_key("s-1"))) == []
    assert store.span(b"\0" * 15 + b"\1", b"\0" * 7 + b"\1") is None
    assert list(store.find(SpanQuery("planner")).rows) == []


def test_an_active_session_without_runs_stays_until_it_is_idle(store: Store) -> None:
    """Its last sign counts, not its first."""
    store.append([traces(span(1))])
    now = LATER
    assert store.prune(ALL, now, 0).changes.gone == ()
    assert store.prune(ALL, now, LATER).changes.gone == (S1,)


def test_the_longest_unseen_goes_first_until_the_size_is_reached(open_store: Opener, tmp_path: Path) -> None:
    """And the file is no longer larger than that."""
    store = open_store(tmp_path)
    for no in range(1, 61):
        store.append([traces(*(span(no * 100 + i, f"s-{no}", trace=no) for i in range(50)))])
    size = 600_000
    estimate = store.prunable(Retention(size=size), LATER, LATER)
    gone = [one for step in prune(store, Retention(size=size)) for one in step.changes.gone]
    kept = ids(store)
    assert gone == [session_id(global_key(f"s-{no}")) for no in range(1, len(gone) + 1)]
    assert 0 < len(kept) == 60 - len(gone) < 60
    assert not estimate.exact
    assert abs(estimate.sessions - len(gone)) <= 15
    store.close()
    assert (tmp_path / "sessions.db").stat().st_size <= size


def test_a_body_of_two_sessions_stays_until_the_second_goes(store: Store) -> None:
    """Nothing of what is kept is lost with what is not."""
    store.append([traces(span(1, "s-1"), span(2, "s-2", trace=2))])
    store.append([], [run("s-2")])
    prune(store)
    assert ids(store) == {S2}
    assert [stored.row.name for stored in store.spans(S2)] == ["step"]
    assert store.totals().chunks == 1


def test_logs_of_nobody_go_with_their_age(store: Store) -> None:
    """They have no session to go with."""
    store.append([logs(log(None))])
    assert store.totals().logs == 1
    prune(store)
    assert (store.totals().logs, store.totals().chunks) == (0, 0)


def test_a_parent_that_was_removed_is_missing(store: Store) -> None:
    """A session that goes on in the trace of another says what it lacks; readers are told."""
    store.append([traces(span(1, "s-1"), span(2, "s-2", parent=1))], [run("s-2", 2)])
    (step, *_) = prune(store)
    assert [(session.id, session.missing_spans) for session in step.changes.sessions] == [(S2, 1)]


def test_a_pin_says_whether_there_is_such_a_session(store: Store) -> None:
    """Of one that was removed a moment before, nothing is kept for a later one of its id."""
    store.append([traces(span(1, "s-1"))])
    assert store.pin(S1, pinned=True)
    assert store.pin(S1, pinned=True)
    assert store.pin(S1, pinned=False)
    assert store.pin(S1, pinned=False)
    prune(store)
    assert not store.pin(S1, pinned=True)
    assert not store.pin(S1, pinned=False)
    store.append([traces(span(1, "s-1"))])
    prune(store)
    assert ids(store) == set()
