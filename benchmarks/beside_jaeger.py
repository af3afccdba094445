"""Stored spans a second beside the real Jaeger with Badger, and what each has left after a kill -9.

Both programs get the same requests over OTLP/HTTP (or gRPC) from one process of its own, one after the other
on the same machine. What counts is what is stored, not what was acknowledged: each is asked afterwards for
every trace over Jaeger's own API (ours answers it under /jaeger/), and the spans that come back are counted.

    stored     load, wait until the program has written all that it took, count, and divide by that time
    kill -9    load, kill right after the last acknowledgement, start again on the same folder, count

Jaeger is measured twice: as it comes (a queue of 2,000 spans), and with a queue that holds the whole load.

    python benchmarks/beside_jaeger.py [--spans 24000] [--rounds 3] [--connections 4] [--wire http]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from request_file import read_requests, write_requests
from store import bodies

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "neighbours"))

GRPC_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
JAEGER_SAVED = re.compile(
    r"^jaeger_collector_spans_(?:saved_by_svc|dropped|rejected)_total(?:\{.*\})? ([0-9.e+]+)$", re.MULTILINE
)
WAIT_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Running:
    """One program that takes OTLP and answers Jaeger's API."""

    process: subprocess.Popen[Any]
    http: str
    grpc: str
    api: str
    admin: str


@dataclass(frozen=True, slots=True)
class Load:
    """The same for every program: what is sent, and how."""

    wire: str
    connections: int
    requests: Path
    spans: int
    trace_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Result:
    """One load of one program."""

    seconds: float
    stored: int
    left_after_kill: int


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ours(folder: Path) -> Running:
    """Start `otel-sessions serve` on a folder."""
    command = [sys.executable, "-m", "otel_sessions.cli.main", "serve", "--json", "--data", str(folder)]
    process = subprocess.Popen(
        [*command, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    listening = json.loads(process.stdout.readline())
    http = f"http://{listening['http']}"
    return Running(process, http, listening["grpc"], f"{http}/jaeger", "")


def start_jaeger(binary: Path, folder: Path, queue: int) -> Running:
    """Start Jaeger's all-in-one with Badger on a folder."""
    names = (
        "collector.otlp.grpc", "collector.otlp.http", "query.http-server", "query.grpc-server", "admin.http",
        "collector.grpc-server", "collector.http-server",
    )  # fmt: skip
    ports = {name: free_port() for name in names}
    flags = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items()]
    flags += ["--badger.ephemeral=false", f"--badger.directory-key={folder}/keys"]
    flags += [f"--badger.directory-value={folder}/values", f"--collector.queue-size={queue}"]
    process = subprocess.Popen(
        [binary, *flags, "--log-level=error"],
        env={**os.environ, "SPAN_STORAGE_TYPE": "badger", "COLLECTOR_OTLP_ENABLED": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    return Running(
        process,
        f"http://{at['collector.otlp.http']}",
        at["collector.otlp.grpc"],
        f"http://{at['query.http-server']}",
        f"http://{at['admin.http']}",
    )


@contextlib.contextmanager
def started(start: Callable[[], Running]) -> Iterator[Running]:
    """Start a program, wait until it answers, and end it by its process id."""
    program = start()
    try:
        asyncio.run(_ready(program))
        yield program
    finally:
        program.process.kill()
        program.process.wait()


async def _ready(program: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{program.api}/api/services") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise SystemExit(f"{program.api} doesn't answer")


# --- Load ------------------------------------------------------------------------------------------------


def send_all(program: Running, load: Load, *, kill: bool = False) -> None:
    """Send all requests from a process of its own, which can kill (-9) after the last acknowledgement."""
    target = program.http if load.wire == "http" else program.grpc
    command = [sys.executable, __file__, "--send", target, "--wire", load.wire]
    command += ["--requests", str(load.requests), "--connections", str(load.connections)]
    command += ["--kill", str(program.process.pid if kill else 0)]
    subprocess.run(command, check=True)


async def send(target: str, wire: str, requests: Sequence[bytes], connections: int) -> None:
    """Send requests over so many connections at once; any refusal is an error."""
    todo = iter(requests)
    sender = _send_http if wire == "http" else _send_grpc
    await asyncio.gather(*(sender(target, todo) for _ in range(connections)))


async def _send_http(target: str, todo: Iterator[bytes]) -> None:
    headers = {"content-type": "application/x-protobuf"}
    async with aiohttp.ClientSession() as session:
        for body in todo:
            async with session.post(f"{target}/v1/traces", data=body, headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()


async def _send_grpc(target: str, todo: Iterator[bytes]) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        export = channel.unary_unary(GRPC_EXPORT)
        for body in todo:
            await export(body)


# --- Count -----------------------------------------------------------------------------------------------


async def written(program: Running, sent: int) -> None:
    """Wait until a Jaeger has saved or dropped all that it took; ours has when it acknowledges."""
    if not program.admin:
        return
    async with aiohttp.ClientSession() as session:
        for _ in range(WAIT_SECONDS * 10):
            async with session.get(f"{program.admin}/metrics") as answer:
                text = await answer.text()
            if sum(float(value) for value in JAEGER_SAVED.findall(text)) >= sent:
                return
            await asyncio.sleep(0.1)
    raise SystemExit("Jaeger never told that it had saved or dropped everything")


async def count(program: Running, trace_ids: Sequence[str]) -> int:
    """Count the spans that the program gives back, trace by trace."""
    todo, spans = iter(trace_ids), 0

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal spans
        for trace_id in todo:
            async with session.get(f"{program.api}/api/traces/{trace_id}") as answer:
                if answer.status == 404:
                    continue
                found = (await answer.json())["data"]
                spans += len({span["spanID"] for trace in found for span in trace["spans"]})

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(4)))
    return spans


def measure(start: Callable[[Path], Running], load: Load) -> Result:
    """Load a program twice: once to its end, once until the kill."""
    with tempfile.TemporaryDirectory() as name, started(lambda: start(Path(name))) as program:
        began = time.perf_counter()
        send_all(program, load)
        asyncio.run(written(program, load.spans))
        seconds = time.perf_counter() - began
        stored = asyncio.run(count(program, load.trace_ids))
    with tempfile.TemporaryDirectory() as name:
        with started(lambda: start(Path(name))) as program:
            send_all(program, load, kill=True)
        with started(lambda: start(Path(name))) as program:
            left = asyncio.run(count(program, load.trace_ids))
    return Result(seconds, stored, left)


def main() -> None:
    """Measure in turn, and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=24_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--request", type=int, default=60, help="spans a request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--wire", choices=("http", "grpc"), default="http")
    parser.add_argument("--jaeger", type=Path, default=None, help="Jaeger's all-in-one; else it is built")
    parser.add_argument("--send", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        requests = read_requests(options.requests)
        asyncio.run(send(options.send, options.wire, requests, options.connections))
        if options.kill:
            os.kill(options.kill, signal.SIGKILL)
        return
    jaeger = options.jaeger or _built_jaeger()
    made = bodies(options.spans, options.request, 7)
    sent = len(made) * options.request
    trace_ids = sorted(_trace_ids(made))
    programs: dict[str, Callable[[Path], Running]] = {
        "otel-sessions": start_ours,
        "Jaeger, its own queue": lambda folder: start_jaeger(jaeger, folder, 2_000),
        "Jaeger, queue of a million": lambda folder: start_jaeger(jaeger, folder, 1_000_000),
    }
    results: dict[str, list[Result]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as name:
        load = Load(options.wire, options.connections, Path(name) / "requests", sent, trace_ids)
        write_requests(load.requests, made)
        for _ in range(options.rounds):
            for program, start in programs.items():
                results[program].append(measure(start, load))
    size = sum(map(len, made)) / sent
    print(f"{sent} spans of {size:.0f} bytes, {load.wire}, {load.connections} connections")
    print(f"{'':28} {'stored spans/s':>14} {'stored of sent':>15} {'left after kill -9':>19}")
    for program, samples in results.items():
        rate = statistics.median(one.stored / one.seconds for one in samples)
        stored = statistics.median(one.stored for one in samples) / sent
        left = min(one.left_after_kill for one in samples) / sent
        print(f"{program:28} {rate:14.0f} {stored:15.1%} {left:19.2%}")


def _trace_ids(requests: Sequence[bytes]) -> set[str]:
    return {
        span.trace_id.hex()
        for body in requests
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    }


def _built_jaeger() -> Path:
    from programs import JAEGER, executable

    return executable(JAEGER, print)


if __name__ == "__main__":
    main()
