"""Claims about taking a session elsewhere: threads, executors, greenlets' like, headers, child processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextvars import ContextVar

import pytest
from opentelemetry import baggage, trace
from opentelemetry.propagate import extract
from outcomes import Ended, Recorded
from span_collector import Collector

import otel_sessions
from otel_sessions import semconv

Run = Callable[..., Ended]


def test_a_bare_thread_has_no_session(recorded: Recorded):
    """Threads start without one; guessing whose they are is how sessions get mixed."""
    with otel_sessions.session(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(otel_sessions.current_session).result() is None


def test_a_wrapped_function_runs_in_the_session_it_was_wrapped_in(recorded: Recorded):
    """In a thread, a timer or a pool, several calls at once, whatever is current there."""
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    def work(number: int) -> tuple[object, str]:
        with otel_sessions.tool(f"t{number}"):
            barrier.wait()
            return otel_sessions.current_session(), variable.get()

    barrier = threading.Barrier(4)
    with otel_sessions.session("s") as session, otel_sessions.agent("a"):
        variable.set("mine")
        wrapped = otel_sessions.wrap(work)
        assert wrapped.__name__ == "work"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(wrapped, range(4)))
        assert pool.submit(otel_sessions.current_session).result() is None
    assert found == [(session, "mine")] * 4 or {s for s, _ in found} == {None}
    agent = recorded.one("invoke_agent a").context.span_id
    for number in range(4):
        tool = recorded.one(f"execute_tool t{number}")
        assert tool.parent.span_id == agent
        assert tool.attributes["session.id"] == session.id


def test_a_wrapped_coroutine_function_is_one(recorded: Recorded):
    """It runs in the session wherever it is awaited, and leaves nothing there."""

    async def work() -> object:
        await asyncio.sleep(0)
        return otel_sessions.current_session()

    with otel_sessions.session() as session:
        wrapped = otel_sessions.wrap(work)

        async def elsewhere() -> None:
            assert otel_sessions.current_session() is None
            assert await wrapped() is session
            assert otel_sessions.current_session() is None

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, elsewhere()).result()


def test_wrapped_generators_are_inside_at_each_step_wherever_it_is_made(recorded: Recorded):
    """As a web server drives a streaming response: each step in whatever thread is free."""

    def current() -> object:
        return otel_sessions.current_session()

    def generator() -> Iterator[object]:
        yield current()
        yield current()
        return current()

    async def async_generator() -> AsyncGenerator[object]:
        yield current()
        await asyncio.sleep(0)
        yield current()

    class Work:
        async def __call__(self) -> object:
            await asyncio.sleep(0)
            return current()

    async def elsewhere() -> None:
        async for value in wrapped_async():
            assert value is session
            assert current() is None
        assert await wrapped_object() is session
        assert current() is None

    with otel_sessions.session() as session:
        wrapped = otel_sessions.wrap(generator)
        wrapped_async, wrapped_object = otel_sessions.wrap(async_generator), otel_sessions.wrap(Work())
        steps, others = wrapped(), wrapped()
        for made in (steps, others, steps, others):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                assert pool.submit(next, made).result() is session
                assert pool.submit(current).result() is None
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, elsewhere()).result()


@pytest.mark.parametrize("kind", ["coroutine", "async generator"])
def test_what_is_collected_in_another_session_leaves_that_one_current(recorded: Recorded, kind: str):
    """A pending task whose loop was closed may be garbage at any later time, in the midst of anything."""

    async def forever() -> None:
        await asyncio.Event().wait()

    @otel_sessions.step("steps")
    async def steps() -> AsyncGenerator[None]:
        await forever()
        yield

    async def consume() -> None:
        async for _ in steps():
            pass

    async def leave_pending() -> Coroutine[object, object, None]:
        with otel_sessions.session("old"):
            pending = otel_sessions.wrap(forever)() if kind == "coroutine" else consume()
            contextvars.copy_context().run(pending.send, None)
            return pending

    pending = contextvars.copy_context().run(asyncio.run, leave_pending())
    with otel_sessions.session("new") as session, otel_sessions.step("outer"):
        current = trace.get_current_span()
        pending.close()
        assert otel_sessions.current_session() is session
        assert trace.get_current_span() is current


def test_activate_makes_a_session_current_and_ends_nothing(recorded: Recorded):
    """In any context, several at once; afterwards that context is as it was."""
    session = otel_sessions.start_session("s")

    def work() -> None:
        with session.activate() as here, otel_sessions.step("there"):
            assert here is session
            assert otel_sessions.current_session() is session
        assert otel_sessions.current_session() is None
        assert not trace.get_current_span().get_span_context().is_valid

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(work) for _ in range(4)]:
            job.result()
    assert session.state == "running"
    session.end()
    root = recorded.one("session s")
    there = [span for span in recorded.all() if span.name == "there"]
    assert {span.parent.span_id for span in there} == {root.context.span_id}
    assert {span.attributes["session.id"] for span in there} == {session.id}


def test_headers_carry_the_session_and_the_run(recorded: Recorded):
    """W3C headers, which any service understands: the current span, the id, the root's span id."""
    with otel_sessions.session("s", id="s 1/ä") as session, otel_sessions.tool("t") as tool:
        headers = session.carry()
    assert sorted(headers) == ["baggage", "traceparent"]
    context = extract(headers)
    assert trace.get_current_span(
        context
    ).get_span_context().span_id == tool.span.get_span_context().span_id or (
        f"{recorded.one('execute_tool t').context.span_id:016x}" in headers["traceparent"]
    )
    assert baggage.get_baggage("session.id", context) == "s 1/ä"
    root = recorded.one("session s").context.span_id
    assert baggage.get_baggage(semconv.BAGGAGE_RUN, context) == f"{root:016x}"


def test_headers_of_a_session_that_is_not_current_name_its_root(recorded: Recorded):
    """A server may keep sessions and carry any of them."""
    session = otel_sessions.start_session("s")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        headers = pool.submit(session.carry).result()
    session.end()
    assert f"{recorded.one('session s').context.span_id:016x}" in headers["traceparent"]


def test_a_service_that_asks_for_it_takes_the_session_from_headers(recorded: Recorded):
    """Spans of the other service below the carried parent belong to the session."""
    otel_sessions.init(trust_baggage=True)
    with otel_sessions.session(id="s-1") as session:
        headers = session.carry()
    tracer = recorded.provider.get_tracer("web")
    with tracer.start_as_current_span("request", context=extract(headers)), otel_sessions.tool("t"):
        pass
    assert recorded.one("request").attributes["session.id"] == "s-1"
    assert recorded.one("execute_tool t").attributes["session.id"] == "s-1"


def test_child_env_is_an_environment(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    """All of ours, plus what carries the session; of another's traces nothing is passed on."""
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("TRACEPARENT", "stale")
    assert "TRACEPARENT" not in otel_sessions.child_env()
    with otel_sessions.session(id="s-1"):
        env = otel_sessions.child_env()
    assert env["MINE"] == "1"
    assert "session.id=s-1" in env["BAGGAGE"]
    assert env["TRACEPARENT"].startswith("00-")


@pytest.mark.parametrize(
    ("theirs", "kept"),
    [
        ("tenant=42", ["tenant=42"]),
        (" a=1;p=2 ,,session.id=other, b=%20", ["a=1;p=2", "b=%20"]),
        (f"long={'x' * 8192},b=2", ["b=2"]),
        (",".join(f"k{n}=v" for n in range(300)), [f"k{n}=v" for n in range(178)]),
    ],
    ids=["one", "as written", "too long", "too many"],
)
def test_baggage_of_others_goes_to_children_as_far_as_there_is_room(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, theirs: str, kept: list[str]
):
    """Within the limits beyond which OpenTelemetry reads nothing of it: ours comes first."""
    monkeypatch.setenv("BAGGAGE", theirs)
    monkeypatch.setenv("TRACESTATE", "of=others")
    assert otel_sessions.child_env()["BAGGAGE"].split(",")[:2] == kept[:2]
    with otel_sessions.session(id="s-1"):
        env = otel_sessions.child_env()
    session, run, *others = env["BAGGAGE"].split(",")
    assert (session, run.partition("=")[0]) == ("session.id=s-1", semconv.BAGGAGE_RUN)
    assert others == kept
    assert len(env["BAGGAGE"]) <= 8192
    assert "TRACESTATE" not in env


CHILD = """
import os, sys, threading
import otel_sessions
from opentelemetry import trace
handle = otel_sessions.init(service_name="child")
session = otel_sessions.current_session()
assert session is not None and session.state == "running" and handle.session is session
assert session.id == sys.argv[1], session.id
assert otel_sessions.end_session() is False and session.state == "running"
with otel_sessions.task("t") as task, otel_sessions.tool("in child"):
    assert task.state == "running"
def work():
    assert otel_sessions.current_session() is session
    with otel_sessions.tool("in thread"):
        pass
    with trace.get_tracer("other").start_as_current_span("theirs in thread"):
        pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
with otel_sessions.session("own"):
    with otel_sessions.tool("in own"):
        pass
"""


def test_a_child_program_takes_the_session_up(run_program: Run, collector: Collector):
    """For its whole process, in every thread; it opens no run, and can't end its parent's."""
    ended = run_program(
        f"""
        import subprocess, sys
        import otel_sessions
        otel_sessions.init(service_name="parent")
        with otel_sessions.session("s") as session, otel_sessions.tool("around"):
            subprocess.run([sys.executable, "-c", {CHILD!r}, session.id], env=otel_sessions.child_env(), check=True)
        """,
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    root, own = collector.span("session s"), collector.span("session own")
    child, thread = collector.span("execute_tool in child"), collector.span("execute_tool in thread")
    theirs = collector.span("theirs in thread")
    assert child.session_id == thread.session_id == theirs.session_id == root.session_id
    assert collector.span("task t").parent_id == collector.span("execute_tool around").span_id
    assert child.trace_id == root.trace_id
    assert thread.trace_id == root.trace_id
    assert child.resource["service.name"] == "child"
    assert own.session_id != root.session_id
    assert collector.span("execute_tool in own").session_id == own.session_id
    starts = collector.events("session.start")
    assert {event.span_id for event in starts} == {root.span_id, own.span_id}
    of_child = [event for event in collector.events() if event.attributes.get(semconv.CHILD)]
    assert {(event.span_id, event.session_id) for event in of_child} == {(root.span_id, root.session_id)}
    assert of_child[-1].attributes[semconv.SPANS_STARTED] == 4
    assert of_child[-1].attributes[semconv.SPANS_ENDED] == 4
    assert [e.span_id for e in collector.events("session.end")] == [own.span_id, root.span_id]


@pytest.mark.parametrize(
    "env",
    [
        {"TRACEPARENT": "nonsense", "BAGGAGE": "session.id=s-1,otel_sessions.run=zz"},
        {"BAGGAGE": "session.id=s-1"},
    ],
)
def test_half_of_what_carries_a_session_is_enough_for_its_id(
    run_program: Run, collector: Collector, env: dict[str, str]
):
    """Where the run is unknown nothing is told of it, but spans belong to the session."""
    ended = run_program(
        "import otel_sessions\notel_sessions.init()\nwith otel_sessions.tool('t'): pass",
        {**collector.env, **env},
    )
    assert (ended.code, ended.err) == (0, "")
    assert collector.span("execute_tool t").session_id == "s-1"
    assert collector.events() == []


def test_somebody_elses_trace_in_the_environment_is_no_session(run_program: Run, collector: Collector):
    """CI systems set TRACEPARENT too; without a session id there is nothing to take up."""
    ended = run_program(
        "import otel_sessions\nassert otel_sessions.init().session is None\nwith otel_sessions.tool('t'): pass",
        {**collector.env, "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )
    assert (ended.code, ended.err) == (0, "")
    assert collector.span("execute_tool t").session_id is None
