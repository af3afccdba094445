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


def test_what_model_calls_cost_adds_up_in_their_session(backend):
    """The sum of what each call was told, in USD; a call that was told nothing adds nothing."""
    program = """
from decimal import Decimal
import otel_sessions
otel_sessions.init()
with otel_sessions.session("work"):
    for cost in (0.0125, Decimal("0.25"), None):
        with otel_sessions.model_call("m") as call:
            call.record(input_tokens=1, cost=cost)
"""
    env = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url})
    subprocess.run([sys.executable, "-c", program], env=env, check=True)
    seen = wait_for(backend, "ended")
    assert (seen["model_calls"], seen["input_tokens"], seen["cost"]) == (3, 3, 0.2625)


LOSSY = """
import os, subprocess, sys, otel_sessions
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

class Lossy(OTLPSpanExporter):
    def export(self, spans):
        return super().export([span for span in spans if span.name != "lost"])

otel_sessions.init(exporter=Lossy())

def steps(*names):
    for name in names:
        with otel_sessions.step(name):
            pass
"""


def run_lossy(backend: BackendProcess, program: str) -> None:
    """Run a program whose spans called "lost" are lost on their way, unnoticed."""
    subprocess.run(
        [sys.executable, "-c", LOSSY + program],
        env=clean_environment(
            # While a process may be alive, what it has not sent is on its way: a child tells no end.
            {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, "OTEL_SESSIONS_HEARTBEAT": "0.2"}
        ),
        check=True,
        timeout=PATIENCE,
    )


def wait_for_missing(backend: BackendProcess, missing: int, *, stored: int) -> None:
    """Wait until the session has ended, so many spans are stored and so many are known to be missing."""
    end = time.monotonic() + PATIENCE
    seen: list[dict] = []
    while time.monotonic() < end:
        seen = sessions(backend)
        told = [(one["state"], one["spans"], one["missing_spans"]) for one in seen]
        if told == [("ended", stored, missing)]:
            return
        time.sleep(0.02)
    raise AssertionError(f"never {missing} missing beside {stored} spans within {PATIENCE} s: {seen}")


def test_a_later_run_in_the_same_process_hides_no_lost_span(backend):
    """What the first run lost is still missing after a second one that lost nothing."""
    run_lossy(
        backend,
        "with otel_sessions.session('s', id='one'): steps('lost', 'lost', 'lost', 'fine')\n"
        "with otel_sessions.session('s', id='one'): steps('fine', 'fine')\n",
    )
    wait_for_missing(backend, 3, stored=5)


def test_a_session_that_is_resumed_elsewhere_adds_up(backend):
    """Each process counts its own spans, and what either lost is missing."""
    run_lossy(backend, "with otel_sessions.session('s', id='one'): steps('lost', 'fine')\n")
    wait_for_missing(backend, 1, stored=2)
    run_lossy(backend, "with otel_sessions.session('s', resume='one'): steps('lost', 'lost', 'fine')\n")
    wait_for_missing(backend, 3, stored=4)


def test_child_processes_count_their_own_spans(backend):
    """A forked one and a program that takes the session up, beside their parent."""
    run_lossy(
        backend,
        """
with otel_sessions.session("s", id="one"):
    steps("lost", "fine")
    if os.fork() == 0:
        steps("lost", "lost", "fine")
        otel_sessions.shutdown()
        os._exit(0)
    os.wait()
    program = "import otel_sessions as o\\no.init()\\nwith o.step('fine'): pass\\nwith o.tool('fine'): pass"
    subprocess.run([sys.executable, "-c", program], env=otel_sessions.child_env(), check=True)
    steps("fine")
""",
    )
    wait_for_missing(backend, 3, stored=6)
