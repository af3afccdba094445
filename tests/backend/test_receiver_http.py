"""OTLP over HTTP: every encoding, every limit, and answers that exporters act on rightly."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gzip
import io
import json
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import hdrs
from doubles import MemoryStore
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from receivers import Receiving, receiving, traces

from otel_sessions.backend.origins import parse_origins
from otel_sessions.backend.receiver.answers import MAX_BODY_BYTES
from otel_sessions.backend.receiver.inflate import MAX_MEMBERS
from otel_sessions.errors import BackendError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PROTOBUF = {hdrs.CONTENT_TYPE: "application/x-protobuf"}
JSON = {hdrs.CONTENT_TYPE: "application/json"}


def json_traces(*names: str) -> bytes:
    """Encode a request the way OTLP has it in JSON: ids in hex, enums as integers."""
    spans = [{"traceId": "ab" * 16, "spanId": f"{n + 1:016x}", "name": name} for n, name in enumerate(names)]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


class Client:
    """A client of a receiver over a store in memory."""

    def __init__(self, http: aiohttp.ClientSession, receiver: Receiving, store: MemoryStore) -> None:
        self._http = http
        self.receiver = receiver
        self.store = store

    async def post(
        self, body: bytes | AsyncIterator[bytes], headers: dict[str, str], path: str = "/v1/traces"
    ) -> tuple[int, dict[str, str], bytes]:
        return await self.send("POST", path, headers, body)

    async def send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | AsyncIterator[bytes] = b""
    ) -> tuple[int, dict[str, str], bytes]:
        url = self.receiver.url + path
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self._http.request(method, url, data=data, headers=headers) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    def names(self) -> list[str]:
        return [span.name for batch in self.store.appended for one in batch for span in one.spans]


def with_client(scenario: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Run a scenario against a receiver of its own."""

    async def main() -> None:
        store = MemoryStore()
        async with (
            receiving(store, **options) as receiver,
            aiohttp.ClientSession(auto_decompress=False) as http,
        ):
            await scenario(Client(http, receiver, store))

    asyncio.run(asyncio.wait_for(main(), 60))


async def chunks(body: bytes, size: int = 7) -> AsyncIterator[bytes]:
    """Yield a body in pieces, so that it is sent without a length."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("coding", ["identity", "gzip", "x-gzip", "deflate", "zlib", "raw deflate", "zstd"])
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_every_encoding_and_coding_is_stored(encoding: str, coding: str, chunked: bool) -> None:
    """Protobuf and JSON, plain and compressed, with and without a length, all arrive the same."""

    async def scenario(client: Client) -> None:
        body = traces("a", "b").SerializeToString() if encoding == "protobuf" else json_traces("a", "b")
        packed = {
            "identity": lambda: body,
            "gzip": lambda: gzip.compress(body),
            "x-gzip": lambda: (
                gzip.compress(body[:9]) + gzip.compress(body[9:])
            ),  # members may follow each other
            "deflate": lambda: zlib.compress(body),
            "zlib": lambda: zlib.compress(body),
            "raw deflate": lambda: zlib.compress(body)[2:-4],
            "zstd": lambda: zstd.compress(body),
        }[coding]()
        headers = {
            **(PROTOBUF if encoding == "protobuf" else JSON),
            "Content-Encoding": coding.rsplit(maxsplit=1)[-1],
        }
        status, told, answer = await client.post(chunks(packed) if chunked else packed, headers)
        assert (status, told["Content-Type"]) == (200, headers[hdrs.CONTENT_TYPE])
        assert answer == (b"" if encoding == "protobuf" else b"{}")
        assert client.names() == ["a", "b"]
        assert client.store.appended[0][0].body == body

    with_client(scenario)


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_as_many_members_as_are_allowed_are_one_body(coding: str, compress: Callable[[bytes], bytes]) -> None:
    """Where a member ends within what is fed to the decompressor changes nothing."""

    async def scenario(client: Client) -> None:
        body = traces("a", size=MAX_MEMBERS * 300).SerializeToString()
        step = -(-len(body) // MAX_MEMBERS)
        members = [compress(body[n * step : (n + 1) * step]) for n in range(MAX_MEMBERS)]
        status, *_ = await client.post(b"".join(members), {**PROTOBUF, "Content-Encoding": coding})
        assert (status, client.store.appended[0][0].body) == (200, body)

    with_client(scenario)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x-protobuf;v=1",
        "APPLICATION/X-PROTOBUF",
    ],
)
def test_media_types_are_read_without_case_and_parameters(media_type: str) -> None:
    """What exporters append or capitalise changes nothing."""

    async def scenario(client: Client) -> None:
        body = json_traces("a") if "json" in media_type.lower() else traces("a").SerializeToString()
        status, *_ = await client.post(body, {hdrs.CONTENT_TYPE: media_type})
        assert (status, client.names()) == (200, ["a"])

    with_client(scenario)


def test_an_empty_request_is_a_success() -> None:
    """An exporter with nothing to say is not scolded for it."""

    async def scenario(client: Client) -> None:
        assert (await client.post(b"", PROTOBUF))[0] == 200
        assert (await client.post(b"{}", JSON))[0] == 200

    with_client(scenario)


def test_spans_without_ids_are_rejected_alone_and_counted() -> None:
    """The rest is stored, and the answer says how many were not, in the request's own encoding."""

    async def scenario(client: Client) -> None:
        message = traces("good", bad=2)
        status, _, answer = await client.post(message.SerializeToString(), PROTOBUF)
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
        assert (status, partial.rejected_spans, client.names()) == (200, 2, ["good"])
        assert partial.error_message
        broken = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "bad"}]}]}]}
        status, _, answer = await client.post(json.dumps(broken).encode(), JSON)
        assert (status, json.loads(answer)["partialSuccess"]["rejectedSpans"]) == (200, "1")

    with_client(scenario)


BROKEN = {
    "garbage": (b"\xff\xff\xff\xff", {}),
    "gzip that is none": (b"plain", {"Content-Encoding": "gzip"}),
    "zstd that is none": (b"plain", {"Content-Encoding": "zstd"}),
    "deflate that is none": (b"\xffplain", {"Content-Encoding": "deflate"}),
    "cut gzip": (gzip.compress(b"x" * 1000)[:-9], {"Content-Encoding": "gzip"}),
    "gzip and rubbish": (gzip.compress(b"") + b"rubbish", {"Content-Encoding": "gzip"}),
    "a big garbage": (b"\xff" * 300_000, {}),
    "more gzip members than any sender makes": (gzip.compress(b"") * 1001, {"Content-Encoding": "gzip"}),
    "more zstd frames than any sender makes": (zstd.compress(b"") * 1001, {"Content-Encoding": "zstd"}),
}


@pytest.mark.parametrize("media", [PROTOBUF, JSON], ids=["protobuf", "json"])
@pytest.mark.parametrize(("body", "headers"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_a_400_with_a_status(
    body: bytes, headers: dict[str, str], media: dict[str, str]
) -> None:
    """The sender learns what is wrong in the encoding it speaks, and stops sending it."""

    async def scenario(client: Client) -> None:
        status, told, answer = await client.post(body, {**media, **headers})
        assert (status, told["Content-Type"]) == (400, media[hdrs.CONTENT_TYPE])
        if media is JSON:
            assert json.loads(answer)["message"]
        else:
            assert Status.FromString(answer).message
        assert client.store.appended == []

    with_client(scenario)


def test_a_body_over_the_limit_is_a_413_before_and_after_inflation() -> None:
    """Announced, chunked or inflated: past 64 MiB nothing is taken."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // (1 << 20) + 1):
            yield bytes(1 << 20)

    async def scenario(client: Client) -> None:
        bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1), 9)
        assert len(bomb) < 100_000
        bodies = [(bytes(MAX_BODY_BYTES + 1), PROTOBUF), (endless(), PROTOBUF)]
        bodies += [
            (bomb, {**PROTOBUF, "Content-Encoding": "gzip"}),
            (bomb * 20, {**JSON, "Content-Encoding": "gzip"}),
        ]
        for body, headers in bodies:
            status, told, _ = await client.post(body, headers)
            assert (status, told["Content-Type"]) == (413, headers[hdrs.CONTENT_TYPE])
        assert (await client.post(traces("after").SerializeToString(), PROTOBUF))[0] == 200

    with_client(scenario)


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    """64 MiB is what OTLP asks for, not one byte less."""

    async def scenario(client: Client) -> None:
        size = MAX_BODY_BYTES
        for _ in range(3):  # the lengths in front of it grow with it
            body = traces("big", size=size).SerializeToString()
            size -= len(body) - MAX_BODY_BYTES
        assert len(body) == MAX_BODY_BYTES
        assert (await client.post(gzip.compress(body, 1), {**PROTOBUF, "Content-Encoding": "gzip"}))[0] == 200
        assert (await client.post(body, PROTOBUF))[0] == 200
        assert client.names() == ["big", "big"]

    with_client(scenario)


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {}, 405),
        ("PUT", PROTOBUF, 405),
        ("POST", {hdrs.CONTENT_TYPE: "text/plain"}, 415),
        ("POST", {hdrs.CONTENT_TYPE: "application/grpc"}, 415),
        ("POST", {**PROTOBUF, "Content-Encoding": "br"}, 415),
    ],
)
def test_what_is_not_otlp_is_told_so(method: str, headers: dict[str, str], expected: int) -> None:
    """Wrong method, media type or coding: the plain status that tells which."""

    async def scenario(client: Client) -> None:
        status, told, answer = await client.send(method, "/v1/traces", headers, b"x")
        assert status == expected
        assert answer
        if expected == 405:
            assert told["Allow"] == "POST"

    with_client(scenario)


def test_a_full_queue_is_a_429_with_retry_after() -> None:
    """Whoever is refused is told when to come back, and that it is not its fault."""

    async def scenario(client: Client) -> None:
        client.receiver.ingest._queue.take(900)  # as if others were waiting for a commit
        status, told, answer = await client.post(traces(size=200).SerializeToString(), PROTOBUF)
        assert (status, told["Retry-After"]) == (429, "1")
        assert Status.FromString(answer).code == 8
        client.receiver.ingest._queue.give(900)
        assert (await client.post(traces(size=200).SerializeToString(), PROTOBUF))[0] == 200

    with_client(scenario, queue_bytes=1000)


def test_bodies_on_their_way_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that send slowly hold no more memory than a few: the rest are told to come back."""
    monkeypatch.setattr("otel_sessions.backend.receiver.http.READING_BYTES", 1000)

    async def scenario(client: Client) -> None:
        body = traces(size=900).SerializeToString()
        half, going_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield body[:900]
            half.set()
            await going_on.wait()
            yield body[900:]

        first = asyncio.create_task(client.post(slowly(), PROTOBUF))
        await half.wait()
        while (refused := await client.post(body, PROTOBUF))[0] == 200:
            pass  # the first half has not been read yet
        assert (refused[0], refused[1]["Retry-After"]) == (429, "1")
        going_on.set()
        assert (await first)[0] == 200
        assert (await client.post(body, PROTOBUF))[0] == 200

    with_client(scenario)


@pytest.mark.parametrize("media", [PROTOBUF, JSON], ids=["protobuf", "json"])
def test_a_sender_that_stalls_gives_its_room_back(
    media: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that stop in the middle of a body lock nobody out for ever: they may come back."""
    monkeypatch.setattr("otel_sessions.backend.receiver.http.READING_BYTES", 1000)
    monkeypatch.setattr("otel_sessions.backend.receiver.http.STALLED_SECONDS", 0.1)

    async def scenario(client: Client) -> None:
        host, port = client.receiver.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {media[hdrs.CONTENT_TYPE]}\r\n"
        writer.write(head.encode() + b"Content-Length: 2000\r\n\r\n" + bytes(950))
        told = await reader.readuntil(b"\r\n\r\n")
        assert told.split(b" ", 2)[1] == b"503"
        assert b"retry-after: 1" in told.lower()
        assert f"content-type: {media[hdrs.CONTENT_TYPE]}".encode() in told.lower()
        assert b"connection: close" in told.lower()
        assert (await client.post(traces(size=900).SerializeToString(), PROTOBUF))[0] == 200
        assert client.receiver.services.receivers["http"].by_word() == {"stalled": 1, "stored": 1}
        writer.close()

    with_client(scenario)


def test_a_sender_that_trickles_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stopping is not enough: a byte now and then would hold room for ever."""
    monkeypatch.setattr("otel_sessions.backend.receiver.http.STALLED_SECONDS", 0.3)

    async def scenario(client: Client) -> None:
        host, port = client.receiver.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF[hdrs.CONTENT_TYPE]}\r\n"
        writer.write(head.encode() + b"Content-Length: 2000\r\n\r\n")
        told = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        while not told.done():
            writer.write(b"x")
            await asyncio.wait({told}, timeout=0.02)
        assert told.result().split(b" ", 2)[1] == b"503"
        assert b"connection: close" in told.result().lower()
        writer.transport.abort()

    with_client(scenario)


def test_a_sender_that_dies_in_mid_body_is_counted_and_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Agents are killed all the time; that is no error of ours, and says nothing in our log."""

    async def scenario(client: Client) -> None:
        host, port = client.receiver.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF[hdrs.CONTENT_TYPE]}\r\n"
        writer.write(head.encode() + b"Content-Length: 2000\r\n\r\nhalf")
        assert (await client.post(traces().SerializeToString(), PROTOBUF))[0] == 200  # the half was read too
        writer.transport.abort()
        tally = client.receiver.services.receivers["http"]
        while "stalled" not in tally.by_word() and not caplog.records:
            await client.post(traces().SerializeToString(), PROTOBUF)
        assert tally.by_word()["stalled"] == 1

    with_client(scenario)
    assert not caplog.records


def test_slow_reads_do_not_hold_up_what_is_inflated() -> None:
    """The threads that the API reads with may all be busy; telemetry has its own."""

    async def scenario(client: Client) -> None:
        slow = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1) as readers:
            asyncio.get_running_loop().set_default_executor(readers)
            reading = asyncio.create_task(asyncio.to_thread(slow.wait))
            try:
                body = traces("big", size=1 << 20).SerializeToString()
                headers = {**PROTOBUF, "Content-Encoding": "gzip"}
                answer = await asyncio.wait_for(client.post(gzip.compress(body), headers), 10)
                assert answer[0] == 200
            finally:
                slow.set()
                await reading

    with_client(scenario)


def test_a_commit_that_fails_is_a_503_with_retry_after() -> None:
    """A full disk is nobody's fault for ever: exporters keep what they have and try again."""

    async def scenario(client: Client) -> None:
        client.store.fails = [BackendError("disk full")]
        status, told, answer = await client.post(json_traces("a"), JSON)
        assert (status, told["Retry-After"]) == (503, "1")
        assert "disk full" in json.loads(answer)["message"]
        assert json.loads(answer)["code"] == 14
        assert (await client.post(json_traces("a"), JSON))[0] == 200

    with_client(scenario)


def test_a_fault_of_ours_in_decoding_is_a_500_with_a_status(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not retried, since the same would fail again, and it is logged."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("otel_sessions.backend.ingest.decode", fail)

    async def scenario(client: Client) -> None:
        status, _, answer = await client.post(b"", PROTOBUF)
        assert status == 500
        assert Status.FromString(answer).message

    with_client(scenario)
    assert "ZeroDivisionError" in caplog.text


def test_a_sender_that_hangs_up_half_way_leaves_nothing_behind() -> None:
    """Half a body is no body: nothing is stored, no room stays taken."""

    async def scenario(client: Client) -> None:
        host, port = client.receiver.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 1000\r\n\r\nhalf"
        )
        await writer.drain()
        writer.close()
        assert (await client.post(traces("after").SerializeToString(), PROTOBUF))[0] == 200
        assert client.names() == ["after"]

    with_client(scenario)


def test_broken_chunks_are_refused_and_the_next_request_is_taken() -> None:
    """A body that lies about its chunks is the sender's fault."""

    async def scenario(client: Client) -> None:
        host, port = client.receiver.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\nrubbish\r\n"
        )
        answer = await reader.read()
        assert answer.split(b" ", 2)[1] == b"400"
        writer.close()
        assert (await client.post(traces("after").SerializeToString(), PROTOBUF))[0] == 200

    with_client(scenario)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://app.example"])
def test_pages_of_admitted_origins_may_send_telemetry(origin: str) -> None:
    """Browsers ask first, with the headers they want to send, and see the answer."""

    async def scenario(client: Client) -> None:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,traceparent,authorization",
        }
        status, told, _ = await client.send("OPTIONS", "/v1/traces", asked)
        assert (status, told["Access-Control-Allow-Origin"]) == (204, origin)
        assert told["Access-Control-Allow-Headers"] == "content-type,traceparent,authorization"
        assert told["Access-Control-Allow-Methods"] == "POST"
        headers = {**JSON, "Origin": origin}
        status, told, _ = await client.post(json_traces("a"), headers)
        assert (status, told["Access-Control-Allow-Origin"]) == (200, origin)
        status, told, _ = await client.post(b"{", headers)
        assert (status, told["Access-Control-Allow-Origin"]) == (400, origin)
        assert told["Access-Control-Expose-Headers"] == "Retry-After"

    with_client(scenario, otlp_origins=parse_origins("loopback,https://app.example"))


def test_pages_of_other_origins_may_not() -> None:
    """Whatever page a user opens could write sessions here; browsers ask first, and are told no."""

    async def scenario(client: Client) -> None:
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        status, told, answer = await client.send("OPTIONS", "/v1/traces", asked)
        assert (status, "Access-Control-Allow-Origin" in told) == (403, False)
        assert b"--otlp-origins" in answer

    with_client(scenario)


def test_every_signal_has_its_path() -> None:
    """Logs and metrics are taken like traces, and what became of each request is counted."""

    async def scenario(client: Client) -> None:
        log = {
            "resourceLogs": [
                {"scopeLogs": [{"logRecords": [{"timeUnixNano": "5", "body": {"stringValue": "x"}}]}]}
            ]
        }
        assert (await client.post(json.dumps(log).encode(), JSON, "/v1/logs"))[0] == 200
        assert (await client.post(b"{}", JSON, "/v1/metrics"))[0] == 200
        assert (await client.post(b"{", JSON, "/v1/metrics"))[0] == 400
        assert client.receiver.services.receivers["http"].by_word() == {"stored": 2, "invalid": 1}
        assert len(client.store.appended[0][0].logs) == 1

    with_client(scenario)


def test_the_status_says_the_same_in_both_encodings() -> None:
    """The JSON of an error is that of google.rpc.Status."""

    async def scenario(client: Client) -> None:
        _, _, binary = await client.post(b"not gzip", {**PROTOBUF, "Content-Encoding": "gzip"})
        _, _, text = await client.post(b"not gzip", {**JSON, "Content-Encoding": "gzip"})
        assert MessageToDict(Status.FromString(binary)) == json.loads(text)

    with_client(scenario)
