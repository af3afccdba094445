"""What the tests of the SDK share: recording in this process, a collector, programs of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from outcomes import Ended, Recorded
from span_collector import Collector
from span_collector import collector as run_collector
from tls import make_certificates

import otel_sessions
from otel_sessions.sdk import _context, _guard, _provider
from otel_sessions.sdk._ledger import ledgers
from otel_sessions.sdk._registry import registry


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin each test as a process begins: nothing set up, nothing current, nothing said; no thread is left."""
    earlier, global_provider = set(threading.enumerate()), type(trace.get_tracer_provider())
    for variable in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("OTEL_SESSIONS_SPOOL", "off")  # the tests of the spool have folders of their own
    before = _context.swap((None, _context.otel.Context()))
    monkeypatch.setattr(_provider, "_state", _provider._State())
    _guard._said.clear()
    _guard._faults.clear()
    _guard._ignored.clear()
    yield
    if (runtime := _provider.current()) is not None:
        runtime.finish(0.0)
    registry.open.clear()
    registry.roots.clear()
    ledgers._open.clear()
    ledgers._closed.clear()
    _context.swap(before)
    assert type(trace.get_tracer_provider()) is global_provider, "a global provider can't be taken back"
    ours = [t for t in threading.enumerate() if t not in earlier and t.name.startswith("otel-sessions")]
    for thread in ours:
        thread.join(20)
    assert not any(thread.is_alive() for thread in ours), ours


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Record spans in this process, by a provider that is joined; no event is sent, no fault forgiven."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    here = Recorded(TracerProvider(shutdown_on_exit=False), InMemorySpanExporter())
    otel_sessions.init(tracer_provider=here.provider, exporter=here.exporter, signals=False)
    yield here
    assert otel_sessions.stats().faults == {}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector on the loopback address."""
    with run_collector() as running:
        yield running


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port of the loopback address where nobody answers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files of TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates of this test")
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python programs of their own, with a bare environment; whatever still runs is ended at last."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, env: Mapping[str, str] | None = None, *options: str) -> subprocess.Popen[str]:
        path = tmp_path / f"program{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACE"))}
        process = subprocess.Popen(
            [sys.executable, *options, str(path)],
            env={
                **bare,
                "OTEL_SESSIONS_SPOOL": "off",
                "PYTHONWARNINGS": "ignore::DeprecationWarning",
                **(env or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run_program(start_program: Callable[..., subprocess.Popen[str]]) -> Callable[..., Ended]:
    """Run a Python program to its end."""

    def run(source: str, env: Mapping[str, str] | None = None, *options: str) -> Ended:
        process = start_program(source, env, *options)
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, err)

    return run
