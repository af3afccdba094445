"""Claims about `task_traces`: each task is a trace of its own, and the session is whole all the same."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from backend_process import BackendProcess
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from outcomes import Ended, Recorded
from span_collector import Collector

import otel_sessions
from otel_sessions import semconv

Run = Callable[..., Ended]


@pytest.fixture
def apart(recorded: Recorded) -> Recorded:
    """Record in this process with a trace for each task."""
    otel_sessions.init(task_traces=True)
    return recorded


def _trace(span: ReadableSpan) -> int:
    return span.context.trace_id


def _links(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def test_a_task_is_a_trace_of_its_own_linked_to_the_root(apart: Recorded):
    """What is inside is below it; what comes after is in the session's trace again."""
    other = apart.provider.get_tracer("other")
    with otel_sessions.session("s") as session:
        with otel_sessions.agent("a"), session.task("t") as task, otel_sessions.tool("x"):
            other.start_span("y").end()
        with otel_sessions.step("z"):
            pass
    root, own, x, y, z = (apart.one(n) for n in ("session s", "task t", "execute_tool x", "y", "z"))
    assert own.parent is None
    assert _trace(own) != _trace(root)
    assert _links(own) == [root.context.span_id]
    assert own.links[0].context.trace_id == _trace(root)
    assert (x.parent.span_id, y.parent.span_id) == (own.context.span_id, x.context.span_id)
    assert _trace(x) == _trace(y) == _trace(own)
    assert _trace(z) == _trace(root)
    for span in (own, x, y):
        assert span.attributes[semconv.SESSION_ID] == session.id
        assert span.attributes[semconv.TASK_ID] == task.id
    assert semconv.TASK_ID not in z.attributes
    assert root.attributes[semconv.SPANS_STARTED] == root.attributes[semconv.SPANS_ENDED] == 6


def test_a_task_within_a_task_is_linked_to_that_too(apart: Recorded):
    """Three traces, one session; the ids tell the parent."""
    with (
        otel_sessions.session("s"),
        otel_sessions.task("outer") as outer,
        otel_sessions.step("x"),
        otel_sessions.task("inner"),
    ):
        pass
    root, around, inner = (apart.one(n) for n in ("session s", "task outer", "task inner"))
    assert len({_trace(root), _trace(around), _trace(inner)}) == 3
    assert inner.parent is None
    assert _links(inner) == [root.context.span_id, around.context.span_id]
    assert inner.attributes[semconv.TASK_PARENT_ID] == outer.id


def test_tasks_at_the_same_time_each_have_their_trace(apart: Recorded):
    """As decorator of coroutines, of generators and of functions in other threads."""

    @otel_sessions.task("coroutine")
    async def coroutine() -> None:
        await asyncio.sleep(0)
        with otel_sessions.step("in coroutine"):
            await asyncio.sleep(0)

    @otel_sessions.task("generator")
    def generator() -> Iterator[int]:
        for number in range(2):
            with otel_sessions.step("in generator"):
                yield number

    async def main() -> None:
        await asyncio.gather(*(coroutine() for _ in range(20)))

    with otel_sessions.session("s") as session:
        asyncio.run(main())
        for _ in zip(generator(), generator(), strict=True):
            with otel_sessions.step("between"):
                pass
        threads = [threading.Thread(target=_in_task, args=(session,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spans = apart.all()
    tasks = {_trace(span): span for span in spans if span.name.startswith("task ")}
    assert len(tasks) == 20 + 2 + 3
    for span in spans:
        if span.name.startswith("in "):
            assert span.attributes[semconv.TASK_ID] == tasks[_trace(span)].attributes[semconv.TASK_ID]
            assert span.name.split()[1] in tasks[_trace(span)].name
    root = apart.one("session s")
    assert {_trace(span) for span in spans if span.name == "between"} == {_trace(root)}
    assert {tuple(_links(task)) for task in tasks.values()} == {(root.context.span_id,)}
    assert apart.ids() == {session.id}


def _in_task(session: otel_sessions.Session) -> None:
    with session.task("thread"), otel_sessions.step("in thread"):
        pass


def test_a_session_within_a_task_links_to_the_task(apart: Recorded):
    """Its tasks are linked to its own root."""
    with (
        otel_sessions.session("outer"),
        otel_sessions.task("t"),
        otel_sessions.session("inner"),
        otel_sessions.task("u"),
    ):
        pass
    inner = apart.one("session inner")
    assert _links(inner) == [apart.one("task t").context.span_id]
    assert _links(apart.one("task u")) == [inner.context.span_id]


def test_a_late_task_and_a_forced_one_are_marked_as_such(apart: Recorded):
    """A trace of its own has no other end than a span below the root has."""
    with otel_sessions.session("over") as session:
        session.end()
        with session.task("late"):
            pass
    otel_sessions.start_session("open")
    otel_sessions.task("forced").__enter__()
    otel_sessions.step("inside").__enter__()
    otel_sessions.shutdown(10)
    spans = {span.name: span for span in apart.exporter.get_finished_spans()}
    late, forced, inside = (spans[name] for name in ("task late", "task forced", "inside"))
    assert late.attributes[semconv.LATE] is True
    assert _links(late) == [spans["session over"].context.span_id]
    assert forced.attributes[semconv.FORCED_END] is inside.attributes[semconv.FORCED_END] is True
    assert forced.end_time == inside.end_time == spans["session open"].end_time
    assert spans["session open"].attributes[semconv.SPANS_ENDED] == 3
    assert _trace(inside) == _trace(forced) != _trace(spans["session open"])


def test_without_a_session_a_task_stays_where_it_is(apart: Recorded):
    """There is no root to link to."""
    with apart.provider.get_tracer("other").start_as_current_span("around"), otel_sessions.task("t"):
        pass
    assert apart.one("task t").parent.span_id == apart.one("around").context.span_id


def test_an_argument_wins_over_the_environment(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    """OTEL_SESSIONS_TASK_TRACES=true asks for it, `init(task_traces=False)` for the opposite."""
    monkeypatch.setenv("OTEL_SESSIONS_TASK_TRACES", "true")
    for name, options in (("first", {}), ("second", {"task_traces": False}), ("third", {})):
        otel_sessions.init(**options)
        with otel_sessions.session(name), otel_sessions.task(name):
            pass
    kept = {name: recorded.one(f"task {name}").parent is not None for name in ("first", "second", "third")}
    assert kept == {"first": False, "second": True, "third": True}


# --- Sampling ----------------------------------------------------------------------------------------------


class _Choosy(Sampler):
    """Takes traces that begin with a session; to others it says `otherwise`."""

    def __init__(self, otherwise: Decision) -> None:
        self.otherwise = otherwise

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any
    ) -> SamplingResult:
        taken = name.startswith("session")
        return SamplingResult(Decision.RECORD_AND_SAMPLE if taken else self.otherwise)

    def get_description(self) -> str:
        return "choosy"


def _recorded_by(sampler: Sampler) -> InMemorySpanExporter:
    provider, exporter = TracerProvider(sampler=sampler, shutdown_on_exit=False), InMemorySpanExporter()
    otel_sessions.init(tracer_provider=provider, exporter=exporter, signals=False, task_traces=True)
    with otel_sessions.session("s"), otel_sessions.task("t"), otel_sessions.step("x"):
        pass
    assert otel_sessions.flush(10).complete
    return exporter


@pytest.mark.parametrize("otherwise", [Decision.DROP, Decision.RECORD_ONLY])
def test_a_session_that_is_recorded_keeps_its_tasks(otherwise: Decision, monkeypatch: pytest.MonkeyPatch):
    """A sampler decides for each trace anew; what it would drop stays in the trace of the session."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    spans = {span.name: span for span in _recorded_by(ParentBased(_Choosy(otherwise))).get_finished_spans()}
    assert set(spans) == {"session s", "task t", "x"}
    assert spans["task t"].parent.span_id == spans["session s"].context.span_id
    assert spans["session s"].attributes[semconv.SPANS_ENDED] == 3


def test_a_session_that_is_not_recorded_has_no_task_that_is(monkeypatch: pytest.MonkeyPatch):
    """A trace with a session that nobody knows would be an orphan."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")

    class OnlyTasks(_Choosy):
        def should_sample(
            self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any
        ) -> Any:
            taken = name.startswith("task")
            return SamplingResult(Decision.RECORD_AND_SAMPLE if taken else Decision.DROP)

    assert _recorded_by(ParentBased(OnlyTasks(Decision.DROP))).get_finished_spans() == ()


# --- Across processes, and on the page ---------------------------------------------------------------------

AGENT = """
import subprocess, sys
import otel_sessions
otel_sessions.init(service_name="parent", task_traces=True)
with otel_sessions.session("s") as session:
    with otel_sessions.step("before"):
        pass
    with session.task("first", id="t-1"), otel_sessions.tool("around"):
        carried = session.carry()
        subprocess.run([sys.executable, "-c", sys.argv[1]], env=otel_sessions.child_env(), check=True)
    with session.task("second", id="t-2"):
        with session.task("within", id="t-3"), otel_sessions.model_call("m"):
            pass
    with otel_sessions.step("after"):
        pass
print(carried["traceparent"], carried["baggage"])
"""
CHILD = """
import otel_sessions
otel_sessions.init(service_name="child", task_traces=True)
with otel_sessions.tool("in child"):
    pass
with otel_sessions.task("of child"):
    pass
"""


def test_a_child_program_below_a_task_knows_the_root(run_program: Run, collector: Collector):
    """Its spans are in the task's trace; its events and its own tasks' links name the root in the other one."""
    ended = run_program(AGENT.replace("sys.argv[1]", repr(CHILD)), collector.env)
    assert (ended.code, ended.err) == (0, "")
    root, first = collector.span("session s"), collector.span("task first")
    around, child = collector.span("execute_tool around"), collector.span("execute_tool in child")
    assert (child.trace_id, child.parent_id) == (first.trace_id, around.span_id)
    assert child.session_id == root.session_id
    assert collector.span("task of child").links == [(root.trace_id, root.span_id)]
    assert f"{around.trace_id:032x}-{around.span_id:016x}" in ended.out
    of_child = [event for event in collector.events() if event.attributes.get(semconv.CHILD)]
    assert {(event.trace_id, event.span_id) for event in of_child} == {(root.trace_id, root.span_id)}
    assert of_child[-1].attributes[semconv.SPANS_ENDED] == 2
    assert root.attributes[semconv.SPANS_ENDED] == len(collector.spans()) - 2


def test_the_backend_shows_one_session_with_its_tasks(run_program: Run, backend: BackendProcess):
    """Nothing is missing, no task stands twice, and each stands where it belongs in the tree."""
    ended = run_program(
        AGENT.replace("sys.argv[1]", repr(CHILD)), {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url}
    )
    assert (ended.code, ended.err) == (0, "")
    (session,) = _json(backend, "/api/v1/sessions")["sessions"]
    assert (session["state"], session["outcome"], session["missing_spans"]) == ("ended", "ok", 0)
    assert (session["tasks_count"], session["traces_count"], session["runs_count"]) == (4, 5, 1)
    detail = _json(backend, f"/api/v1/sessions/{session['id']}")
    parents = {task["name"]: task["parent_id"] for task in detail["tasks"]}
    assert parents == {"first": None, "second": None, "within": "t-2", "of child": None}
    assert {task["state"] for task in detail["tasks"]} == {"done"}
    assert _outline(_json(backend, f"/api/v1/sessions/{session['id']}/rows")) == OUTLINE


OUTLINE = [
    (0, "session s"),
    (1, "before"),
    (1, "task first"),
    (2, "execute_tool around"),
    (3, "execute_tool in child"),
    (1, "task of child"),
    (1, "task second"),
    (1, "task within"),
    (2, "chat m"),
    (1, "after"),
]


def _outline(rows: dict[str, Any]) -> Sequence[tuple[int, str]]:
    columns = rows["columns"]
    return [(d, rows["names"][n]) for d, n in zip(columns["depth"], columns["name"], strict=True)]


def _json(backend: BackendProcess, path: str) -> Any:
    status, _, body = backend.exchange("GET", path)
    assert status == 200, body
    return json.loads(body)
