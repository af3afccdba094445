"""Every OTEL_EXPORTER_OTLP_* and OTEL_BSP_* variable, beside the official exporters: the same request leaves.

Each case is an environment. An official exporter and ours send one span by it, to recording receivers of all
kinds; what arrived where, how, with which headers and how long it was waited for has to be equal. Where we
differ on purpose the case says what ours does and why, and docs/configuration.md says it too.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from log_receivers import Receiver, grpc_receiver, http_receiver
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from outcomes import Ended
from span_collector import spans_of
from tls import grpc_server_side, server_side

import otel_sessions
from otel_sessions.errors import ConfigurationError

DOCUMENT = Path(__file__).parents[2] / "docs/configuration.md"
OF_THE_MACHINE = {
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "user-agent",  # names who sends
}
LARGE = "a" * 50_000
"""A value that shows in the number of bytes whether a gRPC request was compressed."""

HTTP, GRPC = "http/protobuf", "grpc"


@dataclass(frozen=True)
class Outcome:
    """What became of one span. `at` names the receiver; nothing but `refused` where the environment was."""

    at: str | None = None
    path: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    compressed: bool = False
    refused: bool = False


NOTHING = Outcome()
REFUSED = Outcome(refused=True)


@dataclass(frozen=True)
class Case:
    """An environment. `ours` is what ours does where that differs, `why` a part of what the document says."""

    name: str
    env: Mapping[str, str]
    protocols: tuple[str, ...] = (HTTP, GRPC)
    ours: Mapping[str, Outcome] = field(default_factory=dict)
    why: str = ""


def _plain(at: str, path: str = "/v1/traces", *, compressed: bool = False, **headers: str) -> Outcome:
    usual = {"content-type": "application/x-protobuf"} if at.startswith("http") else {}
    path = path if at.startswith("http") else "TraceService"
    return Outcome(
        at, path, {**usual, **{key.replace("_", "-"): v for key, v in headers.items()}}, compressed
    )


SIGNAL, GENERAL = "OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"
BOTH = (HTTP, GRPC)

CASES = [
    # Endpoints. {clear} and {tls} are the receivers of the protocol that is spoken.
    Case("a base", {GENERAL + "ENDPOINT": "{clear}"}),
    Case("a base with a slash", {GENERAL + "ENDPOINT": "{clear}/"}),
    Case("a base with a path", {GENERAL + "ENDPOINT": "{clear}/otlp"}),
    Case("a base with a path and a slash", {GENERAL + "ENDPOINT": "{clear}/otlp/"}),
    Case("a base with two slashes", {GENERAL + "ENDPOINT": "{clear}//"}),
    Case("the signal's own", {SIGNAL + "ENDPOINT": "{clear}"}),
    Case("the signal's own with a path", {SIGNAL + "ENDPOINT": "{clear}/somewhere"}),
    Case("the signal's own with a slash", {SIGNAL + "ENDPOINT": "{clear}/"}),
    Case("the signal's own wins", {GENERAL + "ENDPOINT": "{nobody}", SIGNAL + "ENDPOINT": "{clear}/v1/traces"}),
    Case("an empty one of the signal", {GENERAL + "ENDPOINT": "{clear}", SIGNAL + "ENDPOINT": ""}),
    Case("capitals in the scheme", {GENERAL + "ENDPOINT": "{CLEAR}"}, (HTTP,)),
    Case("a query", {SIGNAL + "ENDPOINT": "{clear}/v1/traces?key=1"}, (HTTP,)),
    Case("a name and a password", {GENERAL + "ENDPOINT": "{login}"}, (HTTP,)),
    Case("a host and a port over TLS", {GENERAL + "ENDPOINT": "{tls host}", GENERAL + "CERTIFICATE": "{authority}"}, (GRPC,)),
    Case("a host and a port in clear", {GENERAL + "ENDPOINT": "{host}", GENERAL + "INSECURE": "true"}, (GRPC,)),
    Case("a host and a port in clear, by the signal", {GENERAL + "ENDPOINT": "{host}", SIGNAL + "INSECURE": "true"}, (GRPC,)),
    Case("in clear, in capitals", {GENERAL + "ENDPOINT": "{host}", GENERAL + "INSECURE": "TRUE"}, (GRPC,)),
    Case("insecure does not undo https", {GENERAL + "ENDPOINT": "{tls}", GENERAL + "INSECURE": "true", GENERAL + "CERTIFICATE": "{authority}"}),
    # Headers.
    Case("headers", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "HEADERS": "api-key=k3y,x-two=2"}),
    Case("headers of the signal win", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "HEADERS": "a=1,b=2", SIGNAL + "HEADERS": "a=3"}),
    Case("empty headers of the signal", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "HEADERS": "a=1", SIGNAL + "HEADERS": ""}),
    Case("headers in percents and capitals", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "HEADERS": "Authorization=Basic%20YTpi, X-Odd = a=b "}),
    Case("headers that are not encoded", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "HEADERS": "authorization=Bearer abc==,"}),
    # Compression.
    Case("gzip", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "COMPRESSION": "gzip"}),
    Case("gzip by the signal", {GENERAL + "ENDPOINT": "{clear}", SIGNAL + "COMPRESSION": "GZIP "}),
    Case("deflate", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "COMPRESSION": "deflate"}, (HTTP,)),
    Case("no compression of the signal", {GENERAL + "ENDPOINT": "{clear}", GENERAL + "COMPRESSION": "gzip", SIGNAL + "COMPRESSION": "none"}, (HTTP,)),
    # TLS.
    Case("an authority", {GENERAL + "ENDPOINT": "{tls}", GENERAL + "CERTIFICATE": "{authority}"}),
    Case("an authority of the signal wins", {GENERAL + "ENDPOINT": "{tls}", GENERAL + "CERTIFICATE": "{stranger}", SIGNAL + "CERTIFICATE": "{authority}"}),
    Case("an authority that doesn't know the receiver", {GENERAL + "ENDPOINT": "{tls}", GENERAL + "CERTIFICATE": "{stranger}", GENERAL + "TIMEOUT": "0.5"}),
    Case("no authority", {GENERAL + "ENDPOINT": "{tls}", GENERAL + "TIMEOUT": "0.5"}),
    Case("an agent known by its certificate", {GENERAL + "ENDPOINT": "{mutual}", GENERAL + "CERTIFICATE": "{authority}", GENERAL + "CLIENT_CERTIFICATE": "{agent}", GENERAL + "CLIENT_KEY": "{key}"}),
    Case("an agent known by that of the signal", {GENERAL + "ENDPOINT": "{mutual}", SIGNAL + "CERTIFICATE": "{authority}", SIGNAL + "CLIENT_CERTIFICATE": "{agent}", SIGNAL + "CLIENT_KEY": "{key}"}),
    Case("an agent that shows nothing", {GENERAL + "ENDPOINT": "{mutual}", GENERAL + "CERTIFICATE": "{authority}", GENERAL + "TIMEOUT": "0.5"}),
    # Where we differ on purpose.
    Case(
        "an empty base",
        {GENERAL + "ENDPOINT": "{clear}", SIGNAL + "ENDPOINT": "", SIGNAL + "COMPRESSION": "", SIGNAL + "TIMEOUT": ""},
        (GRPC,),
        {GRPC: _plain("grpc")},
        "an empty variable counts as unset",
    ),
    Case(
        "spaces around an endpoint",
        {GENERAL + "ENDPOINT": " {clear} "},
        BOTH,
        {HTTP: _plain("http")},
        "spaces around a value",
    ),
    Case(
        "a query of a base",
        {GENERAL + "ENDPOINT": "{clear}/otlp?key=1"},
        (HTTP,),
        {HTTP: _plain("http", "/otlp/v1/traces?key=1")},
        "the path of the signal is appended before a query",
    ),
    Case("no scheme", {GENERAL + "ENDPOINT": "{host}"}, (HTTP,), {HTTP: REFUSED}, "raises `ConfigurationError`"),
    Case(
        "an unknown compression",
        {GENERAL + "ENDPOINT": "{clear}", GENERAL + "COMPRESSION": "brotli"},
        BOTH,
        {HTTP: REFUSED},
        "raises `ConfigurationError`",
    ),
    Case(
        "no compression by its name, over gRPC",
        {GENERAL + "ENDPOINT": "{clear}", GENERAL + "COMPRESSION": "none"},
        (GRPC,),
        {GRPC: _plain("grpc")},
        "`none` and `deflate` are known over gRPC too",
    ),
    Case(
        "deflate over gRPC",
        {GENERAL + "ENDPOINT": "{clear}", GENERAL + "COMPRESSION": "deflate"},
        (GRPC,),
        {GRPC: _plain("grpc", compressed=True)},
        "`none` and `deflate` are known over gRPC too",
    ),
    Case(
        "a timeout that is none",
        {GENERAL + "ENDPOINT": "{clear}", GENERAL + "TIMEOUT": "soon"},
        BOTH,
        {HTTP: REFUSED},
        "raises `ConfigurationError`",
    ),
    Case(
        "headers without sense",
        {GENERAL + "ENDPOINT": "{clear}", GENERAL + "HEADERS": "just-a-word"},
        BOTH,
        {HTTP: REFUSED, GRPC: REFUSED},
        "raises `ConfigurationError`",
    ),
    Case(
        "secure does not undo http",
        {GENERAL + "ENDPOINT": "{clear}", GENERAL + "INSECURE": "false", GENERAL + "TIMEOUT": "0.5"},
        (GRPC,),
        {GRPC: _plain("grpc")},
        "a scheme decides on TLS",
    ),
    Case(
        "an authority beside that of requests",
        {GENERAL + "ENDPOINT": "{tls}", GENERAL + "CERTIFICATE": "{authority}", "REQUESTS_CA_BUNDLE": "{stranger}", GENERAL + "TIMEOUT": "0.5"},
        (HTTP,),
        {HTTP: _plain("http, tls")},
        "wins over `REQUESTS_CA_BUNDLE`",
    ),
    Case(
        "an authority that is not there",
        {GENERAL + "ENDPOINT": "{tls}", GENERAL + "CERTIFICATE": "{missing}", GENERAL + "TIMEOUT": "0.5"},
        (HTTP,),
        {HTTP: REFUSED},
        "raises `ConfigurationError`",
    ),
]  # fmt: skip


# --- Receivers ---------------------------------------------------------------------------------------------


class Counted:
    """Passes connections on to a port, and counts the bytes that clients sent."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.bytes = 0
        self._to = port
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            while True:
                for side in select.select([client, server], [], [])[0]:
                    try:
                        content = side.recv(65_536)
                        (server if side is client else client).sendall(content)
                    except OSError:
                        return
                    if not content:
                        return
                    self.bytes += len(content) if side is client else 0


@dataclass
class World:
    """All receivers, by name, and what stands for them in the cases."""

    receivers: dict[str, Receiver]
    words: dict[str, dict[str, str]]
    counted: Counted

    def seen(self) -> Outcome:
        """Return what arrived since the last look, which is one request at most."""
        time.sleep(0)
        found = [(name, receiver) for name, receiver in self.receivers.items() if receiver.accepted]
        if not found:
            return NOTHING
        ((name, receiver),) = found
        (path, headers), body = receiver.requests[0], receiver.accepted[0]
        assert [span.name for span in spans_of(body)] == ["a span"]
        sent = {key: value for key, value in headers.items() if key not in OF_THE_MACHINE}
        encoding = sent.pop("content-encoding", None)
        compressed = encoding is not None or (name == "grpc" and self.counted.bytes < len(body) / 2)
        return Outcome(name, path if name.startswith("http") else "TraceService", sent, compressed)

    def forget(self) -> None:
        for receiver in self.receivers.values():
            receiver.accepted.clear()
            receiver.requests.clear()
            receiver.bodies.clear()
        self.counted.bytes = 0


@pytest.fixture(scope="module")
def world(certificates: Path) -> Iterator[World]:
    """Run receivers of both protocols: in clear, over TLS, and such that ask who the agent is."""
    with ExitStack() as stack:
        receivers = {
            "http": stack.enter_context(http_receiver()),
            "http, tls": stack.enter_context(http_receiver(tls=server_side(certificates))),
            "http, mutual": stack.enter_context(http_receiver(tls=server_side(certificates, client=True))),
            "grpc": stack.enter_context(grpc_receiver()),
            "grpc, tls": stack.enter_context(grpc_receiver(credentials=grpc_server_side(certificates))),
            "grpc, mutual": stack.enter_context(
                grpc_receiver(credentials=grpc_server_side(certificates, client=True))
            ),
        }
        counted = stack.enter_context(closing(Counted(receivers["grpc"].port)))
        files = {
            "authority": certificates / "authority.pem",
            "stranger": certificates / "stranger.pem",
            "agent": certificates / "agent.pem",
            "key": certificates / "agent-key.pem",
            "missing": certificates / "missing.pem",
        }
        words = {}
        for protocol, name in ((HTTP, "http"), (GRPC, "grpc")):
            clear = counted.port if name == "grpc" else receivers[name].port
            secure, mutual = receivers[f"{name}, tls"].port, receivers[f"{name}, mutual"].port
            words[protocol] = {
                **{key: str(path) for key, path in files.items()},
                "clear": f"http://localhost:{clear}",
                "CLEAR": f"HTTP://localhost:{clear}",
                "login": f"http://me:secret@localhost:{clear}",
                "host": f"localhost:{clear}",
                "tls": f"https://localhost:{secure}",
                "tls host": f"localhost:{secure}",
                "mutual": f"https://localhost:{mutual}",
                "nobody": "http://localhost:9",
            }
        yield World(receivers, words, counted)


# --- Who sends ----------------------------------------------------------------------------------------------


def _spans() -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("t").start_span("a span", attributes={"large": LARGE}).end()
    return list(exporter.get_finished_spans())


def _official(protocol: str) -> SpanExporter:
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter()


def _send_officially(protocol: str) -> bool:
    """Send a span by the official exporter; tell whether it took the environment."""
    try:
        exporter = _official(protocol)
    except Exception:  # noqa: BLE001 - each of its classes for a bad value is private
        return False
    try:
        exporter.export(_spans())
    finally:
        exporter.shutdown()
    return True


@contextmanager
def _ours() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, export=True, signals=False)
    try:
        yield provider
    finally:
        otel_sessions.shutdown(0.2)


def _send_ours(seconds: float) -> bool:
    """Send a span by ours, as an agent does; tell whether it took the environment."""
    try:
        with _ours() as provider:
            provider.get_tracer("t").start_span("a span", attributes={"large": LARGE}).end()
            otel_sessions.flush(seconds)
    except ConfigurationError:
        return False
    return True


def _set(
    monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], words: Mapping[str, str], protocol: str
) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, re.sub(r"\{(.*?)\}", lambda word: words[word[1]], value))


# --- The claims -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "protocol"),
    [
        pytest.param(case, protocol, id=f"{case.name}, {protocol}")
        for case in CASES
        for protocol in case.protocols
    ],
)
def test_the_same_request_leaves(world: World, monkeypatch: pytest.MonkeyPatch, case: Case, protocol: str):
    """Where, by which path, with which headers, compressed or not: as the official exporter sends it."""
    _set(monkeypatch, case.env, world.words[protocol], protocol)
    world.forget()
    official = REFUSED if not _send_officially(protocol) else world.seen()
    world.forget()
    expected = case.ours.get(protocol, official)
    ours = REFUSED if not _send_ours(10 if expected.at else 1) else world.seen()
    assert ours == expected
    assert (expected != official) == (protocol in case.ours), "a difference that is none any more"


def test_every_difference_is_in_the_document():
    """Who comes from the official exporters reads what changes, and why."""
    said = " ".join(DOCUMENT.read_text().split())
    assert [case.name for case in CASES if bool(case.why) != bool(case.ours) or case.why not in said] == []


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, 10),
        ({GENERAL + "TIMEOUT": "3"}, 3),
        ({GENERAL + "TIMEOUT": "3", SIGNAL + "TIMEOUT": "5.5"}, 5.5),
        ({GENERAL + "TIMEOUT": "3", SIGNAL + "TIMEOUT": "30"}, 30),
    ],
    ids=["none is said", "a general one", "the signal's", "a long one"],
)
def test_a_call_has_the_same_deadline(
    monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], seconds: float
):
    """Over gRPC the receiver is told how long it is waited for: in seconds, as the Python exporters read it."""
    told: list[float] = []

    def answer(call: Any) -> bytes:
        told.append(call.time_remaining())
        return b""

    with grpc_receiver(answer) as receiver:
        _set(monkeypatch, {GENERAL + "ENDPOINT": f"http://localhost:{receiver.port}", **env}, {}, GRPC)
        assert _send_officially(GRPC)
        assert _send_ours(10)
    assert told == pytest.approx([seconds, seconds], abs=0.5)


def test_an_answer_is_waited_for_as_long(monkeypatch: pytest.MonkeyPatch):
    """Over HTTP, with a receiver that never answers: each hangs up when its timeout is over."""
    hung_up: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hold(client: socket.socket) -> None:
            with client:
                began = time.monotonic()
                while client.recv(65_536):
                    pass
                hung_up.append(time.monotonic() - began)

        def run() -> None:
            for _ in range(2):
                threading.Thread(target=hold, args=(listener.accept()[0],)).start()

        thread = threading.Thread(target=run)
        thread.start()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        _set(monkeypatch, {GENERAL + "ENDPOINT": endpoint, SIGNAL + "TIMEOUT": "0.7"}, {}, HTTP)
        assert _send_officially(HTTP)
        assert _send_ours(1)
        thread.join()
    assert [0.5 < seconds < 5 for seconds in hung_up] == [True, True]


@pytest.mark.parametrize("ours", [False, True], ids=["official", "ours"])
def test_an_agent_shows_its_certificate_to_a_receiver_of_a_public_authority(
    run_program: Callable[..., Ended], certificates: Path, ours: bool
):
    """Over gRPC, without CERTIFICATE: the official exporter shows it only where an authority is named, ours shows it."""
    official = """
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
provider.get_tracer("t").start_span("a span").end()
"""
    program = """
import otel_sessions
otel_sessions.init()
with otel_sessions.session("a"): pass
otel_sessions.flush(10)
"""
    with grpc_receiver(credentials=grpc_server_side(certificates, client=True)) as receiver:
        run_program(
            program if ours else official,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{receiver.port}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": GRPC,
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificates / "agent.pem"),
                "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificates / "agent-key.pem"),
                "OTEL_EXPORTER_OTLP_TIMEOUT": "5" if ours else "0.5",
                "OTEL_LOGS_EXPORTER": "none",
                # What stands for a public authority here.
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificates / "authority.pem"),
            },
        )
        assert bool(receiver.accepted) == ours


# --- OTEL_BSP_* -------------------------------------------------------------------------------------------------


def _batches(bodies: list[bytes]) -> list[int]:
    return [len(spans_of(body)) for body in bodies]


def _work(provider: TracerProvider, count: int) -> None:
    tracer = provider.get_tracer("t")
    for _ in range(count):
        tracer.start_span("a span").end()


@contextmanager
def _officially() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_official(HTTP)))
    try:
        yield provider
    finally:
        provider.shutdown()


def _set_for_batches(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, env: Mapping[str, str]) -> None:
    _set(monkeypatch, {GENERAL + "ENDPOINT": f"http://127.0.0.1:{receiver.port}", **env}, {}, HTTP)


BSP_CASES = {
    "batches": ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4", "OTEL_BSP_SCHEDULE_DELAY": "60000"}, 10, [4, 4, 2]),
    "one batch": ({"OTEL_BSP_SCHEDULE_DELAY": "60000"}, 300, [300]),
    "the default batch": ({"OTEL_BSP_SCHEDULE_DELAY": "60000"}, 600, [512, 88]),
    "the timeout that no exporter reads": ({"OTEL_BSP_EXPORT_TIMEOUT": "1", "OTEL_BSP_SCHEDULE_DELAY": "60000"}, 3, [3]),
}  # fmt: skip


@pytest.mark.parametrize(("env", "count", "expected"), BSP_CASES.values(), ids=BSP_CASES)
def test_batches_are_of_the_same_size(
    monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], count: int, expected: list[int]
):
    """OTEL_BSP_MAX_EXPORT_BATCH_SIZE counts spans; what is left goes with a flush."""
    for sender, flush in ((_officially, None), (_ours, otel_sessions.flush)):
        with http_receiver() as receiver:
            _set_for_batches(monkeypatch, receiver, env)
            with sender() as provider:
                _work(provider, count)
                assert provider.force_flush() if flush is None else flush(10).complete
            # A batch may leave while the next one is being made; what is in all of them is the same.
            assert sum(_batches(receiver.accepted)) == count
            assert max(_batches(receiver.accepted)) <= max(expected)
            assert len(receiver.accepted) >= len(expected)


def test_a_delay_is_kept_by_both(monkeypatch: pytest.MonkeyPatch):
    """OTEL_BSP_SCHEDULE_DELAY is in milliseconds: after it a span leaves without anybody's doing."""
    for sender in (_officially, _ours):
        with http_receiver() as receiver:
            _set_for_batches(monkeypatch, receiver, {"OTEL_BSP_SCHEDULE_DELAY": "300"})
            with sender() as provider:
                _work(provider, 1)
                began = time.monotonic()
                while not receiver.accepted:
                    assert time.monotonic() - began < 10
                    time.sleep(0.01)
                assert time.monotonic() - began > 0.2


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_BSP_MAX_QUEUE_SIZE": "many"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"},
        {"OTEL_BSP_SCHEDULE_DELAY": "soon"},
    ],
    ids=str,
)
def test_a_number_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]):
    """The official processor logs a traceback and takes its default, or raises a ValueError without a name."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=next(iter(env))):
        otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), export=True, signals=False)


def test_a_batch_larger_than_the_queue_is_the_queue(monkeypatch: pytest.MonkeyPatch):
    """The official processor refuses the one variable for the default of the other; ours takes the smaller."""
    with http_receiver() as receiver:
        _set_for_batches(monkeypatch, receiver, {"OTEL_BSP_MAX_QUEUE_SIZE": "10"})
        with pytest.raises(ValueError, match="max_export_batch_size"):
            BatchSpanProcessor(_official(HTTP))
        with _ours() as provider:
            _work(provider, 8)
            assert otel_sessions.flush(10).complete
        assert sum(_batches(receiver.accepted)) == 8


def test_every_variable_of_the_exporters_is_in_a_case():
    """A variable that the SDK learns in a later release shows here."""
    from opentelemetry.sdk import environment_variables

    known = {
        name
        for name in dir(environment_variables)
        if re.match(r"OTEL_(BSP|EXPORTER_OTLP_(?!METRICS|LOGS))", name)
    }
    source = Path(__file__).read_text()
    options = {
        name
        for name in known
        if not re.search(
            rf'(SIGNAL|GENERAL) \+ "{name.rpartition("OTLP_")[2].removeprefix("TRACES_")}"|{name}\b', source
        )
    }
    assert options <= {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"}, options
    assert os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") is None
