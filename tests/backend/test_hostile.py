"""Nothing that is sent can hurt the backend: a real process, while an honest sender goes on beside it.

More rounds of the fuzzing: FUZZ_ROUNDS=100000 FUZZ_SEED=7 in the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import re
import resource
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from backend_process import BackendProcess
from google.rpc.status_pb2 import Status
from otlp_requests import PROTOBUF, new_span_id, new_trace_id, span, traces
from recorded import RECORDINGS, SAMPLES, bodies_of

from otel_sessions.backend.records import Encoding, Signal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MIB = 1 << 20
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "20261121"))
MEDIA = {Encoding.PROTOBUF: "application/x-protobuf", Encoding.JSON: "application/json"}
SERVICE = "/opentelemetry.proto.collector.{}.v1.{}Service/Export"
METHODS = {
    Signal.TRACES: SERVICE.format("trace", "Trace"),
    Signal.LOGS: SERVICE.format("logs", "Logs"),
    Signal.METRICS: SERVICE.format("metrics", "Metrics"),
}


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """Let this process open as many connections as the tests do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(pid: int, what: str = "VmRSS") -> int:
    """Return the resident memory of a process, or its peak (VmHWM), in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


class Peak:
    """How far the memory of a process rose above where it was."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self._before = memory(pid)

    @property
    def rise(self) -> int:
        return memory(self._pid, "VmHWM") - self._before


class HonestSender(threading.Thread):
    """Sends one span after the other, as an agent would, over HTTP and gRPC in turns; keeps what was taken."""

    def __init__(self, backend: BackendProcess) -> None:
        super().__init__(daemon=True)
        self._backend = backend
        self._over = threading.Event()
        self.taken: list[tuple[str, str]] = []
        self.troubles: list[str] = []
        self.slowest = 0.0

    def run(self) -> None:
        asyncio.run(self._send_on())

    async def _send_on(self) -> None:
        async with (
            ClientSession(timeout=ClientTimeout(20)) as http,
            grpc.aio.insecure_channel(self._backend.grpc) as channel,
        ):
            export = channel.unary_unary(METHODS[Signal.TRACES])
            while not self._over.is_set():
                trace, identity = new_trace_id(), new_span_id()
                body = traces([span("honest", trace=trace, id=identity)])
                began = time.monotonic()
                try:
                    async with http.post(
                        self._backend.url + "/v1/traces", data=body, headers=PROTOBUF
                    ) as answer:
                        assert answer.status == 200, await answer.read()
                    await export(body, timeout=20)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
                    self.troubles.append(repr(error))
                    continue
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.taken.append((trace.hex(), identity.hex()))
                await asyncio.sleep(0.02)

    def finish(self) -> None:
        self._over.set()
        self.join(30)


@contextlib.contextmanager
def unharmed(backend: BackendProcess, rise: int = 128 * MIB) -> Iterator[HonestSender]:
    """Claim that what happens in the block hurts nobody: neither the process nor whoever sends beside it."""
    warm_up = HonestSender(backend)
    warm_up.start()
    while len(warm_up.taken) < 20 and not warm_up.troubles:
        time.sleep(0.01)
    warm_up.finish()
    peak = Peak(backend.pid)
    honest = HonestSender(backend)
    honest.start()
    while not (honest.taken or honest.troubles):
        time.sleep(0.01)
    try:
        yield honest
        so_far = len(honest.taken)
        deadline = time.monotonic() + 30
        while len(honest.taken) < so_far + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        honest.finish()
    assert honest.troubles == []
    assert len(honest.taken) >= so_far + 5
    for trace, identity in [*warm_up.taken, *honest.taken[:: len(honest.taken) // 50 or 1], honest.taken[-1]]:
        assert backend.exchange("GET", f"/api/v1/spans/{trace}/{identity}")[0] == 200
    assert peak.rise < rise, f"{peak.rise / MIB:.0f} MiB more"
    assert "Traceback" not in backend.stderr


# --- fuzzing ------------------------------------------------------------------------------------------

Seed = tuple[Signal, Encoding, bytes]


def seeds() -> list[Seed]:
    """Read requests of real emitters and of ours, those of a usual size."""
    folders = sorted(
        index.parent for root in (SAMPLES, RECORDINGS) for index in root.glob("*/recording.json")
    )
    found = [body for folder in folders for body in bodies_of(folder) if len(body[2]) < 32 * 1024]
    assert {signal for signal, _, _ in found} == set(Signal)
    return found


def flipped(chance: random.Random, body: bytearray) -> None:
    """Change some bytes."""
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        body[chance.randrange(len(body))] = chance.randrange(256)


def cut(chance: random.Random, body: bytearray) -> None:
    """Take out a part, or all from somewhere on."""
    start = chance.randrange(len(body))
    del body[start : start + chance.choice((1, 2, 7, len(body)))]


def repeated(chance: random.Random, body: bytearray) -> None:
    """Put a part in once more, or many times."""
    start = chance.randrange(len(body))
    part = body[start : start + chance.randrange(1, 200)]
    body[start:start] = part * chance.choice((1, 2, 50))


TOKENS = [
    *(b"\x00", b"\xff" * 9, b"\x80" * 10, b"\x0a\x00", b"\xff\xff\xff\xff\x07", b"\x12\xff\x01"),
    *(b"null", b"{}", b"[]", b'"', b"1e999", b"-1", b"9" * 400, b"\\ud800", b"\xed\xa0\x80", b"NaN", b'{"":'),
]


def inserted(chance: random.Random, body: bytearray) -> None:
    """Put something in that parsers trip over."""
    at = chance.randrange(len(body))
    body[at : at + chance.randrange(3)] = chance.choice(TOKENS)


def nudged(chance: random.Random, body: bytearray) -> None:
    """Change letters, digits and small numbers into others: most of that can still be read."""
    for _ in range(chance.choice((1, 4, 30))):
        at = chance.randrange(len(body))
        for low, high in ((0x30, 0x39), (0x61, 0x7A), (0x41, 0x5A), (0x01, 0x07)):
            if low <= body[at] <= high:
                body[at] = chance.randint(low, high)


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [flipped, cut, repeated, inserted]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "snappy": bytes,
}


def mutated(chance: random.Random, body: bytes) -> bytes:
    """Change a body in one to three ways."""
    changed = bytearray(body)
    gently = chance.random() < 0.5
    for _ in range(chance.randint(1, 3)):
        if changed:
            (nudged if gently else chance.choice(MUTATIONS))(chance, changed)
    return bytes(changed)


async def fuzz_http(http: ClientSession, url: str, chance: random.Random, seed: Seed) -> int:
    """Send one mutated request; return its status."""
    signal, encoding, body = seed
    coding = chance.choice(list(PACKERS))
    packed = PACKERS[coding](mutated(chance, body))
    if coding and chance.random() < 0.3:
        packed = mutated(chance, packed)
    if chance.random() < 0.1:
        signal, encoding = chance.choice(list(Signal)), chance.choice(list(Encoding))
    headers = {"Content-Type": MEDIA[encoding], "Content-Encoding": coding}
    async with http.post(f"{url}/v1/{signal.value}", data=packed, headers=headers) as answer:
        told = await answer.read()
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == MEDIA[encoding]
            status = json.loads(told) if encoding is Encoding.JSON else Status.FromString(told)
            assert status["message"] if isinstance(status, dict) else status.message
        return answer.status


async def fuzz_grpc(channel: grpc.aio.Channel, chance: random.Random, seed: Seed) -> int:
    """Send one mutated message; return its code."""
    packing = chance.choice((bytes, bytes, gzip.compress, zlib.compress))
    message = packing(mutated(chance, seed[2]))
    if chance.random() < 0.2:
        message = mutated(chance, message)
    compression = chance.choice((None, grpc.Compression.Gzip, grpc.Compression.Deflate))
    call = channel.unary_unary(METHODS[seed[0]])
    try:
        await call(message, compression=compression, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code().value[0]
    return 0


@pytest.mark.timeout(600)
def test_broken_requests_break_nothing(start_backend: Callable[..., BackendProcess]) -> None:
    """Whatever is in them, they are stored or the sender's fault; memory stays flat, and no traceback is left."""
    backend = start_backend()
    chance = random.Random(SEED)  # noqa: S311 - to be drawn again, not to be secret
    found = seeds()
    statuses: dict[int, int] = {}
    codes: dict[int, int] = {}

    async def fuzz(rounds: int) -> None:
        async with (
            ClientSession(connector=TCPConnector(limit=8)) as http,
            grpc.aio.insecure_channel(backend.grpc) as channel,
        ):
            for _ in range(rounds // 8):
                some = [chance.choice(found) for _ in range(8)]
                told = await asyncio.gather(
                    *(fuzz_http(http, backend.url, chance, seed) for seed in some[:6]),
                    *(fuzz_grpc(channel, chance, seed) for seed in some[6:]),
                )
                for status in told[:6]:
                    statuses[status] = statuses.get(status, 0) + 1
                for code in told[6:]:
                    codes[code] = codes.get(code, 0) + 1

    asyncio.run(fuzz(ROUNDS // 5))  # until caches have the size they keep
    with unharmed(backend, rise=64 * MIB):
        asyncio.run(fuzz(ROUNDS - ROUNDS // 5))
    assert set(statuses) <= {200, 400, 415}, statuses
    assert set(codes) <= {0, grpc.StatusCode.INVALID_ARGUMENT.value[0]}, codes
    assert statuses[200] > ROUNDS / 10
    assert statuses[400] > ROUNDS / 10


# --- bombs --------------------------------------------------------------------------------------------


def zeros(coding: str) -> bytes:
    """Compress 10 GiB of zeros into about 10 MiB of gzip or deflate, fewer of zstd."""
    if coding == "zstd":
        return zstd.compress(bytes(1024 * MIB), 1) * 10
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeezer.compress(bytes(64 * MIB)) + squeezer.flush(zlib.Z_FULL_FLUSH)  # stands for itself
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" if coding == "gzip" else b"\x78\x9c"
    return head + block * 160


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_bomb_costs_no_more_than_an_honest_body(backend: BackendProcess, coding: str) -> None:
    """10 GiB are refused once 64 MiB of them are there, over HTTP and gRPC."""
    bomb = zeros(coding)
    with unharmed(backend):
        headers = {**PROTOBUF, "Content-Encoding": coding}
        assert backend.exchange("POST", "/v1/traces", bomb, headers)[0] == 413
    if coding == "zstd":
        return  # gRPC has none
    with (
        unharmed(backend),
        grpc.insecure_channel(backend.grpc, options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(METHODS[Signal.TRACES])(bomb, timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_bodies_of_almost_nothing_do_not_fill_the_memory(backend: BackendProcess, encoding: Encoding) -> None:
    """Two bytes of an empty span would take a hundred and more once they are read; 64 KiB come in, compressed."""
    nothing = (
        b"\x0a\x00" * (32 * MIB - 8) if encoding is Encoding.PROTOBUF else b"[" + b"{}," * (21 * MIB) + b"0]"
    )
    headers = {"Content-Type": MEDIA[encoding], "Content-Encoding": "gzip"}
    packed = gzip.compress(nothing, 9)
    with unharmed(backend, rise=256 * MIB):
        for _ in range(3):
            status, _, told = backend.exchange("POST", "/v1/traces", packed, headers)
            assert (status, b"values: send less at once" in told) == (400, True)


def test_many_bombs_at_once_cost_what_two_do(backend: BackendProcess) -> None:
    """However many come, two are inflated at a time."""
    bomb = gzip.compress(bytes(65 * MIB))

    async def throw() -> None:
        options = [("grpc.max_send_message_length", -1)]
        async with (
            ClientSession() as http,
            grpc.aio.insecure_channel(backend.grpc, options=options) as channel,
        ):
            call = channel.unary_unary(METHODS[Signal.TRACES])

            async def one_over_http() -> None:
                headers = {**PROTOBUF, "Content-Encoding": "gzip"}
                async with http.post(backend.url + "/v1/traces", data=bomb, headers=headers) as answer:
                    assert answer.status == 413

            async def one_over_grpc() -> None:
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(bomb, timeout=60)

            await asyncio.gather(*(one_over_http() for _ in range(20)), *(one_over_grpc() for _ in range(20)))

    with unharmed(backend, rise=320 * MIB):
        asyncio.run(throw())


async def refused(channel: grpc.aio.Channel, body: bytes) -> grpc.aio.AioRpcError | None:
    """Send a message; return the error that it met, if it did."""
    try:
        await channel.unary_unary(METHODS[Signal.TRACES])(body, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def test_many_large_messages_over_grpc_come_in_turns(backend: BackendProcess) -> None:
    """They wait outside until there is room; none is lost, and memory knows a limit."""
    body = traces([span("large", text="x" * (15 * MIB))])

    async def send() -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with contextlib.AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(backend.grpc, options=options))
                for _ in range(30)
            ]

            async def until_taken(channel: grpc.aio.Channel) -> None:
                while (error := await refused(channel, body)) is not None:
                    passing = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
                    assert error.code() in passing, error
                    assert "grpc-status-details-bin" in dict(error.trailing_metadata() or ())
                    await asyncio.sleep(0.2)

            await asyncio.gather(*map(until_taken, channels))

    with unharmed(backend, rise=768 * MIB):
        asyncio.run(send())


# --- connections --------------------------------------------------------------------------------------


def connected(backend: BackendProcess, grpc_too: bool = False) -> socket.socket:
    """Open a connection."""
    host, port = (backend.grpc if grpc_too else backend.http).split(":")
    return socket.create_connection((host, int(port)), timeout=30)


HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"


def test_senders_that_trickle_keep_nobody_out(backend: BackendProcess) -> None:
    """Hundreds that send a byte of a head, of a body, of a gRPC message now and then."""
    with contextlib.ExitStack() as stack, unharmed(backend) as honest:
        heads = [stack.enter_context(connected(backend)) for _ in range(300)]
        bodies = [stack.enter_context(connected(backend)) for _ in range(300)]
        for one in heads:
            one.sendall(b"POST /v1/tr")
        for one in bodies:
            one.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        streams = [stack.enter_context(connected(backend, grpc_too=True)) for _ in range(100)]
        for one in streams:
            one.sendall(preface + trickling_call())
        for _ in range(40):
            for one in (*heads, *bodies):
                one.sendall(b"x")
            time.sleep(0.1)
        assert honest.slowest < 10


def trickling_call() -> bytes:
    """Begin a gRPC call whose message says it has a MiB, of which some bytes come."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    head = literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":authority", b"x")
    head += literal(b":path", METHODS[Signal.TRACES].encode()) + literal(b"te", b"trailers")
    head += literal(b"content-type", b"application/grpc")
    message = b"\x00" + MIB.to_bytes(4, "big") + b"\x0a\x05"
    return frame(4, 0, 0, b"") + frame(1, 4, 1, head) + frame(0, 0, 1, message)


@pytest.mark.parametrize("active", [False, True], ids=["idle", "active"])
def test_a_thousand_connections_at_once_are_served(backend: BackendProcess, active: bool) -> None:
    """Whether they say something or not."""
    body = traces([span("crowd")])
    wire = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as stack, unharmed(backend, rise=192 * MIB):
        crowd = [stack.enter_context(connected(backend)) for _ in range(1000)]
        for _ in range(3 if active else 0):
            for one in crowd:
                one.sendall(wire)
            for one in crowd:
                assert one.recv(4096).startswith(b"HTTP/1.1 200")


class SmallBackend(BackendProcess):
    """A backend that may open 1,024 files, of which it gives 384 to connections over HTTP."""

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", 'ulimit -n 1024; exec "$@"', "sh", *super().command()]


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_connections_beyond_the_limit_are_closed(tmp_path: Path, over: str) -> None:
    """Nobody locks others out by opening connections; over HTTP it costs those that ask for nothing."""
    backend = SmallBackend(tmp_path).start()
    with contextlib.ExitStack() as after, contextlib.ExitStack() as stack, unharmed(backend):
        after.callback(backend.kill)
        crowd = [stack.enter_context(connected(backend, over == "grpc")) for _ in range(600)]
        gone = crowd[0 if over == "http" else -1]
        gone.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert gone.recv(1) == b""


def test_bodies_that_are_cut_leave_nothing(backend: BackendProcess) -> None:
    """In the middle, by a reset or a polite end; and half-closed after the whole is an honest way to send."""
    body = traces([span("whole")])
    with unharmed(backend):
        for number in range(300):
            with connected(backend) as one:
                one.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + body)
                if number % 3 == 0:
                    one.shutdown(socket.SHUT_WR)
                elif number % 3 == 1:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        with connected(backend) as one:
            one.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            one.shutdown(socket.SHUT_WR)
            assert one.recv(4096).startswith(b"HTTP/1.1 200")


def test_requests_in_a_row_without_waiting_are_all_answered(backend: BackendProcess) -> None:
    """Pipelining: in order, each once."""
    body = traces([span("row")])
    wire = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with unharmed(backend), connected(backend) as one:
        sending = threading.Thread(target=one.sendall, args=(wire * 500,))
        sending.start()
        told = b""
        while told.count(b"HTTP/1.1 200") < 500:
            part = one.recv(65536)
            assert part, told[-300:]
            told += part
        sending.join()


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"x" * MIB + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % n for n in range(50_000)),
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Content-Encoding: \xff\xfe\r\n",
        b"Expect: the unexpected\r\nContent-Length: 0\r\n",
        b"\x00: \x00\r\n",
    ],
    ids=["long", "many", "two lengths", "negative", "huge", "both", "coding", "latin", "expect", "zero"],
)
def test_heads_that_no_client_sends_are_refused(backend: BackendProcess, head: bytes) -> None:
    """With an answer or a closed door, and never a fault of ours."""
    with unharmed(backend):
        for _ in range(20):
            with connected(backend) as one, contextlib.suppress(OSError):
                one.sendall(HEAD + head + b"\r\n")
                one.shutdown(socket.SHUT_WR)
                told = one.recv(4096)
                assert not told or 400 <= int(told.split()[1]) < 500, told
