"""OTLP over gRPC: the same in substance as over HTTP, in gRPC's codes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from doubles import MemoryStore
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from receivers import Receiving, receiving, traces

from otel_sessions.backend.receiver import grpc as grpc_receiver
from otel_sessions.backend.receiver.answers import MAX_BODY_BYTES
from otel_sessions.backend.settings import Address
from otel_sessions.errors import AddressError, BackendError

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
GZIP = grpc.Compression.Gzip
TOKEN = "a-token-of-tests"
NOT_USED: Any = None


@dataclass
class Client:
    """A client of a receiver over a store in memory."""

    channel: grpc.aio.Channel
    receiver: Receiving
    store: MemoryStore

    async def export(
        self,
        message: bytes,
        *,
        compression: grpc.Compression | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> ExportTraceServiceResponse:
        call = self.channel.unary_unary(EXPORT)
        return ExportTraceServiceResponse.FromString(
            await call(message, compression=compression, metadata=metadata)
        )

    async def refusal(self, message: bytes, **options: object) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.export(message, **options)  # type: ignore[arg-type]
        return caught.value

    def names(self) -> list[str]:
        return [span.name for batch in self.store.appended for one in batch for span in one.spans]


def with_client(scenario: Callable[[Client], Awaitable[None]], **options: object) -> None:
    """Run a scenario against a receiver of its own."""

    async def main() -> None:
        store = MemoryStore()
        limits = [("grpc.max_send_message_length", -1)]
        async with (
            receiving(store, **options) as receiver,  # type: ignore[arg-type]
            grpc.aio.insecure_channel(receiver.grpc, options=limits) as channel,
        ):
            await scenario(Client(channel, receiver, store))

    asyncio.run(asyncio.wait_for(main(), 60))


def status_of(error: grpc.aio.AioRpcError) -> Status:
    """Return the google.rpc.Status that came with an error."""
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return Status.FromString(details)


def retry_seconds(error: grpc.aio.AioRpcError) -> int | None:
    """Return when an error asks to be retried, as exporters read it."""
    for detail in status_of(error).details:
        info = RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.seconds
    return None


@pytest.mark.parametrize("compression", [None, GZIP, grpc.Compression.Deflate])
def test_spans_are_stored_plain_and_compressed(compression: grpc.Compression | None) -> None:
    """What arrives is what was sent, and the answer is an empty response."""

    async def scenario(client: Client) -> None:
        body = traces("a", "b").SerializeToString()
        assert not (await client.export(body, compression=compression)).HasField("partial_success")
        assert client.names() == ["a", "b"]
        assert client.store.appended[0][0].body == body

    with_client(scenario)


def test_every_signal_has_its_service() -> None:
    """The official stubs of logs, metrics and traces are all answered."""

    async def scenario(client: Client) -> None:
        logs = ExportLogsServiceRequest()
        logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=5)
        assert await LogsServiceStub(client.channel).Export(logs) == ExportLogsServiceResponse()
        await MetricsServiceStub(client.channel).Export(ExportMetricsServiceRequest())
        await TraceServiceStub(client.channel).Export(traces("a"))
        assert client.receiver.services.receivers["grpc"].by_word() == {"stored": 3}
        assert sum(len(one.logs) for batch in client.store.appended for one in batch) == 1

    with_client(scenario)


def test_spans_without_ids_are_rejected_alone_and_counted() -> None:
    """The rest is stored, and the response says how many were not."""

    async def scenario(client: Client) -> None:
        answer = await client.export(traces("good", bad=3).SerializeToString())
        assert answer.partial_success.rejected_spans == 3
        assert answer.partial_success.error_message
        assert client.names() == ["good"]

    with_client(scenario)


def test_garbage_is_an_invalid_argument_and_not_to_be_sent_again() -> None:
    """Bad data stays bad: no RetryInfo."""

    async def scenario(client: Client) -> None:
        error = await client.refusal(b"\xff\xff\xff")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == status_of(error).message
        assert retry_seconds(error) is None

    with_client(scenario)


def test_a_message_of_64_mib_is_taken_and_a_larger_one_refused_before_and_after_inflation() -> None:
    """The library's own default of 4 MiB would leave finished work unseen; a bomb is refused without RetryInfo."""

    async def scenario(client: Client) -> None:
        size = MAX_BODY_BYTES
        for _ in range(3):
            body = traces("big", size=size).SerializeToString()
            size -= len(body) - MAX_BODY_BYTES
        await client.export(body)
        await client.export(body, compression=GZIP)
        assert client.names() == ["big", "big"]
        for compression in (None, GZIP):
            error = await client.refusal(bytes(MAX_BODY_BYTES + 1), compression=compression)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert compression is None or retry_seconds(error) is None
        await client.export(traces("after").SerializeToString())

    with_client(scenario)


def test_a_full_queue_is_resource_exhausted_with_retry_info() -> None:
    """Without RetryInfo exporters would drop what is only to come later."""

    async def scenario(client: Client) -> None:
        client.receiver.ingest._queue.take(900)
        error = await client.refusal(traces(size=200).SerializeToString())
        assert (error.code(), retry_seconds(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
        client.receiver.ingest._queue.give(900)
        await client.export(traces(size=200).SerializeToString())

    with_client(scenario, queue_bytes=1000)


def test_a_commit_that_fails_is_unavailable() -> None:
    """Exporters retry that, and the next commit takes it."""

    async def scenario(client: Client) -> None:
        client.store.fails = [BackendError("disk full")]
        error = await client.refusal(traces().SerializeToString())
        assert (error.code(), retry_seconds(error)) == (grpc.StatusCode.UNAVAILABLE, 1)
        assert "disk full" in (error.details() or "")
        await client.export(traces().SerializeToString())

    with_client(scenario)


def test_a_fault_of_ours_is_internal_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not retried, since the same would fail again."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("otel_sessions.backend.ingest.decode", fail)

    async def scenario(client: Client) -> None:
        assert (await client.refusal(b"")).code() is grpc.StatusCode.INTERNAL

    with_client(scenario)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("metadata", "welcome"),
    [
        ([], False),
        ([("authorization", f"Bearer {TOKEN}")], True),
        ([("authorization", f"bearer {TOKEN}")], True),
        ([("authorization", f"Basic {TOKEN}")], False),
        ([("authorization", TOKEN)], False),
        ([("x-otel-sessions-token", TOKEN)], True),
        ([("x-otel-sessions-token", TOKEN + "x")], False),
    ],
)
def test_with_a_token_nobody_passes_without_it(metadata: list[tuple[str, str]], welcome: bool) -> None:
    """The token is in the metadata of each call, or the call is refused before it is decoded."""

    async def scenario(client: Client) -> None:
        body = traces("a").SerializeToString()
        if welcome:
            await client.export(body, metadata=metadata)
        else:
            error = await client.refusal(body, metadata=metadata)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert client.names() == (["a"] if welcome else [])

    with_client(scenario, token=TOKEN)


def test_a_taken_port_is_an_address_error() -> None:
    """Two backends never share a port, which grpc would allow by default."""

    async def scenario(client: Client) -> None:
        host, _, port = client.receiver.grpc.rpartition(":")
        with pytest.raises(AddressError, match="--grpc HOST:PORT"):
            await grpc_receiver.start(client.receiver.services, Address(host, int(port)), NOT_USED)

    with_client(scenario)
