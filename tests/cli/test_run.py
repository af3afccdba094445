"""`otel-sessions run`: the command is run as without us, and is a session; by real processes, signals, terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.cli._api import Api
from otel_sessions.cli.run import Ended, name_of, verdict_on

RUN = [sys.executable, "-m", "otel_sessions.cli.main", "run"]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def nobody() -> dict[str, str]:
    """Return an environment where no backend answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return clean_environment(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{probe.getsockname()[1]}"}
        )


@pytest.fixture
def start(nobody: dict[str, str]) -> Iterator[Start]:
    """Start commands below the runner; whatever still runs is ended at last."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, options: tuple[str, ...] = (), env: Mapping[str, str] = nobody, **more):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings = {**pipes, "preexec_fn": _take_signals, **more}
        process = subprocess.Popen([*RUN, *options, "--", *command], env=env, **settings)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            for child in children.read_text().split() if children.exists() else ():
                os.kill(int(child), signal.SIGKILL)  # it would hold our pipes, and run on
            process.kill()
        process.communicate(timeout=30)


def _take_signals() -> None:
    """Take what a shell lets its background jobs ignore, the tests' among them: Ctrl-C and its like."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def told(backend: BackendProcess, session_id: str, wanted=lambda session: session["state"] == "ended"):
    """Wait until what the backend tells of a session is as wanted; return it."""
    api, deadline = Api(backend.url), time.monotonic() + 30
    while True:
        session = api.session(session_id)
        if session is not None and wanted(session):
            return session
        assert time.monotonic() < deadline, session
        time.sleep(0.05)


def sending_to(backend: BackendProcess, **more: str) -> dict[str, str]:
    """Return the environment of a command that reports to the backend."""
    return clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, **more})


def python(source: str) -> tuple[str, str, str]:
    """Return the command that runs some Python."""
    return sys.executable, "-c", source


# --- As without us ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 130, 255])
def test_the_exit_code_is_the_commands_and_without_a_backend_one_line_tells_so(start: Start, code: int):
    """The command runs just the same where nobody listens; the line comes when it is over."""
    process = start("sh", "-c", f"echo out; echo err >&2; exit {code}")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, b"out\n")
    first, *ours = err.decode().splitlines()
    assert first == "err"
    assert len(ours) == 1, ours
    assert "not delivered" in ours[0]


@pytest.mark.parametrize(("end", "code"), [("exit 5", 5), ("kill -TERM $$", -signal.SIGTERM)])
def test_the_exit_code_is_the_commands_where_our_outputs_are_closed(nobody, end: str, code: int):
    """As cron jobs and daemons are started: then Python has no `sys.stdout`."""
    shell = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *RUN, "--", "sh", "-c", end],
        env=nobody,
        timeout=60,
        check=False,
        preexec_fn=_take_signals,
    )
    assert shell.returncode == code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL", "SIGSEGV", "SIGUSR1"])
def test_who_waits_for_the_runner_sees_the_signal_that_the_command_died_of(start: Start, name: str):
    """A shell shows 128 + its number then, as it would for the command."""
    process = start("sh", "-c", f"kill -{name.removeprefix('SIG')} $$")
    process.communicate(timeout=60)
    assert process.returncode == -signal.Signals[name]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_the_runner_is_passed_on_and_the_runner_ends_after_the_command(start: Start, name: str):
    """The command decides what it means: here it takes its time and ends well."""
    source = f"""
import os, signal, time
def asked(number, frame):
    time.sleep(0.3)
    os.write(1, b"tidied up\\n")
    raise SystemExit(7)
signal.signal(signal.{name}, asked)
print("ready", flush=True)
while True:
    time.sleep(60)
"""
    process = start(*python(source))
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"tidied up\n", 7), err.decode()


_COUNTS = """
import os, signal, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("TERM"))
signal.signal(signal.SIGUSR1, lambda *_: heard.append("USR1"))
print("ready", flush=True)
deadline = time.monotonic() + 30
while "USR1" not in heard and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.3)  # for a second one, were there any
print(*heard, flush=True)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells who else was sent a signal"
)
def test_a_signal_to_the_whole_group_reaches_the_command_once(start: Start):
    """As supervisors send it; the next one as well, and one to the runner alone still gets through."""
    process = start(*python(_COUNTS), start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.3)  # two pending signals of a kind are one
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"TERM TERM USR1\n", 0), err.decode()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no witness elsewhere")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_runner_leaves_no_process_behind(start: Start, how: signal.Signals):
    """Not even where it is killed: what it started beside the command ends with it."""
    process = start("sleep", "60", start_new_session=True)
    eventually(lambda: len(members(process.pid)) > 2)
    beside = members(process.pid) - {process.pid}
    process.send_signal(how)
    process.wait(timeout=60)
    if how is signal.SIGKILL:  # then the command goes on, as under nohup; it is ours to end
        for pid in beside:
            if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
                os.kill(pid, signal.SIGKILL)
    eventually(lambda: not members(process.pid))


def members(group: int) -> set[int]:
    """Return the living processes of a group."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        if int(its_group) == group and state != "Z":
            found.add(int(status.parent.name))
    return found


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def as_init() -> list[str]:
    """Return what runs a command as process 1, as containers do."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no new process namespace is allowed here")
    return command


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV"])
def test_as_process_1_the_exit_code_tells_the_signal(as_init: list[str], nobody: dict[str, str], name: str):
    """The kernel lets process 1 die of no signal of its own: it exits with 128 + the number instead."""
    command = ["sh", "-c", f"kill -{name.removeprefix('SIG')} $$"]
    ran = subprocess.run(
        [*as_init, *RUN, "--", *command], env=nobody, timeout=60, check=False, stderr=subprocess.PIPE
    )
    assert ran.returncode == 128 + signal.Signals[name]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads signals from /proc")
@pytest.mark.parametrize("before", ["", "trap '' HUP INT USR1; "])
def test_a_command_inherits_signals_as_they_were(nobody: dict[str, str], before: str):
    """What is ignored (nohup), blocked or default is so in the command: ours are not its."""
    show = "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status"
    direct = subprocess.run(
        ["bash", "-c", f"{before}exec {show}"], env=nobody, capture_output=True, check=True, timeout=60
    )
    below = subprocess.run(
        ["bash", "-c", f'{before}exec "$@"', "bash", *RUN, "--", "bash", "-c", f"exec {show}"],
        env=nobody,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert _signals(below.stdout) == _signals(direct.stdout)


def _signals(status: bytes) -> list[int]:
    """Read masks of signals, but for 32 and 33, which are the C library's own (posix_spawn ignores them)."""
    return [int(line.split()[1], 16) & ~(0b11 << 31) for line in status.splitlines()]


def test_ten_megabytes_pass_through_a_pipe_unchanged(start: Start):
    """Standard input and output are the command's own: nothing is read, nothing added."""
    content = os.urandom(10 * 1024 * 1024)
    out, _ = start("cat").communicate(content, timeout=60)
    assert out == content


def test_open_files_are_the_commands_too(nobody: dict[str, str]):
    """As with `<(…)` of a shell."""
    line = '"$@" -- cat <(echo inside)'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *RUN], env=nobody, capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"inside\n"


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("no-such-command-anywhere", (127, "no-such-command-anywhere: command not found")),
        ("./no-such-script", (127, "./no-such-script: command not found")),
        ("./orphan", (127, "./orphan: its interpreter was not found")),
        (os.devnull, (126, "/dev/null: Permission denied")),
    ],
)
def test_what_can_not_be_run_is_an_error_with_a_shells_exit_code(
    start: Start, backend: BackendProcess, tmp_path: Path, command: str, refusal: tuple[int, str]
):
    """127: there is none; 126: it is no program. Nothing was completed, and the session says why."""
    code, said = refusal
    (tmp_path / "orphan").write_text("#!/no/such/interpreter\n")
    (tmp_path / "orphan").chmod(0o755)
    process = start(command, options=("--id", "never-ran"), env=sending_to(backend), cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.decode() == f"otel-sessions: {said}\n"
    session = told(backend, "never-ran", lambda it: it["state"] == "ended" and it["spans"] == 1)
    assert (session["end_reason"], session["outcome"]) == ("error", "error")
    _, _, stored = backend.exchange("GET", "/api/v1/sessions/never-ran/otlp")
    assert said.encode() in stored


def test_without_a_command_one_line_says_how_to_give_one(start: Start):
    """An empty command is a mistake of the caller."""
    process = start()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count(b"\n")) == (2, 1)
    assert b"otel-sessions run -- COMMAND" in err


# --- At a terminal ---------------------------------------------------------------------------------------


class Terminal:
    """A program at a terminal of its own, in a session of the system's."""

    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(command[0], command, dict(env))  # noqa: S606 - no shell is wanted
            finally:
                os._exit(1)
        self.seen = ""
        # Wide, or a shell's editor cuts a long line.
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 500, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the screen shows something, and forget what came before its end."""
        deadline = time.monotonic() + 30
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.screen], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} is not on the screen: {self.seen!r}"
            self.seen += os.read(self.screen, 65536).decode()
        self.seen = self.seen[found.end() :]
        return found

    def end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.screen >= 0:
            os.close(self.screen)
        self.screen = -1


@pytest.fixture
def terminal(nobody: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Run commands at terminals."""
    opened: list[Terminal] = []

    def open_one(*command: str) -> Terminal:
        opened.append(Terminal(list(command), {**nobody, "TERM": "dumb"}))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()  # hangs up: what still runs there gets SIGHUP


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*forkpty:DeprecationWarning")
def test_ctrl_c_reaches_the_command_once(terminal: Callable[..., Terminal]):
    """The terminal interrupts the whole process group: what the runner hears is not passed on again."""
    source = """
import os, signal, sys, time
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
print("terminal", [os.isatty(n) for n in range(3)], os.tcgetpgrp(0) == os.getpgrp(), flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.5)
print("heard", len(heard), flush=True)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGINT)
"""
    screen = terminal(*RUN, "--", *python(source))
    screen.wait_for(r"terminal \[True, True, True\] True")
    screen.type("\x03")
    assert screen.wait_for(r"heard (\d+)")[1] == "1"
    screen.wait_for("not delivered")
    assert screen.end() == -signal.SIGINT


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*forkpty:DeprecationWarning")
def test_job_control_works(terminal: Callable[..., Terminal]):
    """Ctrl-Z stops the command and gives the shell back; `fg` goes on; the exit code arrives."""
    screen = terminal("bash", "--norc", "--noprofile", "-i")
    loop = "read a; echo got-$a; read b; echo got-$b; exit 5"
    screen.type(f"{' '.join(RUN)} -- bash -c 'echo up; {loop}'\n")
    screen.wait_for(r"[\r\n]up\r\n")
    screen.type("one\n")
    screen.wait_for(r"got-one\r\n")
    screen.type("\x1a")
    screen.wait_for("Stopped")
    screen.type("fg\n")
    screen.wait_for(r"bash -c")
    screen.type("two\n")
    screen.wait_for(r"got-two\r\n")
    screen.type("echo code=$?\n")
    screen.wait_for(r"code=5\r\n")
    screen.type("exit\n")
    screen.end()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*forkpty:DeprecationWarning")
def test_a_command_hears_that_its_terminal_is_gone(terminal: Callable[..., Terminal], tmp_path: Path):
    """The system tells the session's leader alone, which the runner is under ssh or in a container."""
    source = """
import pathlib, signal, sys, time
def gone(number, frame):
    pathlib.Path(sys.argv[1]).write_text("heard")
    raise SystemExit(0)
signal.signal(signal.SIGHUP, gone)
print("ready", flush=True)
time.sleep(20)
"""
    screen = terminal(*RUN, "--", *python(source), str(tmp_path / "heard"))
    screen.wait_for(r"ready\r\n")
    screen.close()
    assert screen.end() == 0
    assert (tmp_path / "heard").read_text() == "heard"


# --- As a session ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "ended", "message"),
    [
        ("exit 0", ("ok", "completed"), None),
        ("exit 3", ("error", "process_exit"), "exit code 3"),
        ("kill -TERM $$", ("cancelled", "signal"), "SIGTERM"),
        ("kill -INT $$", ("cancelled", "interrupted"), "SIGINT"),
        ("kill -SEGV $$", ("error", "signal"), "SIGSEGV"),
    ],
)
def test_exit_code_and_signal_become_outcome_and_reason(
    backend: BackendProcess, start: Start, script: str, ended: tuple[str, str], message: str | None
):
    """What the backend tells is how the command ended; nothing is said on standard error."""
    options = ("--id", "s1", "--name", "nightly", "--title", "of Monday", "--tag", "cron")
    process = start("sh", "-c", script, options=options, env=sending_to(backend))
    _, err = process.communicate(timeout=60)
    assert err == b""
    session = told(backend, "s1", lambda it: it["state"] == "ended" and it["spans"] == 1)
    assert (session["name"], session["title"], session["service"]) == ("nightly", "of Monday", "sh")
    assert (session["outcome"], session["end_reason"]) == ended
    assert (session["runs_count"], session["missing_spans"]) == (1, 0)
    if message is not None:
        _, _, stored = backend.exchange("GET", "/api/v1/sessions/s1/otlp")
        assert message.encode() in stored


def test_a_python_command_with_our_sdk_joins_the_session(backend: BackendProcess, start: Start):
    """`init()` takes up what the runner carries: one session, one run, the tool below the root."""
    source = """
import otel_sessions
otel_sessions.init(service_name="inside")
with otel_sessions.tool("look"):
    pass
"""
    process = start(*python(source), options=("--id", "joined"), env=sending_to(backend))
    assert process.wait(timeout=60) == 0
    session = told(backend, "joined", lambda it: it["state"] == "ended" and it["spans"] == 2)
    assert (session["runs_count"], session["traces_count"], session["missing_spans"]) == (1, 1, 0)
    rows = Api(backend.url).rows("joined")
    assert sorted(rows["columns"]["parent"]) == [-1, 0]


def test_a_shell_with_curl_nests_below_the_root(backend: BackendProcess, start: Start):
    """Any language that reads TRACEPARENT belongs to the session, without a word of ours."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = r"""
IFS=- read -r _ trace parent _ <<< "$TRACEPARENT"
now=$(date +%s)000000000
curl -sS -o /dev/null -H 'content-type: application/json' "$OTEL_EXPORTER_OTLP_ENDPOINT/v1/traces" -d @- <<END
{"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "curl"}}]},
 "scopeSpans": [{"spans": [{"traceId": "$trace", "spanId": "00000000000000ab", "parentSpanId": "$parent",
 "name": "from curl", "kind": 1, "startTimeUnixNano": "$now", "endTimeUnixNano": "$now"}]}]}]}
END
"""
    process = start("bash", "-c", script, options=("--id", "shell"), env=sending_to(backend))
    assert process.wait(timeout=60) == 0
    session = told(backend, "shell", lambda it: it["state"] == "ended" and it["spans"] == 2)
    assert (session["runs_count"], session["traces_count"]) == (1, 1)
    rows = Api(backend.url).rows("shell")
    assert "from curl" in rows["names"]
    assert sorted(rows["columns"]["parent"]) == [-1, 0]


def test_a_command_that_runs_longer_than_its_lease_stays_alive(backend: BackendProcess, start: Start):
    """Heartbeats go on while the command says nothing at all."""
    env = sending_to(backend, OTEL_SESSIONS_HEARTBEAT="0.2", OTEL_SESSIONS_LEASE="1")
    process = start("cat", options=("--id", "long"), env=env)
    session = told(backend, "long", lambda it: it["signal"] == "live")
    began, later = int(session["now"]), 3 * 10**9
    session = told(backend, "long", lambda it: int(it["now"]) > began + later)
    assert (session["state"], session["signal"]) == ("running", "live")
    assert [entry["state"] for entry in session["timeline"] if entry["state"] in ("stale", "lost")] == []
    process.communicate(b"", timeout=60)
    assert told(backend, "long")["outcome"] == "ok"


# --- What is decided -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/make", "all"], "make"),
        (["python3.12", "agents/trip.py", "--fast"], "trip.py"),
        (["python", "-m", "travel.agent"], "travel.agent"),
        (["python", "-c", "print()"], "python"),
        (["node", "index.js"], "index.js"),
        (["sh"], "sh"),
    ],
)
def test_a_session_is_named_for_the_program(command: list[str], name: str):
    """An interpreter says nothing: its script or module does. Arguments may hold secrets, and are not told."""
    assert name_of(command) == name


def test_a_shells_exit_code_for_a_signal_is_believed_where_that_signal_came():
    """143 after a SIGTERM is the signal's; 143 out of the blue is a code like any other."""
    assert verdict_on(Ended(143, frozenset({15}))) == ("cancelled", "signal", "SIGTERM")
    assert verdict_on(Ended(143)) == ("error", "process_exit", "exit code 143")
    assert verdict_on(Ended(130, frozenset({2}))) == ("cancelled", "interrupted", "SIGINT")
