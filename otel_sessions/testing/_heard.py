"""What a sender sent, as values: a loopback receiver of OTLP over HTTP, and its requests as events and spans.

For `protocol`, which judges them. The receiver answers every request as taken; it stores nothing.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from otel_sessions import semconv
from otel_sessions.backend.attributes import plain
from otel_sessions.backend.decode import parse
from otel_sessions.backend.records import Encoding, Signal

__all__ = ["EndedSpan", "Heard", "Listener", "Sent", "Told", "listen", "read"]

_EVENTS: Final = "/v1/logs"
_SPANS: Final = "/v1/traces"


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it came: the path, `application/json` or protobuf, and the body without compression."""

    path: str
    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """One log record that is, or resembles, a life cycle event; `request` numbers the request it came in."""

    name: str
    scope: str
    request: int
    trace_id: bytes
    span_id: bytes
    attributes: dict[str, Any]

    @property
    def seq(self) -> int:
        """Its number in its process; 0 where it bears none."""
        number = self.attributes.get(semconv.SEQ)
        return number if isinstance(number, int) and not isinstance(number, bool) else 0

    def text(self, name: str) -> str:
        """Return an attribute that is text, "" where it is none."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class EndedSpan:
    """One span."""

    name: str
    trace_id: bytes
    span_id: bytes
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """Everything that a sender sent, in order of arrival; a span that came twice is there once."""

    events: tuple[Told, ...]
    spans: tuple[EndedSpan, ...]


def read(requests: list[Sent]) -> Heard:
    """Read requests of logs and traces. Raises DecodeError for a body that is no OTLP."""
    events = [event for number, sent in enumerate(requests) for event in _events(sent, number)]
    spans = {(span.trace_id, span.span_id): span for sent in requests for span in _spans(sent)}
    return Heard(tuple(events), tuple(spans.values()))


def _events(sent: Sent, number: int) -> Iterator[Told]:
    if sent.path != _EVENTS:
        return
    for resource in _message(Signal.LOGS, sent).resource_logs:
        for scope in resource.scope_logs:
            for log in scope.log_records:
                if scope.scope.name == semconv.SCOPE_NAME or log.event_name in semconv.EVENTS:
                    values = {pair.key: plain(pair.value) for pair in log.attributes}
                    yield Told(log.event_name, scope.scope.name, number, log.trace_id, log.span_id, values)


def _spans(sent: Sent) -> Iterator[EndedSpan]:
    if sent.path != _SPANS:
        return
    for resource in _message(Signal.TRACES, sent).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                values = {pair.key: plain(pair.value) for pair in span.attributes}
                yield EndedSpan(span.name, span.trace_id, span.span_id, values)


def _message(signal: Signal, sent: Sent) -> Any:
    encoding = Encoding.JSON if sent.media_type == "application/json" else Encoding.PROTOBUF
    return parse(signal, encoding, sent.body)


@dataclass(slots=True)
class Listener:
    """A receiver at `endpoint`, and what it has got so far."""

    endpoint: str = ""
    requests: list[Sent] = field(default_factory=list[Sent])

    def heard(self) -> Heard:
        """Return what was sent so far. Raises DecodeError for a body that is no OTLP."""
        return read([*self.requests])


@contextmanager
def listen() -> Generator[Listener]:
    """Receive OTLP over HTTP on a free port of loopback for as long as the block lasts."""
    listener = Listener()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(listener))
    server.daemon_threads = True
    listener.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(listener: Listener) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            media_type = (self.headers.get("Content-Type") or "").split(";")[0].strip().lower()
            listener.requests.append(Sent(self.path, media_type, body))
            answer = b"{}" if media_type == "application/json" else b""
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _chunks(self) -> bytes:
            body = b""
            while self.headers.get("Transfer-Encoding") == "chunked":
                size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    break
            return body

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Say nothing: standard error belongs to whoever is tested."""

    return Handler
