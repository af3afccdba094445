"""The backend as one running thing: its parts are started in order, and stopped in reverse.

    store -> live view -> ingest -> gRPC -> HTTP (receiver, API, page)

So nothing is accepted before it can be stored, and at the end whatever was accepted is committed before
the store is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, cast

from aiohttp import web

from otel_sessions.backend import api, jaeger
from otel_sessions.backend import web as pages
from otel_sessions.backend.access import Access, access_middleware
from otel_sessions.backend.api.problems import problem_middleware
from otel_sessions.backend.clock import Clock, system_clock
from otel_sessions.backend.connections import Connections, most_connections
from otel_sessions.backend.ingest import Ingest
from otel_sessions.backend.live import Live
from otel_sessions.backend.receiver import grpc as grpc_receiver
from otel_sessions.backend.receiver import http as http_receiver
from otel_sessions.backend.receiver.inflate import Inflating
from otel_sessions.backend.receiver.manners import manners_middleware
from otel_sessions.backend.records import SessionRecord
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_key import key_in
from otel_sessions.backend.services import Services, Tally
from otel_sessions.backend.settings import Address, Settings
from otel_sessions.backend.store.base import SessionQuery, Store
from otel_sessions.backend.store.sqlite import SqliteStore
from otel_sessions.backend.upkeep import Upkeep
from otel_sessions.backend.web.errors import error_page_middleware
from otel_sessions.backend.web.guard import guard_middleware
from otel_sessions.errors import AddressError, BackendError
from otel_sessions.lifecycle import State

__all__ = ["Listening", "running", "serve"]

GRACE_SECONDS: Final = 5.0
"""How long requests may take to finish at the end; a commit takes milliseconds."""

INFLATE_THREADS: Final = 2

LINE_BYTES: Final = 64 * 1024
"""Longest line of a request: a search for a pasted text takes 12 bytes in its URL for some letters."""

BACKLOG: Final = 1024
"""Connections that may wait to be accepted: a fleet of agents comes at once after a restart."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running backend is reached, and where it keeps its data."""

    http: Address
    grpc: Address
    data: Path


async def serve(settings: Settings, announce: Callable[[Listening], None]) -> None:
    """Run a backend until SIGTERM or SIGINT; call `announce` once it is ready.

    Raises a BackendError that says what to do where it can't start, or where its writer failed.
    """
    with _stop_signals() as stop:
        async with running(settings, system_clock()) as (listening, writer):
            announce(listening)
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({stopped, writer}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                stopped.cancel()
                raise BackendError("the writer failed, which is a fault of ours; please report it") from (
                    writer.exception()
                )


@contextlib.asynccontextmanager
async def running(settings: Settings, clock: Clock) -> AsyncGenerator[tuple[Listening, asyncio.Task[None]]]:
    """Run a backend inside the block; yields where it listens, and its writer. Raises BackendError."""
    async with contextlib.AsyncExitStack() as stack:
        store = await asyncio.to_thread(SqliteStore, settings.data)
        stack.push_async_callback(asyncio.to_thread, store.close)
        live = Live(secrets.token_hex(6), idle_after=settings.idle_after)
        await _load(live, store, clock, settings.idle_after)
        redactor = Redactor(settings.redaction, key_in(settings.data)) if settings.redaction else None
        ingest = Ingest(store, live, clock, redactor=redactor)
        writer = await ingest.start()
        stack.push_async_callback(ingest.stop)
        tallies = {"http": Tally(), "grpc": Tally()}
        services = Services(settings, clock, store, live, ingest, clock.wall(), tallies)
        inflate_threads = stack.enter_context(ThreadPoolExecutor(INFLATE_THREADS, "otel-sessions-inflate"))
        inflating = Inflating(inflate_threads, settings.max_body)
        server, grpc_address = await grpc_receiver.start(services, settings.grpc, inflating)
        stack.push_async_callback(server.stop, GRACE_SECONDS)
        http_address = await _start_http(services, inflating, stack)
        upkeep = asyncio.create_task(Upkeep(settings, store, live, ingest, clock).run(), name="upkeep")
        stack.push_async_callback(_end, upkeep)
        stack.callback(live.close)  # first of all: a stream never ends by itself
        yield Listening(http_address, grpc_address, settings.data), writer


def application(services: Services, inflating: Inflating, connections: Connections) -> web.Application:
    """Assemble everything that is reached over HTTP."""
    middlewares = [
        connections.middleware(),
        manners_middleware(services.settings.otlp_origins),
        problem_middleware,
        error_page_middleware,
        guard_middleware(
            services.settings.host_names,
            csrf=services.csrf,
            asks_for_token=services.settings.token is not None,
        ),
    ]
    if services.settings.token is not None:
        turned_away = http_receiver.turned_away(services)
        middlewares.append(access_middleware(Access.of(services.settings), turned_away))
    app = web.Application(middlewares=middlewares)
    app.add_routes(http_receiver.routes(services, inflating))
    app.add_routes(api.routes(services))
    app.add_routes(jaeger.routes(services))
    app.add_routes(pages.routes(services))
    return app


async def _start_http(services: Services, inflating: Inflating, stack: contextlib.AsyncExitStack) -> Address:
    address = services.settings.http
    connections = Connections(most_connections())
    runner = web.AppRunner(
        application(services, inflating, connections),
        access_log=None,
        max_line_size=LINE_BYTES,
        auto_decompress=False,  # the receiver inflates, within a limit
        shutdown_timeout=GRACE_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        server = await asyncio.get_running_loop().create_server(
            connections.protocols(cast("web.Server", runner.server)),
            address.host,
            address.port,
            backlog=BACKLOG,
        )
    except OSError as error:
        raise AddressError(
            f"{address} can't be listened on for HTTP ({error.strerror or error}); "
            "stop the other program or choose another with --http HOST:PORT"
        ) from error
    connections.start()
    stack.callback(connections.stop)
    stack.callback(server.close)
    return Address(address.host, server.sockets[0].getsockname()[1])


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for it. Raises what it failed with, if it did."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _load(live: Live, store: Store, clock: Clock, idle_after: int) -> None:
    runs, bases = await asyncio.to_thread(lambda: (store.open_runs(), store.process_bases()))
    silent = await asyncio.to_thread(_not_idle_yet, store, clock.wall() - idle_after)
    live.load(runs, bases, silent, now=clock.monotonic(), wall=clock.wall())


def _not_idle_yet(store: Store, idle_before: int) -> list[SessionRecord]:
    """Read the sessions without a run whose going idle is still to be told."""
    found: list[SessionRecord] = []
    query = SessionQuery(states=(State.RUNNING.value,), limit=500, idle_before=idle_before)
    while True:
        page = store.sessions(query)
        found += [session for session in page.sessions if session.runs_count == 0]
        if page.next is None:
            return found
        query = SessionQuery(states=query.states, limit=query.limit, idle_before=idle_before, after=page.next)


@contextlib.contextmanager
def _stop_signals() -> Generator[asyncio.Event]:
    """Turn the first SIGTERM or SIGINT into an event; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(_number: int, _frame: FrameType | None) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        loop.call_soon_threadsafe(stop.set)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
