"""The parts of the demo: its model, its leash, what it watches for."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from otel_sessions.cli._demo.model_server import complete
from otel_sessions.cli._demo.processes import agent_environment, child_environment, running
from otel_sessions.cli._demo.programme import Programme
from otel_sessions.cli._demo.stage import at_once
from otel_sessions.cli._demo.story import SIGHTS, Watch
from otel_sessions.cli.demo import _free
from otel_sessions.errors import BackendError

HOTELS = {
    "type": "function",
    "function": {
        "name": "search_hotels",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
        },
    },
}
ASK = {"role": "user", "content": "To Lisbon in May, 2 adults, 4 nights"}


def answer_to(*messages, tools=(HOTELS,)):
    """Return the model's message to these messages."""
    return complete({"model": "stub-large", "messages": list(messages), "tools": list(tools)})["choices"][0][
        "message"
    ]


def result(call, content):
    """Return the message that gives the model a tool's result."""
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def test_the_model_calls_a_tool_with_what_the_prompt_tells():
    """Arguments come from the user's words, in the types that the tool wants."""
    (call,) = answer_to(ASK)["tool_calls"]
    assert call["function"]["name"] == "search_hotels"
    assert json.loads(call["function"]["arguments"]) == {"city": "Lisbon", "nights": 4}


def test_the_model_tries_again_after_an_error_and_then_sums_up():
    """A failed tool is called again under a new id; a good result ends the loop."""
    first = answer_to(ASK)
    failed = result(first["tool_calls"][0], "error: no answer")
    second = answer_to(ASK, first, failed)
    assert second["tool_calls"][0]["id"] != first["tool_calls"][0]["id"]
    good = result(second["tool_calls"][0], "Hotel Tejo.")
    last = answer_to(ASK, first, failed, second, good)
    assert "tool_calls" not in last
    assert "Hotel Tejo." in last["content"]


def test_the_model_counts_tokens_as_providers_do():
    """What was there at the call before comes from the cache; the total is the sum."""
    first = complete({"model": "m", "messages": [ASK], "tools": [HOTELS]})
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    message = first["choices"][0]["message"]
    second = complete(
        {"model": "m", "messages": [ASK, message, result(message["tool_calls"][0], "ok")], "tools": []}
    )
    usage = second["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == first["usage"]["prompt_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def run_child(module, *arguments, log, then, environment=None):
    """Run a module on the demo's leash, do `then(child)`, and return its exit code."""

    async def body():
        async with running(
            module, *arguments, environment=environment or child_environment(), log=log
        ) as child:
            await then(child)
        return child.process.returncode

    return asyncio.run(body())


def test_a_server_tells_where_it_listens_and_is_ended_with_the_block(tmp_path):
    """The stub model is ready once it has said so, and gone after the block."""

    async def ask(child):
        assert (await child.announcement())["url"].startswith("http://127.0.0.1:")

    code = run_child("otel_sessions.cli._demo.model_server", log=tmp_path / "log", then=ask)
    assert code == -signal.SIGTERM


def test_a_child_that_does_not_start_is_told_in_its_own_words(tmp_path):
    """Where a server ends instead of listening, its last line is the error."""

    async def ask(child):
        await child.announcement()

    with pytest.raises(BackendError, match="unrecognized arguments: --nonsense"):
        run_child("otel_sessions.cli._demo.model_server", "--nonsense", log=tmp_path / "log", then=ask)


@pytest.mark.slow
def test_a_child_that_dies_at_the_moment_it_is_ended_is_nobodys_complaint(tmp_path, caplog):
    """What a user reads on standard error is the child's last word alone, not how asyncio missed its exit code."""

    async def ask(child):
        assert child.process.stdout is not None
        await child.process.stdout.read()

    for _ in range(60):
        run_child("a_module_that_is_nowhere", log=tmp_path / "log", then=ask)
    assert caplog.messages == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_child_that_ignores_the_gentle_end_is_killed(tmp_path, monkeypatch):
    """Nobody outlives the block."""
    (tmp_path / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('{}', flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setattr("otel_sessions.cli._demo.processes._PATIENCE", 0.2)

    async def ask(child):
        await child.announcement()

    environment = {**child_environment(), "PYTHONPATH": str(tmp_path)}
    assert run_child("stubborn", log=tmp_path / "log", then=ask, environment=environment) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_no_child_outlives_a_killed_parent(tmp_path):
    """The leash ends a child even when its parent got a kill -9."""
    program = f"""
import asyncio
import io
from pathlib import Path
from otel_sessions.cli._demo.processes import child_environment, running
async def main():
    async with running("otel_sessions.cli._demo.model_server", environment=child_environment(), log=Path({str(tmp_path / "log")!r})) as child:
        await child.announcement()
        print(child.process.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20.0):
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def test_an_agent_is_free_of_the_users_own_settings(monkeypatch):
    """What is set for the user's agents does not reach the demo's, nor does a proxy."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    environment = agent_environment("http://127.0.0.1:1", "travel-agent")
    assert "OTEL_SDK_DISABLED" not in environment
    assert "secret" not in str(environment)
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:1"
    assert "127.0.0.1" in environment["NO_PROXY"]


def test_a_taken_port_gives_way_to_a_free_one():
    """A default address that is in use becomes one whose port the system chooses."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert _free(f"127.0.0.1:{port}") == "127.0.0.1:0"
    assert _free(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"


def seen_session(state, outcome=None, *, tasks=0, errors=0):
    """Return what a watch reads of a session."""
    return {"id": "s", "state": state, "outcome": outcome, "tasks_count": tasks, "errors": errors}


def test_a_watch_tells_a_change_once():
    """A state is told when it begins, not each time it is looked at."""
    watch = Watch()
    assert [s.new for s in watch.look([seen_session("running")])] == [("running",)]
    assert watch.look([seen_session("running")]) == []
    assert [s.state for s in watch.look([seen_session("waiting")])] == ["waiting"]
    assert [s.new for s in watch.look([seen_session("running")])] == [()]


def test_a_watch_ticks_off_only_what_the_backend_told():
    """Each sight needs its own evidence, and with all of it nothing is missing."""
    watch = Watch()
    watch.look([seen_session(state) for state in ("running", "waiting", "stale", "lost", "idle")])
    watch.look([seen_session("ended", "error")])
    watch.look([seen_session("ended", "cancelled")])
    assert watch.missing == ["tasks", "retry", "completed"]
    watch.look([seen_session("ended", "ok", tasks=3, errors=1)])
    assert watch.seen == set(SIGHTS)


def test_an_act_that_fails_ends_the_others():
    """No act goes on behind a failure, which is told."""
    ended = []

    async def fails():
        raise BackendError("down")

    async def goes_on():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(BackendError, match="down"):
        asyncio.run(at_once(goes_on(), fails()))
    assert ended == [True]


def test_acts_end_with_their_goal():
    """Where a goal is given, reaching it ends all acts."""
    asyncio.run(asyncio.wait_for(at_once(asyncio.sleep(60), until=asyncio.sleep(0)), 10))


def test_the_demo_says_that_its_agents_are_quicker_than_usual(tmp_path):
    """What is shown as lost after seconds takes two minutes elsewhere, and nobody should wonder."""
    screen = Console(file=io.StringIO(), width=200)
    Programme(screen).introduce("http://page", "http", "grpc", [], None)
    said = screen.file.getvalue()
    environment = agent_environment("http://endpoint", "planner")
    assert f"every {environment['OTEL_SESSIONS_HEARTBEAT']} s (usually 5)" in said
    assert f"after {environment['OTEL_SESSIONS_LEASE']} s of silence (usually 120)" in said
