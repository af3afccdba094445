"""Claims about the end of the process, each in a real one: nothing that ended is lost, nothing open is hidden."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endings import Ending, ending
from outcomes import Ended
from span_collector import Collector

from otel_sessions import semconv
from otel_sessions.sdk import _courier, _ledger, _liveness, _root, _sender
from otel_sessions.sdk._critical import is_critical

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


OPEN_AT_THE_END = {
    "the program ends": ("pass", 0, "process_exit", None, "UNSET", 0),
    "`sys.exit(0)`": ("sys.exit(0)", 0, "process_exit", None, "UNSET", 0),
    "`sys.exit(1)`": ("sys.exit(1)", 1, "process_exit", None, "UNSET", 0),
    "an exception ends the program": ("raise ValueError('no')", 1, "error", "error", "ERROR", 1),
    "Ctrl-C ends the program": (
        "raise KeyboardInterrupt",
        -signal.SIGINT,
        "interrupted",
        "cancelled",
        "UNSET",
        0,
    ),
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=ending("Nobody ended it", name, row[2], row[3]), id=row[0])
        for name, row in OPEN_AT_THE_END.items()
    ],
)
@pytest.mark.parametrize("as_module", [False, True])
def test_what_is_open_at_the_end_is_ended_and_marked(
    run_program: Run,
    collector: Collector,
    documented: Ending,
    row: Any,
    as_module: bool,
):
    """Nobody knows the outcome of a session that nobody ended, unless an exception ends the program."""
    how, code, _, _, status, events = row
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
    documented.holds(collector.spans())
    assert root.status == status
    assert root.events == ["exception"] * events
    for span in (tool, theirs):
        assert span.attributes[semconv.FORCED_END] is True
        assert semconv.LATE not in span.attributes
        assert span.end == root.end
    assert root.attributes[semconv.SPANS_STARTED] == root.attributes[semconv.SPANS_ENDED] == 3
    # It tells how all ended, and time may be short.
    assert next(iter(collector.spans())).name == "session s"


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


def _wait_until_it_rests(process: subprocess.Popen[str]) -> None:
    """Wait until the main thread waits in the kernel.

    A signal that comes just before wakes no Python, ours or not: 1 in 3,000 in a program that has just said
    that it is ready. It is then handled when the wait is over.
    """
    main = Path(f"/proc/{process.pid}/task/{process.pid}")
    if not main.exists():
        time.sleep(0.5)
        return
    deadline, rested = time.monotonic() + 20, 0
    while rested < 3:
        assert time.monotonic() < deadline
        resting = main.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "S"
        rested = rested + 1 if resting else 0
        time.sleep(0.02)


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
    _wait_until_it_rests(process)
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


STUCK = """
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
class Stuck(SpanExporter):
    entered = threading.Event()
    def export(self, spans):
        self.entered.set()
        time.sleep(60)
        return SpanExportResult.SUCCESS
    def shutdown(self):
        pass
"""


def _dies_in_time(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
    """Signal a program that is ready; it dies of it within 1.5 s, and what a busy machine takes."""
    _ready(process)
    began = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("wait", ["time.sleep(60)", "otel_sessions.flush(60)", "otel_sessions.shutdown(60)"])
def test_a_signal_waits_for_no_exporter(start_program: Start, collector: Collector, wait: str):
    """It hangs in export(), and perhaps the program waits for it: the process ends all the same, and tells."""
    process = start_program(
        PRELUDE
        + STUCK
        + """
otel_sessions.init(exporter=Stuck())
otel_sessions.start_session('s')
with otel_sessions.step('x'):
    pass
Stuck.entered.wait()
print('ready', flush=True)
"""
        + wait,
        collector.env,
    )
    _dies_in_time(process)
    (end,) = collector.events("session.end")
    assert end.attributes[semconv.SPANS_STARTED] == end.attributes[semconv.SPANS_ENDED] == 2


def test_a_signal_may_come_more_than_once(start_program: Start, collector: Collector):
    """As from timeout(1), which sends it to the process and to its group: the first one's work goes on."""
    process = start_program(PRELUDE + WAIT.format(wait="time.sleep(60)"), collector.env)
    _ready(process)
    collector.delay = 0.3
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.05)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert collector.span("session s").end_reason == "signal"
    assert collector.span("execute_tool t").attributes[semconv.FORCED_END] is True


def test_a_signal_waits_for_no_lock_of_what_it_interrupted(start_program: Start, collector: Collector):
    """A processor of the user's holds its lock just then, and wants it for each span that ends."""
    process = start_program(
        PRELUDE
        + STUCK
        + """
class Counting(SpanProcessor):
    lock = threading.Lock()
    def on_end(self, span):
        with self.lock:
            if span.name == 'the one':
                print('ready', flush=True)
                time.sleep(60)
otel_sessions.init(span_processors=[Counting()])
with otel_sessions.session('s'):
    with otel_sessions.step('the one'):
        pass
""",
        collector.env,
    )
    _dies_in_time(process)
    root = collector.span("session s")
    assert (root.end_reason, root.attributes[semconv.SPANS_ENDED]) == ("signal", 2)
    assert len(collector.spans("the one")) == 1
    assert len(collector.events("session.end")) == 1


def test_a_signal_in_a_lock_of_ours_comes_again(start_program: Start, collector: Collector):
    """The main thread holds what ending the session needs: it is let go on for a moment."""
    process = start_program(
        PRELUDE
        + """
from otel_sessions.sdk._session import root_of
class Trap(dict):
    def __setitem__(self, key, value):
        dict.__setitem__(self, key, value)
        print('ready', flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
session = otel_sessions.start_session('s')
root = root_of(session)
root._open = Trap(root._open)
with otel_sessions.step('x'):
    time.sleep(60)
""",
        collector.env,
    )
    _ready(process)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert collector.span("session s").end_reason == "signal"
    assert collector.span("x").attributes[semconv.FORCED_END] is True


def test_a_signal_that_was_postponed_is_sent_until_it_is_taken(start_program: Start, collector: Collector):
    """The second may wake nobody: one that arrives just before the main thread begins to wait is seen after it."""
    process = start_program(
        PRELUDE
        + """
from otel_sessions.sdk._session import root_of
lost = []
def losing_the_first(send):
    def wrapper(receiver, number):
        if not lost:
            lost.append(number)
        else:
            send(receiver, number)
    return wrapper
os.kill, signal.pthread_kill = losing_the_first(os.kill), losing_the_first(signal.pthread_kill)
class Trap(dict):
    def __setitem__(self, key, value):
        dict.__setitem__(self, key, value)
        print('ready', flush=True)
        signal.raise_signal(signal.SIGTERM)
session = otel_sessions.start_session('s')
root = root_of(session)
root._open = Trap(root._open)
with otel_sessions.step('x'):
    threading.Event().wait(60)
""",
        collector.env,
    )
    _ready(process)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert collector.span("session s").end_reason == "signal"


def test_what_takes_a_lock_of_ours_is_known_to_the_signal():
    """Every function of those that end a session needs, or a signal in its midst would wait for itself."""
    in_our_threads_only = {"Courier.take", "Courier._run", "Courier._carry_next", "Courier._await_load"}
    for module in (_root, _ledger, _liveness, _sender, _courier):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            for method in filter(inspect.isfunction, vars(kind).values()):
                ours = method.__code__.co_filename == module.__file__
                ours = ours and method.__qualname__ not in in_our_threads_only
                if ours and re.search(r"with .*lock(,.*)?:", inspect.getsource(method)):
                    assert is_critical(method.__code__), method.__qualname__


def test_a_fault_in_the_handler_reaches_no_user_code(start_program: Start, collector: Collector):
    """The code that is interrupted may run in any kind of scope; the signal does what it does."""
    process = start_program(
        PRELUDE
        + r"""
class Scope:
    def __init__(self):
        self.names = {}
    def __getitem__(self, name):
        return self.names[name]
    def __setitem__(self, name, value):
        self.names[name] = value
otel_sessions.start_session('s')
print('ready', flush=True)
exec("import time\nwhile True: time.sleep(0.01)", {}, Scope())
""",
        collector.env,
    )
    _dies_in_time(process)
    assert collector.span("session s").end_reason == "signal"


def test_a_signal_while_the_exporter_is_imported_loses_nothing(start_program: Start, collector: Collector):
    """Our thread imports, and the main thread imports just then: neither waits for the other."""
    process = start_program(
        """
import sys, threading, time
import urllib3, opentelemetry.sdk.trace.export, otel_sessions
entered = threading.Event()
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == 'requests' and not entered.is_set():
            entered.set()
            time.sleep(0.5)
sys.meta_path.insert(0, Slow())
otel_sessions.init()
otel_sessions.start_session('s')
entered.wait()
print('ready', flush=True)
import requests
time.sleep(60)
""",
        collector.env,
    )
    _dies_in_time(process)
    assert collector.span("session s").end_reason == "signal"


@pytest.mark.parametrize("how", ["signal", "exit"])
def test_of_many_open_spans_the_root_leaves_first(start_program: Start, collector: Collector, how: str):
    """A slow collector takes but two batches in time: how the session ended must be among them."""
    process = start_program(
        PRELUDE
        + """
session = otel_sessions.start_session('s')
opened = [tracer.start_span('other') for _ in range(1500)]
otel_sessions.flush(30)
print('ready', flush=True)
sys.stdin.readline()
""",
        collector.env,
    )
    _ready(process)
    collector.delay = 1.0
    if how == "signal":
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    else:
        process.communicate("go on\n", timeout=30)
    collector.wait_for(lambda seen: seen.spans())
    (first, *_) = collector.spans()
    assert first.name == "session s"
    assert first.attributes[semconv.SPANS_STARTED] == first.attributes[semconv.SPANS_ENDED] == 1501
    (end,) = collector.events("session.end")
    assert end.attributes[semconv.SPANS_ENDED] == 1501


# --- Others export ------------------------------------------------------------------------------------------


JOINED = """
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
otel_sessions.init()
"""
GIVEN = """
otel_sessions.init(span_processors=[BatchSpanProcessor(OTLPSpanExporter())], export=False)
"""
ENDS = {
    "exit": "",
    "signal": "os.kill(os.getpid(), signal.SIGTERM)",
    "shutdown": "assert otel_sessions.shutdown(20).complete is None; os._exit(0)",
    "flush": "session.end(); assert otel_sessions.flush(20).complete is None; os._exit(0)",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("setup", [JOINED, GIVEN], ids=["joined", "given"])
def test_what_others_export_is_sent_too(run_program: Run, collector: Collector, setup: str, end: str):
    """By their force_flush; whether it arrived nobody can tell, so nobody does."""
    ended = run_program(
        """
import os, signal
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
import otel_sessions
"""
        + setup
        + """
session = otel_sessions.start_session('s')
with otel_sessions.step('x'):
    pass
"""
        + ENDS[end],
        collector.env,
    )
    assert ended.code == (-signal.SIGTERM if end == "signal" else 0), ended.err
    assert sorted(span.name for span in collector.spans()) == ["session s", "x"]


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGTERM)"], ids=["exit", "signal"])
def test_others_that_hang_cost_the_deadline_at_most(run_program: Run, collector: Collector, end: str):
    """A flush keeps its own, as often as it is called, and holds one thread, not one each time."""
    ended = run_program(
        PRELUDE
        + STUCK
        + """
class Hanging(SpanProcessor):
    def force_flush(self, timeout_millis=0):
        time.sleep(60)
    shutdown = force_flush
otel_sessions.init(span_processors=[Hanging()])
session = otel_sessions.start_session('s')
began = time.monotonic()
result = otel_sessions.flush(0.2)
again = otel_sessions.flush(0.2)
assert time.monotonic() - began < 10
assert (result.complete, again.complete) == (False, False), result
aside = [thread for thread in threading.enumerate() if thread.name == 'otel-sessions-aside']
assert len(aside) == 1
print(time.time(), flush=True)
"""
        + end,
        collector.env,
    )
    assert ended.code == (-signal.SIGTERM if end else 0), ended.err
    assert time.time() - float(ended.out) < 6
    assert collector.span("session s").end_reason == ("signal" if end else "process_exit")


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


def test_processors_that_are_slow_hold_the_exit_no_longer_than_the_deadline(
    run_program: Run, collector: Collector
):
    """Each open span takes them 0.2 s: what was not ended in time is told, and the root is not among it."""
    ended = run_program(
        PRELUDE
        + """
from opentelemetry.sdk.trace import SpanProcessor
class Slow(SpanProcessor):
    def on_end(self, span):
        time.sleep(0.2)
otel_sessions.init(span_processors=[Slow()])
session = otel_sessions.start_session('s')
opened = [tracer.start_span('other') for _ in range(30)]
print(time.time(), flush=True)
""",
        collector.env,
    )
    assert time.time() - float(ended.out) < 6
    assert collector.span("session s").attributes[semconv.SPANS_ENDED] == 31
    assert sum("could not be ended in time" in line for line in _lines(ended)) == 1


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
