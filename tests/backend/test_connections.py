"""Connections that say nothing, or half of a head, are closed; those in the middle of a request never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from otel_sessions.backend import connections as module
from otel_sessions.backend.connections import Connections

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def serving(most: int = 100) -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    """Run a server whose one handler takes half a second; yields what connects to it."""

    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response(body=await request.read())

    connections = Connections(most)
    app = web.Application(middlewares=[connections.middleware()])
    app.add_routes([web.route("*", "/", handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connections.protocols(runner.server), "127.0.0.1", 0)  # type: ignore[arg-type]
    connections.start()
    try:
        yield lambda: asyncio.open_connection(*server.sockets[0].getsockname())
    finally:
        connections.stop()
        server.close()
        await runner.cleanup()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side closes, politely or not."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, not for ever."""
    asyncio.run(asyncio.wait_for(scenario(), 20))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the limits short."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.1)


@pytest.mark.parametrize("said", [b"P", REQUEST[:30]])
def test_half_a_head_is_waited_for_only_so_long(said: bytes) -> None:
    """Whoever sends it holds a connection that others may need."""

    async def scenario() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(said)
            assert await rest_of(reader) == b""
            writer.close()

    run(scenario)


def test_an_answer_may_take_longer_than_a_head() -> None:
    """What is in the middle of a request is never closed; afterwards the connection takes another."""

    async def scenario() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            for _ in range(2):
                writer.write(REQUEST)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(2) == b"hi"
                await asyncio.sleep(0.2)  # idle is no half of a head
            writer.close()

    run(scenario)


def test_an_idle_connection_is_closed_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it ever said something or not."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.1)

    async def scenario() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            assert await rest_of(reader) == b""
            writer.close()

    run(scenario)


def test_one_too_many_costs_the_one_that_was_idle_for_the_longest() -> None:
    """Never one that waits for its answer, nor the newest."""

    async def scenario() -> None:
        async with serving(most=3) as connect:
            busy, idle, idle_too, newest = [await connect() for _ in range(3)] + [None]
            busy[1].write(REQUEST)
            await asyncio.sleep(0.05)
            newest = await connect()
            newest[1].write(REQUEST)
            assert await rest_of(idle[0]) == b""
            for reader, _ in (busy, newest):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            idle_too[1].write(REQUEST)
            assert (await idle_too[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for _, writer in (busy, idle, idle_too, newest):
                writer.close()

    run(scenario)


def test_one_that_has_asked_before_stays_while_others_never_did() -> None:
    """A crowd that only connects never costs an agent its connection."""

    async def scenario() -> None:
        async with serving(most=3) as connect:
            known = await connect()
            known[1].write(REQUEST)
            assert await known[0].readuntil(b"\r\n\r\n") + await known[0].readexactly(2)
            crowd = [await connect() for _ in range(20)]
            assert await rest_of(crowd[0][0]) == b""
            known[1].write(REQUEST)
            assert (await known[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for _, writer in (known, *crowd):
                writer.close()

    run(scenario)


def test_who_sent_all_and_closed_its_side_gets_its_answer() -> None:
    """Half-closed is an honest way to say that nothing more comes; then the rest is closed."""

    async def scenario() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(REQUEST)
            writer.write_eof()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"hi")
            writer.close()

    run(scenario)


def test_who_closed_its_side_within_a_body_is_let_go() -> None:
    """Nothing more can come of it."""

    async def scenario() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(REQUEST[:-1])
            writer.write_eof()
            assert b"200" not in await reader.read()
            writer.close()

    run(scenario)
