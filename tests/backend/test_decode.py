"""Decoding: what a request says becomes records; what it does not say stays unknown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from telemetry import (
    BEGAN,
    SECOND,
    TRACE,
    decoded,
    decoded_log,
    decoded_span,
    log,
    logs,
    sid,
    span,
    traces,
)

from otel_sessions import semconv
from otel_sessions.backend.attributes import MAX_WORD
from otel_sessions.backend.decode import MAX_ITEMS, MOST_APART, OTHERS, DecodeError, decode
from otel_sessions.backend.records import Encoding, Flag, Request, RunEvent, Signal

OURS = semconv.SCOPE_NAME
EVENT = {
    semconv.SESSION_ID: "s1",
    semconv.PROCESS_ID: "p1",
    semconv.SEQ: 3,
    semconv.ELAPSED: 7_000_000_000,
    semconv.HEARTBEAT_INTERVAL: 2.5,
    semconv.LEASE: 60.0,
}


def event(name: str, *, number: int = 1, **more: Any) -> Request:
    """Decode one life cycle event."""
    attributes = {**EVENT, **more.pop("attributes", {})}
    return decoded(logs([log(name, 5, number=number, attributes=attributes)], OURS))


# --- Bodies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (Encoding.PROTOBUF, b"\xff\xff\xff"),
        (Encoding.JSON, b"{"),
        (Encoding.JSON, b"[]"),
        (Encoding.JSON, b"null"),
        (Encoding.JSON, b'{"resourceSpans": {}}'),
        (Encoding.JSON, b'{"resourceSpans": [null]}'),
        (Encoding.JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "soon"}]}]}]}'),
        (Encoding.JSON, b"\xff\xfe\x00"),
        (Encoding.JSON, b"[" * 100_000),
        (Encoding.JSON, b'{"resourceSpans": ' + b'[{"x": ' * 50_000 + b"1" + b"}]" * 50_000 + b"}"),
    ],
)
def test_a_body_that_is_none_is_refused_as_a_whole(encoding: Encoding, body: bytes) -> None:
    """The error says what the body should have been."""
    with pytest.raises(DecodeError, match=f"no ExportTraceServiceRequest in {encoding.value}"):
        decode(Signal.TRACES, encoding, body, BEGAN)


@pytest.mark.parametrize(
    ("signal", "body"), [(Signal.TRACES, b""), (Signal.LOGS, b""), (Signal.METRICS, b"")]
)
def test_an_empty_request_is_a_success_that_stores_nothing(signal: Signal, body: bytes) -> None:
    """Clients send such to see whether anybody listens."""
    request = decode(signal, Encoding.PROTOBUF, body, BEGAN)
    assert (request.keep, request.rejected, request.spans, request.logs) == (False, 0, (), ())


def test_a_span_without_a_valid_id_is_rejected_alone() -> None:
    """Wrong length or all zero: counted and named; what is left keeps its place in the request."""
    good, no_trace, short, zero = span(1), span(2), span(3), span(4)
    no_trace.trace_id = bytes(16)
    short.span_id = b"123"
    zero.span_id = bytes(8)
    request = decoded(traces([no_trace, short, good, zero]))
    assert [(one.span_id, one.ordinal) for one in request.spans] == [(sid(1), 2)]
    assert (request.rejected, request.keep) == (3, True)
    assert request.message == "3 of 4 spans have no valid trace id or span id"


def test_bad_hex_in_json_costs_one_span_not_the_request() -> None:
    """An id that is no hex, or no text at all, is no id."""
    spans: list[dict[str, Any]] = [
        {"traceId": TRACE.hex(), "spanId": sid(1).hex()},
        {"traceId": "not hex", "spanId": sid(2).hex()},
        {"traceId": TRACE.hex(), "spanId": 5},
    ]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    request = decode(Signal.TRACES, Encoding.JSON, body, BEGAN)
    assert [one.span_id for one in request.spans] == [sid(1)]
    assert request.rejected == 2
    assert request.body is body


def test_metrics_are_counted_and_not_kept() -> None:
    """Data points by the metric's name, over all its kinds."""
    message = ExportMetricsServiceRequest()
    scope = message.resource_metrics.add().scope_metrics.add()
    tokens, calls = scope.metrics.add(name="tokens"), scope.metrics.add(name="calls")
    tokens.sum.data_points.add()
    tokens.sum.data_points.add()
    calls.histogram.data_points.add()
    scope.metrics.add(name="empty")
    request = decode(Signal.METRICS, Encoding.PROTOBUF, message.SerializeToString(), BEGAN)
    assert (dict(request.metrics), request.keep) == ({"tokens": 2, "calls": 1}, False)


def test_what_metrics_are_counted_by_is_bounded_in_number_and_length() -> None:
    """They are kept as long as the backend runs; two long ids stay two."""
    message = ExportMetricsServiceRequest()
    points = (
        message.resource_metrics.add().scope_metrics.add().metrics.add(name="m" * 9_999).gauge.data_points
    )
    long = ["s" * 9_999 + end for end in "ab"]
    for name in (*long, *(f"session {number}" for number in range(MOST_APART))):
        points.add().attributes.add(key="session.id").value.string_value = name
    request = decode(Signal.METRICS, Encoding.PROTOBUF, message.SerializeToString(), BEGAN)
    assert [(len(name), count) for name, count in request.metrics.items()] == [(MAX_WORD, MOST_APART + 2)]
    assert len(request.metric_sessions) == MOST_APART + 1
    assert request.metric_sessions[OTHERS] == 2
    assert [len(name) for name in request.metric_sessions][:3] == [MAX_WORD, MAX_WORD, len("session 0")]


# --- Spans ------------------------------------------------------------------------------------------------


def test_ordinals_count_over_all_resources_and_scopes() -> None:
    """They say where a span lies in its body, so that it can be found again."""
    message = traces([span(1), span(2)])
    message.resource_spans.add().CopyFrom(traces([span(3)], "other", {"service.name": "b"}).resource_spans[0])
    assert [(one.ordinal, one.service) for one in decoded(message).spans] == [
        (0, "agent"),
        (1, "agent"),
        (2, "b"),
    ]


def test_a_span_bears_what_its_attributes_say() -> None:
    """The conventions' names, without anything invented beside them."""
    record = decoded_span(
        span(2, 1, "chat gpt", 1, 2, attributes={
            "session.id": "s1", "user.id": "u", "gen_ai.conversation.id": "c", "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt", "gen_ai.agent.name": "planner", "gen_ai.usage.input_tokens": 120,
            "gen_ai.usage.output_tokens": 18, "gen_ai.usage.cache_read.input_tokens": 64, "gen_ai.usage.cost": 0.5,
            "gen_ai.input.messages": "[]", "otel_sessions.task.id": "t", "otel_sessions.task.name": "ask",
            "otel_sessions.task.parent.id": "t0",
        })
    )  # fmt: skip
    assert record.hint is not None
    assert (record.hint.value, record.hint.scope) == ("s1", "")
    assert (record.parent_id, record.start, record.end) == (sid(1), BEGAN + SECOND, BEGAN + 3 * SECOND)
    assert (record.category, record.model, record.agent, record.tool) == ("model", "gpt", "planner", None)
    assert (record.input_tokens, record.output_tokens, record.cached_tokens, record.cost) == (
        120,
        18,
        64,
        0.5,
    )
    assert (record.user_id, record.conversation_id) == ("u", "c")
    assert (record.task_id, record.task_name, record.task_parent_id, record.task_state) == (
        "t",
        "ask",
        "t0",
        None,
    )
    assert record.flags == Flag.CONTENT
    assert record.outcome is None


def test_a_bare_span_says_nothing_it_does_not_know() -> None:
    """No 0, no "", no category but step."""
    record = decoded_span(span(1))
    unknown = (record.hint, record.model, record.agent, record.tool, record.input_tokens, record.output_tokens,
               record.cached_tokens, record.cost, record.task_id, record.user_id, record.conversation_id, record.outcome)  # fmt: skip
    assert set(unknown) == {None}
    assert (record.category, record.flags, record.turn, record.parent_id) == ("step", 0, False, b"")


def test_only_calls_of_models_bear_usage() -> None:
    """Agents and chains repeat the usage of what is below them; it would count twice."""
    usage = {"gen_ai.usage.input_tokens": 240, "gen_ai.usage.output_tokens": 36, "gen_ai.usage.cost": 1.0}
    for operation in ("invoke_agent", "invoke_workflow", "execute_tool", "chain"):
        record = decoded_span(span(1, 9, attributes={"gen_ai.operation.name": operation, **usage}))
        assert (record.input_tokens, record.output_tokens, record.cost) == (None, None, None)
    assert decoded_span(span(1, 9, attributes=usage)).category == "model"


def test_flags_tell_what_the_page_draws() -> None:
    """Late, forced, an exception, content in an event, links."""
    one = span(1, attributes={"otel_sessions.late": True, "otel_sessions.forced_end": True},
               events=[("exception", {}), ("gen_ai.user.message", {})])  # fmt: skip
    one.links.add(trace_id=TRACE, span_id=sid(5))
    expected = Flag.LATE | Flag.FORCED | Flag.EXCEPTION | Flag.CONTENT | Flag.LINKED
    assert decoded_span(one).flags == expected
    assert decoded_span(span(1, attributes={"otel_sessions.late": False})).flags == 0


def test_a_span_without_an_end_is_open() -> None:
    """Its end is unknown, not 1970."""
    one = span(1)
    one.end_time_unix_nano = 0
    record = decoded_span(one)
    assert (record.end, record.flags) == (None, Flag.OPEN)


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({}, None),
        ({"status": 1}, None),  # OpenAI Agents and AgentScope write OK on cancelled runs
        ({"status": 2}, "error"),
        ({"events": [("span.cancelled", {"reason": "by user"})], "status": 1}, "cancelled"),
        ({"attributes": {"agentops.session.end_state": "Success"}}, "ok"),
        ({"attributes": {"agentops.session.end_state": "Fail"}}, "error"),
        ({"attributes": {"agentops.session.end_state": "Indeterminate"}}, None),
    ],
)
def test_a_root_says_how_its_session_went_where_the_data_knows(
    more: dict[str, Any], outcome: str | None
) -> None:
    """Status OK is no outcome; a child never speaks for the session."""
    assert decoded_span(span(1, **more)).outcome == outcome
    assert decoded_span(span(1, 9, **more)).outcome is None


def test_a_task_span_says_its_state() -> None:
    """Its category comes from the state that only task spans bear."""
    given = {"otel_sessions.task.id": "t", "otel_sessions.task.state": "failed"}
    record = decoded_span(span(1, 9, "task ask", attributes=given), OURS)
    assert (record.category, record.task_state) == ("task", "failed")


def test_the_root_of_a_run_tells_that_the_run_ended() -> None:
    """By the end reason that it bears; its counts come along."""
    given = {"session.id": "s1", semconv.SESSION_NAME: "trip", semconv.SESSION_TITLE: "Lisbon", semconv.PROCESS_ID: "p1",
             semconv.SESSION_OUTCOME: "error", semconv.SESSION_END_REASON: "timeout", semconv.SPANS_STARTED: 5,
             semconv.SPANS_ENDED: 4, semconv.SPANS_DROPPED: 0}  # fmt: skip
    request = decoded(traces([span(1, 0, "session trip", 0, 2, attributes=given, status=2)], OURS))
    [root] = request.spans
    assert (root.category, root.session_name, root.title, root.outcome, root.turn) == (
        "session",
        "trip",
        "Lisbon",
        "error",
        False,
    )
    assert request.events == (
        RunEvent("root", "s1", TRACE, sid(1), BEGAN + 2 * SECOND, "p1", session_name="trip", title="Lisbon", outcome="error",
                 end_reason="timeout", started_at=BEGAN, started=5, ended=4, dropped=0),
    )  # fmt: skip


def test_a_root_that_somebody_made_up_ends_no_run() -> None:
    """A synthetic root never beats a real one."""
    given = {
        "session.id": "s1",
        semconv.SESSION_NAME: "trip",
        semconv.SESSION_END_REASON: "x",
        semconv.SYNTHETIC: True,
    }
    request = decoded(traces([span(1, attributes=given)], OURS))
    assert (request.events, request.spans[0].flags) == ((), Flag.SYNTHETIC)


# --- Life cycle events ----------------------------------------------------------------------------------------


def test_a_start_announces_the_root_and_the_run() -> None:
    """The root is open until its span arrives; the log itself is kept."""
    request = event(
        "session.start",
        attributes={semconv.SESSION_NAME: "trip", semconv.SESSION_TITLE: "Lisbon", "user.id": "u"},
    )
    at = BEGAN + 5 * SECOND
    assert request.events == (
        RunEvent("session.start", "s1", TRACE, sid(1), at, "p1", 3, 7_000_000_000, 2_500_000_000, 60_000_000_000,
                 session_name="trip", title="Lisbon", started_at=at),
    )  # fmt: skip
    [root] = request.spans
    assert (root.name, root.category, root.start, root.end, root.flags) == (
        "session trip",
        "session",
        at,
        None,
        Flag.OPEN,
    )
    assert root.hint is not None
    assert (root.hint.value, root.session_name, root.title, root.user_id) == ("s1", "trip", "Lisbon", "u")
    assert [one.event_name for one in request.logs] == ["session.start"]
    assert request.keep


def test_a_resumed_run_names_the_session_it_continues_only_if_it_is_another() -> None:
    """The convention demands that the two ids differ."""
    resumed = event("otel_sessions.session.resumed", attributes={"session.previous_id": "s0"})
    assert resumed.events[0].previous_id == "s0"
    assert [one.name for one in resumed.spans] == ["session"]
    assert event("session.start", attributes={"session.previous_id": "s1"}).events[0].previous_id is None


def test_heartbeats_alone_leave_nothing_to_store() -> None:
    """Only the last one matters, and that is the live view's business."""
    given = {semconv.PHASE: "waiting", semconv.WAITING_FOR: "approval", semconv.SPANS_STARTED: 3, semconv.SPANS_ENDED: 1,
             semconv.SPANS_DROPPED: 0, semconv.OPEN_SPANS: [sid(1).hex(), "no hex", sid(2).hex()]}  # fmt: skip
    request = event("otel_sessions.session.heartbeat", attributes=given)
    [beat] = request.events
    assert (beat.phase, beat.waiting_for, beat.started, beat.ended, beat.dropped) == (
        "waiting",
        "approval",
        3,
        1,
        0,
    )
    assert beat.open_spans == (sid(1), sid(2))
    assert (request.logs, request.spans, request.keep) == ((), (), False)


def test_an_announced_span_is_open_and_no_event_of_its_run() -> None:
    """All that is known of it is its conventional name."""
    given = {semconv.SPAN_NAME: "execute_tool search", semconv.SPAN_KIND: 1, semconv.SPAN_PARENT_ID: sid(1).hex(),
             semconv.SPAN_START: BEGAN, semconv.TASK_ID: "t"}  # fmt: skip
    request = event("otel_sessions.span.start", number=4, attributes=given)
    [one] = request.spans
    assert (one.span_id, one.parent_id, one.start, one.end) == (sid(4), sid(1), BEGAN, None)
    assert (one.category, one.tool, one.flags, one.task_id) == ("tool", "search", Flag.OPEN, "t")
    assert request.events == ()
    assert len(request.logs) == 1


def test_a_child_process_speaks_for_itself() -> None:
    """It bears the root's id, and announces no root."""
    request = event("session.start", attributes={semconv.CHILD: True})
    assert (request.events[0].child, request.spans) == (True, ())


@pytest.mark.parametrize("lease", [float("nan"), float("inf"), -1.0, 0.0, 1e300, "60", True])
def test_a_lease_that_no_clock_could_wait_for_counts_as_not_said(lease: Any) -> None:
    """The default stands in."""
    [told] = event("otel_sessions.session.heartbeat", attributes={semconv.LEASE: lease}).events
    assert told.lease == 120_000_000_000


def test_an_event_of_nobody_is_a_plain_log() -> None:
    """Without a session id, or in a scope that is not ours, an event's name means nothing to the life cycle."""
    foreign = decoded(logs([log("session.start", number=1, attributes=EVENT)], "browser"))
    nameless = decoded(logs([log("session.start", number=1)], OURS))
    for request in (foreign, nameless):
        assert (request.events, request.spans, len(request.logs)) == ((), (), 1)


# --- Foreign logs ---------------------------------------------------------------------------------------------


def test_an_event_name_is_the_field_unless_it_is_a_source_position() -> None:
    """Codex writes where in its source the event was made, and the name into an attribute."""
    given = {"attributes": {"event.name": "codex.user_prompt"}}
    assert decoded_log(log("turn.start", **given)).event_name == "turn.start"
    assert decoded_log(log("event otel/src/events/session.rs:703", **given)).event_name == "codex.user_prompt"
    assert decoded_log(log("", **given)).event_name == "codex.user_prompt"
    assert decoded_log(log("")).event_name == ""


def test_a_log_of_its_own_time_or_else_the_observers() -> None:
    """A log without any time has none."""
    one = log("x", 4)
    assert decoded_log(one).time == BEGAN + 4 * SECOND
    one.time_unix_nano, one.observed_time_unix_nano = 0, 77
    assert decoded_log(one).time == 77
    one.observed_time_unix_nano = 0
    assert decoded_log(one).time == 0


@pytest.mark.parametrize(
    ("attributes", "digests"),
    [
        ({}, 2),
        ({"log.record.uid": "01K"}, 1),
        ({"otel_sessions.process.id": "p", "otel_sessions.seq": 7}, 1),
        ({"otel_sessions.process.id": "p"}, 2),
    ],
)
def test_a_log_with_a_name_of_its_own_is_one_however_often_it_is_in_a_request(
    attributes: dict[str, Any], digests: int
) -> None:
    """A Collector may merge two deliveries into one request; two equal logs without a name may be two."""
    twice = decoded(logs([log("said", body="x", attributes=attributes)] * 2))
    assert len({one.digest for one in twice.logs}) == digests


def test_the_same_log_sent_again_has_the_same_digest() -> None:
    """A repeated request gives the same digests; equal records within one request are different logs."""
    message = logs([log("tick", 1), log("tick", 1), log("tick", 2)])
    first, again = decoded(message), decoded(message)
    digests = [one.digest for one in first.logs]
    assert digests == [one.digest for one in again.logs]
    assert len(set(digests)) == 3
    elsewhere = decoded(logs([log("tick", 1)], given={"service.name": "other"}))
    assert elsewhere.logs[0].digest not in digests


# --- Bounds ------------------------------------------------------------------------------------------------

GREATEST = 2**63 - 1


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_request_of_too_many_items_is_refused(signal: Signal, level: int) -> None:
    """Empty items cost two bytes each and shrink a thousandfold: resources, scopes and records count alike."""
    body = _repeated(level, MAX_ITEMS - level)
    decode(signal, Encoding.PROTOBUF, body, BEGAN)
    with pytest.raises(DecodeError, match=f"more than {MAX_ITEMS}"):
        decode(signal, Encoding.PROTOBUF, _repeated(level, MAX_ITEMS - level + 1), BEGAN)


def test_too_many_items_in_json_are_refused_too() -> None:
    """The limit holds for each encoding."""
    body = json.dumps({"resourceSpans": [{}] * (MAX_ITEMS + 1)}).encode()
    with pytest.raises(DecodeError, match=f"more than {MAX_ITEMS}"):
        decode(Signal.TRACES, Encoding.JSON, body, BEGAN)


@pytest.mark.parametrize("name", [semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_END])
def test_an_event_beyond_all_clocks_is_of_the_last_moment(name: str) -> None:
    """OTLP's times are unsigned, a column's are not."""
    record = log(name, number=1, attributes=EVENT)
    record.time_unix_nano = 2**64 - 1
    [told] = decoded(logs([record], OURS)).events
    assert told.at == GREATEST
    assert told.started_at in (None, GREATEST)


def test_a_root_beyond_all_clocks_is_of_the_last_moment() -> None:
    """Else its run could not be stored, nor anything that comes with it."""
    root = span(1, name="session x", attributes={**EVENT, semconv.SESSION_END_REASON: "completed"})
    root.start_time_unix_nano, root.end_time_unix_nano = 2**63, 2**64 - 1
    [told] = decoded(traces([root], OURS)).events
    assert (told.started_at, told.at) == (GREATEST, GREATEST)


def test_long_words_are_cut_and_long_ids_stay_distinct() -> None:
    """An index row is bounded; two ids that differ only in their tail are two."""
    long = "x" * (2 * MAX_WORD)
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": long, "gen_ai.agent.name": long, "user.id": long,
        semconv.SESSION_ID: long, semconv.TASK_ID: long, semconv.TASK_NAME: long, semconv.SESSION_TITLE: long,
    }  # fmt: skip
    given = {"service.name": long}
    one = decoded_span(span(1, 0, long, attributes=attributes), given=given)
    other = decoded_span(span(2, attributes={semconv.SESSION_ID: long + "y", semconv.TASK_ID: long + "y"}))
    words = [one.name, one.model, one.agent, one.title, one.task_name, one.service]
    assert words == ["x" * (MAX_WORD - 1) + "…"] * len(words)
    assert one.hint is not None
    assert other.hint is not None
    ids = {one.hint.value, other.hint.value}
    assert len(ids) == len({one.task_id, other.task_id}) == 2
    assert {len(id_) for id_ in (*ids, one.task_id or "", one.user_id or "")} == {MAX_WORD}


def test_an_event_and_a_span_shorten_the_same_id_alike() -> None:
    """What a run's events tell belongs to the session of its spans."""
    long = "x" * (2 * MAX_WORD)
    request = event(
        semconv.EVENT_SESSION_START, attributes={semconv.SESSION_ID: long, semconv.SESSION_TITLE: long}
    )
    of_span = decoded_span(span(1, attributes={semconv.SESSION_ID: long})).hint
    [told], [root], [record] = request.events, request.spans, request.logs
    assert root.hint is not None
    assert record.hint is not None
    assert of_span is not None
    assert {told.session_id, root.hint.value, record.hint.value} == {of_span.value}
    assert told.title is not None
    assert len(told.title) == MAX_WORD


def test_a_word_of_the_greatest_length_is_kept() -> None:
    """Only what is longer is cut."""
    word = "x" * MAX_WORD
    record = decoded_span(span(1, 0, word, attributes={semconv.SESSION_ID: word}))
    assert record.hint is not None
    assert (record.name, record.hint.value) == (word, word)


def _repeated(level: int, count: int) -> bytes:
    """Write a request of empty resources, or one resource of empty scopes, or of one scope of empty records."""
    body = b"\x0a\x00" * count if level == 0 else b"\x12\x00" * count
    for depth in range(level, 0, -1):
        tag = b"\x0a" if depth == 1 else b"\x12"
        body = tag + _varint(len(body)) + body
    return body


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


@pytest.mark.parametrize(
    "key", ["gen_ai.provider.name", "gen_ai.system", "llm.provider", "ai.model.provider"]
)
def test_who_serves_a_model_is_known_by_elder_names_too(key: str) -> None:
    """In lower case, and of calls only."""
    call = {"gen_ai.operation.name": "chat", key: "OpenAI"}
    assert decoded_span(span(1, attributes=call)).provider == "openai"
    tool = {"gen_ai.operation.name": "execute_tool", key: "OpenAI"}
    assert decoded_span(span(2, attributes=tool)).provider is None
