"""Claims about the way out: bounded, batched, truthful about what was delivered, and never in the way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from outcomes import Ended, Recorded
from span_collector import Collector, Span, spans_of

import otel_sessions
from otel_sessions.lifecycle import ENDINGS
from otel_sessions.sdk import _exit, _provider
from otel_sessions.sdk._export import Outlet, SpanWorker
from otel_sessions.sdk._foreign import ForeignWay
from otel_sessions.sdk._root import Root
from otel_sessions.sdk._session import root_of


class Gate(SpanExporter):
    """An exporter that waits until it may go on, and answers as it is told."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.go_on.wait(30)
        self.batches.append([span.name for span in spans])
        return self.result

    def shutdown(self) -> None:
        self.go_on.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Export through a gate, with small queues."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    gate = Gate()
    otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=gate, signals=False)
    return gate


def _steps(*names: str) -> None:
    for name in names:
        with otel_sessions.step(name):
            pass


def _root(session: otel_sessions.Session) -> Root:
    root = root_of(session)
    assert root is not None
    return root


def test_a_span_leaves_after_the_delay_by_itself(recorded: Recorded):
    """Nobody has to flush: a live page shows a span a moment after its end."""
    _steps("a")
    _await(recorded.exporter.get_finished_spans)


def test_a_delay_that_was_set_is_kept(monkeypatch: pytest.MonkeyPatch):
    """OTEL_BSP_SCHEDULE_DELAY, until somebody flushes."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    gate = Gate()
    gate.go_on.set()
    otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=gate)
    _steps("a")
    assert gate.entered.wait(0.5) is False
    assert otel_sessions.flush(10).sent == 1


def test_what_ends_the_process_passes_what_waits(gate: Gate):
    """A root tells how it ended: it leaves with the next batch, whatever waits, and the counts on it are true."""
    _steps("x")
    assert gate.entered.wait(10)
    session = otel_sessions.start_session("s")
    opened = [otel_sessions.step(name) for name in "ab"]
    for step in opened:
        step.__enter__()
    _steps(*"klmnop")
    runtime = _provider.current()
    assert runtime is not None
    _exit.end_open(ENDINGS["signal"], first=runtime.first())
    assert session.end_reason == "signal"
    assert _root(session).counts()[:3] == (9, 9, 0)
    gate.go_on.set()
    assert otel_sessions.flush(10).complete
    assert gate.batches[0] == ["x"]
    assert [name for batch in gate.batches[1:] for name in batch] == ["session s", *"klmnop", "b", "a"]


def test_batches_are_bounded(gate: Gate):
    """Of at most OTEL_BSP_MAX_EXPORT_BATCH_SIZE, in the order of the ends."""
    gate.go_on.set()
    _steps(*"abcdefghi")
    assert otel_sessions.flush(10).sent == 9
    assert [name for batch in gate.batches for name in batch] == list("abcdefghi")
    assert max(map(len, gate.batches)) <= 4


def test_a_full_queue_drops_the_oldest_and_counts_it_by_session(gate: Gate):
    """Roots end last, so the newest are worth most; what is lost is known, to the session too."""
    _steps("x")
    otel_sessions.flush(0)
    assert gate.entered.wait(10)
    with otel_sessions.session("s") as session:
        _steps(*"abcdefghijklm")
        assert _root(session).counts().dropped == 3
    stats = otel_sessions.stats()
    assert stats.dropped == {"queue full": 4}
    assert (stats.pending, stats.sent) == (11, 0)
    gate.go_on.set()
    assert otel_sessions.flush(10).sent == 11
    assert [name for batch in gate.batches for name in batch] == ["x", *"efghijklm", "session s"]


def test_flush_keeps_its_deadline_and_tells_the_truth(gate: Gate):
    """OpenTelemetry's own says True after ten seconds and loses everything."""
    _steps("a", "b")
    began = time.monotonic()
    result = otel_sessions.flush(0.2)
    assert time.monotonic() - began < 5
    assert (result.complete, result.sent, result.pending, result.dropped) == (False, 0, 2, {})
    gate.go_on.set()
    result = otel_sessions.flush(10)
    assert (result.complete, result.sent, result.pending) == (True, 2, 0)
    assert result.answering is True


def test_a_failed_export_is_told(gate: Gate):
    """By flush, by stats, and on the session."""
    gate.result = SpanExportResult.FAILURE
    gate.go_on.set()
    with otel_sessions.session() as session:
        _steps("a")
        result = otel_sessions.flush(10)
        assert (result.complete, result.sent, result.dropped) == (False, 0, {"export failed": 1})
        assert (result.answering, result.trouble) == (False, "the exporter reported a failure")
        assert _root(session).counts().dropped == 1


def test_shutdown_keeps_its_deadline(gate: Gate, caplog: pytest.LogCaptureFixture):
    """An exporter that hangs is told to stop; what was not sent is counted and said."""
    gate.shutdown = lambda: None
    _steps(*"abcdef")
    began = time.monotonic()
    result = otel_sessions.shutdown(0.3)
    assert time.monotonic() - began < 5
    assert result.complete is False
    assert result.sent == 0
    assert sum(result.dropped.values()) + result.pending == 6
    assert sum("6 of 6 spans were not delivered to Gate" in message for message in caplog.messages) == 1
    gate.go_on.set()


def test_shutdown_does_not_wait_for_an_exporters_own_shutdown(gate: Gate):
    """It is called, in a thread, and may take its time."""
    gate.go_on.set()
    entered, may_end = threading.Event(), threading.Event()

    def shutdown() -> None:
        entered.set()
        may_end.wait(60)

    gate.shutdown = shutdown
    _steps("a")
    began = time.monotonic()
    result = otel_sessions.shutdown(0.5)
    assert time.monotonic() - began < 10
    assert (result.complete, result.sent) == (True, 1)
    assert entered.wait(10)
    may_end.set()


def test_shutdown_ends_what_is_open_however_short_its_time(recorded: Recorded):
    """It returns at once; the rest is done in a thread."""
    with otel_sessions.tool("t") as tool:
        otel_sessions.shutdown(0)
        _await(lambda: not tool.span.is_recording())


def test_ending_spans_never_waits_for_the_exporter(gate: Gate):
    """The exporter hangs; ten thousand spans end all the same, at once."""
    _steps("x")
    assert gate.entered.wait(10)
    began = time.monotonic()
    _steps(*["y"] * 10_000)
    assert time.monotonic() - began < 20
    assert gate.batches == []
    gate.go_on.set()


@pytest.mark.parametrize("sampler", [None, ALWAYS_ON])
def test_our_own_requests_are_not_traced(monkeypatch: pytest.MonkeyPatch, sampler: Any):
    """An instrumented HTTP client would make a span of each export, and each span an export, for ever."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider = TracerProvider(shutdown_on_exit=False, sampler=sampler)
    tracer = provider.get_tracer("an instrumentation of HTTP")

    class Instrumented(Gate):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            with tracer.start_as_current_span("POST"):
                return super().export(spans)

    exporter = Instrumented()
    exporter.go_on.set()
    otel_sessions.init(tracer_provider=provider, exporter=exporter)
    _steps("a")
    assert otel_sessions.flush(10).sent == 1
    assert otel_sessions.flush(10).sent == 1
    assert exporter.batches == [["a"]]


# --- Real exporters -----------------------------------------------------------------------------------------


def _init(collector: Collector, monkeypatch: pytest.MonkeyPatch, **env: str) -> None:
    for variable, value in {"OTEL_LOGS_EXPORTER": "none", **collector.env, **env}.items():
        monkeypatch.setenv(variable, value)
    otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), export=True, signals=False)


def test_spans_arrive_over_http(collector: Collector, monkeypatch: pytest.MonkeyPatch):
    """The default protocol; counted as delivered only when they were."""
    _init(collector, monkeypatch)
    with otel_sessions.session("s", title="x") as session:
        _steps("a")
    result = otel_sessions.flush(20)
    assert (result.complete, result.sent, result.answering) == (True, 2, True)
    assert result.endpoint == f"{collector.url}/v1/traces"
    assert {span.session_id for span in collector.spans()} == {session.id}
    assert collector.span("a").parent_id == collector.span("session s").span_id


@contextmanager
def _grpc_collector() -> Generator[tuple[str, list[bytes]]]:
    """Receive spans over gRPC: the address, and the requests."""
    bodies: list[bytes] = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            bodies.append(request.SerializeToString())
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", bodies
    finally:
        server.stop(None).wait()


def _names(bodies: list[bytes]) -> list[str]:
    found: list[Span] = [span for body in bodies for span in spans_of(body)]
    return [span.name for span in found]


def test_spans_arrive_over_grpc(monkeypatch: pytest.MonkeyPatch):
    """By OTEL_EXPORTER_OTLP_PROTOCOL=grpc."""
    with _grpc_collector() as (address, bodies):
        monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
        otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), export=True, signals=False)
        try:
            with otel_sessions.session("s"):
                pass
            assert otel_sessions.flush(30).complete
            assert _names(bodies) == ["session s"]
        finally:
            otel_sessions.shutdown(5)


def test_a_program_that_ends_at_once_sends_its_spans_over_grpc(run_program: Callable[..., Ended]):
    """The exporter can't be imported any more while the interpreter shuts down."""
    source = """
        import otel_sessions

        otel_sessions.init()
        with otel_sessions.session("s"):
            pass
    """
    with _grpc_collector() as (address, bodies):
        ended = run_program(
            source,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": address,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_LOGS_EXPORTER": "none",
            },
        )
        assert (ended.err, _names(bodies)) == ("", ["session s"])


def test_a_thread_that_could_not_start_is_tried_again(gate: Gate, monkeypatch: pytest.MonkeyPatch):
    """A process at its limit of threads is told so, waits for nobody, and may go on later."""
    gate.go_on.set()
    worker = SpanWorker(Outlet(lambda: ForeignWay(lambda: gate, "gate"), "gate", None, 3600.0, 10, 4))
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", _no_thread)
        worker.start()
    assert worker.flush(time.monotonic() + 60)
    worker.start()
    assert [thread for thread in threading.enumerate() if thread is worker._thread]
    worker.stop(time.monotonic() + 10)


def test_threads_that_could_not_start_are_tried_again_by_the_next_session(monkeypatch: pytest.MonkeyPatch):
    """The process had too many when it set tracing up; its sessions leave by themselves all the same."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider, exporter = TracerProvider(shutdown_on_exit=False), Gate()
    exporter.go_on.set()
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", _no_thread)
        otel_sessions.init(tracer_provider=provider, exporter=exporter)
    with otel_sessions.session("s"):
        pass
    assert exporter.entered.wait(20)


def test_a_worker_without_a_thread_can_be_stopped(monkeypatch: pytest.MonkeyPatch):
    """At exit it counts what is left, and there is nothing to wait for."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("a")
    assert isinstance(span, ReadableSpan)
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    worker = SpanWorker(Outlet(lambda: ForeignWay(Gate, "gate"), "gate", None, 3600.0, 10, 4))
    worker.start()
    worker.take(span, None, late=False)
    worker.stop(time.monotonic() + 60)
    assert worker.sent().dropped == {"not sent in time": 1}


def _no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_refusal_is_told_with_its_status(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """401 and the like are no reason to retry."""
    collector.status = 401
    _init(collector, monkeypatch)
    _steps("a")
    result = otel_sessions.flush(20)
    assert (result.complete, result.dropped) == (False, {"rejected": 1})
    assert result.trouble is not None
    assert result.trouble.startswith("HTTP 401")


def test_a_given_exporter_says_what_it_does_in_its_own_words_once(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The official exporter's lines are kept out of the log; why it failed is in the result."""
    collector.status = 401
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=OTLPSpanExporter(f"{collector.url}/v1/traces"))
    _steps("a")
    result = otel_sessions.flush(20)
    assert (result.complete, result.dropped) == (False, {"export failed": 1})
    assert result.trouble is not None
    assert result.trouble.startswith("HTTP 401")
    assert [record for record in caplog.records if record.name.startswith("opentelemetry.exporter")] == []


def test_lines_of_other_exporters_are_left_alone(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Only our own thread's are taken out."""
    _init(collector, monkeypatch)
    _steps("a")
    assert otel_sessions.flush(20).complete
    logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").error("theirs")
    assert "theirs" in caplog.messages


def test_one_bad_span_does_not_take_its_batch_along(collector: Collector, monkeypatch: pytest.MonkeyPatch):
    """A lone surrogate in a name can't be encoded by the official exporter: that span alone is lost."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=OTLPSpanExporter(f"{collector.url}/v1/traces"))
    _steps("a", "b")
    provider.get_tracer("other").start_span("bad \udc80").end()
    _steps("c")
    result = otel_sessions.flush(20)
    assert (result.sent, result.dropped) == (3, {"unsendable": 1})
    assert sorted(span.name for span in collector.spans()) == ["a", "b", "c"]


def test_no_name_costs_a_span(collector: Collector, monkeypatch: pytest.MonkeyPatch):
    """A lone surrogate is made sendable by our own exporter, in the names of others too."""
    _init(collector, monkeypatch)
    provider = otel_sessions.init().tracer_provider
    assert provider is not None
    provider.get_tracer("other").start_span("bad \udc80").end()
    with otel_sessions.session("bad \udc80", title="\udc80"):
        pass
    assert otel_sessions.flush(20).complete
    assert sorted(span.name for span in collector.spans()) == ["bad \\udc80", "session bad ?"]


def test_a_slow_backend_is_waited_for_by_flush_only(collector: Collector, monkeypatch: pytest.MonkeyPatch):
    """Its answers take time; the deadline is the caller's."""
    collector.delay = 1.0
    _init(collector, monkeypatch)
    _steps("a")
    assert otel_sessions.flush(0.1).complete is False
    assert otel_sessions.flush(20).complete is True


def test_a_thread_that_a_fork_took_away_is_started_again(recorded: Recorded):
    """What the child's hook does, without a fork: the next span starts the thread."""
    runtime = _provider.current()
    assert runtime is not None
    _steps("a")
    assert recorded.all()
    before = [t.ident for t in threading.enumerate() if t.name == "otel-sessions-spans"]
    former_jobs, former_spare = runtime.worker._jobs, runtime.spare._jobs
    runtime.after_fork_in_child()
    _steps("b")
    assert {span.name for span in recorded.all()} == {"a", "b"}
    after = [t.ident for t in threading.enumerate() if t.name == "otel-sessions-spans"]
    assert set(after) - set(before)
    otel_sessions.shutdown(10)
    for former in (former_jobs, former_spare):
        former.put(None)  # a fork would have ended the former threads


def _await(condition: Any, seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
    return value
