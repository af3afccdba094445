"""Recorded requests back onto the wire: OTLP/HTTP and gRPC, byte for byte what the emitter sent.

No OTLP exporter is in between, for it would encode anew and hide just what a receiver has to bear.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from otel_sessions.cli._recordings import RecordedRequest
from otel_sessions.errors import ConfigurationError, EndpointError

__all__ = ["Answer", "GrpcTarget", "HttpTarget", "Target"]

TIMEOUT: Final = 30.0  # seconds for one request; a healthy receiver takes milliseconds
_CHUNK: Final = 16 * 1024
_OK: Final = 200
_ADVICE: Final = "start a backend with `otel-sessions serve`, or name another"
_RETRYABLE_HTTP: Final = frozenset({429, 502, 503, 504})
_RETRYABLE_GRPC: Final = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
_SIGNALS: Final = {"traces": "trace", "logs": "logs", "metrics": "metrics"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said: `rejected` counts the items of an accepted request that it did not take.

    `retry_after` (seconds) is set where the receiver asks to be tried again.
    """

    accepted: bool
    status: str
    message: str = ""
    rejected: int = 0
    retry_after: float | None = None


class Target(Protocol):
    """Where requests go."""

    def send(self, request: RecordedRequest) -> Answer:
        """Send one request and wait for its answer; raises EndpointError where nobody answers."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(slots=True)
class HttpTarget:
    """An OTLP/HTTP receiver at `url`, over one connection that is kept alive."""

    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    _connection: http.client.HTTPConnection | None = None

    def send(self, request: RecordedRequest) -> Answer:
        """Send one request as recorded: path, media type, encoding, chunked or with its length."""
        try:
            return self._exchange(request)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()  # a kept connection may have been closed meanwhile: once more on a new one
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise EndpointError(f"nobody answers at {self.url} ({error}); {_ADVICE}") from error
        try:
            return self._exchange(request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise EndpointError(f"{self.url} cut the connection: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, request: RecordedRequest) -> Answer:
        if self._connection is None:
            self._connection = _connection(self.url)
        body = request.payload()
        headers = {"Content-Type": request.content_type, "User-Agent": request.user_agent, **self.headers}
        if request.content_encoding:
            headers["Content-Encoding"] = request.content_encoding
        chunked = request.transfer == "chunked"
        headers.update({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))})
        path = urlsplit(self.url).path.rstrip("/") + request.path
        sent = _chunks(body) if chunked else body
        self._connection.request("POST", path, sent, headers, encode_chunked=chunked)
        response = self._connection.getresponse()
        return _http_answer(request, response, response.read())


@dataclass(slots=True)
class GrpcTarget:
    """An OTLP/gRPC receiver at `address` (host:port), called with raw messages."""

    address: str
    metadata: tuple[tuple[str, str], ...] = ()
    _channels: dict[str, Any] = field(default_factory=dict[str, Any])

    def send(self, request: RecordedRequest) -> Answer:
        """Send one message to the method it was recorded for."""
        import grpc

        call = self._channel(request.user_agent).unary_unary(request.path)
        try:
            body: bytes = call(request.message(), timeout=TIMEOUT, metadata=self.metadata)
        except grpc.RpcError as error:
            failure = cast("grpc.Call", error)
            status = failure.code().name
            detail = str(failure.details() or "")
            if status == "UNAVAILABLE" and "failed to connect" in detail.lower():
                raise EndpointError(f"nobody answers at {self.address} (gRPC); {_ADVICE}") from error
            return Answer(False, status, detail, retry_after=1.0 if status in _RETRYABLE_GRPC else None)
        rejected, message = _rejected(request.path, "application/grpc", body)
        return Answer(True, "OK", message, rejected)

    def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _channel(self, user_agent: str) -> Any:
        """Return the channel of one user agent: it is an option of the channel, not of a call."""
        import grpc

        agent = user_agent.split(" grpc-", maxsplit=1)[0]  # grpc adds its own name and version
        if agent not in self._channels:
            options = [("grpc.primary_user_agent", agent)] if agent else []
            self._channels[agent] = grpc.insecure_channel(self.address, options)
        return self._channels[agent]


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url} is no address: {error}") from error
    if parts.scheme not in kinds or not parts.hostname:
        raise ConfigurationError(f"{url} is no address of an OTLP/HTTP receiver; say http://127.0.0.1:4318")
    return kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT)


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]


def _http_answer(request: RecordedRequest, response: http.client.HTTPResponse, body: bytes) -> Answer:
    media = response.headers.get_content_type()
    status = str(response.status)
    if response.status == _OK:
        rejected, message = _rejected(request.path, media, body)
        return Answer(True, status, message, rejected)
    wait = response.headers.get("Retry-After", "1")
    retry = response.status in _RETRYABLE_HTTP
    return Answer(
        False,
        status,
        _complaint(media, body),
        retry_after=(float(wait) if wait.isdigit() else 1.0) if retry else None,
    )


def _rejected(path: str, media: str, body: bytes) -> tuple[int, str]:
    """Return how many items of an accepted request were rejected, and why."""
    import importlib

    from google.protobuf.message import DecodeError

    kind = next((kind for name, kind in _SIGNALS.items() if name in path or f".{kind}." in path), None)
    if kind is None or not body:
        return 0, ""
    if media == "application/json":
        return _rejected_json(body)
    module = importlib.import_module(f"opentelemetry.proto.collector.{kind}.v1.{kind}_service_pb2")
    response = getattr(module, f"Export{kind.capitalize()}ServiceResponse")()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return 0, "the answer is no OTLP response"
    partial = response.partial_success
    return sum(value for _, value in partial.ListFields() if isinstance(value, int)), partial.error_message


def _rejected_json(body: bytes) -> tuple[int, str]:
    try:
        partial: dict[str, Any] = json.loads(body).get("partialSuccess") or {}
    except (ValueError, AttributeError):
        return 0, "the answer is no OTLP response"
    return sum(int(n) for key, n in partial.items() if key.startswith("rejected")), partial.get(
        "errorMessage", ""
    )


def _complaint(media: str, body: bytes) -> str:
    """Return what the body of an error answer says: a google.rpc.Status, or text."""
    if media == "application/x-protobuf":
        from google.protobuf.message import DecodeError
        from google.rpc.status_pb2 import Status

        try:
            return Status.FromString(body).message
        except DecodeError:
            return "the answer is no google.rpc.Status"
    text = body.decode("utf-8", "replace").strip()
    if media == "application/json":
        try:
            return str(json.loads(text).get("message", text))
        except (ValueError, AttributeError):
            return text[:200]
    return text[:200]
