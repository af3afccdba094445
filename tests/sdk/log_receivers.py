"""Receivers of OTLP logs for the tests of the SDK: real sockets, answers as the test wants them."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)


def await_(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@dataclass(frozen=True)
class Seen:
    """One life cycle event as it was on the wire."""

    name: str
    request: int
    trace_id: int
    span_id: int
    time: int
    attributes: dict[str, Any]

    @property
    def session_id(self) -> str:
        return self.attributes["session.id"]


def plain(value: Any) -> Any:
    """Return a protobuf value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def read(body: bytes, request: int = 0) -> list[Seen]:
    """Read the events of one serialised request."""
    return [
        Seen(
            record.event_name,
            request,
            int.from_bytes(record.trace_id, "big"),
            int.from_bytes(record.span_id, "big"),
            record.time_unix_nano,
            {pair.key: plain(pair.value) for pair in record.attributes},
        )
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


SLAM = 0
"""Status of a reply that is none: the connection is closed."""


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def partial(rejected: int, message: str) -> Reply:
    """Answer that all but some records were taken."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    return Reply(body=answer.SerializeToString())


@dataclass
class Receiver:
    """What a receiver saw; `replies` are used up one a request, then `otherwise` is the answer."""

    port: int = 0
    replies: list[Reply] = field(default_factory=list)
    otherwise: Reply = field(default_factory=Reply)
    bodies: list[bytes] = field(default_factory=list)
    accepted: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    connections: dict[Any, socket.socket] = field(default_factory=dict)
    refuse: dict[str, Reply] = field(default_factory=dict)
    hang: threading.Event | None = None
    tls: ssl.SSLContext | None = None
    credentials: Any = None

    def events(self, name: str | None = None) -> list[Seen]:
        """Return the accepted events in the order of their arrival."""
        found = [event for n, body in enumerate(self.accepted) for event in read(body, n)]
        return [event for event in found if name is None or event.name == name]

    def drop_connections(self) -> None:
        """Close every connection from this side, as servers do with idle ones."""
        for connection in list(self.connections.values()):
            with suppress(OSError):  # it is closed
                connection.shutdown(socket.SHUT_RDWR)

    def take(self, body: bytes) -> Reply:
        self.bodies.append(body)
        reply = self.replies.pop(0) if self.replies else self.otherwise
        if 200 <= reply.status < 300:
            self.accepted.append(body)
        return reply


_INFLATE = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@contextmanager
def http_receiver(**options: Any) -> Iterator[Receiver]:
    """Run an OTLP/HTTP receiver on a free loopback port."""
    receiver = Receiver(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if receiver.hang is not None:
                receiver.hang.wait(60)
                self.close_connection = True  # else the client waits on for an answer
                return
            inflate = _INFLATE.get(self.headers.get("content-encoding", ""), bytes)
            receiver.connections[self.client_address] = self.connection
            receiver.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            reply = receiver.refuse.get(self.path) or receiver.take(inflate(body))
            if reply.status == SLAM:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/x-protobuf", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler)
    server.daemon_threads = True
    if receiver.tls is not None:
        server.socket = receiver.tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hang is not None:
            receiver.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def grpc_receiver(answer: Callable[[Any], bytes] | None = None, **options: Any) -> Iterator[Receiver]:
    """Run an OTLP/gRPC receiver on a free loopback port; `answer` may abort by the call's context."""
    import grpc

    receiver = Receiver(**options)

    def service(package: str, name: str) -> grpc.GenericRpcHandler:
        def export(body: bytes, call: Any) -> bytes:
            receiver.bodies.append(body)
            receiver.requests.append((name, dict(call.invocation_metadata())))
            content = b"" if answer is None else answer(call)
            receiver.accepted.append(body)
            return content

        return grpc.method_handlers_generic_handler(
            f"opentelemetry.proto.collector.{package}.v1.{name}",
            {"Export": grpc.unary_unary_rpc_method_handler(export)},
        )

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((service("logs", "LogsService"), service("trace", "TraceService")))
    address = f"127.0.0.1:{receiver.port}"
    if receiver.credentials is not None:
        receiver.port = server.add_secure_port(address, receiver.credentials)
    else:
        receiver.port = server.add_insecure_port(address)
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
