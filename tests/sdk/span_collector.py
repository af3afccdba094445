"""A collector for the tests of the SDK: OTLP/HTTP on a free loopback port, keeping what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from log_receivers import Seen, plain, read
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span as it was on the wire."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    end: int
    status: str
    message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[str]
    links: list[tuple[int, int]]

    @property
    def session_id(self) -> str | None:
        return self.attributes.get("session.id")

    @property
    def outcome(self) -> str | None:
        return self.attributes.get("otel_sessions.session.outcome")

    @property
    def end_reason(self) -> str | None:
        return self.attributes.get("otel_sessions.session.end_reason")


def _pairs(attributes: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in attributes}


def spans_of(body: bytes) -> list[Span]:
    """Read the spans of one serialised request."""
    return [
        Span(
            name=span.name,
            trace_id=int.from_bytes(span.trace_id, "big"),
            span_id=int.from_bytes(span.span_id, "big"),
            parent_id=int.from_bytes(span.parent_span_id, "big"),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            status=("UNSET", "OK", "ERROR")[span.status.code],
            message=span.status.message,
            attributes=_pairs(span.attributes),
            resource=_pairs(resource.resource.attributes),
            events=[event.name for event in span.events],
            links=[
                (int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big"))
                for link in span.links
            ],
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@dataclass
class Collector:
    """What arrived. `delay` (s) is how long each answer takes, `status` what it is."""

    port: int = 0
    delay: float = 0.0
    status: int = 200
    traces: list[bytes] = field(default_factory=list)
    logs: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment of a program that sends here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url}

    def spans(self, name: str | None = None) -> list[Span]:
        """Return the spans in the order of their arrival."""
        found = [span for body in list(self.traces) for span in spans_of(body)]
        return [span for span in found if name is None or span.name == name]

    def span(self, name: str) -> Span:
        """Return the one span of that name."""
        (found,) = self.spans(name)
        return found

    def events(self, name: str | None = None) -> list[Seen]:
        """Return the life cycle events in the order of their arrival."""
        found = [event for number, body in enumerate(list(self.logs)) for event in read(body, number)]
        return [event for event in found if name is None or event.name == name]

    def wait_for(self, condition: Callable[[Collector], Any], seconds: float = 20.0) -> Any:
        """Wait until a condition holds of what arrived."""
        end = time.monotonic() + seconds
        while not (value := condition(self)):
            assert time.monotonic() < end, f"it never came; there are {[s.name for s in self.spans()]}"
            time.sleep(0.01)
        return value


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    """Run a collector, on a free port unless told."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if kept.delay:
                time.sleep(kept.delay)
            if kept.status == 200:
                (kept.logs if self.path.endswith("/v1/logs") else kept.traces).append(body)
            self.send_response(kept.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        kept.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()
