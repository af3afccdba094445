"""Documents that are sent in pieces: bounded however many ask for them, and however slowly they read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import ClientResponse, ClientSession, web

from otel_sessions.backend.replies import Documents

PIECE = b"x" * 65_536


@asynccontextmanager
async def served(
    documents: Documents, pieces: Callable[[], Iterator[bytes]]
) -> AsyncGenerator[tuple[str, ClientSession]]:
    """Serve a document made of pieces on a real socket."""

    async def document(request: web.Request) -> web.StreamResponse:
        return await documents.send(request, pieces(), {"Content-Type": "text/plain"})

    app = web.Application()
    app.router.add_get("/", document)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ClientSession(auto_decompress=False) as client:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/", client
    finally:
        await runner.cleanup()


async def _open(client: ClientSession, url: str) -> ClientResponse:
    return await client.get(url, headers={"Accept-Encoding": "identity"})


def _endless() -> Iterator[bytes]:
    while True:
        yield PIECE


def test_few_documents_are_made_at_a_time() -> None:
    """Each piece is Python that holds the interpreter: a worker thread more is an event loop that waits."""
    lock = threading.Lock()
    making, most = 0, 0

    def pieces() -> Iterator[bytes]:
        nonlocal making, most
        for _ in range(20):
            with lock:
                making += 1
                most = max(most, making)
            threading.Event().wait(0.002)
            with lock:
                making -= 1
            yield b"piece"

    async def ask() -> list[bytes]:
        async with served(Documents(made_at_once=2), pieces) as (url, client):

            async def read() -> bytes:
                async with await _open(client, url) as response:
                    return await response.read()

            return await asyncio.gather(*(read() for _ in range(8)))

    assert asyncio.run(ask()) == [b"piece" * 20] * 8
    assert most == 2


def test_who_asks_for_one_document_too_many_is_told_to_come_back() -> None:
    """A reader that takes its time holds what the document is made of, so there are only so many."""

    async def ask() -> tuple[list[int], str]:
        async with served(Documents(most=3), _endless) as (url, client), AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(await _open(client, url)) for _ in range(4)]
            return [one.status for one in opened], opened[-1].headers["Retry-After"]

    statuses, after = asyncio.run(ask())
    assert statuses == [200, 200, 200, 503]
    assert int(after) > 0


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    """Its place goes to the next one; what it got was no whole document, which the cut tells."""

    async def ask() -> int:
        documents = Documents(most=1, stalled_seconds=0.1)
        async with served(documents, _endless) as (url, client), await _open(client, url):
            while True:
                async with await _open(client, url) as other:
                    if other.status == 200:
                        return other.status
                await asyncio.sleep(0.02)

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == 200


def test_what_fails_before_the_first_piece_can_still_be_answered() -> None:
    """A trace that nobody knows, a store that can't be read: an answer, not a document that breaks."""

    def failing() -> Iterator[bytes]:
        raise web.HTTPNotFound
        yield b""

    async def ask() -> int:
        async with served(Documents(most=1), failing) as (url, client):
            async with await _open(client, url) as first:
                assert first.status == 404
            async with await _open(client, url) as second:  # the place is free again
                return second.status

    assert asyncio.run(ask()) == 404
