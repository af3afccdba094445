"""What is lost on the way is told with its reason, by `show` and the API; by real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from textwrap import dedent
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.cli._api import Api

pytestmark = pytest.mark.slow


def run(backend: BackendProcess, source: str, **env: str) -> None:
    """Run an agent to its end."""
    subprocess.run(
        [sys.executable, "-c", dedent(source)],
        env=clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, **env}),
        capture_output=True,
        timeout=60,
        check=True,
    )


def told(backend: BackendProcess, wanted: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """Wait until the one session is as wanted; return it in detail."""
    deadline = time.monotonic() + 30
    while True:
        for found in Api(backend.url).sessions()["sessions"]:
            detail = Api(backend.url).session(found["id"])
            if detail is not None and wanted(detail):
                return detail
            assert time.monotonic() < deadline, (found, detail and detail["losses"])
        time.sleep(0.05)


def sum_of(session: Mapping[str, Any]) -> int:
    """Return how many spans are missing for a reason that somebody told."""
    return sum(number for reason, number in session["losses"].items() if reason != "not_received")


def shown(backend: BackendProcess) -> str:
    """Return what `show` prints of the newest session."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_sessions.cli.main", "show", "--url", backend.url],
        env=clean_environment({"COLUMNS": "200"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_a_full_queue_is_the_reason_of_what_it_lost(start_backend: Callable[..., BackendProcess]):
    """Counts and reason reach the page's API and `show`; the sum is right over two runs of one session."""
    backend = start_backend()
    source = """
        import threading, otel_sessions
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        gate = threading.Event()
        class Held(OTLPSpanExporter):
            def export(self, spans):
                gate.wait(30)
                return super().export(spans)
        otel_sessions.init(exporter=Held())
        with otel_sessions.session("busy", id="one"):
            for n in range(100):
                with otel_sessions.step("s"):
                    pass
        gate.set()
        result = otel_sessions.shutdown(10)
        assert set(result.dropped) == {"queue full"}, result
    """
    for _ in range(2):
        run(backend, source, OTEL_BSP_MAX_QUEUE_SIZE="4")
    session = told(
        backend, lambda s: s["spans"] + (s["missing_spans"] or 0) == 2 * 101 == s["spans"] + sum_of(s)
    )
    assert session["missing_spans"] > 100
    assert session["losses"] == {"queue_full": session["missing_spans"]}
    assert f"{session['missing_spans']} missing (queue full: {session['missing_spans']})" in shown(backend)


class Refusing(BaseHTTPRequestHandler):
    """Refuses whatever it is sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("end", ["otel_sessions.flush(10)", "pass"])
def test_what_a_receiver_refuses_after_the_end_is_told_all_the_same(
    start_backend: Callable[..., BackendProcess], end: str
):
    """The session is over when its spans are refused: its end is told once more, also at the program's end."""
    backend = start_backend()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    source = f"""
        import otel_sessions
        otel_sessions.init()
        with otel_sessions.session("refused"):
            with otel_sessions.step("s"):
                pass
        {end}
    """
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        run(backend, source, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=address)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    session = told(backend, lambda s: s["state"] == "ended" and "rejected" in s["losses"])
    assert (session["missing_spans"], session["losses"]) == (2, {"rejected": 2})
    assert "2 missing (rejected: 2)" in shown(backend)


def test_what_a_killed_process_had_not_sent_is_missing_at_least(start_backend: Callable[..., BackendProcess]):
    """It told of them by its last heartbeat; nobody knows what came after that, and why."""
    backend = start_backend()
    source = """
        import os, signal, time, otel_sessions
        otel_sessions.init()
        otel_sessions.start_session("killed")
        for n in range(5):
            with otel_sessions.step("s"):
                pass
        time.sleep(1)  # heartbeats tell of five spans, which wait for their delay
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.run(
        [sys.executable, "-c", dedent(source)],
        env=clean_environment(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.url,
                "OTEL_BSP_SCHEDULE_DELAY": "60000",
                "OTEL_SESSIONS_HEARTBEAT": "0.2",
                "OTEL_SESSIONS_LEASE": "1",
            }
        ),
        timeout=60,
        check=False,
    )
    assert process.returncode == -9
    session = told(backend, lambda s: s["state"] == "lost")
    assert (session["missing_spans"], session["losses"]) == (5, {"process_died": 5})
    assert "at least 5 missing (unknown, the process died: 5)" in shown(backend)
