"""What an agent's spans survive: a dead collector, exit, signals, kill -9; by real programs with a spool."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from outcomes import Ended
from span_collector import Collector
from span_collector import collector as run_collector

Run = Callable[..., Ended]

WORK = """
import otel_sessions, os, sys, time
otel_sessions.init(service_name="agent")
def work(number):
    with otel_sessions.session("work", id=f"s{number}"):
        with otel_sessions.tool("look"):
            pass
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Name a folder for the spool."""
    return tmp_path / "spool"


@pytest.fixture
def nobody() -> Mapping[str, str]:
    """Return the environment of a program whose collector is down."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{probe.getsockname()[1]}"}


def _port(env: Mapping[str, str]) -> int:
    return int(env["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2])


def _left(spool: Path) -> list[str]:
    """Name the parcels that lie in a spool."""
    return [path.name for path in spool.rglob("0*") if path.is_file()]


def test_what_a_dead_collector_did_not_take_leaves_with_the_next_program(
    run_program: Run, nobody: Mapping[str, str], spool: Path
):
    """The first program says in one line where its spans are; the second one sends both programs' spans."""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(spool)}
    first = run_program(WORK + "work(1)", env)
    lines = [line for line in first.err.splitlines() if "not delivered" in line]
    assert first.code == 0
    assert len(lines) == 1, first.err
    assert f"2 are kept in {spool}, for the next program that sends there" in lines[0]
    assert "`otel-sessions spool send`" in lines[0]
    assert _left(spool)
    with run_collector(port=_port(env)) as collector:
        second = run_program(WORK + "work(2); otel_sessions.flush(20); time.sleep(3)", env)
        assert second.err == ""
        collector.wait_for(lambda it: len(it.spans()) == 4)
        assert {span.session_id for span in collector.spans()} == {"s1", "s2"}
    assert _left(spool) == []


def test_without_a_spool_one_line_tells_that_the_spans_are_lost(
    run_program: Run, nobody: Mapping[str, str], tmp_path: Path
):
    """OTEL_SESSIONS_SPOOL=off writes nothing."""
    ended = run_program(WORK + "work(1)", {**nobody, "OTEL_SESSIONS_SPOOL": "off", "HOME": str(tmp_path)})
    assert "2 of 2 spans" in ended.err
    assert "kept" not in ended.err
    assert [path.name for path in tmp_path.rglob("*")] == ["program0.py"]


def test_by_default_spans_wait_in_the_users_state_folder(
    start_program, nobody: Mapping[str, str], tmp_path: Path
):
    """Nothing has to be set up for it."""
    process = start_program(
        WORK + "work(1)",
        {
            **nobody,
            "OTEL_SESSIONS_SPOOL": "",
            "HOME": str(tmp_path),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        },
    )
    process.communicate(timeout=30)
    assert len(_left(tmp_path)) == 2  # spans, and events
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("spool/**/*"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_had_ended_survives_a_death(
    start_program, nobody: Mapping[str, str], spool: Path, how: signal.Signals
):
    """After 200 ms a span is on disk: kill -9 loses what was open, SIGTERM not even that."""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(spool)}
    process = start_program(
        WORK
        + """
session = otel_sessions.start_session("work", id="s1")
for number in range(100):
    with otel_sessions.tool(f"tool {number}"):
        pass
print("ready", flush=True)
time.sleep(60)
""",
        env,
    )
    assert process.stdout.readline() == "ready\n"
    end = time.monotonic() + 20
    while not _left(spool):
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(how)
    process.communicate(timeout=20)
    with run_collector(port=_port(env)) as collector:
        start_program(WORK + "time.sleep(60)", env)
        collector.wait_for(lambda it: len(it.spans()) >= (101 if how is signal.SIGTERM else 100))
        names = {span.name for span in collector.spans()}
        assert names >= {f"execute_tool tool {number}" for number in range(100)}
        assert ("session work" in names) == (how is signal.SIGTERM)


def test_a_burst_over_the_queue_is_on_disk_not_away(start_program, nobody: Mapping[str, str], spool: Path):
    """40,000 spans with nobody there: none is dropped, and all arrive when somebody is."""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(spool), "OTEL_LOGS_EXPORTER": "none"}
    process = start_program(
        WORK
        + """
with otel_sessions.session("burst"):
    for number in range(40):
        for _ in range(1000):
            with otel_sessions.step("s"):
                pass
        time.sleep(0.1)
time.sleep(1)
print(otel_sessions.stats().dropped, flush=True)
sys.stdin.readline()
print(otel_sessions.flush(60).complete, flush=True)
""",
        env,
    )
    assert process.stdout.readline() == "{}\n"
    with run_collector(port=_port(env)) as collector:
        out, err = process.communicate("\n", timeout=90)
        assert out == "True\n", err
        assert len({span.span_id for span in collector.spans()}) == 40_001


def test_a_session_of_a_program_that_a_collector_refuses_is_told_as_missing(
    run_program: Run, collector: Collector, spool: Path
):
    """A refusal for good is counted on the session's own counts, and set aside with its reason."""
    collector.status = 400
    ended = run_program(
        WORK
        + """
session = otel_sessions.start_session("work", id="s1")
with otel_sessions.tool("look"):
    pass
result = otel_sessions.flush(20)
print(result.complete, dict(result.dropped))
""",
        {**collector.env, "OTEL_SESSIONS_SPOOL": str(spool), "OTEL_LOGS_EXPORTER": "none"},
    )
    assert ended.out == "False {'rejected': 1}\n"
    reasons = [path.read_text() for path in spool.rglob("*.why")]
    assert any("400" in reason for reason in reasons)
    (line,) = [line for line in ended.err.splitlines() if "for good" in line]
    assert "They are set aside: `otel-sessions spool send --rejected` delivers them" in line


def test_what_is_refused_where_nothing_is_kept_is_said_to_be_lost(run_program: Run, collector: Collector):
    """Nobody looks in vain for spans that no disk has."""
    collector.status = 400
    environ = {**collector.env, "OTEL_SESSIONS_SPOOL": "off", "OTEL_LOGS_EXPORTER": "none"}
    ended = run_program(WORK + "work(1)", environ)
    (line,) = [line for line in ended.err.splitlines() if "for good" in line]
    assert line.endswith("refused spans for good: HTTP 400 Bad Request. They are lost")


def test_a_relative_folder_is_refused(run_program: Run):
    """A program that changes its folder would find its spans no more."""
    ended = run_program(WORK, {"OTEL_SESSIONS_SPOOL": "somewhere"})
    assert ended.code == 1
    assert "ConfigurationError: OTEL_SESSIONS_SPOOL='somewhere': give a folder by its whole path" in ended.err


def test_a_session_id_that_limits_took_or_cut_is_whole_on_arrival(run_program: Run, collector: Collector):
    """Four attributes of six characters at most: the first one set is the first to go, and comes back on the way."""
    limits = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "4", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "6"}
    ended = run_program(
        """
import otel_sessions
from opentelemetry import trace
otel_sessions.init()
with otel_sessions.session("work", id="a-long-session-id"):
    for count in (0, 2, 50):
        span = trace.get_tracer("others").start_span(f"span {count}")
        for number in range(count):
            span.set_attribute(f"key {number}", "a long value")
        span.end()
print(otel_sessions.flush(10).complete)
""",
        {**collector.env, **limits, "OTEL_LOGS_EXPORTER": "none"},
    )
    assert ended.out == "True\n", ended.err
    assert {span.name: span.session_id for span in collector.spans()} == dict.fromkeys(
        ("span 0", "span 2", "span 50", "session work"), "a-long-session-id"
    )
    assert collector.span("span 50").attributes["key 49"] == "a long"


def test_two_programs_share_a_spool(start_program, nobody: Mapping[str, str], spool: Path):
    """Each sends what is its own while both live; every span arrives once."""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(spool)}
    source = (
        WORK
        + "\nfor number in range(20): work(f'{os.getpid()}-{number}')\nprint('ready', flush=True)\nsys.stdin.readline()\notel_sessions.flush(30)"
    )
    programs = [start_program(source, env) for _ in range(2)]
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    with run_collector(port=_port(env)) as collector:
        for program in programs:
            program.stdin.write("\n")
            program.stdin.flush()
        for program in programs:
            program.communicate(timeout=60)
        found = [span.span_id for span in collector.spans()]
        assert len(found) == len(set(found)) == 80
    assert _left(spool) == []


def test_a_folder_that_can_not_be_made_costs_nothing(run_program: Run, collector: Collector, spool: Path):
    """The agent goes on, spans go by memory, and one line says so."""
    spool.write_text("a file")
    ended = run_program(WORK + "work(1)", {**collector.env, "OTEL_SESSIONS_SPOOL": str(spool)})
    assert ended.code == 0
    assert ended.err.count("OTEL_SESSIONS_SPOOL names another folder") == 1
    assert len(collector.spans()) == 2


def test_what_was_meant_for_one_project_is_never_sent_to_another(
    run_program: Run, nobody: Mapping[str, str], spool: Path
):
    """Behind one URL the headers choose the project: what was left for one waits for a program of that one."""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(spool)}
    ours = {**env, "OTEL_EXPORTER_OTLP_HEADERS": "x-project=ours"}
    theirs = {**env, "OTEL_EXPORTER_OTLP_HEADERS": "x-project=theirs"}
    assert "kept" in run_program(WORK + "work(1)", ours).err
    with run_collector(port=_port(env)) as collector:
        run_program(WORK + "work(2); otel_sessions.flush(20); time.sleep(3)", theirs)
        assert {span.session_id for span in collector.spans()} == {"s2"}
        run_program(WORK + "otel_sessions.flush(20); time.sleep(3)", ours)
        collector.wait_for(lambda it: {span.session_id for span in it.spans()} == {"s1", "s2"})


def test_no_password_is_written_to_disk(run_program: Run, nobody: Mapping[str, str], spool: Path):
    """The file that names an address for people leaves out who logs in there."""
    endpoint = nobody["OTEL_EXPORTER_OTLP_ENDPOINT"].replace("//", "//agent:secret@")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SESSIONS_SPOOL": str(spool)}
    env["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=secret"
    run_program(WORK + "work(1)", env)
    written = [path.read_bytes() for path in spool.rglob("*") if path.is_file()]
    assert _left(spool)
    assert not [content for content in written if b"secret" in content]


def test_without_a_home_nothing_is_written_into_the_working_folder(start_program, nobody, tmp_path: Path):
    """A user whom the system doesn't know, as in a container, has no state folder: spans wait in memory."""
    unknown = """
import os, pwd
os.environ.pop("HOME", None)
def unknown(_uid):
    raise KeyError
pwd.getpwuid = unknown
"""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": "", "XDG_STATE_HOME": ""}
    process = start_program(unknown + f"os.chdir({str(tmp_path)!r})" + WORK + "work(1)", env)
    _, err = process.communicate(timeout=30)
    assert "2 of 2 spans" in err
    assert "kept" not in err
    assert not (tmp_path / "~").exists()


def test_what_waits_in_memory_is_not_said_to_be_on_disk(
    run_program: Run, nobody: Mapping[str, str], tmp_path: Path
):
    """A running program without a spool that can be written to is told what it lost, not where it would be."""
    file = tmp_path / "file"
    file.write_text("")
    program = """
from otel_sessions.sdk import _provider
work(1)
otel_sessions.flush(0.5)
_provider.current().worker.complain()
os._exit(0)
"""
    ended = run_program(WORK + program, {**nobody, "OTEL_SESSIONS_SPOOL": str(file / "spool")})
    assert "2 of 2 spans were not delivered" in ended.err
    assert "kept in" not in ended.err


def test_a_session_that_died_unheard_is_lost_when_it_is_heard_of(
    start_program, start_backend, nobody: Mapping[str, str], spool: Path
):
    """Started and killed (-9) while the backend was down: that it began is kept too, so it is not taken for alive."""
    env = {
        **nobody,
        "OTEL_SESSIONS_SPOOL": str(spool),
        "OTEL_SESSIONS_HEARTBEAT": "0.2",
        "OTEL_SESSIONS_LEASE": "2",
    }
    process = start_program(
        WORK
        + """
session = otel_sessions.start_session("work", id="s1")
with otel_sessions.tool("look"):
    pass
print("ready", flush=True)
time.sleep(60)
""",
        env,
    )
    assert process.stdout.readline() == "ready\n"
    _await(
        lambda: (
            {path.parent.parent.name.partition("-")[0] for path in spool.rglob("0*")} == {"traces", "logs"}
        )
    )
    process.kill()
    process.communicate()
    backend = start_backend("--http", f"127.0.0.1:{_port(env)}")
    start_program(WORK + "time.sleep(60)", env)

    def told():
        found = json.loads(backend.exchange("GET", "/api/v1/sessions")[2])["sessions"]
        return found[0] if found and found[0]["state"] == "lost" and found[0]["tool_calls"] else None

    session = _await(told)
    assert (session["session_id"], session["tool_calls"], session["inferred"]) == ("s1", 1, False)


def test_events_that_waited_arrive_once_and_heartbeats_are_never_kept(
    run_program: Run, nobody: Mapping[str, str], spool: Path
):
    """Start and end of a session that nobody heard come with the next program."""
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(spool), "OTEL_SESSIONS_HEARTBEAT": "0.1"}
    run_program(WORK + "work(1); time.sleep(0.5)", env)
    with run_collector(port=_port(env)) as collector:
        run_program(WORK + "work(2); otel_sessions.flush(20); time.sleep(3)", env)
        collector.wait_for(lambda it: len(it.events("session.end")) == 2)
        for session in ("s1", "s2"):
            told = [event.name for event in collector.events() if event.session_id == session]
            assert sorted(name for name in told if "heartbeat" not in name) == [
                "session.end",
                "session.start",
            ]
        assert "otel_sessions.session.heartbeat" not in {
            event.name for event in collector.events() if event.session_id == "s1"
        }


def _await(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return value
