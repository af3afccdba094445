"""Claims about the end of the process, each in a real one: nothing that ended is lost, nothing open is hidden."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from outcomes import Ended
from span_collector import Collector

from otel_sessions import semconv

Run = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]

PRELUDE = """
import atexit, os, signal, sys, threading, time
from opentelemetry import trace
import otel_sessions
otel_sessions.init(service_name="travel")
otel_sessions.flush(30)
tracer = trace.get_tracer("other")
"""
"""The flush waits until the exporters are imported: on a busy machine that alone can outlast an exit's 1.5 s."""


def _programs(*lines: str) -> str:
    return PRELUDE + "\n".join(lines)


# --- Normal ends and exceptions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        ("pass", 0, "completed", "ok", "UNSET", 0),
        ("sys.exit(0)", 0, "process_exit", "ok", "UNSET", 0),
        ("sys.exit(1)", 1, "process_exit", "error", "ERROR", 0),
        ("raise ValueError('no')", 1, "error", "error", "ERROR", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT, "interrupted", "cancelled", "UNSET", 0),
    ],
)
def test_a_block_ends_with_the_program(
    run_program: Run,
    collector: Collector,
    row: Any,
):
    """The program's own exit code, and the end that the table says."""
    how, code, reason, outcome, status, events = row
    ended = run_program(_programs("with otel_sessions.session('s'):", f"    {how}"), collector.env)
    assert ended.code == code, ended.err
    root = collector.span("session s")
    assert (root.end_reason, root.outcome, root.status) == (reason, outcome, status)
    assert root.events == ["exception"] * events
    (end,) = collector.events("session.end")
    assert end.attributes[semconv.SESSION_END_REASON] == reason
    assert "otel_sessions" not in ended.err


@pytest.mark.parametrize(
    "row",
    [
        ("pass", 0, "process_exit", None, "UNSET", 0),
        ("sys.exit(1)", 1, "process_exit", None, "UNSET", 0),
        ("raise ValueError('no')", 1, "error", "error", "ERROR", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT, "interrupted", "cancelled", "UNSET", 0),
    ],
)
@pytest.mark.parametrize("as_module", [False, True])
def test_what_is_open_at_the_end_is_ended_and_marked(
    run_program: Run,
    collector: Collector,
    row: Any,
    as_module: bool,
):
    """Nobody knows the outcome of a session that nobody ended, unless an exception ends the program."""
    how, code, reason, outcome, status, events = row
    ended = run_program(
        _programs(
            "session = otel_sessions.start_session('s')",
            "tool = otel_sessions.tool('t')",
            "tool.__enter__()",
            "theirs = tracer.start_span('theirs')",
            how,
        ),
        {**collector.env, "PYTHONPATH": "."},
        *(["-c", "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"] if as_module else []),
    )
    assert ended.code == code, ended.err
    root, tool, theirs = (collector.span(n) for n in ("session s", "execute_tool t", "theirs"))
    assert (root.end_reason, root.outcome, root.status) == (reason, outcome, status)
    assert root.events == ["exception"] * events
    for span in (tool, theirs):
        assert span.attributes[semconv.FORCED_END] is True
        assert semconv.LATE not in span.attributes
        assert span.end == root.end
    assert root.attributes[semconv.SPANS_STARTED] == root.attributes[semconv.SPANS_ENDED] == 3
    # The youngest first: a reader who sees the root has seen what is below.
    order = [span.name for span in collector.spans()]
    assert order == ["theirs", "execute_tool t", "session s"]


def test_an_error_that_was_handled_is_not_the_end(run_program: Run, collector: Collector):
    """Only what came through the main program counts; `code` and test runners leave traces as well."""
    run_program(
        _programs(
            "import code",
            "code.InteractiveInterpreter().runsource('1/0')",
            "assert sys.last_value is not None",
            "otel_sessions.start_session('s')",
        ),
        collector.env,
    )
    assert collector.span("session s").end_reason == "process_exit"


def test_the_last_words_of_others_are_sent(run_program: Run, collector: Collector):
    """What other exit handlers end before ours runs is exported too."""
    run_program(
        _programs("span = tracer.start_span('theirs')", "atexit.register(span.end)", "time.sleep(0.5)"),
        collector.env,
    )
    assert semconv.FORCED_END not in collector.span("theirs").attributes


def test_threads_that_outlive_the_main_program_are_waited_for(run_program: Run, collector: Collector):
    """A session in a thread that runs on after the main program's end ends as it was meant to."""
    ended = run_program(
        _programs(
            "def work():",
            "    with otel_sessions.session('s'):",
            "        time.sleep(0.3)",
            "threading.Thread(target=work).start()",
        ),
        collector.env,
    )
    assert ended.err == ""
    assert collector.span("session s").outcome == "ok"


# --- Signals ------------------------------------------------------------------------------------------------


WAIT = """
with otel_sessions.session('s'):
    with otel_sessions.tool('t'):
        print('ready', flush=True)
        {wait}
"""


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "wait", ["time.sleep(60)", "threading.Event().wait(60)", "import asyncio; asyncio.run(asyncio.sleep(60))"]
)
def test_a_signal_ends_everything_and_then_does_what_it_did(
    start_program: Start, collector: Collector, number: int, wait: str
):
    """Where the disposition was the default: all is sent, and the process dies of the signal."""
    process = start_program(PRELUDE + WAIT.format(wait=wait), collector.env)
    _ready(process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    root, tool = collector.span("session s"), collector.span("execute_tool t")
    assert (root.end_reason, root.outcome, root.status) == ("signal", "cancelled", "UNSET")
    assert tool.attributes[semconv.FORCED_END] is True
    (end,) = collector.events("session.end")
    assert end.attributes[semconv.SESSION_OUTCOME] == "cancelled"


def test_a_signal_in_the_midst_of_spans_loses_nothing(start_program: Start, collector: Collector):
    """The signal may land inside of a span's lock; then it is handled a little later, not never."""
    process = start_program(
        PRELUDE
        + """
with otel_sessions.session('s'):
    print('ready', flush=True)
    while True:
        with otel_sessions.tool('t') as t:
            for number in range(50):
                t.span.set_attribute('k', number)
        """,
        {**collector.env, "OTEL_BSP_MAX_QUEUE_SIZE": "100"},
    )
    _ready(process)
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 10
    assert collector.span("session s").end_reason == "signal"


def test_a_handler_of_the_users_is_left_alone(start_program: Start, collector: Collector):
    """Set before or after us, it decides; what it ends is sent at exit."""
    process = start_program(
        """
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        """.replace("        ", "")
        + PRELUDE
        + WAIT.format(wait="time.sleep(60)"),
        collector.env,
    )
    _ready(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 7
    root = collector.span("session s")
    assert (root.end_reason, root.outcome) == ("process_exit", "error")


def test_an_ignored_signal_stays_ignored(start_program: Start, collector: Collector):
    """What nohup started must live on."""
    process = start_program(
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        + PRELUDE
        + WAIT.format(wait="sys.stdin.readline()"),
        collector.env,
    )
    _ready(process)
    process.send_signal(signal.SIGHUP)
    process.communicate("go on\n", timeout=30)
    assert process.returncode == 0
    assert collector.span("session s").outcome == "ok"


def test_signals_can_be_left_to_others(run_program: Run):
    """`signals=False` installs nothing, and gives ours back."""
    ended = run_program(
        """
        import signal, threading, otel_sessions
        from_thread = threading.Thread(target=otel_sessions.init)
        from_thread.start(); from_thread.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        otel_sessions.init()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        otel_sessions.init(signals=False)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """,
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
    )
    assert ended.code == 0, ended.err


# --- Nobody listens ---------------------------------------------------------------------------------------------


def _lines(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if line.strip()]


def test_without_a_backend_the_program_exits_in_time_with_one_line(run_program: Run, silent_port: int):
    """The line says what was not delivered, where, and why."""
    ended = run_program(
        """
        import time, otel_sessions
        otel_sessions.init()
        with otel_sessions.session("s"), otel_sessions.tool("t"):
            pass
        began = time.monotonic()
        import atexit
        print(time.time(), flush=True)
        """,
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent_port}"},
    )
    late = time.time() - float(ended.out)
    assert ended.code == 0
    (line,) = _lines(ended)
    assert re.search(
        rf"2 of 2 spans and 2 life cycle events were not delivered to http://127.0.0.1:{silent_port}/v1/traces",
        line,
    )
    assert "Connection refused" in line
    assert late < 5  # 1.5 s and the interpreter's own end; generous, for this machine is shared


def test_a_backend_that_hangs_holds_the_exit_no_longer_than_the_deadline(
    run_program: Run, collector: Collector
):
    """Its answer would come after ten seconds."""
    collector.delay = 10.0
    ended = run_program(
        _programs("with otel_sessions.session('s'): pass", "print(time.time())"), collector.env
    )
    assert time.time() - float(ended.out) < 6
    assert ended.code == 0
    assert sum("not delivered" in line for line in _lines(ended)) == 1


def test_a_port_of_the_other_protocol_is_named(run_program: Run, silent_port: int):
    """4317 is gRPC's by convention: with HTTP spoken to it nothing will ever arrive."""
    ended = run_program(
        _programs("with otel_sessions.session('s'): pass"),
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_LOGS_EXPORTER": "none"},
    )
    if "not delivered" in ended.err:
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in ended.err


def test_a_program_without_spans_says_nothing(run_program: Run, silent_port: int):
    """Nothing was lost, so there is nothing to say."""
    ended = run_program(PRELUDE, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent_port}"})
    assert (ended.code, ended.err) == (0, "")


# --- Fork ---------------------------------------------------------------------------------------------------------


def test_a_forked_child_ends_nothing_of_its_parents(run_program: Run, collector: Collector):
    """Each span leaves once; the child's own are sent, belong to the session, and tell their own process."""
    ended = run_program(
        PRELUDE
        + """
with otel_sessions.session('s') as session:
    with otel_sessions.tool('around'):
        pid = os.fork()
        if pid == 0:
            assert session.state == 'running'
            assert session.end() is False
            assert session.state == 'running'
            assert otel_sessions.current_session() is session
            with otel_sessions.step('in child'):
                pass
        else:
            assert os.waitpid(pid, 0)[1] == 0
            with otel_sessions.step('in parent'):
                pass
if pid == 0:
    assert otel_sessions.current_session() is None
    sys.exit(0)
print(os.getpid(), pid)
        """,
        collector.env,
    )
    assert ended.code == 0, ended.err
    parent, child = map(int, ended.out.split())
    names = sorted(span.name for span in collector.spans())
    assert names == ["execute_tool around", "in child", "in parent", "session s"]
    in_child, in_parent = collector.span("in child"), collector.span("in parent")
    root = collector.span("session s")
    assert in_child.session_id == in_parent.session_id == root.session_id
    assert in_child.parent_id == in_parent.parent_id == collector.span("execute_tool around").span_id
    assert (in_child.resource["process.pid"], in_parent.resource["process.pid"]) == (child, parent)
    assert in_child.resource["service.instance.id"] != in_parent.resource["service.instance.id"]
    assert root.attributes[semconv.SPANS_STARTED] == 3
    assert len({span.span_id for span in collector.spans()}) == 4
    of_child = [e for e in collector.events() if e.attributes.get(semconv.CHILD)]
    assert {event.span_id for event in of_child} == {root.span_id}
    assert of_child[-1].attributes[semconv.SPANS_ENDED] == 1
    assert len(collector.events("session.end")) == 1


def test_a_forked_child_may_have_sessions_of_its_own(run_program: Run, collector: Collector):
    """Ids differ from the parent's, also those of the same number since the start."""
    run_program(
        PRELUDE
        + """
pid = os.fork()
with otel_sessions.session('s'):
    pass
if pid:
    os.waitpid(pid, 0)
        """,
        collector.env,
    )
    first, second = collector.spans("session s")
    assert first.trace_id != second.trace_id
    assert first.session_id != second.session_id
    assert first.attributes[semconv.PROCESS_ID] != second.attributes[semconv.PROCESS_ID]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_send_what_they_did(run_program: Run, collector: Collector, method: str):
    """They leave without atexit when forked; and they belong to the session when it is carried."""
    ended = run_program(
        """
import multiprocessing, os, sys
import otel_sessions

def work():
    if otel_sessions.current_session() is None:
        otel_sessions.init()
    otel_sessions.flush(30)
    with otel_sessions.step('in child'):
        pass

if __name__ == '__main__':
    otel_sessions.init()
    otel_sessions.flush(30)
    with otel_sessions.session('s') as session:
        os.environ.update(otel_sessions.child_env())
        child = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else 'METHOD').Process(target=work)
        child.start()
        child.join()
        assert child.exitcode == 0
        """.replace("METHOD", method),
        collector.env,
    )
    assert ended.code == 0, ended.err
    assert collector.span("in child").session_id == collector.span("session s").session_id


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_fork_in_the_midst_of_work_hangs_nobody(run_program: Run, collector: Collector):
    """Forks while other threads start and end sessions: every child starts, ends and sends its own."""
    ended = run_program(
        PRELUDE
        + """
stop = threading.Event()
def churn():
    while not stop.is_set():
        with otel_sessions.session('churn'), otel_sessions.tool('t'):
            pass
threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads: thread.start()
pids = []
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        with otel_sessions.session('child'):
            pass
        assert otel_sessions.flush(20).complete
        os._exit(0)
    pids.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in pids]
stop.set()
for thread in threads: thread.join()
assert codes == [0] * 10, codes
        """,
        {**collector.env, "PYTHONWARNINGS": "ignore"},
    )
    assert ended.code == 0, ended.err
    assert len(collector.spans("session child")) == 10


def test_kill_nine_loses_at_most_the_last_moment(start_program: Start, collector: Collector):
    """What ended a moment ago has left; that the session was open is known by its start."""
    process = start_program(
        PRELUDE
        + """
with otel_sessions.session('s'):
    with otel_sessions.tool('t'):
        pass
    print('ready', flush=True)
    time.sleep(60)
        """,
        collector.env,
    )
    _ready(process)
    collector.wait_for(lambda seen: seen.spans("execute_tool t") and seen.events("session.start"))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert collector.spans("session s") == []
    assert collector.events("session.end") == []


def test_the_console_is_a_target_too(run_program: Run):
    """OTEL_TRACES_EXPORTER=console prints each span."""
    ended: Any = run_program(
        _programs("with otel_sessions.session('s'): pass"),
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "none"},
    )
    assert '"name": "session s"' in ended.out
    assert ended.err == ""
