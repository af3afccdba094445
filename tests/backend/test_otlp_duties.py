"""What OTLP 1.11 asks of a receiver, row by row as docs/otlp.md has it, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from doubles import MemoryStore
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from receivers import Receiving, receiving, traces

from otel_sessions.backend.decode import parse
from otel_sessions.backend.origins import parse_origins
from otel_sessions.errors import BackendError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DOCUMENT = Path(__file__).parents[2] / "docs/otlp.md"
LIMIT = 64 * 1024
TOKEN = "a-token-of-tests"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
RESPONSES: Mapping[str, type[Message]] = {
    "/v1/traces": ExportTraceServiceResponse,
    "/v1/logs": ExportLogsServiceResponse,
    "/v1/metrics": ExportMetricsServiceResponse,
}

ONE = traces("a").SerializeToString()
ONE_JSON = json.dumps(
    {
        "resourceSpans": [
            {"scopeSpans": [{"spans": [{"traceId": "AB" * 16, "spanId": "cd" * 8, "name": "a"}]}]}
        ]
    }
).encode()
NO_ID = traces("a", bad=1).SerializeToString()
NO_ID_JSON = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "bad"}]}]}]}).encode()
BIG = traces("a", size=LIMIT).SerializeToString()
BUSY, FAILING, TURNED_AWAY = "queue full", "disk full", "token asked for"


@dataclass(frozen=True)
class Sent:
    """One request over HTTP, what it is answered, and how the backend is at that time."""

    body: bytes = ONE
    media: str | None = PROTOBUF
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/traces"
    method: str = "POST"
    chunked: bool = False
    status: int = 200
    told: Mapping[str, str] = field(default_factory=dict)
    when: str = ""
    version: str = "1.1"

    def as_bytes(self) -> bytes:
        """Write it as it goes over the wire."""
        headers = {"Host": "localhost", "Connection": "close", **self.headers}
        if self.media is not None:
            headers["Content-Type"] = self.media
        body = self.body
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
            parts = [body[at : at + 50] for at in range(0, len(body), 50)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        else:
            headers["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.path} HTTP/{self.version}\r\n{head}\r\n".encode() + body


def packed(coding: str, body: bytes, **more: Any) -> Sent:
    """Make a request whose body is compressed, or is said to be."""
    return Sent(body, headers={"Content-Encoding": coding}, **more)


DUTIES = {
    # what is taken
    "protobuf": Sent(),
    "JSON": Sent(ONE_JSON, JSON),
    "`application/protobuf`": Sent(media="application/protobuf"),
    "a media type in any case": Sent(ONE_JSON, "Application/JSON"),
    "a media type with parameters": Sent(ONE_JSON, "application/json; charset=utf-8"),
    "JSON with a byte order mark": Sent(b"\xef\xbb\xbf" + ONE_JSON, JSON),
    "logs": Sent(path="/v1/logs", body=b""),
    "metrics": Sent(path="/v1/metrics", body=b""),
    "an empty request": Sent(b""),
    "an empty request in JSON": Sent(b"{}", JSON),
    "`Content-Encoding: identity`": packed("identity", ONE),
    "`Content-Encoding: gzip`": packed("gzip", gzip.compress(ONE)),
    "`Content-Encoding: deflate` or `zlib`, with zlib's wrapper": packed("deflate", zlib.compress(ONE)),
    "`Content-Encoding: deflate` without the wrapper": packed("deflate", zlib.compress(ONE)[2:-4]),
    "`Content-Encoding: zstd`": packed("zstd", zstd.compress(ONE)),
    "a coding in any case": packed("GZip", gzip.compress(ONE)),
    "a body in chunks": Sent(chunked=True),
    "a body in chunks, compressed": packed("gzip", gzip.compress(ONE), chunked=True),
    "HTTP/1.0": Sent(version="1.0"),
    "`Expect: 100-continue`": Sent(headers={"Expect": "100-continue"}),
    "spans without a valid id beside valid ones": Sent(NO_ID),
    "spans without a valid id in JSON": Sent(NO_ID_JSON, JSON),
    # what the sender has to change
    "what is no protobuf": Sent(b"\xff\xff", status=400),
    "what is no JSON": Sent(b"{", JSON, status=400),
    "JSON that is no UTF-8": Sent(b'{"x":"\xff"}', JSON, status=400),
    "an empty body as JSON": Sent(b"", JSON, status=400),
    "gzip that is announced and none": packed("gzip", ONE, status=400),
    "zstd that is announced and none": packed("zstd", ONE, status=400),
    "deflate that is announced and none": packed("deflate", b"\xff" + ONE, status=400),
    "gzip that is cut": packed("gzip", gzip.compress(ONE)[:-3], status=400),
    "gzip in JSON that is none": Sent(ONE_JSON, JSON, {"Content-Encoding": "gzip"}, status=400),
    "no token, where one is asked for": Sent(
        status=401, told={"WWW-Authenticate": "Bearer"}, when=TURNED_AWAY
    ),
    "no token, in JSON": Sent(ONE_JSON, JSON, status=401, when=TURNED_AWAY),
    "another path of `/v1/`": Sent(path="/v1/events", status=404),
    "profiles (`/v1development/profiles`)": Sent(path="/v1development/profiles", status=404),
    "profiles in JSON": Sent(ONE_JSON, JSON, path="/v1development/profiles", status=404),
    "a method other than POST": Sent(method="PUT", status=405, told={"Allow": "POST"}),
    "GET": Sent(b"", None, method="GET", status=405, told={"Allow": "POST"}),
    "a body over the limit": Sent(BIG, status=413),
    "a body over the limit, in chunks": Sent(BIG, chunked=True, status=413),
    "a body that inflates beyond the limit": packed("gzip", gzip.compress(BIG), status=413),
    "the same with zstd": packed("zstd", zstd.compress(BIG), status=413),
    "the same with deflate": packed("deflate", zlib.compress(BIG), status=413),
    "a media type that is none of OTLP's": Sent(media="text/plain", status=415),
    "no media type": Sent(media=None, status=415),
    "JSON in another charset": Sent(ONE_JSON, "application/json; charset=utf-16", status=415),
    "a coding that is not known (snappy, lz4, br)": packed(
        "snappy", ONE, status=415, told={"Accept-Encoding": "gzip, x-gzip, deflate, zlib, zstd"}
    ),
    "two codings on each other": packed("gzip, zstd", ONE, status=415),
    # what passes
    "too much waits for the disk": Sent(status=429, told={"Retry-After": "1"}, when=BUSY),
    "too much waits, in JSON": Sent(ONE_JSON, JSON, status=429, told={"Retry-After": "1"}, when=BUSY),
    "a commit that fails": Sent(status=503, told={"Retry-After": "1"}, when=FAILING),
    # pages
    "a preflight from an admitted origin": Sent(
        b"",
        None,
        {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,content-encoding,traceparent,authorization,x-own",
        },
        method="OPTIONS",
        status=204,
        told={
            "Access-Control-Allow-Origin": "https://app.example",
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "content-type,content-encoding,traceparent,authorization,x-own",
        },
        when=TURNED_AWAY,
    ),
    "a preflight from another origin": Sent(
        b"", None, {"Origin": "https://evil.example"}, method="OPTIONS", status=403
    ),
    "a request of an admitted origin": Sent(
        ONE_JSON,
        JSON,
        {"Origin": "https://app.example"},
        told={"Access-Control-Allow-Origin": "https://app.example", "Vary": "Origin"},
    ),
    "an error to an admitted origin": Sent(
        b"{",
        JSON,
        {"Origin": "https://app.example"},
        status=400,
        told={
            "Access-Control-Allow-Origin": "https://app.example",
            "Access-Control-Expose-Headers": "Retry-After",
        },
    ),
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def backend(when: str = "") -> AsyncIterator[Receiving]:
    """Run both receivers, in the state that a duty asks for."""
    store = MemoryStore()
    token = TOKEN if when == TURNED_AWAY else None
    origins = parse_origins("https://app.example")
    async with receiving(
        store, queue_bytes=10 * LIMIT, token=token, max_body=LIMIT, otlp_origins=origins
    ) as running:
        if when == BUSY:
            running.ingest._queue.take(10 * LIMIT)
        if when == FAILING:
            store.fails = [BackendError("no space")]
        yield running
        if when == BUSY:
            running.ingest._queue.give(10 * LIMIT)


async def exchange(receiver: Receiving, wire: bytes) -> Answer:
    """Send bytes, read one answer to its end; an interim `100 Continue` is passed over."""
    host, port = receiver.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(wire)
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers.get("Content-Length", 0)))
    writer.close()
    return Answer(int(status.split()[1]), headers, body)


def parsed(kind: type[Message], sent: Sent, answer: Answer) -> Any:
    """Read an answer in the encoding of the request, which its own Content-Type has to name."""
    assert answer.headers["Content-Type"] == (JSON if "json" in (sent.media or "").lower() else PROTOBUF)
    if answer.headers["Content-Type"] == JSON:
        return json_format.Parse(answer.body, kind())
    return kind.FromString(answer.body)


def details(status: Status) -> tuple[list[BadRequest], list[RetryInfo]]:
    """Return what a status says beside its message."""
    found: tuple[list[BadRequest], list[RetryInfo]] = ([], [])
    for detail in status.details:
        for kind, into in zip((BadRequest, RetryInfo), found, strict=True):
            message = kind()
            if detail.Unpack(message):
                into.append(message)
    return found


@pytest.mark.parametrize("name", DUTIES)
def test_http(name: str) -> None:
    """Each request gets the status, headers and kind of body that OTLP asks for."""
    sent = DUTIES[name]

    async def main() -> None:
        async with backend(sent.when) as running:
            answer = await exchange(running, sent.as_bytes())
            assert answer.status == sent.status, answer
            assert sent.told.items() <= answer.headers.items()
            if sent.status == 200:
                parsed(RESPONSES[sent.path], sent, answer)
            elif sent.media is not None and sent.media != "text/plain":
                check_status(sent, answer)

    asyncio.run(asyncio.wait_for(main(), 30))


def check_status(sent: Sent, answer: Answer) -> None:
    """Compare the body of an error with what senders may read there."""
    status = parsed(Status, sent, answer)
    assert status.message
    violations, retries = details(status)
    assert bool(violations) == (sent.status == 400)
    assert bool(retries) == (sent.status in (429, 503))
    assert bool(retries) == ("Retry-After" in answer.headers)


@dataclass(frozen=True)
class Called:
    """One call over gRPC, and what it is answered."""

    message: bytes = ONE
    code: grpc.StatusCode = grpc.StatusCode.OK
    compression: grpc.Compression | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    service: str = "trace.v1.TraceService"
    method: str = "Export"
    when: str = ""


G = grpc.StatusCode
CALLS = {
    "traces": Called(),
    "logs": Called(b"", service="logs.v1.LogsService"),
    "metrics": Called(b"", service="metrics.v1.MetricsService"),
    "gzip": Called(compression=grpc.Compression.Gzip),
    "deflate": Called(compression=grpc.Compression.Deflate),
    "an empty request": Called(b""),
    "a token in `authorization`": Called(metadata=(("authorization", f"Bearer {TOKEN}"),), when=TURNED_AWAY),
    "a token in `x-otel-sessions-token`": Called(
        metadata=(("x-otel-sessions-token", TOKEN),), when=TURNED_AWAY
    ),
    "no token, where one is asked for": Called(code=G.UNAUTHENTICATED, when=TURNED_AWAY),
    "what is no protobuf": Called(b"\xff\xff", G.INVALID_ARGUMENT),
    "what begins like gzip and is none": Called(b"\x1f\x8b" + ONE, G.INVALID_ARGUMENT),
    "a message over the limit": Called(BIG, G.RESOURCE_EXHAUSTED),
    "a message that inflates beyond the limit": Called(
        BIG, G.RESOURCE_EXHAUSTED, compression=grpc.Compression.Gzip
    ),
    "too much waits for the disk": Called(code=G.RESOURCE_EXHAUSTED, when=BUSY),
    "a commit that fails": Called(code=G.UNAVAILABLE, when=FAILING),
    "profiles, and any other service": Called(
        service="profiles.v1development.ProfilesService", code=G.UNIMPLEMENTED
    ),
    "another method": Called(method="Import", code=G.UNIMPLEMENTED),
}


@pytest.mark.parametrize("name", CALLS)
def test_grpc(name: str) -> None:
    """Each call gets the code, and the details by which exporters decide whether to send it again."""
    sent = CALLS[name]

    async def main() -> None:
        async with backend(sent.when) as running, grpc.aio.insecure_channel(running.grpc) as channel:
            call = channel.unary_unary(f"/opentelemetry.proto.collector.{sent.service}/{sent.method}")
            calling = call(sent.message, compression=sent.compression, metadata=sent.metadata)
            if sent.code is G.OK:
                await calling
                return
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await calling
            assert caught.value.code() is sent.code, caught.value
            check_details(sent, caught.value)

    asyncio.run(asyncio.wait_for(main(), 30))


def check_details(sent: Called, error: grpc.aio.AioRpcError) -> None:
    """Compare the rich status of a call with what senders may read there."""
    rich = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if rich is None:
        assert sent.code in (G.UNIMPLEMENTED, G.RESOURCE_EXHAUSTED)  # told by the library: nothing to retry
        assert not sent.when
        return
    status = Status.FromString(rich)  # type: ignore[arg-type]
    assert (status.code, status.message) == (sent.code.value[0], error.details())
    violations, retries = details(status)
    assert bool(violations) == (sent.code is G.INVALID_ARGUMENT)
    assert bool(retries) == (sent.when in (BUSY, FAILING))


def test_a_connection_serves_many_requests_of_any_outcome() -> None:
    """Keep-alive: after a success, an error that was read to its end, and another success."""

    async def main() -> None:
        async with backend() as running:
            host, port = running.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for name in (
                "protobuf",
                "what is no JSON",
                "a coding that is not known (snappy, lz4, br)",
                "JSON",
            ):
                wire = DUTIES[name].as_bytes().replace(b"Connection: close\r\n", b"")
                writer.write(wire)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                assert int(head.split()[1]) == DUTIES[name].status
                length = re.search(r"Content-Length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
            writer.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_partial_success_says_how_many_and_why() -> None:
    """In both encodings: a number and a sentence; nothing at all where all was taken."""

    async def main() -> None:
        async with backend() as running:
            for name in ("spans without a valid id beside valid ones", "spans without a valid id in JSON"):
                sent = DUTIES[name]
                told = parsed(RESPONSES[sent.path], sent, await exchange(running, sent.as_bytes()))
                assert told.partial_success.rejected_spans == 1
                assert "no valid trace id or span id" in told.partial_success.error_message
            for name in ("protobuf", "JSON"):
                sent = DUTIES[name]
                told = parsed(RESPONSES[sent.path], sent, await exchange(running, sent.as_bytes()))
                assert not told.HasField("partial_success")

    asyncio.run(asyncio.wait_for(main(), 30))


def table(title: str) -> dict[str, str]:
    """Read one table of the document: what is sent, and what is answered."""
    section = DOCUMENT.read_text().split(f"### {title}\n")[1].split("\n#")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[1].strip() for row in rows[2:]}


@pytest.mark.parametrize(
    ("title", "duties"),
    [
        ("Over HTTP", {name: str(sent.status) for name, sent in DUTIES.items()}),
        ("Over gRPC", {name: sent.code.name for name, sent in CALLS.items()}),
    ],
)
def test_the_document_lists_what_is_tested_here(title: str, duties: dict[str, str]) -> None:
    """Who reads docs/otlp.md reads claims that were tried, all of them."""
    assert table(title) == duties


JSON_RULES: Mapping[str, tuple[dict[str, Any], Callable[[Any], object]]] = {
    "64-bit integers as strings or numbers": (
        {"startTimeUnixNano": "5", "endTimeUnixNano": 6},
        lambda span: (span.start_time_unix_nano, span.end_time_unix_nano) == (5, 6),
    ),
    "ids in upper case": (
        {"spanId": "ABCDEF0123456789"},
        lambda span: span.span_id.hex() == "abcdef0123456789",
    ),
    "enums by number": ({"kind": 3}, lambda span: span.kind == 3),
    "enums by name": ({"kind": "SPAN_KIND_CLIENT"}, lambda span: span.kind == 3),
    "enums that are not known": ({"kind": 77}, lambda span: span.name == "a"),
    "names of fields in snake case": (
        {"start_time_unix_nano": "5"},
        lambda span: span.start_time_unix_nano == 5,
    ),
    "fields that are not known": ({"surprise": {"deep": [1]}}, lambda span: span.name == "a"),
    "a key twice: the last one counts": ({"name": "first", "NAME": "a"}, lambda span: span.name == "a"),
    "NaN and Infinity by name": (
        {"attributes": [{"key": "x", "value": {"doubleValue": "NaN"}}]},
        lambda span: str(span.attributes[0].value.double_value) == "nan",
    ),
    "half of a surrogate pair: replaced": ({"name": "a\ud800"}, lambda span: span.name == "a�"),
    "an empty value": (
        {"attributes": [{"key": "x", "value": {}}]},
        lambda span: span.attributes[0].value.WhichOneof("value") is None,
    ),
    "null: as if it were absent": ({"traceState": None}, lambda span: span.trace_state == ""),
}


@pytest.mark.parametrize("rule", JSON_RULES)
def test_json(rule: str) -> None:
    """What emitters write in JSON is read as they mean it."""
    fields, holds = JSON_RULES[rule]
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "a", **fields}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).replace('"NAME"', '"name"')

    async def main() -> None:
        async with backend() as running:
            answer = await exchange(running, Sent(body.encode(), JSON).as_bytes())
            assert (answer.status, answer.body) == (200, b"{}")
            store: Any = running.services.store
            [[request]] = store.appended
            message = parse(request.signal, request.encoding, request.body)
            assert holds(message.resource_spans[0].scope_spans[0].spans[0])  # type: ignore[union-attr]

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceSpans": ' + b"[" * 50_000,
        b'{"resourceSpans": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
        b'{"resourceSpans": 1}',
        b'{"resourceSpans": [1]}',
        b"[]",
        b"null",
        b'"x"',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "1e400"}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -1}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": ' + b"9" * 5000 + b"}]}]}]}",
    ],
    ids=range(10),
)
def test_json_that_is_no_request_is_a_400(body: bytes) -> None:
    """Deep, of other types, out of range: told as the sender's fault, never as ours."""

    async def main() -> None:
        async with backend() as running:
            sent = Sent(body, JSON, headers={"Content-Encoding": "gzip"}, status=400)
            wire = Sent(gzip.compress(body), JSON, headers={"Content-Encoding": "gzip"}).as_bytes()
            answer = await exchange(running, wire)
            assert answer.status == 400
            check_status(sent, answer)

    asyncio.run(asyncio.wait_for(main(), 30))
