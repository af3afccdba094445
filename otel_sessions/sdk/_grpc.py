"""OTLP over gRPC: the only module of the SDK that imports grpc, and lazily.

A raw unary call with bytes: the request is serialised once, as for HTTP. OpenTelemetry's own exporter makes a
Resource when it is imported, hence a thread pool: refused in a program that ends at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otel_sessions.sdk._answer import USER_AGENT, Answer, Verdict
from otel_sessions.sdk._endpoint import Compression, Endpoint, Signal

__all__ = ["GrpcTransport"]

_METHODS: Final[dict[Signal, str]] = {
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}

# "OTLP/gRPC Failures" of the protocol's specification; RESOURCE_EXHAUSTED is retried only with RetryInfo.
_RETRIED: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_UNREACHED: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_MAY_BE_SIZE: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE})
_SIZE: Final = re.compile(r"large|size", re.IGNORECASE)
"""How servers say that a message is over their limit, for which there is no code: "larger than max" (Go, C++,
Python), "exceeds maximum size" (Java), "the maximum configured message size" (.NET), "too large" (Rust).
A RESOURCE_EXHAUSTED that says nothing of the kind, nor when to come again, may be it all the same."""

_COMPRESSION: Final[dict[Compression, grpc.Compression]] = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

_OPTIONS: Final = (
    ("grpc.primary_user_agent", USER_AGENT),
    # gRPC's own pause between connections grows to two minutes, which is a whole lease.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class GrpcTransport:
    """OTLP over gRPC, over one channel that reconnects by itself."""

    def __init__(self, endpoint: Endpoint, signal: Signal = "logs") -> None:
        self._metadata = tuple((name.lower(), value) for name, value in endpoint.headers)
        compression = _COMPRESSION[endpoint.compression]
        if endpoint.insecure:
            self._channel = grpc.insecure_channel(endpoint.target, options=_OPTIONS, compression=compression)
        else:
            credentials = _credentials(endpoint)
            self._channel = grpc.secure_channel(
                endpoint.target, credentials, options=_OPTIONS, compression=compression
            )
        self._export: Any = self._channel.unary_unary(_METHODS[signal])

    def send(self, body: bytes, timeout: float) -> Answer:
        """Call Export once."""
        try:
            content: bytes = self._export(body, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            return _read_failure(error)
        try:
            # That of spans has the same fields.
            partial = ExportLogsServiceResponse.FromString(content).partial_success
        except DecodeError as error:
            return Answer(Verdict.REFUSED, f"the answer is no ExportLogsServiceResponse: {error}")
        return Answer(Verdict.ACCEPTED, partial.error_message, rejected=max(0, partial.rejected_log_records))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _credentials(endpoint: Endpoint) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_content(endpoint.certificate),
        private_key=_content(endpoint.client_key),
        certificate_chain=_content(endpoint.client_certificate),
    )


def _content(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _read_failure(error: Any) -> Answer:
    code: grpc.StatusCode = error.code()
    detail = f"gRPC {code.name}: {error.details() or ''}"[:300]
    retry_after = _retry_delay(error.trailing_metadata() or ())
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Answer(Verdict.UNSUPPORTED, detail)
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    if code in _MAY_BE_SIZE and retry_after is None and _SIZE.search(detail):
        return Answer(Verdict.REFUSED, detail, too_large=True)
    if code in _RETRIED or (exhausted and retry_after is not None):
        timed_out = code is grpc.StatusCode.DEADLINE_EXCEEDED
        return Answer(
            Verdict.AGAIN,
            detail,
            retry_after=retry_after,
            reached=code not in _UNREACHED,
            timed_out=timed_out,
        )
    return Answer(Verdict.REFUSED, detail, perhaps_too_large=exhausted)


def _retry_delay(metadata: Any) -> float | None:
    """Read google.rpc.RetryInfo from the trailing metadata, in seconds."""
    for name, value in metadata:
        if name != "grpc-status-details-bin":
            continue
        info = RetryInfo()
        try:
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return info.retry_delay.ToTimedelta().total_seconds()
        except (DecodeError, ValueError):
            return None
    return None
