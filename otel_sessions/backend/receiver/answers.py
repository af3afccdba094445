"""What an exporter is told: OTLP's answers as bytes, the same in substance over HTTP and gRPC."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_sessions.backend.decode import DecodeError
from otel_sessions.backend.ingest import BackPressureError, NoSpaceError
from otel_sessions.backend.receiver.inflate import BrokenBodyError, TooLargeError
from otel_sessions.backend.records import Encoding, Request, Signal
from otel_sessions.backend.settings import MAX_BODY_BYTES
from otel_sessions.errors import BackendError

__all__ = [
    "MAX_BODY_BYTES",
    "Refusal",
    "StalledError",
    "encode",
    "forget_bodies",
    "refusal_for",
    "status_of",
    "success",
    "too_large",
]

RETRY_SECONDS: Final = 1
FULL_RETRY_SECONDS: Final = 5
"""Somebody has to make room first."""


class StalledError(Exception):
    """The sender stopped in the middle of its body, or goes on too slowly."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not taken: a word for the tally, both protocols' codes, when to send it again."""

    word: str
    http: int
    grpc: int  # google.rpc.Code
    message: str
    retry_seconds: int | None = None
    field: str = ""  # what is wrong with the request, where its data is


def forget_bodies(error: BaseException) -> None:
    """Let go of what an error keeps alive by its traceback: the body of a request that was refused."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def too_large(limit: int) -> TooLargeError:
    """Say that a body is over the limit."""
    return TooLargeError(f"the body is larger than {limit} bytes; send smaller batches")


def refusal_for(error: Exception) -> Refusal:
    """Say what an error means to whoever sent the request; what is not foreseen is a fault of ours."""
    message = str(error)
    if isinstance(error, (DecodeError, BrokenBodyError)):
        return Refusal("invalid", 400, Code.INVALID_ARGUMENT, message, field="body")
    if isinstance(error, TooLargeError):
        return Refusal("too_large", 413, Code.RESOURCE_EXHAUSTED, message)
    if isinstance(error, StalledError):
        # Not 408: exporters that go by OTLP drop what that refuses, and a slow network passes.
        return Refusal("stalled", 503, Code.UNAVAILABLE, message, RETRY_SECONDS)
    if isinstance(error, BackPressureError):
        return Refusal("busy", 429, Code.RESOURCE_EXHAUSTED, message, RETRY_SECONDS)
    if isinstance(error, (BackendError, OSError, MemoryError)):
        full = isinstance(error, NoSpaceError)
        code, seconds = (
            (Code.RESOURCE_EXHAUSTED, FULL_RETRY_SECONDS) if full else (Code.UNAVAILABLE, RETRY_SECONDS)
        )
        return Refusal("not_stored", 503, code, message, seconds)
    return Refusal(
        "failed", 500, Code.INTERNAL, "the backend failed on this request; its log has the details"
    )


def status_of(refusal: Refusal) -> Status:
    """Return the refusal as google.rpc.Status.

    With RetryInfo where sending it again makes sense, with BadRequest where the data is at fault.
    """
    status = Status(code=refusal.grpc, message=refusal.message)
    if refusal.retry_seconds is not None:
        status.details.append(_packed(RetryInfo(retry_delay=Duration(seconds=refusal.retry_seconds))))
    if refusal.field:
        violation = BadRequest.FieldViolation(field=refusal.field, description=refusal.message)
        status.details.append(_packed(BadRequest(field_violations=[violation])))
    return status


def success(request: Request) -> bytes:
    """Return the answer to a request that was stored, wholly or but for what it says was rejected."""
    if not (request.rejected or request.message):
        return _NOTHING[request.encoding]
    return encode(_partial(request), request.encoding)


def encode(message: Message, encoding: Encoding) -> bytes:
    """Encode an answer the way the request was encoded."""
    if encoding is Encoding.PROTOBUF:
        return message.SerializeToString()
    return MessageToJson(message, indent=None).encode()


_NOTHING: Final = {Encoding.PROTOBUF: b"", Encoding.JSON: b"{}"}


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _partial(request: Request) -> Message:
    if request.signal is Signal.TRACES:
        traces = ExportTraceServiceResponse()
        traces.partial_success.rejected_spans = request.rejected
        traces.partial_success.error_message = request.message
        return traces
    if request.signal is Signal.LOGS:
        logs = ExportLogsServiceResponse()
        logs.partial_success.rejected_log_records = request.rejected
        logs.partial_success.error_message = request.message
        return logs
    metrics = ExportMetricsServiceResponse()
    metrics.partial_success.rejected_data_points = request.rejected
    metrics.partial_success.error_message = request.message
    return metrics
