"""Both receivers on real sockets over a store in memory, for what a real disk would not do on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from doubles import SECOND, MemoryStore
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_sessions.backend.access import Access, access_middleware
from otel_sessions.backend.clock import system_clock
from otel_sessions.backend.ingest import Ingest
from otel_sessions.backend.live import Live
from otel_sessions.backend.receiver import grpc as grpc_receiver
from otel_sessions.backend.receiver import http as http_receiver
from otel_sessions.backend.receiver.inflate import Inflating
from otel_sessions.backend.receiver.manners import manners_middleware
from otel_sessions.backend.services import Services, Tally
from otel_sessions.backend.settings import Address, Settings

LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Receiving:
    """Where the receivers listen, and what is behind them."""

    url: str
    grpc: str
    ingest: Ingest
    services: Services


@asynccontextmanager
async def receiving(
    store: MemoryStore, *, queue_bytes: int = 1 << 30, token: str | None = None, **options: Any
) -> AsyncIterator[Receiving]:
    """Run both receivers; `options` are further settings."""
    clock = system_clock()
    live = Live("boot", idle_after=SECOND)
    ingest = Ingest(store, live, clock, queue_bytes=queue_bytes)  # type: ignore[arg-type]
    await ingest.start()
    settings = Settings(LOOPBACK, LOOPBACK, Path(), SECOND, token, **options)
    tallies = {"http": Tally(), "grpc": Tally()}
    services = Services(settings, clock, store, live, ingest, 0, tallies)  # type: ignore[arg-type]
    threads = ThreadPoolExecutor(1)
    inflating = Inflating(threads, settings.max_body)
    server, address = await grpc_receiver.start(services, LOOPBACK, inflating)
    middlewares = [manners_middleware(settings.otlp_origins)]
    if token is not None:
        middlewares.append(access_middleware(Access.of(settings), http_receiver.turned_away(services)))
    app = web.Application(middlewares=middlewares)
    app.add_routes(http_receiver.routes(services, inflating))
    runner = web.AppRunner(app, auto_decompress=False, access_log=None, lingering_time=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        yield Receiving(f"http://127.0.0.1:{port}", str(address), ingest, services)
    finally:
        await runner.cleanup()
        await server.stop(None)
        threads.shutdown()
        await ingest.stop()


def traces(*names: str, size: int = 0, bad: int = 0) -> ExportTraceServiceRequest:
    """Build a request of spans, the first padded to at least `size` bytes, and `bad` ones without ids."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for n, name in enumerate(names or ("span",)):
        span = spans.add(name=name, trace_id=b"t" * 16, span_id=(n + 1).to_bytes(8, "big"))
        if size and not n:
            span.attributes.add(key="pad").value.string_value = "x" * size
    for _ in range(bad):
        spans.add(name="bad")
    return message
