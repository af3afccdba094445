"""What becomes of spans when many threads end them faster than one encodes: each thread does its share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer
from span_collector import Collector
from span_collector import collector as run_collector

import otel_sessions
from otel_sessions.sdk import _durable
from otel_sessions.sdk._durable import DurableWay


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Iterator[threading.Event]:
    """Set tracing up with a queue of ten spans, and a thread that is held up until the event is set."""
    go = threading.Event()
    send = DurableWay.send

    def wait(way, batch):
        go.wait(20)
        send(way, batch)

    monkeypatch.setattr(DurableWay, "send", wait)
    for name, value in collector.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    yield go
    go.set()


def _tracer() -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, export=True, signals=False)
    return provider.get_tracer("t")


def _end(tracer: Tracer, count: int) -> None:
    for number in range(count):
        tracer.start_span(f"span {number}").end()


def test_what_a_full_queue_has_no_room_for_arrives_all_the_same(held: threading.Event, collector: Collector):
    """Four threads end 4,000 spans while the one that encodes is held up: each span arrives once."""
    tracer = _tracer()
    threads = [threading.Thread(target=_end, args=(tracer, 1000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert otel_sessions.stats().pending == 4000
    held.set()
    result = otel_sessions.flush(20)
    assert (result.complete, dict(result.dropped)) == (True, {})
    found = [span.span_id for span in collector.spans()]
    assert len(found) == len(set(found)) == 4000
    assert len(collector.traces) < 100, "small requests were put together"


def test_what_waits_so_is_bounded_and_its_loss_counted(
    held: threading.Event, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    """Beyond so many bytes the oldest spans are lost, as before, and every one is counted."""
    monkeypatch.setattr(_durable, "_REQUESTS", 10_000)
    tracer = _tracer()
    _end(tracer, 1000)
    held.set()
    result = otel_sessions.flush(20)
    lost = result.dropped["queue full"]
    assert 500 < lost < 1000
    assert len(collector.spans()) == 1000 - lost


def test_what_is_left_of_it_at_the_end_is_counted(held: threading.Event, collector: Collector):
    """The worker hangs in the disk: the program ends in time, and what was not written is told."""
    tracer = _tracer()
    _end(tracer, 500)
    otel_sessions.shutdown(0.2)
    stats = otel_sessions.stats()
    assert sum(stats.dropped.values()) + stats.pending == 500
    assert stats.dropped["not sent in time"] > 400


def test_a_span_that_can_not_be_encoded_is_lost_alone(
    held: threading.Event, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    """Also where it is encoded in the thread that ended it, whom no exception reaches."""
    item = _durable._item

    def fail(outbound):
        if outbound[0].name == "span 5":
            raise ValueError("no")
        return item(outbound)

    monkeypatch.setattr(_durable, "_item", fail)
    tracer = _tracer()
    _end(tracer, 500)
    held.set()
    result = otel_sessions.flush(20)
    assert dict(result.dropped) == {"unsendable": 1}
    assert len(collector.spans()) == 499


@pytest.mark.slow
def test_a_burst_of_many_threads_is_on_disk_not_away(
    start_program: Callable, silent_port: int, tmp_path: Path
):
    """40,000 spans by sixteen threads without a pause and with nobody there: none is dropped, and all arrive."""
    with run_collector() as probe:
        port = probe.port
    env: Mapping[str, str] = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_SESSIONS_SPOOL": str(tmp_path / "spool"),
        "OTEL_LOGS_EXPORTER": "none",
    }
    process = start_program(
        """
import otel_sessions, sys, threading
from opentelemetry import trace
otel_sessions.init(service_name="agent")
tracer = trace.get_tracer("t")
def work():
    for _ in range(2500):
        tracer.start_span("s").end()
with otel_sessions.session("burst"):
    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(otel_sessions.stats().dropped, flush=True)
sys.stdin.readline()
print(otel_sessions.flush(60).complete, flush=True)
""",
        env,
    )
    assert process.stdout.readline() == "{}\n"
    with run_collector(port=port) as collector:
        out, err = process.communicate("\n", timeout=90)
        assert out == "True\n", err
        assert len({span.span_id for span in collector.spans()}) == 40_001
