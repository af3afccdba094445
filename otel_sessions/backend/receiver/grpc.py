"""OTLP over gRPC: the Export methods of traces, logs and metrics, as handlers of raw bytes.

grpc inflates, and keeps the limit before and after that; decoding is ours, the same as for HTTP. What can be
sent again later says so by RetryInfo, without which exporters drop what RESOURCE_EXHAUSTED refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from otel_sessions.backend.access import metadata_bears
from otel_sessions.backend.receiver.answers import MAX_BODY_BYTES, refusal_for, status_of, success
from otel_sessions.backend.records import Encoding, Signal
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

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.so_reuseport", 0),  # else a second backend would silently share the port
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_DETAILS: Final = "grpc-status-details-bin"

_Context = grpc.aio.ServicerContext[bytes, bytes]


async def start(services: Services, address: Address) -> tuple[grpc.aio.Server, Address]:
    """Start to listen; return the server and where it listens. Raises AddressError."""
    server = grpc.aio.server(options=_OPTIONS)
    receiver = _GrpcReceiver(services)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                name, {"Export": grpc.unary_unary_rpc_method_handler(receiver.handler(signal))}
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
    def __init__(self, services: Services) -> None:
        self._ingest = services.ingest
        self._tally = services.receivers["grpc"]
        self._token = services.settings.token

    def handler(self, signal: Signal) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        """Make the Export method of one signal."""

        async def export(message: bytes, context: _Context) -> bytes:
            if self._token is not None and not metadata_bears(context.invocation_metadata(), self._token):
                self._tally.note(signal, "unauthenticated")
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this backend asks for a token")
            return await self._take(message, signal, context)

        return export

    async def _take(self, message: bytes, signal: Signal, context: _Context) -> bytes:
        try:
            stored = await self._ingest.accept(signal, Encoding.PROTOBUF, message)
        except asyncio.CancelledError:
            raise  # nobody is left to answer
        except Exception as error:  # noqa: BLE001 - the guard at the server's edge: the sender is owed a status
            return await self._refuse(error, signal, context)
        self._tally.note(signal, "partial" if stored.rejected else "stored")
        return success(stored)

    async def _refuse(self, error: Exception, signal: Signal, context: _Context) -> bytes:
        refusal = refusal_for(error)
        self._tally.note(signal, refusal.word)
        code = _CODES[refusal.grpc]
        if code is grpc.StatusCode.INTERNAL:
            logger.error("a request could not be handled", exc_info=error)
        details = status_of(refusal).SerializeToString()
        await context.abort(code, refusal.message, trailing_metadata=((_DETAILS, details),))
        raise AssertionError("abort always raises") from error


_CODES: Final[dict[int, Any]] = {code.value[0]: code for code in grpc.StatusCode}
