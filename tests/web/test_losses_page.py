"""The page says what is missing of a session, and why; real agents lose it, a real browser shows it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from backend_process import BackendProcess, clean_environment
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

AGENT = """
import os, signal, sys, time, otel_sessions
otel_sessions.init()
session = otel_sessions.start_session("loser", id=sys.argv[1])
for n in range(3):
    with otel_sessions.step("s"):
        pass
if sys.argv[1] == "killed":
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
session.end()
otel_sessions.flush(30)
"""


class Refusing(BaseHTTPRequestHandler):
    """Refuses whatever it is sent, a while after the end of the session was told."""

    let = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.let.wait(30)
        self.send_response(400)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def start(backend: BackendProcess, session: str, **env: str) -> subprocess.Popen[bytes]:
    """Start the agent."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, "OTEL_SESSIONS_HEARTBEAT": "0.2", **env}
    return subprocess.Popen([sys.executable, "-c", AGENT, session], env=clean_environment(settings))


def test_what_a_killed_process_did_not_send_is_missing_at_least(backend: BackendProcess, open_page: Open):
    """Its last heartbeat counted what nobody will ever have."""
    late = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_SESSIONS_LEASE": "1"}
    with start(backend, "killed", **late) as process:
        assert process.wait(60) == -9
    page = open_page(backend, "/sessions/killed")
    expect(page.locator(".whole")).to_contain_text("At least 3 spans missing", timeout=20_000)
    expect(page.locator(".whole")).to_contain_text("unknown, the process died: 3")


def test_what_is_refused_is_first_on_the_way_and_then_missing_for_that_reason(
    backend: BackendProcess, open_page: Open
):
    """The page is open all the time: it never says missing before somebody knows, nor keeps it to itself."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Refusing.let.clear()
    address = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    process = start(backend, "refused", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=address)
    try:
        page = open_page(backend, "/sessions")
        page.get_by_text("loser").first.wait_for(timeout=20_000)
        page.goto(f"{backend.url}/sessions/refused")
        whole = page.locator(".whole")
        expect(whole).to_contain_text(re.compile("on the way|spans missing"), timeout=20_000)
        Refusing.let.set()
        expect(whole).to_contain_text("4 spans missing", timeout=20_000)
        expect(whole).to_contain_text("rejected: 4")
        assert process.wait(30) == 0
    finally:
        Refusing.let.set()
        process.wait(30)
        server.shutdown()
        thread.join()
        server.server_close()
