"""Claims about sessions: their roots, their ends, what is current."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from endings import Ending, ending
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from outcomes import Recorded

import otel_sessions
from otel_sessions import lifecycle, semconv
from otel_sessions.sdk import _context, _guard


def test_a_root_bears_what_was_said_of_its_session(recorded: Recorded):
    """Name, title, tags, user, conversation and free attributes stand on the root from its start."""
    with otel_sessions.session(
        "plan trip",
        id="s-1",
        title="Lisbon in May",
        user_id="maria",
        conversation_id="c-1",
        tags=["demo", "eu"],
        attributes={"tenant": "blue", "plan": {"nights": 4}},
    ) as session:
        assert (session.id, session.name, session.state) == ("s-1", "plan trip", "running")
        assert session.outcome is None
        assert session.end_reason is None
    root = recorded.one("session plan trip")
    assert session.trace_id == f"{root.context.trace_id:032x}"
    assert root.kind is trace.SpanKind.INTERNAL
    assert root.status.status_code is StatusCode.UNSET
    process = root.attributes.get(semconv.PROCESS_ID)
    assert isinstance(process, str)
    assert dict(root.attributes) == {
        "session.id": "s-1",
        "user.id": "maria",
        "gen_ai.conversation.id": "c-1",
        "tenant": "blue",
        "plan": '{"nights": 4}',
        "otel_sessions.session.name": "plan trip",
        "otel_sessions.session.title": "Lisbon in May",
        "otel_sessions.session.tags": ("demo", "eu"),
        "otel_sessions.process.id": process,
        "otel_sessions.session.spans.started": 1,
        "otel_sessions.session.spans.ended": 1,
        "otel_sessions.session.spans.dropped": 0,
        "otel_sessions.session.end_reason": "completed",
        "otel_sessions.session.outcome": "ok",
    }


def test_user_and_conversation_stand_on_every_span(recorded: Recorded):
    """What identifies the session's user and conversation is stamped as its id is."""
    with otel_sessions.session(user_id="maria", conversation_id="c-1"), otel_sessions.tool("search"):
        pass
    attributes = recorded.one("execute_tool search").attributes
    assert (attributes["user.id"], attributes["gen_ai.conversation.id"]) == ("maria", "c-1")


class _Stop(BaseException):
    """Not an Exception, and nothing that we know."""


def _group(*inner: BaseException) -> BaseException:
    if sys.version_info < (3, 11):
        pytest.skip("exception groups came with Python 3.11")
    return BaseExceptionGroup("several", list(inner))  # noqa: F821


ENDS: list[tuple[str, Callable[[], BaseException | None], str, str | None, StatusCode, int]] = [
    ("it is left", lambda: None, "completed", "ok", StatusCode.UNSET, 0),
    ("an exception leaves it, and goes on", lambda: ValueError("no"), "error", "error", StatusCode.ERROR, 1),
    (
        "its task is cancelled (asyncio)",
        asyncio.CancelledError,
        "cancelled",
        "cancelled",
        StatusCode.UNSET,
        0,
    ),
    (
        "a cancelled future is waited for",
        concurrent.futures.CancelledError,
        "cancelled",
        "cancelled",
        StatusCode.UNSET,
        0,
    ),
    ("Ctrl-C, KeyboardInterrupt", KeyboardInterrupt, "interrupted", "cancelled", StatusCode.UNSET, 0),
    ("`sys.exit(0)`", lambda: SystemExit(0), "process_exit", "ok", StatusCode.UNSET, 0),
    ("`sys.exit()`", SystemExit, "process_exit", "ok", StatusCode.UNSET, 0),
    ("`sys.exit(1)`", lambda: SystemExit(1), "process_exit", "error", StatusCode.ERROR, 0),
    ("its generator is closed (GeneratorExit)", GeneratorExit, "completed", "ok", StatusCode.UNSET, 0),
    ("a BaseException that nobody knows", _Stop, "error", "error", StatusCode.ERROR, 1),
    (
        "a group of cancellations leaves it",
        lambda: _group(asyncio.CancelledError(), asyncio.CancelledError()),
        "cancelled",
        "cancelled",
        StatusCode.UNSET,
        0,
    ),
    (
        "a group leaves it that holds an error",
        lambda: _group(asyncio.CancelledError(), ValueError("no")),
        "error",
        "error",
        StatusCode.ERROR,
        1,
    ),
]


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=ending("A block", row[0], row[2], row[3]), id=row[0]) for row in ENDS],
)
def test_a_run_ends_as_the_table_says(recorded: Recorded, documented: Ending, row: Any):
    """Reason, outcome, status and the number of exception events, for each way to leave a block."""
    _, make, reason, outcome, status, events = row
    exc = make()
    session = otel_sessions.session("s")

    def leave() -> None:
        with session:
            if exc is not None:
                raise exc

    if exc is None:
        leave()
    else:
        with pytest.raises(type(exc)) as caught:
            leave()
        assert caught.value is exc
    assert (session.state, session.end_reason, session.outcome) == ("ended", reason, outcome)
    root = recorded.one("session s")
    documented.holds(recorded.all())
    assert root.status.status_code is status
    assert [event.name for event in root.events] == ["exception"] * events
    assert otel_sessions.current_session() is None
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_error_describes_itself(recorded: Recorded):
    """The status says type and text, and error.type the type, as the conventions want."""
    with pytest.raises(LookupError), otel_sessions.session("s"):
        raise LookupError("no such city")
    root = recorded.one("session s")
    assert root.status.description == "LookupError: no such city"
    assert root.attributes["error.type"] == "LookupError"


def test_an_exception_that_cant_be_printed_still_leaves(recorded: Recorded):
    """User code gets its own exception back, whatever its text does."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    with pytest.raises(UnprintableError), otel_sessions.session("s"):
        raise UnprintableError
    assert recorded.one("session s").status.status_code is StatusCode.ERROR
    otel_sessions.sdk._guard._faults.clear()


@pytest.mark.parametrize(
    "row",
    [
        ({}, "completed", "ok", StatusCode.UNSET, None, None),
        (
            {"outcome": "error", "message": "no seats"},
            "completed",
            "error",
            StatusCode.ERROR,
            "no seats",
            None,
        ),
        ({"outcome": "ok", "message": "booked"}, "completed", "ok", StatusCode.UNSET, None, "booked"),
        ({"outcome": "cancelled"}, "completed", "cancelled", StatusCode.UNSET, None, None),
        ({"reason": "stopped"}, "stopped", "cancelled", StatusCode.UNSET, None, None),
        ({"outcome": "ok", "reason": "timeout"}, "timeout", "ok", StatusCode.UNSET, None, None),
    ],
)
def test_end_says_what_it_is_told(recorded: Recorded, row: Any):
    """Outcome, reason and message of `end()` go to the root as the contract says."""
    arguments, reason, outcome, status, description, message = row
    session = otel_sessions.start_session("s")
    assert session.end(**arguments) is True
    root = recorded.one("session s")
    assert (session.end_reason, session.outcome) == (reason, outcome)
    assert (root.status.status_code, root.status.description) == (status, description)
    assert root.attributes.get(semconv.SESSION_MESSAGE) == message


def test_a_session_ends_exactly_once(recorded: Recorded):
    """A second end changes nothing and says so; so does leaving the block."""
    with otel_sessions.session("s") as session:
        assert session.end("cancelled", message="enough") is True
        assert session.end("error") is False
    assert session.end() is False
    assert (session.outcome, session.end_reason) == ("cancelled", "completed")
    assert recorded.one("session s").attributes[semconv.SESSION_OUTCOME] == "cancelled"


def test_of_many_threads_that_end_a_session_one_does(recorded: Recorded):
    """Ending is atomic."""
    session = otel_sessions.start_session("s")
    barrier = threading.Barrier(20)

    def end() -> bool:
        barrier.wait()
        return session.end()

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        ended = [future.result() for future in [pool.submit(end) for _ in range(20)]]
    assert sorted(ended) == [False] * 19 + [True]
    assert len(recorded.all()) == 1


def test_end_closes_the_root_only(recorded: Recorded):
    """What is open below stays open, still learns, and is marked as late when it ends."""
    with otel_sessions.session("s") as session:
        with otel_sessions.tool("slow") as tool:
            session.end()
            tool.result = "learned later"
        with otel_sessions.step("after"):
            pass
    slow, after, root = (recorded.one(n) for n in ("execute_tool slow", "after", "session s"))
    assert slow.attributes[semconv.GEN_AI_TOOL_CALL_RESULT] == "learned later"
    assert slow.attributes[semconv.LATE] is True
    assert after.attributes[semconv.LATE] is True
    assert after.parent.span_id == root.context.span_id
    assert recorded.ids() == {session.id}
    assert root.attributes[semconv.SPANS_STARTED] == 2
    assert root.attributes[semconv.SPANS_ENDED] == 1


def test_late_spans_of_others_are_marked_by_our_exporter(recorded: Recorded):
    """Nobody can set an attribute on a span of others that has ended; its copy on the way out bears it."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s") as session:
        open_span = tracer.start_span("open")
        session.end()
        open_span.end()
    assert recorded.one("open").attributes[semconv.LATE] is True


def test_every_span_inside_is_counted(recorded: Recorded):
    """Counts on the root are those of the session, third-party spans and the root included."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s"):
        for _ in range(5):
            with tracer.start_as_current_span("theirs"), otel_sessions.step("ours"):
                pass
    with tracer.start_as_current_span("outside"):
        pass
    attributes = recorded.one("session s").attributes
    assert (attributes[semconv.SPANS_STARTED], attributes[semconv.SPANS_ENDED]) == (11, 11)


# --- Roots ---------------------------------------------------------------------------------------------


def test_a_root_starts_its_own_trace_and_links_to_what_was_current(recorded: Recorded):
    """A session is not a child of the web request that it came by, but tells of it."""
    tracer = recorded.provider.get_tracer("web")
    with tracer.start_as_current_span("request") as request, otel_sessions.session("s"):
        pass
    root = recorded.one("session s")
    assert root.parent is None
    assert root.context.trace_id != request.get_span_context().trace_id
    assert [link.context for link in root.links] == [request.get_span_context()]
    assert recorded.one("request").attributes.get("session.id") is None


def test_a_child_session_stays_in_the_trace_with_an_id_of_its_own(recorded: Recorded):
    """`nested="child"` is for those who want one trace; the inner session is a session all the same."""
    with otel_sessions.session("outer") as outer, otel_sessions.session("inner", nested="child") as inner:
        assert outer.id != inner.id
    root = recorded.one("session inner")
    assert root.parent.span_id == recorded.one("session outer").context.span_id
    assert root.attributes["session.id"] == inner.id
    assert root.links == ()


def test_nested_sessions_have_their_own_spans(recorded: Recorded):
    """What is inside of the inner session is the inner's; afterwards it is the outer's again."""
    with otel_sessions.session("outer") as outer:
        with otel_sessions.session("inner") as inner, otel_sessions.step("a"):
            assert otel_sessions.current_session() is inner
        assert otel_sessions.current_session() is outer
        with otel_sessions.step("b"):
            pass
    assert recorded.one("a").attributes["session.id"] == inner.id
    assert recorded.one("b").attributes["session.id"] == outer.id
    assert recorded.one("b").parent.span_id == recorded.one("session outer").context.span_id


# --- Resuming ------------------------------------------------------------------------------------------------


def test_a_later_run_goes_on_under_the_same_id(recorded: Recorded):
    """`resume=ID` opens another run of that session, in a trace of its own, without a link."""
    with otel_sessions.session("s", id="s-1"):
        pass
    with otel_sessions.session("s", resume="s-1") as again:
        assert again.id == "s-1"
    first, second = recorded.all()
    assert first.context.trace_id != second.context.trace_id
    assert second.links == ()


@pytest.mark.parametrize(
    ("options", "resumed", "previous"),
    [
        ({"id": "new"}, False, None),
        ({"resume": "old"}, True, None),
        ({"id": "new", "resume": "old"}, True, "old"),
        ({"id": "new", "resume": "new"}, True, None),
    ],
)
def test_a_run_knows_what_it_continues(
    recorded: Recorded, options: dict[str, str], resumed: bool, previous: str | None
):
    """`session.previous_id` is told only where the id differs."""
    from otel_sessions.sdk import _session

    with otel_sessions.session("s", **options) as session:
        root = _session.root_of(session)
        assert (root.resumed, root.previous_id) == (resumed, previous)


def test_an_id_that_this_process_had_is_resumed(recorded: Recorded):
    """The backend then knows the first run as continued, not as lost."""
    from otel_sessions.sdk._session import root_of

    with otel_sessions.session("s", id="twice") as first:
        pass
    with otel_sessions.session("s", id="twice") as second:
        pass
    assert (root_of(first).resumed, root_of(second).resumed) == (False, True)


# --- Currentness ---------------------------------------------------------------------------------------------


def test_sessions_ended_out_of_order_leave_no_dead_current_span(recorded: Recorded):
    """Start A, start B, end A, end B: nothing is current, and a new span is in no session."""
    a = otel_sessions.start_session("a")
    b = otel_sessions.start_session("b")
    assert a.end()
    assert otel_sessions.current_session() is b
    assert b.end()
    assert otel_sessions.current_session() is None
    assert not trace.get_current_span().get_span_context().is_valid
    with otel_sessions.step("free"):
        pass
    free = recorded.one("free")
    assert free.parent is None
    assert "session.id" not in free.attributes


def test_a_block_around_a_dead_session_restores_nothing_dead(recorded: Recorded):
    """A session that was ended inside of a tool's block is not brought back by leaving the tool."""
    a = otel_sessions.start_session("a")
    with otel_sessions.tool("t"):
        a.end()
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_session_ended_by_another_thread_frees_this_context(recorded: Recorded):
    """After `start_session()` and an end from elsewhere, spans of ours here are in no session."""
    a = otel_sessions.start_session("a")
    thread = threading.Thread(target=a.end)
    thread.start()
    thread.join()
    assert otel_sessions.current_session() is None
    with otel_sessions.step("free"):
        pass
    assert recorded.one("free").parent is None
    assert "session.id" not in recorded.one("free").attributes
    with otel_sessions.session("next"):
        pass
    assert recorded.one("session next").links == ()


def test_an_open_session_around_an_ended_one_is_current_again(recorded: Recorded):
    """Ended sessions are skipped, not in the way."""
    with otel_sessions.session("outer") as outer:
        inner = otel_sessions.start_session("inner")
        threading.Thread(target=inner.end).start()
        _wait_until(lambda: inner.state == "ended")
        assert otel_sessions.current_session() is outer
        with otel_sessions.step("a"):
            pass
    assert recorded.one("a").attributes["session.id"] == outer.id
    assert recorded.one("a").parent.span_id == recorded.one("session outer").context.span_id


def test_what_users_attach_inside_is_not_left_behind(recorded: Recorded):
    """Baggage attached inside of the block and never detached does not keep the dead root current."""
    with otel_sessions.session("s"):
        otel.attach(otel.set_value("mine", 1))
    assert not trace.get_current_span().get_span_context().is_valid


def test_end_session_ends_the_session_of_this_context_only(recorded: Recorded):
    """Another thread has no session to end, and is told so without an exception."""
    with otel_sessions.session("s") as session:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(otel_sessions.end_session).result() is False
        assert session.state == "running"
        assert otel_sessions.end_session("cancelled") is True
        assert otel_sessions.end_session() is False
    assert session.outcome == "cancelled"


def test_end_session_without_a_session_is_said_once(recorded: Recorded, caplog: pytest.LogCaptureFixture):
    """Returning False is enough for programs; one line is enough for people."""
    assert [otel_sessions.end_session() for _ in range(3)] == [False] * 3
    assert sum("no session is current" in message for message in caplog.messages) == 1


def test_code_that_replaces_the_whole_context_keeps_the_session(recorded: Recorded):
    """LlamaIndex's handler attaches a fresh Context; our own ContextVar still knows."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s") as session:
        token = otel.attach(otel.Context())
        with tracer.start_as_current_span("detached"):
            assert otel_sessions.current_session() is session
        otel.detach(token)
    assert recorded.one("detached").attributes["session.id"] == session.id


def test_a_bare_context_carries_the_session_to_a_thread(recorded: Recorded):
    """Who carries only the OpenTelemetry Context carries the session."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s") as session:
        context = otel.get_current()

        def work() -> None:
            otel.attach(context)
            tracer.start_span("there").end()
            assert otel_sessions.current_session() is session

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()
    assert recorded.one("there").attributes["session.id"] == session.id


def test_a_task_that_outlives_its_session_makes_late_children(recorded: Recorded):
    """Work that was started inside belongs to the session even when it is over."""

    async def main() -> str:
        go = asyncio.Event()

        async def straggler() -> None:
            await go.wait()
            with otel_sessions.tool("late"):
                pass

        async with otel_sessions.session("s") as session:
            job = asyncio.create_task(straggler())
            await asyncio.sleep(0)
        go.set()
        await job
        return session.id

    session_id = asyncio.run(main())
    late = recorded.one("execute_tool late")
    assert late.attributes["session.id"] == session_id
    assert late.attributes[semconv.LATE] is True
    assert late.parent.span_id == recorded.one("session s").context.span_id


# --- Many at once --------------------------------------------------------------------------------------------


def test_ten_thousand_sessions_at_once_never_mix(recorded: Recorded):
    """No span of any of 10,000 concurrent sessions bears another's id, nor does one have a foreign parent."""
    otel_sessions.init(exporter=None)
    seen: list[tuple[str, str]] = []

    class Watch:
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            seen.append((span.attributes["session.id"], span.attributes["expected"]))

        def on_end(self, span: Any) -> None:
            """Nothing."""

        def shutdown(self) -> None:
            """Nothing."""

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    otel_sessions.init(span_processors=[Watch()])
    tracer = recorded.provider.get_tracer("other")

    async def one(number: int, gate: asyncio.Event) -> None:
        wanted = f"s-{number}"
        async with otel_sessions.session(id=wanted, attributes={"expected": wanted}):
            await gate.wait()
            with otel_sessions.step("ours", attributes={"expected": wanted}):
                await asyncio.sleep(0)
                with tracer.start_as_current_span("theirs", attributes={"expected": wanted}):
                    await asyncio.sleep(0)
            current = otel_sessions.current_session()
            assert current is not None
            assert current.id == wanted

    async def main() -> None:
        gate = asyncio.Event()
        jobs = [asyncio.create_task(one(number, gate)) for number in range(10_000)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*jobs)

    asyncio.run(main())
    assert len(seen) == 30_000
    assert [pair for pair in seen if pair[0] != pair[1]] == []


def test_fifty_threads_with_a_session_each_never_mix(recorded: Recorded):
    """Threads share nothing."""
    barrier = threading.Barrier(50)
    tracer = recorded.provider.get_tracer("other")

    def work(number: int) -> None:
        with otel_sessions.session(id=f"t-{number}"):
            barrier.wait()
            for _ in range(20):
                with otel_sessions.step(f"t-{number}"), tracer.start_as_current_span(f"t-{number}"):
                    pass

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))
    spans = [span for span in recorded.all() if span.name.startswith("t-")]
    assert len(spans) == 50 * 40
    assert [span for span in spans if span.attributes["session.id"] != span.name] == []


# --- Misuse ----------------------------------------------------------------------------------------------------


def test_a_session_starts_once(recorded: Recorded):
    """The second start raises, names the way out, and leaves the first alone."""
    with otel_sessions.session("s") as session:
        with pytest.raises(otel_sessions.SessionReuseError, match="resume="):
            session.__enter__()
        assert session.state == "running"
    with pytest.raises(otel_sessions.SessionReuseError), session:
        pass
    with pytest.raises(otel_sessions.SessionReuseError, match="can't decorate"):
        session(lambda: None)


@pytest.mark.parametrize(
    "options",
    [
        {"name": 7},
        {"name": ""},
        {"id": ""},
        {"id": 7},
        {"title": b"x"},
        {"user_id": 7},
        {"tags": "demo"},
        {"tags": [7]},
        {"attributes": [("a", 1)]},
        {"timeout": 0},
        {"timeout": "5"},
        {"timeout": True},
        {"idle_timeout": float("nan")},
        {"nested": "sibling"},
        {"resume": ""},
    ],
)
def test_an_option_of_the_wrong_kind_is_named(options: dict[str, Any]):
    """The error names the option, and is ours."""
    with pytest.raises(otel_sessions.ConfigurationError, match=next(iter(options))):
        otel_sessions.session(**options)


def test_content_may_be_empty(recorded: Recorded):
    """A prompt or a header without text is no mistake of the program's."""
    with otel_sessions.session("s", title="", user_id="", conversation_id="", tags=()):
        pass
    assert set(recorded.one("session s").attributes) & {"otel_sessions.session.title", "user.id"} == set()


def test_an_unknown_end_is_refused(recorded: Recorded):
    """A typing mistake in an outcome must not end a session as something else."""
    with otel_sessions.session() as session:
        with pytest.raises(otel_sessions.ConfigurationError, match="ok, error, cancelled"):
            session.end("failed")
        with pytest.raises(otel_sessions.ConfigurationError, match="reason"):
            session.end(reason="because")
        assert session.state == "running"


def test_a_session_that_has_not_started_says_what_to_do():
    """Ending, activating or waiting comes after the start."""
    session = otel_sessions.session("s")
    assert (session.state, session.trace_id) == ("new", None)
    for misuse in (session.end, session.activate, session.waiting):
        with pytest.raises(otel_sessions.UsageError, match="start_session"):
            misuse()


# --- Waiting, timeouts, the collector -----------------------------------------------------------------------------


def test_waiting_is_a_state(recorded: Recorded):
    """While a session waits it is not running; of nested reasons the inner one shows."""
    from otel_sessions.sdk._session import root_of

    with otel_sessions.session("s") as session:
        root = root_of(session)
        with session.waiting("approval"):
            assert (session.state, root.waiting_for) == ("waiting", "approval")
            with session.waiting("queue"):
                assert root.waiting_for == "queue"
            assert root.waiting_for == "approval"
        assert (session.state, root.waiting_for) == ("running", None)


@ending("A block", "its `timeout` is over; the code goes on, and what it does is late", "timeout", "error")
def test_a_timeout_ends_the_run_and_never_user_code(recorded: Recorded, documented: Ending):
    """The root is closed as an error; the block goes on, and is left without an exception."""
    with otel_sessions.session("s", timeout=0.05) as session:
        _wait_until(lambda: session.state == "ended")
        with otel_sessions.tool("after"):
            pass
        with session.task("also after"):
            pass
    assert (session.end_reason, session.outcome) == ("timeout", "error")
    root = recorded.one("session s")
    assert root.status.status_code is StatusCode.ERROR
    assert root.events == ()
    assert recorded.one("execute_tool after").attributes[semconv.LATE] is True
    assert recorded.one("task also after").attributes[semconv.LATE] is True
    documented.holds(recorded.all())


@ending("A block", "it was idle for its `idle_timeout`: no call open, no span, no wait", "idle_timeout", None)
def test_an_idle_session_ends_but_not_while_it_waits_or_calls(recorded: Recorded, documented: Ending):
    """Idle is: no model or tool call open, no span coming or going, not waiting."""
    with otel_sessions.session("s", idle_timeout=0.05) as session:
        with session.waiting():
            _rest(0.8)
        assert session.state == "running"
        with otel_sessions.model_call("gpt"):
            _rest(0.8)
        assert session.state == "running"
        _wait_until(lambda: session.state == "ended")
    assert (session.end_reason, session.outcome) == ("idle_timeout", None)
    documented.holds(recorded.all())


@ending(
    "Nobody ended it", "nobody holds it, it is current nowhere, and is collected", "garbage_collected", None
)
def test_the_collector_of_garbage_ends_only_what_nobody_holds(recorded: Recorded, documented: Ending):
    """A session that is current somewhere, or held, lives on; one that is neither is ended for its user."""

    def forget() -> str:
        session = otel_sessions.start_session("forgotten")
        _context.leave(_context.innermost())
        return session.id

    held = otel_sessions.start_session("held")
    forgotten = forget()
    gc.collect()
    _wait_until(lambda: any(s.name == "session forgotten" for s in recorded.all()))
    root = recorded.one("session forgotten")
    assert root.attributes["session.id"] == forgotten
    documented.holds(recorded.all(), "session forgotten")
    assert held.state == "running"
    held_id, held = held.id, None
    gc.collect()
    assert otel_sessions.current_session().id == held_id
    assert otel_sessions.current_session().state == "running"


@given(steps=st.lists(st.sampled_from(["end", "end error", "leave", "collect"]), min_size=1, max_size=6))
@settings(max_examples=60)
def test_any_interleaving_of_ends_gives_one_end(steps: list[str]):
    """Ended by whatever comes first, exactly once, and never changed afterwards."""
    session = otel_sessions.session("s")
    session.__enter__()
    ends: list[tuple[Any, Any]] = []
    for step in steps:
        if step == "end":
            session.end()
        elif step == "end error":
            session.end("error")
        elif step == "leave":
            session.__exit__(None, None, None)
        else:
            gc.collect(0)
        ends.append((session.end_reason, session.outcome))
    session.__exit__(None, None, None)
    known = [end for end in ends if end != (None, None)]
    assert len(set(known)) <= 1
    assert session.state == "ended"
    assert otel_sessions.current_session() is None


def test_in_ipython_a_new_start_supersedes_the_one_before(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
):
    """There is no block to leave in a notebook, and a cell is run again and again."""
    from types import SimpleNamespace

    from otel_sessions.sdk import _start

    monkeypatch.setattr(_start, "_solo", _start._Solo())
    shell = SimpleNamespace(events=SimpleNamespace(register=lambda *_: None))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    first = otel_sessions.start_session("first")
    second = otel_sessions.start_session("second")
    assert (first.end_reason, first.outcome) == ("superseded", None)
    assert otel_sessions.current_session() is second
    with otel_sessions.session("block"):
        pass
    assert second.state == "running"
    second.end()
    assert otel_sessions.current_session() is None
    assert recorded.one("session second").links == ()


def test_trios_cancellation_is_no_error(recorded: Recorded):
    """Cancelled is a BaseException of trio's own, and sessions follow its tasks."""
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")

    async def job(number: int) -> None:
        async with otel_sessions.session(id=f"s-{number}"):
            with otel_sessions.step(f"s-{number}"):
                await trio.sleep(60 if number else 0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(job, number)
            await testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    roots = {s.attributes["session.id"]: s for s in recorded.all() if s.name == "session session"}
    assert [roots[f"s-{n}"].attributes[semconv.SESSION_OUTCOME] for n in range(3)] == [
        "ok",
        "cancelled",
        "cancelled",
    ]
    steps = [s for s in recorded.all() if s.name.startswith("s-")]
    assert [s.name for s in steps if s.attributes["session.id"] != s.name] == []


def test_spans_that_never_end_do_not_fill_the_memory(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """OpenTelemetry holds no open span; we hold a bounded number, and every root."""
    from otel_sessions.sdk import _registry

    monkeypatch.setattr(_registry, "_MOST_OPEN", 10)
    monkeypatch.setattr(_registry, "_ROOM", 1)
    tracer = recorded.provider.get_tracer("leaky")
    with otel_sessions.session("ended"):
        for _ in range(5):
            tracer.start_span("leaked")
    for _ in range(20):
        tracer.start_span("leaked")
    assert len(_registry.registry.open) == 10
    with otel_sessions.session("open") as session:
        for _ in range(20):
            tracer.start_span("ours")
        assert len(_registry.registry.open) == 10
        assert session.state == "running"
    assert sum("no longer looked after" in message for message in caplog.messages) == 1


def test_the_reasons_are_those_of_the_life_cycle():
    """`end(reason=...)` knows exactly what the backend knows."""
    from otel_sessions.sdk._options import ending_of

    for reason in lifecycle.EndReason:
        assert ending_of(None, reason.value).reason is reason


def _wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")


def _rest(seconds: float) -> None:
    threading.Event().wait(seconds)


class _Hostile(Exception):  # noqa: N818 - what it is called is not the point
    """An exception whose own property raises, as some libraries' proxies do."""

    @property
    def exceptions(self) -> tuple[Exception, ...]:
        raise RuntimeError("not now")


class _Odd:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compare me not")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("error", [_Hostile("theirs"), SystemExit(_Odd())], ids=["property", "exit code"])
def test_no_exception_of_others_is_replaced_by_one_of_ours(recorded: Recorded, error: BaseException):
    """Whatever an exception does when it is looked at, it is the one that leaves the block."""
    with pytest.raises(type(error)) as raised, otel_sessions.session("s"), otel_sessions.tool("t"):
        raise error
    assert raised.value is error
    assert otel_sessions.current_session() is None
    assert {span.name for span in recorded.all()} == {"session s", "execute_tool t"}


class _Unwritable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_what_cant_be_written_down_keeps_no_span_open(recorded: Recorded):
    """The root arrives with its end, without the message that nobody can print."""
    session = otel_sessions.start_session("s")
    with contextlib.suppress(otel_sessions.OtelSessionsError):
        session.end(message=_Unwritable())  # type: ignore[arg-type]
    session.end()
    (root,) = recorded.all()
    assert root.attributes["otel_sessions.session.end_reason"] == "completed"
    otel_sessions.stats()
    _guard._faults.clear()


def test_sessions_that_ended_elsewhere_keep_nothing_alive(recorded: Recorded):
    """A server that starts sessions and lets other threads end them must not grow."""
    for _ in range(50):
        session = otel_sessions.start_session("s")
        thread = threading.Thread(target=session.end)
        thread.start()
        thread.join()
    scope, depth = _context._scope.get(), 0
    while scope is not None:
        scope, depth = scope.outer, depth + 1
    assert depth <= 1
