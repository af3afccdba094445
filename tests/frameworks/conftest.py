"""What the tests beside real frameworks share: programs run in the environment of one, and what arrived of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from environments import ROOT, Environment, Unavailable, python_of
from span_collector import Collector
from span_collector import collector as run_collector

PROGRAMS = Path(__file__).parent / "programs"
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector on the loopback address."""
    with run_collector() as running:
        yield running


@pytest.fixture
def run(collector: Collector, tmp_path: Path) -> Callable[..., str]:
    """Run a program of ours in a framework's environment; it sends to the collector, each span once."""

    def run_in(environment: Environment | None, name: str, *arguments: str) -> str:
        try:
            python = sys.executable if environment is None else str(python_of(environment))
        except Unavailable as reason:
            pytest.skip(f"{environment} can't be installed here: {reason}")
        bare = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TRACE"))}
        own = {"OTEL_SESSIONS_SPOOL": "off", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        done = subprocess.run(
            [python, str(PROGRAMS / f"{name}.py"), *arguments],
            env={**bare, **QUIET, **collector.env, **own},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        times = Counter(span.span_id for span in collector.spans())
        assert max(times.values()) == 1, "a span was exported twice"
        return done.stdout

    return run_in
