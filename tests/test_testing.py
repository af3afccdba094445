"""Claims about `otel_sessions.testing`: what a test of an agent sees, and that nothing else notices."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_sessions
from otel_sessions.sdk import _provider
from otel_sessions.testing import Tokens
from otel_sessions.testing import captured_sessions as capture

DOCUMENT = Path(__file__).parent.parent / "docs/testing.md"


@pytest.fixture(autouse=True)
def _nothing_set_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_provider, "_state", _provider._State())


def a_trip() -> None:
    """Run an agent: two tasks at once, a tool that fails."""

    async def task(name: str) -> None:
        with otel_sessions.task(name) as task:
            with otel_sessions.model_call("m") as call:
                call.record(input_tokens=10, output_tokens=2, cached_tokens=4)
            await asyncio.sleep(0)
            with otel_sessions.tool(f"tool of {name}"):
                task.result = name

    async def both() -> None:
        async with otel_sessions.session("trip", title="Lisbon", user_id="u", tags=["a", "b"]):
            await asyncio.gather(task("one"), task("two"))
            with pytest.raises(ValueError, match="no"), otel_sessions.step("fails"):
                raise ValueError("no")

    asyncio.run(both())


def test_a_capture_shows_what_ran(captured_sessions):
    """Sessions, tasks and spans with their own tools, tokens and outcomes, in the order of their starts."""
    a_trip()
    session = captured_sessions.session()
    assert (session.id, session.name, session.title) == ("session-1", "trip", "Lisbon")
    assert (session.user_id, session.tags, session.state) == ("u", ("a", "b"), "ended")
    session.assert_outcome("ok", "completed")
    session.assert_tools("tool of one", "tool of two")
    session.assert_tokens(input=20, output=4, cached=8)
    assert (session.models, session.errors, session.open) == (("m", "m"), ("fails",), ())
    assert session.span("fails").error == "ValueError"
    assert [(task.id, task.name, task.state) for task in session.tasks] == [
        ("task-1", "one", "done"),
        ("task-2", "two", "done"),
    ]
    assert session.task("two").tools == ("tool of two",)
    assert session.task("two").tokens == Tokens(10, 2, 4)
    assert captured_sessions.task("one").spans[1].parent_id == captured_sessions.task("one").spans[0].span_id


def test_two_runs_give_the_same():
    """Ids and times are counted, so that a test may compare everything but what names the process."""
    seen = []
    for _ in range(2):
        with capture() as captured:
            a_trip()
        seen.append(
            [
                (
                    span.name,
                    span.start,
                    span.end,
                    span.span_id,
                    span.parent_id,
                    span.trace_id,
                    span.session_id,
                )
                for span in captured.spans
            ]
        )
    assert seen[0] == seen[1]
    assert len(seen[0]) == 8


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda s: s.assert_tools("a"), r"tools \['a', 'b'\], but \['a'\] should be called"),
        (lambda s: s.assert_tools("b", "a", exact=False), "in this order among others"),
        (lambda s: s.assert_outcome("error"), "ended as ok .completed., not error"),
        (lambda s: s.assert_outcome("ok", "timeout"), "not ok .timeout."),
        (lambda s: s.assert_tokens(output=1), "output tokens: 0, not 1"),
        (lambda s: s.span("c"), "0 spans are named 'c'"),
        (lambda s: s.task("t"), "0 tasks named 't'"),
    ],
)
def test_an_assertion_that_fails_says_what_there_is(captured_sessions, wrong, said):
    """With the session as a tree, so that nobody has to run it again to see."""
    with otel_sessions.session("s"), otel_sessions.tool("a"), otel_sessions.tool("b"):
        pass
    session = captured_sessions.session()
    session.assert_tools("b", exact=False)
    with pytest.raises(AssertionError, match=said):
        wrong(session)


def test_a_session_that_still_runs_has_no_outcome(captured_sessions):
    """Whoever asks too early is told so."""
    session = otel_sessions.start_session("s")
    with pytest.raises(AssertionError, match=r"still runs:\nsession s .open."):
        captured_sessions.session().assert_outcome(None)
    session.end()
    captured_sessions.session().assert_outcome("ok")


def test_which_session_is_meant_has_to_be_clear(captured_sessions):
    """Of several the name decides; the error lists them."""
    for name in ("a", "b", "b"):
        with otel_sessions.session(name):
            pass
    assert captured_sessions.session("a").id == "session-1"
    for name, found in ((None, "3 sessions"), ("b", "2 sessions named 'b'"), ("c", "0 sessions named 'c'")):
        with pytest.raises(AssertionError, match=rf"{found}, not one; there are \['a', 'b', 'b'\]"):
            captured_sessions.session(name)


def test_what_is_left_open_is_ended_and_not_current():
    """The next test begins with nothing; the capture stays as it was when it was left."""
    with capture() as captured:
        session = otel_sessions.start_session("s")
        tool = otel_sessions.tool("t")
        tool.__enter__()
        before = otel_sessions.stats().sessions_open
    assert session.state == "ended"
    assert captured.session().state == "running"
    assert [span.name for span in captured.session().open] == ["s", "t"]
    assert otel_sessions.current_session() is None
    assert not trace.get_current_span().get_span_context().is_valid
    assert otel_sessions.stats().sessions_open == before - 1


def test_a_provider_of_the_users_sees_nothing_and_goes_on():
    """It is neither joined nor replaced, and a session that runs outside is there again afterwards."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    handle = otel_sessions.init(tracer_provider=provider, export=False, signals=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with otel_sessions.session("outside") as outside:
        with capture() as captured:
            assert otel_sessions.current_session() is None
            a_trip()
            with capture() as within, otel_sessions.session("within"):
                pass
            with otel_sessions.session("still captured"):
                pass
        assert otel_sessions.current_session() is outside
        with otel_sessions.step("also outside"):
            pass
    assert [span.name for span in exporter.get_finished_spans()] == ["also outside", "session outside"]
    assert [session.name for session in captured.sessions] == ["trip", "still captured"]
    assert [session.name for session in within.sessions] == ["within"]
    assert otel_sessions.init().tracer_provider is handle.tracer_provider is provider
    otel_sessions.shutdown()


def test_whatever_the_program_sets_up_nothing_leaves(monkeypatch: pytest.MonkeyPatch):
    """Its `init()` and `shutdown()` work on the capture; neither its arguments nor the environment get out."""
    for variable, value in {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_TRACES_SAMPLER": "always_off",
        "TRACEPARENT": f"00-{'1' * 32}-{'2' * 16}-01",
        "BAGGAGE": "session.id=carried",
    }.items():
        monkeypatch.setenv(variable, value)
    exporter = InMemorySpanExporter()
    threads = set(threading.enumerate())
    with capture() as captured:
        first = otel_sessions.init(service_name="travel", exporter=exporter, signals=True, capture=True)
        assert first.session is None
        with otel_sessions.session("s"), otel_sessions.task("t") as task:
            task.result = 5
        assert otel_sessions.shutdown().complete is not False
        again = otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False))
        assert again.tracer_provider is first.tracer_provider is captured.tracer_provider
        with otel_sessions.session("after shutdown"):
            pass
    assert [session.name for session in captured.sessions] == ["s", "after shutdown"]
    assert captured.session("s").task("t").result == "5"
    assert exporter.get_finished_spans() == ()
    assert set(threading.enumerate()) == threads
    assert _provider.current() is None


def test_spans_of_others_are_captured_by_the_provider(captured_sessions):
    """Instrumentations take a provider; their spans belong to the session as they do outside of tests."""
    theirs = captured_sessions.tracer_provider.get_tracer("theirs")
    with otel_sessions.session("s"), theirs.start_as_current_span("GET"):
        pass
    with theirs.start_as_current_span("outside"):
        pass
    assert captured_sessions.session().tree() == "session s\n  GET"
    assert [span.name for span in captured_sessions.spans] == ["s", "GET", "outside"]


def test_an_explicit_id_is_new_in_each_capture():
    """Counts of an earlier test are not added to, nor is the session taken for a resumed one."""
    for _ in range(2):
        with capture() as captured, otel_sessions.session("s", id="chat-7"):
            pass
        root = captured.session().span("s")
        assert (root.session_id, root.attributes["otel_sessions.session.spans.started"]) == ("chat-7", 1)


def run(*command: str, folder: Path) -> str:
    """Run a Python of its own in a folder, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=100, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_pytest_it_is_there(tmp_path: Path):
    """Any runner may use it, where pytest is not installed."""
    program = """
    import sys
    sys.modules["pytest"] = None
    from otel_sessions.testing import captured_sessions
    assert "opentelemetry.sdk" not in sys.modules
    import otel_sessions
    with captured_sessions() as captured, otel_sessions.session("s"):
        pass
    captured.session().assert_outcome("ok")
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    run("program.py", folder=tmp_path)


def test_who_does_not_use_the_plugin_does_not_pay(tmp_path: Path):
    """It is found by pytest, and loads neither OpenTelemetry nor more of ours than the empty package."""
    (tmp_path / "test_nothing.py").write_text(
        textwrap.dedent("""
        import sys

        def test_nothing(request):
            assert "otel_sessions._pytest_plugin" in sys.modules
            ours = {name for name in sys.modules if name.startswith(("opentelemetry", "otel_sessions"))}
            assert ours == {"otel_sessions", "otel_sessions._pytest_plugin"}
        """)
    )
    run("-m", "pytest", "-q", "-p", "no:randomly", folder=tmp_path)


def test_every_example_of_the_document_passes(tmp_path: Path):
    """Whoever copies one has a test that works, also in several processes at once."""
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_example_{number}.py").write_text(block)
    said = run("-m", "pytest", "-q", "-n", "2", "-W", "error", folder=tmp_path)
    assert f"{len(blocks)} passed" in said


def test_the_document_names_all_there_is():
    """What a capture, a session, a task can be asked, and nothing that they can't."""
    from otel_sessions import testing

    tables = "\n".join(re.findall(r"^\| `.*$", DOCUMENT.read_text(), re.MULTILINE))
    documented = set(re.findall(r"`([a-z_]+)[`(.]", tables))
    there = {
        name
        for kind in (testing.Captured, testing.CapturedSession, testing.CapturedTask)
        for name in dir(kind)
        if not name.startswith("_")
    }
    assert there - documented == set()
    inside = {"input", "output", "cached", "kind", "attributes", "error", "duration"}
    assert documented - there - inside == set()
