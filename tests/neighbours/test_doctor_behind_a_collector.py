"""`otel-sessions doctor` through a real Collector: what its configuration does to telemetry is found by the probe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment
from configs import FOLDER
from processes import Collector

pytestmark = pytest.mark.neighbours

BARE = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:COLLECTOR_HTTP}
processors:
  transform:
    trace_statements:
      - delete_key(span.attributes, "session.id")
exporters:
  otlp_http:
    endpoint: ${env:BACKEND_URL}
extensions:
  health_check:
    endpoint: ${env:COLLECTOR_HEALTH}
service:
  extensions: [health_check]
  pipelines:
"""
TRACES_ALONE = "    traces: {receivers: [otlp], exporters: [otlp_http]}\n"
WITHOUT_ID = """
    traces: {receivers: [otlp], processors: [transform], exporters: [otlp_http]}
    logs: {receivers: [otlp], exporters: [otlp_http]}
"""


def diagnose(collector: Collector, backend: BackendProcess, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the doctor in front of a collector; return its exit code, and by check what is not ok, or the last."""
    command = [sys.executable, "-m", "otel_sessions.cli.main", "doctor", "--json", "--backend", backend.url]
    environ = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    done = subprocess.run(
        [*command, *options], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stderr == ""
    found: dict[str, Any] = {}
    for finding in json.loads(done.stdout)["findings"]:
        if found.get(finding["check"], {}).get("verdict", "ok") == "ok":
            found[finding["check"]] = finding
    return done.returncode, found


def test_a_collector_with_our_configuration_lets_everything_through(start_collector, backend):
    """Nothing is lost, and it is seen that something lies in between."""
    collector = start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url})
    code, found = diagnose(collector, backend, "--wait", "30")
    assert code == 0, found
    for check in ("spans", "events", "attributes", "liveness"):
        assert found[check]["verdict"] == "ok", found[check]
    assert found["arrival"]["verdict"] in ("ok", "warning")
    assert "sent elsewhere" in found["backend"]["seen"]


def test_a_collector_without_a_pipeline_for_logs_is_found_by_its_answer(
    start_collector, backend, tmp_path: Path
):
    """It answers 404 to logs; spans come through, and the consequence is said."""
    (tmp_path / "traces.yaml").write_text(BARE + TRACES_ALONE)
    collector = start_collector(tmp_path / "traces.yaml", {"BACKEND_URL": backend.url})
    code, found = diagnose(collector, backend, "--wait", "20")
    assert code == 0, found
    assert found["events"]["verdict"] == "warning"
    assert "nobody sees what is alive" in found["events"]["seen"]
    assert found["arrival"]["verdict"] in ("ok", "warning")


def test_a_collector_that_deletes_the_session_id_is_found_by_the_probe(
    start_collector, backend, tmp_path: Path
):
    """Every answer on the way is 200."""
    (tmp_path / "deletes.yaml").write_text(BARE + WITHOUT_ID)
    collector = start_collector(tmp_path / "deletes.yaml", {"BACKEND_URL": backend.url})
    code, found = diagnose(collector, backend, "--wait", "20")
    assert code == 1
    assert found["spans"]["verdict"] == found["events"]["verdict"] == "ok"
    assert "session.id is taken off" in found["attributes"]["seen"]
