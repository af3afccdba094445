"""`otel-sessions replay` puts recorded requests back on the wire, byte for byte."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otel_sessions.cli import replay

GRPC_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass
class Seen:
    """One request as the receiver saw it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A tiny OTLP receiver on real sockets that notes what came, and answers as told (200 by default)."""

    url: str = ""
    grpc: str = ""
    seen: list[Seen] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)


def _http_handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(headers["content-length"]))
            receiver.seen.append(Seen(self.path, headers, body))
            status, more, answer = receiver.answers.pop(0) if receiver.answers else (200, {}, b"")
            self.send_response(status)
            for name, value in {"Content-Type": headers["content-type"], **more}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    return Handler


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def service(self, handler_call_details):
        def note(body: bytes, context: grpc.ServicerContext) -> bytes:
            headers = dict(context.invocation_metadata())
            self.receiver.seen.append(Seen(handler_call_details.method, headers, body))
            return b""

        return grpc.unary_unary_rpc_method_handler(note)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Start a receiver on free ports of loopback."""
    receiver = Receiver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(receiver))
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    calls = grpc.server(futures.ThreadPoolExecutor(2))
    calls.add_generic_rpc_handlers((_AnyMethod(receiver),))
    receiver.grpc = f"127.0.0.1:{calls.add_insecure_port('127.0.0.1:0')}"
    calls.start()
    yield receiver
    calls.stop(None).wait()
    server.shutdown()
    server.server_close()
    thread.join()


def record(folder: Path, *bodies: bytes, **fields: object) -> Path:
    """Write a recording of `bodies`, all with the same fields."""
    folder.mkdir(parents=True, exist_ok=True)
    requests = []
    for number, body in enumerate(bodies, 1):
        (folder / f"{number:04}.pb").write_bytes(body)
        requests.append(
            {
                "file": f"{number:04}.pb",
                "path": "/v1/traces",
                "content_type": "application/x-protobuf",
                "content_encoding": None,
                "transfer": "content-length",
                "user_agent": "OTel-OTLP-Exporter-Rust/0.31.0",
                "received_at_offset_s": 0.0,
                **fields,
            }
        )
    (folder / "recording.json").write_text(json.dumps({"emitter": "test", "requests": requests}))
    return folder


def run(*arguments: object) -> int:
    """Run the command with these arguments."""
    parser = argparse.ArgumentParser()
    replay.configure(parser)
    return replay.run(parser.parse_args([str(argument) for argument in arguments]))


def send(receiver: Receiver, *arguments: object) -> int:
    """Run the command against the receiver."""
    return run("--asap", "--endpoint", receiver.url, "--grpc", receiver.grpc, *arguments)


def test_a_request_arrives_as_it_was_recorded(receiver, tmp_path):
    """Path, media type, length and user agent are those of the recording, and no header is made up."""
    assert send(receiver, record(tmp_path / "rust", b"\x0a\x00")) == 0
    (seen,) = receiver.seen
    assert (seen.path, seen.body) == ("/v1/traces", b"\x0a\x00")
    assert seen.headers["content-type"] == "application/x-protobuf"
    assert seen.headers["user-agent"] == "OTel-OTLP-Exporter-Rust/0.31.0"
    assert seen.headers["content-length"] == "2"
    assert "content-encoding" not in seen.headers


def test_chunked_stays_chunked(receiver, tmp_path):
    """A body that came in chunks is sent in chunks, without a length, and arrives whole."""
    body = os.urandom(50_000)
    assert send(receiver, record(tmp_path / "node", body, transfer="chunked")) == 0
    (seen,) = receiver.seen
    assert seen.body == body
    assert "content-length" not in seen.headers


def test_gzip_is_put_back(receiver, tmp_path):
    """Bodies lie decompressed on disk; what was gzip on the wire is gzip again."""
    assert send(receiver, record(tmp_path / "zip", b"\x0a\x00" * 99, content_encoding="gzip")) == 0
    (seen,) = receiver.seen
    assert seen.headers["content-encoding"] == "gzip"
    assert gzip.decompress(seen.body) == b"\x0a\x00" * 99


def test_grpc_goes_to_the_recorded_method(receiver, tmp_path):
    """A gRPC message is sent unaltered to its method, under the emitter's own name."""
    agent = "OTel-OTLP-Exporter-JavaScript/0.208.0 grpc-node-js/1.14.4"
    folder = record(
        tmp_path / "grpc", b"\x0a\x00\xff\x01x", path=GRPC_METHOD, transfer="grpc", user_agent=agent
    )
    assert send(receiver, folder) == 0
    (seen,) = receiver.seen
    assert (seen.path, seen.body) == (GRPC_METHOD, b"\x0a\x00\xff\x01x")
    assert seen.headers["user-agent"].startswith("OTel-OTLP-Exporter-JavaScript/0.208.0 ")


def test_order_and_pace_are_kept(receiver, tmp_path, monkeypatch):
    """Requests go in order of arrival, each no earlier than recorded, divided by the speed."""
    slept: list[float] = []
    monkeypatch.setattr(replay.time, "sleep", slept.append)
    folder = record(tmp_path / "slow", b"1", b"2", received_at_offset_s=80)
    assert run("--speed", "4", "--endpoint", receiver.url, folder) == 0
    assert [seen.body for seen in receiver.seen] == [b"1", b"2"]
    assert slept == pytest.approx([20, 20], abs=2)


OTLP, URL, PROTOCOL = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SESSIONS_URL", "OTEL_EXPORTER_OTLP_PROTOCOL"
NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "environ",
    [{OTLP: "{url}"}, {URL: "{url}"}, {OTLP: "{url}/", URL: NOBODY}, {OTLP: " ", URL: "{url}"}],
)
def test_requests_go_where_the_environment_sends_telemetry(receiver, tmp_path, monkeypatch, environ):
    """As exporters of this environment would send it, else to the backend that `show` asks."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(url=receiver.url))
    assert run("--asap", record(tmp_path / "one", b"1")) == 0
    assert [seen.path for seen in receiver.seen] == ["/v1/traces"]


def test_the_endpoint_of_the_command_line_wins_over_the_environments(receiver, tmp_path, monkeypatch):
    """Both variables are of no account then."""
    monkeypatch.setenv(OTLP, NOBODY)
    monkeypatch.setenv(URL, NOBODY)
    assert run("--asap", "--endpoint", receiver.url, record(tmp_path / "one", b"1")) == 0


def test_an_environment_of_grpc_names_where_grpc_goes(receiver, tmp_path, monkeypatch):
    """Requests over HTTP are not sent to a port that speaks something else."""
    monkeypatch.setenv(PROTOCOL, "grpc")
    monkeypatch.setenv(OTLP, f"http://{receiver.grpc}")
    monkeypatch.setenv(URL, receiver.url)
    called = record(tmp_path / "called", b"1", path=GRPC_METHOD, transfer="grpc")
    assert run("--asap", called, record(tmp_path / "posted", b"2")) == 0
    assert [seen.path for seen in receiver.seen] == [GRPC_METHOD, "/v1/traces"]


def test_a_folder_of_recordings_is_replayed_whole(receiver, tmp_path):
    """The folder above the recordings stands for all of them."""
    for name in ("a", "b", "c"):
        record(tmp_path / name, name.encode())
    assert send(receiver, tmp_path) == 0
    assert [seen.body for seen in receiver.seen] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "recording.json").unlink(), "has no recording.json"),
        (lambda folder: (folder / "recording.json").write_text("{"), "can't be read"),
        (lambda folder: (folder / "0001.pb").unlink(), "0001.pb is missing"),
        (
            lambda folder: record(folder, b"", file="../recording.json"),
            "must lie in the recording's own folder",
        ),
        (lambda folder: record(folder, b"", transfer="pigeon"), "'pigeon' is none of"),
        (lambda folder: record(folder, b"", content_encoding="br"), "'br' is not known"),
        (lambda folder: record(folder, b"", received_at_offset_s=-1), "must be a number of seconds"),
        (lambda folder: record(folder, b"", content_type="a\r\nX: y"), "must be a text"),
    ],
)
def test_a_bad_folder_is_named_and_the_others_are_sent(receiver, tmp_path, capsys, spoil, complaint):
    """One unreadable recording costs itself alone, and the exit code tells."""
    bad, good = record(tmp_path / "bad", b"x"), record(tmp_path / "good", b"y")
    spoil(bad)
    assert send(receiver, bad, good) == 1
    assert [seen.body for seen in receiver.seen] == [b"y"]
    error = capsys.readouterr().err
    assert complaint in error
    assert str(bad) in error


def test_a_refusal_is_told_with_the_receivers_words(receiver, tmp_path, capsys):
    """What the receiver says against a request reaches the terminal, and the next ones are still sent."""
    receiver.answers.append((400, {"Content-Type": "application/json"}, b'{"message": "no such field"}'))
    assert send(receiver, record(tmp_path / "bad", b"x", b"y")) == 1
    assert "0001.pb to /v1/traces: 400 no such field" in capsys.readouterr().err
    assert len(receiver.seen) == 2


def test_items_rejected_inside_an_accepted_request_count(receiver, tmp_path, capsys):
    """A partial success is no full success."""
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    receiver.answers.append((200, {}, answer))
    assert send(receiver, record(tmp_path / "partial", ExportTraceServiceRequest().SerializeToString())) == 1
    assert "too old" in capsys.readouterr().err


def test_back_pressure_is_obeyed(receiver, tmp_path, monkeypatch):
    """A receiver that asks for patience is tried again after as long as it said."""
    slept: list[float] = []
    monkeypatch.setattr(replay.time, "sleep", slept.append)
    receiver.answers.append((503, {"Retry-After": "7"}, b""))
    assert send(receiver, record(tmp_path / "busy", b"x")) == 0
    assert slept == [7]
    assert len(receiver.seen) == 2


def test_nobody_there_is_said_in_one_line(tmp_path, capsys):
    """Without a receiver nothing is sent: exit code 2, and a line that says what to do."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        plain, called = record(tmp_path / "http", b"x"), record(tmp_path / "grpc", b"x", transfer="grpc")
        address = f"127.0.0.1:{port}"
        assert run("--asap", "--endpoint", f"http://{address}", "--grpc", address, plain, called) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [address in line and "otel-sessions serve" in line for line in lines] == [True, True]


SAMPLES = Path(__file__).parents[1] / "samples"
RECORDINGS = Path(
    os.environ.get("OTEL_SESSIONS_RECORDINGS", Path(__file__).parents[3] / "shared/data/otlp-recordings")
)
FOLDERS = [
    SAMPLES,
    pytest.param(
        RECORDINGS,
        marks=[
            pytest.mark.recordings,
            pytest.mark.skipif(not RECORDINGS.is_dir(), reason="OTEL_SESSIONS_RECORDINGS names no folder"),
        ],
    ),
]


@pytest.mark.parametrize("folder", FOLDERS, ids=["samples", "recordings"])
def test_what_real_emitters_sent_goes_on_the_wire_again(receiver, folder):
    """Request by request, in order, each as it was recorded."""
    wanted = [
        (request["path"], (index.parent / request["file"]).read_bytes())
        for index in sorted(folder.glob("*/recording.json"))
        for request in json.loads(index.read_text())["requests"]
    ]
    assert send(receiver, folder) == 0
    inflated = [
        (
            seen.path,
            gzip.decompress(seen.body) if seen.headers.get("content-encoding") == "gzip" else seen.body,
        )
        for seen in receiver.seen
    ]
    assert inflated == wanted


@pytest.mark.parametrize("folder", FOLDERS, ids=["samples", "recordings"])
def test_a_backend_takes_what_real_emitters_sent(backend, capsys, folder):
    """Sent to a real backend, no request of a real agent is refused and no item of one is rejected."""
    assert run("--asap", "--endpoint", backend.url, "--grpc", backend.grpc, folder) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(list(folder.glob("*/recording.json")))
