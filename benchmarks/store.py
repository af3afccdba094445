"""Stored spans a second of our store, beside a bare SQLite sink, in one run on one thread.

The bare sink does the least a durable sink of spans can do: parse the request, insert one row a span with
its key, times and bytes, commit as many requests at once as ours does. It has no session, no roll-up, no
compression, nothing to list. "Blob rows with sessions" adds what a list of sessions needs at least, without
order-independence or repeats. Ours does all of its work: decode, compress, index rows, roll-ups.

    python benchmarks/store.py [--spans 40000] [--rounds 3] [--request 60] [--batch 8] [--folder DIR]
"""

from __future__ import annotations

import argparse
import queue
import random
import secrets
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Encoding, Request, Signal
from otel_sessions.backend.store.sqlite import SqliteStore

SESSIONS = 64  # interleaved
SPANS_A_TRACE = 20
TRACES_A_SESSION = 5
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
WORDS = [word for word in README.split() if "=" not in word]  # it shows a header with a token
START = 1_800_000_000_000_000_000


def spans(count: int, seed: int) -> Iterator[Span]:
    """Make the spans of agents that plan, call models and tools, 64 sessions at a time."""
    rng = random.Random(seed)
    open_sessions = [_session(rng) for _ in range(SESSIONS)]
    for _ in range(count):
        place = rng.randrange(SESSIONS)
        span = next(open_sessions[place], None)
        if span is None:
            open_sessions[place] = _session(rng)
            span = next(open_sessions[place])
        yield span


def _session(rng: random.Random) -> Iterator[Span]:
    session_id = secrets.token_hex(16)
    for _ in range(TRACES_A_SESSION):
        trace_id, ids = rng.randbytes(16), [rng.randbytes(8) for _ in range(SPANS_A_TRACE)]
        start = START + rng.randrange(10**15)
        for no in range(SPANS_A_TRACE - 1, -1, -1):  # children end first
            yield _span(rng, session_id, trace_id, ids, no, start)


def _span(  # noqa: PLR0917 - all that one span differs by
    rng: random.Random, session_id: str, trace_id: bytes, ids: list[bytes], no: int, start: int
) -> Span:
    operation = ("invoke_agent", "chat", "execute_tool", "chat")[no % 4] if no else "invoke_agent"
    attributes: dict[str, str | int] = {
        "session.id": session_id,
        "gen_ai.operation.name": operation,
        "gen_ai.agent.name": f"agent-{no % 3}",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": session_id,
        "user.id": f"user-{session_id[:2]}",
        "gen_ai.input.messages": " ".join(rng.choices(WORDS, k=rng.randrange(170, 330))),
        "thread.id": rng.randrange(10**6),
        "code.function.name": "planner.agents.run",
        "http.response.status_code": 200,
    }
    if operation == "chat":
        attributes |= {
            "gen_ai.request.model": "gpt-5.6",
            "gen_ai.usage.input_tokens": rng.randrange(4000),
            "gen_ai.usage.output_tokens": rng.randrange(900),
        }
    if operation == "execute_tool":
        attributes |= {"gen_ai.tool.name": f"tool-{no % 5}", "gen_ai.tool.call.id": secrets.token_hex(8)}
    begin = start + no * 10**7
    return Span(
        trace_id=trace_id,
        span_id=ids[no],
        parent_span_id=ids[no - no % 4 if no % 4 else 0] if no else b"",  # calls below agents
        name=f"{operation} {no % 7}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=begin,
        end_time_unix_nano=begin + rng.randrange(10**9),
        attributes=[KeyValue(key=key, value=_value(value)) for key, value in attributes.items()],
    )


def _value(value: str | int) -> AnyValue:
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)


def bodies(count: int, size: int, seed: int) -> list[bytes]:
    """Make export requests of `size` spans."""
    made = spans(count, seed)
    resource = Resource(
        attributes=[
            KeyValue(key="service.name", value=_value("planner")),
            KeyValue(key="host.name", value=_value("h1")),
        ]
    )
    scope = InstrumentationScope(name="opentelemetry.instrumentation.genai", version="1.3")
    return [
        ExportTraceServiceRequest(
            resource_spans=[
                ResourceSpans(
                    resource=resource,
                    scope_spans=[ScopeSpans(scope=scope, spans=[next(made) for _ in range(size)])],
                )
            ]
        ).SerializeToString()
        for _ in range(count // size)
    ]


def load_bare(folder: Path, requests: list[bytes], batch: int) -> None:
    """Parse, insert one row a span with its bytes, commit each batch."""
    conn = sqlite3.connect(folder / "bare.db", isolation_level=None)
    conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;")
    conn.execute(
        "CREATE TABLE spans (id INTEGER PRIMARY KEY, trace_id BLOB, span_id BLOB, start INTEGER,"
        " duration INTEGER, body BLOB, UNIQUE (trace_id, span_id))"
    )
    for begin in range(0, len(requests), batch):
        rows = [
            (span.trace_id, span.span_id, span.start_time_unix_nano,
             span.end_time_unix_nano - span.start_time_unix_nano, span.SerializeToString())
            for body in requests[begin : begin + batch]
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]  # fmt: skip
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(
            "INSERT OR IGNORE INTO spans (trace_id, span_id, start, duration, body) VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        conn.execute("COMMIT")
    conn.close()


def load_listed(folder: Path, requests: list[bytes], batch: int) -> None:
    """Do what the bare sink does, and keep each span's session and a row of sums a session, blindly."""
    conn = sqlite3.connect(folder / "listed.db", isolation_level=None)
    conn.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;")
    conn.executescript(
        "CREATE TABLE spans (id INTEGER PRIMARY KEY, trace_id BLOB, span_id BLOB, session TEXT, name TEXT,"
        " start INTEGER, duration INTEGER, body BLOB, UNIQUE (trace_id, span_id));"
        "CREATE INDEX by_session ON spans (session, start);"
        "CREATE TABLE sessions (session TEXT PRIMARY KEY, start INTEGER, spans INTEGER) WITHOUT ROWID;"
        "CREATE INDEX by_start ON sessions (start);"
    )
    for begin in range(0, len(requests), batch):
        rows = [
            (span.trace_id, span.span_id, _session_of(span), span.name, span.start_time_unix_nano,
             span.end_time_unix_nano - span.start_time_unix_nano, span.SerializeToString())
            for body in requests[begin : begin + batch]
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]  # fmt: skip
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(
            "INSERT OR IGNORE INTO spans (trace_id, span_id, session, name, start, duration, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        conn.executemany(
            "INSERT INTO sessions VALUES (?, ?, 1) ON CONFLICT (session) DO UPDATE"
            " SET start = min(start, excluded.start), spans = spans + 1",
            [(row[2], row[4]) for row in rows],
        )
        conn.execute("COMMIT")
    conn.close()


def _session_of(span: Span) -> str | None:
    return next((item.value.string_value for item in span.attributes if item.key == "session.id"), None)


def load_ours(folder: Path, requests: list[bytes], batch: int) -> None:
    """Do what a backend does between the receiver and the acknowledgement."""
    store = SqliteStore(folder)
    for begin in range(0, len(requests), batch):
        now = time.time_ns()
        store.append(
            [decode(Signal.TRACES, Encoding.PROTOBUF, body, now) for body in requests[begin : begin + batch]]
        )
    store.close()


def load_piped(folder: Path, requests: list[bytes], batch: int) -> None:
    """Decode in one thread and store in another, as the backend does."""
    store = SqliteStore(folder)
    decoded: queue.Queue[list[Request] | None] = queue.Queue(4)

    def fill() -> None:
        for begin in range(0, len(requests), batch):
            now = time.time_ns()
            bodies = requests[begin : begin + batch]
            decoded.put([decode(Signal.TRACES, Encoding.PROTOBUF, body, now) for body in bodies])
        decoded.put(None)

    thread = threading.Thread(target=fill)
    thread.start()
    while (ready := decoded.get()) is not None:
        store.append(ready)
    thread.join()
    store.close()


def decode_only(_folder: Path, requests: list[bytes], _batch: int) -> None:
    """Decode, and store nothing."""
    for body in requests:
        decode(Signal.TRACES, Encoding.PROTOBUF, body, START)


LOADS = {
    "bare sink": load_bare,
    "blob rows with sessions": load_listed,
    "our store, one thread": load_ours,
    "our store, decoding beside": load_piped,
    "decode alone": decode_only,
}


def measure(
    load: Callable[[Path, list[bytes], int], None], requests: list[bytes], batch: int, folder: Path | None
) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and bytes on disk of one load."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        began, cpu = time.perf_counter(), time.process_time()
        load(Path(name), requests, batch)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        return seconds, cpu, sum(path.stat().st_size for path in Path(name).iterdir())


def main() -> None:
    """Measure in turn, and print the best of each: what else the machine does only adds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=24_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--request", type=int, default=60, help="spans a request")
    parser.add_argument("--batch", type=int, default=8, help="requests a commit")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    requests = bodies(options.spans, options.request, 7)
    count = len(requests) * options.request
    size = sum(map(len, requests)) / count
    print(
        f"{count} spans of {size:.0f} bytes, {options.request} a request, {options.batch} requests a commit"
    )
    results: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(options.rounds):
        for name, load in LOADS.items():
            results.setdefault(name, []).append(measure(load, requests, options.batch, options.folder))
    rates: dict[str, float] = {}
    for name, samples in results.items():
        rates[name] = count / min(sample[0] for sample in samples)
        cpu = min(sample[1] for sample in samples) / count * 1e6
        disk = samples[0][2] / count
        print(f"{name:27} {rates[name]:8.0f} spans/s {cpu:6.1f} us CPU/span {disk:6.0f} bytes/span on disk")
    for name in ("our store, one thread", "our store, decoding beside"):
        for other in ("bare sink", "blob rows with sessions"):
            print(f"{name} / {other}: {rates[name] / rates[other]:.2f}")


if __name__ == "__main__":
    main()
