"""Claims about OTLP over gRPC from programs that end before grpc could be imported at leisure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from outcomes import Ended

SOON = """
    import otel_sessions, time
    {init}
    with otel_sessions.session("s"), otel_sessions.step("x"):
        time.sleep({seconds})
"""


@dataclass
class Backend:
    """What came over gRPC: names of spans and of events."""

    address: str = ""
    spans: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)


@pytest.fixture
def backend() -> Iterator[Backend]:
    """Run a receiver of spans and events on a free loopback port."""
    here = Backend()

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service says so
            scopes = [s for r in request.resource_spans for s in r.scope_spans]
            here.spans += [span.name for scope in scopes for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()

    class Logs(logs_service_pb2_grpc.LogsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service says so
            scopes = [s for r in request.resource_logs for s in r.scope_logs]
            here.events += [log.event_name for scope in scopes for log in scope.log_records]
            return logs_service_pb2.ExportLogsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    here.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield here
    server.stop(0).wait()


@pytest.mark.parametrize("seconds", [0, 0.05, 0.2])
@pytest.mark.parametrize("init", ["", "otel_sessions.init()"])
def test_spans_and_events_of_a_short_program_arrive(
    run_program: Callable[..., Ended], backend: Backend, init: str, seconds: float
):
    """Whether tracing was set up by `init()` or by the session itself."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.address, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    ended = run_program(SOON.format(init=init, seconds=seconds), env)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(backend.spans) == ["session s", "x"]
    assert (backend.events[0], backend.events[-1]) == ("session.start", "session.end")


@pytest.mark.parametrize("init", ["", "otel_sessions.init()"])
def test_a_short_program_whose_target_is_not_there_says_so_once(
    run_program: Callable[..., Ended], silent_port: int, init: str
):
    """And names how many spans and events were lost, where they should have gone, and why."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    ended = run_program(SOON.format(init=init, seconds=0), env)
    assert ended.code == 0
    assert ended.err.count("\n") == 1, ended.err
    assert "2 of 2 spans and 2 life cycle events were not delivered" in ended.err
