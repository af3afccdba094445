"""Life cycle events: what is put on the wire is what the run said."""

from __future__ import annotations

import json
import subprocess
import sys

from fake_runs import FakeRun
from hypothesis import given
from hypothesis import strategies as st
from log_receivers import plain, read
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber

from otel_sessions._version import __version__
from otel_sessions.lifecycle import EndReason, Outcome, Phase
from otel_sessions.sdk import _encode, _events
from otel_sessions.sdk._answer import Verdict
from otel_sessions.sdk._run import Counts, OpenSpan
from otel_sessions.sdk._transport import ConsoleTransport

INT64 = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SPANS = st.builds(
    OpenSpan,
    span_id=st.integers(1, 2**64 - 1),
    name=TEXT,
    kind=st.integers(1, 5),
    parent_id=st.none() | st.integers(1, 2**64 - 1),
    start=INT64,
    trace_id=st.integers(1, 2**128 - 1),
)
STAMPS = st.builds(_events.Stamp, seq=INT64, elapsed=INT64, at=INT64)
ORIGINS = st.builds(
    _events.Origin, process_id=TEXT, heartbeat=st.floats(0.001, 1e6), lease=st.floats(0.001, 1e6)
)
RUNS = st.builds(
    FakeRun,
    session_id=TEXT.filter(bool),
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    name=TEXT,
    title=st.none() | TEXT,
    previous_id=st.none() | TEXT,
    resumed=st.booleans(),
    child=st.booleans(),
    phase=st.sampled_from([Phase.RUNNING, Phase.WAITING]),
    waiting_for=st.none() | TEXT,
    started_at=INT64,
    tally=st.builds(Counts, INT64, INT64, INT64),
    open=st.lists(SPANS, max_size=70),
)

ENDS = st.tuples(st.none() | st.sampled_from(Outcome), st.none() | st.sampled_from(EndReason))


def on_the_wire(event, origin):
    """Encode an event, and read it back from the bytes."""
    request = _encode.to_request([_encode.to_record(event, origin)], _encode.to_resource({}))
    (seen,) = read(request)
    return seen


def common(run, stamp, origin):
    """Return what every event bears."""
    attributes = {
        "session.id": run.session_id,
        "otel_sessions.process.id": origin.process_id,
        "otel_sessions.seq": stamp.seq,
        "otel_sessions.elapsed": stamp.elapsed,
        "otel_sessions.heartbeat": origin.heartbeat,
        "otel_sessions.lease": origin.lease,
    }
    return attributes | ({"otel_sessions.child": True} if run.child else {})


def said(attributes):
    """Leave out what nobody knows."""
    return {name: value for name, value in attributes.items() if value is not None}


def counts(run):
    """Return the counts as they are named on the wire; no reasons where nothing is lost."""
    told = {name: value for name, value in run.tally._asdict().items() if value != ""}
    return {f"otel_sessions.session.spans.{name}": value for name, value in told.items()}


@given(RUNS, STAMPS, ORIGINS)
def test_a_start_says_who_begins(run, stamp, origin):
    """session.start, or its twin for a resumed run, bears name, title, a different earlier id, and no more."""
    seen = on_the_wire(_events.session_start(run, stamp), origin)
    assert seen.name == ("otel_sessions.session.resumed" if run.resumed else "session.start")
    assert (seen.time, seen.trace_id, seen.span_id) == (run.started_at, run.trace_id, run.span_id)
    assert seen.attributes == common(run, stamp, origin) | said(
        {
            "otel_sessions.session.name": run.name or None,
            "otel_sessions.session.title": run.title,
            "session.previous_id": None if run.previous_id == run.session_id else run.previous_id,
        }
    )


@given(RUNS, STAMPS, ORIGINS)
def test_a_heartbeat_says_what_is_open(run, stamp, origin):
    """A heartbeat bears phase, counts and at most 64 open spans, the oldest first."""
    seen = on_the_wire(_events.heartbeat(run, stamp), origin)
    assert seen.name == "otel_sessions.session.heartbeat"
    assert (seen.time, seen.span_id) == (stamp.at, run.span_id)
    assert seen.attributes == common(run, stamp, origin) | counts(run) | said(
        {
            "otel_sessions.session.phase": run.phase.value,
            "otel_sessions.waiting_for": run.waiting_for if run.phase is Phase.WAITING else None,
            "otel_sessions.open_spans": [f"{span.span_id:016x}" for span in run.open[:64]],
        }
    )


@given(RUNS, STAMPS, ORIGINS)
def test_a_state_says_what_the_run_waits_for(run, stamp, origin):
    """A state event bears the phase, and what a waiting run waits for."""
    seen = on_the_wire(_events.session_state(run, stamp), origin)
    assert seen.name == "otel_sessions.session.state"
    assert seen.attributes == common(run, stamp, origin) | said(
        {
            "otel_sessions.session.phase": run.phase.value,
            "otel_sessions.waiting_for": run.waiting_for if run.phase is Phase.WAITING else None,
        }
    )


@given(RUNS, SPANS, STAMPS, ORIGINS)
def test_an_open_span_is_told_of_under_its_own_id(run, span, stamp, origin):
    """The announcement bears the span's ids, name, kind, parent and start."""
    seen = on_the_wire(_events.span_start(run, span, stamp), origin)
    assert (seen.name, seen.trace_id, seen.span_id) == (
        "otel_sessions.span.start",
        span.trace_id,
        span.span_id,
    )
    assert seen.attributes == common(run, stamp, origin) | said(
        {
            "otel_sessions.span.name": span.name,
            "otel_sessions.span.kind": span.kind,
            "otel_sessions.span.parent_id": None if span.parent_id is None else f"{span.parent_id:016x}",
            "otel_sessions.span.start": span.start,
        }
    )


@given(RUNS, STAMPS, ORIGINS, ENDS, INT64)
def test_an_end_says_how(run, stamp, origin, ending, at):
    """session.end bears time, outcome, reason and counts; what nobody knows is absent."""
    outcome, reason = ending
    seen = on_the_wire(_events.session_end(run, stamp, outcome, reason, at), origin)
    assert (seen.name, seen.time) == ("session.end", at)
    assert seen.attributes == common(run, stamp, origin) | counts(run) | said(
        {
            "otel_sessions.session.outcome": outcome and outcome.value,
            "otel_sessions.session.end_reason": reason and reason.value,
        }
    )


def test_every_record_is_a_debug_log_of_our_scope():
    """Severity DEBUG, scope otel_sessions with our version, the resource as given, sampled trace flags."""
    event = _events.session_start(FakeRun(), _events.Stamp(1, 2, 3))
    record = _encode.to_record(event, _events.Origin("p", 5, 120))
    body = _encode.to_request([record], _encode.to_resource({"service.name": "planner"}))
    (logs,) = ExportLogsServiceRequest.FromString(body).resource_logs
    (scoped,) = logs.scope_logs
    (sent,) = scoped.log_records
    assert {pair.key: plain(pair.value) for pair in logs.resource.attributes} == {"service.name": "planner"}
    assert (scoped.scope.name, scoped.scope.version) == ("otel_sessions", __version__)
    assert (sent.severity_number, sent.severity_text) == (SeverityNumber.SEVERITY_NUMBER_DEBUG, "DEBUG")
    assert (sent.flags, sent.observed_time_unix_nano) == (1, 3)


def test_half_an_emoji_does_not_fail_the_batch():
    """A lone surrogate, which UTF-8 can't hold, is written out."""
    run = FakeRun(title="caf\u00e9 \ud83d")
    seen = on_the_wire(_events.session_start(run, _events.Stamp(1, 2, 3)), _events.Origin("p", 5, 120))
    assert seen.attributes["otel_sessions.session.title"] == "caf\u00e9 \\ud83d"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_comes_back_as_it_was(value):
    """All kinds of attribute values survive."""
    assert plain(_encode.any_value(value)) == value


def test_what_otlp_can_not_hold_becomes_text():
    """An int beyond 64 bits and a foreign object are told as text, not lost."""
    assert plain(_encode.any_value(2**64)) == str(2**64)
    assert plain(_encode.any_value(Phase)) == str(Phase)


def test_the_console_shows_one_line_an_event(capsys):
    """OTEL_LOGS_EXPORTER=console prints JSON with hex ids."""
    run = FakeRun(title="Lisbon")
    record = _encode.to_record(
        _events.session_start(run, _events.Stamp(1, 2, 3)), _events.Origin("p", 5, 120)
    )
    answer = ConsoleTransport().send(_encode.to_request([record, record], _encode.to_resource({})), 1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answer.verdict is Verdict.ACCEPTED
    assert lines[0] == lines[1]
    assert lines[0]["event_name"] == "session.start"
    assert lines[0]["trace_id"] == f"{run.trace_id:032x}"
    assert lines[0]["attributes"]["otel_sessions.session.title"] == "Lisbon"


def test_a_caller_loads_neither_protobuf_nor_a_transport():
    """Only the sender's thread pays for protobuf, requests and grpc."""
    code = (
        "import sys, otel_sessions.sdk._liveness\n"
        "heavy = {'google.protobuf', 'requests', 'urllib3', 'grpc', 'opentelemetry.proto', 'opentelemetry.sdk'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
