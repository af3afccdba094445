"""Claims about what is current after a session ended, and about ids that a limit of the provider cuts."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from outcomes import Ended, Recorded
from span_collector import Collector

import otel_sessions
from otel_sessions import semconv

Run = Callable[..., Ended]


def _elsewhere(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def _time_out(session: otel_sessions.Session) -> None:
    for _ in range(2000):
        if session.state == "ended":
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never ended")


# --- After the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["elsewhere", "timeout", "here"])
def test_after_the_end_of_a_session_without_a_block_its_context_is_free(recorded: Recorded, how: str):
    """Spans of any tracer are then as they were before it: no session, a trace of their own."""
    tracer = recorded.provider.get_tracer("other")
    session = otel_sessions.start_session("s", timeout=0.05 if how == "timeout" else None)
    there = contextvars.copy_context()
    with tracer.start_as_current_span("inside"):
        pass
    {
        "elsewhere": lambda: _elsewhere(session.end),
        "timeout": lambda: _time_out(session),
        "here": session.end,
    }[how]()
    for context in (contextvars.copy_context(), there):
        with context.run(tracer.start_as_current_span, "after") as span:
            assert span.attributes.get(semconv.SESSION_ID) is None
            assert span.parent is None
        assert context.run(trace.get_current_span).get_span_context() == trace.INVALID_SPAN_CONTEXT
        assert context.run(otel_sessions.current_session) is None
    assert recorded.one("inside").parent.span_id == recorded.one("session s").context.span_id


def test_what_was_current_before_is_current_after(recorded: Recorded):
    """The span and the session around one that another thread ended."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("outer") as outer, tracer.start_as_current_span("around") as around:
        inner = otel_sessions.start_session("inner")
        innermost = otel_sessions.start_session("innermost")
        _elsewhere(inner.end)
        tracer.start_span("in the innermost").end()
        _elsewhere(innermost.end)
        with tracer.start_as_current_span("after") as span:
            assert span.attributes[semconv.SESSION_ID] == outer.id
            assert span.parent.span_id == around.get_span_context().span_id
        trace.get_current_span().set_attribute("on", "around")
    assert recorded.one("in the innermost").attributes[semconv.SESSION_ID] == innermost.id
    assert recorded.one("around").attributes["on"] == "around"


def test_in_a_block_later_spans_are_late_children_until_it_is_left(recorded: Recorded):
    """The code of the block goes on after a timeout, and what it does belongs to the session."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s") as session:
        _elsewhere(session.end)
        with tracer.start_as_current_span("late") as span:
            assert span.attributes[semconv.SESSION_ID] == session.id
    assert recorded.one("late").parent.span_id == recorded.one("session s").context.span_id
    with tracer.start_as_current_span("after") as span:
        assert span.attributes.get(semconv.SESSION_ID) is None


def test_the_current_span_of_a_started_session_is_as_good_as_its_root(recorded: Recorded):
    """Code that asks for the SDK's span, its attributes or context finds them, and may write on it."""
    session = otel_sessions.start_session("s")
    current = trace.get_current_span()
    assert isinstance(current, ReadableSpan)
    assert current.attributes[semconv.SESSION_ID] == session.id
    assert current.is_recording()
    current.set_attribute("a", 1)
    current.set_attributes({"b": 2})
    current.add_event("happened", {"c": 3})
    current.add_link(trace.SpanContext(1, 2, is_remote=True))
    current.record_exception(ValueError("noted"))
    current.set_status(trace.StatusCode.OK)
    current.update_name("session renamed")
    with trace.use_span(current):
        recorded.provider.get_tracer("other").start_span("child").end()
    session.end()
    root = recorded.one("session renamed")
    assert (root.attributes["a"], root.attributes["b"]) == (1, 2)
    assert [event.name for event in root.events] == ["happened", "exception"]
    assert len(root.links) == 1
    assert recorded.one("child").parent.span_id == root.context.span_id


def test_a_task_that_outlives_a_started_session_is_free(recorded: Recorded):
    """It was started inside, and goes on when nothing of the session is open."""

    async def main() -> None:
        go = asyncio.Event()

        async def straggler() -> None:
            await go.wait()
            recorded.provider.get_tracer("other").start_span("later").end()

        session = otel_sessions.start_session("s")
        job = asyncio.create_task(straggler())
        await asyncio.sleep(0)
        session.end()
        go.set()
        await job

    asyncio.run(main())
    later = recorded.one("later")
    assert semconv.SESSION_ID not in later.attributes
    assert later.parent is None


# --- Ids that are cut ------------------------------------------------------------------------------------

LIMITS = ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_of_values_cuts_no_session_id_on_its_way_out(
    run_program: Run, collector: Collector, limit: str
):
    """Spans, events, children and headers tell of one session, by its whole id."""
    ended = run_program(
        """
        import os, subprocess, sys, otel_sessions
        from opentelemetry import trace
        otel_sessions.init()
        tracer = trace.get_tracer("other")
        with otel_sessions.session("s", id="conversation-1234567890") as session:
            with session.task("t"), otel_sessions.step("ours"), tracer.start_as_current_span("theirs"):
                pass
            program = (
                "import otel_sessions as o; from opentelemetry import trace; o.init();"
                "trace.get_tracer('x').start_span('child').end(); o.step('step').__enter__(); o.shutdown()"
            )
            subprocess.run([sys.executable, "-c", program], env=otel_sessions.child_env(), check=True)
            print(session.id)
        """,
        {**collector.env, limit: "12"},
    )
    assert (ended.code, ended.out) == (0, "conversation-1234567890\n"), ended.err
    assert {span.name for span in collector.spans()} == {
        "session s",
        "task t",
        "ours",
        "theirs",
        "child",
        "step",
    }
    assert {span.session_id for span in collector.spans()} == {"conversation-1234567890"}
    assert {event.session_id for event in collector.events()} == {"conversation-1234567890"}
    assert collector.span("session s").attributes[semconv.SPANS_ENDED] == 4
    childs = [e for e in collector.events() if e.attributes.get("otel_sessions.child")]
    assert max(e.attributes[semconv.SPANS_ENDED] for e in childs) == 2
    assert ended.err.count("cuts the session id") == 1


def test_where_anothers_exporter_sends_the_session_goes_by_the_id_that_its_spans_bear(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """No copy of ours restores it there, so events, headers and `Session.id` follow; one line says so."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "12")
    for name, value in collector.env.items():
        monkeypatch.setenv(name, value)
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel_sessions.init(tracer_provider=provider, signals=False)
    with otel_sessions.session("s", id="conversation-1") as session, otel_sessions.step("x"):
        assert session.id == "conversation"
        assert "session.id=conversation," in session.carry()["baggage"] + ","
    with otel_sessions.session("again", id="conversation-1") as again:
        pass
    assert otel_sessions.flush(10).complete is None
    spans = exporter.get_finished_spans()
    assert {span.attributes[semconv.SESSION_ID] for span in spans} == {"conversation"}
    assert {event.session_id for event in collector.events()} == {session.id} == {again.id}
    assert [span.attributes[semconv.SPANS_ENDED] for span in spans if span.name.startswith("session")] == [
        2,
        3,
    ]
    assert sum("cuts the session id" in message for message in caplog.messages) == 1


def test_the_beginning_of_an_id_is_another_id(recorded: Recorded):
    """Only what a limit cut is restored: a span that names a session with a shorter id is that one's."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s", id="user-12"):
        tracer.start_span("x", attributes={"session.id": "user-1"}).end()
        bare = otel.Context()
        tracer.start_span("y", context=bare, attributes={"session.id": "user-12"}).end()
    assert recorded.one("x").attributes[semconv.SESSION_ID] == "user-1"
    assert recorded.one("session s").attributes[semconv.SPANS_ENDED] == 2
