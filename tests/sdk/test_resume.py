"""Taking a session up again elsewhere: by a token that nobody can forge."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment
from hypothesis import given
from hypothesis import strategies as st
from outcomes import Recorded

import otel_sessions
from otel_sessions.cli._api import Api
from otel_sessions.errors import ConfigurationError, ResumeTokenError, UsageError
from otel_sessions.sdk._resume import Resumed, opened, token
from otel_sessions.testing import Captured

KEY = b"a key that nobody knows"
NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a user of its own, without a secret."""
    monkeypatch.delenv("OTEL_SESSIONS_RESUME_SECRET", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_a_later_run_links_to_the_root_that_the_token_names(recorded: Recorded) -> None:
    """The same session, another trace, and a link from the later root to the earlier one."""
    with otel_sessions.session("trip", id="trip-1") as first:
        said = first.resume_token()
    with otel_sessions.session("trip", resume=said) as second:
        assert second.id == "trip-1"
    one, two = recorded.all()
    assert one.context.trace_id != two.context.trace_id
    assert [(link.context.trace_id, link.context.span_id) for link in two.links] == [
        (one.context.trace_id, one.context.span_id)
    ]


def test_a_new_id_tells_which_session_it_continues(captured_sessions: Captured) -> None:
    """With `id=` the token's session is the one before."""
    from otel_sessions.sdk._session import root_of

    with otel_sessions.session("trip", id="trip-1") as first:
        said = first.resume_token()
    with otel_sessions.session("trip", id="trip-2", resume=said) as second:
        root = root_of(second)
        assert root is not None
        assert (second.id, root.previous_id, root.resumed) == ("trip-2", "trip-1", True)


def test_a_token_fits_an_environment_variable_and_a_header(captured_sessions: Captured) -> None:
    """Whatever the session's id: printable ASCII without spaces, quotes or separators."""
    with otel_sessions.session("trip", id='Zürich; "x"=1, 東京') as session:
        said = session.resume_token()
    assert said.isascii()
    assert set(said) - set("-_.") <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    with otel_sessions.session("trip", resume=said) as again:
        assert again.id == 'Zürich; "x"=1, 東京'


@given(st.text(min_size=1, max_size=1_000), st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1))
def test_what_was_said_is_what_is_read(session_id: str, trace_id: int, span_id: int) -> None:
    """Any id, any root."""
    session_id = session_id.encode("utf-8", "replace").decode()
    said = Resumed(session_id, trace_id, span_id)
    assert opened(token(said, KEY, NOW + 1), KEY, NOW) == said


@given(st.data())
def test_no_change_of_a_token_passes(data: st.DataObject) -> None:
    """Any sign changed, left out or put in: the token is refused."""
    good = token(Resumed("trip-1", 1, 2), KEY, NOW + 1)
    place = data.draw(st.integers(5, len(good) - 1))
    sign = data.draw(st.sampled_from("abcXYZ019-_.= \n\0é\udcff"))
    changed = data.draw(
        st.sampled_from(
            (
                good[:place] + sign + good[place + 1 :],
                good[:place] + good[place + 1 :],
                good[:place] + sign + good[place:],
            )
        )
    )
    if changed != good:
        with pytest.raises(ResumeTokenError):
            opened(changed, KEY, NOW)


@pytest.mark.parametrize("key", [None, b"another key, of somebody else"])
def test_a_token_of_another_key_is_refused_with_what_to_do(key: bytes | None) -> None:
    """As on a machine that shares no secret with this one."""
    with pytest.raises(ResumeTokenError, match="set the same OTEL_SESSIONS_RESUME_SECRET on both"):
        opened(token(Resumed("trip-1", 1, 2), KEY, NOW + 1), key, NOW)


def test_an_expired_token_is_refused_with_what_to_do() -> None:
    """From the very second on; the message tells how long ago, and the id to go on with."""
    said = token(Resumed("trip-1", 1, 2), KEY, NOW)
    with pytest.raises(ResumeTokenError, match=r"expired 2\.0 hours ago.*resume='trip-1'"):
        opened(said, KEY, NOW + 7200)
    with pytest.raises(ResumeTokenError, match="expired"):
        opened(said, KEY, NOW)


def test_a_forged_token_starts_no_session(captured_sessions: Captured) -> None:
    """It is refused by the call that bears it, and nothing is sent."""
    with pytest.raises(ResumeTokenError):
        otel_sessions.session("trip", resume="osr1.bm90aGluZw.bm90aGluZw")
    with pytest.raises(UsageError):
        otel_sessions.start_session("trip", resume="osr1.")
    assert captured_sessions.spans == ()


@pytest.mark.parametrize("expires_in", [0, -1, float("nan"), "1 day", None, True])
def test_a_lifetime_that_is_none_is_refused(captured_sessions: Captured, expires_in: object) -> None:
    """A token that can't expire can't be taken back."""
    with otel_sessions.session("trip") as session, pytest.raises(ConfigurationError, match="expires_in"):
        session.resume_token(expires_in=expires_in)  # pyright: ignore[reportArgumentType]


def test_there_is_no_token_before_the_start() -> None:
    """There is no root yet that a later run could link to."""
    with pytest.raises(UsageError, match="has not started"):
        otel_sessions.session("trip").resume_token()


# --- The key ------------------------------------------------------------------------------------------------


def test_the_machines_key_is_its_users_alone_and_made_once(captured_sessions: Captured, home: Path) -> None:
    """A file of mode 0600, the same for every program of the user."""
    with otel_sessions.session("trip") as session:
        session.resume_token()
        (key,) = home.rglob("resume.key*")
        before = key.read_bytes()
        session.resume_token()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (key.read_bytes(), len(before)) == (before, 64)


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_key_that_others_can_read_is_not_used(captured_sessions: Captured, home: Path) -> None:
    """Whoever reads it can forge tokens: the error says so, and what to do."""
    with otel_sessions.session("trip") as session:
        said = session.resume_token()
        next(home.rglob("resume.key")).chmod(0o644)
        with pytest.raises(ConfigurationError, match="can be read by others"):
            session.resume_token()
        with pytest.raises(ConfigurationError, match="can be read by others"):
            otel_sessions.session("trip", resume=said)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"0123456789abcdef", b"0" * 65])
def test_a_damaged_key_is_not_used(captured_sessions: Captured, home: Path, content: bytes) -> None:
    """As a power loss may leave it: whoever knows an empty key can forge tokens."""
    with otel_sessions.session("trip") as session:
        session.resume_token()
        key = next(home.rglob("resume.key"))
        key.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"is damaged.*delete it"):
            session.resume_token()
        forged = token(Resumed("stolen", 1, 1), content, 2**40)
        with pytest.raises(ConfigurationError, match="is damaged"):
            otel_sessions.session("trip", resume=forged)
        key.unlink()
        assert otel_sessions.session("trip", resume=session.resume_token()).id == session.id


@pytest.mark.parametrize("forged", ["osr1.\udcff.AAAA", "osr1.é.AAAA", "osr1.AAAA.\udcff"])
def test_a_token_with_signs_that_none_has_is_refused_as_damaged(
    captured_sessions: Captured, forged: str
) -> None:
    """Such as a variable of the environment or a header bears that is no text."""
    with pytest.raises(ResumeTokenError, match="damaged"):
        otel_sessions.session("trip", resume=forged)
    with pytest.raises(ResumeTokenError, match="damaged"):
        opened(forged, KEY, NOW)


def test_a_secret_of_the_environment_wins_and_no_file_is_made(
    captured_sessions: Captured, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that share it take sessions up from each other."""
    monkeypatch.setenv("OTEL_SESSIONS_RESUME_SECRET", "sixteen letters.")
    with otel_sessions.session("trip", id="trip-1") as session:
        said = session.resume_token()
    assert list(home.rglob("resume.key*")) == []
    assert otel_sessions.session("trip", resume=said).id == "trip-1"
    monkeypatch.setenv("OTEL_SESSIONS_RESUME_SECRET", "too short")
    with pytest.raises(ConfigurationError, match="openssl rand"):
        otel_sessions.session("trip", resume=said)


def test_where_no_key_can_be_kept_the_error_names_the_variable(
    captured_sessions: Captured, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the folder should be, as a disk that can't be written."""
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    no_key = pytest.raises(ConfigurationError, match="set OTEL_SESSIONS_RESUME_SECRET")
    with otel_sessions.session("trip") as session, no_key:
        session.resume_token()


@pytest.mark.slow
def test_programs_that_make_the_key_at_once_have_the_same(home: Path) -> None:
    """Each takes up what the others began."""
    program = "import otel_sessions\nwith otel_sessions.session('s', id='x') as s: print(s.resume_token())"
    environment = clean_environment({"XDG_STATE_HOME": str(home)})
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(6)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in started]
    assert [otel_sessions.session("s", resume=one).id for one in said] == ["x"] * 6


# --- As the backend sees it -----------------------------------------------------------------------------------

LIFE = """
import json, os, sys
import otel_sessions
otel_sessions.init(service_name="agent")
with otel_sessions.session("conversation", resume=os.environ.get("RESUME")) as session:
    with otel_sessions.task("question"):
        pass
    print(json.dumps([session.id, session.resume_token()]))
"""


@pytest.mark.slow
def test_a_conversation_of_ten_processes_is_one_session(backend: BackendProcess, home: Path) -> None:
    """Ten runs and ten traces under one id, each linked to the one before, nothing missing, no run lost."""
    said, ids = "", set[str]()
    for _ in range(10):
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, "XDG_STATE_HOME": str(home)}
        environment = clean_environment(given | ({"RESUME": said} if said else {}))
        out = subprocess.run([sys.executable, "-c", LIFE], env=environment, capture_output=True, check=True)
        session_id, said = json.loads(out.stdout)
        ids.add(session_id)
    (session,) = Api(backend.url).sessions()["sessions"]
    assert {session["session_id"]} == ids
    detail = Api(backend.url).session(session["id"])
    assert detail is not None
    assert (detail["state"], detail["outcome"], detail["missing_spans"]) == ("ended", "ok", 0)
    assert (len(detail["runs"]), detail["traces_count"], detail["tasks_count"]) == (10, 10, 10)
    assert [run["resumed"] for run in detail["runs"]].count(False) == 1
    roots = {run["trace_id"]: run["root_id"] for run in detail["runs"]}
    linked = set[str]()
    for trace_id, root_id in roots.items():
        span = Api(backend.url).span(trace_id, root_id)
        assert span is not None
        links = [(link["traceId"], link["spanId"]) for link in span["span"].get("links", [])]
        assert all(roots[trace] == root for trace, root in links)
        linked |= {trace for trace, _ in links}
    assert len(linked) == 9
