"""Claims about generators, sync and async: their span ends once, and the consumer is never inside of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from endings import Ending, ending
from opentelemetry import trace
from outcomes import Ended
from span_collector import Collector

import otel_sessions
from otel_sessions.testing import Captured

Run = Callable[..., Ended]

BLOCKS: dict[str, Callable[[], Any]] = {
    "session": lambda: otel_sessions.session("g"),
    "task": lambda: otel_sessions.task("g"),
    "tool": lambda: otel_sessions.tool("g"),
}


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest) -> Any:
    """Return each kind of decorator."""
    return BLOCKS[request.param]()


@pytest.fixture(autouse=True)
def _nothing_is_logged_or_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No generator leaves its span current, nor a line such as "Failed to detach context"."""
    before = trace.get_current_span()
    yield
    gc.collect()
    assert caplog.records == []
    assert trace.get_current_span() is before
    assert otel_sessions.current_session() is None


def numbers(block: Any, inside: Callable[[int], None] = lambda _: None) -> Callable[[], Iterator[int]]:
    """Return a generator function that yields 0, 1, 2, with a span of its own at each."""

    @block
    def generate() -> Iterator[int]:
        for number in range(3):
            with otel_sessions.step(f"made {number}"):
                inside(number)
            yield number

    return generate


def async_numbers(
    block: Any, inside: Callable[[int], None] = lambda _: None
) -> Callable[[], AsyncIterator[int]]:
    """Return the same as an async generator function."""

    @block
    async def generate() -> AsyncIterator[int]:
        for number in range(3):
            with otel_sessions.step(f"made {number}"):
                await asyncio.sleep(0)
                inside(number)
            yield number

    return generate


def used(number: int) -> None:
    """Consume."""
    with otel_sessions.step(f"used {number}"):
        pass


def check(
    captured: Captured, *, made: int, consumed: int, error: str | None = None, open_: bool = False
) -> None:
    """Check the one span of the generator, what was made inside and used outside of it."""
    spans = {span.name: span for span in captured.spans}
    names = ["g"] + [f"made {n}" for n in range(made)] + [f"used {n}" for n in range(consumed)]
    assert sorted(span.name for span in captured.spans) == sorted(names)
    generator = spans["g"]
    assert (generator.end is None, generator.error) == (open_, error)
    for name, span in spans.items():
        assert span.parent_id == (generator.span_id if name.startswith("made") else None), name
        assert span.trace_id != generator.trace_id or not name.startswith("used")


def exhaust(generate: Callable[[], Iterator[int]]) -> None:
    """Read to the end."""
    for number in generate():
        used(number)


def leave_early(generate: Callable[[], Iterator[int]]) -> None:
    """Have enough of it."""
    for number in generate():
        used(number)
        break


def collect(generate: Callable[[], Iterator[int]]) -> None:
    """Let the collector of garbage close it, in the midst of a cycle."""
    generator = generate()
    cycle: list[Any] = [generator]
    cycle.append(cycle)
    used(next(generator))
    del generator, cycle
    gc.collect()


def in_threads(generate: Callable[[], Iterator[int]]) -> None:
    """Take each item in another thread, and let the last one drop it."""
    generator = generate()

    def step() -> None:
        used(next(generator))

    for _ in range(3):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    contextvars.Context().run(generator.close)


def in_contexts(generate: Callable[[], Iterator[int]]) -> None:
    """Take each item in a context of its own."""
    generator = generate()
    for _ in range(3):
        contextvars.Context().run(lambda: used(next(generator)))
    contextvars.copy_context().run(lambda: list(generator))


WAYS: dict[str, tuple[Callable[[Any], None], int]] = {
    "exhausted": (exhaust, 3),
    "break": (leave_early, 1),
    "collected": (collect, 1),
    "threads": (in_threads, 3),
    "contexts": (in_contexts, 3),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_generator_ends_its_span_once(captured_sessions: Captured, block: Any, way: str):
    """However it is consumed; that nobody wants more of it is no error."""
    consume, items = WAYS[way]
    consume(numbers(block))
    check(captured_sessions, made=items, consumed=items)


async def exhaust_async(generate: Callable[[], AsyncIterator[int]]) -> None:
    """Read to the end."""
    async for number in generate():
        used(number)


async def leave_early_async(generate: Callable[[], AsyncIterator[int]]) -> None:
    """Have enough, and leave the closing to the loop."""
    async for number in generate():
        used(number)
        break


async def collect_async(generate: Callable[[], AsyncIterator[int]]) -> None:
    """Let the collector find it; the loop's hook then closes it in a task of its own."""
    generator = generate()
    used(await generator.__anext__())
    del generator
    gc.collect()
    await asyncio.sleep(0.01)


async def in_tasks(generate: Callable[[], AsyncIterator[int]]) -> None:
    """Take each item in another task, and close it in one more."""
    generator: Any = generate()

    async def step() -> None:
        used(await generator.__anext__())

    for _ in range(3):
        await asyncio.create_task(step())
    await asyncio.create_task(generator.aclose())


async def cancelled(generate: Callable[[], AsyncIterator[int]]) -> None:
    """Cancel the task that consumes, between two items."""
    ready = asyncio.Event()

    async def consume() -> None:
        async for number in generate():
            used(number)
            ready.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(consume())
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


ASYNC_WAYS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "exhausted": (exhaust_async, 3),
    "break": (leave_early_async, 1),
    "collected": (collect_async, 1),
    "tasks": (in_tasks, 3),
    "cancelled": (cancelled, 1),
}


@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_an_async_generator_ends_its_span_once(captured_sessions: Captured, block: Any, way: str):
    """However it is consumed, and in whichever task it is closed."""
    consume, items = ASYNC_WAYS[way]
    asyncio.run(consume(async_numbers(block)))
    check(captured_sessions, made=items, consumed=items)


def fail(number: int) -> None:
    """Fail at the second item."""
    if number:
        raise ValueError("no")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_inside_is_one(captured_sessions: Captured, block: Any, kind: str):
    """It reaches the consumer, and marks the span of the generator; the consumer's own are well."""
    ways = {
        "sync": lambda: exhaust(numbers(block, fail)),
        "async": lambda: asyncio.run(exhaust_async(async_numbers(block, fail))),
    }
    with pytest.raises(ValueError, match="no"):
        ways[kind]()
    check(captured_sessions, made=2, consumed=1, error="ValueError")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_of_the_consumer_is_not_the_generators(
    captured_sessions: Captured, block: Any, kind: str
):
    """To the generator it is a break."""

    async def consume_async() -> None:
        async for number in async_numbers(block)():
            used(number)
            raise KeyError(number)

    def consume() -> None:
        for number in numbers(block)():
            used(number)
            raise KeyError(number)

    run = consume if kind == "sync" else lambda: asyncio.run(consume_async())
    with pytest.raises(KeyError):
        run()
    gc.collect()
    check(captured_sessions, made=1, consumed=1)


def test_one_that_is_never_finished_stays_open(captured_sessions: Captured, block: Any):
    """Somebody may go on with it; until then nobody else is inside."""
    generator = numbers(block)()
    used(next(generator))
    check(captured_sessions, made=1, consumed=1, open_=True)
    generator.close()


def test_one_that_was_never_begun_has_no_span(captured_sessions: Captured, block: Any):
    """Its body never ran."""
    numbers(block)()
    asyncio.run(_make_only(async_numbers(block)))
    assert captured_sessions.spans == ()


async def _make_only(generate: Callable[[], AsyncIterator[int]]) -> None:
    generate()


def test_generators_in_turn_have_their_own(captured_sessions: Captured):
    """Two sessions at a time, driven in turn and closed in any order: neither has anything of the other."""

    @otel_sessions.session("g")
    def generate(name: str) -> Iterator[str]:
        for number in range(3):
            with otel_sessions.tool(f"{name}{number}"):
                yield name

    one, two = generate("a"), generate("b")
    for _ in range(3):
        next(one)
        next(two)
    one.close()
    assert list(two) == []
    assert [session.tools for session in captured_sessions.sessions] == [
        ("a0", "a1", "a2"),
        ("b0", "b1", "b2"),
    ]
    for session in captured_sessions.sessions:
        session.assert_outcome("ok", "completed")


CONSUMERS = {
    "its generator is read to the end": ("for _ in generate(): pass", "completed", "ok"),
    "its consumer has enough (`break`)": ("for _ in generate(): break", "completed", "ok"),
    "its generator fails": ("for _ in generate(fail=True): pass", "error", "error"),
    "its generator is never finished, and the program ends": (
        "held = generate(); next(held)",
        "process_exit",
        None,
    ),
    "its generator is dropped, and collected": (
        "held = generate(); next(held); held = [held]; held.append(held); del held; import gc; gc.collect()",
        "completed",
        "ok",
    ),
    "the consumer of its async generator has enough (`break`)": (
        "asyncio.run(leave(generate_async(), then=0.05))",
        "completed",
        "ok",
    ),
    "the same as the loop ends, for asyncio then cancels the closing": (
        "asyncio.run(leave(generate_async()))",
        "cancelled",
        "cancelled",
    ),
    "its async generator is never finished, and the loop ends": (
        "asyncio.run(begin(generate_async()))",
        "completed",
        "ok",
    ),
}


@pytest.mark.parametrize(
    "consume",
    [
        pytest.param(consume, marks=ending("Generators", name, reason, outcome), id=name)
        for name, (consume, reason, outcome) in CONSUMERS.items()
    ],
)
def test_a_session_around_a_generator_ends_with_it(
    run_program: Run, collector: Collector, documented: Ending, consume: str
):
    """In a process of its own, up to its end."""
    run_program(
        f"""
import asyncio
import otel_sessions
otel_sessions.init()
otel_sessions.flush(30)

@otel_sessions.session("s")
def generate(fail=False):
    with otel_sessions.tool("t"):
        pass
    yield 1
    if fail:
        raise ValueError("no")
    yield 2

@otel_sessions.session("s")
async def generate_async():
    with otel_sessions.tool("t"):
        await asyncio.sleep(0)
    yield 1
    yield 2

held = []

async def leave(numbers, then=None):
    async for _ in numbers:
        break
    del numbers
    if then is not None:
        await asyncio.sleep(then)

async def begin(numbers):
    held.append(numbers)
    await numbers.__anext__()

{consume}
""",
        collector.env,
    )
    documented.holds(collector.spans())
