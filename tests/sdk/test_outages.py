"""Every way in which a receiver fails, over both protocols: what the rules let be tried again arrives.

What they don't is counted, by session and reason, and told in one line. The receivers are independent of our
backend, and read by the official protobuf classes. Rules: "OTLP/gRPC Response" and "OTLP/HTTP Response" of
the protocol's specification 1.11.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from log_receivers import SLAM, Reply, await_, grpc_receiver, http_receiver
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from span_collector import spans_of
from tls import grpc_server_side, server_side

from otel_sessions.sdk import _guard
from otel_sessions.sdk._courier import Courier, Destination
from otel_sessions.sdk._endpoint import Endpoint
from otel_sessions.sdk._outbox import Pacing
from otel_sessions.sdk._split import split_parcel
from otel_sessions.sdk._spool import Limits, Spool, parcel_now
from otel_sessions.sdk._transport import open_transport

QUICK = Pacing(first=0.01, longest=0.05)
HTTP, GRPC = "http/protobuf", "grpc"


# --- What receivers answer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """An answer, over HTTP a reply, over gRPC a code with its text and RetryInfo; `times` in a row."""

    name: str
    protocol: str
    reply: Reply | None = None
    code: str | None = None
    said: str = "trouble"
    delay: float | None = None
    again: bool = True
    wait: float = 0.0
    times: int = 3
    parts: bool = False

    def __str__(self) -> str:
        return f"{self.protocol}, {self.name}"


def _http(status: int, again: bool, **more: Any) -> Trouble:
    headers = more.pop("headers", {})
    name = f"{status}" + "".join(f" {key}: {value}" for key, value in headers.items())
    return Trouble(more.pop("name", name), HTTP, Reply(status, headers), again=again, **more)


def _grpc(code: str, again: bool, **more: Any) -> Trouble:
    return Trouble(more.pop("name", code), GRPC, code=code, again=again, **more)


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


TROUBLES = [
    *(_http(status, again=True) for status in (429, 502, 503, 504)),
    *(_http(status, again=True, headers={"Retry-After": "1"}, wait=0.9, times=1) for status in (429, 503)),
    _http(503, again=True, headers={"Retry-After": _date(-60)}, name="a Retry-After that is past"),
    _http(503, again=True, headers={"Retry-After": "-5"}, name="a Retry-After that is none"),
    Trouble("a connection that is cut", HTTP, Reply(SLAM)),
    *(
        _http(status, again=False)
        for status in (301, 400, 401, 403, 404, 405, 408, 411, 413, 415, 418, 500, 501, 505)
    ),
    *(
        _grpc(code, again=True)
        for code in (
            "CANCELLED",
            "DEADLINE_EXCEEDED",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNAVAILABLE",
            "DATA_LOSS",
        )
    ),
    _grpc("UNAVAILABLE", again=True, delay=1.0, wait=0.9, times=1, name="UNAVAILABLE with RetryInfo"),
    _grpc("RESOURCE_EXHAUSTED", again=True, delay=0.0, name="RESOURCE_EXHAUSTED with RetryInfo"),
    _grpc(
        "RESOURCE_EXHAUSTED",
        again=True,
        delay=1.0,
        wait=0.9,
        times=1,
        said="the queue has its full size, come later",
        name="RESOURCE_EXHAUSTED with RetryInfo and the word size",
    ),
    *(
        _grpc(code, again=False)
        for code in (
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "UNAUTHENTICATED",
            "FAILED_PRECONDITION",
            "UNIMPLEMENTED",
            "INTERNAL",
        )
    ),
    _grpc("RESOURCE_EXHAUSTED", again=False, parts=True, name="RESOURCE_EXHAUSTED alone"),
]


def _status_of(code: Any, delay: float) -> tuple[tuple[str, bytes], ...]:
    packed = AnyMessage()
    info = RetryInfo(retry_delay=Duration(seconds=int(delay), nanos=int(delay % 1 * 1e9)))
    packed.Pack(info)
    return (("grpc-status-details-bin", Status(code=code.value[0], details=[packed]).SerializeToString()),)


@dataclass(frozen=True)
class Far:
    """The other side, whichever protocol it speaks."""

    port: int
    bodies: list[bytes]
    accepted: list[bytes]

    def names(self) -> list[str]:
        return [span.name for body in list(self.accepted) for span in spans_of(body)]


@contextmanager
def _receiver(
    protocol: str, troubles: list[Trouble] | None = None, port: int = 0, **options: Any
) -> Iterator[Far]:
    """Run a receiver; whoever knows its port may come before anything can be said to it."""
    left = list(troubles or [])
    if protocol == HTTP:
        replies = [trouble.reply or Reply() for trouble in left]
        with http_receiver(port=port, replies=replies, **options) as receiver:
            yield Far(receiver.port, receiver.bodies, receiver.accepted)
        receiver.drop_connections()  # those that are kept outlive who listens
        return
    import grpc

    def answer(call: Any) -> bytes:
        if left:
            trouble = left.pop(0)
            code = grpc.StatusCode[trouble.code or "UNKNOWN"]
            if trouble.delay is not None:
                call.set_trailing_metadata(_status_of(code, trouble.delay))
            call.abort(code, trouble.said)
        return b""

    with grpc_receiver(answer, port=port, **options) as receiver:
        yield Far(receiver.port, receiver.bodies, receiver.accepted)


# --- What is sent -----------------------------------------------------------------------------------------------


def _parcel(*names: str, session: str = "s1") -> Any:
    attribute = KeyValue(key="session.id", value=AnyValue(string_value=session))
    spans = [Span(name=name, attributes=[attribute]) for name in names]
    request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    return parcel_now(request.SerializeToString(), {session: len(names)})


def _endpoint(protocol: str, port: int, scheme: str = "http", **options: Any) -> Endpoint:
    path = "/v1/traces" if protocol == HTTP else ""
    return Endpoint(
        f"{scheme}://localhost:{port}{path}", protocol=protocol, insecure=scheme == "http", **options
    )


@contextmanager
def _courier(endpoint: Endpoint, root: Path | None, **options: Any) -> Iterator[tuple[Courier, Counter]]:
    lost: Counter = Counter()

    def tell(session: str, number: int, why: str) -> None:
        lost[session, why] += number

    destination = Destination(
        endpoint.address,
        lambda: open_transport(endpoint, "traces"),
        None if root is None else lambda: Spool(root, "traces", endpoint.address, Limits()),
        split_parcel,
        **{"pacing": QUICK, "timeout": endpoint.timeout, **options},
    )
    courier = Courier(destination, lost=tell)
    try:
        yield courier, lost
    finally:
        courier.stop(time.monotonic() + 2)
        if courier._thread is not None:
            courier._thread.join(10)


def _soon(seconds: float = 20) -> float:
    return time.monotonic() + seconds


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where requests wait."""
    return tmp_path if request.param == "disk" else None


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the lines that a user sees."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "otel_sessions"]


# --- The table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [it for it in TROUBLES if it.again], ids=str)
def test_what_may_be_tried_again_arrives(trouble: Trouble, tmp_path: Path, lines):
    """However often, each span arrives once and in order, nothing is counted as lost, and no line is written."""
    with (
        _receiver(trouble.protocol, [trouble] * trouble.times) as far,
        _courier(_endpoint(trouble.protocol, far.port), tmp_path) as (courier, lost),
    ):
        began = time.monotonic()
        courier.take(_parcel("a", "b"))
        courier.take(_parcel("c", session="s2"))
        assert courier.flush(_soon())
        assert time.monotonic() - began >= trouble.wait
        assert far.names() == ["a", "b", "c"]
        assert len(far.bodies) == 2 + trouble.times
        assert (courier.carried().sent, courier.carried().dropped, lost, lines()) == (3, {}, {}, [])


@pytest.mark.parametrize("trouble", [it for it in TROUBLES if not it.again], ids=str)
def test_what_is_refused_for_good_is_counted_and_told_once(trouble: Trouble, tmp_path: Path, lines):
    """By session and reason; it is set aside with what was said, one line is written, and others have their turn."""
    tries = 5 if trouble.parts or "413" in trouble.name else 2
    with (
        _receiver(trouble.protocol, [trouble] * tries) as far,
        _courier(_endpoint(trouble.protocol, far.port), tmp_path) as (courier, lost),
    ):
        if tries == 2:
            courier.take(_parcel("a", "b", "c"))
        courier.take(_parcel("d", "e", "f", session="s2"))
        assert courier.flush(_soon())
        courier.take(_parcel("g", session="s3"))
        assert courier.flush(_soon())
        assert far.names() == ["g"]
        assert courier.carried().sent == 1
        assert courier.carried().dropped == {"rejected": 6 if tries == 2 else 3}
        assert set(lost) == {("s1", "rejected"), ("s2", "rejected")} - (
            {("s1", "rejected")} if tries == 5 else set()
        )
        (line,) = lines()
        assert "for good" in line
        code = trouble.code or str(trouble.reply.status)
        assert code in line
        assert all(code in path.read_text() for path in tmp_path.rglob("*.why"))
        assert len(list(tmp_path.rglob("rejected/*.why"))) == (2 if tries == 2 else 3)
    assert dict(_guard.faults()) == {}


def test_every_answer_of_the_rules_is_in_the_table():
    """A code that gRPC learns needs a decision."""
    import grpc

    assert {code.name for code in grpc.StatusCode} - {"OK"} == {it.code for it in TROUBLES if it.code}


# --- Too large -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (HTTP, ""),
        (HTTP, "http: request body too large"),
        (GRPC, "grpc: received message after decompression larger than max 4194304"),
        (GRPC, "a batch has more spans than we take"),
    ],
    ids=[
        "413",
        "400 of the Collector's",
        "RESOURCE_EXHAUSTED of Go's",
        "RESOURCE_EXHAUSTED in words of its own",
    ],
)
def test_a_batch_that_is_too_large_is_cut_before_it_is_refused(protocol: str, said: str, root: Path | None):
    """All that fits alone arrives, in order, before what was taken later; what doesn't is counted."""
    import grpc

    def too_large(body: bytes) -> bool:
        found = [span.name for span in spans_of(body)]
        return len(found) > 2 or "huge" in found

    def answer(call: Any) -> bytes:
        body = receiver.bodies[-1]
        if too_large(body):
            call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
        taken.append(body)
        return b""

    def take(body: bytes) -> Reply:
        if too_large(body):
            return Reply(400, body=Status(code=3, message=said).SerializeToString()) if said else Reply(413)
        taken.append(body)
        return Reply()

    taken: list[bytes] = []
    with http_receiver() if protocol == HTTP else grpc_receiver(answer) as receiver:
        receiver.take = take
        with _courier(_endpoint(protocol, receiver.port), root) as (courier, lost):
            names = [f"span {number:03d}" for number in range(100)]
            courier.take(_parcel(*names[:40], "huge", *names[40:]))
            courier.take(_parcel("later", session="s2"))
            assert courier.flush(_soon())
            found = [span.name for body in taken for span in spans_of(body)]
            assert found == [*names, "later"]
            assert (courier.carried().sent, courier.carried().dropped, dict(lost)) == (
                101,
                {"rejected": 1},
                {("s1", "rejected"): 1},
            )


def test_who_is_out_of_his_quota_is_not_sent_hundreds_of_parts(tmp_path: Path):
    """RESOURCE_EXHAUSTED for whatever comes, without a word on when to come again: cutting ends after some tries."""
    trouble = _grpc("RESOURCE_EXHAUSTED", again=False, said="quota exceeded")
    with (
        _receiver(GRPC, [trouble] * 10_000) as far,
        _courier(_endpoint(GRPC, far.port), tmp_path) as (courier, lost),
    ):
        for batch in range(4):
            courier.take(_parcel(*(f"{batch}-{number}" for number in range(256)), session=f"s{batch}"))
        assert courier.flush(_soon())
        assert len(far.bodies) < 60
        assert sum(lost.values()) == 4 * 256


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_what_a_receiver_says_it_rejected_is_counted(protocol: str, tmp_path: Path):
    """partial_success: what was not kept is told of, and nothing is sent again."""
    answer = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    ).SerializeToString()
    with (
        http_receiver(otherwise=Reply(body=answer))
        if protocol == HTTP
        else grpc_receiver(lambda _call: answer) as receiver,
        _courier(_endpoint(protocol, receiver.port), tmp_path) as (courier, lost),
    ):
        courier.take(_parcel("a", "b", "c"))
        assert courier.flush(_soon())
        assert len(receiver.bodies) == 1
        assert (courier.carried().sent, dict(lost)) == (1, {("s1", "rejected"): 2})
        assert "too old" in (courier.carried().trouble or "")


# --- What is no answer -----------------------------------------------------------------------------------------------


HALVES = {
    "half a status line": b"HTTP/1.1 20",
    "half a refusal": b"HTTP/1.1 503 Servi",
    "half a body": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\nhalf",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.9\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_an_answer_is_none(half: bytes, tmp_path: Path, lines):
    """It may have been stored and may not: it is sent again, until a whole answer comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        asked = threading.Event()

        def serve() -> None:
            for _ in range(3):
                client, _ = listener.accept()
                with client:
                    client.recv(65_536)
                    client.sendall(half)
            listener.close()
            asked.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with _courier(_endpoint(HTTP, port), tmp_path) as (courier, lost):
            courier.take(_parcel("a"))
            thread.join(20)
            assert asked.is_set()
            with _receiver(HTTP, port=port) as far:
                assert courier.flush(_soon())
                assert far.names() == ["a"]
            assert (courier.carried().dropped, dict(lost), lines()) == ({}, {}, [])


def test_a_success_whose_head_is_cut_after_the_status_is_one(tmp_path: Path):
    """The receiver had taken it before it said so; to send it again for ever would be worse."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked: list[bytes] = []

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                content = b""
                while b"session.id" not in content:  # head and body may come one by one
                    content += client.recv(65_536)
                asked.append(content)
                client.sendall(b"HTTP/1.1 200 OK\r\nserver: x\r\n")

        threading.Thread(target=serve, daemon=True).start()
        with _courier(_endpoint(HTTP, listener.getsockname()[1]), tmp_path) as (courier, _):
            courier.take(_parcel("a"))
            assert courier.flush(_soon())
            assert courier.carried().sent == len(asked) == 1


@contextmanager
def _hanging(port: int = 0) -> Iterator[int]:
    """Take connections and say nothing."""
    held: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", port))

    def hold() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for client in held:
            client.close()


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_receiver_that_hangs_is_left_and_asked_again(protocol: str, tmp_path: Path):
    """It takes the connection, and the request, and says nothing: after the timeout the next try begins."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with _courier(_endpoint(protocol, port, timeout=0.2), tmp_path) as (courier, lost):
        with _hanging(port):
            courier.take(_parcel("a"))
            await_(lambda: "no answer" in (said := courier.carried().trouble or "") or "DEADLINE" in said)
            assert courier.carried().answering is False
        with _receiver(protocol, port=port) as far:
            assert courier.flush(_soon())
            assert set(far.names()) == {"a"}
        assert (courier.carried().dropped, dict(lost)) == ({}, {})


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_down_from_before_the_start_then_up_and_down_and_up(protocol: str, root: Path | None):
    """Nothing is lost, whenever it was taken."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with _courier(_endpoint(protocol, port), root) as (courier, lost):
        expected = []
        for time_up in range(2):
            for number in range(5):
                expected.append(f"{time_up}-{number}")
                courier.take(_parcel(expected[-1]))
            await_(lambda: courier.carried().answering is False)
            assert not courier.flush(time.monotonic() + 0.1)
            with _receiver(protocol, port=port) as far:
                assert courier.flush(_soon())
                assert far.names() == expected[-5:]
        assert (courier.carried().sent, courier.carried().dropped, dict(lost)) == (10, {}, {})


WRONG = {
    "an authority that doesn't know the receiver": {"certificate": "stranger.pem"},
    "an authority that is not there": {"certificate": "missing.pem"},
    "an authority that is none": {"certificate": "none.pem"},
    "no authority": {},
    "a client certificate that is not there": {
        "certificate": "authority.pem",
        "client_certificate": "missing.pem",
        "client_key": "missing.pem",
    },
}


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
@pytest.mark.parametrize("files", WRONG.values(), ids=WRONG)
def test_tls_that_is_wrong_loses_nothing_and_says_so(
    protocol: str, files: dict[str, str], certificates: Path, tmp_path: Path, lines
):
    """The receiver may get another certificate, and the file may come: it is kept, and told at the end in one line."""
    (certificates / "none.pem").write_text("no certificate")
    given = {option: str(certificates / name) for option, name in files.items()}
    secure: dict[str, Any] = (
        {"tls": server_side(certificates)}
        if protocol == HTTP
        else {"credentials": grpc_server_side(certificates)}
    )
    with (
        _receiver(protocol, **secure) as far,
        _courier(_endpoint(protocol, far.port, "https", timeout=0.5, **given), tmp_path) as (courier, lost),
    ):
        courier.take(_parcel("a"))
        trouble = await_(lambda: courier.carried().trouble)
        assert len(trouble) < 400
        courier.stop(time.monotonic() + 1)
        state = courier.carried()
        assert (state.kept, state.dropped, dict(lost), far.names()) == (1, {}, {}, [])
        assert len(lines()) <= 1
    assert dict(_guard.faults()) == {}


def test_clear_text_to_a_receiver_of_tls_is_kept(certificates: Path, tmp_path: Path):
    """And TLS to one that speaks none, over both protocols."""
    for protocol, secure in (
        (HTTP, {"tls": server_side(certificates)}),
        (GRPC, {"credentials": grpc_server_side(certificates)}),
    ):
        for options, scheme in ((secure, "http"), ({}, "https")):
            root = tmp_path / f"{protocol[:4]}-{scheme}"
            with (
                _receiver(protocol, **options) as far,
                _courier(_endpoint(protocol, far.port, scheme, timeout=0.5), root) as (courier, lost),
            ):
                courier.take(_parcel("a"))
                assert await_(lambda it=courier: it.carried().trouble)
                courier.stop(time.monotonic() + 1)
                assert (courier.carried().kept, dict(lost), far.names()) == (1, {}, [])


# --- An hour of it -----------------------------------------------------------------------------------------------------


def _resident() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def _sockets() -> int:
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(path.readlink()).startswith("socket")
    return found


TRIES = int(os.environ.get("OTEL_SESSIONS_TEST_TRIES", "400"))
"""An hour with pauses of 5 s at most, 3.75 on average, is about 1,000 tries; a default that takes seconds."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="sockets are counted by /proc")
@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_an_hour_of_outages_leaks_nothing(protocol: str, tmp_path: Path):
    """Down, hanging, refusing, cutting connections, and up again, hundreds of times: what it takes stays flat.

    Pauses are shortened by a factor of 500; threads, sockets and files are counted, and memory is compared after the
    first fifth and at the end. Every span arrives.
    """
    kinds = [it for it in TROUBLES if it.protocol == protocol and it.again and not it.wait]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    quick = Pacing(first=0.0005, longest=0.01, obeyed=0.01)
    sent = tries = 0
    measured: list[tuple[int, int, int]] = []
    with _courier(_endpoint(protocol, port, timeout=0.1), tmp_path, pacing=quick) as (courier, lost):
        others: list[Far] = []
        while tries < TRIES:
            for _ in range(5):
                courier.take(_parcel(f"span {sent}", session=f"s{sent % 7}"))
                sent += 1
            await_(lambda: courier.carried().answering is False)  # nobody is there
            if protocol == HTTP and len(measured) % 10 == 9:  # gRPC's own pauses make that long
                with _hanging(port):
                    await_(lambda: "no answer" in (courier.carried().trouble or ""))
            with _receiver(protocol, kinds * 3, port=port) as far:
                assert courier.flush(_soon())
                tries += len(far.bodies)
                others.append(far)  # a connection of it may still be served when it is gone
            gc.collect()
            measured.append((threading.active_count(), _sockets(), _resident()))
        settled, last = measured[len(measured) // 5 :], measured[-1]
        assert len({name for far in others for name in far.names()}) == sent
        assert (courier.carried().sent, courier.carried().dropped, dict(lost)) == (sent, {}, {})
    threads, sockets, resident = ([each[of] for each in settled] for of in range(3))
    assert last[0] <= min(threads) + 2, threads
    assert last[1] <= min(sockets) + 3, sockets
    assert last[2] <= resident[0] + 4_096, resident
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "address"] == []
