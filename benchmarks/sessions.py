"""Sessions of any number and size in a folder, stored directly: what `reads.py` and `page.py` read."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.store.sqlite import SqliteStore

__all__ = ["fill"]

AT_ONCE = 2_000  # spans of one request
OPERATIONS = ("invoke_agent", "chat", "execute_tool", "chat")
WORDS = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split()


def fill(
    store: SqliteStore, name: str, sessions: int, spans_each: int, *, spans_a_trace: int = 500
) -> list[bytes]:
    """Store sessions `name-0`, `name-1`, …, the newest an hour old; return the trace of each."""
    rng = random.Random(name)
    traces: list[bytes] = []
    waiting: list[Span] = []
    for no in range(sessions):
        traces.append(rng.randbytes(16))
        for span in _spans(
            rng, f"{name}-{no}", (spans_each, spans_a_trace), traces[-1], ago=3600 + sessions - no
        ):
            waiting.append(span)
            if len(waiting) >= AT_ONCE:
                _store(store, waiting)
                waiting = []
    if waiting:
        _store(store, waiting)
    return traces


def _spans(
    rng: random.Random, session: str, counts: tuple[int, int], first_trace: bytes, ago: int
) -> Iterator[Span]:
    count, spans_a_trace = counts
    begin = time.time_ns() - ago * 10**9
    trace, ids = first_trace, list[bytes]()
    for no in range(count):
        if no and no % spans_a_trace == 0:
            trace, ids = rng.randbytes(16), []
        start = begin + no * 10**6
        span_id = rng.randbytes(8)
        parent = ids[-1 - rng.randrange(min(len(ids), 9))] if ids else b""
        ids.append(span_id)
        operation = OPERATIONS[no % 4]
        yield Span(
            trace_id=trace,
            span_id=span_id,
            parent_span_id=parent,
            name=f"{operation} {no % 50}",
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=start,
            end_time_unix_nano=start + rng.randrange(10**8),
            attributes=_pairs(_attributes(rng, session, operation, no)),
        )


def _attributes(rng: random.Random, session: str, operation: str, no: int) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "session.id": session,
        "gen_ai.operation.name": operation,
        "gen_ai.agent.name": f"agent-{no % 3}",
    }
    if operation == "chat":
        usage = {"gen_ai.usage.input_tokens": rng.randrange(4_000), "gen_ai.usage.output_tokens": 9}
        said = {"gen_ai.input.messages": " ".join(rng.choices(WORDS, k=40))}
        attributes |= {"gen_ai.request.model": "gpt-5.6", **usage, **said}
    if operation == "execute_tool":
        attributes |= {"gen_ai.tool.name": f"tool-{no % 7}"}
    return attributes


def _store(store: SqliteStore, spans: list[Span]) -> None:
    resource = Resource(attributes=_pairs({"service.name": "bench"}))
    body = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()
    store.append([decode(Signal.TRACES, Encoding.PROTOBUF, body, time.time_ns())])


def _pairs(attributes: dict[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(
            key=key,
            value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value),
        )
        for key, value in attributes.items()
    ]
