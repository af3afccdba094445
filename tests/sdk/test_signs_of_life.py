"""What a whole program tells of its sessions while they run: the path from `session()` to the wire."""

from __future__ import annotations

import signal

import pytest
from log_receivers import Reply, await_, http_receiver

START, BEAT, SPAN = "session.start", "otel_sessions.session.heartbeat", "otel_sessions.span.start"
STATE, END = "otel_sessions.session.state", "session.end"
QUICK = {"OTEL_SESSIONS_HEARTBEAT": "0.2", "OTEL_SESSIONS_LEASE": "5"}
COUNTS = tuple(f"otel_sessions.session.spans.{name}" for name in ("started", "ended", "dropped"))


def test_events_and_root_tell_one_story(collector, run_program):
    """Ids, process, counts and ending are the same in the events and on the root span."""
    ended = run_program(
        """
        import time, otel_sessions
        from opentelemetry import trace
        otel_sessions.init(service_name="planner")
        with otel_sessions.session("plan trip", title="Lisbon") as session:
            with trace.get_tracer("app").start_as_current_span("slow"):
                time.sleep(1.7)
            with session.waiting("approval"):
                pass
        """,
        {**collector.env, **QUICK},
    )
    assert (ended.code, ended.err) == (0, "")
    root, slow = collector.span("session plan trip"), collector.span("slow")
    events = collector.events()
    names = [event.name for event in events]
    assert (names[0], names[-1]) == (START, END)
    assert names.count(SPAN) == 1
    assert names.count(BEAT) >= 5
    assert [event.attributes.get("otel_sessions.waiting_for") for event in collector.events(STATE)] == [
        "approval",
        None,
    ]
    (announced,) = collector.events(SPAN)
    assert (announced.trace_id, announced.span_id) == (slow.trace_id, slow.span_id)
    assert announced.attributes["otel_sessions.span.start"] == slow.start
    assert announced.attributes["otel_sessions.span.parent_id"] == f"{root.span_id:016x}"
    assert {event.span_id for event in events if event is not announced} <= {root.span_id, slow.span_id}
    assert {event.session_id for event in events} == {root.session_id}
    assert {event.attributes["otel_sessions.process.id"] for event in events} == {
        root.attributes["otel_sessions.process.id"]
    }
    assert (events[0].time, events[-1].time) == (root.start, root.end)
    end = events[-1].attributes
    assert [end[name] for name in COUNTS] == [root.attributes[name] for name in COUNTS] == [2, 2, 0]
    assert (end["otel_sessions.session.outcome"], root.outcome) == ("ok", "ok")
    assert (end["otel_sessions.session.end_reason"], root.end_reason) == ("completed", "completed")


def test_a_killed_program_falls_silent_without_an_end(collector, start_program):
    """After kill -9 the world has start, heartbeats and the open span, and nothing that says it ended."""
    program = start_program(
        """
        import time, otel_sessions
        otel_sessions.init()
        with otel_sessions.session("doomed"), otel_sessions.tool("never returns"):
            time.sleep(60)
        """,
        {**collector.env, **QUICK},
    )
    collector.wait_for(lambda seen: seen.events(SPAN) and len(seen.events(BEAT)) > 3)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert collector.events(END) == []
    assert collector.events()[-1].name in (BEAT, SPAN)
    (announced,) = collector.events(SPAN)
    assert announced.attributes["otel_sessions.span.name"] == "execute_tool never returns"
    assert collector.events(BEAT)[-1].attributes["otel_sessions.open_spans"] == [f"{announced.span_id:016x}"]


@pytest.mark.parametrize(("limit", "outcome"), [("timeout", "error"), ("idle_timeout", None)])
def test_a_time_limit_ends_the_run_but_not_the_code(collector, run_program, limit, outcome):
    """The run is ended from the sender's thread while the block sleeps; the code goes on undisturbed."""
    ended = run_program(
        f"""
        import time, otel_sessions
        otel_sessions.init()
        with otel_sessions.session("long", {limit}=0.3) as session:
            end = time.monotonic() + 20
            while session.outcome is None and session.end_reason is None and time.monotonic() < end:
                time.sleep(0.01)
            print(session.end_reason)
        print("went on")
        """,
        {**collector.env, **QUICK},
    )
    assert ended.code == 0, ended.err
    assert "went on" in ended.out
    root = collector.span("session long")
    (end,) = collector.events(END)
    assert (root.outcome, root.end_reason) == (outcome, limit)
    assert end.attributes.get("otel_sessions.session.outcome") == outcome
    assert end.attributes["otel_sessions.session.end_reason"] == limit
    assert root.status == ("ERROR" if outcome else "UNSET")


def test_time_limits_hold_where_no_event_is_sent(collector, run_program):
    """OTEL_LOGS_EXPORTER=none: no event at all, and the timeout ends the run all the same."""
    ended = run_program(
        """
        import time, otel_sessions
        otel_sessions.init()
        with otel_sessions.session("long", timeout=0.2) as session:
            end = time.monotonic() + 20
            while session.end_reason is None and time.monotonic() < end:
                time.sleep(0.01)
        """,
        {**collector.env, "OTEL_LOGS_EXPORTER": "none"},
    )
    assert (ended.code, ended.err) == (0, "")
    assert collector.span("session long").end_reason == "timeout"
    assert collector.events() == []


def test_a_target_that_takes_traces_alone_costs_one_line(run_program):
    """Spans arrive; 404 for logs is said once, with what is lost."""
    with http_receiver() as receiver:
        receiver.refuse["/v1/logs"] = Reply(404)
        ended = run_program(
            """
            import otel_sessions
            otel_sessions.init()
            for number in range(3):
                with otel_sessions.session("short"):
                    otel_sessions.flush()
            """,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}", **QUICK},
        )
    assert ended.code == 0
    assert [line for line in ended.err.splitlines() if "takes no logs" in line] == ended.err.splitlines()
    assert len(ended.err.splitlines()) == 1
    paths = [path for path, _ in receiver.requests]
    assert paths.count("/v1/logs") == 1
    assert paths.count("/v1/traces") >= 1


def test_a_forked_child_has_a_signal_of_its_own(collector, run_program):
    """The child's heartbeats bear the parent's root and its own process; start and end are the parent's alone."""
    ended = run_program(
        """
        import multiprocessing, time, otel_sessions

        def work():
            with otel_sessions.step("in the child"):
                time.sleep(0.7)

        otel_sessions.init()
        with otel_sessions.session("family"):
            child = multiprocessing.get_context("fork").Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 0
        """,
        {**collector.env, **QUICK},
    )
    assert (ended.code, ended.err) == (0, "")
    root = collector.span("session family")
    childs = [event for event in collector.events() if event.attributes.get("otel_sessions.child")]
    parents = [event for event in collector.events() if event not in childs]
    assert {event.name for event in childs} == {BEAT}
    assert {event.name for event in parents} == {START, BEAT, END}
    assert {event.span_id for event in childs + parents} == {root.span_id}
    (childs_id,) = {event.attributes["otel_sessions.process.id"] for event in childs}
    (parents_id,) = {event.attributes["otel_sessions.process.id"] for event in parents}
    assert childs_id != parents_id == root.attributes["otel_sessions.process.id"]
    assert childs[0].attributes["otel_sessions.seq"] == 1
    assert childs[-1].attributes["otel_sessions.session.spans.ended"] == 1


def test_an_outage_of_the_target_is_no_end_of_the_run(start_program):
    """A target that comes up after the session began learns of its start, its life and its end."""
    with http_receiver() as receiver:
        port = receiver.port
    program = start_program(
        """
        import sys, otel_sessions
        otel_sessions.init()
        with otel_sessions.session("early"):
            print("open", flush=True)
            sys.stdin.readline()
        """,
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_TRACES_EXPORTER": "none", **QUICK},
    )
    assert program.stdout.readline() == "open\n"
    with http_receiver(port=port) as receiver:
        await_(lambda: len(receiver.events(BEAT)) > 2, 20)
        program.stdin.write("\n")
        program.stdin.flush()
        await_(lambda: receiver.events(END), 20)
        names = [event.name for event in receiver.events()]
        assert (names[0], names[-1]) == (START, END)
    assert program.wait() == 0
