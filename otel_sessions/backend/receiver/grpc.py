"""OTLP over gRPC: the Export methods of traces, logs and metrics, as handlers of raw bytes.

The methods are declared as streams of messages, of which each call sends one: so a call is looked at (its
token, how much is on its way already) before its message is read into memory, which grpc else does first.
Inflating and decoding are ours, the same as for HTTP; grpc's own inflating happens at once for every call,
in no bounded number. What can be sent again later says so by RetryInfo, without which exporters drop what
RESOURCE_EXHAUSTED refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from otel_sessions.backend.access import FORBIDDEN, Access, Right
from otel_sessions.backend.connections import most_connections
from otel_sessions.backend.ingest import Room
from otel_sessions.backend.receiver.answers import Refusal, forget_bodies, refusal_for, status_of, success
from otel_sessions.backend.receiver.inflate import BrokenBodyError, Inflating
from otel_sessions.backend.receiver.turns import Turns
from otel_sessions.backend.records import Encoding, Request, Signal
from otel_sessions.backend.services import Services
from otel_sessions.backend.settings import Address
from otel_sessions.errors import AddressError

__all__ = ["start"]

logger = logging.getLogger(__name__)

SERVICES: Final = {
    "opentelemetry.proto.collector.trace.v1.TraceService": Signal.TRACES,
    "opentelemetry.proto.collector.logs.v1.LogsService": Signal.LOGS,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": Signal.METRICS,
}

STREAMS: Final = 256
"""Calls of one connection at once; clients keep further ones to themselves until one is answered."""

READ_BYTES: Final = 128 * 1024 * 1024
"""Messages that were read and are to be inflated, all calls together; beyond, calls are told to come back."""

IDLE_MS: Final = 10 * 60 * 1000
"""How long a connection may lie idle; clients open another without a word to their user."""

HANDSHAKE_MS: Final = 20 * 1000
"""How long a connection may take to say that it speaks HTTP/2."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # else a second backend would silently share the port
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.per_message_decompression", 0),  # bodies come as they were sent
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
)
_DETAILS: Final = "grpc-status-details-bin"

_Context = grpc.aio.ServicerContext[bytes, bytes]


async def start(
    services: Services, address: Address, inflating: Inflating
) -> tuple[grpc.aio.Server, Address]:
    """Start to listen; return the server and where it listens. Raises AddressError."""
    limits = (
        ("grpc.max_receive_message_length", services.settings.max_body),
        ("grpc.max_allowed_incoming_connections", most_connections()),
    )
    server = grpc.aio.server(options=(*_OPTIONS, *limits))
    receiver = _GrpcReceiver(services, inflating)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                name, {"Export": grpc.stream_unary_rpc_method_handler(receiver.handler(signal))}
            )
            for name, signal in SERVICES.items()
        ]
    )
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise AddressError(
            f"{address} can't be listened on for gRPC: it is taken or not this machine's; "
            "stop the other program or choose another with --grpc HOST:PORT"
        ) from error
    await server.start()
    return server, Address(address.host, port)


class _GrpcReceiver:
    def __init__(self, services: Services, inflating: Inflating) -> None:
        self._ingest = services.ingest
        self._inflating = inflating
        self._max_body = services.settings.max_body
        self._tally = services.receivers["grpc"]
        self._access = Access.of(services.settings)
        self._turns = Turns()
        self._read = Room(READ_BYTES)

    def handler(self, signal: Signal) -> Callable[[AsyncIterator[bytes], _Context], Awaitable[bytes]]:
        """Make the Export method of one signal."""

        async def export(_messages: AsyncIterator[bytes], context: _Context) -> bytes:
            refusal = self._turned_away(context)
            if refusal is not None:
                self._tally.note(signal, refusal.word)
                await _abort(refusal, context)
            try:
                stored = await self._accept(context, signal)
            except asyncio.CancelledError:
                raise  # nobody is left to answer
            except Exception as error:  # noqa: BLE001 - the guard at the server's edge: the sender is owed a status
                return await self._refuse(error, signal, context)
            self._tally.note(signal, "partial" if stored.rejected else "stored")
            return success(stored)

        return export

    def _turned_away(self, context: _Context) -> Refusal | None:
        if not self._access.tokens:
            return None
        right = self._access.right_in_metadata(context.invocation_metadata())
        if right is None:
            return _NO_TOKEN
        return _NO_RIGHT if right is Right.READ else None

    async def _accept(self, context: _Context, signal: Signal) -> Request:
        peer = context.peer()
        async with self._turns.turn(peer):
            message = await self._turns.read(_message_of(context), peer)
            self._read.take(len(message))
        try:
            body = await self._inflated(message)
        finally:
            self._read.give(len(message))
        return await self._ingest.accept(signal, Encoding.PROTOBUF, body)  # which begins by taking its room

    async def _inflated(self, message: bytes) -> bytes:
        coding = _coding_of(message)
        if coding is None:
            return message
        try:
            return await self._inflating.inflate(message, coding)
        except BrokenBodyError:
            if coding == _GZIP:
                raise
            return message  # a field that is not known today may begin like that

    async def _refuse(self, error: Exception, signal: Signal, context: _Context) -> bytes:
        refusal = refusal_for(error)
        self._tally.note(signal, refusal.word)
        if refusal.grpc == grpc.StatusCode.INTERNAL.value[0]:
            logger.error("a request could not be handled", exc_info=error)
        forget_bodies(error)
        await _abort(refusal, context)
        raise AssertionError("abort always raises") from error


_NO_TOKEN: Final = Refusal(
    "unauthenticated", 401, grpc.StatusCode.UNAUTHENTICATED.value[0], "this backend asks for a token"
)
_NO_RIGHT: Final = Refusal(
    "forbidden", 403, grpc.StatusCode.PERMISSION_DENIED.value[0], FORBIDDEN[Right.READ]
)
_CODES: Final[dict[int, Any]] = {code.value[0]: code for code in grpc.StatusCode}
_GZIP: Final = "gzip"


async def _abort(refusal: Refusal, context: _Context) -> None:
    details = status_of(refusal).SerializeToString()
    await context.abort(_CODES[refusal.grpc], refusal.message, trailing_metadata=((_DETAILS, details),))


async def _message_of(context: _Context) -> bytes:
    """Read the one message of a call. Raises BrokenBodyError where none comes.

    Not by the iterator of messages: that keeps the last one until the garbage collector finds it.
    """
    message: Any = await context.read()
    if not isinstance(message, bytes):  # but grpc's mark for the end
        raise BrokenBodyError("the call sent no message")
    return message


def _coding_of(message: bytes) -> str | None:
    """Tell how a message is compressed, by how it begins; grpc keeps what its flag and header say to itself.

    No message of protobuf begins like gzip. One that begins like zlib's deflate would have a field 15.
    """
    if message[:2] == b"\x1f\x8b":
        return _GZIP
    is_zlib = message[:1] == b"\x78" and int.from_bytes(message[:2], "big") % 31 == 0
    return "deflate" if is_zlib else None
