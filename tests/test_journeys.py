"""Claims about whole journeys: whoever does what the README says gets what it promises."""

import json
import subprocess
import sys
import time

import readme
from backend_process import BackendProcess, clean_environment

PATIENCE = 20


def sessions(backend: BackendProcess) -> list[dict]:
    """Return the list as the API shows it now."""
    return json.loads(backend.exchange("GET", "/api/v1/sessions")[2])["sessions"]


def wait_for(backend: BackendProcess, state: str) -> dict:
    """Wait until the one session is in a state."""
    end = time.monotonic() + PATIENCE
    seen: list[dict] = []
    while time.monotonic() < end:
        seen = sessions(backend)
        if seen and seen[0]["state"] == state:
            return seen[0]
        time.sleep(0.02)
    raise AssertionError(f"no session was {state} within {PATIENCE} s: {seen}")


def test_the_program_of_the_readme_shows_that_it_waits_and_how_it_ended(backend, tmp_path):
    """The ten lines, copied as they stand, are a session that waits for approval and then completes."""
    file = tmp_path / "agent.py"
    file.write_text(readme.program())
    agent = subprocess.Popen(
        [sys.executable, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url}),
    )
    try:
        waiting = wait_for(backend, "waiting")
        assert (waiting["name"], waiting["title"]) == ("plan trip", "Lisbon in May")
        assert (waiting["service"], waiting["waiting_for"]) == ("travel", "approval")
        agent.communicate("\n", timeout=PATIENCE)
    finally:
        agent.kill()
        agent.wait()
    ended = wait_for(backend, "ended")
    assert (ended["outcome"], ended["end_reason"], ended["spans"]) == ("ok", "completed", 3)


def test_both_commands_of_the_readme_are_one_line_each():
    """A newcomer copies one line to see it and one line to test it."""
    for name in ("demo-command", "test-command"):
        assert "\n" not in readme.command(name)


def test_two_processes_with_one_session_id_are_one_session_with_two_runs(backend):
    """A session belongs to its id, not to the process or trace that happened to begin it."""
    program = (
        "import otel_sessions\notel_sessions.init()\nwith otel_sessions.session('work', id='shared'): pass"
    )
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", program],
            env=clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url}),
            check=True,
        )
    seen = wait_for(backend, "ended")
    end = time.monotonic() + PATIENCE
    while seen["spans"] < 2 and time.monotonic() < end:
        (seen,) = sessions(backend)
    assert (seen["session_id"], seen["runs_count"], seen["traces_count"], seen["spans"]) == (
        "shared",
        2,
        2,
        2,
    )
