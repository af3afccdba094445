"""`otel-sessions tail`: each change once, in order, and a plain word while nothing is heard."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.cli._following import Sessions, Spans
from otel_sessions.cli._sse import events

AGENT = """
import sys
import otel_sessions
otel_sessions.init(service_name="travel-agent")
with otel_sessions.session(sys.argv[1], id=sys.argv[1]) as session:
    with otel_sessions.tool("search flights"):
        pass
    if len(sys.argv) > 2:
        with session.waiting(sys.argv[2]):
            print("waiting", flush=True)
            input()
"""
SILENCE = 20.0  # seconds until a test gives up


class Tail:
    """A running `tail`, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()

    def says(self, *words: str) -> str:
        """Wait for a line with all these words, and return it."""

        def found() -> str | None:
            return next((line for line in self.lines if all(word in line for word in words)), None)

        with self._more:
            assert self._more.wait_for(lambda: found() is not None, SILENCE), (words, self.lines)
        return found() or ""


@contextmanager
def tailing(backend: BackendProcess, *arguments: str) -> Iterator[Tail]:
    """Run `tail` beside the test, and end it."""
    command = [sys.executable, "-m", "otel_sessions.cli.main", "tail", "--url", backend.url, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
    ) as process:
        tail = Tail(process)
        try:
            yield tail
        finally:
            process.kill()


def agent(backend: BackendProcess, *arguments: str) -> subprocess.Popen[str]:
    """Start an agent that reports to the backend."""
    environment = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url})
    return subprocess.Popen(
        [sys.executable, "-c", AGENT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run_agent(backend: BackendProcess, *arguments: str) -> None:
    """Run an agent to its end."""
    with agent(backend, *arguments) as process:
        process.communicate("\n", timeout=60)
    assert process.returncode == 0


@pytest.mark.slow
def test_every_change_of_state_is_told_as_it_happens(backend: BackendProcess) -> None:
    """Running, waiting for what, and how it ended: a line each, none twice."""
    with tailing(backend) as tail, agent(backend, "trip", "approval") as process:
        tail.says("◔ waiting (approval)", "trip", "travel-agent")
        process.communicate("\n", timeout=60)
        tail.says("✓ completed", "trip")
        told = [line.split("  ", 1)[1] for line in tail.lines if " trip " in line]
    assert len(told) == len(set(told))


@pytest.mark.slow
def test_one_session_is_followed_with_its_spans(backend: BackendProcess) -> None:
    """What opens and ends in it is told, and nothing of others."""
    with agent(backend, "trip", "approval") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with tailing(backend, "--json") as all_of_them:
            all_of_them.says('"state": "waiting"')
        with tailing(backend, "trip") as tail:
            tail.says("✓ execute_tool search flights")
            run_agent(backend, "other")
            process.communicate("\n", timeout=60)
            tail.says("✓ completed", "trip")
            tail.says("✓ session trip")
    assert not [line for line in tail.lines if "other" in line]


@pytest.mark.slow
def test_a_backend_that_dies_is_told_once_and_what_was_missed_is_told_afterwards(
    backend: BackendProcess,
) -> None:
    """While nothing is heard nothing is claimed; after a kill -9 and a restart it goes on where it was."""
    run_agent(backend, "before")
    with tailing(backend) as tail:
        tail.says("✓ completed", "before")
        backend.kill()
        tail.says("✕ not live")
        backend.start()
        run_agent(backend, "after")
        tail.says("● live again")
        tail.says("✓ completed", "after")
        assert sum("not live" in line for line in tail.lines) == 1
        assert sum("before" in line for line in tail.lines) == 1


@pytest.mark.slow
def test_only_what_meets_the_filter_is_told(backend: BackendProcess) -> None:
    """The rest is left out, by the server."""
    with tailing(backend, "--filter", "name:wanted", "--json") as tail:
        run_agent(backend, "unloved")
        run_agent(backend, "wanted")
        line = tail.says('"state": "ended"')
    assert json.loads(line)["name"] == "wanted"
    assert not [line for line in tail.lines if "unloved" in line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "no session 'nobody'"),
        (["trip", "--filter", "state:lost"], "leave it out"),
        (["--lines", "-1"], "0 or more"),
        (["--filter", "state:nonsense"], "nonsense"),
        (["--url", "http://127.0.0.1:1"], "otel-sessions serve"),
    ],
)
def test_what_cannot_be_followed_is_told_at_once(
    backend: BackendProcess, arguments: list[str], said: str
) -> None:
    """One line that says what to do, and exit code 2."""
    command = [sys.executable, "-m", "otel_sessions.cli.main", "tail", "--url", backend.url, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("otel-sessions: ")
    assert said in line


def test_the_stream_is_read_whatever_lies_between_its_events() -> None:
    """Comments, unknown fields, empty lines and what is no JSON cost no event."""
    answer = [
        *(b": connected\n", b"\n", b"id: b-1\n", b"event: session\n", b'data: {"id": "a"}\n', b"\n", b"\n"),
        *(b"retry: 5\n", b": ping\n", b"\n", b"event: rows\n", b"data: no JSON\n", b"\n"),
        *(
            b"event: gone\r\n",
            b'data: {"id":\r\n',
            b'data:  "b"}\r\n',
            b"\r\n",
            b"event: cut\n",
            b"data: {}\n",
        ),
    ]
    read = [(event.name, dict(event.data)) for event in events(answer)]
    assert read == [("session", {"id": "a"}), ("gone", {"id": "b"})]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Whoever answers there, it is no reason to fail."""
    list(events(data.splitlines(keepends=True)))


def told(session_id: str, state: str, **fields: Any) -> dict[str, Any]:
    """Make what matters of a session."""
    return {"id": session_id, "state": state, "waiting_for": None, **fields}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["running", "waiting", "ended"]),
            st.sampled_from([None, "x"]),
        )
    )
)
def test_a_session_is_told_exactly_when_its_state_differs_from_the_last(looks) -> None:
    """However often the same is read."""
    known, last = Sessions(), {}
    for session_id, state, waiting_for in looks:
        assert known.changed(told(session_id, state, waiting_for=waiting_for)) == (
            last.get(session_id) != (state, waiting_for)
        )
        last[session_id] = (state, waiting_for)
    assert set(known.open()) == {one for one, (state, _) in last.items() if state != "ended"}


def test_what_is_remembered_is_bounded_and_the_open_are_forgotten_last() -> None:
    """A backend of a million sessions costs a follower no memory without end."""
    known = Sessions()
    known.changed(told("open", "running"))
    for number in range(10_500):
        known.changed(told(str(number), "ended"))
    assert known.open() == ["open"]
    assert known.changed(told("0", "ended"))
    assert not known.changed(told("10499", "ended"))


def test_a_span_is_told_when_it_opens_and_when_it_ends() -> None:
    """Once each, however often its row comes again."""
    spans = Spans()

    def row(duration: int | None, flags: int, revision: int) -> dict[str, Any]:
        columns = {
            "trace": [0], "id": ["b" * 16], "name": [0], "category": [0], "start": [5], "duration": [duration],
            "status": [0], "flags": [flags], "input_tokens": [None], "output_tokens": [None],
        }  # fmt: skip
        return {
            "base": "100", "revision": revision, "traces": ["a" * 32], "names": ["chat"],
            "categories": ["model"], "columns": columns,
        }  # fmt: skip

    from otel_sessions.backend.records import Flag

    assert [line.end for line in spans.changed(row(None, int(Flag.OPEN), 3))] == [None]
    assert spans.changed(row(None, int(Flag.OPEN), 4)) == []
    assert [line.end for line in spans.changed(row(7, 0, 9))] == [112]
    assert spans.changed(row(7, 0, 8)) == []
    assert spans.revision == 9


@pytest.mark.slow
def test_lines_begin_with_the_last_that_were(backend: BackendProcess) -> None:
    """`-n 1` tells one session of those that were, the newest."""
    for name in ("first", "second"):
        run_agent(backend, name)
    with tailing(backend, "-n", "1") as tail:
        tail.says("second")
        run_agent(backend, "third")
        tail.says("third")
    assert not [line for line in tail.lines if "first" in line]
