"""Records as JSON: nothing is rounded, invented or lost on the way to a browser."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.backend.api.shapes import (
    detail_json,
    hit_json,
    run_json,
    session_json,
    span_row_json,
    task_json,
    timeline_json,
)
from otel_sessions.backend.records import (
    Flag,
    OpenSpan,
    RunRecord,
    SessionDetail,
    SessionRecord,
    SpanRow,
    TaskRecord,
    TimelineEntry,
)
from otel_sessions.backend.replies import encode
from otel_sessions.backend.store.base import Hit
from otel_sessions.lifecycle import Phase, Run, Signal

EXACT = 1_763_730_000_123_456_789  # no double holds this

SESSION = SessionRecord(
    id="s1",
    session_id="a/b",
    name="plan trip",
    title=None,
    service="planner",
    user_id=None,
    conversation_id=None,
    state="running",
    phase="running",
    signal="none",
    waiting_for=None,
    outcome=None,
    end_reason=None,
    started_at=EXACT,
    ended_at=None,
    last_seen_at=EXACT + 5,
    last_alive_at=EXACT + 5,
    runs_count=0,
    spans=3,
    errors=0,
    traces_count=1,
    tasks_count=0,
    turns=None,
    model_calls=1,
    tool_calls=0,
    agents=("triage",),
    models=(),
    tools=("search", "book"),
    input_tokens=None,
    output_tokens=0,
    cached_tokens=None,
    cost=None,
    missing_spans=None,
    inferred=True,
    revision=7,
)


def test_times_are_strings_that_keep_every_nanosecond():
    """A JavaScript number would round them to the quarter of a microsecond."""
    shown = session_json(SESSION, idle_before=0)
    assert (shown["started_at"], shown["last_seen_at"]) == (str(EXACT), str(EXACT + 5))


def test_unknown_is_null_and_zero_is_zero():
    """Nobody said how many tokens went in; somebody said that none came out."""
    shown = session_json(SESSION, idle_before=0)
    assert shown["input_tokens"] is None
    assert shown["output_tokens"] == 0
    assert shown["title"] is None
    assert shown["duration"] is None


def test_every_field_of_the_record_is_shown():
    """A field added to the record does not stay behind."""
    names = {field.name for field in dataclasses.fields(SessionRecord)}
    assert set(session_json(SESSION, idle_before=0)) == names | {"duration"}


@pytest.mark.parametrize(
    ("changes", "idle_before", "state"),
    [
        ({}, EXACT + 4, "running"),
        ({}, EXACT + 5, "idle"),
        ({"runs_count": 1}, EXACT + 5, "running"),
        ({"runs_count": 1, "state": "stale"}, EXACT + 5, "stale"),
        ({"state": "ended"}, EXACT + 5, "ended"),
    ],
)
def test_only_a_silent_session_without_any_known_run_is_idle(changes, idle_before, state):
    """Idle is a guess from silence; where a run is known there is no need to guess."""
    record = dataclasses.replace(SESSION, **changes)
    assert session_json(record, idle_before=idle_before)["state"] == state


@pytest.mark.parametrize(
    ("changes", "duration"),
    [
        ({"runs_count": 1, "state": "ended", "ended_at": EXACT + 9}, "9"),
        ({"runs_count": 1, "state": "running", "ended_at": EXACT + 9, "last_ended_at": EXACT + 3}, None),
        ({"runs_count": 1, "state": "ended", "ended_at": None}, None),
        ({"runs_count": 1, "state": "ended", "ended_at": EXACT - 1}, None),
        ({"last_ended_at": EXACT + 3}, "3"),
        ({"last_ended_at": EXACT - 1}, None),
        ({}, None),
    ],
)
def test_a_duration_is_told_where_the_end_is_known(changes, duration):
    """Of a session without any run its spans tell; while one is open, or a clock was set back, nobody knows."""
    assert session_json(dataclasses.replace(SESSION, **changes), idle_before=0)["duration"] == duration


def test_a_cost_that_is_no_number_is_unknown():
    """A sender may claim NaN; JSON has no word for it."""
    for cost in (float("nan"), float("inf")):
        assert session_json(dataclasses.replace(SESSION, cost=cost), idle_before=0)["cost"] is None
    assert session_json(dataclasses.replace(SESSION, cost=0.27), idle_before=0)["cost"] == 0.27


def test_a_detail_holds_the_session_and_everything_about_it():
    """Ids are hex, durations of leases are strings, an absent id is null."""
    run = RunRecord(
        "s1",
        b"\x01" * 8,
        b"\xab" * 16,
        "p1",
        Run(phase=Phase.WAITING, waiting_for="approval", signal=Signal.LIVE, started_at=EXACT),
        5_000_000_000,
        120_000_000_000,
        last_heard_at=EXACT + 1,
        open_spans=(b"\x02" * 8,),
    )
    detail = SessionDetail(
        SESSION,
        (run,),
        (b"\xab" * 16,),
        (TaskRecord("t", None, None, "done", EXACT, EXACT + 4, 2, b"\xab" * 16, None),),
        (TimelineEntry("s1", b"", EXACT, "running"),),
        (OpenSpan(b"\xab" * 16, b"\x02" * 8, "chat", EXACT, "model"),),
        {"queue_full": 3},
    )
    shown = detail_json(detail, idle_before=0)
    assert shown["id"] == "s1"
    assert shown["traces"] == ["ab" * 16]
    assert shown["losses"] == {"queue_full": 3}
    assert shown["runs"] == [run_json(run)]
    assert shown["runs"][0]["open_spans"] == ["02" * 8]
    assert (shown["runs"][0]["phase"], shown["runs"][0]["waiting_for"]) == ("waiting", "approval")
    assert shown["runs"][0]["lease"] == "120000000000"
    assert shown["tasks"] == [task_json(detail.tasks[0])]
    assert (shown["tasks"][0]["duration"], shown["tasks"][0]["span_id"]) == ("4", None)
    assert shown["timeline"] == [timeline_json(detail.timeline[0])]
    assert shown["timeline"][0]["root_id"] is None
    assert shown["open_spans"][0]["span_id"] == "02" * 8


def test_a_span_row_tells_no_service_as_null():
    """An empty string is how the store says that nobody told."""
    row = SpanRow(
        b"\xab" * 16, b"\x01" * 8, b"", "chat", 3, "model", EXACT, None, 0, int(Flag.OPEN), "", None, None,
        "m", None, 5, None, 1,
    )  # fmt: skip
    shown = span_row_json(row)
    assert (shown["service"], shown["parent_id"], shown["end"], shown["model"]) == (None, None, None, "m")


def test_a_hit_names_its_session_and_span():
    """A hit is a place to go to."""
    hit = Hit("s1", None, b"\xab" * 16, b"\x01" * 8, "chat", EXACT, "…text…", ((1, 5),), "name")
    assert hit_json(hit) == {
        "session": "s1",
        "session_name": None,
        "trace_id": "ab" * 16,
        "span_id": "01" * 8,
        "name": "chat",
        "start": str(EXACT),
        "snippet": "…text…",
        "marks": [[1, 5]],
        "field": "name",
    }


LOW_SURROGATES = st.characters(min_codepoint=0xDC00, max_codepoint=0xDFFF)


@given(
    st.lists(st.none() | st.integers() | st.text() | st.text(st.characters(codec="utf-8") | LOW_SURROGATES))
)
def test_any_text_survives_the_encoding(value):
    """Every character arrives, lone surrogates of a careless sender included."""
    assert json.loads(encode(value)) == value
