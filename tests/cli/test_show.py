"""`otel-sessions show` draws what the API tells, and says plainly what it can't."""

from __future__ import annotations

import argparse
import io
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from otel_sessions.backend.records import CATEGORIES, Flag
from otel_sessions.cli import show
from otel_sessions.cli._drawing import clean, duration, lines, session_summary, span_tree, state
from otel_sessions.errors import ConfigurationError, EndpointError, UsageError

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
BASE = NOW - 20 * SECOND


def session(**fields: Any) -> dict[str, Any]:
    """Make a session as the API tells of it: running, six seconds old, nothing unusual."""
    known = {
        "id": "trip-1",
        "session_id": "trip-1",
        "name": "plan trip",
        "title": "Lisbon in May",
        "service": "travel-agent",
        "state": "running",
        "phase": "running",
        "signal": "live",
        "waiting_for": None,
        "outcome": None,
        "end_reason": None,
        "started_at": str(BASE),
        "ended_at": None,
        "duration": None,
        "spans": 3,
        "errors": 0,
        "traces_count": 1,
        "tasks_count": 2,
        "model_calls": 1,
        "tool_calls": 1,
        "input_tokens": 1204,
        "output_tokens": 96,
        "missing_spans": None,
        "event_id": "1",
        "now": str(NOW),
    }
    return {**known, "timeline": [], "losses": {}, **fields}


def rows(*spans: tuple[Any, ...]) -> dict[str, Any]:
    """Make an answer of `rows`; a span is (parent row, name, category, start s, duration s or None, status, flags)."""
    names = [span[1] for span in spans]
    return {
        "event_id": "1",
        "base": str(BASE),
        "names": names,
        "categories": list(CATEGORIES),
        "columns": {
            "parent": [span[0] for span in spans],
            "name": list(range(len(names))),
            "category": [CATEGORIES.index(span[2]) for span in spans],
            "start": [int(span[3] * SECOND) for span in spans],
            "duration": [None if span[4] is None else int(span[4] * SECOND) for span in spans],
            "status": [span[5] for span in spans],
            "flags": [int(span[6]) for span in spans],
            "input_tokens": [None for _ in spans],
            "output_tokens": [None for _ in spans],
        },
    }


TRIP = rows(
    (-1, "session plan trip", "session", 0, None, 0, Flag.OPEN),
    (0, "task find flights", "task", 1, 4, 0, 0),
    (1, "execute_tool search_flights", "tool", 1, 2, 2, 0),
    (0, "task find hotel", "task", 1, None, 0, Flag.OPEN),
)


def drawn(*parts: object) -> str:
    """Return what a wide, colourless terminal would show."""
    console = Console(file=io.StringIO(), width=200, no_color=True, highlight=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def test_spans_are_drawn_as_a_tree():
    """Each span is a branch of its parent, the last one with a corner."""
    tree = drawn(span_tree(lines(TRIP), NOW, alive=True)).splitlines()
    assert [line.split("  ")[0].rstrip() for line in tree[:2]] == [
        "session plan trip",
        "├─ task find flights",
    ]
    assert tree[2].startswith("│  └─ execute_tool search_flights")
    assert tree[3].startswith("└─ task find hotel")


def test_an_open_span_is_drawn_open():
    """What has not ended shows how long it is open; where nothing can come any more, that it has no end."""
    assert "19.0 s ▶ open" in drawn(span_tree(lines(TRIP), NOW, alive=True)).splitlines()[3]
    assert "open, no end known" in drawn(span_tree(lines(TRIP), NOW, alive=False)).splitlines()[3]


def test_an_error_is_marked_in_words():
    """A failed span is marked without relying on colour."""
    assert "! error" in drawn(span_tree(lines(TRIP), NOW, alive=True)).splitlines()[2]


def test_a_parent_that_never_arrived_keeps_its_place():
    """A placeholder is shown as missing, with its children below it."""
    spans = rows((-1, "", "step", 0, None, 0, Flag.PLACEHOLDER), (0, "chat", "model", 0, 1, 0, Flag.LATE))
    tree = drawn(span_tree(lines(spans), NOW, alive=True)).splitlines()
    assert "(a span that never arrived)" in tree[0]
    assert "missing" in tree[0]
    assert tree[1].startswith("└─ chat")
    assert "late" in tree[1]


@given(st.lists(st.integers(-5, 60), max_size=60))
def test_any_parents_give_one_line_each(parents):
    """Whatever the parent column says, every span is drawn exactly once."""
    spans = rows(*((parent, f"s{row}", "step", 0, 1, 0, 0) for row, parent in enumerate(parents)))
    assert drawn(span_tree(lines(spans), NOW, alive=True)).count("\n") == max(1, len(parents)) - (not parents)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "● running"),
        ({"state": "waiting", "waiting_for": "approval"}, "◔ waiting (approval)"),
        ({"state": "stale"}, "◌ stale"),
        ({"state": "lost"}, "✕ lost"),
        ({"state": "idle"}, "– idle"),  # noqa: RUF001 - as the page draws it
        ({"state": "idle", "outcome": "error"}, "– idle (failed)"),  # noqa: RUF001
        ({"state": "running", "phase": "waiting", "waiting_for": "approval"}, "● running (needs approval)"),
        ({"state": "ended", "outcome": "ok", "end_reason": "completed"}, "✓ completed"),
        ({"state": "ended", "outcome": None, "end_reason": None}, "– ended (outcome unknown)"),  # noqa: RUF001
        ({"state": "ended", "outcome": "error", "end_reason": "timeout"}, "! failed (timeout)"),
        ({"state": "ended", "outcome": "cancelled", "end_reason": "signal"}, "⊘ cancelled (signal)"),
        ({"state": "ended", "outcome": None, "end_reason": "process_exit"}, "– ended (process exit)"),  # noqa: RUF001
    ],
)
def test_every_state_has_a_glyph_and_a_word(fields, words):
    """No state is told by colour alone, and an ended one tells why."""
    assert str(state(session(**fields))) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "ended", "missing_spans": 0}, " · complete"),
        ({"state": "ended", "missing_spans": 3, "losses": {"queue_full": 3}}, " · 3 missing (queue full: 3)"),
        ({"state": "running", "missing_spans": 3}, " · 3 missing"),
        (
            {"state": "lost", "missing_spans": 3, "losses": {"process_died": 3}},
            " · at least 3 missing (unknown, the process died: 3)",
        ),
        (
            {"state": "ended", "missing_spans": 3, "losses": {"not_received": 3}, "last_seen_at": str(NOW)},
            " · 3 on the way",
        ),
        (
            {"state": "ended", "missing_spans": 3, "losses": {"not_received": 3}, "last_seen_at": "1"},
            " · 3 missing (sent by nobody so far, or lost on the way: 3)",
        ),
    ],
)
def test_missing_spans_are_told_where_they_are_known(fields, words):
    """All is here, or so many are missing and why."""
    assert words in drawn(*session_summary(session(**fields), NOW))


@pytest.mark.parametrize(
    "fields", [{"state": "ended"}, {"missing_spans": 0}, {"state": "lost", "missing_spans": 0}]
)
def test_nothing_is_called_complete_where_nobody_knows(fields):
    """What still runs or was lost may have spans that nobody told of."""
    text = drawn(*session_summary(session(**fields), NOW))
    assert "complete" not in text
    assert "missing" not in text


def test_a_silent_session_tells_when_it_was_last_seen():
    """How long nothing came is what a reader wants to know of a stale, lost or idle one."""
    heard = str(NOW - 90 * SECOND)
    assert "1 min 30 s ago" in drawn(*session_summary(session(state="lost", last_seen_at=heard), NOW))


def test_a_failed_session_tells_why():
    """On one line, whatever the error's text holds."""
    failed = session(state="ended", outcome="error", error="ValueError: no\x1b[2J\n  at x")
    assert "\n  ! ValueError: no\N{REPLACEMENT CHARACTER}[2J   at x\n" in drawn(*session_summary(failed, NOW))
    assert "!" not in drawn(*session_summary(session(error=None), NOW))


def test_the_timeline_tells_what_happened():
    """The changes of state are told in order."""
    timeline = [
        {"at": str(BASE), "state": "running", "detail": None, "root_id": "aa"},
        {"at": str(BASE + SECOND), "state": "waiting", "detail": "approval", "root_id": "aa"},
    ]
    text = drawn(*session_summary(session(timeline=timeline), NOW))
    assert text.index("running →") < text.index("waiting (approval)")


@given(st.text())
def test_no_name_can_steer_the_terminal(name):
    """Whatever a span is called, only printable signs reach the terminal."""
    assert clean(name).isprintable()
    assert drawn(span_tree(lines(rows((-1, name, "step", 0, 1, 0, 0))), NOW, alive=True)).count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0004, "400 µs"), (0.25, "250 ms"), (12.34, "12.3 s"), (75, "1 min 15 s"), (3720, "1 h 02 min")],
)
def test_durations_read_as_people_say_them(seconds, words):
    """The unit fits the length."""
    assert duration(int(seconds * SECOND)) == words


@dataclass
class Backend:
    """A server that gives canned answers, by path."""

    url: str = ""
    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)


@pytest.fixture
def backend() -> Iterator[Backend]:
    """Start a server with canned answers on a free port of loopback."""
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            backend.tokens.append(self.headers["Authorization"])
            problem = {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "no such session",
            }
            status, answer = backend.answers.get(unquote(self.path), (404, problem))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    backend.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield backend
    server.shutdown()
    server.server_close()
    thread.join()


def serve_trip(backend: Backend) -> None:
    """Let the backend know one session."""
    listed = {"sessions": [session()], "next": None, "event_id": "1", "now": str(NOW), "counts": {}}
    backend.answers |= {
        "/api/v1/sessions?limit=1": (200, listed),
        "/api/v1/sessions?limit=20": (200, listed),
        "/api/v1/sessions/trip-1": (200, session()),
        "/api/v1/sessions/trip-1/rows": (200, TRIP),
    }


def run(*arguments: str) -> int:
    """Run the command with these arguments."""
    parser = argparse.ArgumentParser()
    show.configure(parser)
    return show.run(parser.parse_args(arguments))


@pytest.mark.parametrize("named", [(), ("trip-1",)])
def test_the_newest_session_or_the_one_named_is_shown(backend, capsys, named):
    """Without a name the newest is meant."""
    serve_trip(backend)
    assert run("--url", backend.url, *named) == 0
    text = capsys.readouterr().out
    assert "● running  plan trip · Lisbon in May" in text
    assert "1,204 → 96 tokens" in text
    assert "└─ task find hotel" in text
    assert f"{backend.url}/sessions/trip-1" in text


def test_a_pipe_gets_no_colours(backend, capsys):
    """Where no terminal is, no escape sequence is written."""
    serve_trip(backend)
    assert run("--url", backend.url) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_json_is_the_apis_own_answer(backend, capsys):
    """With --json, what the API told is printed whole."""
    serve_trip(backend)
    assert run("--url", backend.url, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {**session(), "rows": TRIP}


def test_the_list_shows_recent_sessions(backend, capsys):
    """With --list, one line a session; an empty backend says what to do."""
    serve_trip(backend)
    assert run("--url", backend.url, "--list") == 0
    assert "plan trip · Lisbon in May" in capsys.readouterr().out
    backend.answers["/api/v1/sessions?limit=20"] = (200, {"sessions": [], "next": None, "now": str(NOW)})
    assert run("--url", backend.url, "--list") == 0
    assert "otel-sessions demo" in capsys.readouterr().out


def test_a_filter_without_the_list_is_refused(backend):
    """It would be ignored, and a session shown that does not meet it."""
    with pytest.raises(UsageError, match="add --list"):
        run("--url", backend.url, "--filter", "state:lost")


def test_the_list_is_filtered_however_far_back_the_matches_are(backend, capsys):
    """The server answers in stretches; what it says of a wrong filter is shown."""
    first = {"sessions": [], "next": "more", "now": str(NOW)}
    later = {"sessions": [session(name="far back")], "next": None, "now": str(NOW)}
    backend.answers['/api/v1/sessions?limit=20&q=state:lost+"a+b"'] = (200, first)
    backend.answers['/api/v1/sessions?limit=20&q=state:lost+"a+b"&after=more'] = (200, later)
    assert run("--url", backend.url, "--list", "--filter", 'state:lost "a b"') == 0
    assert "far back" in capsys.readouterr().out
    backend.answers["/api/v1/sessions?limit=20&q=x"] = (200, {**first, "next": None})
    assert run("--url", backend.url, "--list", "--filter", "x") == 0
    assert "meets x" in capsys.readouterr().out
    problem = {"detail": "There is no field 'stat'.", "title": "Bad Request"}
    backend.answers["/api/v1/sessions?limit=20&q=stat:x"] = (400, problem)
    with pytest.raises(EndpointError, match="no field 'stat'"):
        run("--url", backend.url, "--list", "--filter", "stat:x")


def test_an_id_is_sent_as_one_part_of_the_path(backend):
    """An id with slashes or spaces reaches the API as that id."""
    backend.answers |= {
        "/api/v1/sessions/a/b c?d": (200, session(id="a/b c?d")),
        "/api/v1/sessions/a/b c?d/rows": (200, TRIP),
    }
    assert run("--url", backend.url, "a/b c?d") == 0


def test_an_unknown_id_says_how_to_find_one(backend):
    """The error names the id and the command that lists."""
    serve_trip(backend)
    backend.answers['/api/v1/sessions?limit=50&q=id:"nope"'] = (200, {"sessions": [], "next": None})
    with pytest.raises(EndpointError, match=r"no session 'nope' at .* show --list"):
        run("--url", backend.url, "nope")


def test_an_empty_backend_says_how_to_fill_it(backend):
    """Without any session there is no newest one."""
    backend.answers["/api/v1/sessions?limit=1"] = (200, {"sessions": [], "next": None, "now": str(NOW)})
    with pytest.raises(EndpointError, match="no session yet"):
        run("--url", backend.url)


def test_no_backend_says_how_to_start_one():
    """Where nobody listens, the error says so and what to do."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(EndpointError, match=r"no backend answers at .*`otel-sessions serve`"):
            run("--url", f"http://127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "<html>"), "is no otel-sessions backend"),
        ((404, {"detail": "Not Found"}), "is no otel-sessions backend"),
        ((401, {"title": "Unauthorized"}), "asks for a token"),
        ((503, {"detail": "the disk is full"}), "answered 503: the disk is full"),
    ],
)
def test_a_strange_answer_is_told_as_it_is(backend, answer, words):
    """Another server, a token, a fault of the backend: each has its sentence."""
    backend.answers["/api/v1/sessions?limit=1"] = answer
    with pytest.raises(EndpointError, match=words):
        run("--url", backend.url)


@pytest.mark.parametrize("listed", [[], ["--list"]])
@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "does not know this token; give its own"), (403, "lets this token send, but not read; give")],
)
def test_a_token_that_is_refused_is_not_asked_for_as_if_none_was_given(backend, status, words, listed):
    """Who mistyped it, or took the agents' one, is told which of the two."""
    for limit in (1, 20):
        backend.answers[f"/api/v1/sessions?limit={limit}"] = (status, {"title": "no"})
    with pytest.raises(EndpointError, match=words) as told:
        run("--url", backend.url, "--token", "s3cret", *listed)
    assert "asks for a token" not in str(told.value)
    assert "s3cret" not in str(told.value)


def test_a_token_is_sent_where_given(backend):
    """The token goes as a bearer token."""
    serve_trip(backend)
    assert run("--url", backend.url, "--token", "s3cret") == 0
    assert set(backend.tokens) == {"Bearer s3cret"}


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "ftp://x", "http://", "http://x:no"])
def test_a_bad_address_is_named(url):
    """An address without sense is refused before anything is asked."""
    with pytest.raises(ConfigurationError, match=url):
        run("--url", url)
