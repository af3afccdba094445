"""Spans from the official exporters, through real sockets, into the store and back: nothing changes its type."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from backend_process import BackendProcess, clean_environment
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from otel_sessions.backend.store.base import StoredSpan
from otel_sessions.backend.store.sqlite import SqliteStore


def stored(backend: BackendProcess, trace_id: bytes, span_id: bytes) -> StoredSpan:
    """Stop the backend and read one span from its folder."""
    assert backend.stop() == 0
    store = SqliteStore(backend.data)
    try:
        found = store.span(trace_id, span_id)
    finally:
        store.close()
    assert found is not None
    assert found.span is not None
    return found


def values(found: StoredSpan) -> dict[str, AnyValue]:
    """Return the attributes of a stored span, each as it came."""
    assert found.span is not None
    return {attribute.key: attribute.value for attribute in found.span.attributes}


def array(*items: AnyValue) -> AnyValue:
    """Wrap items; without any it is an empty array, which is not nothing."""
    value = AnyValue()
    value.array_value.SetInParent()
    value.array_value.values.extend(items)
    return value


def text(value: str) -> AnyValue:
    """Wrap a text."""
    return AnyValue(string_value=value)


# --- Python ---------------------------------------------------------------------------------------------


def http_exporter(compression: Compression) -> Callable[[BackendProcess], SpanExporter]:
    """Choose OTLP/HTTP with this compression."""
    return lambda backend: HttpExporter(endpoint=f"{backend.url}/v1/traces", compression=compression)


def grpc_exporter(compression: grpc.Compression) -> Callable[[BackendProcess], SpanExporter]:
    """Choose OTLP/gRPC with this compression."""
    return lambda backend: GrpcExporter(
        endpoint=f"http://{backend.grpc}", insecure=True, compression=compression
    )


class Watched(SpanExporter):
    """Keeps the results of the exporter inside: an SDK swallows them."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.results: list[SpanExportResult] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.results.append(self._inner.export(spans))
        return self.results[-1]

    def shutdown(self) -> None:
        self._inner.shutdown()


@pytest.mark.parametrize(
    "make",
    [
        http_exporter(Compression.NoCompression),
        http_exporter(Compression.Gzip),
        http_exporter(Compression.Deflate),
        grpc_exporter(grpc.Compression.NoCompression),
        grpc_exporter(grpc.Compression.Gzip),
    ],
    ids=["http", "http gzip", "http deflate", "grpc", "grpc gzip"],
)
def test_a_span_of_python_keeps_the_types_of_its_attributes(
    backend: BackendProcess, make: Callable[[BackendProcess], SpanExporter]
) -> None:
    """False, 0, the empty text and a text of digits are what they were."""
    exporter = Watched(make(backend))
    provider = TracerProvider(resource=Resource({"service.name": "tests"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    attributes = {"false": False, "zero": 0, "empty": "", "digits": "123", "half": 0.5, "bytes": b"\x00\xff"}
    lists = {"texts": ["a", ""], "flags": [True, False], "none": []}
    with provider.get_tracer("tests").start_as_current_span(
        "from python", attributes={"session.id": "python-session", **attributes, **lists}
    ) as span:
        context = span.get_span_context()
    provider.shutdown()
    assert exporter.results == [SpanExportResult.SUCCESS]
    found = stored(backend, context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big"))
    assert found.resource is not None
    assert "tests" in str(found.resource)
    assert values(found) == {
        "session.id": text("python-session"),
        "false": AnyValue(bool_value=False),
        "zero": AnyValue(int_value=0),
        "empty": text(""),
        "digits": text("123"),
        "half": AnyValue(double_value=0.5),
        "bytes": AnyValue(bytes_value=b"\x00\xff"),
        "texts": array(text("a"), text("")),
        "flags": array(AnyValue(bool_value=True), AnyValue(bool_value=False)),
        "none": array(),
    }


# --- Everything OTLP can say ---------------------------------------------------------------------------------


def everything() -> ExportTraceServiceRequest:
    """Build a span with a value of every kind, nested, repeated keys, links, and events."""
    nested = KeyValueList(
        values=[
            KeyValue(key="inner", value=AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="x")]))),
            KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=[AnyValue(), text("1")]))),
        ]
    )
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add(schema_url="https://example.org/1").scope_spans.add()
    spans.scope.name, spans.scope.version = "scope", "2"
    span = spans.spans.add(
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        name="everything",
        kind=3,
        trace_state="a=b",
        flags=257,
        start_time_unix_nano=1_700_000_000_000_000_001,
        end_time_unix_nano=1_700_000_000_000_000_002,
        dropped_attributes_count=3,
        attributes=[
            KeyValue(key="nothing", value=AnyValue()),
            KeyValue(key="absent"),
            KeyValue(key="nested", value=AnyValue(kvlist_value=nested)),
            KeyValue(key="bytes", value=AnyValue(bytes_value=b"")),
            KeyValue(key="big", value=AnyValue(int_value=-(2**63))),
            KeyValue(key="twice", value=text("first")),
            KeyValue(key="twice", value=AnyValue(int_value=2)),
        ],
    )
    span.links.add(trace_id=b"l" * 16, span_id=b"k" * 8, flags=256)
    span.events.add(name="happened", time_unix_nano=5).attributes.add(key="e").value.bool_value = False
    span.status.message = "why"
    return message


def otlp_json(message: ExportTraceServiceRequest) -> bytes:
    """Encode as OTLP has it in JSON: ids in hex."""
    document = MessageToDict(message, use_integers_for_enums=True)
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        span["traceId"], span["spanId"] = bytes(range(16)).hex(), bytes(range(8)).hex()
        span["links"][0] |= {"traceId": (b"l" * 16).hex(), "spanId": (b"k" * 8).hex()}
    return json.dumps(document).encode()


@pytest.mark.parametrize("way", ["protobuf", "json", "grpc"])
def test_whatever_otlp_can_say_is_kept_as_it_came(backend: BackendProcess, way: str) -> None:
    """Empty values, bytes, nested lists and maps, keys given twice, links and events: all of it."""
    message = everything()
    if way == "grpc":
        with grpc.insecure_channel(backend.grpc) as channel:
            method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            channel.unary_unary(method)(message.SerializeToString())
    else:
        body = message.SerializeToString() if way == "protobuf" else otlp_json(message)
        media = "application/x-protobuf" if way == "protobuf" else "application/json"
        assert backend.exchange("POST", "/v1/traces", body, {"Content-Type": media})[0] == 200
    found = stored(backend, bytes(range(16)), bytes(range(8)))
    sent = message.resource_spans[0]
    assert found.span == sent.scope_spans[0].spans[0]
    assert found.scope == sent.scope_spans[0].scope
    assert found.schema_url == sent.schema_url


# --- Node -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("kind", ["json", "proto", "grpc"])
def test_a_span_of_node_keeps_the_types_of_its_attributes(
    backend: BackendProcess, node_folder: Path, kind: str, compression: str
) -> None:
    """Node sends chunked bodies, JSON with numbers where others have texts, and flags of its own."""
    url = f"http://{backend.grpc}" if kind == "grpc" else f"{backend.url}/v1/traces"
    script = Path(__file__).with_name("export_spans.mjs")
    done = subprocess.run(
        ["node", str(script), kind, url, compression],
        cwd=node_folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ids = json.loads(done.stdout)
    found = stored(backend, bytes.fromhex(ids["traceId"]), bytes.fromhex(ids["spanId"]))
    assert values(found) == {
        "session.id": text("node-session"),
        "false": AnyValue(bool_value=False),
        "zero": AnyValue(int_value=0),
        "empty": text(""),
        "digits": text("123"),
        "half": AnyValue(double_value=0.5),
        "texts": array(text("a"), text("")),
        "flags": array(AnyValue(bool_value=True), AnyValue(bool_value=False)),
        "none": array(),
    }
