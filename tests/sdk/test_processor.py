"""Claims about stamping: which session a span belongs to, and that nothing takes that away again."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from outcomes import Recorded

import otel_sessions


def _remote(session_id: str | None) -> otel.Context:
    span = NonRecordingSpan(SpanContext(7, 7, is_remote=True, trace_flags=TraceFlags(1)))
    context = trace.set_span_in_context(span, otel.Context())
    return context if session_id is None else baggage.set_baggage("session.id", session_id, context)


def test_spans_of_others_are_stamped_like_ours(recorded: Recorded):
    """Whatever tracer of the provider made it, also one that was made before we joined."""
    with otel_sessions.session() as session:
        recorded.provider.get_tracer("other").start_span("x").end()
    assert recorded.one("x").attributes["session.id"] == session.id


def test_a_session_id_that_the_user_set_wins(recorded: Recorded):
    """It is kept, and such a span is not counted in the session around it."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s"):
        tracer.start_span("x", attributes={"session.id": "theirs"}).end()
    assert recorded.one("x").attributes["session.id"] == "theirs"
    assert recorded.one("session s").attributes["otel_sessions.session.spans.started"] == 1


def test_a_users_own_user_id_is_kept(recorded: Recorded):
    """A stamp fills in what is missing only."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session(user_id="maria"):
        tracer.start_span("x", attributes={"user.id": "joao"}).end()
    assert recorded.one("x").attributes["user.id"] == "joao"


def test_a_local_parent_wins_over_what_is_current(recorded: Recorded):
    """A span with an explicit parent belongs to the parent's session, also when that span has ended."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("a") as a:
        parent = tracer.start_span("parent")
        below = trace.set_span_in_context(parent)
    with otel_sessions.session("b"):
        tracer.start_span("of an open one", context=below).end()
        parent.end()
        tracer.start_span("of an ended one", context=below).end()
        bare = trace.set_span_in_context(parent, otel.Context())
        tracer.start_span("without a scope", context=bare).end()
    for name in ("of an open one", "of an ended one", "without a scope"):
        assert recorded.one(name).attributes["session.id"] == a.id


@pytest.mark.parametrize("trust", [True, False])
def test_baggage_of_a_remote_caller_is_believed_where_asked_for(recorded: Recorded, trust: bool):
    """A stranger must not put spans into a session of our user's."""
    otel_sessions.init(trust_baggage=trust)
    recorded.provider.get_tracer("web").start_span("request", context=_remote("theirs")).end()
    assert recorded.one("request").attributes.get("session.id") == ("theirs" if trust else None)


def test_a_remote_parent_that_is_local_after_all_is_known(recorded: Recorded):
    """Code that hands its context over in headers within the process stays in its session."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session() as session, otel_sessions.step("x") as step:
        local = step.span.get_span_context()
        remote = NonRecordingSpan(SpanContext(local.trace_id, local.span_id, True, local.trace_flags))
        there = otel.Context(trace.set_span_in_context(remote, otel.Context()))
        from otel_sessions.sdk import _context

        before = _context.swap((None, there))
        tracer.start_span("y").end()
        _context.swap(before)
    assert recorded.one("y").attributes["session.id"] == session.id


def test_the_session_id_survives_two_hundred_attributes(recorded: Recorded):
    """OpenTelemetry drops the oldest beyond 128; the span's session must not be among them."""
    many = {f"key {number}": number for number in range(200)}
    joined = InMemorySpanExporter()
    recorded.provider.add_span_processor(SimpleSpanProcessor(joined))
    with otel_sessions.session("s") as session:
        with otel_sessions.step("ours") as ours:
            ours.span.set_attributes(many)
        with recorded.provider.get_tracer("other").start_as_current_span("theirs") as theirs:
            theirs.set_attributes(many)
        trace.get_current_span().set_attributes(many)
    for name in ("ours", "theirs", "session s"):
        assert recorded.one(name).attributes["session.id"] == session.id
    by_name = {span.name: span for span in joined.get_finished_spans()}
    # Exporters of others see the spans as they are: ours were repaired before their end.
    assert by_name["ours"].attributes["session.id"] == session.id
    assert by_name["session s"].attributes["session.id"] == session.id
    assert recorded.one("theirs").dropped_attributes == by_name["theirs"].dropped_attributes


def test_a_copy_on_the_way_out_is_the_span(recorded: Recorded):
    """What our exporter restores changes nothing else, dropped counts included."""
    with (
        otel_sessions.session(),
        recorded.provider.get_tracer("other", "1.2").start_as_current_span(
            "x", kind=trace.SpanKind.SERVER, links=[trace.Link(SpanContext(1, 2, True))] * 130
        ) as span,
    ):
        for number in range(130):
            span.add_event(f"e{number}")
            span.set_attribute(f"k{number}", number)
    copy = recorded.one("x")
    assert (copy.dropped_events, copy.dropped_links) == (2, 2)
    assert (copy.dropped_attributes, len(copy.attributes)) == (3, 129)
    assert (copy.context, copy.kind, copy.start_time) == (span.context, span.kind, span.start_time)
    assert (copy.end_time, copy.status, copy.parent) == (span.end_time, span.status, span.parent)
    assert copy.instrumentation_scope.version == "1.2"
    assert copy.resource is span.resource


def test_a_span_that_was_open_before_we_came_is_exported(monkeypatch: pytest.MonkeyPatch):
    """It ends without having started here, and that is no fault."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    early = provider.get_tracer("other").start_span("early")
    otel_sessions.init(tracer_provider=provider, exporter=exporter)
    early.end()
    assert otel_sessions.flush(10).complete
    assert [span.name for span in exporter.get_finished_spans()] == ["early"]
    assert otel_sessions.stats().faults == {}


class _Broken(SpanProcessor, SpanExporter, Sampler):
    """Everything that can be plugged in, failing."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("on_start")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("on_end")

    def shutdown(self) -> None:
        raise RuntimeError("shutdown")

    def force_flush(self, timeout_millis: int = 0) -> bool:
        raise RuntimeError("force_flush")

    def export(self, spans: Any) -> SpanExportResult:
        raise RuntimeError("export")

    def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
        raise RuntimeError("should_sample")

    def get_description(self) -> str:
        return "broken"


def test_nothing_that_is_plugged_in_reaches_user_code(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Processors and exporters that raise are counted, said once each, and everything else goes on."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=_Broken(), span_processors=[_Broken()])
    for _ in range(3):
        with otel_sessions.session(), otel_sessions.tool("t"):
            pass
        provider.get_tracer("other").start_span("x").end()
    result = otel_sessions.flush(10)
    assert (result.complete, result.sent, result.dropped) == (False, 0, {"export failed": 9})
    stats = otel_sessions.stats()
    assert stats.faults["span processor"] == 19
    assert stats.faults["exporter"] >= 1
    assert provider.force_flush(1000) is False
    provider.shutdown()
    assert sum("span processor failed" in message for message in caplog.messages) == 1


def test_a_sampler_that_raises_costs_the_spans_only(monkeypatch: pytest.MonkeyPatch):
    """Sessions and decorated functions work; nothing is recorded."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    otel_sessions.init(tracer_provider=TracerProvider(sampler=_Broken(), shutdown_on_exit=False))

    @otel_sessions.tool
    def work() -> int:
        return 7

    with otel_sessions.session() as session, session.task("t"):
        assert work() == 7
    assert session.outcome == "ok"


def test_an_unsampled_session_works_and_sends_nothing(monkeypatch: pytest.MonkeyPatch):
    """Sampling is by session: its spans follow the root's decision."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=exporter)
    with otel_sessions.session() as session, otel_sessions.tool("t"):
        assert otel_sessions.current_session() is session
    assert otel_sessions.flush(10).complete
    assert exporter.get_finished_spans() == ()
    assert session.outcome == "ok"


def test_what_is_recorded_but_not_sampled_is_not_exported(monkeypatch: pytest.MonkeyPatch):
    """As the specification says of exporting processors."""

    class RecordOnly(Sampler):
        def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self) -> str:
            return "record only"

    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=RecordOnly(), shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=exporter)
    with otel_sessions.session():
        pass
    assert otel_sessions.flush(10).complete
    assert exporter.get_finished_spans() == ()
