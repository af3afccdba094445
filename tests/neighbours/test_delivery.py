"""The durable exporter against the real Collector: down, killed, started again, and too small for a batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from backend_process import clean_environment
from log_receivers import Receiver, http_receiver
from processes import Collector, until
from span_collector import spans_of

pytestmark = pytest.mark.neighbours

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "${env:COLLECTOR_GRPC}", max_recv_msg_size_mib: 1}
      http: {endpoint: "${env:COLLECTOR_HTTP}", max_request_body_size: 1048576}
exporters:
  otlphttp:
    endpoint: ${env:BEHIND}
    sending_queue: {enabled: false}
extensions:
  health_check: {endpoint: "${env:COLLECTOR_HEALTH}"}
service:
  extensions: [health_check]
  pipelines:
    traces: {receivers: [otlp], exporters: [otlphttp]}
"""
"""What is acknowledged has been taken by who is behind: nothing waits in between."""

AGENT = """
import json, sys
import otel_sessions
otel_sessions.init(service_name="agent")
for line in sys.stdin:
    count, size, seconds = json.loads(line)
    with otel_sessions.session("work"):
        for _ in range(count):
            with otel_sessions.step("s", attributes={"text": "x" * size}):
                pass
    result = otel_sessions.flush(seconds)
    print(json.dumps([result.complete, dict(result.dropped)]), flush=True)
"""


@contextmanager
def _agent(collector: Collector, protocol: str, spool: Path) -> Iterator[Callable[[int, int, float], str]]:
    """Run an agent that makes so many spans of a size, and says what its flush said."""
    address = collector.grpc if protocol == "grpc" else collector.http
    env = {
        **clean_environment(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_SESSIONS_SPOOL": str(spool),
        "OTEL_LOGS_EXPORTER": "none",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def work(count: int, size: int, seconds: float) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"[{count}, {size}, {seconds}]\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        yield work
    finally:
        process.kill()
        process.communicate()


def _found(behind: Receiver) -> list[int]:
    return [span.span_id for body in list(behind.accepted) for span in spans_of(body)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the Collector's configuration."""
    path = tmp_path / "collector.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_that_is_down_and_killed_and_back_costs_no_span(
    start_collector, config: Path, tmp_path: Path, protocol: str
):
    """Down from before the agent's start, up, killed (-9), up again: every span arrives."""
    with http_receiver() as behind:
        collector = start_collector(config, {"BEHIND": f"http://127.0.0.1:{behind.port}"})
        collector.process.kill()
        with _agent(collector, protocol, tmp_path / "spool") as work:
            assert work(600, 10, 0.5).startswith("[false, {}")
            collector.process.start()
            assert work(600, 10, 30) == "[true, {}]"
            assert len(set(_found(behind))) == 1202
            collector.process.kill()
            assert work(600, 10, 0.5).startswith("[false, {}")
            collector.process.start()
            until(lambda: len(set(_found(behind))) == 1803, "what waited arrives without anybody's doing")
            assert work(1, 10, 30) == "[true, {}]"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_batch_that_is_too_large_for_a_collector_is_cut(
    start_collector, config: Path, tmp_path: Path, protocol: str
):
    """It takes 1 MiB: 512 spans of 5 kB arrive in parts, and one of 2 MB is refused and counted."""
    with http_receiver() as behind:
        collector = start_collector(config, {"BEHIND": f"http://127.0.0.1:{behind.port}"})
        with _agent(collector, protocol, tmp_path / "spool") as work:
            assert work(511, 5_000, 30) == "[true, {}]"
            assert len(set(_found(behind))) == 512
            assert work(1, 2_000_000, 30) == '[false, {"rejected": 1}]'
            assert len(set(_found(behind))) == 513
