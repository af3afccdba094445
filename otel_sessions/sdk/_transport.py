"""One request to a target, over HTTP or to the console.

Used by the threads that send (`_courier.py`, `_sender.py`); `requests` and grpc are imported when a transport
is opened. Over HTTP the requests library is used because the official exporters use it: proxies, CA bundles
and .netrc apply as they do there.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TextIO

from otel_sessions.sdk._answer import USER_AGENT, Answer, Transport, Verdict
from otel_sessions.sdk._endpoint import Compression, Endpoint, Signal

if TYPE_CHECKING:
    import requests

__all__ = ["ConsoleTransport", "HttpTransport", "load_transport", "open_transport"]

_RETRIED: Final = frozenset({429, 502, 503, 504})
_UNSUPPORTED: Final = frozenset({404, 415})
_TOO_LARGE: Final = 413
_BAD: Final = 400
_MESSAGE: Final = 200
"""Characters of what a receiver says."""
_ANSWER_LIMIT: Final = 64 * 1024
_SUCCESS: Final = range(200, 300)

_COMPRESSORS: Final[Mapping[Compression, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def open_transport(endpoint: Endpoint | None, signal: Signal = "logs") -> Transport:
    """Open the transport of a signal to an endpoint; None is the console."""
    if endpoint is None:
        return ConsoleTransport()
    if endpoint.protocol == "grpc":
        from otel_sessions.sdk._grpc import GrpcTransport  # noqa: PLC0415 - grpc costs 60 ms and 16 MB

        return GrpcTransport(endpoint, signal)
    return HttpTransport(endpoint)


def load_transport(endpoint: Endpoint) -> None:
    """Import what the transport to an endpoint needs, at once and for its later requests."""
    if endpoint.protocol == "grpc":
        import_module("otel_sessions.sdk._grpc")
        return
    import_module("requests")
    # What would be imported with the first request or its answer, when nothing guards it from forks and
    # signals: the one by requests, the other here.
    import_module("netrc")
    import_module("google.rpc.status_pb2")
    import_module("opentelemetry.proto.collector.logs.v1.logs_service_pb2")


class HttpTransport:
    """OTLP over HTTP with protobuf bodies, over one kept connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        load_transport(endpoint)
        import requests  # noqa: PLC0415 - only the sender's thread pays for it

        self._errors = requests.exceptions
        self._endpoint = endpoint
        self._compress = _COMPRESSORS[endpoint.compression]
        self._session = requests.Session()
        # Given with each request: the session's own would yield to REQUESTS_CA_BUNDLE.
        self._verify = endpoint.certificate
        if endpoint.client_certificate:
            key = endpoint.client_key
            self._session.cert = (endpoint.client_certificate, key) if key else endpoint.client_certificate
        self._headers = {"content-type": "application/x-protobuf", "user-agent": USER_AGENT}
        if endpoint.compression != "none":
            self._headers["content-encoding"] = endpoint.compression
        self._headers.update(endpoint.headers)
        self._kept = False

    def send(self, body: bytes, timeout: float) -> Answer:
        """Post one request.

        A kept connection that the other side closed meanwhile (Node does after 5 s) is replaced once,
        at once: the far end tells events apart by their numbers, so a doubled one does no harm.
        """
        data = self._compress(body)
        try:
            try:
                return self._post(data, timeout)
            except self._errors.Timeout:
                raise
            except self._errors.ConnectionError:
                if not self._kept:
                    raise
                self._kept = False
                return self._post(data, timeout)
        except self._errors.Timeout as error:
            said = f"no answer within {timeout:g} s ({type(error).__name__})"
            return Answer(Verdict.AGAIN, said, reached=False, timed_out=True)
        # The bases of all exceptions of requests, of what an unreadable certificate raises, and of what hosts
        # and headers do that can't be encoded.
        except (OSError, ValueError) as error:
            return Answer(Verdict.AGAIN, _explain(error), reached=False)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _post(self, data: bytes, timeout: float) -> Answer:
        response = self._session.post(
            self._endpoint.url,
            data=data,
            headers=self._headers,
            timeout=(timeout, timeout),
            verify=self._verify,
            stream=True,
            allow_redirects=False,  # a redirected POST becomes a GET, and its 200 a lie
        )
        with response:
            content = _content(response)
        self._kept = True
        return _read(response, content)


class ConsoleTransport:
    """Writes each event as one line of JSON, for `OTEL_LOGS_EXPORTER=console`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def send(self, body: bytes, timeout: float) -> Answer:  # noqa: ARG002 - a console has no timeout
        """Print the request's events."""
        stream = self._stream or sys.stdout
        try:
            stream.writelines(f"{line}\n" for line in _lines(body))
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            return Answer(Verdict.REFUSED, f"console: {error}", reached=False)
        return Answer(Verdict.ACCEPTED)

    def close(self) -> None:
        """Leave the console open: it is not ours."""


def _content(response: requests.Response) -> bytes:
    """Read an answer to its end, so that the connection can be kept; what is no OTLP answer is cut."""
    content = b""
    for chunk in response.iter_content(_ANSWER_LIMIT):
        content += chunk
        if len(content) > _ANSWER_LIMIT:
            break
    return content


def _read(response: requests.Response, content: bytes) -> Answer:
    status = response.status_code
    if status in _SUCCESS:
        return _read_success(content)
    detail = f"HTTP {status} {response.reason or ''}".rstrip()
    if response.headers.get("content-type", "").lower().startswith("application/grpc"):
        return Answer(
            Verdict.REFUSED, f"{detail}: the endpoint speaks gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
        )
    if status in _UNSUPPORTED:
        return Answer(Verdict.UNSUPPORTED, detail)
    if status in _RETRIED:
        return Answer(Verdict.AGAIN, detail, retry_after=_retry_after(response.headers.get("retry-after")))
    if said := _said(response, content):
        detail = f"{detail}: {said}"
    return Answer(Verdict.REFUSED, detail, too_large=status == _TOO_LARGE or _speaks_of_size(status, said))


def _said(response: requests.Response, content: bytes) -> str:
    """Return the message of a `google.rpc.Status`, as OTLP has a refusal explained; "" for anything else."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only the sender's thread loads protobuf
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    if "protobuf" not in response.headers.get("content-type", "").lower():
        return ""
    try:
        return Status.FromString(content).message[:_MESSAGE]
    except DecodeError:
        return ""


def _speaks_of_size(status: int, said: str) -> bool:
    """Tell whether a request was bad for its size alone: the Collector says "request body too large"."""
    return status == _BAD and "too large" in said


def _read_success(content: bytes) -> Answer:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only the sender's thread loads protobuf
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse  # noqa: PLC0415

    try:
        partial = ExportLogsServiceResponse.FromString(content).partial_success
    except DecodeError:  # an answer in JSON or plain text: 2xx says it all
        return Answer(Verdict.ACCEPTED)
    return Answer(Verdict.ACCEPTED, partial.error_message, rejected=max(0, partial.rejected_log_records))


def _retry_after(value: str | None) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return max(0.0, at.timestamp() - time.time())


def _explain(error: OSError | ValueError) -> str:
    text = str(error)
    if "in header value" in text:  # which may be a secret
        text = text.partition(":")[0]
    if "BadStatusLine" in text and "\\x00" in text:
        return "the endpoint answers in HTTP/2 frames, as gRPC does; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    words = re.search(r"\[Errno -?\d+\] [A-Za-z ,]+", text)
    return f"{type(error).__name__}: {words[0] if words else text}"[:300]


def _lines(body: bytes) -> list[str]:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest  # noqa: PLC0415

    request = ExportLogsServiceRequest.FromString(body)
    return [
        json.dumps(
            {
                "event_name": record.event_name,
                "time_unix_nano": str(record.time_unix_nano),
                "trace_id": record.trace_id.hex(),
                "span_id": record.span_id.hex(),
                "attributes": {pair.key: _plain(pair.value) for pair in record.attributes},
            },
            ensure_ascii=False,
        )
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)
