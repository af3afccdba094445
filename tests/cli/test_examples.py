"""Every example runs as it stands, and the backend tells of it what its text promises."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.cli._api import Api

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(backend: BackendProcess, *command: str | Path) -> str:
    """Run a program that reports to the backend; return what it printed."""
    environment = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url})
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_session(backend: BackendProcess, wanted=lambda session: True):
    """Wait until the backend tells of one session for which `wanted` holds, and return all it tells of it."""
    api, deadline = Api(backend.url), time.monotonic() + 20
    while True:
        known = [api.session(session["id"]) for session in api.sessions()["sessions"]]
        if len(known) == 1 and known[0] is not None and wanted(known[0]):
            return known[0]
        assert time.monotonic() < deadline, known
        time.sleep(0.1)


def test_the_quickstart_is_one_session_that_waited_and_ended_well(backend):
    """Ten lines give a named session with its agent, its tool and its wait, ended with a reason."""
    run(backend, sys.executable, EXAMPLES / "quickstart.py")
    session = only_session(backend, lambda session: session["spans"] == 3)
    assert (session["name"], session["title"], session["service"]) == ("plan trip", "Lisbon in May", "travel")
    assert (session["state"], session["outcome"], session["end_reason"]) == ("ended", "ok", "completed")
    assert "waiting" in [entry["state"] for entry in session["timeline"]]
    assert (session["tool_calls"], session["agents"], session["missing_spans"]) == (1, ["planner"], 0)


def test_tasks_at_once_have_a_state_each(backend):
    """One task fails, two are done, and the session ends well."""
    run(backend, sys.executable, EXAMPLES / "asyncio_tasks.py")
    session = only_session(backend, lambda session: session["model_calls"] == 1)
    assert sorted(task["state"] for task in session["tasks"]) == ["done", "done", "failed"]
    assert (session["outcome"], session["errors"] > 0, session["tool_calls"]) == ("ok", True, 3)
    assert (session["input_tokens"], session["output_tokens"], session["missing_spans"]) == (12, 4, 0)


def test_plain_opentelemetry_is_one_session_of_two_traces(backend):
    """Spans with `session.id` are one session; nobody claims that it ended."""
    run(backend, sys.executable, EXAMPLES / "any_otlp_emitter.py")
    session = only_session(backend, lambda session: session["spans"] == 4)
    assert (session["traces_count"], session["model_calls"], session["service"]) == (2, 2, "plain-agent")
    assert (session["inferred"], session["state"], session["ended_at"]) == (True, "running", None)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_otlp_by_hand_from_node_is_a_session(backend):
    """JSON from another language, without any package, is a session too."""
    printed = run(backend, "node", EXAMPLES / "node" / "session.mjs")
    session = only_session(backend, lambda session: session["spans"] == 2)
    assert printed.split()[1].rstrip(":") == session["session_id"]
    assert (session["input_tokens"], session["output_tokens"]) == (42, 7)


def test_every_example_is_tested():
    """A new example does not go untested."""
    text = Path(__file__).read_text()
    assert [name for name in PYTHON if f'"{name}"' not in text] == []
