"""Claims about threads, executors, tasks and greenlets: they stay under their session, and never end another's."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing.dummy
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from outcomes import Ended

import otel_sessions
from otel_sessions.testing import Captured

Run = Callable[..., Ended]


class _OwnRun(threading.Thread):
    """As frameworks write them: without a target."""

    def __init__(self, job: Callable[[], None]) -> None:
        super().__init__()
        self.job = job

    def run(self) -> None:
        self.job()


def _joined(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def _in_executor(job: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(job).result()


def _mapped(job: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert list(pool.map(lambda _: job(), [1])) == [None]


async def _by_the_loop(job: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, job)


WAYS: dict[str, Callable[[Callable[[], None]], None]] = {
    "Thread": lambda job: _joined(threading.Thread(target=job)),
    "Thread subclass": lambda job: _joined(_OwnRun(job)),
    "Timer": lambda job: _joined(threading.Timer(0, job)),
    "ThreadPoolExecutor.submit": _in_executor,
    "ThreadPoolExecutor.map": _mapped,
    "run_in_executor": lambda job: asyncio.run(_by_the_loop(job)),
    "to_thread": lambda job: asyncio.run(asyncio.to_thread(job)),
    "multiprocessing.dummy": lambda job: _joined(multiprocessing.dummy.DummyProcess(target=job)),
}
WITHOUT_HELP = {"to_thread"}


def work() -> None:
    """Do something that a span tells of."""
    with otel_sessions.tool("t"):
        pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["wrap", "thread_context", "neither"])
def test_a_thread_is_in_the_session_that_it_was_started_in(captured_sessions: Captured, way: str, how: str):
    """By `wrap()`, or by itself where that was asked for; else it has none."""
    otel_sessions.init(thread_context=how == "thread_context")
    with otel_sessions.session("s"), otel_sessions.step("around"):
        WAYS[way](otel_sessions.wrap(work) if how == "wrap" else work)
    spans = {span.name: span for span in captured_sessions.spans}
    inside = how != "neither" or way in WITHOUT_HELP
    assert spans["t"].parent_id == (spans["around"].span_id if inside else None)
    assert spans["t"].session_id == ("session-1" if inside else None)


def test_tasks_of_asyncio_stay_under_their_session(captured_sessions: Captured):
    """Tasks, groups of them, callbacks: asyncio copies what is current."""

    async def one(number: int) -> None:
        async with otel_sessions.session("s", id=f"s-{number}"):
            loop = asyncio.get_running_loop()
            done = asyncio.Event()
            with otel_sessions.step(f"around {number}"):
                loop.call_soon(lambda: (work(), done.set()))
                await asyncio.gather(asyncio.create_task(later()), asyncio.to_thread(work), done.wait())
                if sys.version_info >= (3, 11):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(later())
                else:
                    await later()

    async def later() -> None:
        await asyncio.sleep(0)
        work()

    async def main() -> None:
        await asyncio.gather(*map(one, range(20)))

    asyncio.run(main())
    assert len(captured_sessions.sessions) == 20
    for session in captured_sessions.sessions:
        session.assert_tools("t", "t", "t", "t")
        around = session.spans[1]
        assert {span.parent_id for span in session.spans if span.kind == "tool"} == {around.span_id}


def test_executors_are_in_no_session_between_their_jobs(captured_sessions: Captured):
    """Their threads live on: the next job has the session of who submits it, and none where there is none."""
    otel_sessions.init(thread_context=True)
    with ThreadPoolExecutor(1) as pool:
        for name in ("one", "two"):
            with otel_sessions.session(name):
                pool.submit(work).result()
        pool.submit(work).result()
        assert pool.submit(otel_sessions.current_session).result() is None
    assert [session.tools for session in captured_sessions.sessions] == [("t",), ("t",)]
    assert captured_sessions.spans[-1].session_id is None


def test_threads_started_outside_of_sessions_begin_with_nothing(captured_sessions: Captured):
    """And what a job submits or starts in its turn stays in the session of the job."""
    otel_sessions.init(thread_context=True)
    seen: list[object] = []
    _joined(threading.Thread(target=lambda: seen.append(otel_sessions.current_session())))
    assert seen == [None]
    with ThreadPoolExecutor(1) as pool, otel_sessions.session("s"):
        pool.submit(lambda: _joined(threading.Thread(target=work))).result()
    captured_sessions.session().assert_tools("t")


def test_baggage_goes_along_and_other_variables_do_not(captured_sessions: Captured):
    """What OpenTelemetry carries is one Context; what users keep in theirs is none of our business."""
    otel_sessions.init(thread_context=True)
    seen: list[object] = []
    token = otel.attach(baggage.set_baggage("k", "v"))
    _joined(threading.Thread(target=lambda: seen.append(baggage.get_baggage("k"))))
    otel.detach(token)
    assert seen == ["v"]


def test_a_thread_that_has_run_keeps_nothing_alive(captured_sessions: Captured):
    """Neither itself nor what it was given."""
    otel_sessions.init(thread_context=True)
    gc.collect()
    gc.disable()
    try:
        with otel_sessions.session("s"):
            thread = threading.Thread(target=work)
            _joined(thread)
            gone = weakref.ref(thread)
            del thread
        assert gone() is None
    finally:
        gc.enable()


def test_what_was_switched_on_can_be_switched_off(captured_sessions: Captured):
    """What is started from then on has no session; a thousand calls patch nothing twice."""
    for _ in range(1000):
        otel_sessions.init(thread_context=True)
    patched = threading.Thread.start, ThreadPoolExecutor.submit
    otel_sessions.init(thread_context=False)
    otel_sessions.init(thread_context=True)
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == patched
    otel_sessions.init(thread_context=False)
    with otel_sessions.session("s"):
        WAYS["Thread"](work)
        WAYS["ThreadPoolExecutor.submit"](work)
    captured_sessions.session().assert_tools()


def test_ending_in_one_thread_never_ends_the_session_of_another(captured_sessions: Captured):
    """Neither `end_session()` nor a block: each thread ends what it began."""
    barrier = threading.Barrier(2, timeout=20)
    states: dict[str, str] = {}

    def first() -> None:
        session = otel_sessions.start_session("first")
        barrier.wait()
        barrier.wait()
        states["first"] = session.state
        session.end("error")

    def second() -> None:
        otel_sessions.start_session("second")
        barrier.wait()
        assert otel_sessions.end_session()
        assert not otel_sessions.end_session()
        barrier.wait()

    threads = [threading.Thread(target=job) for job in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == {"first": "running"}
    captured_sessions.session("first").assert_outcome("error")
    captured_sessions.session("second").assert_outcome("ok", "completed")


def test_a_parent_that_is_given_wins_over_what_is_current(captured_sessions: Captured):
    """A span that names its parent belongs to the session of that, wherever it is started."""
    theirs = captured_sessions.tracer_provider.get_tracer("theirs")
    with otel_sessions.session("a", id="a"), otel_sessions.tool("parent") as parent:
        context = trace.set_span_in_context(parent.span)
        with otel_sessions.session("b", id="b"):
            theirs.start_span("child", context=context).end()
            theirs.start_span("free", context=otel.Context()).end()
    spans = {span.name: span for span in captured_sessions.spans}
    assert (spans["child"].session_id, spans["child"].parent_id) == ("a", spans["parent"].span_id)
    assert spans["free"].parent_id is None


GREENLETS = {
    "plain": ("import gevent", "gevent.joinall([gevent.spawn(JOB) for _ in range(3)])"),
    "later": ("import gevent", "gevent.spawn_later(0.001, JOB).get(); JOB(); JOB()"),
    "pool": ("import gevent.pool", "job = JOB; gevent.pool.Pool(2).map(lambda _: job(), range(3))"),
    "patched threads": (
        "from gevent import monkey; monkey.patch_all()",
        """
import threading
for _ in range(3):
    thread = threading.Thread(target=JOB)
    thread.start()
    thread.join()
""",
    ),
}


@pytest.mark.parametrize("kind", GREENLETS)
@pytest.mark.parametrize("wrapped", [True, False], ids=["wrap", "thread_context"])
def test_greenlets_stay_under_their_session(run_program: Run, kind: str, wrapped: bool):
    """By `wrap()` or by themselves, patched or not; those of two sessions never mix."""
    pytest.importorskip("gevent")
    setup, start = GREENLETS[kind]
    job = "otel_sessions.wrap(work)" if wrapped else "work"
    ended = run_program(
        f"""{setup}
import gevent, otel_sessions
from otel_sessions.testing import captured_sessions
def work():
    gevent.sleep(0)
    with otel_sessions.tool("t"):
        gevent.sleep(0)
def run(name):
    with otel_sessions.session(name):
{textwrap.indent(start.replace("JOB", job), "        ")}
with captured_sessions() as captured:
    otel_sessions.init(thread_context={not wrapped})
    gevent.joinall([gevent.spawn(run, name) for name in ("one", "two")])
for session in captured.sessions:
    session.assert_tools("t", "t", "t")
    session.assert_outcome("ok")
assert len(captured.sessions) == 2
""",
        {"PYTHONWARNINGS": "ignore"},
    )
    assert (ended.code, ended.err) == (0, "")


def test_an_option_of_the_environment_does_the_same(run_program: Run):
    """OTEL_SESSIONS_THREAD_CONTEXT=true asks for it, `thread_context=False` for the opposite."""
    for options, inside in (("", True), ("thread_context=False", False)):
        ended = run_program(
            f"""
            import threading, otel_sessions
            otel_sessions.init({options})
            with otel_sessions.session("s") as session:
                seen = []
                thread = threading.Thread(target=lambda: seen.append(otel_sessions.current_session()))
                thread.start()
                thread.join()
                assert (seen == [session]) is {inside}
            """,
            {
                "OTEL_SESSIONS_THREAD_CONTEXT": "true",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            },
        )
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("own", ["", "thread.run = thread.run"], ids=["plain", "run of its own"])
def test_a_thread_that_could_not_start_does_its_work_when_it_is_started_again(run_program: Run, own: str):
    """In a process at its limit of threads: it runs in the session of the second start, and is as it was."""
    ended = run_program(
        f"""
        import threading, otel_sessions
        from otel_sessions.testing import captured_sessions
        with captured_sessions():
            otel_sessions.init(thread_context=True)
            with otel_sessions.session("s") as session:
                seen = []
                thread = threading.Thread(target=lambda: seen.append(otel_sessions.current_session()))
                {own or "pass"}
                before = dict(vars(thread))
                name = next(n for n in ("_start_joinable_thread", "_start_new_thread") if hasattr(threading, n))
                starts = getattr(threading, name)
                def refuse(*args, **more):
                    raise RuntimeError("can't start new thread")
                setattr(threading, name, refuse)
                try:
                    thread.start()
                except RuntimeError:
                    assert vars(thread).get("run") == before.get("run")
                else:
                    raise SystemExit("it was to fail")
                setattr(threading, name, starts)
                thread.start()
                thread.join()
                assert seen == [session], seen
                assert vars(thread).get("run") == before.get("run")
        """
    )
    assert (ended.code, ended.err) == (0, "")


def test_a_thread_that_watches_its_attributes_runs_all_the_same(captured_sessions: Captured):
    """What we put on it is taken off without a word to its class."""

    class Strict(_OwnRun):
        def __delattr__(self, name: str) -> None:
            raise TypeError(name)

    otel_sessions.init(thread_context=True)
    with otel_sessions.session("s"):
        _joined(Strict(work))
    captured_sessions.session().assert_tools("t")


def test_a_greenlet_keeps_the_context_that_it_was_given(run_program: Run):
    """Variables of the program that came along by `gr_context` are there, beside the session."""
    pytest.importorskip("gevent")
    ended = run_program(
        """
        import contextvars, gevent, otel_sessions
        from otel_sessions.testing import captured_sessions
        mine = contextvars.ContextVar("mine", default=None)
        mine.set("kept")
        outside = contextvars.copy_context()
        seen = []
        with captured_sessions():
            otel_sessions.init(thread_context=True)
            with otel_sessions.session("s") as session:
                with otel_sessions.session("inner") as inner:
                    inside = contextvars.copy_context()
                for context in (outside, contextvars.copy_context(), inside):
                    greenlet = gevent.Greenlet(lambda: seen.append((mine.get(), otel_sessions.current_session())))
                    greenlet.gr_context = context
                    greenlet.start()
                    greenlet.join()
                assert seen == [("kept", session)] * 3, seen
        """,
        {"PYTHONWARNINGS": "ignore"},
    )
    assert (ended.code, ended.err) == (0, "")


def _all_of(captured: Captured) -> list[Any]:
    return [(span.name, span.session_id) for span in captured.spans]


def test_no_thread_of_ours_is_in_a_session(captured_sessions: Captured):
    """They live as long as the process, and would keep a session current that nobody has any more."""
    otel_sessions.init(thread_context=True)
    session = otel_sessions.session("s", timeout=60)
    with session:
        work()
    gone = weakref.ref(session)
    del session
    assert otel_sessions.current_session() is None
    gc.collect()
    assert gone() is None
    assert _all_of(captured_sessions) == [("s", "session-1"), ("t", "session-1")]
