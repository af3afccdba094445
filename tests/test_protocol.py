"""The session protocol on paper, its rules as code, and senders that keep them: ours, and one by hand in Node."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions import semconv
from otel_sessions.cli._api import Api
from otel_sessions.testing._heard import EndedSpan, Heard, Listener, Told
from otel_sessions.testing.protocol import RULES, check, listen, main

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
EMITTER = ROOT / "examples" / "node" / "protocol.mjs"
NODE = pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")

BEGIN = """
import os, signal, sys, threading, time
import otel_sessions
otel_sessions.init(service_name="agent")
"""
PROGRAMS = {
    "left": "with otel_sessions.session('a'), otel_sessions.task('t'), otel_sessions.tool('s'): pass",
    "long": "with otel_sessions.session('a'), otel_sessions.task('t'): time.sleep(1.6)",
    "waits": """
with otel_sessions.session('a') as session:
    with session.waiting('approval'):
        time.sleep(0.7)
    time.sleep(0.4)
""",
    "fails": """
try:
    with otel_sessions.session('a'):
        raise ValueError('no')
except ValueError:
    pass
""",
    "twice the same id": """
for _ in range(2):
    with otel_sessions.session('a', id='one'), otel_sessions.task('t'):
        pass
""",
    "several at once": """
def work(name):
    with otel_sessions.session(name), otel_sessions.task('t'):
        time.sleep(0.8)
threads = [threading.Thread(target=work, args=(f'a{n}',)) for n in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
    "never ended": "otel_sessions.start_session('a')",
    "killed gently": "otel_sessions.start_session('a'); os.kill(os.getpid(), signal.SIGTERM)",
    "a child process": """
with otel_sessions.session('a'):
    child = os.fork()
    if not child:
        with otel_sessions.task('in the child'):
            time.sleep(0.7)
        sys.exit(0)
    os.waitpid(child, 0)
""",
}


def run(listener: Listener, *command: str | Path) -> None:
    """Run a program that reports to the listener, to its end."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": listener.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SESSIONS_HEARTBEAT": "0.5",
        "OTEL_SESSIONS_LEASE": "3",
    }
    subprocess.run([*map(str, command)], env=clean_environment(environment), timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_our_own_sdk_keeps_every_rule(program: str) -> None:
    """However a session ends, and whatever happens in it."""
    with listen() as listener:
        run(listener, sys.executable, "-c", BEGIN + PROGRAMS[program])
        heard = listener.heard()
    assert {semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_END} <= {event.name for event in heard.events}
    assert check(heard) == []


@NODE
def test_an_emitter_by_hand_keeps_every_rule() -> None:
    """Another language, no package of ours or of OpenTelemetry's."""
    with listen() as listener:
        run(listener, "node", EMITTER, "2.4")
        heard = listener.heard()
    assert sum(event.name == semconv.EVENT_SESSION_HEARTBEAT for event in heard.events) >= 2
    assert check(heard) == []


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@pytest.mark.slow
@NODE
def test_what_a_hand_made_emitter_tells_is_what_the_backend_shows(backend: BackendProcess) -> None:
    """It ends, completed and complete; where it is killed, it is lost, and not ended."""
    environment = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url})

    def states() -> list[tuple[str, str | None, int | None]]:
        sessions = Api(backend.url).sessions()["sessions"]
        return sorted((one["state"], one["outcome"], one["missing_spans"]) for one in sessions)

    with subprocess.Popen(["node", str(EMITTER), "60"], env=environment) as killed:
        try:
            wait_for(lambda: states() == [("running", None, 0)])
        finally:
            killed.kill()
    subprocess.run(["node", str(EMITTER), "0.1"], env=environment, timeout=60, check=True)
    wait_for(lambda: states() == [("ended", "ok", 0), ("lost", None, 0)])


@NODE
def test_the_command_tells_which_rules_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a rule; the exit code says whether all are."""
    assert main(["--", "node", str(EMITTER), "0"]) == 0
    said = capsys.readouterr().out
    assert [line[4:] for line in said.splitlines() if line.startswith("  ✓ ")] == list(RULES)
    assert main(["--", sys.executable, "-c", ""]) == 1
    assert "no life cycle event was sent at all" in capsys.readouterr().out


# --- Each rule bites --------------------------------------------------------------------------------------

TRACE, ROOT_ID = b"t" * 16, b"r" * 8


def told(name: str, seq: int, request: int, **more: Any) -> Told:
    """Make an event as a good sender makes it, at second `seq` of its process."""
    attributes = {
        semconv.SESSION_ID: "trip",
        semconv.PROCESS_ID: "p",
        semconv.SEQ: seq,
        semconv.ELAPSED: seq * 1_000_000_000,
        semconv.HEARTBEAT_INTERVAL: 5.0,
        semconv.LEASE: 120.0,
        **{getattr(semconv, key): value for key, value in more.items()},
    }
    return Told(name, semconv.SCOPE_NAME, request, TRACE, ROOT_ID, attributes)


COUNTS = {"SPANS_STARTED": 1, "SPANS_ENDED": 0, "SPANS_DROPPED": 0}
START = told(semconv.EVENT_SESSION_START, 1, 0, SESSION_NAME="trip")
BEAT = told(semconv.EVENT_SESSION_HEARTBEAT, 2, 0, PHASE="running", OPEN_SPANS=[ROOT_ID.hex()], **COUNTS)
STATE = told(semconv.EVENT_SESSION_STATE, 3, 1, PHASE="waiting", WAITING_FOR="approval")
ENDING = {"SESSION_OUTCOME": "ok", "SESSION_END_REASON": "completed"}
END = told(semconv.EVENT_SESSION_END, 4, 2, **ENDING, **COUNTS | {"SPANS_ENDED": 1})
ROOT_SPAN = EndedSpan(
    "session trip",
    TRACE,
    ROOT_ID,
    {"session.id": "trip", semconv.SESSION_OUTCOME: "ok", semconv.SESSION_END_REASON: "completed"},
)
GOOD = Heard((START, BEAT, STATE, END), (ROOT_SPAN,))


def with_(event: Told, **changes: Any) -> Told:
    """Change attributes of an event, or take them away (None)."""
    changed = event.attributes | {getattr(semconv, key): value for key, value in changes.items()}
    return replace(event, attributes={key: value for key, value in changed.items() if value is not None})


def heard(*events: Told, spans: tuple[EndedSpan, ...] = (ROOT_SPAN,)) -> Heard:
    """Put together what was heard."""
    return Heard(events, spans)


BROKEN = {
    "scope": [
        heard(spans=()),
        heard(replace(START, name="session.begin"), START, BEAT, STATE, END),
        heard(START, BEAT, replace(STATE, scope="mine"), END),
    ],
    "ids": [
        heard(START, BEAT, replace(STATE, trace_id=b""), END),
        heard(START, BEAT, replace(STATE, span_id=bytes(8)), END),
        heard(START, BEAT, with_(STATE, SESSION_ID=None), END),
    ],
    "process": [heard(*(with_(event, PROCESS_ID=None) for event in GOOD.events))],
    "seq": [
        heard(START, BEAT, with_(STATE, SEQ=2), END),
        heard(*(with_(event, SEQ=event.seq + 1) for event in GOOD.events)),
        heard(*(with_(event, SEQ=None) for event in GOOD.events)),
    ],
    "elapsed": [
        heard(START, BEAT, with_(STATE, ELAPSED=None), END),
        heard(START, BEAT, with_(STATE, ELAPSED=5), END),
        heard(START, BEAT, with_(STATE, ELAPSED="3"), END),
    ],
    "lease": [
        heard(START, BEAT, with_(STATE, LEASE=None), END),
        heard(START, BEAT, with_(STATE, HEARTBEAT_INTERVAL=0), END),
        heard(START, BEAT, with_(STATE, LEASE=15.0), END),
    ],
    "start": [
        heard(with_(BEAT, SEQ=1), with_(STATE, SEQ=2), END),
        heard(START, BEAT, replace(with_(START, SEQ=3), request=0), END),
        heard(with_(BEAT, SEQ=1), with_(START, SEQ=2), STATE, END),
    ],
    "first heartbeat": [heard(START, replace(BEAT, request=1), STATE, END)],
    "pace": [heard(START, BEAT, STATE, with_(END, ELAPSED=13_000_000_000))],
    "phase": [
        heard(START, with_(BEAT, PHASE=None), STATE, END),
        heard(START, with_(BEAT, PHASE="asleep"), STATE, END),
        heard(START, with_(BEAT, WAITING_FOR="approval"), STATE, END),
    ],
    "counts": [
        heard(START, with_(BEAT, SPANS_STARTED=None), STATE, END),
        heard(START, with_(BEAT, SPANS_STARTED=2), STATE, END),
        heard(START, with_(BEAT, SPANS_STARTED=0, SPANS_ENDED=1), STATE, END),
        heard(START, with_(BEAT, SPANS_DROPPED=-1), STATE, END),
    ],
    "open spans": [
        heard(START, with_(BEAT, OPEN_SPANS=["abc"]), STATE, END),
        heard(START, with_(BEAT, OPEN_SPANS=[f"{n:016x}" for n in range(65)]), STATE, END),
        heard(START, with_(BEAT, OPEN_SPANS="a" * 16), STATE, END),
    ],
    "end": [
        heard(START, BEAT, STATE),
        heard(START, BEAT, with_(END, SEQ=3), END),
        heard(START, BEAT, with_(END, SEQ=3), with_(STATE, SEQ=4)),
        heard(START, BEAT, STATE, with_(END, SESSION_END_REASON=None)),
        heard(START, BEAT, STATE, with_(END, SESSION_OUTCOME="fine")),
    ],
    "root": [
        heard(*GOOD.events, spans=()),
        heard(*GOOD.events, spans=(replace(ROOT_SPAN, name="trip"),)),
        heard(
            *GOOD.events,
            spans=(replace(ROOT_SPAN, attributes=ROOT_SPAN.attributes | {semconv.SESSION_OUTCOME: "error"}),),
        ),
    ],
    "spans": [heard(*GOOD.events, spans=(ROOT_SPAN, EndedSpan("chat", TRACE, b"c" * 8, {})))],
    "complete": [
        heard(START, BEAT, STATE, with_(END, SPANS_STARTED=3, SPANS_ENDED=3)),
        heard(START, BEAT, STATE, with_(END, SPANS_STARTED=3, SPANS_ENDED=3, SPANS_DROPPED=1)),
    ],
    "previous": [heard(with_(START, SESSION_PREVIOUS_ID="trip"), BEAT, STATE, END)],
}


def test_a_sender_that_keeps_every_rule_breaks_none() -> None:
    """What the cases below are changed from is good."""
    assert check(GOOD) == []
    at_once = [replace(event, request=0) for event in (START, with_(END, SEQ=2))]
    assert check(heard(*at_once)) == []
    lost = with_(END, SPANS_STARTED=3, SPANS_ENDED=3, SPANS_DROPPED=2)
    assert check(heard(START, BEAT, STATE, lost)) == []


@pytest.mark.parametrize(
    ("rule", "case"),
    [(rule, case) for rule, cases in BROKEN.items() for case in cases],
    ids=[f"{rule}-{number}" for rule, cases in BROKEN.items() for number, _ in enumerate(cases)],
)
def test_every_broken_rule_is_found(rule: str, case: Heard) -> None:
    """Under its own name, with a sentence about what broke it."""
    details = [breach.detail for breach in check(case) if breach.rule == rule]
    assert details
    assert all(details)


# --- The paper --------------------------------------------------------------------------------------------


def test_the_paper_holds_exactly_the_rules_that_are_checked() -> None:
    """None is written that nobody checks, and none is checked that nobody can read."""
    table = PAPER[PAPER.index("| rule |") :]
    assert re.findall(r"^\| ([a-z ]+) \| MUST", table, re.MULTILINE) == list(RULES)
    assert set(BROKEN) == set(RULES)


def test_the_paper_names_every_event_and_nothing_that_is_not_sent() -> None:
    """Names are those of the code."""
    table = PAPER[PAPER.index("| event |") : PAPER.index("All of them bear")]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == semconv.EVENTS
    names = {value for value in vars(semconv).values() if isinstance(value, str)}
    written = set(re.findall(r"`((?:otel_sessions|session)\.[a-z_.]+)`", PAPER))
    assert {
        name for name in written if name not in names and not name.startswith("otel_sessions.testing")
    } == set()
