"""What is stored is what was sent: every type of value, in every place, over protobuf, JSON and gRPC."""

from __future__ import annotations

import base64
import gzip
import http.client
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from backend_process import BackendProcess
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

pytestmark = pytest.mark.slow

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE = b"same value trace"
NUMBERS = itertools.count(1)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
Pairs = list[tuple[str, Any]]  # a key may come twice: what is not unique is kept too


class Mapped(list[tuple[str, Any]]):
    """A list of key-values as a value, beside lists of values."""


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(texts, inner), max_size=4).map(Mapped),
    max_leaves=12,
)
pairs = st.lists(st.tuples(texts, values), max_size=5)


def message_of(value: Any) -> AnyValue:
    """Write a value in protobuf."""
    if value is None:
        return AnyValue()
    if isinstance(value, Mapped):
        return AnyValue(kvlist_value=KeyValueList(values=messages_of(value)))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[message_of(item) for item in value]))
    kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}
    return AnyValue(**{kind.get(type(value), "bytes_value"): value})


def messages_of(given_pairs: Pairs) -> list[KeyValue]:
    """Write attributes in protobuf."""
    return [KeyValue(key=key, value=message_of(value)) for key, value in given_pairs]


def number_of(value: float) -> float | str:
    """Write a double as JSON can hold it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def json_of(value: Any) -> dict[str, Any]:
    """Write a value in OTLP's JSON, by hand: what writes it must not be what reads it."""
    if value is None:
        return {}
    if isinstance(value, list):
        mapped = isinstance(value, Mapped)
        items = jsons_of(value) if mapped else [json_of(item) for item in value]
        return {"kvlistValue" if mapped else "arrayValue": {"values": items} if items else {}}
    kind, write = {
        bool: ("boolValue", bool),
        int: ("intValue", str),
        float: ("doubleValue", number_of),
        str: ("stringValue", str),
        bytes: ("bytesValue", lambda raw: base64.b64encode(raw).decode()),
    }[type(value)]
    return {kind: write(value)}


def jsons_of(given_pairs: Pairs) -> list[dict[str, Any]]:
    """Write attributes in OTLP's JSON; an empty key is one that is not there."""
    return [{**({"key": key} if key else {}), "value": json_of(value)} for key, value in given_pairs]


PLACES = ("span", "event", "link", "resource", "scope")


def protobuf_request(span_id: bytes, given_places: dict[str, Pairs]) -> bytes:
    """Put attributes into all places of a request."""
    at = {place: messages_of(given_pairs) for place, given_pairs in given_places.items()}
    span = Span(
        trace_id=TRACE,
        span_id=span_id,
        name="same",
        attributes=at["span"],
        events=[Span.Event(name="event", attributes=at["event"])],
        links=[Span.Link(trace_id=TRACE, span_id=b"l" * 8, attributes=at["link"])],
    )
    scope = ScopeSpans(scope=InstrumentationScope(name="tests", attributes=at["scope"]), spans=[span])
    spans = ResourceSpans(resource=Resource(attributes=at["resource"]), scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[spans]).SerializeToString()


def json_request(span_id: bytes, given_places: dict[str, Pairs]) -> bytes:
    """Write the same in OTLP's JSON."""
    at = {place: jsons_of(given_pairs) for place, given_pairs in given_places.items()}
    span = {
        "traceId": TRACE.hex(),
        "spanId": span_id.hex(),
        "name": "same",
        "attributes": at["span"],
        "events": [{"name": "event", "attributes": at["event"]}],
        "links": [{"traceId": TRACE.hex(), "spanId": b"l".hex() * 8, "attributes": at["link"]}],
    }
    scope = {"scope": {"name": "tests", "attributes": at["scope"]}, "spans": [span]}
    spans = {"resource": {"attributes": at["resource"]}, "scopeSpans": [scope]}
    return json.dumps({"resourceSpans": [spans]}).encode()


class Sender:
    """Sends to one backend over every encoding, and reads from it."""

    def __init__(self, backend: BackendProcess) -> None:
        self._http = http.client.HTTPConnection(backend.http, timeout=30)
        self._channel = grpc.insecure_channel(backend.grpc)
        self._export = self._channel.unary_unary(EXPORT)

    def close(self) -> None:
        self._http.close()
        self._channel.close()

    def post(self, body: bytes, media: str) -> None:
        headers = {"Content-Type": media, "Content-Encoding": "gzip"}
        self._http.request("POST", "/v1/traces", gzip.compress(body, 1), headers)
        answer = self._http.getresponse()
        assert (answer.status, answer.read()) in ((200, b""), (200, b"{}"))

    def call(self, body: bytes) -> None:
        assert self._export(body) == b""

    def stored(self, span_id: bytes) -> dict[str, Any]:
        """Read what is stored in each place."""
        self._http.request("GET", f"/api/v1/spans/{TRACE.hex()}/{span_id.hex()}")
        answer = json.loads(self._http.getresponse().read())
        span = answer["span"]
        holders = (span, span["events"][0], span["links"][0], answer["resource"], answer["scope"])
        return {place: holder.get("attributes", []) for place, holder in zip(PLACES, holders, strict=True)}


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    """Run one backend for all examples; it looks for no secrets, of which chance could make some."""
    backend = BackendProcess(tmp_path_factory.mktemp("data"), env={"OTEL_SESSIONS_REDACT": "off"}).start()
    sender = Sender(backend)
    yield sender
    sender.close()
    backend.stop()


@settings(max_examples=100)
@given(given_places=st.fixed_dictionaries(dict.fromkeys(PLACES, pairs)))
def test_what_is_read_is_what_was_sent(sender: Sender, given_places: dict[str, Pairs]) -> None:
    """Types, order, repeated keys, emptiness and the last bit of each number, whatever the encoding."""
    expected = {place: jsons_of(given_places[place]) for place in PLACES}
    first, second, third = (next(NUMBERS).to_bytes(8, "big") for _ in range(3))
    sender.post(protobuf_request(first, given_places), "application/x-protobuf")
    sender.post(json_request(second, given_places), "application/json")
    sender.call(protobuf_request(third, given_places))
    for span_id in (first, second, third):
        assert json.dumps(sender.stored(span_id)) == json.dumps(expected)
