"""Real telemetry, and samples of its traps: everything decodes, and lands in the session it belongs to."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planting import planted
from recorded import bodies_of, decoded, every_recording, expected_of, samples
from telemetry import row_of

from otel_sessions.backend.decode import parse
from otel_sessions.backend.otlp_json import log_json, span_json
from otel_sessions.backend.records import Encoding, LogRecord, Request, Signal, SpanRecord
from otel_sessions.backend.resolve import home_rank, scoped_twin, session_key, trace_key


@dataclass
class Group:
    """What belongs to one session."""

    spans: list[SpanRecord] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)


def sessions_of(requests: list[Request]) -> dict[str | None, Group]:
    """Group what was decoded by session key, once each: what a store does, in its simplest form."""
    spans = {
        (one.trace_id, one.span_id): one for request in requests for one in request.spans if one.end is None
    }
    spans |= {
        (one.trace_id, one.span_id): one
        for request in requests
        for one in request.spans
        if one.end is not None
    }
    logs = {one.digest: one for request in requests for one in request.logs}
    records: list[SpanRecord | LogRecord] = [*spans.values(), *logs.values()]
    twins = {
        scoped_twin(one.hint): session_key(one.hint) for one in records if one.hint and not one.hint.scope
    }
    homes: dict[bytes, Any] = {}
    for one in records:
        if one.hint and one.trace_id:
            rank = home_rank(one), session_key(one.hint)
            homes[one.trace_id] = min(homes.get(one.trace_id, rank), rank)
    groups: defaultdict[str | None, Group] = defaultdict(Group)
    for one in records:
        key = session_key(one.hint) if one.hint else None
        if key is None and one.trace_id:
            key = homes[one.trace_id][1] if one.trace_id in homes else trace_key(one.trace_id)
        group = groups[twins.get(key, key)]
        group.spans.append(one) if isinstance(one, SpanRecord) else group.logs.append(one)
    return dict(groups)


def ids_of(groups: dict[str | None, Group]) -> set[str]:
    """Return the ids that the sessions' records bear."""
    return {one.hint.value for group in groups.values() for one in (*group.spans, *group.logs) if one.hint}


def count_of(folder: Path) -> Counter[Signal]:
    """Count spans and logs as they lie in the bodies."""
    counts: Counter[Signal] = Counter()
    for signal, encoding, body in bodies_of(folder):
        message: Any = parse(signal, encoding, body)
        if signal is Signal.TRACES:
            counts[signal] += sum(len(s.spans) for r in message.resource_spans for s in r.scope_spans)
        elif signal is Signal.LOGS:
            counts[signal] += sum(len(s.log_records) for r in message.resource_logs for s in r.scope_logs)
    return counts


@samples
def test_each_sample_shows_its_sessions_with_all_that_is_theirs(folder: Path) -> None:
    """Whatever the trap: as many sessions, spans and logs as were written, each once."""
    expected = expected_of(folder)
    groups = sessions_of(decoded(folder))
    found = sorted((len(group.spans), len(group.logs)) for group in groups.values())
    assert found == sorted((session["spans"], session["logs"]) for session in expected["sessions"])
    assert ids_of(groups) == {session["id"] for session in expected["sessions"] if session["id"]}
    assert sum(request.rejected for request in decoded(folder)) == 0


@samples
def test_the_order_of_requests_does_not_change_who_belongs_where(folder: Path) -> None:
    """Backwards as well as forwards."""
    requests = decoded(folder)
    forwards, backwards = sessions_of(requests), sessions_of(requests[::-1])
    assert {key: set(group.spans) for key, group in forwards.items()} == {
        key: set(group.spans) for key, group in backwards.items()
    }


@every_recording
def test_every_span_and_log_of_a_recording_decodes(folder: Path) -> None:
    """None is rejected, none is lost, each log is told from all others."""
    requests = decoded(folder)
    assert sum(request.rejected for request in requests) == 0
    counts = count_of(folder)
    assert sum(len(request.spans) for request in requests) == counts[Signal.TRACES]
    assert len({one.digest for request in requests for one in request.logs}) == counts[Signal.LOGS]


@every_recording
def test_recorded_sessions_are_found_by_their_ids(folder: Path) -> None:
    """An id that is in the telemetry is found, and no other; a trace without one is its own session."""
    expected = expected_of(folder)
    groups = sessions_of(decoded(folder))
    in_telemetry = {session["id"] for session in expected["sessions"] if session["id_in_telemetry"]}
    assert ids_of(groups) == in_telemetry
    named = {key for key in groups if key and not key.startswith("trace:")}
    assert len(named) == len(in_telemetry)
    if not in_telemetry:
        assert len(groups) == expected["traces"]


@every_recording
def test_no_call_of_a_recording_is_counted_twice(folder: Path) -> None:
    """Tokens of a session are what its model really reported, by its spans or, where they are silent, its logs."""
    expected = expected_of(folder)
    groups = sessions_of(decoded(folder))
    by_id = {
        one.hint.value: group for group in groups.values() for one in (*group.spans, *group.logs) if one.hint
    }
    for session in expected["sessions"]:
        group = by_id.get(session["id"])
        if group is None or not session["id_in_telemetry"]:
            continue
        tokens = session["tokens"]
        beside = "excludes cache" in tokens.get("note", "")
        asked = tokens["input"] + (tokens["cache_read"] + tokens["cache_creation"] if beside else 0)
        thought = tokens["reasoning"] if "not in output" in tokens.get("note", "") else 0
        spans = [one for one in _outermost(group.spans) if one.input_tokens is not None]
        told: list[Any] = spans or [one for one in group.logs if one.input_tokens is not None]
        if not told:
            assert asked == 0 or "not visible in this telemetry" in " ".join(expected["notes"])
            continue
        assert sum(one.input_tokens for one in told) == asked
        assert sum(one.output_tokens for one in told) in (tokens["output"], tokens["output"] + thought)


def _outermost(spans: list[SpanRecord]) -> list[SpanRecord]:
    """Leave out model spans directly below another: they are the same call."""
    models = {(one.trace_id, one.span_id) for one in spans if one.category == "model"}
    return [one for one in spans if one.category != "model" or (one.trace_id, one.parent_id) not in models]


@every_recording
def test_a_recorded_session_makes_a_tree_and_goes_out_as_json(folder: Path) -> None:
    """Each span once in the tree; each message once through OTLP's JSON and back, to the byte."""
    requests = decoded(folder)
    spans = [one for request in requests for one in request.spans]
    lines = planted([row_of(one) for one in spans])
    assert sum(1 for line in lines if line.row) == len(spans)
    for signal, encoding, body in bodies_of(folder):
        message: Any = parse(signal, encoding, body)
        if signal is Signal.TRACES:
            originals = [
                span
                for group in message.resource_spans
                for scope in group.scope_spans
                for span in scope.spans
            ]
            wrapped = {"resourceSpans": [{"scopeSpans": [{"spans": [span_json(one) for one in originals]}]}]}
            again: Any = parse(signal, Encoding.JSON, json.dumps(wrapped).encode())
            assert list(again.resource_spans[0].scope_spans[0].spans) == originals
        elif signal is Signal.LOGS:
            originals = [
                record
                for group in message.resource_logs
                for scope in group.scope_logs
                for record in scope.log_records
            ]
            wrapped = {
                "resourceLogs": [{"scopeLogs": [{"logRecords": [log_json(one) for one in originals]}]}]
            }
            again = parse(signal, Encoding.JSON, json.dumps(wrapped).encode())
            assert list(again.resource_logs[0].scope_logs[0].log_records) == originals
