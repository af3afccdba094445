"""The list of sessions, the search and the counters: the same over every store."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_requests import SECOND, START, chat, gauge, log, logs, run, span, span_id, traces

from otel_sessions.backend.filter_text import parse
from otel_sessions.backend.records import Request, SessionRecord
from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.retention import Retention
from otel_sessions.backend.store._needle import Needles
from otel_sessions.backend.store.base import Hit, SearchQuery, SessionQuery, Store
from otel_sessions.lifecycle import Phase
from otel_sessions.lifecycle import Signal as Heard


def listed(store: Store, **query: object) -> list[str | None]:
    """Return the emitter's ids of one page."""
    return [record.session_id for record in store.sessions(SessionQuery(**query)).sessions]  # pyright: ignore[reportArgumentType]


def found(store: Store, *words: str, limit: int = 2, **query: object) -> list[Hit]:
    """Return all hits of a search, page by page."""
    hits: list[Hit] = []
    cursor: str | None = None
    while True:
        page = store.search(SearchQuery(words, limit=limit, before=cursor, **query))  # pyright: ignore[reportArgumentType]
        hits.extend(page.hits)
        cursor = page.next
        if cursor is None:
            return hits


def fill(store: Store, count: int) -> None:
    """Store sessions s-00, s-01, … of which some know their cost, user, tokens or failure and some do not."""
    for no in range(count):
        more = {} if no % 3 else {"user__id": f"u{no % 2}", "gen_ai__usage__cost": float(no % 5)}
        more |= {"error": True, "error__type": f"E{no % 2}"} if no % 4 == 1 else {}
        store.append([traces(chat(no + 1, f"s-{no:02}", no % 4 or None, trace=no + 1, at=no // 2, **more))])


# --- the list -------------------------------------------------------------------------------------------


def test_the_newest_sessions_come_first(store: Store) -> None:
    """By their start, whatever the order of arrival."""
    for no, at in enumerate((5, 9, 1), 1):
        store.append([traces(span(no, f"s-{at}", trace=no, at=at))])
    assert listed(store) == ["s-9", "s-5", "s-1"]
    assert listed(store, sort="started_at") == ["s-1", "s-5", "s-9"]


@pytest.mark.parametrize(
    "column", sorted(set(SessionRecord.__slots__) - {"agents", "models", "tools", "state"})
)
@pytest.mark.parametrize("direction", ["", "-"])
def test_pages_show_every_session_once(store: Store, column: str, direction: str) -> None:
    """In every order, with unknown values last and equal ones side by side."""
    fill(store, 11)
    records: list[SessionRecord] = []
    cursor: str | None = None
    while True:
        page = store.sessions(SessionQuery(sort=direction + column, limit=3, after=cursor))
        records += page.sessions
        if (cursor := page.next) is None:
            break
    assert len({record.id for record in records}) == len(records) == 11
    values = [getattr(record, column) for record in records]
    known = [value for value in values if value is not None]
    assert values == sorted(known, reverse=bool(direction)) + [None] * (len(values) - len(known))


def test_sessions_are_filtered_by_what_they_are(store: Store) -> None:
    """By service, by user, by their start; all conditions hold at once."""
    store.append([traces(span(1, "s-1", at=1, user__id="ann"), service="planner")])
    store.append([traces(span(2, "s-2", at=2, user__id="bob"), service="planner")])
    store.append([traces(span(3, "s-3", at=3, user__id="ann"), service="booker")])
    assert listed(store, service="planner") == ["s-2", "s-1"]
    assert listed(store, user="ann") == ["s-3", "s-1"]
    assert listed(store, user="ann", service="planner") == ["s-1"]
    assert listed(store, since=START + 2 * 10**9) == ["s-3", "s-2"]
    assert listed(store, until=START + 2 * 10**9) == ["s-1"]


@pytest.mark.parametrize("text", ["ZÜRICH", "zürich", "Plan", "gpt", "S-1", "ann", "reise"])
def test_the_text_filter_ignores_case_in_any_script(store: Store, text: str) -> None:
    """It looks into ids, names, titles, services, users, agents and models."""
    root = span(1, "s-1", name="session plan", otel_sessions__session__name="plan",
                otel_sessions__session__title="Reise nach Zürich", user__id="Ann")  # fmt: skip
    store.append([traces(root, chat(2, "s-1", parent=1)), traces(span(3, "other", trace=3), service="x")])
    assert listed(store, filter=parse(text)) == ["s-1"]


def test_sessions_without_a_run_are_idle_by_the_readers_clock(store: Store) -> None:
    """Silence makes them idle, nothing stored does."""
    store.append([traces(span(1))])
    (record,) = store.sessions(SessionQuery()).sessions
    assert record.state == "running"
    later = record.last_alive_at
    assert store.sessions(SessionQuery(idle_before=later)).sessions[0].state == "idle"
    assert [listed(store, states=("idle",), idle_before=at) for at in (later, later - 1)] == [["s-1"], []]
    assert [listed(store, states=("running",), idle_before=at) for at in (later, later - 1)] == [[], ["s-1"]]
    by_id = store.session("s-1", idle_before=later)
    assert by_id is not None
    assert by_id.session.state == "idle"


def arrived(request: Request, seconds: float) -> Request:
    """Return the request as if it had come so many seconds after START."""
    return replace(request, received_at=START + round(seconds * SECOND))


def states(store: Store, now: float) -> set[tuple[str, ...]]:
    """Return the states that list, filters, counts and detail show of s-1, with five minutes of patience."""
    idle_before = START + round((now - 300) * SECOND)
    (record,) = store.sessions(SessionQuery(idle_before=idle_before)).sessions
    detail = store.session("s-1", idle_before=idle_before)
    assert detail is not None
    both = ("running", "idle")
    counts = store.totals(idle_before=idle_before).sessions_by_state
    return {
        (record.state,),
        (detail.session.state,),
        tuple(state for state in both if counts[state]),
        tuple(state for state in both if listed(store, states=(state,), idle_before=idle_before)),
        tuple(
            state for state in both if listed(store, filter=parse(f"state:{state}"), idle_before=idle_before)
        ),
    }


@pytest.mark.parametrize("sent", [traces(span(1), span(2, at=9)), logs(log(at=10))])
@pytest.mark.parametrize("days", [1 / 24, 1, 300])
def test_what_arrives_whole_and_old_is_history(store: Store, sent: Request, days: float) -> None:
    """A recording that is replayed, or was queued for hours, tells of nobody who runs now."""
    late = days * 86_400
    store.append([arrived(sent, late)])
    assert states(store, late) == {("idle",)}
    store.append([arrived(sent, late + 20)])  # the same again
    assert states(store, late + 20) == {("idle",)}
    removed = store.prune(Retention(age=3600 * SECOND), START + round((late + 60) * SECOND), START)
    assert removed.changes.gone == ()  # it came just now, and is kept as long as anything


@pytest.mark.parametrize("hours", [-30, -3, 0, 3, 30])
def test_a_sender_whose_clock_is_wrong_runs_as_long_as_it_goes_on_speaking(store: Store, hours: int) -> None:
    """Its progress beside ours tells that it lives; its silence, by our clock, that it does not."""
    for n in range(7):
        store.append([arrived(traces(span(n + 1, at=10 * n)), 10 * n + 1 + 3600 * hours)])
    last = 61 + 3600 * hours
    assert states(store, last + 299) == {("running",)}
    assert states(store, last + 300) == {("idle",)}


def test_states_filter_and_count(store: Store) -> None:
    """One session in each state; several states are one list in the order of all."""
    store.append([traces(span(1, "without", at=9))])
    store.append(
        [],
        [
            run("running", at=1),
            run("waiting", phase=Phase.WAITING, at=2),
            run("stale", heard=Heard.STALE, at=3),
            run("lost", heard=Heard.LOST, at=4),
            run("ended", phase=Phase.ENDED, ended_at=6, at=5),
        ],
    )
    states = ("running", "waiting", "stale", "lost", "ended")
    assert all(listed(store, states=(state,), idle_before=2**62) == [state] for state in states)
    assert listed(store, states=states, idle_before=2**62) == list(reversed(states))
    assert listed(store, states=("running", "lost")) == ["without", "lost", "running"]
    counts = dict.fromkeys(states, 1)
    assert store.totals(idle_before=2**62).sessions_by_state == {**counts, "idle": 1}
    assert store.totals().sessions_by_state == {**counts, "running": 2, "idle": 0}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (SessionQuery(sort="-colour"), "colour"),
        (SessionQuery(sort="-agents"), "agents"),
        (SessionQuery(states=("asleep",)), "asleep"),
        (SessionQuery(after="%%%"), "cursor"),
        (SessionQuery(after="bm9uc2Vuc2U"), "cursor"),
        (SessionQuery(after="WzEsMl0"), "cursor"),
        (SessionQuery(after="WyItc3RhcnRlZF9hdCIseyJhIjoxfSwieCJd"), "cursor"),
    ],
)
def test_a_query_that_makes_no_sense_is_named(store: Store, query: SessionQuery, message: str) -> None:
    """Wrong sort, state or cursor: ValueError says which."""
    with pytest.raises(ValueError, match=message):
        store.sessions(query)


def test_a_cursor_belongs_to_its_order(store: Store) -> None:
    """The place in one order is none in another."""
    fill(store, 3)
    cursor = store.sessions(SessionQuery(limit=1)).next
    with pytest.raises(ValueError, match="order"):
        store.sessions(SessionQuery(limit=1, after=cursor, sort="spans"))


def test_a_session_is_found_by_our_id_and_by_the_emitters(store: Store) -> None:
    """Unknown ids find nothing."""
    store.append([traces(span(1, "my id/1"))])
    ours = session_id(global_key("my id/1"))
    by_ours, by_theirs = store.session(ours), store.session("my id/1")
    assert by_ours is not None
    assert by_ours == by_theirs
    assert by_ours.session.id == ours
    assert store.session("nobody") is None
    assert (list(store.columns("nobody").span_id), store.span(b"x" * 16, b"y" * 8)) == ([], None)


def test_totals_count_what_is_stored(store: Store) -> None:
    """Spans, logs, bodies and bytes."""
    empty = store.totals()
    assert (empty.sessions, empty.spans, empty.logs, empty.chunks) == (0, 0, 0, 0)
    store.append([traces(span(1), span(2, "s-2")), logs(log())], gauges=[gauge(1)])
    totals = store.totals()
    assert (totals.sessions, totals.spans, totals.logs, totals.chunks) == (2, 2, 1, 2)
    assert totals.bytes_on_disk > 0


# --- the search --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "text",
    ["lisbon", "LISBON", "你好", "Grüße", "GRÜßE", 'say "olá"', "line\nbreak", "C:\\temp", "🌞", "a/b"],
)
def test_search_finds_a_text_in_any_script(store: Store, text: str, as_json: bool) -> None:
    """In attributes as they are, inside JSON that an attribute holds, and in bodies that came as JSON."""
    told = 'to Lisbon, 你好, Grüße, say "Olá", line\nbreak, C:\\temp, 🌞, a/b'
    store.append([traces(span(1, prompt=told), span(2, prompt="elsewhere"), json=as_json)])
    store.append([traces(span(3, messages=json.dumps([{"content": told}])), json=as_json)])
    hits = found(store, text)
    assert [hit.span_id for hit in hits] == [span_id(3), span_id(1)]
    assert all(hit.session_id == session_id(global_key("s-1")) and hit.snippet for hit in hits)


def test_search_finds_names_events_and_logs(store: Store) -> None:
    """Wherever a person may have read it."""
    with_event = span(1, name="find lisbon")
    with_event.events.add(name="lisbon.seen")
    told = span(2)
    told.status.message = "no flight to Lisbon"
    store.append([traces(with_event, told), logs(log(body="off to Lisbon", at=3, name="note"))])
    assert [(hit.name, hit.snippet) for hit in found(store, "lisbon")] == [
        ("note", "off to Lisbon"),
        ("step", "no flight to Lisbon"),
        ("find lisbon", "find lisbon"),
    ]


@pytest.mark.parametrize(
    ("words", "field", "marked"),
    [
        (("STRASSE",), "attributes.prompt", ["Straße"]),
        (("lisbon", "flight"), "attributes.answer", ["flight", "Lisbon"]),
        (("里斯",), "attributes.answer", ["里斯"]),
        (("step one",), "name", ["step ONE"]),
        (("broke",), "status.message", ["broke"]),
        (("hidden",), "events.attributes.why", ["hidden"]),
    ],
)
def test_a_hit_says_where_it_is_and_marks_the_words(
    store: Store, words: tuple[str, ...], field: str, marked: list[str]
) -> None:
    """All words have to occur in one message; those in the snippet are marked, in the order of the text."""
    answer = json.dumps([{"content": "a flight to Lisbon (里斯本)"}])
    one = span(1, name="step ONE", prompt="Lange Straße 3", answer=answer)
    one.status.message = "it broke"
    one.events.add(name="oops").attributes.extend(span(9, None, why="hidden\n reason").attributes)
    store.append([traces(one, span(2, prompt="flight"), span(3, prompt="Lisbon"))])
    (hit,) = found(store, *words)
    assert (hit.span_id, hit.field) == (span_id(1), field)
    assert [hit.snippet[begin:end] for begin, end in hit.marks] == marked
    assert "\\u" not in hit.snippet


def test_a_search_is_filtered_by_what_the_sessions_are(store: Store) -> None:
    """Words and conditions together; the state is that of the reader's clock."""
    store.append([traces(span(1, "s-1", prompt="lisbon", user__id="ann"))])
    store.append([traces(span(2, "s-2", prompt="lisbon", trace=2, error=True))])
    assert [hit.span_id for hit in found(store, "lisbon", filter=parse("user:ANN"))] == [span_id(1)]
    assert [hit.span_id for hit in found(store, "lisbon", filter=parse("errors>0"))] == [span_id(2)]
    assert found(store, "lisbon", filter=parse("state:idle")) == []
    assert len(found(store, "lisbon", filter=parse("state:idle"), idle_before=2**62)) == 2


def test_a_search_says_how_far_it_came(store: Store) -> None:
    """From the newest to the oldest; what is behind grows to all."""
    for no in range(1, 5):
        store.append([traces(span(no, prompt="lisbon"))])
    shares, cursor = [], None
    while True:
        page = store.search(SearchQuery(("lisbon",), limit=1, before=cursor))
        shares.append(page.share)
        assert page.chunks
        assert page.bytes
        cursor = page.next
        if cursor is None:
            break
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@settings(max_examples=300)
@given(data=st.data())
def test_no_word_is_overlooked(data: st.DataObject) -> None:
    """However it is cased and escaped, in whatever bytes: what a text holds, case-folded, is found."""
    letters = st.sampled_from(
        'aAkKsSiIflFLtT ßẞüÜÉéПпıİſﬁﬂﬀKΣσς北京🌞"\\/\n\t{}u0'  # noqa: RUF001 - letters that look like others are the point
    ) | st.characters(codec="utf-8")
    text = data.draw(st.text(letters, min_size=1, max_size=30))
    begin = data.draw(st.integers(0, len(text) - 1))
    word = text[begin : begin + data.draw(st.integers(1, 8))]
    word = data.draw(st.sampled_from([word, word.upper(), word.lower(), word.title(), word.casefold()]))
    if word.casefold() not in text.casefold() or not word.strip():
        return
    stored = text
    for ascii_only in data.draw(st.lists(st.booleans(), max_size=2)):
        stored = json.dumps([stored], ensure_ascii=ascii_only)
    around = data.draw(st.binary(max_size=6)), data.draw(st.binary(max_size=6).map(lambda b: b"\n" + b))
    needles = Needles([word])
    assert needles.may_hold(around[0] + b" " + stored.encode() + around[1])
    hit = needles.find([("name", stored)])
    assert hit is not None
    assert hit[1].marks or _is_only_space(word)


def test_every_letter_with_a_case_is_found_in_every_case() -> None:
    """The table of such letters is not complete by itself: a newer Unicode has more."""
    changed = [chr(n) for n in range(0x80, 0x110000) if chr(n).casefold() != chr(n)]
    assert len(changed) > 1_400
    assert [letter for letter in changed if not Needles([letter]).may_hold(letter.encode())] == []
    folded = {letter: letter.casefold() for letter in changed}
    assert [letter for letter in changed if not Needles([folded[letter]]).may_hold(letter.encode())] == []


def _is_only_space(word: str) -> bool:
    return not word.strip()


def test_a_word_is_found_across_the_pieces_in_which_a_body_is_read() -> None:
    """Bodies are read in pieces, for Python's lock is not let go meanwhile."""
    for at in range((128 << 10) - 8, (128 << 10) + 2):
        body = b"x" * at + "ÜBERgröße".encode() + b"x" * 9
        assert Needles(["übergrösse"]).may_hold(body)
        assert not Needles(["übergrössen"]).may_hold(body)


def test_search_shows_a_span_once(store: Store) -> None:
    """Copies that were replaced are no hits, nor is what only stands in keys and resources."""
    store.append([traces(span(1, prompt="lisbon", lasting=1), span(2, lisbon="x"))])
    store.append([traces(span(1, prompt="lisbon", lasting=2), host__name="lisbon")])
    assert [hit.span_id for hit in found(store, "lisbon")] == [span_id(1)]


def test_a_snippet_is_what_stands_around_the_match(store: Store) -> None:
    """Short, on one line, and cut between characters."""
    store.append([traces(span(1, prompt="ü" * 300 + "\n\n lisbon " + "ü" * 300))])
    (hit,) = found(store, "lisbon")
    assert hit.snippet.startswith("…ü")
    assert hit.snippet.endswith("ü…")
    assert " lisbon " in hit.snippet
    assert len(hit.snippet) < 200


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(limit=st.integers(1, 7))
def test_pages_of_a_search_show_every_hit_once(store: Store, limit: int) -> None:
    """Newest first, over as many requests as there are."""
    if store.totals().spans == 0:
        for no in range(1, 10, 3):
            store.append([traces(*(span(no + more, prompt="lisbon") for more in range(3)))])
    hits = [hit.span_id for hit in found(store, "lisbon", limit=limit)]
    assert hits == [span_id(no) for no in range(9, 0, -1)]


@pytest.mark.parametrize("cursor", ["x", "-1", "", "٣", "9" * 40])
def test_an_unknown_cursor_of_a_search_is_named(store: Store, cursor: str) -> None:
    """ValueError, not an empty page."""
    with pytest.raises(ValueError, match="cursor"):
        store.search(SearchQuery(("lisbon",), before=cursor))


def test_a_search_without_a_match_ends(store: Store) -> None:
    """No hits and no cursor."""
    store.append([traces(span(1))])
    page = store.search(SearchQuery(("lisbon",)))
    assert (page.hits, page.next, page.share, page.chunks) == ((), None, 1.0, 1)


@pytest.mark.parametrize("value", ["1" + "0" * 30, "1e999", "NaN", "[1]"])
def test_a_cursor_with_a_value_that_no_column_holds_is_refused(store: Store, value: str) -> None:
    """Cursors come back from anybody; a forged one is no fault of ours."""
    forged = base64.urlsafe_b64encode(f'["-started_at",{value},"x"]'.encode()).decode().rstrip("=")
    with pytest.raises(ValueError, match="is no cursor of this list"):
        store.sessions(SessionQuery(after=forged))
