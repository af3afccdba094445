"""The filter of the list, in a store and in memory: one answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_requests import SECOND, START, chat, gauge, log, logs, run, span, traces

from otel_sessions.backend.filter_text import parse
from otel_sessions.backend.filters import EVERYTHING, FIELDS, Condition, Filter, Kind, Moment, Op, matches
from otel_sessions.backend.records import Request, SessionRecord
from otel_sessions.backend.store.base import SessionQuery, Store
from otel_sessions.lifecycle import Phase
from otel_sessions.lifecycle import Signal as Heard

NOW = START + 3600 * SECOND
TEXTS = (
    "planner",
    "PLANNER",
    "Grüße",
    "GRÜSSE",
    "旅行の計画",
    "北京",
    "ab%_c",
    "",
    'say "hi"',
    "Ελλάδα",
    "x",
    "a\0x",  # what SQLite takes for the end of a text in JSON
)
WORDS = st.sampled_from(["plan", "grüsse", "旅行", "京", "%", "_", "ελλάδα", '"hi"', "a", "x", "s-1", "gpt"])


def ids(sessions: tuple[SessionRecord, ...]) -> list[str]:
    """Return our ids."""
    return [session.id for session in sessions]


def listed(store: Store, text: str, **query: object) -> list[str | None]:
    """Return the emitter's ids of the first page under a filter."""
    page = store.sessions(SessionQuery(filter=parse(text).at(NOW), **query))  # pyright: ignore[reportArgumentType]
    return [session.session_id for session in page.sessions]


def all_of(store: Store, query: SessionQuery) -> Iterator[SessionRecord]:
    """Read page after page."""
    cursor: str | None = None
    while True:
        page = store.sessions(
            SessionQuery(
                filter=query.filter,
                sort=query.sort,
                limit=query.limit,
                after=cursor,
                idle_before=query.idle_before,
            )
        )
        yield from page.sessions
        cursor = page.next
        if cursor is None:
            return


# --- in words -------------------------------------------------------------------------------------------


@pytest.fixture
def trips(store: Store) -> Store:
    """Three sessions that differ in everything one can ask for."""
    cheap = chat(11, "cheap", 40, trace=1, parent=1, gen_ai__usage__cost=0.02, at=1)
    dear = chat(21, "dear", 9_000, trace=2, parent=2, gen_ai__usage__cost=1.5, at=60)
    search = span(22, "dear", trace=2, parent=2, name="execute_tool search_flights", error=True, at=61,
                  gen_ai__operation__name="execute_tool", gen_ai__tool__name="search_flights")  # fmt: skip
    agent = span(12, "cheap", trace=1, parent=1, name="invoke_agent 旅行", gen_ai__operation__name="invoke_agent",
                 gen_ai__agent__name="旅行ガイド", at=1)  # fmt: skip
    store.append(
        [
            traces(
                span(1, "cheap", trace=1, name="session plan", otel_sessions__session__title="Reise nach Zürich"),
                cheap, agent, service="planner",
            ),
            traces(span(2, "dear", trace=2, at=60, user__id="Ann"), dear, search, service="booker"),
            traces(span(3, "silent", trace=3, at=120), service="planner"),
        ],
        [
            run("cheap", 1, phase=Phase.ENDED, ended_at=90, outcome="ok", trace_id=b"\0" * 15 + b"\1"),
            run("dear", 2, heard=Heard.LOST, at=60, trace_id=b"\0" * 15 + b"\2"),
        ],
        gauges=[gauge(5, session="dear")],
    )  # fmt: skip
    return store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["silent", "dear", "cheap"]),
        ("state:lost", ["dear"]),
        ("state:lost,ended", ["dear", "cheap"]),
        ("-state:lost,ended", ["silent"]),
        ("state!=lost", ["silent", "cheap"]),
        ("state:lost -state:lost", []),
        ("outcome:ok", ["cheap"]),
        ("outcome:unknown", ["silent", "dear"]),
        ("outcome!=ok", ["silent", "dear"]),
        ("reason:completed", ["cheap"]),
        ("service:plan", ["silent", "cheap"]),
        ("service=plan", []),
        ("service=PLANNER", ["silent", "cheap"]),
        ("user:ann", ["dear"]),
        ("-user:unknown", ["dear"]),
        ("model:gpt", ["dear", "cheap"]),
        ("agent:ガイド", ["cheap"]),
        ("agent:unknown", ["silent", "dear"]),
        ("tool:search", ["dear"]),
        ("tool=search_flights", ["dear"]),
        ("tool=search", []),
        ("title:ZÜRICH", ["cheap"]),
        ("id=dear", ["dear"]),
        ("tokens>10000", ["dear"]),
        ("tokens>=18k", ["dear"]),
        ("tokens=80", ["cheap"]),
        ("tokens.in<=40", ["cheap"]),
        ("-tokens>10000", ["silent", "cheap"]),
        ("tokens:unknown", ["silent"]),
        ("cost>$1", ["dear"]),
        ("cost=0.02", ["cheap"]),
        ("errors>0", ["dear"]),
        ("spans:1,3", ["silent", "dear", "cheap"]),
        ("missing>0", ["dear"]),
        ("duration>1m", ["cheap"]),
        ("duration<1m30s", ["silent"]),
        ("duration=90s", ["cheap"]),
        ("duration:unknown", ["dear"]),
        ("runs=0", ["silent"]),
        ("since:3500s", ["silent"]),
        ("until:3500s", ["dear", "cheap"]),
        ("started<2027-01-15T08:01", ["cheap"]),
        ("started:2027-01-15", ["silent", "dear", "cheap"]),
        ("ended:unknown", ["silent", "dear"]),
        ('tool:search tokens>10000 state:lost "dea"', ["dear"]),
        ("reise zürich", ["cheap"]),
        ('"nach zürich"', ["cheap"]),
        ('"zürich nach"', []),
        ("planner -state:ended", ["silent"]),
        ("旅行", ["cheap"]),
    ],
)
def test_a_filter_shows_what_it_says(trips: Store, text: str, expected: list[str]) -> None:
    """Each operator, each kind of field, what is unknown, and any script."""
    assert listed(trips, text) == expected


def test_a_filter_holds_in_every_order(trips: Store) -> None:
    """Also where no index has the order."""
    assert listed(trips, "tokens>0", sort="-cost") == ["dear", "cheap"]
    assert listed(trips, "tokens>0", sort="spans") == ["cheap", "dear"]
    assert listed(trips, "errors=0", sort="started_at") == ["cheap", "silent"]


def test_a_rare_session_is_found_behind_many_others(store: Store) -> None:
    """The search goes on in stretches; pages hold each session once, in order."""
    spans = [span(no, f"s-{no}", trace=no, at=no, **({"user__id": "ann"} if no % 350 == 1 else {})) for no in range(1, 1402)]  # fmt: skip
    store.append([traces(*spans)])
    query = SessionQuery(filter=parse("user:ann"), limit=2)
    found = [session.session_id for session in all_of(store, query)]
    assert found == ["s-1401", "s-1051", "s-701", "s-351", "s-1"]


# --- in all cases ---------------------------------------------------------------------------------------


@st.composite
def sessions(draw: st.DrawFn) -> tuple[list[Request], list[object], list[object]]:
    """Draw what makes a handful of sessions, each with some of what a session can have."""
    requests, runs, gauges = [], [], []
    numbers = itertools.count(1)
    text = st.sampled_from(TEXTS)
    for session in range(draw(st.integers(1, 5))):
        name, trace = f"s-{session}", session + 1
        root = next(numbers)
        at = draw(st.integers(0, 3000))
        root_span = span(
            root, name, trace=trace, at=at, error=draw(st.booleans()), name=draw(text),
            otel_sessions__session__title=draw(text), user__id=draw(text), gen_ai__conversation__id=draw(text),
        )  # fmt: skip
        spans = [root_span]
        for _ in range(draw(st.integers(0, 2))):
            cost = draw(st.sampled_from([None, 0.0, 0.3, 1.5]))
            spans.append(
                chat(next(numbers), name, draw(st.sampled_from([None, 7, 20_000])), trace=trace, parent=root, at=at,
                     **({} if cost is None else {"gen_ai__usage__cost": cost}))
            )  # fmt: skip
        if draw(st.booleans()):
            tool = draw(text)
            spans.append(span(next(numbers), name, trace=trace, parent=root, name="execute_tool", at=at,
                              gen_ai__operation__name="execute_tool", gen_ai__tool__name=tool))  # fmt: skip
        requests.append(traces(*spans, service=draw(text)))
        if draw(st.booleans()):
            requests.append(logs(log(name, trace=trace, at=at)))
        if draw(st.booleans()):
            phase = draw(st.sampled_from(Phase))
            ended = at + draw(st.integers(-10, 500)) if phase is Phase.ENDED else None
            heard = draw(st.sampled_from([Heard.LIVE, Heard.STALE, Heard.LOST]))
            outcome = draw(st.sampled_from([None, "ok", "error"]))
            runs.append(run(name, root, phase=phase, heard=heard, at=at, ended_at=ended, outcome=outcome))
        if draw(st.booleans()):
            gauges.append(gauge(draw(st.integers(0, 9)), session=name))
    return requests, runs, gauges


def values_of(name: str) -> st.SearchStrategy[object]:
    """Draw values that may well be those of a session."""
    field = FIELDS[name]
    unknown = [st.none()] if field.nullable else []
    if field.kind is Kind.CHOICE:
        return st.one_of(st.sampled_from(field.choices), *unknown)
    if field.kind in (Kind.TEXT, Kind.TEXTS):
        return st.one_of(WORDS, st.sampled_from(TEXTS).map(str.casefold), *unknown)
    if field.kind is Kind.TIME:
        start = st.integers(-100, 4000).map(lambda at: START + at * SECOND)
        return st.one_of(
            st.builds(Moment, start, st.just(START + 2000 * SECOND)),
            start.map(lambda at: Moment(at, at + 1)),
            *unknown,
        )
    if field.kind is Kind.DURATION:
        return st.one_of(st.integers(0, 500).map(lambda s: s * SECOND), *unknown)
    return st.one_of(st.integers(0, 50_000), st.sampled_from([0.3, 1.5, 14, 40_000, 2.0**70]), *unknown)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    """Draw a condition that the language can say."""
    name = draw(st.sampled_from(sorted(FIELDS)))
    kind = FIELDS[name].kind
    if kind in (Kind.TEXT, Kind.TEXTS):
        op = draw(st.sampled_from([Op.HAS, Op.IS]))
    else:
        op = Op.IS if kind is Kind.CHOICE else draw(st.sampled_from([op for op in Op if op is not Op.HAS]))
    several = draw(st.lists(values_of(name), min_size=1, max_size=1 if op not in (Op.HAS, Op.IS) else 3))
    if op not in (Op.HAS, Op.IS) and several == [None]:
        op = Op.IS
    return Condition(name, op, tuple(several), draw(st.booleans()))  # pyright: ignore[reportArgumentType]


FILTERS = st.builds(
    Filter,
    st.lists(WORDS.map(str.casefold), max_size=1).map(tuple),
    st.lists(conditions(), max_size=3).map(tuple),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(told=sessions(), filters=st.lists(FILTERS, min_size=1, max_size=12), idle_after=st.integers(0, 40))
def test_store_and_memory_agree(
    open_store: Callable[[Path], Store], tmp_path_factory: pytest.TempPathFactory, told, filters, idle_after
) -> None:
    """Whatever the sessions and the filter, the list holds those that match, and no other."""
    store = open_store(tmp_path_factory.mktemp("filtered"))
    requests, runs, gauges = told
    store.append(requests, runs, gauges=gauges)
    everything = store.sessions(SessionQuery(limit=500)).sessions
    idle_before = sorted(session.last_seen_at for session in everything)[idle_after % len(everything)]
    shown = store.sessions(SessionQuery(limit=500, idle_before=idle_before)).sessions
    for query in [EVERYTHING, *filters]:
        expected = [session.id for session in shown if matches(query, session)]
        for sort in ("-started_at", "-spans"):
            page = store.sessions(SessionQuery(filter=query, limit=500, idle_before=idle_before, sort=sort))
            assert sorted(ids(page.sessions)) == sorted(expected), (query, sort)
    store.close()
