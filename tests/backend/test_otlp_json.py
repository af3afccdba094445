"""OTLP's JSON: what goes out is what came in, to the type of each value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from telemetry import TRACE, any_value, key_values, log, logs, resource, sid, span, traces

from otel_sessions.backend.decode import DecodeError, parse
from otel_sessions.backend.otlp_json import log_json, resource_json, scope_json, span_json
from otel_sessions.backend.records import Encoding, Signal

_floats = st.floats(allow_nan=False) | st.just(float("nan"))
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _floats | _texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


def _as_json(spans: list[dict[str, Any]]) -> bytes:
    group = {
        "resource": resource_json(resource()),
        "scopeSpans": [{"scope": {"name": "test"}, "spans": spans}],
    }
    return json.dumps({"resourceSpans": [group]}).encode()


@given(st.dictionaries(_texts, _values, max_size=5))
def test_typed_attributes_survive_protobuf_and_json(attributes: dict[str, Any]) -> None:
    """False, 0, "", "123", bytes, the empty value, nested maps, NaN: each comes back as itself."""
    message = traces([span(1, attributes=attributes)])
    sent = message.SerializeToString(deterministic=True)
    over_protobuf = parse(Signal.TRACES, Encoding.PROTOBUF, sent)
    over_json = parse(
        Signal.TRACES, Encoding.JSON, _as_json([span_json(message.resource_spans[0].scope_spans[0].spans[0])])
    )
    assert over_protobuf.SerializeToString(deterministic=True) == sent
    assert over_json.SerializeToString(deterministic=True) == sent


def test_a_span_is_written_as_the_specification_says() -> None:
    """Ids as hex, enums as integers, 64-bit integers as strings, bytes as base64."""
    message = span(
        2,
        1,
        "chat",
        attributes={"n": 0, "off": False, "raw": b"\x00\xff", "none": None, "nan": float("nan")},
        status=2,
    )
    message.links.append(Span.Link(trace_id=TRACE, span_id=sid(7)))
    written = span_json(message)
    assert (written["traceId"], written["spanId"], written["parentSpanId"]) == (
        TRACE.hex(),
        sid(2).hex(),
        sid(1).hex(),
    )
    assert (written["kind"], written["status"]) == (1, {"code": 2})
    assert written["startTimeUnixNano"] == str(message.start_time_unix_nano)
    assert written["links"] == [{"traceId": TRACE.hex(), "spanId": sid(7).hex()}]
    assert written["attributes"] == [
        {"key": "n", "value": {"intValue": "0"}},
        {"key": "off", "value": {"boolValue": False}},
        {"key": "raw", "value": {"bytesValue": "AP8="}},
        {"key": "none", "value": {}},
        {"key": "nan", "value": {"doubleValue": "NaN"}},
    ]


def test_logs_resources_and_scopes_are_written_too() -> None:
    """A log's body keeps its nesting."""
    written = log_json(log("turn", number=3, body={"turn": 1, "tags": ["a", None]}))
    assert (written["traceId"], written["spanId"], written["eventName"]) == (
        TRACE.hex(),
        sid(3).hex(),
        "turn",
    )
    again = ExportLogsServiceRequest()
    again.resource_logs.add().scope_logs.add().log_records.add().body.CopyFrom(
        any_value({"turn": 1, "tags": ["a", None]})
    )
    body = json.dumps(
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": written["body"]}]}]}]}
    ).encode()
    assert parse(Signal.LOGS, Encoding.JSON, body) == again
    assert resource_json(resource({"service.name": "x"})) == {
        "attributes": [{"key": "service.name", "value": {"stringValue": "x"}}]
    }
    assert scope_json(InstrumentationScope(name="s", version="1", attributes=key_values({"a": 1}))) == {
        "name": "s", "version": "1", "attributes": [{"key": "a", "value": {"intValue": "1"}}],
    }  # fmt: skip


def _read(record: dict[str, Any]) -> Span:
    message = parse(Signal.TRACES, Encoding.JSON, _as_json([record]))
    assert isinstance(message, ExportTraceServiceRequest)
    return message.resource_spans[0].scope_spans[0].spans[0]


def test_hex_ids_are_read_in_any_case_and_numbers_in_any_form() -> None:
    """64-bit integers come as strings or as numbers, enums as integers; what is not known is ignored."""
    read = _read({
        "traceId": TRACE.hex().upper(), "spanId": sid(2).hex(), "parentSpanId": "", "kind": 3, "flags": 257, "isNew": {"a": [1]},
        "startTimeUnixNano": 1_800_000_000_000_000_000, "endTimeUnixNano": "1800000000000000001",
        "attributes": [{"key": "a", "value": {"intValue": 5}}, {"key": "b", "value": {"intValue": "5"}}, {"key": "c", "value": {}}],
        "links": [{"traceId": TRACE.hex(), "spanId": sid(9).hex().upper(), "flags": 1}],
    })  # fmt: skip
    assert (read.trace_id, read.span_id, read.parent_span_id) == (TRACE, sid(2), b"")
    assert (read.kind, read.flags, read.end_time_unix_nano) == (3, 257, 1_800_000_000_000_000_001)
    assert list(read.attributes) == key_values({"a": 5, "b": 5, "c": None})
    assert (read.links[0].trace_id, read.links[0].span_id, read.links[0].flags) == (TRACE, sid(9), 1)


def test_half_a_surrogate_pair_loses_no_request() -> None:
    """JavaScript cuts texts in the middle of an emoji; the rest of the request is as good as before."""
    body = _as_json([{"traceId": TRACE.hex(), "spanId": sid(1).hex(), "name": "cut"}]).replace(
        b'"cut"', b'"a\\ud83d"'
    )
    message = parse(Signal.TRACES, Encoding.JSON, body)
    assert message.resource_spans[0].scope_spans[0].spans[0].name == "a\ufffd"


def test_literal_nan_is_read_as_the_quoted_one() -> None:
    """Encoders that write bare NaN and Infinity lose nothing."""
    record = {
        "traceId": TRACE.hex(),
        "spanId": sid(1).hex(),
        "attributes": [{"key": "x", "value": {"doubleValue": float("inf")}}],
    }
    assert _read(record).attributes[0].value.double_value == float("inf")


def test_a_log_request_reads_its_own_ids() -> None:
    """Log records bear hex ids too."""
    body = json.dumps(
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [log_json(log("e", number=4))]}]}]}
    ).encode()
    message = parse(Signal.LOGS, Encoding.JSON, body)
    assert (
        message.resource_logs[0].scope_logs[0].log_records[0]
        == logs([log("e", number=4)]).resource_logs[0].scope_logs[0].log_records[0]
    )


def test_values_nest_as_deep_over_json_as_over_protobuf() -> None:
    """Up to protobuf's own limit; beyond it both are refused, and nothing recurses without end."""

    def nested(levels: int) -> Span:
        value: Any = "deep"
        for _ in range(levels):
            value = [value]
        return span(1, attributes={"x": value})

    message = traces([nested(40)])
    again = parse(
        Signal.TRACES, Encoding.JSON, _as_json([span_json(message.resource_spans[0].scope_spans[0].spans[0])])
    )
    assert again.SerializeToString() == message.SerializeToString()
    deeper = b'{"arrayValue":{"values":[' * 200 + b'{"intValue":1}' + b"]}}" * 200
    body = (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"x","value":'
        + deeper
        + b"}]}]}]}]}"
    )
    with pytest.raises(DecodeError, match="nests deeper"):
        parse(Signal.TRACES, Encoding.JSON, body)
