"""Claims about agents, tools, steps and model calls, as blocks and as decorators of the four kinds of functions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import inspect
import json
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from outcomes import Recorded
from span_collector import Collector

import otel_sessions
from otel_sessions import semconv


def _current() -> int:
    return trace.get_current_span().get_span_context().span_id


# --- Names and attributes --------------------------------------------------------------------------


def test_spans_are_named_as_the_conventions_say(recorded: Recorded):
    """invoke_agent NAME, execute_tool NAME, chat MODEL, and a step by its own name."""
    with (
        otel_sessions.agent("planner", id="a-1", description="plans"),
        otel_sessions.tool("search", call_id="c-1", description="finds", type="extension"),
        otel_sessions.step("parse", attributes={"size": 3}),
        otel_sessions.model_call("gpt-9", provider="openai", attributes={"gen_ai.request.temperature": 0.5}),
    ):
        pass
    agent = recorded.one("invoke_agent planner")
    assert dict(agent.attributes) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "planner",
        "gen_ai.agent.id": "a-1",
        "gen_ai.agent.description": "plans",
    }
    assert dict(recorded.one("execute_tool search").attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.type": "extension",
        "gen_ai.tool.call.id": "c-1",
        "gen_ai.tool.description": "finds",
    }
    assert dict(recorded.one("parse").attributes) == {"size": 3}
    call = recorded.one("chat gpt-9")
    assert call.kind is SpanKind.CLIENT
    assert dict(call.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-9",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.temperature": 0.5,
    }


def test_a_model_call_takes_what_came_back(recorded: Recorded):
    """Messages, usage and finish reasons; the last word on each counts."""
    with otel_sessions.model_call(
        "gpt", messages="How far is it?", system="Be brief.", tools=[{"a": 1}]
    ) as call:
        call.record(input_tokens=1, output_tokens=2)
        call.record(
            model="gpt-0613",
            response_id="r-1",
            finish_reasons="stop",
            input_tokens=10,
            output_tokens=5,
            cached_tokens=4,
            cache_creation_tokens=3,
            reasoning_tokens=2,
            cost=0.0125,
            messages="42 km",
            attributes={"x": 1},
        )
    attributes = dict(recorded.one("chat gpt").attributes)
    content = {
        name: json.loads(attributes.pop(f"gen_ai.{name}"))
        for name in ("input.messages", "output.messages", "system_instructions", "tool.definitions")
    }
    assert content == {
        "input.messages": [{"role": "user", "parts": [{"type": "text", "content": "How far is it?"}]}],
        "output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "42 km"}]}],
        "system_instructions": [{"type": "text", "content": "Be brief."}],
        "tool.definitions": [{"a": 1}],
    }
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt",
        "gen_ai.response.model": "gpt-0613",
        "gen_ai.response.id": "r-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "gen_ai.usage.cost": 0.0125,
        "x": 1,
    }


def test_messages_of_the_usual_apis_become_parts(recorded: Recorded):
    """OpenAI's and Anthropic's forms are told in the conventions'; theirs is kept as it is."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": "u"}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c-1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c-1", "content": "fine"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t-1", "name": "g", "input": {"b": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t-1", "content": "ok"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "done"}], "finish_reason": "stop"},
    ]
    with otel_sessions.model_call("gpt", messages=messages):
        pass
    assert json.loads(recorded.one("chat gpt").attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be kind."}]},
        {
            "role": "user",
            "parts": [{"type": "text", "content": "hi"}, {"type": "image_url", "image_url": "u"}],
        },
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c-1", "name": "f", "arguments": {"a": 1}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c-1", "response": "fine"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "t-1", "name": "g", "arguments": {"b": 2}}],
        },
        {"role": "user", "parts": [{"type": "tool_call_response", "id": "t-1", "response": "ok"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "done"}], "finish_reason": "stop"},
    ]


def test_a_failing_block_says_so_and_raises(recorded: Recorded):
    """ERROR, the type, one exception event; the exception is the caller's own."""
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught, otel_sessions.tool("search"):
        raise error
    assert caught.value is error
    span = recorded.one("execute_tool search")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: no")
    assert span.attributes["error.type"] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]


def test_a_cancelled_block_is_no_error(recorded: Recorded):
    """Somebody stopped it; nothing went wrong."""

    async def main() -> None:
        async with otel_sessions.tool("search"):
            await asyncio.sleep(60)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(main(), 0.01))
    span = recorded.one("execute_tool search")
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_a_block_may_be_entered_any_number_of_times(recorded: Recorded):
    """One after the other or one inside the other: each time it is a span of its own."""
    block = otel_sessions.tool("t")
    with block:
        outer = _current()
        with block as inner:
            assert _current() != outer
            inner.result = "inner"
        assert _current() == outer
        block.result = "outer"
    with block:
        pass
    assert [span.attributes.get("gen_ai.tool.call.result") for span in recorded.all()] == [
        "inner",
        "outer",
        None,
    ]


def test_a_block_may_be_shared_by_threads_and_tasks(recorded: Recorded):
    """What each tells the block reaches its own span, and nobody is told of a mistake that timing made."""
    block = otel_sessions.model_call("m")
    barrier = threading.Barrier(8)
    currents: dict[int, int] = {}

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            with block:
                block.record(input_tokens=number, attributes={"mine": _current()})

    async def task(number: int) -> None:
        with block:
            await asyncio.sleep(0)
            currents[number] = _current()
            block.record(input_tokens=number, attributes={"mine": _current()})
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*map(task, range(100, 120)))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    asyncio.run(main())
    spans = recorded.all()
    assert len(spans) == 8 * 50 + 20
    assert [span for span in spans if span.attributes["mine"] != span.context.span_id] == []
    assert len(set(currents.values())) == 20
    assert trace.get_current_span() is trace.INVALID_SPAN


# --- What is learned when nobody leaves the block in order -----------------------------------------------------


def test_what_a_block_learned_survives_a_forced_end(recorded: Recorded):
    """The process ends inside of it: the call is not known to be done, but what it cost is known."""
    otel_sessions.init(capture=True)
    with (
        otel_sessions.session("s") as session,
        otel_sessions.tool("t") as tool,
        session.task("k") as task,
        otel_sessions.model_call("m") as call,
    ):
        call.record(input_tokens=7, messages="said")
        call.record(input_tokens=9)
        tool.result = {"found": 1}
        task.result = "half"
        otel_sessions.shutdown()
        call.record(input_tokens=10)
    spans = {span.name: span.attributes for span in recorded.exporter.get_finished_spans()}
    assert all(spans[name][semconv.FORCED_END] for name in ("chat m", "execute_tool t", "task k"))
    assert spans["chat m"]["gen_ai.usage.input_tokens"] == 9
    assert "said" in spans["chat m"]["gen_ai.output.messages"]
    assert spans["execute_tool t"]["gen_ai.tool.call.result"] == '{"found": 1}'
    assert spans["task k"][semconv.TASK_RESULT] == "half"
    assert otel_sessions.stats().ignored == {"late records": 1}


def test_what_is_recorded_before_the_block_is_kept_for_it(recorded: Recorded):
    """For its first entry, forced end or not; the next begins without."""
    call = otel_sessions.model_call("m")
    call.record(input_tokens=7)
    call.record(output_tokens=3)
    tool = otel_sessions.tool("t")
    tool.result = 1
    assert tool.result == "1"
    for _ in range(2):
        with call, tool:
            pass
    calls = [span.attributes for span in recorded.all() if span.name == "chat m"]
    assert [a.get("gen_ai.usage.input_tokens") for a in calls] == [7, None]
    assert [a.get("gen_ai.usage.output_tokens") for a in calls] == [3, None]
    assert recorded.all()[0].attributes["gen_ai.tool.call.result"] == "1"
    again = otel_sessions.model_call("again")
    again.record(input_tokens=5)
    again.__enter__()
    otel_sessions.shutdown()
    assert recorded.exporter.get_finished_spans()[-1].attributes["gen_ai.usage.input_tokens"] == 5


def test_what_is_recorded_after_the_block_is_counted_and_said_once(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
):
    """A matter of timing, as where a stream is read to its end too late; never an exception."""
    with otel_sessions.model_call("m") as call, otel_sessions.tool("t") as tool:
        tool.result = 1
    call.record(input_tokens=7)
    call.record(output_tokens=3)
    tool.result = 2
    assert tool.result == "1"
    assert "gen_ai.usage.input_tokens" not in recorded.one("chat m").attributes
    assert otel_sessions.stats().ignored == {"late records": 3}
    assert sum("after its end" in message for message in caplog.messages) == 1


def test_nothing_is_late_where_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch):
    """What is not sampled has nothing to lose."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, export=False, signals=False)
    with otel_sessions.model_call("m") as call:
        call.record(input_tokens=7)
    call.record(input_tokens=8)
    assert otel_sessions.stats().ignored == {}


# --- Texts that can't be sent -----------------------------------------------------------------------------------

HALF = "half \ud83d"


def test_half_a_surrogate_anywhere_reaches_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    """In names, messages, exceptions, attributes: the span is sent, with "?" in its place."""
    for name, value in collector.env.items():
        monkeypatch.setenv(name, value)
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, export=True, signals=False, capture=True)
    cause = KeyError(HALF)
    with pytest.raises(ValueError, match="half"), otel_sessions.session("exception"):
        raise ValueError(HALF) from cause
    otel_sessions.start_session("error").end("error", message=HALF)
    otel_sessions.start_session("message").end(message=HALF)
    with otel_sessions.session(HALF, title=HALF, user_id=HALF) as session, session.waiting(HALF):
        with session.task(HALF) as task, otel_sessions.agent(HALF), otel_sessions.step(HALF) as step:
            step.set_attribute(HALF, HALF)
            task.result = HALF
        with otel_sessions.tool(HALF, call_id=HALF) as tool, otel_sessions.model_call(HALF) as call:
            tool.result = HALF
            call.record(model=HALF, finish_reasons=[HALF], response_id=HALF)
    result = otel_sessions.flush(10)
    assert (result.complete, dict(result.dropped)) == (True, {})
    names = {span.name for span in collector.spans()}
    assert names == {
        "session exception",
        "session error",
        "session message",
        "session half ?",
        "task half ?",
        "invoke_agent half ?",
        "half ?",
        "execute_tool half ?",
        "chat half ?",
    }
    assert collector.span("session error").message == "half ?"
    assert collector.span("session message").attributes["otel_sessions.session.message"] == "half ?"
    assert collector.span("session exception").message == "ValueError: half ?"
    assert otel_sessions.stats().faults == {}


def test_an_exception_without_end_is_cut(recorded: Recorded):
    """Its text may be a whole response; 16 Ki characters of it are kept, and 64 Ki of the stack trace."""
    huge = "x" * 30_000_000
    with pytest.raises(ValueError, match="xxx"), otel_sessions.tool("t"):
        raise ValueError(huge) from KeyError(huge)
    span = recorded.one("execute_tool t")
    (event,) = span.events
    assert event.name == "exception"
    message, stack = event.attributes["exception.message"], event.attributes["exception.stacktrace"]
    assert (len(message), message[-6:]) == (16 * 1024 + 6, "…[cut]")
    assert len(stack) < 66 * 1024
    assert "raise ValueError(huge)" in stack
    assert len(span.status.description) < 17 * 1024
    long = otel_sessions.start_session("long")
    long.end("error", message=huge)
    assert len(recorded.one("session long").status.description) < 17 * 1024


def test_a_long_stack_trace_keeps_its_end(recorded: Recorded):
    """There it is said what was raised, and where."""

    def raise_from(cause: BaseException | None, depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom") from cause
        above = ValueError(str(depth) * 300)
        above.__cause__ = cause
        raise_from(above, depth - 1)

    with pytest.raises(ValueError, match="bottom"), otel_sessions.step("s"):
        raise_from(None, 300)
    stack = recorded.one("s").events[0].attributes["exception.stacktrace"]
    assert len(stack) < 66 * 1024
    assert stack.startswith("[cut]…\n")
    assert stack.endswith("ValueError: bottom\n")


class _MineError(Exception):
    """An exception of the user's own module."""


def _fail() -> None:
    try:
        int("x")
    except ValueError as error:
        raise _MineError("from a number") from error


def _fail_again() -> None:
    try:
        _fail()
    except _MineError:
        raise OSError(2, "no such file")  # noqa: B904 - its context is the point


def test_a_stack_trace_is_as_python_writes_it(recorded: Recorded):
    """With what led to the exception."""
    with pytest.raises(OSError, match="no such") as raised, otel_sessions.step("s"):
        _fail_again()
    stack = recorded.one("s").events[0].attributes["exception.stacktrace"]
    lines = "".join(traceback.format_exception(raised.value)).splitlines()
    assert [line for line in lines if line not in stack.splitlines()] == []
    assert stack.splitlines()[-1] == "FileNotFoundError: [Errno 2] no such file"
    assert (
        stack.index("ValueError")
        < stack.index("_MineError: from a number")
        < stack.index("FileNotFoundError")
    )


def test_a_group_without_end_is_cut(recorded: Recorded):
    """Hundreds of tasks may have failed: some of them are told, and nobody waits for all."""
    if sys.version_info < (3, 11):
        pytest.skip("no groups before Python 3.11")

    def group(depth: int) -> Exception:
        if depth == 0:
            return ValueError("leaf")
        return ExceptionGroup(f"level {depth}", [group(depth - 1) for _ in range(8)])  # noqa: F821 - 3.11

    with pytest.raises(Exception, match="level 4"), otel_sessions.step("s"):
        raise group(4)
    stack = recorded.one("s").events[0].attributes["exception.stacktrace"]
    assert 1 <= stack.count("ValueError: leaf") <= 32
    assert stack.count("ExceptionGroup: level") >= 3


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_the_text_of_an_exception_raises_does_not_matter(
    recorded: Recorded, raised: type[BaseException]
):
    """The user's own exception leaves the block, and the span says what can be said."""

    class HostileError(Exception):
        def __str__(self) -> str:
            raise raised

    with pytest.raises(HostileError), otel_sessions.session("s"), otel_sessions.tool("t"):
        raise HostileError
    for name in ("session s", "execute_tool t"):
        span = recorded.one(name)
        assert span.status.description == "HostileError: <HostileError that has no text>"
        assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize("value", [object(), {1: {2}}, float("nan"), b"\xff", "x" * 100_000])
def test_any_value_can_be_recorded(recorded: Recorded, value: Any):
    """Whatever a tool returns, recording it harms nobody."""
    with otel_sessions.tool("t", arguments={"value": value}) as tool:
        tool.result = value
    attributes = recorded.one("execute_tool t").attributes
    assert isinstance(attributes["gen_ai.tool.call.result"], str)
    assert len(attributes["gen_ai.tool.call.arguments"]) < 70_000


def test_a_value_that_fights_back_is_told_by_its_type(recorded: Recorded):
    """A `__repr__` that raises, or an object without end, never reaches user code."""

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with otel_sessions.tool("t", arguments=Hostile(), attributes={"k": Hostile()}):
        pass
    assert recorded.one("execute_tool t").attributes["gen_ai.tool.call.arguments"] == '"<Hostile>"'
    otel_sessions.sdk._guard._faults.clear()


# --- What is captured --------------------------------------------------------------------------------------------


def test_decorators_record_content_only_when_asked(recorded: Recorded):
    """Arguments and results may be secrets."""

    @otel_sessions.tool
    def search(city: str, *, nights: int = 4) -> list[str]:
        return [city] * nights

    search("Lisbon", nights=2)
    otel_sessions.init(capture=True)
    search("Porto", nights=1)
    first, second = (dict(span.attributes) for span in recorded.all())
    assert "gen_ai.tool.call.arguments" not in first
    assert "gen_ai.tool.call.result" not in first
    assert json.loads(second["gen_ai.tool.call.arguments"]) == {"city": "Porto", "nights": 1}
    assert json.loads(second["gen_ai.tool.call.result"]) == ["Porto"]


def test_no_content_overrides_everything(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    """NO_CONTENT is the operator's word, against `capture=True` and against what is passed explicitly."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "NO_CONTENT")
    otel_sessions.init(capture=True)

    @otel_sessions.agent
    def plan(city: str) -> str:
        return city

    plan("Lisbon")
    with otel_sessions.tool("t", arguments={"secret": 1}) as tool:
        tool.result = "secret"
    with otel_sessions.model_call("gpt", messages="secret", system="secret", tools=["secret"]) as call:
        call.record(messages="secret")
    assert "secret" not in str([dict(span.attributes) for span in recorded.all()])
    assert "Lisbon" not in str([dict(span.attributes) for span in recorded.all()])


@pytest.mark.parametrize("value", ["SPAN_ONLY", "SPAN_AND_EVENT", "true"])
def test_the_environment_asks_for_content(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, value: str):
    """The conventions' own switch works for our decorators too."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    otel_sessions.init()

    @otel_sessions.step
    def parse(text: str) -> None:
        """Nothing."""

    parse("x")
    assert recorded.one("parse").attributes["otel_sessions.step.arguments"] == '{"text": "x"}'


# --- Decorators --------------------------------------------------------------------------------------------------


def test_a_decorated_function_stays_what_it_was(recorded: Recorded):
    """Name, docstring, signature and kind are kept."""

    @otel_sessions.tool
    def function(a: int, b: str = "x") -> str:
        """Say something."""
        return b * a

    @otel_sessions.tool
    async def coroutine() -> None: ...

    @otel_sessions.tool
    def generator() -> Iterator[int]:
        yield 1

    @otel_sessions.tool
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    assert (function.__name__, function.__doc__) == ("function", "Say something.")
    assert list(inspect.signature(function).parameters) == ["a", "b"]
    assert function(2) == "xx"
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)


def test_a_decorator_takes_the_functions_name_or_a_given_one(recorded: Recorded):
    """Bare, called without a name, and called with one."""

    @otel_sessions.tool
    def bare() -> None: ...

    @otel_sessions.tool()
    def called() -> None: ...

    @otel_sessions.tool("search")
    def named() -> None: ...

    for function in (bare, called, named):
        function()
    assert [span.name for span in recorded.all()] == [
        "execute_tool bare",
        "execute_tool called",
        "execute_tool search",
    ]


def test_methods_of_all_kinds_can_be_decorated(recorded: Recorded):
    """Above or below staticmethod and classmethod; `self` is no argument worth recording."""
    otel_sessions.init(capture=True)

    class Agent:
        @otel_sessions.step
        def method(self, x: int) -> int:
            return x

        @otel_sessions.step
        @staticmethod
        def static(x: int) -> int:
            return x

        @classmethod
        @otel_sessions.step
        def of_class(cls, x: int) -> int:
            return x

        @otel_sessions.step("callable")
        async def __call__(self, x: int) -> int:
            return x

    agent = Agent()
    assert (agent.method(1), agent.static(2), Agent.of_class(3), asyncio.run(agent(4))) == (1, 2, 3, 4)
    assert [span.attributes["otel_sessions.step.arguments"] for span in recorded.all()] == [
        '{"x": 1}',
        '{"x": 2}',
        '{"x": 3}',
        '{"x": 4}',
    ]


def test_partials_and_callable_objects_can_be_decorated(recorded: Recorded):
    """What can be called can be traced, coroutines too."""

    class Work:
        async def __call__(self) -> int:
            return _current()

    def plain(x: int) -> int:
        return x

    work = otel_sessions.step("work")(Work())
    assert asyncio.run(work()) == recorded.one("work").context.span_id
    assert otel_sessions.step("partial")(functools.partial(plain, 3))() == 3
    with pytest.raises(otel_sessions.ConfigurationError, match="write one"):
        otel_sessions.step(functools.partial(plain, 3))
    with pytest.raises(otel_sessions.ConfigurationError, match="can't be decorated"):
        otel_sessions.step("s")(7)
    with pytest.raises(otel_sessions.ConfigurationError, match="needs a name"), otel_sessions.tool():
        pass


@pytest.mark.parametrize("block", [otel_sessions.session, otel_sessions.task, otel_sessions.tool])
def test_each_call_has_a_block_of_its_own(recorded: Recorded, block: Any):
    """Calls at the same time, and calls of itself, never share anything."""

    @block("b")
    async def work(depth: int) -> set[int]:
        await asyncio.sleep(0)
        here = _current()
        below = await work(depth - 1) if depth else set()
        assert _current() == here
        return below | {here}

    async def main() -> list[set[int]]:
        return list(await asyncio.gather(*(work(2) for _ in range(5))))

    found = asyncio.run(main())
    assert len(set().union(*found)) == 15
    assert len(recorded.all()) == 15


def test_a_task_decorator_looks_for_its_session_at_each_call(recorded: Recorded):
    """A decorated function is made once and called in many sessions."""

    @otel_sessions.task("answer")
    def answer() -> None: ...

    ids = []
    for _ in range(2):
        with otel_sessions.session() as session:
            answer()
            ids.append(session.id)
    assert [s.attributes["session.id"] for s in recorded.all() if s.name == "task answer"] == ids


# --- Generators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [otel_sessions.session, otel_sessions.task, otel_sessions.tool])
def test_a_generator_is_inside_only_while_it_runs(recorded: Recorded, block: Any):
    """The consumer never becomes a child of the suspended span."""
    tracer = recorded.provider.get_tracer("other")

    @block("g")
    def numbers() -> Iterator[int]:
        for _ in range(2):
            with tracer.start_as_current_span("inside"):
                yield _current()

    outside = []
    for span_id in numbers():
        outside.append(_current())
        with tracer.start_as_current_span("outside") as span:
            assert span.parent is None
            assert span_id != 0
    assert outside == [0, 0]
    assert _current() == 0
    around = next(s for s in recorded.all() if s.name.endswith("g"))
    assert {s.parent.span_id for s in recorded.all() if s.name == "inside"} == {around.context.span_id}


def test_a_generator_keeps_what_is_current_inside_of_it(recorded: Recorded):
    """A block that is open at a yield is current again when the generator goes on."""

    @otel_sessions.tool("g")
    def numbers() -> Iterator[int]:
        with otel_sessions.step("open"):
            here = _current()
            yield 1
            assert _current() == here

    with otel_sessions.step("consumer"):
        consumer = _current()
        for _ in numbers():
            assert _current() == consumer
        assert _current() == consumer


def test_a_break_is_no_error(recorded: Recorded, caplog: pytest.LogCaptureFixture):
    """The consumer had enough; the span ends, unset, and nothing is left current."""

    @otel_sessions.tool("g")
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    for _ in numbers():
        break
    gc.collect()
    span = recorded.one("execute_tool g")
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert _current() == 0
    assert caplog.messages == []


def test_two_generators_in_turn_leave_nothing_current(recorded: Recorded):
    """Not last in, first out: the usual cause of an ended span that stays current."""

    @otel_sessions.tool("g")
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    a, b = numbers(), numbers()
    next(a), next(b)
    list(a)
    assert _current() == 0
    list(b)
    assert _current() == 0
    assert len(recorded.all()) == 2


def test_a_generator_gets_what_is_sent_and_thrown(recorded: Recorded):
    """send, throw, close and the return value work as without us."""
    closed = []

    @otel_sessions.step("g")
    def echo() -> Iterator[Any]:
        got: Any = None
        try:
            while got != "stop":
                try:
                    got = yield got
                except LookupError as error:  # noqa: PERF203 - what is thrown in comes out here
                    got = f"caught {error}"
        finally:
            closed.append(True)
        return "result"

    generator = echo()
    assert next(generator) is None
    assert generator.send("a") == "a"
    assert generator.throw(LookupError("b")) == "caught b"
    with pytest.raises(StopIteration) as stop:
        generator.send("stop")
    assert stop.value.value == "result"
    other = echo()
    next(other)
    other.close()
    assert closed == [True, True]
    assert [span.status.status_code for span in recorded.all()] == [StatusCode.UNSET] * 2


def test_a_failing_generator_is_an_error(recorded: Recorded):
    """Its exception reaches the consumer, and the span."""

    @otel_sessions.session("g")
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(numbers())
    assert recorded.one("session g").status.status_code is StatusCode.ERROR
    assert otel_sessions.current_session() is None


@pytest.mark.parametrize("block", [otel_sessions.session, otel_sessions.task, otel_sessions.tool])
def test_an_async_generator_is_inside_only_while_it_runs(
    recorded: Recorded, block: Any, caplog: pytest.LogCaptureFixture
):
    """Exhausted, left by `break`, consumed in another task: no detach error, no leak, one ended span each."""

    @block("g")
    async def numbers() -> AsyncIterator[int]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield _current()

    async def elsewhere(generator: AsyncIterator[int]) -> int:
        return await generator.__anext__()

    async def main() -> None:
        async for inside in numbers():
            assert inside != 0
            assert _current() == 0
        async for _ in numbers():
            break
        third = numbers()
        await asyncio.create_task(elsewhere(third))
        assert _current() == 0
        await asyncio.create_task(elsewhere(third))
        await third.aclose()
        assert _current() == 0

    asyncio.run(main())
    gc.collect()
    spans = recorded.all()
    assert len(spans) == 3
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    assert [message for message in caplog.messages if "detach" in message] == []


def test_an_async_generator_gets_what_is_sent_and_thrown(recorded: Recorded):
    """Both `asend` and `athrow` work as without us, and an error is one."""

    @otel_sessions.step("g")
    async def echo() -> AsyncIterator[Any]:
        got: Any = None
        while True:
            try:
                got = yield got
            except LookupError as error:  # noqa: PERF203 - what is thrown in comes out here
                got = f"caught {error}"

    async def main() -> None:
        generator = echo()
        assert await generator.__anext__() is None
        assert await generator.asend("a") == "a"
        assert await generator.athrow(LookupError("b")) == "caught b"
        with pytest.raises(ValueError, match="no"):
            await generator.athrow(ValueError("no"))

    asyncio.run(main())
    assert recorded.one("g").status.status_code is StatusCode.ERROR


def test_a_session_inside_of_a_plain_generator_is_not_left_behind(recorded: Recorded):
    """Closed from a context that has moved on, the block ends its session and touches nothing else."""

    def numbers() -> Iterator[int]:
        with otel_sessions.session("inside"):
            yield 1

    generator = numbers()
    next(generator)
    mine = otel.set_value("mine", 1, otel.Context())
    otel.attach(mine)
    generator.close()
    assert otel.get_current() is mine
    assert otel_sessions.current_session() is None
    assert recorded.one("session inside").attributes["otel_sessions.session.outcome"] == "ok"


@pytest.mark.parametrize("block", [otel_sessions.step, otel_sessions.tool, otel_sessions.agent])
def test_attributes_that_are_no_mapping_are_named(block: Any):
    """The error is ours, and comes before anything starts."""
    with pytest.raises(otel_sessions.ConfigurationError, match="has to be a mapping"):
        block("b", attributes=7)


def test_a_model_call_without_a_model_is_recorded(recorded: Recorded):
    """Which model answers may be somebody else's business."""
    with otel_sessions.model_call(None) as call:
        call.record(model="gpt")
    assert recorded.one("chat").attributes["gen_ai.response.model"] == "gpt"


def test_gathered_tasks_have_their_own_spans(recorded: Recorded):
    """Concurrent tools below one agent are its children, not each other's."""

    async def one(number: int) -> None:
        with otel_sessions.tool(f"t{number}"):
            await asyncio.sleep(0)

    async def main() -> None:
        with otel_sessions.agent("a"):
            await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(main())
    agent = recorded.one("invoke_agent a").context.span_id
    assert {s.parent.span_id for s in recorded.all() if s.name.startswith("execute_tool")} == {agent}
