"""Whose session a record is: one answer, whatever the order of arrival."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry import OTHER_TRACE, TRACE, decoded, decoded_log, decoded_span, log, logs, span, traces

from otel_sessions.backend.records import LogRecord, SessionHint, SpanRecord
from otel_sessions.backend.resolve import (
    global_key,
    home_rank,
    scoped_twin,
    service_scope,
    session_id,
    session_key,
    trace_key,
)

ORDER = (
    ("session.id", "test"),
    ("langfuse.session.id", "test"),
    ("gen_ai.conversation.id", "test"),
    ("conversation.id", "codex_exec"),
    ("thread_id", "codex_exec"),
    ("langsmith.metadata.thread_id", "test"),
    ("traceloop.association.properties.session_id", "test"),
    ("lmnr.association.properties.session_id", "test"),
    ("ai.telemetry.metadata.sessionId", "test"),
    ("ai.telemetry.metadata.session_id", "test"),
    ("mlflow.trace.session", "test"),
    ("langfuse.trace.metadata.langfuse_session_id", "test"),
    ("langfuse.observation.metadata.langfuse_session_id", "test"),
    ("gcp.vertex.agent.session_id", "test"),
    ("workflow.session_id", "test"),
    ("llamaindex.handler_id", "test"),
)


def hint(
    attributes: dict[str, Any], scope: str = "test", given: dict[str, Any] | None = None
) -> SessionHint | None:
    """Decode what a span says of its session."""
    return decoded_span(span(1, attributes=attributes), scope, given).hint


@pytest.mark.parametrize(("key", "scope"), ORDER)
def test_each_name_of_a_session_is_found(key: str, scope: str) -> None:
    """`session.id` is global, whatever else is found belongs to the service."""
    found = hint({key: "x"}, scope)
    assert found == SessionHint("x", "" if key == "session.id" else "/agent", "/agent")


@pytest.mark.parametrize("first", range(len(ORDER) - 1))
def test_the_first_name_wins_over_all_that_follow(first: int) -> None:
    """In the order of attributes on the wire, and against it."""
    scope = "codex_exec" if "codex_exec" in (ORDER[first][1], ORDER[first + 1][1]) else "test"
    attributes = {key: str(place) for place, (key, _) in enumerate(ORDER) if place >= first}
    for ordered in (attributes, dict(reversed(attributes.items()))):
        found = hint(ordered, scope)
        assert found is not None
        assert found.value == str(first)


@pytest.mark.parametrize(
    "key",
    ["mcp.session.id", "langsmith.trace.session_name", "langsmith.trace.session_id", "lmnr.internal.has_browser_session",
     "thread.id", "conversation.id", "thread_id"],
)  # fmt: skip
def test_what_only_looks_like_a_session_is_none(key: str) -> None:
    """Transports, projects, OS threads; and Codex's bare names outside Codex."""
    assert hint({key: "x"}) is None


@pytest.mark.parametrize("nothing", ["", "unknown", "[no_session_id]", "  ", None])
def test_what_stands_for_no_id_leaves_the_word_to_the_next(nothing: str | None) -> None:
    """Emitters write such where they have none."""
    assert hint({"session.id": nothing}) is None
    assert hint({"session.id": nothing, "gen_ai.conversation.id": "c"}) == SessionHint(
        "c", "/agent", "/agent"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (0, "0"), (True, "true"), (1.5, "1.5"), (["a"], '["a"]')]
)
def test_an_id_that_is_no_text_becomes_text(value: Any, text: str) -> None:
    """Thread ids are numbers in many programs."""
    found = hint({"session.id": value})
    assert found is not None
    assert found.value == text


def test_agentscopes_quotes_are_stripped_once_and_nobody_elses() -> None:
    """It encodes its run id as JSON."""
    quoted, twice = {"gen_ai.conversation.id": '"run-1"'}, {"gen_ai.conversation.id": '"\\"run-1\\""'}
    assert [getattr(hint(given, "agentscope"), "value", None) for given in (quoted, twice)] == [
        "run-1",
        '"run-1"',
    ]
    assert getattr(hint(quoted), "value", None) == '"run-1"'
    assert hint({"gen_ai.conversation.id": '"unknown"'}, "agentscope") is None


def test_a_json_map_of_properties_is_looked_into() -> None:
    """Older traceloop SDKs; a cut map says nothing."""
    assert getattr(hint({"traceloop.association.properties": '{"session_id": "x"}'}), "value", None) == "x"
    assert hint({"traceloop.association.properties": '{"session_id": "x'}) is None


def test_half_a_character_in_an_id_is_replaced() -> None:
    """JSON may hold what UTF-8 can't; an id of it would break whoever stores or hashes it."""
    found = hint({"traceloop.association.properties": '{"session_id": "a\\ud83d"}'})
    assert found is not None
    assert found.value == "a\ufffd"
    assert len(session_id(session_key(found))) == 20


def test_the_resource_speaks_where_the_record_does_not() -> None:
    """By `session.id` only; the record's own id comes first."""
    given = {"service.name": "agent", "session.id": "r"}
    assert hint({}, given=given) == SessionHint("r", "", "/agent")
    assert hint({"langfuse.session.id": "own"}, given=given) == SessionHint("own", "/agent", "/agent")
    assert hint({}, given={"service.name": "agent", "gen_ai.conversation.id": "c"}) is None
    assert decoded_log(log("x"), given=given).hint == SessionHint("r", "", "/agent")


def test_the_same_id_on_the_resource_and_under_another_key_is_the_global_one() -> None:
    """Gemini CLI's spans bear it as a conversation, its resource as session.id."""
    found = hint({"gen_ai.conversation.id": "x"}, given={"service.name": "gemini-cli", "session.id": "x"})
    assert found == SessionHint("x", "", "/gemini-cli")


def test_ids_of_two_services_are_two_sessions_but_session_id_is_one() -> None:
    """Thread "1" of one program is not thread "1" of another."""
    one = hint({"langsmith.metadata.thread_id": "1"}, given={"service.name": "a", "service.namespace": "n"})
    other = hint({"langsmith.metadata.thread_id": "1"}, given={"service.name": "b", "service.namespace": "n"})
    assert one is not None
    assert other is not None
    assert session_key(one) != session_key(other)
    shared = [hint({"session.id": "1"}, given={"service.name": name}) for name in ("a", "b")]
    assert {session_key(found) for found in shared if found} == {global_key("1")}


def test_a_global_id_names_its_twin_within_its_service() -> None:
    """What that service sends under another key with the same value is the same session."""
    sent_as_session, sent_as_thread = hint({"session.id": "x"}), hint({"gen_ai.conversation.id": "x"})
    assert sent_as_session is not None
    assert sent_as_thread is not None
    assert scoped_twin(sent_as_session) == session_key(sent_as_thread)
    assert scoped_twin(sent_as_thread) is None


_words = st.text(max_size=6)
_keys = st.builds(global_key, _words) | st.builds(
    lambda value, scope: session_key(SessionHint(value, scope)), _words, st.builds(service_scope, _words, _words)
) | st.builds(trace_key, st.binary(min_size=16, max_size=16))  # fmt: skip


@given(_words, _words, st.builds(service_scope, _words, _words), st.builds(service_scope, _words, _words))
def test_keys_of_different_sessions_differ(value: str, other: str, scope: str, elsewhere: str) -> None:
    """Whatever characters ids and services hold."""
    if (value, scope) != (other, elsewhere):
        assert session_key(SessionHint(value, scope)) != session_key(SessionHint(other, elsewhere))
    assert session_key(SessionHint(value, scope)) != global_key(other)


@given(_keys)
def test_a_public_id_is_safe_in_an_address_and_always_the_same(key: str) -> None:
    """20 lower-case hex digits, derived from the key alone."""
    public = session_id(key)
    assert len(public) == 20
    assert set(public) <= set("0123456789abcdef")
    assert session_id(key) == public


def test_public_ids_stay_what_they_are() -> None:
    """Links are kept for years: a change here breaks them."""
    assert session_id(global_key("s1")) == "d698df9d2c5b96558dff"


# --- A trace's home ------------------------------------------------------------------------------------------


def home(records: list[SpanRecord | LogRecord]) -> str | None:
    """Choose the session of a trace, as any order of arrival must."""
    ranked = [(home_rank(record), session_key(record.hint)) for record in records if record.hint]
    return min(ranked)[1] if ranked else None


def test_the_root_decides_then_the_earliest_span_then_a_log() -> None:
    """A child that says something counts only while the root says nothing."""
    root = span(1, at=5, attributes={"session.id": "root"})
    early, late = (
        span(2, 9, at=1, attributes={"session.id": "early"}),
        span(3, 9, at=2, attributes={"session.id": "late"}),
    )
    told = decoded(logs([log("x", 0, number=2, attributes={"session.id": "log"})])).logs
    spans = decoded(traces([late, early, root])).spans
    assert home([*spans, *told]) == global_key("root")
    assert home([*spans[:2], *told]) == global_key("early")
    assert home([*told]) == global_key("log")


_records = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(0, 3), st.sampled_from(["", "a", "b", "c"])),
    min_size=1, max_size=8, unique_by=lambda drawn: drawn[0],
)  # fmt: skip


@given(_records.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn), st.integers(0, 8))))
def test_the_order_of_arrival_does_not_change_a_traces_home(drawn: Any) -> None:
    """In one request or in two, in any order."""
    records, shuffled, cut = drawn

    def arrive(order: list[Any]) -> list[SpanRecord | LogRecord]:
        made = [
            span(number, parent, at=at, attributes={"session.id": value})
            for number, parent, at, value in order
        ]
        return [*decoded(traces(made)).spans]

    assert home(arrive(records)) == home([*arrive(shuffled[:cut]), *arrive(shuffled[cut:])])


def test_two_traces_have_two_keys() -> None:
    """A trace without any id is a session of its own."""
    assert trace_key(TRACE) != trace_key(OTHER_TRACE)
    assert trace_key(TRACE) == f"trace:{TRACE.hex()}"
