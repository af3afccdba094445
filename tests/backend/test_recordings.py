"""Real telemetry, and samples of its traps: everything decodes, and lands in the session it belongs to.

The samples are in `tests/samples`, with three recordings of real emitters. More are found through
OTEL_SESSIONS_RECORDINGS, or in a folder beside the repository; without them only those three are tried.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from telemetry import row_of

from otel_sessions.backend.decode import decode, parse
from otel_sessions.backend.otlp_json import log_json, span_json
from otel_sessions.backend.records import Encoding, Flag, LogRecord, Request, Signal, SpanRecord
from otel_sessions.backend.resolve import home_rank, scoped_twin, session_key, trace_key
from otel_sessions.backend.tree import tree

SAMPLES = Path(__file__).parents[1] / "samples"
RECORDINGS = Path(
    os.environ.get("OTEL_SESSIONS_RECORDINGS", Path(__file__).parents[3] / "shared/data/otlp-recordings")
)


def _folders(parent: Path, *, own: bool = False) -> list[Path]:
    """Find recordings: of real emitters, or our own samples."""
    indexes = sorted(parent.glob("*/recording.json"))
    return [
        index.parent for index in indexes if own == (json.loads(index.read_text())["emitter"] == "samples")
    ]


_samples = pytest.mark.parametrize(
    "folder", [pytest.param(folder, id=folder.name) for folder in _folders(SAMPLES, own=True)]
)
_recordings = pytest.mark.parametrize(
    "folder",
    [
        *(pytest.param(folder, id=f"kept-{folder.name}") for folder in _folders(SAMPLES)),
        *(
            pytest.param(folder, marks=pytest.mark.recordings, id=folder.name)
            for folder in _folders(RECORDINGS)
        ),
    ]
    + (
        []
        if RECORDINGS.is_dir()
        else [
            pytest.param(
                None,
                marks=pytest.mark.skip(reason="no recordings: OTEL_SESSIONS_RECORDINGS names their folder"),
                id="recordings",
            )
        ]
    ),
)


@dataclass
class Group:
    """What belongs to one session."""

    spans: list[SpanRecord] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)


def expected_of(folder: Path) -> dict[str, Any]:
    """Read what is known to be true of a recording."""
    return json.loads((folder / "recording.json").read_text())["expected"]


def bodies_of(folder: Path) -> Iterator[tuple[Signal, Encoding, bytes]]:
    """Read the requests of a recording in order of arrival."""
    for request in json.loads((folder / "recording.json").read_text())["requests"]:
        path = request["path"].lower()
        signal = Signal.TRACES if "trace" in path else Signal.LOGS if "logs" in path else Signal.METRICS
        encoding = Encoding.JSON if request["file"].endswith(".json") else Encoding.PROTOBUF
        yield signal, encoding, (folder / request["file"]).read_bytes()


def decoded(folder: Path) -> list[Request]:
    """Decode all requests of a recording."""
    return [decode(*body, received_at=1) for body in bodies_of(folder)]


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


@_samples
def test_each_sample_shows_its_sessions_with_all_that_is_theirs(folder: Path) -> None:
    """Whatever the trap: as many sessions, spans and logs as were written, each once."""
    expected = expected_of(folder)
    groups = sessions_of(decoded(folder))
    found = sorted((len(group.spans), len(group.logs)) for group in groups.values())
    assert found == sorted((session["spans"], session["logs"]) for session in expected["sessions"])
    assert ids_of(groups) == {session["id"] for session in expected["sessions"] if session["id"]}
    assert sum(request.rejected for request in decoded(folder)) == 0


@_samples
def test_the_order_of_requests_does_not_change_who_belongs_where(folder: Path) -> None:
    """Backwards as well as forwards."""
    requests = decoded(folder)
    forwards, backwards = sessions_of(requests), sessions_of(requests[::-1])
    assert {key: set(group.spans) for key, group in forwards.items()} == {
        key: set(group.spans) for key, group in backwards.items()
    }


@_recordings
def test_every_span_and_log_of_a_recording_decodes(folder: Path) -> None:
    """None is rejected, none is lost, each log is told from all others."""
    requests = decoded(folder)
    assert sum(request.rejected for request in requests) == 0
    counts = count_of(folder)
    assert sum(len(request.spans) for request in requests) == counts[Signal.TRACES]
    assert len({one.digest for request in requests for one in request.logs}) == counts[Signal.LOGS]


@_recordings
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


@_recordings
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


@_recordings
def test_a_recorded_session_makes_a_tree_and_goes_out_as_json(folder: Path) -> None:
    """Each span once in the tree; each message once through OTLP's JSON and back, to the byte."""
    requests = decoded(folder)
    spans = [one for request in requests for one in request.spans]
    lines = tree([row_of(one) for one in spans])
    assert sum(1 for line in lines if not line.row.flags & Flag.PLACEHOLDER) == len(spans)
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
