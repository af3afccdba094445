"""What a span costs until it is acknowledged, beside OpenTelemetry with its official exporters, in one run.

    python benchmarks/delivery.py [--rounds 7] [--spans 1500] [--json FILE] [--http URL --grpc URL]
                                  [--only spans|encoder|spool|stall|drain|memory ...]
                                  [--drain-megabytes 1024] [--memory-spans 1000000]

- **spans**: CPU of the whole agent process, all its threads, from a span's start to the acknowledgement of
  its request. Each rival is a process of its own; rounds go in turn, so that a neighbour's load hits all
  alike. The same spans everywhere: a name and eight attributes. Raw OpenTelemetry: `start_as_current_span`,
  its BatchSpanProcessor with a queue as long as ours, its official exporter. Ours twice: the same raw code in
  a session of ours, which is what an instrumentation costs, and our own blocks.
- **encoder**: the same ended spans, both encoders in turn, CPU of the thread.
- **spool**: writing a batch and removing it after its acknowledgement, bytes on disk.
- **stall**: how late an event loop gets its turn while spans leave to a receiver that takes 200 ms to answer.
- **drain**: how fast what an earlier process left goes out.
- **memory**: what a process holds after so many spans that nobody took.

The receiver is a process of its own that reads and discards; any other may be named. What it took is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TURNS = ("spans", "encoder", "spool", "stall", "drain", "memory")
RIVALS = ("none", "raw", "ours, raw spans", "ours, blocks")
SLOW = 0.2
BATCH = 512
NAME = "execute_tool search"


def attributes(number: int) -> dict[str, Any]:
    """Return what a span of an agent bears; some values come again and again, some never do."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.id": f"call_{number:032x}",
        "gen_ai.request.model": "a-model-of-this-year",
        "gen_ai.usage.input_tokens": 1523 + number % 9973,
        "gen_ai.usage.output_tokens": 212 + number % 997,
        "app.score": number / 7919,
        "app.cached": False,
    }


ATTRIBUTES = [attributes(number) for number in range(5000)]
"""Made beforehand: what a program does for them is no cost of tracing."""


# --- A receiver that discards ------------------------------------------------------------------------------


async def discard_http(delay: float) -> asyncio.Server:
    """Answer every request with an empty 200; nothing is looked at."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                await reader.readexactly(length)
                if delay:
                    await asyncio.sleep(delay)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 26)


def discard_grpc() -> tuple[Any, int]:
    """Answer every call with an empty message."""
    import grpc

    def service(package: str, name: str) -> Any:
        handler = grpc.unary_unary_rpc_method_handler(lambda _body, _call: b"")
        return grpc.method_handlers_generic_handler(
            f"opentelemetry.proto.collector.{package}.v1.{name}", {"Export": handler}
        )

    server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.max_receive_message_length", -1),))
    server.add_generic_rpc_handlers((service("trace", "TraceService"), service("logs", "LogsService")))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


async def receive() -> None:
    """Run until standard input ends; say on which ports."""
    quick, slow = await discard_http(0), await discard_http(SLOW)
    server, port = discard_grpc()
    ports = [made.sockets[0].getsockname()[1] for made in (quick, slow)]
    print(json.dumps({"http": ports[0], "slow": ports[1], "grpc": port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.stop(None)


# --- An agent ----------------------------------------------------------------------------------------------


def agent(rival: str) -> None:
    """Make and deliver as many spans as each line of standard input says; answer with what it cost."""
    make, flush = {
        "none": agent_without_export,
        "raw": agent_raw,
        "ours, raw spans": agent_ours_raw,
        "ours, blocks": agent_ours,
    }[rival]()
    for line in sys.stdin:
        count = int(line)
        began = time.process_time_ns()
        make(count)
        made = time.process_time_ns()
        delivered = flush()
        ended = time.process_time_ns()
        cost = {"cpu": (ended - began) / count / 1000, "made": (made - began) / count / 1000}
        print(json.dumps({**cost, "all": delivered}), flush=True)


def agent_without_export() -> tuple[Any, Any]:
    """Raw OpenTelemetry without a processor: what recording alone costs."""
    from opentelemetry.sdk.trace import TracerProvider

    return made_raw(TracerProvider().get_tracer("work")), lambda: True


def agent_raw() -> tuple[Any, Any]:
    """Raw OpenTelemetry with what the environment names."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made_raw(provider.get_tracer("work")), provider.force_flush


def agent_ours_raw() -> tuple[Any, Any]:
    """Ours, with the spans of somebody's instrumentation in a session."""
    from opentelemetry import trace

    import otel_sessions

    otel_sessions.init(service_name="agent")
    session = otel_sessions.start_session("work")
    keep.append(session)
    return made_raw(trace.get_tracer("work")), lambda: otel_sessions.flush(60).complete


def agent_ours() -> tuple[Any, Any]:
    """Ours, with blocks of ours in a session."""
    import otel_sessions

    otel_sessions.init(service_name="agent")
    keep.append(otel_sessions.start_session("work"))
    step = otel_sessions.step

    def make(count: int) -> None:
        for number in range(count):
            with step(NAME, attributes=ATTRIBUTES[number % len(ATTRIBUTES)]):
                pass

    return make, lambda: otel_sessions.flush(60).complete


keep: list[Any] = []


def made_raw(tracer: Any) -> Any:
    """Return what makes spans by OpenTelemetry's API."""

    def make(count: int) -> None:
        for number in range(count):
            with tracer.start_as_current_span(NAME, attributes=ATTRIBUTES[number % len(ATTRIBUTES)]):
                pass

    return make


class Agent:
    """The process of a rival."""

    def __init__(self, rival: str, protocol: str, url: str, spool: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        env["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        env["OTEL_SESSIONS_SPOOL"] = spool
        env["OTEL_BSP_MAX_QUEUE_SIZE"] = "16384"  # our default; with the official one of 2,048 spans are lost
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--agent", rival],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def round(self, spans: int) -> dict[str, Any]:
        """Have it make spans; return what that cost."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{spans}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()


# --- What is measured --------------------------------------------------------------------------------------


def measure_spans(urls: dict[str, str], rounds: int, spans: int, folder: Path) -> dict[str, Any]:
    """Compare a span and its delivery, each rival over each protocol."""
    agents = {
        (rival, protocol): Agent(rival, protocol, urls[protocol], str(folder / "spool"))
        for protocol in ("http/protobuf", "grpc")
        for rival in RIVALS
        if rival != "none" or protocol == "grpc"
    }
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in agents}
    for number in range(rounds + 1):
        for key, one in agents.items():
            told = one.round(spans)
            if number:  # the first one imports and connects
                taken[key].append(told)
    for one in agents.values():
        one.end()
    found: dict[str, Any] = {}
    for (rival, protocol), told in taken.items():
        raw = min(each["cpu"] for each in taken["raw", protocol])
        cpu = [each["cpu"] for each in told]
        found[f"{rival}, {protocol}" if rival != "none" else "recording alone"] = {
            "us": round(min(cpu), 2),
            "median us": round(statistics.median(cpu), 2),
            "us, before the flush": round(min(each["made"] for each in told), 2),
            "ratio": round(min(cpu) / raw, 2),
            "median of ratios": round(
                statistics.median(
                    each / other["cpu"] for each, other in zip(cpu, taken["raw", protocol], strict=True)
                ),
                2,
            ),
            "delivered": all(each["all"] for each in told),
        }
    return found


def ended_spans(count: int) -> list[Any]:
    """Return spans as a provider hands them on."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    found: list[ReadableSpan] = []

    class Keep(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            found.append(span)

    provider = TracerProvider(resource=Resource.create({"service.name": "agent"}))
    provider.add_span_processor(Keep())
    tracer = provider.get_tracer("work")
    with tracer.start_as_current_span("root"):
        for number in range(count):
            given = {**attributes(number), "session.id": "3f6a0c9d2b7e41588b1d6c2f0a9e7d43"}
            with tracer.start_as_current_span(NAME, attributes=given):
                pass
    return found[:count]


def measure_encoder(rounds: int) -> dict[str, Any]:
    """Compare the encoders."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    from otel_sessions.sdk._wire import attributes_of, encode_requests

    spans = ended_spans(BATCH)
    rivals = {
        "official": lambda: encode_spans(spans).SerializeToString(),
        "ours": lambda: (
            next(encode_requests([(span, attributes_of(span), "s") for span in spans], limit=1 << 24)).body
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    size = {name: len(encode()) for name, encode in rivals.items()}
    for _ in range(max(rounds, 20)):
        for name, encode in rivals.items():
            began = time.thread_time_ns()
            encode()
            taken[name].append((time.thread_time_ns() - began) / BATCH / 1000)
    return {
        name: {
            "us": round(min(times), 2),
            "ratio": round(min(times) / min(taken["official"]), 2),
            "bytes": round(size[name] / BATCH, 1),
        }
        for name, times in taken.items()
    }


def a_body() -> bytes:
    """Return a request as it is sent."""
    from otel_sessions.sdk._wire import attributes_of, encode_requests

    items = [(span, attributes_of(span), "s") for span in ended_spans(BATCH)]
    return next(encode_requests(items, limit=1 << 24)).body


def measure_spool(rounds: int, folder: Path) -> dict[str, Any]:
    """Measure what keeping a batch costs beside sending it."""
    from otel_sessions.sdk._spool import Limits, Spool, parcel_now

    spool, body = Spool(folder / "alone", "traces", "http://x", Limits()), a_body()
    cpu, wall, size = [], [], 0
    for _ in range(max(rounds, 20)):
        began, at = time.thread_time_ns(), time.perf_counter_ns()
        kept = spool.put(parcel_now(body, {"s": BATCH}))
        size = kept.size
        found = spool.first()
        assert found is not None
        spool.remove(found[0])
        cpu.append((time.thread_time_ns() - began) / BATCH / 1000)
        wall.append((time.perf_counter_ns() - at) / BATCH / 1000)
    spool.close()
    return {
        "written, read, removed": {
            "us": round(min(cpu), 3),
            "median us": round(statistics.median(cpu), 3),
            "us of the clock": round(statistics.median(wall), 3),
            "bytes": round(size / BATCH, 1),
            "bytes beside the request": round((size - len(body)) / BATCH, 2),
        }
    }


STALL = """
import asyncio, json, sys, time
seconds, rival = float(sys.argv[1]), sys.argv[2]
sys.path.insert(0, sys.argv[3])
import delivery
make, flush = {"none": delivery.agent_without_export, "raw": delivery.agent_raw,
               "ours, blocks": delivery.agent_ours}[rival]()
async def main():
    late = []
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - now - 0.001)
        make(5)
    late = sorted(round(seconds * 1000, 1) for seconds in late)
    part = lambda share: late[-int(len(late) * share) - 1]
    told = {"worst ms": late[-1], "99.9 % ms": part(0.001), "99 % ms": part(0.01), "turns": len(late)}
    print(json.dumps(told), flush=True)
asyncio.run(main())
import os; os._exit(0)
"""


def measure_stall(slow: str, folder: Path) -> dict[str, Any]:
    """Measure how late a loop gets its turn, with an exporter and without one."""
    found: dict[str, Any] = {}
    for rival in ("none", "raw", "ours, blocks"):
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        env |= {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": slow,
            "OTEL_SESSIONS_SPOOL": str(folder / "spool"),
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", STALL, "6", rival, str(Path(__file__).parent)],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found[rival] = json.loads(done.stdout)
    return found


def measure_drain(url: str, megabytes: int, folder: Path) -> dict[str, Any]:
    """Measure how fast a spool that a dead process left goes out."""
    from otel_sessions.sdk._courier import Courier, Destination
    from otel_sessions.sdk._endpoint import Endpoint
    from otel_sessions.sdk._split import split_parcel
    from otel_sessions.sdk._spool import Limits, Spool, parcel_now
    from otel_sessions.sdk._transport import open_transport

    endpoint, body, root = Endpoint(f"{url}/v1/traces"), a_body(), folder / "drain"
    limits = Limits(size=2 * megabytes << 20)
    left, parcels = Spool(root, "traces", endpoint.address, limits), (megabytes << 20) // len(body)
    for _ in range(parcels):
        left.put(parcel_now(body, {"s": BATCH}))
    left.close()
    courier = Courier(
        Destination(
            endpoint.address,
            lambda: open_transport(endpoint, "traces"),
            lambda: Spool(root, "traces", endpoint.address, limits),
            split_parcel,
        )
    )
    began, cpu = time.perf_counter(), time.process_time()
    courier.start()
    while courier.carried().inherited < parcels * BATCH:
        assert time.perf_counter() - began < 600, "it does not drain"
        time.sleep(0.01)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    courier.stop(time.monotonic() + 2)
    spans = parcels * BATCH
    return {
        "drained": {
            "megabytes": megabytes,
            "spans": spans,
            "seconds": round(seconds, 1),
            "spans a second": round(spans / seconds),
            "megabytes a second": round(megabytes / seconds),
            "us": round(cpu / spans * 1e6, 2),
        }
    }


MEMORY = """
import json, os, sys, time
sys.path.insert(0, sys.argv[2])
import delivery
make, flush = delivery.agent_ours()
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))
make(2000)
time.sleep(1)
count, before, most = int(sys.argv[1]), resident(), 0
for number in range(count // 1000):
    make(1000)
    most = max(most, resident())
time.sleep(2)
import otel_sessions
state = otel_sessions.stats()
print(json.dumps({"MB at first": before, "MB at most": most, "MB at last": resident(), "spans": count,
                  "dropped": dict(state.dropped)}), flush=True)
os._exit(0)
"""


def measure_memory(count: int, folder: Path) -> dict[str, Any]:
    """Measure what a process holds of what nobody takes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    env["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    env["OTEL_SESSIONS_SPOOL"] = str(folder / "memory")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY, str(count), str(Path(__file__).parent)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    held = sum(path.stat().st_size for path in (folder / "memory").rglob("*") if path.is_file())
    return {"nobody there": {**json.loads(done.stdout), "MB on disk": held >> 20}}


# --- The table ---------------------------------------------------------------------------------------------


def show(turn: str, found: dict[str, dict[str, Any]]) -> None:
    """Print one table."""
    columns = list(dict.fromkeys(name for row in found.values() for name in row))
    print(f"\n| {turn} | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for name, row in found.items():
        print(f"| {name} | " + " | ".join(f"{row.get(column, '')}" for column in columns) + " |")


def measured(turn: str, options: argparse.Namespace, urls: dict[str, str], folder: Path) -> dict[str, Any]:
    """Measure one thing."""
    match turn:
        case "spans":
            return measure_spans(urls, options.rounds, options.spans, folder)
        case "encoder":
            return measure_encoder(options.rounds)
        case "spool":
            return measure_spool(options.rounds, folder)
        case "stall":
            return measure_stall(urls["slow"], folder)
        case "drain":
            return measure_drain(urls["http/protobuf"], options.drain_megabytes, folder)
        case _:
            return measure_memory(options.memory_spans, folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spans", type=int, default=6000, help="a round")
    parser.add_argument("--only", nargs="*", choices=TURNS, default=TURNS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--http", help="another receiver of OTLP/HTTP")
    parser.add_argument("--grpc", help="another receiver of OTLP/gRPC")
    parser.add_argument("--drain-megabytes", type=int, default=1024)
    parser.add_argument("--memory-spans", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where spools are made")
    parser.add_argument("--agent", choices=RIVALS, help=argparse.SUPPRESS)
    parser.add_argument("--receiver", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.agent:
        return agent(options.agent)
    if options.receiver:
        return asyncio.run(receive())
    receiver = subprocess.Popen(
        [sys.executable, __file__, "--receiver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    ports = json.loads(receiver.stdout.readline())
    urls = {
        "http/protobuf": options.http or f"http://127.0.0.1:{ports['http']}",
        "grpc": options.grpc or f"http://127.0.0.1:{ports['grpc']}",
        "slow": f"http://127.0.0.1:{ports['slow']}",
    }
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    found: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    }
    try:
        for turn in options.only:
            found[turn] = measured(turn, options, urls, folder)
            show(turn, found[turn])
    finally:
        receiver.communicate()
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return None


if __name__ == "__main__":
    main()
