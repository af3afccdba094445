"""The least that a durable sink of spans can do, as a server: what `ingest.py` measures ours beside.

The same front as ours (aiohttp, grpc.aio with handlers of raw bytes), then: parse with the protobuf classes,
one row a span with its key, times and bytes, all requests that gathered during the last commit in one
transaction with synchronous=FULL, the acknowledgement after it. No session, no roll-up, no compression,
nothing to list.

    python benchmarks/sink.py FOLDER

Prints where it listens as `otel-sessions serve --json` does, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otel_sessions.backend.receiver.inflate import inflate

__all__ = ["PRAGMAS", "SCHEMA", "insert", "parsed"]

TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
MOST_BYTES = 64 * 1024 * 1024
PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;"
SCHEMA = (
    "CREATE TABLE spans (id INTEGER PRIMARY KEY, trace_id BLOB, span_id BLOB, start INTEGER,"
    " duration INTEGER, body BLOB, UNIQUE (trace_id, span_id))"
)
INSERT = "INSERT OR IGNORE INTO spans (trace_id, span_id, start, duration, body) VALUES (?, ?, ?, ?, ?)"

Row = tuple[bytes, bytes, int, int, bytes]


def parsed(body: bytes) -> list[Row]:
    """Parse a request into one row a span."""
    return [
        (
            span.trace_id,
            span.span_id,
            span.start_time_unix_nano,
            span.end_time_unix_nano - span.start_time_unix_nano,
            span.SerializeToString(),
        )
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def insert(conn: sqlite3.Connection, rows: list[Row]) -> None:
    """Store rows in one transaction."""
    conn.execute("BEGIN IMMEDIATE")
    conn.executemany(INSERT, rows)
    conn.execute("COMMIT")


class Sink:
    """Group commit, as in `otel_sessions.backend.ingest`."""

    def __init__(self, folder: Path) -> None:
        self.conn = sqlite3.connect(folder / "sessions.db", isolation_level=None, check_same_thread=False)
        self.conn.executescript(PRAGMAS)
        self.conn.execute(SCHEMA)
        self._waiting: list[tuple[list[Row], asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def accept(self, body: bytes) -> bytes:
        """Store a request; return the answer when it is on the disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((parsed(body), done))
        self._work.set()
        await done
        return ExportTraceServiceResponse().SerializeToString()

    async def write_on(self) -> None:
        """Commit what gathered, again and again."""
        while True:
            await self._work.wait()
            self._work.clear()
            batch, self._waiting = self._waiting, []
            rows = [row for of_request, _ in batch for row in of_request]
            await asyncio.get_running_loop().run_in_executor(self._thread, insert, self.conn, rows)
            for _, done in batch:
                done.set_result(None)

    async def post(self, request: web.Request) -> web.Response:
        """Take a request over HTTP."""
        body = await request.read()
        coding = request.headers.get("content-encoding", "identity")
        if coding != "identity":
            body = inflate(body, coding, MOST_BYTES)
        return web.Response(body=await self.accept(body), content_type="application/x-protobuf")

    async def export(self, message: bytes, _context: Any) -> bytes:
        """Take a request over gRPC."""
        return await self.accept(message)


async def serve(folder: Path) -> None:
    """Serve until SIGTERM."""
    sink = Sink(folder)
    writer = asyncio.create_task(sink.write_on())
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", MOST_BYTES),))
    handler = grpc.unary_unary_rpc_method_handler(sink.export)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(TRACES, {"Export": handler})])
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    app = web.Application(client_max_size=MOST_BYTES)
    app.router.add_post("/v1/traces", sink.post)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    http_port = runner.addresses[0][1]
    print(json.dumps({"http": f"127.0.0.1:{http_port}", "grpc": f"127.0.0.1:{grpc_port}"}), flush=True)
    await stop.wait()
    await server.stop(1)
    await runner.cleanup()
    writer.cancel()
    sink.conn.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
