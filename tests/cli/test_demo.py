"""`otel-sessions demo`, run for real: every state is seen, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_process import clean_environment

from otel_sessions.cli._api import Api
from otel_sessions.cli._demo.story import SIGHTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are counted in /proc"),
]

ADDRESSES = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")


@contextlib.contextmanager
def demo(*arguments: str, addresses: tuple[str, ...] = ADDRESSES) -> Iterator[subprocess.Popen[str]]:
    """Run the demo; whatever a test does, it does not outlive it."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "otel_sessions.cli.main",
        "demo",
        "--no-browser",
        *addresses,
        *arguments,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def page_of(process: subprocess.Popen[str]) -> str:
    """Read what the demo prints up to the page's address, and return that."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"(http://127\.0\.0\.1:\d+)/sessions", line):
            return found[1]
    raise AssertionError("it never told the page's address")


def descendants(pid: int) -> set[int]:
    """Return the ids of all processes below one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found, frontier = set[int](), {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def alive(pids: set[int]) -> set[int]:
    """Return those that run; what only waits to be collected does not."""
    running = set[int]()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                running.add(pid)
    return running


def wait_until(condition, seconds=30.0):
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


def several_agents(process: subprocess.Popen[str]) -> set[int]:
    """Wait until backend, model and three agents run, and return the ids of all."""
    wait_until(lambda: len(descendants(process.pid)) >= 5)
    return descendants(process.pid)


def test_told_once_the_demo_shows_every_state_and_ends():
    """Each sight is told by the backend itself; then all is ended, with exit code 0."""
    with demo("--once") as process:
        page = page_of(process)
        children = several_agents(process)
        printed, _ = process.communicate(timeout=110)
        assert process.returncode == 0, printed
    for sight in SIGHTS.values():
        assert sight in printed
    assert f"Seen {len(SIGHTS)} of {len(SIGHTS)}." in printed
    assert page in printed
    assert alive(children) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nobody_behind(number, tmp_path):
    """Ctrl-C ends agents, model and backend; what they sent until then stays in the folder that was asked for."""
    with demo("--data", str(tmp_path / "kept")) as process:
        page_of(process)
        children = several_agents(process)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert alive(children) == set()
    assert "Traceback" not in printed
    assert any((tmp_path / "kept").iterdir())


def test_a_killed_demo_leaves_nobody_behind():
    """Even a kill -9 of the demo ends its children: their leash is cut."""
    with demo() as process:
        page_of(process)
        children = several_agents(process)
        process.kill()
        process.wait()
        wait_until(lambda: not alive(children))


def test_a_backend_that_dies_ends_the_demo_with_a_clear_word():
    """Nothing can be shown without a backend: the demo says so and leaves nobody behind."""
    with demo() as process:
        page_of(process)
        children = several_agents(process)
        (backend,) = [
            pid for pid in children if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        os.kill(backend, signal.SIGKILL)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 2, printed
    assert printed.splitlines()[-1].startswith("otel-sessions: the demo's backend is gone")
    assert alive(children) == set()


def test_interrupted_agents_say_goodbye(tmp_path, start_backend):
    """Agents are ended before the backend, which so hears of it: nothing in its folder says "running" for ever."""
    with demo("--data", str(tmp_path / "kept")) as process:
        api = Api(page_of(process))
        wait_until(lambda: api.sessions()["counts"]["running"] >= 2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    sessions = Api(start_backend(data=tmp_path / "kept").url).sessions()["sessions"]
    ends = {session["end_reason"] for session in sessions if not session["inferred"]}
    assert "signal" in ends
    assert ends <= {"signal", "cancelled", "error", "completed"}


def test_the_demo_takes_no_telemetry_of_others():
    """It listens where nobody sends by default, for what it gets goes with it; and it says so."""
    with demo(addresses=()) as process:
        page_of(process)
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(5))
    assert "removed when it ends (--data DIR keeps it)" in told
    assert not re.search(r"OTLP/HTTP http://127\.0\.0\.1:4318|gRPC 127\.0\.0\.1:4317", told)
    assert re.search(r"OTLP/HTTP http://127\.0\.0\.1:\d+, gRPC 127\.0\.0\.1:\d+", told)


def test_a_taken_address_that_was_asked_for_is_an_error():
    """Who names an address gets that one or a clear word; only defaults give way."""
    with demo() as process:
        taken = page_of(process).removeprefix("http://")
        second = subprocess.run(
            [
                sys.executable,
                "-m",
                "otel_sessions.cli.main",
                "demo",
                "--no-browser",
                "--http",
                taken,
                "--once",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(),
            check=False,
        )
        assert second.returncode == 2, second.stdout
        (line,) = second.stderr.splitlines()
        assert line.startswith(f"otel-sessions: {taken} ")
