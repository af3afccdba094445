"""Rates, recent commits and emitters: pure counts, bounded whatever is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_requests import key_values

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Emitted, Emitter, Encoding, Signal
from otel_sessions.backend.vitals import (
    COMMITS,
    EMITTERS,
    SECONDS,
    SESSIONS,
    Emitters,
    Rate,
    Rates,
    RecentCommits,
)

SECOND = 1_000_000_000


def test_a_rate_is_what_came_in_the_last_minute_and_is_nothing_after_it():
    """A burst fades within a minute, by itself."""
    rates = Rates()
    for second in range(120):
        rates.note(second * SECOND, spans=10, logs=2)
    now = 119 * SECOND
    assert rates.at(now) == Rate(1.0, 10.0, 2.0)
    assert rates.at(now + 30 * SECOND) == Rate(0.5, 5.0, 1.0)
    assert rates.at(now + SECONDS * SECOND) == Rate(0.0, 0.0, 0.0)


def test_a_backend_that_has_just_begun_tells_no_rate_of_a_minute_it_has_not_lived():
    """The first ten seconds are divided by ten, not by sixty."""
    rates = Rates()
    assert rates.at(5 * SECOND) == Rate(0.0, 0.0, 0.0)
    rates.note(5 * SECOND, spans=100, logs=0)
    assert rates.at(5 * SECOND).spans == 100.0
    assert rates.at(15 * SECOND).spans == 10.0


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=3 * COMMITS))
def test_the_spread_is_of_the_last_commits_and_every_figure_is_one_of_them(times):
    """Nearest rank: no figure is made up between two."""
    recent = RecentCommits()
    for took in times:
        recent.note(took)
    kept, spread = sorted(times[-COMMITS:]), recent.spread()
    assert (spread.count, spread.max) == (len(kept), kept[-1])
    assert spread.p50 in kept
    assert spread.p99 in kept
    assert sum(took <= spread.p50 for took in kept) * 2 >= len(kept)
    assert sum(took <= spread.p99 for took in kept) * 100 >= 99 * len(kept)


def test_no_commit_has_no_spread():
    """Unknown is not 0."""
    assert RecentCommits().spread().p50 is None


def test_strangers_can_not_make_the_list_of_emitters_long_nor_lose_what_they_sent():
    """Beyond a hundred all are counted together."""
    emitters = Emitters()
    for number in range(3 * EMITTERS):
        ids = frozenset(f"s-{number}-{n}" for n in range(2))
        emitters.note([Emitted(Emitter(f"service-{number}"), 5, 1, ids)], at=number + 1)
    counted = emitters.counts()
    assert len(counted) == EMITTERS + 1
    assert sum(sent.spans for _, sent in counted) == 15 * EMITTERS
    assert [sent.others for _, sent in counted] == [False] * EMITTERS + [True]
    seen = [sent.last_seen_at for _, sent in counted[:-1]]
    assert seen == sorted(seen, reverse=True)


def test_the_sessions_of_an_emitter_are_counted_once_each_up_to_a_bound():
    """A service that runs for a year must not fill memory with ids."""
    emitters = Emitters()
    for number in range(SESSIONS + 200):
        ids = frozenset({f"s-{number}", "again"})
        emitters.note([Emitted(Emitter("a"), 1, 0, ids)], at=1)
    ((_, sent),) = emitters.counts()
    assert len(sent.sessions) == SESSIONS


def test_who_sends_is_told_by_the_resource_and_its_sessions_by_the_spans():
    """Two resources of one request are two emitters; a span without a valid id counts for nobody."""
    request = ExportTraceServiceRequest()
    for service, version in (("travel", "1.45.2"), ("mail", "")):
        group = request.resource_spans.add()
        group.resource.attributes.extend(key_values({"service.name": service}))
        if version:
            sdk = {"name": "opentelemetry", "language": "python", "version": version}
            group.resource.attributes.extend(key_values({f"telemetry.sdk.{k}": v for k, v in sdk.items()}))
        spans = group.scope_spans.add().spans
        for number in (1, 2, 0):
            span = spans.add(trace_id=bytes([1] * 16), span_id=bytes([number] * 8), name="x")
            span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
            if version:
                span.attributes.extend(key_values({"session.id": f"s-{number}"}))
    emitted = decode(Signal.TRACES, Encoding.PROTOBUF, request.SerializeToString(), 1).emitted
    assert emitted == (
        Emitted(Emitter("travel", "opentelemetry, python", "1.45.2"), 2, 0, frozenset({"s-1", "s-2"})),
        Emitted(Emitter("mail"), 2, 0),
    )
