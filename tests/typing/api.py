"""The public API as users write it; it only has to type-check, by pyright and by mypy in strict mode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from typing_extensions import assert_type

import otel_sessions
from otel_sessions import ModelCall, Session, Task, Work


@otel_sessions.tool
def bare(city: str, *, nights: int = 4) -> list[str]:
    """Stay what it is."""
    return [city] * nights


@otel_sessions.tool("search", call_id="c-1")
async def coroutine(city: str) -> str:
    """Stay what it is."""
    return city


@otel_sessions.agent()
def generator() -> Iterator[int]:
    """Stay what it is."""
    yield 1


@otel_sessions.session("s", timeout=5)
@otel_sessions.task("t")
@otel_sessions.step
async def async_generator() -> AsyncIterator[int]:
    """Stay what it is."""
    yield 1


def blocks() -> None:
    """Enter blocks of all kinds."""
    handle = otel_sessions.init(service_name="travel", capture=True)
    assert_type(handle.session, "Session | None")
    assert_type(bare("Lisbon", nights=2), "list[str]")
    assert_type(next(generator()), int)
    with otel_sessions.session("plan trip", tags=["demo"], nested="child") as session:
        assert_type(session, Session)
        with session.task("answer") as task:
            assert_type(task, Task)
            task.result = 1
        with otel_sessions.agent("planner") as agent, otel_sessions.tool("search") as tool:
            assert_type(agent, Work)
            tool.result = {"a": 1}
        with otel_sessions.model_call("gpt", messages=[{"role": "user", "content": "hi"}]) as call:
            assert_type(call, ModelCall)
            call.record(input_tokens=1, finish_reasons=["stop"])
        with session.waiting("approval"), session.activate() as again:
            assert_type(again, Session)
        assert_type(session.end("error", message="no seats"), bool)
    assert_type(otel_sessions.flush(1.0).complete, bool | None)
    assert_type(otel_sessions.wrap(bare)("Lisbon"), "list[str]")


async def async_blocks() -> None:
    """Enter blocks of all kinds."""
    async with otel_sessions.session() as session, session.task("t") as task, otel_sessions.step("s") as step:
        assert_type(session, Session)
        assert_type(task, Task)
        assert_type(step, Work)
        assert_type(await coroutine("Lisbon"), str)
        async for number in async_generator():
            assert_type(number, int)
