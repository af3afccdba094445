"""Stored spans a second over the wire, beside a bare SQLite sink, in one run; or microseconds by stage.

`otel-sessions serve` and `sink.py` get the same requests from a process of its own, in turn, so that what
else the machine does hits both. The spans are counted in the database after the program has ended. CPU is
that of the server's process, all threads: on a shared machine it is steadier than the clock.

    python benchmarks/ingest.py [--spans 18000] [--rounds 2] [--wire http grpc] [--connections 4 64]
                                [--coding identity gzip] [--json FILE]
    python benchmarks/ingest.py --stages [--batch 8] [--coding gzip]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import grpc
from request_file import read_requests, write_requests
from stages import measure_stages
from store import bodies

HERE = Path(__file__).parent
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SERVE = [sys.executable, "-m", "otel_sessions.cli.main", "serve", "--json"]
LISTEN = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Way:
    """How the same requests are sent."""

    wire: str
    connections: int
    coding: str

    def __str__(self) -> str:
        return f"{self.wire}, {self.coding}, {self.connections} connections"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load of one program came to."""

    spans_per_second: float
    cpu_us_per_span: float
    p50_ms: float
    p99_ms: float
    peak_rss_mib: float
    disk_bytes_per_span: float


# --- The load, in a process of its own -------------------------------------------------------------------


async def send(target: str, way: Way, requests: Sequence[bytes]) -> dict[str, Any]:
    """Send all requests over so many connections; return seconds, and those of each export."""
    todo = iter(requests)
    took: list[float] = []
    sender = _send_http if way.wire == "http" else _send_grpc
    began = time.perf_counter()
    await asyncio.gather(*(sender(target, way.coding, todo, took) for _ in range(way.connections)))
    return {"seconds": time.perf_counter() - began, "took": took}


async def _send_http(target: str, coding: str, todo: Iterator[bytes], took: list[float]) -> None:
    """Send over one connection, by hand: a client library costs as much as the server."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/traces HTTP/1.1\r\nHost: {target}\r\nContent-Type: application/x-protobuf\r\n"
    if coding != "identity":
        head += f"Content-Encoding: {coding}\r\n"
    for body in todo:
        began = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(answer.partition("content-length:")[2].split()[0]))
        if " 200 " not in answer.partition("\r\n")[0]:
            raise SystemExit(f"an export was refused: {answer}")
        took.append(time.perf_counter() - began)
    writer.close()


async def _send_grpc(target: str, coding: str, todo: Iterator[bytes], took: list[float]) -> None:
    compression = grpc.Compression.NoCompression if coding == "identity" else grpc.Compression.Gzip
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
    async with grpc.aio.insecure_channel(target, options=options, compression=compression) as channel:
        export = channel.unary_unary(EXPORT)
        for body in todo:
            began = time.perf_counter()
            await export(body)
            took.append(time.perf_counter() - began)


# --- The programs ----------------------------------------------------------------------------------------


def command(program: str, folder: Path) -> list[str]:
    """Return how a program is started on a folder."""
    if program == "bare sink":
        return [sys.executable, str(HERE / "sink.py"), str(folder)]
    return [*SERVE, *LISTEN, "--data", str(folder)]


@contextlib.contextmanager
def started(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> Generator[tuple[int, dict[str, str]]]:
    """Start a program, wait until it listens, and end it as a user would; yields its process id and where."""
    env = {**os.environ, **environment}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads."""
    values = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / TICK


def peak_rss(pid: int) -> float:
    """Return the most memory that a process has had, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def measure(
    program: str, environment: Mapping[str, str], way: Way, requests: Path, folder: Path | None
) -> Sample:
    """Load a program on a new folder."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        data = Path(name)
        with started(command(program, data), environment) as (pid, listening):
            before = cpu_seconds(pid)
            sender = [sys.executable, __file__, "--send", listening[way.wire], "--requests", str(requests)]
            sender += ["--wire", way.wire, "--connections", str(way.connections), "--coding", way.coding]
            told = json.loads(subprocess.run(sender, check=True, capture_output=True).stdout)
            cpu, rss = cpu_seconds(pid) - before, peak_rss(pid)
        disk = sum(path.stat().st_size for path in data.iterdir())
        with contextlib.closing(sqlite3.connect(data / "sessions.db")) as conn:
            (stored,) = conn.execute("SELECT count(*) FROM spans").fetchone()
    quantiles = statistics.quantiles(told["took"], n=100)
    return Sample(
        stored / told["seconds"],
        cpu / stored * 1e6,
        quantiles[49] * 1e3,
        quantiles[98] * 1e3,
        rss,
        disk / stored,
    )


# --- In turn ---------------------------------------------------------------------------------------------


def medians(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure."""
    return Sample(
        *(statistics.median(getattr(one, field.name) for one in samples) for field in fields(Sample))
    )


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all programs in turn, every way; return and print what they came to."""
    made = bodies(options.spans, options.request, 7)
    size = sum(map(len, made)) / (len(made) * options.request)
    print(f"{len(made) * options.request} spans of {size:.0f} bytes, {options.request} a request")
    programs = {"bare sink": {}, "otel-sessions": {}, "ours, no redaction": {"OTEL_SESSIONS_REDACT": "off"}}
    programs |= {name: dict([name.split("=", 1)]) for name in options.variant}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for coding in options.coding:
            packed = [gzip.compress(body, 6) for body in made] if coding == "gzip" else made
            write_requests(Path(name) / f"http {coding}", packed)
            write_requests(Path(name) / f"grpc {coding}", made)  # grpc compresses by itself
        for parts in itertools.product(options.wire, options.connections, options.coding):
            way = Way(*parts)
            requests = Path(name) / f"{way.wire} {way.coding}"
            samples: dict[str, list[Sample]] = {program: [] for program in programs}
            for _ in range(options.rounds):
                for program, environment in programs.items():
                    samples[program].append(measure(program, environment, way, requests, options.folder))
            results[str(way)] = _told(way, {program: medians(taken) for program, taken in samples.items()})
    return results


def _told(way: Way, taken: Mapping[str, Sample]) -> dict[str, Any]:
    print(f"\n{way}")
    print(f"{'':28}  spans/s  CPU us  p50 ms  p99 ms  RSS MiB  B/span   of sink")
    sink = taken["bare sink"]
    for program, one in taken.items():
        rate = one.spans_per_second / sink.spans_per_second
        cpu = sink.cpu_us_per_span / one.cpu_us_per_span
        print(
            f"{program:28} {one.spans_per_second:8.0f} {one.cpu_us_per_span:7.1f} {one.p50_ms:7.1f}"
            f" {one.p99_ms:7.1f} {one.peak_rss_mib:8.0f} {one.disk_bytes_per_span:7.0f}"
            f"   {rate:.2f} by clock, {cpu:.2f} by CPU",
            flush=True,
        )
    return {program: asdict(one) for program, one in taken.items()}


def main() -> None:
    """Measure, print a table, write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--spans", type=int, default=18_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--request", type=int, default=60, help="spans a request")
    parser.add_argument("--wire", nargs="+", choices=("http", "grpc"), default=["http", "grpc"])
    parser.add_argument("--connections", nargs="+", type=int, default=[4, 64])
    parser.add_argument("--coding", nargs="+", choices=("identity", "gzip"), default=["identity"])
    parser.add_argument(
        "--variant", nargs="*", default=[], help="NAME=VALUE: ours once more, with this setting"
    )
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--stages", action="store_true", help="where the time goes, in one process")
    parser.add_argument("--batch", type=int, default=8, help="with --stages: requests a commit")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    parser.add_argument("--send", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        way = Way(options.wire[0], options.connections[0], options.coding[0])
        print(json.dumps(asyncio.run(send(options.send, way, read_requests(options.requests)))))
        return
    found = measure_stages(options) if options.stages else compare(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
