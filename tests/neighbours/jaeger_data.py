"""Spans that bring out each rule by which Jaeger turns OTLP into its own model; and a program of our SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from backend_process import clean_environment
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from tap import Body, tapped

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests/samples"
RECORDINGS = Path(os.environ.get("OTEL_SESSIONS_RECORDINGS", ROOT.parent / "shared/data/otlp-recordings"))
PROTOBUF = "application/x-protobuf"

SECOND = 1_000_000_000
START = 1_763_700_000 * SECOND + 123_456_789


def any_value(value: Any) -> AnyValue:
    """Wrap a Python value; None is the empty value."""
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(*value.items())))
    field = {int: "int_value", float: "double_value", bytes: "bytes_value", str: "string_value"}[type(value)]
    return AnyValue(**{field: value})


def key_values(*pairs: tuple[str, Any]) -> list[KeyValue]:
    """Wrap attributes; a key may come twice."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in pairs]


def trace_id(no: int, high: int = 7) -> bytes:
    """Return the trace id with this number."""
    return high.to_bytes(8, "big") + no.to_bytes(8, "big")


def span_id(no: int) -> bytes:
    """Return the span id with this number."""
    return no.to_bytes(8, "big") if no else b""


def span(no: int, parent: int = 0, *, trace: bytes, at: float = 0, lasting: float = 1, **more: Any) -> Span:
    """Make a span; `at` and `lasting` in seconds, `attributes` as pairs."""
    begin = START + round(at * SECOND)
    return Span(
        trace_id=trace,
        span_id=span_id(no),
        parent_span_id=span_id(parent),
        name=more.pop("name", f"work {no}"),
        kind=more.pop("kind", Span.SPAN_KIND_INTERNAL),
        start_time_unix_nano=begin,
        end_time_unix_nano=begin + round(lasting * SECOND),
        attributes=key_values(*more.pop("attributes", ())),
        **more,
    )


def request(
    spans: list[Span],
    *,
    resource: tuple[tuple[str, Any], ...] = (("service.name", "rules"),),
    scope: InstrumentationScope | None = None,
) -> Body:
    """Put spans into one export request."""
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=key_values(*resource)),
                scope_spans=[ScopeSpans(scope=scope or InstrumentationScope(name="tests"), spans=spans)],
            )
        ]
    )
    return Body("/v1/traces", PROTOBUF, message.SerializeToString())


VALUES: tuple[tuple[str, Any], ...] = (
    ("z.text", 'Grüße, 東京 🚆 <b>&amp;</b>\n\t"quoted" \\ \u2028'),
    ("a.text", ""),
    ("bool.true", True),
    ("bool.false", False),
    ("int", -5),
    ("int.safe", 2**53 - 1),
    ("int.unsafe", 2**53),
    ("int.least", -(2**63)),
    ("float", 0.1),
    ("float.whole", 5.0),
    ("float.small", 1e-9),
    ("float.great", 1.5e300),
    ("bytes", b"\x00\xff\x10"),
    ("bytes.none", b""),
    ("empty", None),
    ("array", ["a", 1, 2.5, True, None, b"\x01", "<ü>", 1e21, 1e-7, 100000.0, 1e20, -0.0]),
    ("array.none", []),
    ("array.bytes.none", [b""]),
    ("array.texts", ["b", "a"]),
    ("map", {"b": 1, "a": {"ü": [1, {"x": "y\u2029"}]}, "Z": b"\x02", "\u007f\u0001": "\b\f"}),
    ("map.none", {}),
    ("map.not.a.number", {"x": float("nan")}),
    ("twice", 1),
    ("twice", "two"),
    ("ip", 134744072),
    ("peer.ipv4", 3232235777),
    ("telemetry.sdk.name", "on a span"),
    ("span.kind", "mine"),
    ("hostname", "h"),
    ("http.status_code", 503),
    ("key with ümlaut 東", "x"),
)  # fmt: skip


def _values(trace: bytes) -> list[Body]:
    event = Span.Event(
        name="event", time_unix_nano=START + 7, attributes=key_values(("z", 1), ("a", "x"), ("list", [1]))
    )
    named = Span.Event(time_unix_nano=START, attributes=key_values(("b", 1), ("event", "by attribute")))
    bare = Span.Event(name="bare", time_unix_nano=START + 1)
    numbered = Span.Event(name="n", time_unix_nano=START + 1, attributes=key_values(("event", 5), ("a", 1)))
    status = Status(code=Status.STATUS_CODE_ERROR, message="it broke: ü")
    spans = [
        span(1, trace=trace, attributes=VALUES, events=[event, named, bare, numbered], name="a\u00fc東🚆"),
        span(2, 1, trace=trace, status=status, trace_state="a=1,b=2", kind=Span.SPAN_KIND_CLIENT),
        span(3, 1, trace=trace, status=Status(code=Status.STATUS_CODE_OK), kind=Span.SPAN_KIND_SERVER),
        span(4, 1, trace=trace, status=Status(message="said without a code"), kind=Span.SPAN_KIND_PRODUCER),
        span(5, 1, trace=trace, kind=Span.SPAN_KIND_CONSUMER, flags=0x301),
        span(6, 1, trace=trace, kind=Span.SPAN_KIND_UNSPECIFIED, lasting=0, name=""),
    ]
    resource = (("service.name", "rules"), ("process.pid", 7), ("b", [1, "x"]), ("a", "first"), ("c", b"\1"))
    scope = InstrumentationScope(name="a scope", version="1.2", attributes=key_values(("dropped", "by it")))
    return [request(spans, resource=resource, scope=scope)]


def _tags_of_jaeger(trace: bytes) -> list[Body]:
    """Make spans that bear what Jaeger's own clients send, which its API v3 turns back."""
    cases: list[tuple[tuple[str, Any], ...]] = [
        (("error", True), ("otel.status_description", "described")),
        (("error", True), ("http.status_message", "by HTTP")),
        (("error", False),),
        (("error", "true"),),
        (("otel.status_code", "ok"), ("otel.status_description", "fine")),
        (("otel.status_code", 3),),
        (("otel.status_code", "ERROR"), ("error", True)),
        (("http.status_code", 404),),
        (("http.status_code", "404"), ("http.status_message", "gone")),
        (("http.status_code", 399),),
        (("http.status_code", 200),),
        (("http.status_code", "no number"),),
        (("http.status_code", True),),
        (("w3c.tracestate", "x=y"), ("otel.scope.name", "second"), ("otel.scope.version", "2")),
        (("otel.scope.version", "alone"),),
    ]
    kinds = (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL)
    numbered = enumerate(((case, kind) for case in cases for kind in kinds), 2)
    spans = [span(no, 1, trace=trace, attributes=case, kind=kind) for no, (case, kind) in numbered]
    root = span(1, trace=trace)
    nameless = InstrumentationScope(version="9")
    hosts = (("service.name", "hosts"), ("hostname", "h1"), ("jaeger.version", "Go-2"), ("ip", "10.0.0.1"))
    return [
        request([root, *spans]),
        request([span(90, 1, trace=trace, attributes=cases[-2])], scope=nameless, resource=hosts),
    ]


def _references(trace: bytes) -> list[Body]:
    """Make links of every sort, and parents that are not there."""
    other = trace_id(999)
    follows, child = (key_values(("opentracing.ref_type", name)) for name in ("follows_from", "child_of"))
    link = Span.Link
    spans = [
        span(1, trace=trace, links=[link(trace_id=other, span_id=span_id(5), attributes=key_values(("k", 1)))]),
        span(2, 1, trace=trace, links=[link(trace_id=trace, span_id=span_id(1))]),
        span(3, 1, trace=trace, links=[link(trace_id=trace, span_id=span_id(1), attributes=child)]),
        span(4, 1, trace=trace, links=[link(trace_id=trace, span_id=span_id(2), attributes=child)]),
        span(5, trace=trace, links=[link(trace_id=trace, span_id=span_id(2))]),
        span(6, trace=trace, links=[link(trace_id=other, span_id=span_id(9)), link(trace_id=trace, span_id=span_id(2), attributes=child)]),
        span(7, 1, trace=trace, links=[link(trace_id=bytes(16), span_id=span_id(3)), link(trace_id=other, span_id=span_id(3), attributes=follows)]),
        span(8, 77, trace=trace),
        span(9, 8, trace=trace),
        span(10, trace=trace, links=[link(trace_id=trace, span_id=span_id(78))]),
        span(11, 12, trace=trace),
        span(12, 11, trace=trace),
        span(13, 13, trace=trace),
    ]  # fmt: skip
    return [request(spans)]


def _skewed(trace: bytes) -> list[Body]:
    """Make spans that do not fit into their parents, on hosts that Jaeger can and can't tell apart."""
    here = (("service.name", "here"), ("ip", "10.0.0.1"))
    there = (("service.name", "there"), ("ip", 167772162))
    return [
        request([span(1, trace=trace, lasting=10)]),
        request(
            [
                span(2, 1, trace=trace, at=-1),
                span(3, 1, trace=trace, at=9.5),
                span(4, 1, trace=trace, at=-2, lasting=3600 * 5),
                span(5, 1, trace=trace, at=3, lasting=100),
                span(6, 2, trace=trace, at=-0.000_001, lasting=0.000_000_1),
                span(7, 1, trace=trace, at=9_000.25, lasting=0.5),
            ]
        ),
        request([span(20, 1, trace=trace, at=-5), span(21, 20, trace=trace, at=-5)], resource=here),
        request([span(22, 21, trace=trace, at=4), span(23, 22, trace=trace, at=11)], resource=there),
        request([span(24, 22, trace=trace, at=20)], resource=here),
    ]


def _resources(first: int) -> list[Body]:
    """Make spans of services with odd names or none."""
    resources: list[tuple[tuple[str, Any], ...]] = [
        (("service.name", "näme/mit schräg&strich?"),),
        (("service.name", "plain"), ("telemetry.sdk.name", "x")),
        (),
    ]
    bodies = [
        request([span(1, trace=trace_id(no))], resource=resource)
        for no, resource in enumerate(resources, first)
    ]
    short = trace_id(first + 50, high=0)
    return [*bodies, request([span(1, trace=short, name="short id"), span(2, 1, trace=short)])]


def _calls(trace: bytes) -> list[Body]:
    """Make services that call each other."""
    caller, called = ((("service.name", name),) for name in ("caller", "called"))
    return [
        request([span(1, trace=trace), span(4, 3, trace=trace)], resource=caller),
        request([span(2, 1, trace=trace), span(3, 1, trace=trace)], resource=called),
    ]


def handmade() -> list[Body]:
    """Return the export requests of this file."""
    return [
        *_values(trace_id(1)),
        *_tags_of_jaeger(trace_id(2)),
        *_references(trace_id(3)),
        *_skewed(trace_id(4)),
        *_calls(trace_id(5)),
        *_resources(100),
    ]


def recorded(*folders: Path) -> list[Body]:
    """Return the export requests of recordings, traces only."""
    bodies: list[Body] = []
    for folder in folders:
        for one in json.loads((folder / "recording.json").read_text())["requests"]:
            if one["path"].endswith("/traces") or one["path"].endswith("TraceService/Export"):
                kind = "application/json" if one["file"].endswith(".json") else PROTOBUF
                bodies.append(Body("/v1/traces", kind, (folder / one["file"]).read_bytes()))
    return bodies


SESSIONS: str = """
import otel_sessions
from opentelemetry import trace

otel_sessions.init(service_name="reisebüro")
with otel_sessions.session("plan", id="jaeger-1", title="Köln → 東京", user_id="jörg", tags=("a", "b")) as first:
    with first.task("question", id="t1", attributes={"numbers": [1, 2, 3], "exact": 2.5, "yes": True}):
        with otel_sessions.agent("planner"):
            with otel_sessions.tool("search", arguments={"to": "東京"}) as tool:
                trace.get_current_span().add_event("cache miss", {"key": "ä", "tries": 2})
                tool.result = "found"
            with otel_sessions.model_call("gpt-9", provider="openai") as call:
                call.record(input_tokens=5, output_tokens=7, finish_reasons=["stop"])
    try:
        with otel_sessions.step("fails"):
            raise ValueError("nein: ü")
    except ValueError:
        pass
    with otel_sessions.session("inner", id="jaeger-2"):
        with otel_sessions.tool("search"):
            pass
with otel_sessions.session("plan", id="jaeger-1"):
    with otel_sessions.step("again"):
        pass
"""


def sent_by(program: str, folder: Path) -> list[Body]:
    """Run a program with our SDK and return all that it exports."""
    file = folder / "agent.py"
    file.write_text(program)
    with tapped() as (endpoint, bodies):
        env = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "HOME": str(folder)})
        done = subprocess.run(
            [sys.executable, str(file)], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    return bodies
