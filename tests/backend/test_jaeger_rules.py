"""The pure parts of Jaeger's APIs: what Go would write, what a trace is warned about, when a search ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry import decoded, sid, span, traces

from otel_sessions.backend.jaeger import traces as reading
from otel_sessions.backend.jaeger.adjust import Node, trace_warnings
from otel_sessions.backend.jaeger.golang import GoError, duration_text, parse_duration, parse_int
from otel_sessions.backend.jaeger.parameters import (
    MAX_TRACES,
    ParameterError,
    TraceSearch,
    dependencies_range,
    trace_id_of,
    traces_v1,
    traces_v3,
)
from otel_sessions.backend.store.sqlite import SqliteStore

HOUR = 3600 * 10**9


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_duration_that_is_written_is_read_as_itself(duration):
    """Go's text for a duration loses no nanosecond."""
    assert parse_duration(duration_text(duration)) == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (-1_500, "-1.5µs"),
        (999_999_999, "999.999999ms"),
        (10**9, "1s"),
        (61 * 10**9, "1m1s"),
        (HOUR + 1, "1h0m0.000000001s"),
        (100 * HOUR, "100h0m0s"),
    ],
)
def test_durations_are_written_as_go_writes_them(duration, text):
    """In the greatest unit that fits, below a second with a fraction of that."""
    assert duration_text(duration) == text


@given(st.text(max_size=300))
def test_any_text_is_a_duration_or_a_fault_of_who_sent_it(text):
    """Nothing else is raised, however long or strange it is."""
    with contextlib.suppress(GoError):
        assert abs(parse_duration(text)) < 2**63


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_a_fault_of_who_sent_it(text):
    """Nothing else is raised, for no digits of any script either."""
    with contextlib.suppress(GoError):
        assert -(2**63) <= parse_int(text) < 2**63


_VALUES = st.lists(st.text(max_size=40) | st.integers().map(str), min_size=1, max_size=2)
_KEYS = st.sampled_from(
    [
        "service",
        "start",
        "end",
        "limit",
        "minDuration",
        "tags",
        "tag",
        "traceID",
        "endTs",
        "lookback",
        "query.start_time_min",
        "query.startTimeMax",
        "query.attributes",
        "query.num_traces",
        "query.durationMin",
    ]
)


@given(st.dictionaries(_KEYS, _VALUES))
def test_any_query_is_a_search_within_bounds_or_a_fault_of_who_sent_it(query):
    """Times are storable and the number of traces is bounded, whatever is asked for."""
    for read in (lambda: traces_v1(query, HOUR), lambda: traces_v3(query)):
        with contextlib.suppress(ParameterError):
            search = read()
            assert 0 <= search.since < 2**63
            assert 0 <= search.until < 2**63
            assert 1 <= search.limit <= MAX_TRACES
    with contextlib.suppress(ParameterError):
        assert 0 <= dependencies_range(query, HOUR).since < 2**63


@pytest.mark.parametrize("text", ["", "0x1", "1_0", "é", "\uff11", " 1", "+1"])
def test_only_hex_digits_are_a_trace_id(text):
    """What Python would take for a number and Go would not is none."""
    with pytest.raises(ParameterError):
        trace_id_of(text)


def test_times_of_api_v3_are_read_to_the_nanosecond_in_any_zone():
    """RFC 3339, of which Python's own parser knows less."""
    query = {"query.start_time_min": ["1970-01-01T02:00:01.123456789+02:00"], "query.start_time_max": ["1970-01-02T00:00:00Z"]}  # fmt: skip
    search = traces_v3(query)
    assert (search.since, search.until) == (1_123_456_789, 24 * HOUR)


def test_a_chain_of_any_length_and_a_circle_of_any_size_are_judged():
    """Without recursion, and in circles without end."""
    length = 50_000
    chain = [Node(sid(no), sid(no - 1) if no > 1 else b"", no, length, "") for no in range(1, length)]
    assert set(trace_warnings(chain)) <= {node.span_id for node in chain}
    circle = [Node(sid(no), sid(no % 9 + 1), 0, 1, "") for no in range(1, 10)]
    assert trace_warnings(circle) == {}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Open a store with 1,200 spans of as many traces."""
    opened = SqliteStore(tmp_path)
    spans = [span(no, at=no, trace=no.to_bytes(16, "big"), attributes={"no": no}) for no in range(1, 1201)]
    opened.append([decoded(traces(spans))])
    yield opened
    opened.close()


def test_a_search_that_takes_too_long_ends_with_what_it_has_and_says_so(store):
    """By tags, each page of rows is read in full: the clock is looked at after each."""
    search = TraceSearch("agent", tags=(("no", "1199"),), limit=5)
    ticking = iter(range(0, 1000, 3))
    found = reading.found(store, search, lambda: float(next(ticking)))
    assert found.traces == ((1199).to_bytes(16, "big"),)
    assert not found.complete
    assert "Narrow" in found.errors[0]["msg"]
    whole = reading.found(store, search, lambda: 0.0)
    assert (whole.traces, whole.complete, whole.errors) == (found.traces, True, ())


def test_a_search_by_tags_looks_no_further_than_its_limit(store):
    """The newest match ends a search for one trace."""
    search = TraceSearch("agent", tags=(("otel.scope.name", "test"),), limit=1)
    reads = iter([0.0])  # once, for the deadline
    assert reading.found(store, search, lambda: next(reads)).traces == ((1200).to_bytes(16, "big"),)
