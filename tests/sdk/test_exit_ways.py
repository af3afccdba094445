"""Claims about every way a process can end, each in a real one: the end is told, the exit code is the program's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endings import Ending, ending
from outcomes import Ended
from span_collector import Collector

from otel_sessions import semconv

pytestmark = pytest.mark.slow  # together; what everybody meets is in test_exit.py too
Run = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]

PRELUDE = """
import atexit, os, signal, sys, threading, time
import otel_sessions
otel_sessions.init(service_name="travel")
otel_sessions.flush(30)
"""


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def _ended(process: subprocess.Popen[str], number: int) -> int:
    """Signal a program that is ready, and return its exit code."""
    _ready(process)
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


# --- Exceptions ---------------------------------------------------------------------------------------------


@ending("A block", "an exception ends its thread; the program goes on", "error", "error")
def test_an_exception_in_a_thread_ends_the_session_of_that_thread(
    run_program: Run, collector: Collector, documented: Ending
):
    """The program's own session has nothing to do with it, nor has the exit code."""
    ended = run_program(
        PRELUDE
        + """
def work():
    with otel_sessions.session('s'), otel_sessions.tool('t'):
        raise ValueError('no')
with otel_sessions.session('main'):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
""",
        collector.env,
    )
    assert ended.code == 0
    assert "ValueError: no" in ended.err
    assert collector.span("session main").outcome == "ok"
    assert collector.span("execute_tool t").status == "ERROR"
    documented.holds(collector.spans())


@ending("Nobody ended it", "an exception ends the thread that started it", "process_exit", None)
def test_a_session_that_a_failing_thread_left_open_is_not_blamed_for_it(
    run_program: Run, collector: Collector, documented: Ending
):
    """Nobody knows whether others still worked for it; the program ended well."""
    ended = run_program(
        PRELUDE
        + """
held = []
def work():
    held.append(otel_sessions.start_session('s'))
    raise ValueError('no')
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
        collector.env,
    )
    assert ended.code == 0
    documented.holds(collector.spans())


# --- Signals ------------------------------------------------------------------------------------------------

BLOCK = """
with otel_sessions.session('s'), otel_sessions.tool('t'):
    print('ready', flush=True)
    sys.stdin.readline()
"""
OPEN = """
session = otel_sessions.start_session('s')
tool = otel_sessions.tool('t')
tool.__enter__()
print('ready', flush=True)
sys.stdin.readline()
"""
EXIT_7 = "import signal, sys\nsignal.signal(signal.NUMBER, lambda *_: sys.exit(7))\n"
IGNORE = "import signal\nsignal.signal(signal.NUMBER, signal.SIG_IGN)\n"

SIGNALS: dict[str, tuple[str, str, str, str, int | None, str, str | None]] = {
    "SIGTERM in its block": ("SIGTERM", "", BLOCK, "", -15, "signal", "cancelled"),
    "SIGTERM, started without a block": ("SIGTERM", "", OPEN, "", -15, "signal", "cancelled"),
    "SIGHUP: its terminal is closed": ("SIGHUP", "", BLOCK, "", -1, "signal", "cancelled"),
    "SIGINT, Ctrl-C, in its block": ("SIGINT", "", BLOCK, "", -2, "interrupted", "cancelled"),
    "SIGINT, started without a block": ("SIGINT", "", OPEN, "", -2, "interrupted", "cancelled"),
    "SIGTERM, your handler calls `sys.exit(7)`": ("SIGTERM", EXIT_7, BLOCK, "", 7, "process_exit", "error"),
    "SIGTERM, such a handler was set after `init()`": (
        "SIGTERM",
        "",
        BLOCK,
        EXIT_7,
        7,
        "process_exit",
        "error",
    ),
    "SIGHUP, your handler calls `sys.exit(7)`": ("SIGHUP", EXIT_7, BLOCK, "", 7, "process_exit", "error"),
    "SIGINT, your handler calls `sys.exit(7)`": ("SIGINT", EXIT_7, BLOCK, "", 7, "process_exit", "error"),
    "SIGTERM is ignored (SIG_IGN)": ("SIGTERM", IGNORE, BLOCK, "", None, "completed", "ok"),
    "SIGHUP is ignored, as nohup does": ("SIGHUP", IGNORE, BLOCK, "", None, "completed", "ok"),
    "SIGINT is ignored, as in a shell's background job": (
        "SIGINT",
        IGNORE,
        BLOCK,
        "",
        None,
        "completed",
        "ok",
    ),
    "SIGHUP, set to SIG_IGN after `init()`": ("SIGHUP", "", BLOCK, IGNORE, None, "completed", "ok"),
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=ending("Signals", name, row[5], row[6]), id=name)
        for name, row in SIGNALS.items()
    ],
)
def test_a_signal_does_what_it_did_without_us(
    start_program: Start, collector: Collector, documented: Ending, row: Any
):
    """The default disposition, the user's handler or SIG_IGN decide; the exit code is theirs."""
    name, before, body, after, code, _, _ = row
    source = before + PRELUDE + after + body
    # pytest itself may have been started with SIGINT ignored.
    fresh = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = start_program((fresh + source).replace("NUMBER", name), collector.env)
    _ready(process)
    process.send_signal(getattr(signal, name))
    process.communicate("go on\n" if code is None else None, timeout=30)
    assert process.returncode == (code or 0)
    assert (semconv.FORCED_END in collector.span("execute_tool t").attributes) is (
        body is OPEN or row[5] == "signal"
    )
    documented.holds(collector.spans())


@ending(
    "Signals",
    "SIGKILL",
    None,
    None,
    "what was open, what ended in the last 0.2 s",
)
def test_kill_nine_can_tell_nothing(start_program: Start, collector: Collector, documented: Ending):
    """No process can; the last heartbeat has told what was open."""
    process = start_program(
        PRELUDE
        + """
with otel_sessions.session('s'):
    with otel_sessions.tool('early'):
        pass
    assert otel_sessions.flush(20).complete
    with otel_sessions.tool('open'):
        print('ready', flush=True)
        time.sleep(60)
""",
        collector.env,
    )
    assert _ended(process, signal.SIGKILL) == -signal.SIGKILL
    assert [span.name for span in collector.spans()] == ["execute_tool early"]
    assert collector.events("session.end") == []
    assert collector.events("session.start")
    documented.holds(collector.spans())


# --- Servers with handlers of their own ----------------------------------------------------------------------


ASYNCIO = (
    PRELUDE
    + """
import asyncio
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with otel_sessions.session('s'):
        with otel_sessions.tool('t'):
            print('ready', flush=True)
            await stop.wait()
asyncio.run(main())
sys.exit(3)
"""
)


@ending("Servers", "asyncio's `add_signal_handler(SIGTERM)` ends the loop", "completed", "ok")
def test_a_handler_of_the_event_loop_decides(start_program: Start, collector: Collector, documented: Ending):
    """It was set after us, and what it lets the program do in peace is no forced end."""
    assert _ended(start_program(ASYNCIO, collector.env), signal.SIGTERM) == 3
    assert semconv.FORCED_END not in collector.span("execute_tool t").attributes
    documented.holds(collector.spans())


APP = """
import otel_sessions
if INIT_FIRST:
    otel_sessions.init()
held = []
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if not INIT_FIRST:
        otel_sessions.init()
    if not held:
        held.append(otel_sessions.start_session("s"))
    with otel_sessions.session("request"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""

WSGI = """
import otel_sessions
held = []
def app(environ, start_response):
    otel_sessions.init()
    if not held:
        held.append(otel_sessions.start_session("s"))
    with otel_sessions.session("request"):
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]
"""


def _serve(command: list[str], app: str, folder: Path, collector: Collector) -> subprocess.Popen[str]:
    """Start a server, wait until it has answered."""
    (folder / "served.py").write_text(app)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = subprocess.Popen(
        [sys.executable, "-m", *(part.replace("PORT", str(port)) for part in command)],
        cwd=folder,
        env={**bare, **collector.env, "OTEL_SESSIONS_SPOOL": "off", "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    end = time.monotonic() + 30
    while not _answers(port):
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def _answers(port: int) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer,
    ):
        return answer.read() == b"ok"
    return False


UVICORN = "uvicorn is told to stop by SIGTERM; a session that no request ended"
LATE_INIT = "the same where `init()` came first in a request: uvicorn's handler was there before ours"
UNSAID = "what was open, what ended in the last 0.2 s"


@pytest.mark.parametrize(
    "init_first",
    [
        pytest.param(True, marks=ending("Servers", UVICORN, "signal", "cancelled")),
        pytest.param(False, marks=ending("Servers", LATE_INIT, None, None, UNSAID)),
    ],
)
def test_uvicorn_stops_in_its_own_way(
    collector: Collector, documented: Ending, tmp_path: Path, init_first: bool
):
    """When it has stopped it puts back what handled the signal before it, and raises it again.

    A handler that is there is left alone, so behind a late `init()` that is the default, which ends nothing.
    """
    pytest.importorskip("uvicorn")
    app = APP.replace("INIT_FIRST", str(init_first))
    process = _serve(["uvicorn", "--port", "PORT", "served:app"], app, tmp_path, collector)
    try:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
    if init_first:
        assert collector.span("session request").outcome == "ok"
    documented.holds(collector.spans())


@ending("Servers", "a gunicorn worker is told to stop; a session that no request ended", "process_exit", None)
def test_a_gunicorn_worker_stops_in_its_own_way(collector: Collector, documented: Ending, tmp_path: Path):
    """Its handlers end the worker by an exit of Python's, which leaves time for the end."""
    pytest.importorskip("gunicorn")
    process = _serve(["gunicorn", "--bind", "127.0.0.1:PORT", "served:app"], WSGI, tmp_path, collector)
    try:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert collector.span("session request").outcome == "ok"
    documented.holds(collector.spans())


# --- Exit handlers, globals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["before", "after"])
def test_exit_handlers_of_the_program_may_use_sessions(run_program: Run, collector: Collector, order: str):
    """What runs before our end is recorded; what runs behind it works unrecorded, and harms nobody."""
    register = """
@atexit.register
def last():
    with otel_sessions.session('at exit'), otel_sessions.tool('goodbye'):
        pass
    print('done', flush=True)
"""
    source = PRELUDE.replace(
        "\notel_sessions.init",
        register + "otel_sessions.init" if order == "before" else "\notel_sessions.init",
    )
    ended = run_program(source + (register if order == "after" else ""), collector.env)
    assert (ended.code, ended.out) == (0, "done\n")
    names = sorted(span.name for span in collector.spans())
    assert names == (["execute_tool goodbye", "session at exit"] if order == "after" else [])


@ending("Nobody ended it", "a global holds it until the interpreter is gone", "process_exit", None)
def test_a_session_in_a_global_ends_before_the_interpreter(
    run_program: Run, collector: Collector, documented: Ending
):
    """Whatever the order in which modules are torn down; a finaliser that ends it again changes nothing."""
    ended = run_program(
        PRELUDE
        + """
class Holder:
    def __init__(self):
        self.session = otel_sessions.start_session('s')
    def __del__(self):
        print(self.session.end('ok'), flush=True)
holder = Holder()
holder.cycle = holder
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out in ("False\n", "")
    documented.holds(collector.spans())


def test_init_again_leaves_one_end(run_program: Run, collector: Collector):
    """Exit handlers are not piled up: each span leaves once, after any number of calls."""
    ended = run_program(
        PRELUDE
        + """
session = otel_sessions.start_session('s')
for _ in range(100):
    otel_sessions.init()
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    assert [span.name for span in collector.spans()] == ["session s"]
    assert len(collector.events("session.end")) == 1
