"""Bodies that would take a hundred times their size in memory are told from those that don't, before they are read."""

from __future__ import annotations

import json

import pytest
from receivers import traces

from otel_sessions.backend.records import Encoding
from otel_sessions.backend.weight import MAX_VALUES, is_too_dense

MIB = 1 << 20
MOST, MOST_JSON = MAX_VALUES[Encoding.PROTOBUF], MAX_VALUES[Encoding.JSON]


def field(tag: int, body: bytes) -> bytes:
    """Write one field of protobuf with a length."""
    size, length = len(body), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([tag]) + length + bytes([size]) + body


def in_span(body: bytes) -> bytes:
    """Put fields into the one span of a request."""
    return field(0x0A, field(0x12, field(0x12, body)))


NOTHING = b"\x0a\x00" * (MOST + 1)
BOMBS = {
    "resources": NOTHING,
    "spans": field(0x0A, field(0x12, b"\x12\x00" * (MOST + 1))),
    "attributes": in_span(b"\x4a\x00" * (MOST + 1)),
    "values": in_span(field(0x4A, field(0x12, field(0x2A, NOTHING)))),
    "values of four bytes": in_span(field(0x4A, field(0x12, field(0x2A, b"\x0a\x02\x0a\x00" * MOST)))),
    "spans with a name": field(0x0A, field(0x12, field(0x12, b"\x2a\x04name") * (MOST + 1))),
    "lengths in more bytes than they need": b"\x0a\x80\x00" * (MOST + 1),
}
JSON_BOMBS = {
    "objects": b"[" + b"{}," * MOST_JSON + b"{}]",
    "lists": b"[" + b"[]," * MOST_JSON + b"[]]",
    "numbers": b"[" + b"1," * (2 * MOST_JSON) + b"1,1]",
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_a_body_of_almost_nothing_is_too_dense(body: bytes) -> None:
    """Whatever it is that comes by the million."""
    assert is_too_dense(Encoding.PROTOBUF, body)


@pytest.mark.parametrize("body", JSON_BOMBS.values(), ids=JSON_BOMBS)
def test_a_body_of_almost_nothing_is_too_dense_in_json(body: bytes) -> None:
    """The same in text."""
    assert is_too_dense(Encoding.JSON, body)


def test_what_is_honest_is_not() -> None:
    """Spans with many short attributes, vectors of numbers and texts of any kind are taken by the dozen MiB."""
    small = traces(*[f"step {n}" for n in range(1000)])
    spans = small.resource_spans[0].scope_spans[0].spans
    for n, span in enumerate(spans):
        span.start_time_unix_nano, span.end_time_unix_nano = 1_800_000_000_000_000_000 + n, 1 << 60
        for key in ("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.usage.input_tokens"):
            span.attributes.add(key=key).value.int_value = n
    vector = traces("embed")
    values = vector.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="v").value.array_value.values
    for n in range(100_000):
        values.add().double_value = n / 7
    code = traces("code", size=1)
    text = "if (a[0]) {\n\treturn {b: 2, c: [1, 2]}\n}\r\n" * 1000
    code.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.string_value = text
    for body, upto in ((small, 64 * MIB), (vector, 40 * MIB), (code, 64 * MIB)):
        encoded = body.SerializeToString()
        assert not is_too_dense(Encoding.PROTOBUF, encoded * (upto // len(encoded)))
    attribute = json.dumps({"key": "a.key", "value": {"intValue": "1"}}).encode() + b","
    assert not is_too_dense(Encoding.JSON, attribute * (45 * MIB // len(attribute)))
